/* draft.c - guessing the next tokens from what was said before, so that one sweep serves several.
 *
 * Text repeats itself: names, quotations, code, lists. What followed the last time the text ended
 * as it does now is a cheap guess (prompt lookup). ot_decode checks a guess in the sweep that it
 * makes anyhow; where weights are streamed, the further tokens cost next to nothing, and a third of
 * a sweep or so in memory.
 *
 * How many tokens are worth guessing is decided from what guesses have been worth so far:
 *
 *   chance[b]    that a guessed token is right, by the number of tokens that matched before it
 *   sweep_s      seconds of a sweep of one token
 *   further_s    seconds that each further token adds
 *
 * A guess of k tokens gives 1 + p + ... + p^k tokens for sweep_s + k further_s; k is the one that
 * gives most for its time, if that is a tenth more than without. So where guesses fail, or cost
 * about what they give, none are made. What keeps guesses from being made is forgotten slowly, so
 * that they are tried again: one sweep that was held up must not end them for the rest of a run.
 *
 * Sources: Leviathan et al. 2023, "Fast inference from transformers via speculative decoding" (why
 * the text stays the same); Saxena 2023, prompt lookup decoding. */
#include <math.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "model/forward.h"
#include "onetrip.h"

enum {
    BUCKETS = 4,       /* matches of 1, 2, 3, and more tokens */
    LONGEST = 16,      /* a longer match is no better */
    CHANCE_STEP = 16,  /* one in so many of the difference is learned from a token */
    TIME_STEP = 4,     /* the same, from a sweep's time */
    FORGET_STEP = 512, /* a chance that is never tried goes back to where it began */
    RETRY_STEP = 256,  /* the same, for what a further token costs, if that was much */
};
static const double first_chance[BUCKETS] = {0.25, 0.4, 0.6, 0.7};
static const double first_further = 0.125; /* of sweep_s, until it has been measured */
static const double worth_while = 1.1;     /* times as many tokens a second: less is not risked */

struct ot_drafter {
    uint32_t n_most;
    double chance[BUCKETS];
    double sweep_s, further_s;  /* 0: not known yet; further_s < 0: not known yet */
    uint32_t n_guessed, bucket; /* of the guess that is out */
};

int ot_drafter_open(uint32_t n_most, struct ot_drafter **out, struct ot_error *err) {
    struct ot_drafter *d = mem_calloc(1, sizeof *d);
    if (d == NULL) {
        return error_memory(err, sizeof *d);
    }
    d->n_most = min_u32(n_most, FORWARD_FEW - 1);
    d->further_s = -1.0;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        d->chance[i] = first_chance[i];
    }
    *out = d;
    return OT_OK;
}

void ot_drafter_close(struct ot_drafter *drafter) {
    mem_free(drafter);
}

/* The latest place in ids, other than its end, before which stands the longest match with its end.
 * 0: none. *length is the match's, at most LONGEST. */
static size_t find_match(const uint32_t *ids, size_t n, uint32_t *length) {
    size_t best = 0;
    *length = 0;
    for (size_t at = n - 1; at > 0 && *length < LONGEST; at--) {
        uint32_t same = 0;
        while (same < LONGEST && same < at && ids[at - 1 - same] == ids[n - 1 - same]) {
            same++;
        }
        if (same > *length) {
            *length = same;
            best = at;
        }
    }
    return best;
}

/* Tokens to guess: as many as give most for their time. */
static uint32_t choose(const struct ot_drafter *d, double chance, uint32_t n_most) {
    if (d->sweep_s <= 0.0) {
        return min_u32(n_most, 1); /* nothing is known yet */
    }
    double further = d->further_s < 0.0 ? first_further * d->sweep_s : d->further_s;
    double given = 1.0, power = 1.0, best = worth_while / d->sweep_s;
    uint32_t n = 0;
    for (uint32_t k = 1; k <= n_most; k++) {
        power *= chance;
        given += power;
        double rate = given / (d->sweep_s + k * further);
        if (rate > best) {
            best = rate;
            n = k;
        }
    }
    return n;
}

uint32_t ot_drafter_guess(struct ot_drafter *d, const uint32_t *ids, size_t n_ids, uint32_t n_most,
                          uint32_t *tokens) {
    uint32_t length = 0;
    size_t at = n_ids > 1 ? find_match(ids, n_ids, &length) : 0;
    d->n_guessed = 0;
    if (at == 0) {
        return 0;
    }
    d->bucket = min_u32(length, BUCKETS) - 1;
    double *chance = &d->chance[d->bucket];
    d->n_guessed = choose(d, *chance, min_u32(n_most, d->n_most));
    if (d->n_guessed == 0) {
        *chance += (first_chance[d->bucket] - *chance) / FORGET_STEP;
        d->further_s -= fmax(d->further_s - first_further * d->sweep_s, 0.0) / RETRY_STEP;
    }
    for (uint32_t i = 0; i < d->n_guessed; i++) { /* what repeats itself goes on in the guess */
        tokens[i] = at + i < n_ids ? ids[at + i] : tokens[at + i - n_ids];
    }
    return d->n_guessed;
}

void ot_drafter_learn(struct ot_drafter *d, uint32_t n_accepted, double seconds) {
    double *chance = &d->chance[d->bucket];
    for (uint32_t i = 0; i < d->n_guessed && i <= n_accepted; i++) {
        *chance += ((i < n_accepted ? 1.0 : 0.0) - *chance) / CHANCE_STEP;
    }
    if (!(seconds > 0.0) || !isfinite(seconds)) {
        return;
    }
    if (d->sweep_s <= 0.0) {
        d->sweep_s = seconds;
    } else if (d->n_guessed == 0 || seconds < d->sweep_s) {
        d->sweep_s += (seconds - d->sweep_s) / TIME_STEP;
    }
    if (d->n_guessed > 0) { /* a further token costs no less than nothing, no more than a sweep */
        double further = fmax((seconds - d->sweep_s) / d->n_guessed, 0.0);
        further = fmin(further, d->sweep_s);
        d->further_s =
            d->further_s < 0.0 ? further : d->further_s + (further - d->further_s) / TIME_STEP;
    }
}
