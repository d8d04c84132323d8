/* pool.h - the threads that compute.
 *
 * A job is a number of pieces; free threads take pieces until none is left, neighbouring ones as
 * long as they can. The caller takes part as worker 0. A job is over when its pieces are done, not
 * when every thread has come by: a thread that the operating system runs late, or not at all,
 * delays nothing unless it holds a piece. Threads that find nothing to do spin briefly
 * (POOL_SPIN_NS), then sleep, so that an occupied core costs little and a waiting pool costs
 * nothing. Before that, they bring what they have been told to read next (pool_read_ahead) into
 * their caches, so that memory is not idle while the engine computes what only one thread can.
 *
 * Worth knowing when choosing pieces: taking one costs some 20 ns when nobody else takes one, about
 * 100 ns when somebody does; a thread that loses its core in the middle of a piece delays the job
 * until it runs again, so pieces are small (20 to 100 us), not one for each thread.
 *
 * Threads: one thread calls pool_run at a time. Signals that are not faults of the thread itself
 * are blocked in the pool's threads. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stdint.h>

enum { POOL_MAX_THREADS = 1024, POOL_SPIN_NS = 50000 };

struct pool;

/* 1 <= n_threads <= POOL_MAX_THREADS, the caller counted. NULL where memory or a thread is refused.
 */
struct pool *pool_open(uint32_t n_threads);
void pool_close(struct pool *pool);
uint32_t pool_threads(const struct pool *pool);

/* piece < n_pieces; worker < pool_threads. A worker gets the pieces of a range of its own in
 * ascending order, then pieces of the other workers' ranges. */
typedef void pool_fn(void *arg, uint32_t piece, uint32_t worker);

/* Runs fn once for every piece; returns when all are done. What the caller wrote before is seen by
 * fn, what fn wrote is seen by the caller after. Does not allocate. n_pieces may be 0; a single
 * piece runs in the caller. fn must not call pool_run. */
void pool_run(struct pool *pool, uint32_t n_pieces, pool_fn *fn, void *arg);

/* The first piece of a worker's range in a job of n_pieces; where the next one's begins, it has
 * none. */
uint32_t pool_first_piece(const struct pool *pool, uint32_t n_pieces, uint32_t worker);

/* Tells what a worker will read first in the job after the next pool_run, so that it brings those
 * bytes into its L2 cache whenever it waits. A hint: no result depends on it, and addresses that
 * are not there do no harm. It holds until it is used up or replaced. Called between jobs. */
void pool_read_ahead(struct pool *pool, uint32_t worker, const uint8_t *start, uint32_t bytes);

/* How long callers of pool_run have waited for the other threads at the ends of jobs, so far. */
uint64_t pool_waited_ns(const struct pool *pool);

#endif
