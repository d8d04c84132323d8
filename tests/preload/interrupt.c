/* interrupt.c - a shared object that a test preloads into the program: Ctrl-C comes twice just
 * before a file gets its name. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

int rename(const char *from, const char *to) {
    raise(SIGINT);
    raise(SIGINT);
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}
