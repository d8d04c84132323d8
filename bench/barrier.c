/* barrier.c - onetrip-barrier: what starting and ending a job costs, and what a busy core does.
 *
 *   onetrip-barrier [THREADS]
 *
 * For 1..THREADS threads (default: the cores of the machine), in ns a job:
 *   barrier   one piece of WORK_NS a thread, so that every thread takes part; WORK_NS is subtracted
 *   pieces    what one more piece costs: empty ones, 64 a thread
 *   asleep    the barrier of a job that finds the threads asleep
 * Then the speed of jobs like those of a decode step (64 pieces of 10 us), alone and while another
 * process occupies core 0 all the time: the share that is kept. Run it on an idle machine. */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/pool.h"
#include "sys/facts.h"

enum { ROUNDS = 201, JOBS = 100, WAKES = 51, WORK_NS = 2000, DECODE_NS = 10000 };

static void work(void *arg, uint32_t piece, uint32_t worker) {
    (void)piece;
    (void)worker;
    uint64_t ns = *(const uint64_t *)arg;
    if (ns > 0) {
        uint64_t end = clock_ns() + ns;
        while (clock_ns() < end) {
        }
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Best and median of many rounds, ns a job. */
static void measure(struct pool *pool, uint32_t n_pieces, uint64_t piece_ns, double *best,
                    double *median) {
    double ns[ROUNDS];
    for (uint32_t r = 0; r < ROUNDS; r++) {
        uint64_t begin = clock_ns();
        for (uint32_t i = 0; i < JOBS; i++) {
            pool_run(pool, n_pieces, work, &piece_ns);
        }
        ns[r] = (double)(clock_ns() - begin) / JOBS;
    }
    qsort(ns, ROUNDS, sizeof ns[0], by_value);
    *best = ns[0];
    *median = ns[ROUNDS / 2];
}

static double measure_asleep(struct pool *pool) {
    double ns[WAKES];
    uint64_t piece_ns = WORK_NS;
    for (uint32_t r = 0; r < WAKES; r++) {
        struct timespec pause = {.tv_nsec = 2000000};
        nanosleep(&pause, NULL);
        uint64_t begin = clock_ns();
        pool_run(pool, pool_threads(pool), work, &piece_ns);
        ns[r] = (double)(clock_ns() - begin) - WORK_NS;
    }
    qsort(ns, WAKES, sizeof ns[0], by_value);
    return ns[WAKES / 2];
}

/* Jobs a second over one second. */
static double decode_like(struct pool *pool) {
    uint64_t piece_ns = DECODE_NS;
    uint64_t begin = clock_ns();
    uint32_t n = 0;
    while (clock_ns() - begin < 1000000000u) {
        pool_run(pool, 64, work, &piece_ns);
        n++;
    }
    return n / clock_seconds(begin, clock_ns());
}

static pid_t occupy_core(size_t core) {
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        /* It ends with us, also where we are killed; before this call, where we are gone by now. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
            _exit(0);
        }
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(core, &set);
        (void)sched_setaffinity(0, sizeof set, &set);
        for (volatile uint32_t i = 0;; i++) {
        }
    }
    return child;
}

static void measure_kept(struct pool *pool) {
    double alone = decode_like(pool);
    pid_t busy = occupy_core(0);
    if (busy < 0) {
        return;
    }
    struct timespec pause = {.tv_nsec = 100000000};
    nanosleep(&pause, NULL);
    double beside = decode_like(pool);
    kill(busy, SIGKILL);
    waitpid(busy, NULL, 0);
    printf("%3u threads: %.0f jobs/s alone, %.0f with core 0 occupied: %.0f %% kept\n",
           pool_threads(pool), alone, beside, 100 * beside / alone);
}

int main(int argc, char **argv) {
    uint32_t n_max = sys_cpu_facts()->n_logical;
    if (argc > 1) {
        n_max = (uint32_t)strtoul(argv[1], NULL, 10);
    }
    if (argc > 2 || n_max < 1 || n_max > POOL_MAX_THREADS) {
        fprintf(stderr, "usage: onetrip-barrier [THREADS]\n");
        return 2;
    }
    printf("ns a job           barrier: best  median   piece: best  median   asleep: median\n");
    for (uint32_t n = 1; n <= n_max; n++) {
        struct pool *pool = pool_open(n);
        if (pool == NULL) {
            fprintf(stderr, "onetrip-barrier: %u threads are refused\n", n);
            return 1;
        }
        double best, median, piece_best, piece_median;
        measure(pool, n, WORK_NS, &best, &median);
        measure(pool, 64 * n, 0, &piece_best, &piece_median);
        printf("%3u threads %20.0f %7.0f %13.1f %7.1f %16.0f\n", n, best - WORK_NS,
               median - WORK_NS, piece_best / (64 * n), piece_median / (64 * n),
               measure_asleep(pool));
        if (n == n_max) {
            measure_kept(pool);
        }
        pool_close(pool);
    }
    return 0;
}
