/* sample.c - picking a token: repeat penalty, temperature, top-k, top-p, min-p, in the order that
 * llama.cpp's defaults use (penalties, top-k, top-p, min-p, temperature). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "onetrip.h"

enum { BLOCK = 64 };

struct candidate {
    float logit;
    uint32_t token;
};

struct ot_sampler {
    struct ot_sampler_params p;
    uint32_t n_vocab;
    uint64_t random[4];
    struct candidate *candidates; /* owned [n_vocab] */
    uint32_t *recent;             /* owned [repeat_last_n], a ring */
    uint32_t n_recent, next_recent;
    uint64_t *seen; /* owned [n_vocab / 64 + 1], bits, all clear between calls */
};

void ot_sampler_default_params(struct ot_sampler_params *p) {
    *p = (struct ot_sampler_params){
        .seed = 0,
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repeat_penalty = 1.0f,
        .repeat_last_n = 64,
    };
}

/* splitmix64, to spread a seed over the generator's state (Steele, Lea, Flood 2014). */
static uint64_t spread(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, int n) {
    return (x << n) | (x >> (64 - n));
}

/* xoshiro256** (Blackman, Vigna 2018); a number in [0, 1). */
static double next_random(struct ot_sampler *s) {
    uint64_t *r = s->random;
    uint64_t result = rotate_left(r[1] * 5, 7) * 9, t = r[1] << 17;
    r[2] ^= r[0];
    r[3] ^= r[1];
    r[1] ^= r[2];
    r[0] ^= r[3];
    r[2] ^= t;
    r[3] = rotate_left(r[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

static int check_params(uint32_t n_vocab, const struct ot_sampler_params *p, struct ot_error *err) {
    enum { LAST_N_MOST = 1 << 24 };
    if (n_vocab == 0) {
        return error_set(err, OT_ERR_ARGUMENT, "sampler", "a vocabulary of 0 tokens");
    }
    if (!isfinite(p->temperature)) {
        return error_set(err, OT_ERR_ARGUMENT, "sampler",
                         "temperature %g, expected a finite number", (double)p->temperature);
    }
    if (!(p->top_p >= 0 && p->top_p <= 1)) {
        return error_set(err, OT_ERR_ARGUMENT, "sampler", "top_p %g, expected 0 to 1",
                         (double)p->top_p);
    }
    if (!(p->min_p >= 0 && p->min_p <= 1)) {
        return error_set(err, OT_ERR_ARGUMENT, "sampler", "min_p %g, expected 0 to 1",
                         (double)p->min_p);
    }
    if (!isfinite(p->repeat_penalty) || p->repeat_penalty <= 0) {
        return error_set(err, OT_ERR_ARGUMENT, "sampler", "repeat_penalty %g, expected more than 0",
                         (double)p->repeat_penalty);
    }
    if (p->repeat_last_n > LAST_N_MOST) {
        return error_set(err, OT_ERR_ARGUMENT, "sampler", "repeat_last_n %u, expected at most %d",
                         p->repeat_last_n, LAST_N_MOST);
    }
    return OT_OK;
}

int ot_sampler_open(uint32_t n_vocab, const struct ot_sampler_params *params,
                    struct ot_sampler **out, struct ot_error *err) {
    struct ot_sampler_params p;
    ot_sampler_default_params(&p);
    if (params != NULL) {
        p = *params;
    }
    int rc = check_params(n_vocab, &p, err);
    if (rc != OT_OK) {
        return rc;
    }
    struct ot_sampler *s = mem_calloc(1, sizeof *s);
    if (s == NULL) {
        return error_memory(err, sizeof *s);
    }
    s->p = p;
    s->n_vocab = n_vocab;
    uint64_t seed = p.seed;
    for (int i = 0; i < 4; i++) {
        s->random[i] = spread(&seed);
    }
    s->candidates = mem_calloc(n_vocab, sizeof *s->candidates);
    s->recent = mem_calloc(p.repeat_last_n, sizeof *s->recent);
    s->seen = mem_calloc(n_vocab / 64 + 1, sizeof *s->seen);
    if (s->candidates == NULL || s->recent == NULL || s->seen == NULL) {
        ot_sampler_close(s);
        return error_memory(err, n_vocab * sizeof *s->candidates);
    }
    *out = s;
    return OT_OK;
}

void ot_sampler_close(struct ot_sampler *s) {
    if (s != NULL) {
        mem_free(s->candidates);
        mem_free(s->recent);
        mem_free(s->seen);
        mem_free(s);
    }
}

void ot_sampler_accept(struct ot_sampler *s, uint32_t token) {
    if (s->p.repeat_last_n == 0 || token >= s->n_vocab) {
        return;
    }
    s->recent[s->next_recent] = token;
    s->next_recent = (s->next_recent + 1) % s->p.repeat_last_n;
    s->n_recent += s->n_recent < s->p.repeat_last_n;
}

/* Each recent token once, whatever its count. */
static void penalise(struct ot_sampler *s, float *logits) {
    for (uint32_t i = 0; i < s->n_recent; i++) {
        uint32_t token = s->recent[i];
        uint64_t bit = 1ull << token % 64;
        float *logit = &logits[token];
        if ((s->seen[token / 64] & bit) == 0) {
            s->seen[token / 64] |= bit;
            *logit = *logit > 0 ? *logit / s->p.repeat_penalty : *logit * s->p.repeat_penalty;
        }
    }
    for (uint32_t i = 0; i < s->n_recent; i++) {
        s->seen[s->recent[i] / 64] = 0;
    }
}

static bool ranks_before(struct candidate a, struct candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

static int compare(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    return ranks_before(*x, *y) ? -1 : 1;
}

/* The k best in c[0..k), in no order: quickselect with a middle pivot. */
static void select_best(struct candidate *c, uint32_t n, uint32_t k) {
    uint32_t low = 0, high = n;
    while (high - low > 1) {
        struct candidate pivot = c[low + (high - low) / 2];
        uint32_t i = low, j = high - 1;
        for (;;) {
            while (ranks_before(c[i], pivot)) {
                i++;
            }
            while (ranks_before(pivot, c[j])) {
                j--;
            }
            if (i >= j) {
                break;
            }
            struct candidate swap = c[i];
            c[i++] = c[j];
            c[j--] = swap;
        }
        /* c[low..j] rank before or with the pivot, c[j+1..high) after or with it */
        if (k <= j + 1) {
            if (high == j + 1) {
                break;
            }
            high = j + 1;
        } else {
            low = j + 1;
        }
    }
}

static float lowest(const struct candidate *c, uint32_t n) {
    float low = c[0].logit;
    for (uint32_t i = 1; i < n; i++) {
        low = c[i].logit < low ? c[i].logit : low;
    }
    return low;
}

static bool any_above(const float *x, uint32_t n, float bound) {
    int any = 0; /* no early exit: the compiler makes a vector loop of it */
    for (uint32_t i = 0; i < n; i++) {
        any |= x[i] > bound;
    }
    return any != 0;
}

/* The k best of n >= 1 logits in c[0..k), in no order; returns k, or n if that is less. One pass: a
 * logit is looked at twice only where its block has one above the k-th best so far. */
static uint32_t gather_best(const float *logits, uint32_t n, uint32_t k, struct candidate *c) {
    if (k > n / 4) {
        for (uint32_t i = 0; i < n; i++) {
            c[i] = (struct candidate){logits[i], i};
        }
        k = k < n ? k : n;
        select_best(c, n, k);
        return k;
    }
    const uint32_t room = n < 2 * k + BLOCK ? n : 2 * k + BLOCK;
    uint32_t n_best = 0;
    float bound = -INFINITY; /* the k-th best of those that were left behind */
    for (uint32_t start = 0; start < n; start += BLOCK) {
        uint32_t end = n - start < BLOCK ? n : start + BLOCK;
        if (n_best >= k && !any_above(logits + start, end - start, bound)) {
            continue;
        }
        for (uint32_t i = start; i < end; i++) {
            if (n_best < k || logits[i] > bound) {
                c[n_best++] = (struct candidate){logits[i], i};
            }
        }
        if (n_best > k && n_best + BLOCK > room) {
            select_best(c, n_best, k);
            n_best = k;
            bound = lowest(c, k);
        }
    }
    select_best(c, n_best, k);
    return k;
}

/* Cuts sorted candidates by top-p and min-p; returns how many stay, at least one. */
static uint32_t cut(struct ot_sampler *s, uint32_t n) {
    struct candidate *c = s->candidates;
    if (s->p.top_p < 1.0f) {
        double total = 0.0, sum = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            total += exp((double)c[i].logit - c[0].logit);
        }
        uint32_t keep = 0;
        while (keep < n && sum < s->p.top_p * total) {
            sum += exp((double)c[keep++].logit - c[0].logit);
        }
        n = keep > 0 ? keep : 1;
    }
    if (s->p.min_p > 0.0f) {
        float floor_logit = c[0].logit + logf(s->p.min_p);
        while (n > 1 && c[n - 1].logit < floor_logit) {
            n--;
        }
    }
    return n;
}

static uint32_t draw(struct ot_sampler *s, uint32_t n) {
    struct candidate *c = s->candidates;
    double total = 0.0, t = s->p.temperature;
    for (uint32_t i = 0; i < n; i++) {
        total += exp(((double)c[i].logit - c[0].logit) / t);
    }
    double left = next_random(s) * total;
    for (uint32_t i = 0; i + 1 < n; i++) {
        left -= exp(((double)c[i].logit - c[0].logit) / t);
        if (!(left >= 0.0)) { /* not a number where the best logit is infinite: a penalty's work */
            return c[i].token;
        }
    }
    return c[n - 1].token;
}

uint32_t ot_sampler_pick(struct ot_sampler *s, float *logits) {
    if (s->p.repeat_penalty != 1.0f) {
        penalise(s, logits);
    }
    uint32_t token;
    if (s->p.temperature <= 0.0f) {
        gather_best(logits, s->n_vocab, 1, s->candidates);
        token = s->candidates[0].token;
    } else {
        uint32_t k = s->p.top_k != 0 ? s->p.top_k : s->n_vocab;
        uint32_t n = gather_best(logits, s->n_vocab, k, s->candidates);
        qsort(s->candidates, n, sizeof *s->candidates, compare);
        token = draw(s, cut(s, n));
    }
    ot_sampler_accept(s, token);
    return token;
}
