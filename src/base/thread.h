/* thread.h - starting threads of our own inside a host's process.
 *
 * Threads: any. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* As pthread_create, but the host's signals are handled on its own threads, never on this one. Its own
 * faults stay open: the guard of file mappings needs its SIGBUS where it happens. 0 or an errno. */
int thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

#endif
