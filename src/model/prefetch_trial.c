/* prefetch_trial.c - a trial uses the ways in turn, a few jobs each, because the speed of memory
 * changes within seconds. Rates are added up, not times, because a job that another program held up
 * would outweigh all others. The way in use stays unless another is clearly faster.
 *
 * After a trial the rate of the chosen way is watched. When it is no longer what it was, memory has
 * changed its speed, and there is another trial; and one now and then in any case, since memory may
 * have changed in the middle of the last one. */
#include "model/prefetch_trial.h"

#include <stdbool.h>

enum { TRIAL_END = PREFETCH_WARM_JOBS + PREFETCH_TRIAL_JOBS };

static const double margin = 1.03;
static const double change = 1.12;

static uint32_t way_of(const struct prefetch_trial *t, uint32_t job) {
    uint32_t run = (job - PREFETCH_WARM_JOBS) / PREFETCH_RUN_JOBS;
    return (t->first_way + run) % KERNEL_PREFETCH_WAYS;
}

static uint32_t fastest(const struct prefetch_trial *t) {
    uint32_t way = t->first_way;
    double best = t->rates[way] * margin;
    for (uint32_t i = 0; i < KERNEL_PREFETCH_WAYS; i++) {
        if (t->rates[i] > best) {
            best = t->rates[i];
            way = i;
        }
    }
    return way;
}

static void begin(struct prefetch_trial *t) {
    *t = (struct prefetch_trial){
        .way = t->way, .n_tokens = t->n_tokens, .n_jobs = PREFETCH_WARM_JOBS, .first_way = t->way};
}

static void watch(struct prefetch_trial *t, double rate) {
    t->watched += rate;
    if (++t->n_watched < PREFETCH_WATCH_JOBS) {
        return;
    }
    if (t->n_watches++ == 0) {
        t->at_first = t->watched;
    }
    bool changed = t->watched > t->at_first * change || t->watched * change < t->at_first;
    t->watched = 0.0;
    t->n_watched = 0;
    if (changed || t->n_watches == PREFETCH_WATCHES_MOST) {
        begin(t);
    }
}

/* Whether a job is one of the trial's. Numbers of tokens change with every guess: the trial is of
 * the first one as long as it comes again and again. */
static bool belongs(struct prefetch_trial *t, uint32_t n_tokens) {
    if (t->n_tokens != n_tokens && t->n_tokens != 0 && ++t->n_others < PREFETCH_OTHERS_MOST) {
        return false;
    }
    if (t->n_tokens != n_tokens) {
        *t = (struct prefetch_trial){.way = t->way, .n_tokens = n_tokens};
    }
    t->n_others = 0;
    return true;
}

void prefetch_trial_job(struct prefetch_trial *t, uint32_t n_tokens, uint64_t bytes, uint64_t ns) {
    if (!belongs(t, n_tokens)) {
        return;
    }
    double rate = (double)bytes / (double)(ns > 0 ? ns : 1);
    if (t->n_jobs < PREFETCH_WARM_JOBS) {
        if (++t->n_jobs == PREFETCH_WARM_JOBS) {
            begin(t);
        }
    } else if (t->n_jobs < TRIAL_END) {
        t->rates[way_of(t, t->n_jobs++)] += rate;
        t->way = t->n_jobs < TRIAL_END ? way_of(t, t->n_jobs) : fastest(t);
    } else {
        watch(t, rate);
    }
}
