/* prefetch_trial.h - which way to prefetch is the fastest, found out while decoding. It is another
 * one for one token than for several, whose kernels compute longer for the same bytes: a trial is
 * of jobs of one number of tokens.
 *
 * The best way depends on the machine, and on shared machines on the minute: where memory is slow
 * because others use it, leaving it to the hardware is faster by a twentieth; where it is fast,
 * prefetching far ahead is, by a quarter (bench/results/kernels-decode.md). */
#ifndef MODEL_PREFETCH_TRIAL_H
#define MODEL_PREFETCH_TRIAL_H

#include <stdint.h>

#include "kernel/kernel.h"

/* All zero but the way: nothing was tried yet. */
struct prefetch_trial {
    uint32_t way;                       /* of the next job (kernels_use_prefetch_way) */
    uint32_t n_tokens, n_others;        /* of its jobs; others' in a row since the last of them */
    uint32_t n_jobs;                    /* taken in, until the trial is over */
    uint32_t first_way;                 /* the way in use when it began */
    double rates[KERNEL_PREFETCH_WAYS]; /* bytes a nanosecond, added up over its jobs */

    uint32_t n_watched, n_watches; /* jobs of the watch on; watches ended since the trial */
    double watched, at_first;      /* rates added up: of the watch on, of the first one */
};

enum {
    PREFETCH_RUN_JOBS = 8,   /* two layers of most models: their matrices differ */
    PREFETCH_WARM_JOBS = 96, /* the first ones wait for pages */
    PREFETCH_TRIAL_JOBS = 4 * PREFETCH_RUN_JOBS * KERNEL_PREFETCH_WAYS,
    PREFETCH_WATCH_JOBS = 256,
    PREFETCH_WATCHES_MOST = 32, /* some seconds of decoding a model of 1 GB */
    PREFETCH_OTHERS_MOST = 512, /* jobs of other numbers of tokens: the trial is of theirs from then */
};

/* Takes in how long a job of decode took, whose weights must be large enough to say something, and
 * chooses the way of the next one. ns: 0 counts as 1. */
void prefetch_trial_job(struct prefetch_trial *t, uint32_t n_tokens, uint64_t bytes, uint64_t ns);

#endif
