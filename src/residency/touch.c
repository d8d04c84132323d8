/* touch.c - memory for wired weights, brought in ahead of the reads.
 *
 * The system clears a page when it is first touched, and the host of a virtual machine may have to
 * find the memory behind it: seconds for gigabytes. A read into untouched memory does that on the
 * thread that issues the reads, while the disk waits. So two threads of
 * their own go through the arena in the order in which it will be filled. Two, because one is no
 * faster than the reads behind it. Content is not changed: it does not matter who comes first.
 *
 * Threads: touch_begin and touch_end are the engine thread's. Where no thread can be had, or the
 * system does not know the call, the reads do it as before. */
#include <signal.h>

#include "base/checked.h"
#include "residency/mover.h"
#include "sys/memory.h"

enum { STEP_BYTES = 2 << 20 };

static void *touch_arena(void *arg) {
    struct touch *t = arg;
    uint64_t at = 0;
    while (!atomic_load(&t->stop) && (at = atomic_fetch_add(&t->next, STEP_BYTES)) < t->bytes) {
        if (!sys_memory_touch(t->memory + at, min_u64(STEP_BYTES, t->bytes - at))) {
            break;
        }
    }
    return NULL;
}

void touch_begin(struct mover *m) {
    struct touch *t = &m->touch;
    t->memory = m->arena;
    t->bytes = m->layout.arena_bytes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (t->n_threads < TOUCH_THREADS && t->bytes > 0 &&
           pthread_create(&t->threads[t->n_threads], NULL, touch_arena, t) == 0) {
        t->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void touch_end(struct mover *m) {
    atomic_store(&m->touch.stop, true);
    while (m->touch.n_threads > 0) {
        pthread_join(m->touch.threads[--m->touch.n_threads], NULL);
    }
}
