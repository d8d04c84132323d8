/* stop.h - Ctrl-C and SIGTERM, and the files that must not be left behind by them. */
#ifndef CLI_STOP_H
#define CLI_STOP_H

#include <signal.h>
#include <stdbool.h>

/* Ctrl-C: the first one sets the flag and the running step ends; the second one kills. */
extern volatile int stop_flag;
/* Borrowed; a file that the second one deletes, NULL: none. */
extern const char *volatile stop_unfinished;
void stop_watch(void);
/* SIGTERM ends the running step, too: for commands that are not a conversation. */
void stop_on_terminate(void);
/* Forgets a Ctrl-C that was answered, and listens for the next. */
void stop_reset(void);

/* Between these two a signal waits: what ends the program in the middle of a file that is renamed
 * when it is whole would leave it behind under its temporary name. Where path is a pipe or a device
 * they do nothing: it may wait for ever, and is written in place. */
enum { STOP_HELD = 3 }; /* signals that wait */
struct stop_held {
    bool holds;
    struct sigaction before[STOP_HELD];
};
void stop_hold(struct stop_held *h, const char *path);
void stop_release(const struct stop_held *h);

#endif
