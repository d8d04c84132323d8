/* stop.c - Ctrl-C and SIGTERM, and the files that must not be left behind by them. */
#include "cli/stop.h"

#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

volatile int stop_flag;
const char *volatile stop_unfinished;

static void on_interrupt(int number) {
    if (stop_flag != 0) {
        if (stop_unfinished != NULL) {
            unlink(stop_unfinished);
        }
        signal(number, SIG_DFL);
        raise(number); /* comes when this handler returns */
    }
    stop_flag = 1;
}

static void watch(int number) {
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

void stop_watch(void) {
    watch(SIGINT);
}

void stop_on_terminate(void) {
    watch(SIGTERM);
}

void stop_reset(void) {
    stop_flag = 0;
    stop_watch();
}

static const int held_signals[STOP_HELD] = {SIGINT, SIGTERM, SIGHUP};
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
    for (size_t i = 0; i < STOP_HELD; i++) {
        sigaction(held_signals[i], &action, &h->before[i]);
    }
}

void stop_release(const struct stop_held *h) {
    if (!h->holds) {
        return;
    }
    for (size_t i = 0; i < STOP_HELD; i++) {
        sigaction(held_signals[i], &h->before[i], NULL);
    }
    if (held != 0) {
        raise(held);
    }
}
