/* pool.h - the threads that compute.
 *
 * A job is a number of pieces; free threads take pieces until none is left. The caller takes part
 * as worker 0. Threads spin briefly between jobs, then sleep, so that an occupied core costs little
 * and a waiting pool costs nothing.
 *
 * Threads: one thread calls pool_run at a time. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stdint.h>

struct pool;

/* n_threads >= 1, the caller counted. NULL where memory or a thread is refused. */
struct pool *pool_open(uint32_t n_threads);
void pool_close(struct pool *pool);
uint32_t pool_threads(const struct pool *pool);

/* piece < n_pieces; worker < pool_threads. Pieces of one worker come in ascending order. */
typedef void pool_fn(void *arg, uint32_t piece, uint32_t worker);

/* Runs fn once for every piece; returns when all are done. Does not allocate. n_pieces may be 0. */
void pool_run(struct pool *pool, uint32_t n_pieces, pool_fn *fn, void *arg);

#endif
