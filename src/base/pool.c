/* pool.c - the threads that compute.
 *
 * The pieces of a job are divided into ranges, one a thread. A thread takes the pieces of its own
 * range in order, so that what it reads from memory goes on where the piece before ended and the
 * hardware's prefetchers do not lose it; then it takes pieces of the others' ranges, in the same
 * way. `untaken` of a range is how many of its pieces nobody has taken yet. A piece is taken by
 * lowering it by one with a compare-and-swap, never below 0. A job that is over has left all of
 * them at 0, and that is all that a late thread can see of it; if the next job has begun meanwhile,
 * the late thread takes pieces of that one, like any other.
 *
 * Why the job's other fields need no lock: fn, arg, n_pieces and the ends of ranges are written by
 * the caller before it publishes `untaken`, and read only by who has taken a piece. The caller does
 * not return, so cannot write them again, before every taken piece is in n_done.
 *
 * Sleeping. A thread raises n_sleeping, then looks at n_jobs a last time, then sleeps on `epoch`.
 * The caller publishes the ranges, then raises n_jobs, then looks at n_sleeping, and only if it is
 * not 0 changes `epoch` and wakes. Both orders are sequentially consistent, so one of the two sees
 * the other. The caller itself sleeps on n_done behind the flag caller_sleeps in the same way.
 *
 * Reading ahead. `ahead` and `ahead_bytes` of a range belong to its thread, which moves them on,
 * and the caller, which replaces them while the thread may still be at it. Either may then see
 * halves of two hints: a few lines are fetched in vain.
 *
 * Invariant: sum of untaken + pieces being run + pieces run and not yet counted + n_done ==
 * n_pieces while a job is on. */
#include "base/pool.h"

#include <assert.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/thread.h"

enum {
    CACHE_LINE = 64,
    SPINS_PER_CLOCK = 16,
    AHEAD_STEP = 512, /* bytes fetched between two looks at whether there is work */
};

struct worker {
    struct pool *pool;
    pthread_t thread;
    uint32_t id;
    uint32_t n_seen; /* jobs begun when it last looked */
};

/* A thread's share of the job on: pieces [end - untaken, end). */
struct range {
    _Alignas(CACHE_LINE) _Atomic uint32_t untaken;
    uint32_t end;
    /* What its thread will read in the job after this one. In a line of its own, which the thread
     * looks at while it waits: the caller must not wait for that line to begin a job. */
    _Alignas(CACHE_LINE) _Atomic uintptr_t ahead;
    _Atomic uint32_t ahead_bytes;
};

struct pool {
    /* One line: who begins a job needs the rest of it next. */
    _Alignas(CACHE_LINE) _Atomic uint32_t n_jobs; /* begun so far */
    uint32_t n_pieces;
    pool_fn *fn;
    void *arg;
    struct range *ranges;                         /* [n_threads], in memory */
    _Alignas(CACHE_LINE) _Atomic uint32_t n_done; /* of the job on; the caller sleeps on it */
    _Atomic uint32_t caller_sleeps;
    _Alignas(CACHE_LINE) _Atomic uint32_t n_sleeping; /* threads about to sleep on, or on, epoch */
    _Atomic uint32_t epoch;
    _Atomic uint32_t closing;
    uint32_t n_threads, n_started;
    uint64_t waited_ns;      /* the caller's */
    void *memory;            /* owned: what was allocated, this struct lies aligned in it */
    struct worker workers[]; /* [n_threads - 1] */
};

static void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, uint32_t n) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* Takes pieces of a range and runs them until none is left; returns how many it ran. */
static uint32_t take_from(struct pool *p, struct range *range, uint32_t worker) {
    uint32_t n_run = 0;
    uint32_t n = atomic_load_explicit(&range->untaken, memory_order_relaxed);
    while (n > 0) {
        if (atomic_compare_exchange_weak_explicit(&range->untaken, &n, n - 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            p->fn(p->arg, range->end - n, worker);
            n_run++;
            n = atomic_load_explicit(&range->untaken, memory_order_relaxed);
        }
    }
    return n_run;
}

/* Takes pieces of the job on and runs them until none is left, its own share first; returns how
 * many it ran. */
static uint32_t take_pieces(struct pool *p, uint32_t worker) {
    uint32_t n_run = 0;
    for (uint32_t i = worker; i < p->n_threads; i++) {
        n_run += take_from(p, &p->ranges[i], worker);
    }
    for (uint32_t i = 0; i < worker; i++) {
        n_run += take_from(p, &p->ranges[i], worker);
    }
    return n_run;
}

static bool work_to_do(struct pool *p, uint32_t n_seen) {
    return atomic_load(&p->n_jobs) != n_seen || atomic_load(&p->closing) != 0;
}

static bool all_done(struct pool *p, uint32_t unused) {
    (void)unused;
    return atomic_load(&p->n_done) == p->n_pieces;
}

void pool_read_ahead(struct pool *p, uint32_t worker, const uint8_t *start, uint32_t bytes) {
    struct range *range = &p->ranges[worker];
    atomic_store_explicit(&range->ahead, (uintptr_t)start, memory_order_relaxed);
    atomic_store_explicit(&range->ahead_bytes, bytes, memory_order_relaxed);
}

/* A step of it; false where nothing is left. */
static bool read_ahead(struct range *range) {
    uint32_t left = atomic_load_explicit(&range->ahead_bytes, memory_order_relaxed);
    if (left == 0) {
        return false;
    }
    uintptr_t address = atomic_load_explicit(&range->ahead, memory_order_relaxed);
    uint32_t step = min_u32(left, AHEAD_STEP);
    for (uint32_t i = 0; i < step; i += CACHE_LINE) {
        __builtin_prefetch((const void *)(address + i), 0, 2);
    }
    atomic_store_explicit(&range->ahead, address + step, memory_order_relaxed);
    atomic_store_explicit(&range->ahead_bytes, left - step, memory_order_relaxed);
    return true;
}

/* True as soon as the condition is; false when the time to spin is over. */
static bool spin_until(bool (*condition)(struct pool *, uint32_t), struct pool *p, uint32_t value,
                       uint32_t worker) {
    uint64_t end_ns = 0;
    do {
        for (uint32_t i = 0; i < SPINS_PER_CLOCK; i++) {
            if (condition(p, value)) {
                return true;
            }
            if (!read_ahead(&p->ranges[worker])) {
                cpu_relax();
            }
        }
        if (end_ns == 0) {
            end_ns = clock_ns() + POOL_SPIN_NS;
        }
    } while (clock_ns() < end_ns);
    return false;
}

static void wait_for_work(struct pool *p, uint32_t n_seen, uint32_t worker) {
    while (!spin_until(work_to_do, p, n_seen, worker)) {
        atomic_fetch_add(&p->n_sleeping, 1);
        uint32_t epoch = atomic_load(&p->epoch);
        if (!work_to_do(p, n_seen)) {
            futex_wait(&p->epoch, epoch);
        }
        atomic_fetch_sub(&p->n_sleeping, 1);
    }
}

static void wake_for_work(struct pool *p, uint32_t n) {
    if (atomic_load(&p->n_sleeping) > 0) {
        atomic_fetch_add(&p->epoch, 1);
        futex_wake(&p->epoch, n);
    }
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (;;) {
        wait_for_work(p, w->n_seen, w->id);
        w->n_seen = atomic_load(&p->n_jobs);
        if (atomic_load(&p->closing) != 0) {
            return NULL;
        }
        uint32_t n_run = take_pieces(p, w->id);
        /* After the addition the job may be over, and the next one begun: only the sum that the
         * addition itself returned may be compared, with the n_pieces read before it. */
        if (n_run > 0) {
            uint32_t n_pieces = p->n_pieces;
            if (atomic_fetch_add(&p->n_done, n_run) + n_run == n_pieces &&
                atomic_load(&p->caller_sleeps) != 0) {
                futex_wake(&p->n_done, 1);
            }
        }
    }
}

static void wait_for_done(struct pool *p) {
    uint64_t start_ns = clock_ns();
    while (!spin_until(all_done, p, 0, 0)) {
        atomic_store(&p->caller_sleeps, 1);
        uint32_t n_done = atomic_load(&p->n_done);
        if (n_done != p->n_pieces) {
            futex_wait(&p->n_done, n_done);
        }
        atomic_store(&p->caller_sleeps, 0);
    }
    p->waited_ns += clock_ns() - start_ns;
}

/* Ranges have the same length. */
uint32_t pool_first_piece(const struct pool *p, uint32_t n_pieces, uint32_t worker) {
    return (uint32_t)((uint64_t)n_pieces * worker / p->n_threads);
}

static void publish(struct pool *p, uint32_t n_pieces) {
    for (uint32_t i = 0; i < p->n_threads; i++) {
        uint32_t first = pool_first_piece(p, n_pieces, i);
        uint32_t end = pool_first_piece(p, n_pieces, i + 1);
        p->ranges[i].end = end;
        atomic_store_explicit(&p->ranges[i].untaken, end - first, memory_order_release);
    }
    atomic_fetch_add(&p->n_jobs, 1);
}

void pool_run(struct pool *p, uint32_t n_pieces, pool_fn *fn, void *arg) {
    if (n_pieces <= 1 || p->n_started == 0) {
        for (uint32_t i = 0; i < n_pieces; i++) {
            fn(arg, i, 0);
        }
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n_pieces = n_pieces;
    atomic_store_explicit(&p->n_done, 0, memory_order_relaxed);
    publish(p, n_pieces);
    wake_for_work(p, min_u32(n_pieces - 1, p->n_started));
    uint32_t n_run = take_pieces(p, 0);
    if (atomic_fetch_add(&p->n_done, n_run) + n_run != n_pieces) {
        wait_for_done(p);
    }
}

struct pool *pool_open(uint32_t n_threads) {
    assert(n_threads >= 1 && n_threads <= POOL_MAX_THREADS);
    uint64_t ranges_at =
        round_up(sizeof(struct pool) + (n_threads - 1) * sizeof(struct worker), CACHE_LINE);
    void *memory = mem_calloc(1, ranges_at + n_threads * sizeof(struct range) + CACHE_LINE);
    if (memory == NULL) {
        return NULL;
    }
    struct pool *p = (struct pool *)(uintptr_t)round_up((uintptr_t)memory, CACHE_LINE);
    p->memory = memory;
    p->ranges = (struct range *)(void *)((uint8_t *)p + ranges_at);
    p->n_threads = n_threads;
    for (uint32_t i = 0; i + 1 < n_threads; i++) {
        p->workers[i] = (struct worker){.pool = p, .id = i + 1};
        if (thread_start(&p->workers[i].thread, worker_main, &p->workers[i]) != 0) {
            break;
        }
        p->n_started++;
    }
    if (p->n_started + 1 < n_threads) {
        pool_close(p);
        return NULL;
    }
    return p;
}

void pool_close(struct pool *p) {
    if (p == NULL) {
        return;
    }
    atomic_store(&p->closing, 1);
    wake_for_work(p, p->n_started);
    for (uint32_t i = 0; i < p->n_started; i++) {
        pthread_join(p->workers[i].thread, NULL);
    }
    mem_free(p->memory);
}

uint64_t pool_waited_ns(const struct pool *p) {
    return p->waited_ns;
}

uint32_t pool_threads(const struct pool *p) {
    return p->n_threads;
}
