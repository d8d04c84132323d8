/* reader_threads.c - reads by a few threads with pread.
 *
 * Invariants, under `lock`:
 *   waiting holds ops that no thread has taken; finished those that no caller has collected
 *
 * Threads: the caller's, and n_threads readers that sleep when there is nothing to read. Where no
 * thread may be made, the caller's reads. */
#include <pthread.h>

#include "base/alloc.h"
#include "base/thread.h"
#include "sys/hook.h"
#include "sys/reader_impl.h"

enum { THREADS_CHOSEN = 4, THREADS_MAX = 64 };

struct threads {
    struct sys_reader *reader; /* borrowed */
    pthread_mutex_t lock;
    pthread_cond_t work, finish;
    struct op_list waiting, finished;
    struct op_list added; /* of the caller's thread: not started yet */
    bool closing;
    uint32_t n_threads;
    pthread_t threads[THREADS_MAX];
};

static void run(struct op *op) {
    int64_t result;
    do {
        if (!op_spoiled(op, &result)) {
            result =
                sys_file_pread_raw(op->read.file, op->read.direct, op->read.offset + op->got_bytes,
                                   (uint8_t *)op->read.buf + op->got_bytes, op->ask_bytes);
        }
    } while (!op_result(op, result));
}

static void *reader_main(void *arg) {
    struct threads *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        uint32_t i = op_pop(t->reader, &t->waiting);
        if (i == OP_NONE) {
            if (t->closing) {
                break;
            }
            pthread_cond_wait(&t->work, &t->lock);
            continue;
        }
        pthread_mutex_unlock(&t->lock);
        run(&t->reader->ops[i]);
        pthread_mutex_lock(&t->lock);
        op_push(t->reader, &t->finished, i);
        pthread_cond_signal(&t->finish);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void begin(struct sys_reader *r, uint32_t i) {
    struct threads *t = r->threads;
    op_push(r, &t->added, i);
}

static void start(struct sys_reader *r) {
    struct threads *t = r->threads;
    if (t->added.first == OP_NONE) {
        return;
    }
    for (uint32_t i; t->n_threads == 0 && (i = op_pop(r, &t->added)) != OP_NONE;) {
        run(&r->ops[i]);
        op_push(r, &r->done, i);
    }
    pthread_mutex_lock(&t->lock);
    for (uint32_t i; (i = op_pop(r, &t->added)) != OP_NONE;) {
        op_push(r, &t->waiting, i);
        pthread_cond_signal(&t->work);
    }
    pthread_mutex_unlock(&t->lock);
}

static void collect(struct sys_reader *r, bool wait) {
    struct threads *t = r->threads;
    start(r);
    pthread_mutex_lock(&t->lock);
    while (wait && t->n_threads > 0 && t->finished.first == OP_NONE) {
        pthread_cond_wait(&t->finish, &t->lock);
    }
    for (uint32_t i; (i = op_pop(r, &t->finished)) != OP_NONE;) {
        op_push(r, &r->done, i);
    }
    pthread_mutex_unlock(&t->lock);
}

static void threads_close(struct sys_reader *r) {
    struct threads *t = r->threads;
    pthread_mutex_lock(&t->lock);
    t->closing = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->n_threads; i++) {
        pthread_join(t->threads[i], NULL);
    }
    t->n_threads = 0;
}

static const struct reader_way threads_way = {begin, start, collect, threads_close};

bool threads_take(struct sys_reader *r) {
    struct threads *t = mem_calloc(1, sizeof *t);
    if (t == NULL) {
        return false;
    }
    t->reader = r;
    t->waiting = t->finished = t->added = (struct op_list){OP_NONE, OP_NONE};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->finish, NULL);
    r->threads = t;
    return true;
}

void threads_begin(struct sys_reader *r) {
    struct threads *t = r->threads;
    uint32_t wanted = r->n_threads == 0 ? THREADS_CHOSEN : r->n_threads;
    r->way = &threads_way;
    r->uring = false;
    while (t->n_threads < wanted && t->n_threads < THREADS_MAX &&
           thread_start(&t->threads[t->n_threads], reader_main, t) == 0) {
        t->n_threads++; /* fewer than asked for will do */
    }
}

void threads_free(struct sys_reader *r) {
    struct threads *t = r->threads;
    pthread_cond_destroy(&t->finish);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}
