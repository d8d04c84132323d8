/* test_pool.c - the threads that compute: every piece once, in any weather. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/pool.h"

enum { MOST_PIECES = 4096, MOST_THREADS = 64 };

struct job {
    uint32_t n_pieces;
    uint32_t times[MOST_PIECES]; /* plain: each piece is one thread's, the caller reads after */
    _Atomic uint32_t n_out_of_range;
    uint32_t n_threads;
};

/* Lengthens some pieces, a few by giving the core away, so that threads meet at every point. */
static void dawdle(uint32_t piece) {
    static _Atomic uint32_t turn;
    uint32_t n = atomic_fetch_add_explicit(&turn, 2654435761u, memory_order_relaxed) ^ piece;
    for (volatile uint32_t i = 0; i < (n >> 8) % 128; i++) {
    }
    if (n >> 16 < 1500) {
        sched_yield();
    }
}

static void count(void *arg, uint32_t piece, uint32_t worker) {
    struct job *job = arg;
    if (piece >= job->n_pieces || worker >= job->n_threads) {
        atomic_fetch_add(&job->n_out_of_range, 1);
        return;
    }
    dawdle(piece);
    job->times[piece]++;
}

static void run_and_check(struct pool *pool, struct job *job, uint32_t n_pieces) {
    job->n_pieces = n_pieces;
    job->n_threads = pool_threads(pool);
    memset(job->times, 0, n_pieces * sizeof job->times[0]);
    pool_run(pool, n_pieces, count, job);
    for (uint32_t i = 0; i < n_pieces; i++) {
        assert_int_equal(job->times[i], 1);
    }
    assert_int_equal(job->n_out_of_range, 0);
}

static void test_every_piece_runs_exactly_once(void **state) {
    (void)state;
    static const uint32_t threads[] = {1, 2, 3, 7, MOST_THREADS};
    static const uint32_t pieces[] = {0, 1, 2, 3, 5, 64, 1000, MOST_PIECES};
    static struct job job;
    for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
        struct pool *pool = pool_open(threads[t]);
        assert_non_null(pool);
        assert_int_equal(pool_threads(pool), threads[t]);
        for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++) {
            run_and_check(pool, &job, pieces[p]);
        }
        pool_close(pool);
    }
}

struct walk {
    _Atomic uint32_t n_run;
    uint32_t n_pieces;
    struct {
        uint32_t first, next, n_run, n_jumps;
    } worker[2];
};

/* Piece 0 holds its worker until the others are done. */
static void walk(void *arg, uint32_t piece, uint32_t worker) {
    struct walk *w = arg;
    if (w->worker[worker].n_run++ == 0) {
        w->worker[worker].first = piece;
    } else {
        w->worker[worker].n_jumps += piece != w->worker[worker].next;
    }
    w->worker[worker].next = piece + 1;
    while (piece == 0 && atomic_load(&w->n_run) + 1 < w->n_pieces) {
        sched_yield();
    }
    atomic_fetch_add(&w->n_run, 1);
}

static void
test_a_worker_goes_through_its_own_range_and_then_through_what_others_left(void **state) {
    (void)state;
    struct pool *pool = pool_open(2);
    assert_non_null(pool);
    for (uint32_t i = 0; i < 200; i++) {
        struct walk w = {.n_pieces = 1000};
        pool_run(pool, w.n_pieces, walk, &w);
        assert_int_equal(w.n_run, 1000);
        assert_true(w.worker[1].n_run >= 500);
        assert_int_equal(w.worker[1].first, 500);
        assert_true(w.worker[0].n_jumps + w.worker[1].n_jumps <= 1);
    }
    pool_close(pool);
}

static void test_many_generations_with_more_threads_than_cores_lose_no_piece(void **state) {
    (void)state;
    static struct job job;
    struct pool *pool = pool_open(9);
    assert_non_null(pool);
    for (uint32_t i = 0; i < 6000; i++) {
        run_and_check(pool, &job, i % 23);
    }
    pool_close(pool);
}

/* Each job has its own arg on the caller's stack, dead after pool_run: a late thread that touched
 * it would be seen by the sanitizers, and by the sum. */
static void add_piece(void *arg, uint32_t piece, uint32_t worker) {
    (void)worker;
    dawdle(piece);
    atomic_fetch_add((_Atomic uint64_t *)arg, piece + 1);
}

static void test_a_late_thread_never_works_on_a_job_that_is_over(void **state) {
    (void)state;
    struct pool *pool = pool_open(4);
    assert_non_null(pool);
    for (uint32_t i = 0; i < 6000; i++) {
        _Atomic uint64_t sum = 0;
        uint32_t n = 2 + i % 7;
        pool_run(pool, n, add_piece, (void *)&sum);
        assert_int_equal(sum, n * (n + 1) / 2);
    }
    pool_close(pool);
}

static void pause_ns(long ns) {
    struct timespec t = {.tv_nsec = ns};
    nanosleep(&t, NULL);
}

static void test_threads_that_fell_asleep_are_woken(void **state) {
    (void)state;
    static struct job job;
    struct pool *pool = pool_open(3);
    assert_non_null(pool);
    for (uint32_t i = 0; i < 100; i++) {
        /* Around the moment at which they go to sleep, and well after it. */
        pause_ns(i % 2 == 0 ? POOL_SPIN_NS + (long)(i % 20) * 1000 - 10000 : 300000);
        run_and_check(pool, &job, 50);
    }
    pool_close(pool);
}

struct meeting {
    _Atomic uint32_t n_arrived;
    uint32_t n_expected;
};

/* Holds its worker until all have come: passes only if as many threads work at the same time. */
static void meet(void *arg, uint32_t piece, uint32_t worker) {
    (void)piece;
    (void)worker;
    struct meeting *m = arg;
    atomic_fetch_add(&m->n_arrived, 1);
    while (atomic_load(&m->n_arrived) < m->n_expected) {
        pause_ns(10000);
    }
}

static void test_all_threads_take_part_and_the_caller_sleeps_until_the_last(void **state) {
    (void)state;
    struct pool *pool = pool_open(5);
    assert_non_null(pool);
    for (uint32_t i = 0; i < 20; i++) {
        struct meeting m = {.n_expected = 5};
        pool_run(pool, 5, meet, &m);
        assert_int_equal(m.n_arrived, 5);
        pause_ns(i % 2 == 0 ? 0 : 200000);
    }
    pool_close(pool);
}

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_in_piece_0(void *arg, uint32_t piece, uint32_t worker) {
    (void)arg;
    (void)worker;
    if (piece == 0) {
        pause_ns(200000000);
    }
}

/* 8 threads that spun for 200 ms would use hundreds of milliseconds of processor time. */
static void test_waiting_threads_do_not_burn_the_processor(void **state) {
    (void)state;
    struct pool *pool = pool_open(8);
    assert_non_null(pool);
    uint64_t before = cpu_ns();
    pool_run(pool, 8, sleep_in_piece_0, NULL);
    pause_ns(200000000);
    assert_true(cpu_ns() - before < 60000000);
    pool_close(pool);
}

static void test_pieces_are_not_lost_while_another_process_occupies_the_cores(void **state) {
    (void)state;
    pid_t busy[2];
    for (size_t i = 0; i < 2; i++) {
        busy[i] = fork();
        if (busy[i] == 0) {
            for (volatile uint32_t spin = 0;; spin++) {
            }
        }
        assert_true(busy[i] > 0);
    }
    static struct job job;
    struct pool *pool = pool_open(4);
    assert_non_null(pool);
    for (uint32_t i = 0; i < 300; i++) {
        run_and_check(pool, &job, 40);
    }
    pool_close(pool);
    for (size_t i = 0; i < 2; i++) {
        kill(busy[i], SIGKILL);
        waitpid(busy[i], NULL, 0);
    }
}

static _Atomic int n_signals_elsewhere;
static pid_t caller_tid;

static void on_signal(int number) {
    (void)number;
    if (gettid() != caller_tid) {
        atomic_fetch_add(&n_signals_elsewhere, 1);
    }
}

static void test_signals_reach_the_callers_thread_only(void **state) {
    (void)state;
    caller_tid = gettid();
    struct sigaction action = {.sa_handler = on_signal}, before;
    sigaction(SIGUSR1, &action, &before);
    static struct job job;
    struct pool *pool = pool_open(4);
    assert_non_null(pool);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    /* Blocked in the caller, it would go to any thread that lets it in. */
    pthread_sigmask(SIG_BLOCK, &set, &old);
    kill(getpid(), SIGUSR1);
    run_and_check(pool, &job, 100);
    pause_ns(1000000);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    assert_int_equal(n_signals_elsewhere, 0);
    pool_close(pool);
    sigaction(SIGUSR1, &before, NULL);
}

static void test_opening_and_closing_leaves_no_memory_and_no_thread(void **state) {
    (void)state;
    uint64_t before = mem_live_bytes();
    for (uint32_t i = 0; i < 200; i++) {
        struct pool *pool = pool_open(1 + i % 6);
        assert_non_null(pool);
        if (i % 3 == 0) {
            _Atomic uint64_t sum = 0;
            pool_run(pool, 4, add_piece, (void *)&sum);
            assert_int_equal(sum, 10);
        }
        pool_close(pool);
    }
    assert_int_equal(mem_live_bytes(), before);
    pool_close(NULL);
}

static void test_a_refused_allocation_gives_no_pool(void **state) {
    (void)state;
    mem_fail_at(1);
    assert_null(pool_open(4));
    mem_fail_at(0);
}

/* Whatever it points at, a hint changes no result and touches no memory. */
static void test_reading_ahead_is_only_a_hint(void **state) {
    (void)state;
    static struct job job;
    static const uint8_t bytes[1 << 16];
    static const uint8_t *const starts[] = {bytes, NULL, (const uint8_t *)UINTPTR_MAX - 100};
    struct pool *pool = pool_open(3);
    assert_non_null(pool);
    for (uint32_t i = 0; i < 300; i++) {
        for (uint32_t w = 0; w < 3; w++) {
            pool_read_ahead(pool, w, starts[(i + w) % 3], i % 2 == 0 ? sizeof bytes : UINT32_MAX);
        }
        run_and_check(pool, &job, 1 + i % 40);
    }
    pool_close(pool);
}

static void test_ranges_begin_where_the_pool_says(void **state) {
    (void)state;
    struct pool *pool = pool_open(3);
    assert_non_null(pool);
    assert_int_equal(pool_first_piece(pool, 10, 0), 0);
    assert_int_equal(pool_first_piece(pool, 10, 1), 3);
    assert_int_equal(pool_first_piece(pool, 10, 2), 6);
    assert_int_equal(pool_first_piece(pool, 10, 3), 10);
    assert_int_equal(pool_first_piece(pool, UINT32_MAX, 3), UINT32_MAX);
    assert_int_equal(pool_first_piece(pool, 1, 1), 0);
    pool_close(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_piece_runs_exactly_once),
        cmocka_unit_test(
            test_a_worker_goes_through_its_own_range_and_then_through_what_others_left),
        cmocka_unit_test(test_many_generations_with_more_threads_than_cores_lose_no_piece),
        cmocka_unit_test(test_a_late_thread_never_works_on_a_job_that_is_over),
        cmocka_unit_test(test_threads_that_fell_asleep_are_woken),
        cmocka_unit_test(test_all_threads_take_part_and_the_caller_sleeps_until_the_last),
        cmocka_unit_test(test_waiting_threads_do_not_burn_the_processor),
        cmocka_unit_test(test_pieces_are_not_lost_while_another_process_occupies_the_cores),
        cmocka_unit_test(test_reading_ahead_is_only_a_hint),
        cmocka_unit_test(test_ranges_begin_where_the_pool_says),
        cmocka_unit_test(test_signals_reach_the_callers_thread_only),
        cmocka_unit_test(test_opening_and_closing_leaves_no_memory_and_no_thread),
        cmocka_unit_test(test_a_refused_allocation_gives_no_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
