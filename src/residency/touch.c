/* touch.c - memory for weights, brought in ahead of the reads.
 *
 * The system clears a page when it is first touched, and the host of a virtual machine may have to
 * find the memory behind it: seconds for gigabytes. A read into untouched memory does that on the
 * thread that issues the reads, while the disk waits. So two threads of their own go through the
 * arena in the order in which it will be filled, and then through the experts' frames, a little
 * ahead of those that were handed out: not all of them may be needed. Two threads, because one is
 * no faster than the reads behind it. Content is not changed: it does not matter who comes first.
 *
 * Threads: touch_begin, touch_frames and touch_end are the engine thread's. Where no thread can be
 * had, or the system does not know the call, the reads do it as before. */

#include "base/checked.h"
#include "base/thread.h"
#include "residency/mover.h"
#include "sys/memory.h"

enum { STEP_BYTES = 2 << 20, FRAMES_AHEAD_BYTES = 128 << 20 };

/* The next step's memory; false at the end. */
static bool next_step(struct touch *t, uint8_t **memory, uint64_t *bytes) {
    pthread_mutex_lock(&t->lock);
    while (!t->stop && t->next >= t->until && t->next < t->arena_bytes + t->frames_bytes) {
        pthread_cond_wait(&t->changed, &t->lock);
    }
    uint64_t at = t->next;
    bool in_arena = at < t->arena_bytes;
    uint64_t end = in_arena ? t->arena_bytes : t->arena_bytes + t->frames_bytes;
    bool more = !t->stop && at < end;
    if (more) {
        *memory = in_arena ? t->arena + at : t->frames + (at - t->arena_bytes);
        *bytes = min_u64(STEP_BYTES, end - at);
        t->next = at + *bytes;
    }
    pthread_mutex_unlock(&t->lock);
    return more;
}

static void *touch_memory(void *arg) {
    uint8_t *memory;
    uint64_t bytes;
    while (next_step(arg, &memory, &bytes) && sys_memory_touch(memory, bytes)) {
    }
    return NULL;
}

void touch_begin(struct mover *m) {
    struct touch *t = &m->touch;
    t->arena = m->arena;
    t->arena_bytes = m->layout.arena_bytes;
    t->frames = experts_frames(m, &t->frames_bytes);
    t->until = max_u64(t->until, t->arena_bytes + FRAMES_AHEAD_BYTES);
    t->stop = false;
    if (t->next >= t->arena_bytes + t->frames_bytes || pthread_mutex_init(&t->lock, NULL) != 0) {
        return;
    }
    if (pthread_cond_init(&t->changed, NULL) != 0) {
        pthread_mutex_destroy(&t->lock);
        return;
    }
    t->begun = true;
    while (t->n_threads < TOUCH_THREADS &&
           thread_start(&t->threads[t->n_threads], touch_memory, t) == 0) {
        t->n_threads++;
    }
}

void touch_frames(struct mover *m, const uint8_t *end) {
    struct touch *t = &m->touch;
    uint64_t until = t->arena_bytes + (uint64_t)(end - t->frames) + FRAMES_AHEAD_BYTES;
    if (t->n_threads == 0 || until <= t->until) { /* only this thread writes until */
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->until = until;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

void touch_end(struct mover *m) {
    struct touch *t = &m->touch;
    if (!t->begun) {
        return;
    }
    t->begun = false;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    while (t->n_threads > 0) {
        pthread_join(t->threads[--t->n_threads], NULL);
    }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
}
