/* pool.c - the threads that compute: pieces by an atomic counter, spin then sleep. */
#include "base/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"

enum { SPINS = 4000 };

struct pool {
    pool_fn *fn;
    void *arg;
    uint32_t n_pieces, n_threads, n_started;
    bool closing;
    _Alignas(64) _Atomic uint32_t generation; /* a new job, or closing */
    _Alignas(64) _Atomic uint32_t next_piece;
    _Alignas(64) _Atomic uint32_t n_busy; /* workers that have not finished the job */
    struct worker {
        struct pool *pool;
        pthread_t thread;
        uint32_t id;
    } *workers; /* owned [n_threads - 1] */
};

static void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wait_while(_Atomic uint32_t *word, uint32_t value) {
    for (uint32_t i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value) {
            return;
        }
        cpu_relax();
    }
    while (atomic_load_explicit(word, memory_order_acquire) == value) {
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
    }
}

static void wake_all(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void take_pieces(struct pool *p, uint32_t worker) {
    for (;;) {
        uint32_t piece = atomic_fetch_add_explicit(&p->next_piece, 1, memory_order_relaxed);
        if (piece >= p->n_pieces) {
            return;
        }
        p->fn(p->arg, piece, worker);
    }
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        wait_while(&p->generation, seen);
        seen = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (p->closing) {
            return NULL;
        }
        take_pieces(p, w->id);
        if (atomic_fetch_sub_explicit(&p->n_busy, 1, memory_order_acq_rel) == 1) {
            wake_all(&p->n_busy);
        }
    }
}

struct pool *pool_open(uint32_t n_threads) {
    struct pool *p = mem_calloc(1, sizeof *p + 64);
    if (p == NULL) {
        return NULL;
    }
    p->n_threads = n_threads;
    p->workers = mem_calloc(n_threads, sizeof *p->workers);
    if (p->workers == NULL) {
        mem_free(p);
        return NULL;
    }
    for (uint32_t i = 0; i + 1 < n_threads; i++) {
        p->workers[i] = (struct worker){.pool = p, .id = i + 1};
        if (pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]) != 0) {
            pool_close(p);
            return NULL;
        }
        p->n_started++;
    }
    return p;
}

void pool_close(struct pool *p) {
    if (p == NULL) {
        return;
    }
    p->closing = true;
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
    wake_all(&p->generation);
    for (uint32_t i = 0; i < p->n_started; i++) {
        pthread_join(p->workers[i].thread, NULL);
    }
    mem_free(p->workers);
    mem_free(p);
}

uint32_t pool_threads(const struct pool *p) { return p->n_threads; }

void pool_run(struct pool *p, uint32_t n_pieces, pool_fn *fn, void *arg) {
    if (n_pieces <= 1 || p->n_threads == 1) {
        for (uint32_t i = 0; i < n_pieces; i++) {
            fn(arg, i, 0);
        }
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n_pieces = n_pieces;
    atomic_store_explicit(&p->next_piece, 0, memory_order_relaxed);
    atomic_store_explicit(&p->n_busy, p->n_threads - 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
    wake_all(&p->generation);
    take_pieces(p, 0);
    for (uint32_t busy; (busy = atomic_load_explicit(&p->n_busy, memory_order_acquire)) != 0;) {
        wait_while(&p->n_busy, busy);
    }
}
