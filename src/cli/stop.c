/* stop.c - Ctrl-C, SIGTERM and SIGHUP, and the files that must not be left behind by them. */
#include "cli/stop.h"

#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

volatile int stop_flag;
volatile sig_atomic_t stop_program;
const char *volatile stop_unfinished;

/* SIGHUP never kills: of a terminal that is closed, the shell and the kernel send one each. */
static void on_signal(int number) {
    bool again = number == SIGINT ? stop_flag != 0 : number == SIGTERM && stop_program != 0;
    if (again) {
        if (stop_unfinished != NULL) {
            unlink(stop_unfinished);
        }
        signal(number, SIG_DFL);
        raise(number); /* comes when this handler returns */
    }
    if (number != SIGINT) {
        stop_program = 1;
    }
    stop_flag = 1;
}

static const int signals[STOP_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};

void stop_watch(void) {
    struct sigaction action = {.sa_handler = on_signal}, before;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < STOP_SIGNALS; i++) {
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
            sigaction(signals[i], &action, NULL);
        }
    }
}

void stop_reset(void) {
    stop_flag = 0;
    if (stop_program != 0) { /* asked after, so that one that comes meanwhile is not lost */
        stop_flag = 1;
    }
}

void stop_block(sigset_t *before) {
    sigset_t all;
    sigemptyset(&all);
    for (size_t i = 0; i < STOP_SIGNALS; i++) {
        sigaddset(&all, signals[i]);
    }
    sigprocmask(SIG_BLOCK, &all, before);
}

static volatile sig_atomic_t held;

static void on_held(int number) {
    held = number;
}

void stop_hold(struct stop_held *h, const char *path) {
    struct stat facts;
    h->holds = stat(path, &facts) != 0 || S_ISREG(facts.st_mode);
    if (!h->holds) {
        return;
    }
    struct sigaction action = {.sa_handler = on_held, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    held = 0;
    for (size_t i = 0; i < STOP_SIGNALS; i++) {
        sigaction(signals[i], &action, &h->before[i]);
    }
}

void stop_release(const struct stop_held *h) {
    if (!h->holds) {
        return;
    }
    for (size_t i = 0; i < STOP_SIGNALS; i++) {
        sigaction(signals[i], &h->before[i], NULL);
    }
    if (held != 0) {
        raise(held);
    }
}
