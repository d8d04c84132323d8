/* stop.h - Ctrl-C, SIGTERM and SIGHUP, and the files that must not be left behind by them. */
#ifndef CLI_STOP_H
#define CLI_STOP_H

#include <signal.h>
#include <stdbool.h>

enum { STOP_SIGNALS = 3 };

/* The first signal sets the flag and the running step ends; a second Ctrl-C, or SIGTERM, kills. */
extern volatile int stop_flag;
/* Not 0: SIGTERM or SIGHUP came. The program is to end, also a conversation, of which Ctrl-C stops
 * the answer. */
extern volatile sig_atomic_t stop_program;
/* Borrowed; a file that the second one deletes, NULL: none. */
extern const char *volatile stop_unfinished;
/* What is ignored stays so: nohup ignores SIGHUP, a shell without job control SIGINT of what runs in
 * the background. */
void stop_watch(void);
/* Forgets a Ctrl-C that was answered, and listens for the next. */
void stop_reset(void);
/* Keeps the signals waiting, until the set of before is put back. */
void stop_block(sigset_t *before);

/* Between these two a signal waits: what ends the program in the middle of a file that is renamed
 * when it is whole would leave it behind under its temporary name. Where path is a pipe or a device
 * they do nothing: it may wait for ever, and is written in place. */
struct stop_held {
    bool holds;
    struct sigaction before[STOP_SIGNALS];
};
void stop_hold(struct stop_held *h, const char *path);
void stop_release(const struct stop_held *h);

#endif
