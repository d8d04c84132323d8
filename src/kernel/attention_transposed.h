/* attention_transposed.h - the order of attention where a block of keys is transposed into scratch, as
 * with AVX2 and NEON: each block is converted to f32 once, then all query rows pass over it, a few at
 * a time, with an online softmax. */
#ifndef KERNEL_ATTENTION_TRANSPOSED_H
#define KERNEL_ATTENTION_TRANSPOSED_H

#include <math.h>
#include <string.h>

#include "kernel/attention_rows.h"

/* Scratch of one call; stride: head_dim rounded up to 16. */
struct work {
    float *k;      /* [stride][KEYS] */
    float *v;      /* [KEYS][stride] */
    float *values; /* [n_q][stride]: sum of weight * v */
    float *weight; /* [n_q][KEYS], of this block */
    float *keep;   /* [n_q] factor of what was summed before this block */
    float *best;   /* [n_q] */
    float *sum;    /* [n_q] */
    uint32_t stride;
};

static inline uint64_t work_bytes(uint32_t head_dim) {
    const uint64_t stride = round_up(head_dim, 16);
    return 4 * (stride * KEYS + stride * KEYS + stride * KERNEL_MAX_Q + KEYS * KERNEL_MAX_Q +
                3 * KERNEL_MAX_Q);
}

static inline struct work work_lay_out(void *scratch, uint32_t head_dim) {
    struct work w;
    w.stride = (uint32_t)round_up(head_dim, 16);
    w.k = scratch;
    w.v = w.k + (uint64_t)w.stride * KEYS;
    w.values = w.v + (uint64_t)w.stride * KEYS;
    w.weight = w.values + (uint64_t)w.stride * KERNEL_MAX_Q;
    w.keep = w.weight + KEYS * KERNEL_MAX_Q;
    w.best = w.keep + KERNEL_MAX_Q;
    w.sum = w.best + KERNEL_MAX_Q;
    return w;
}

/* What an instruction set does of it. */
struct attention_isa {
    /* [n_keys, head_dim] to [head_dim][KEYS]; zeros for keys that are not there */
    void (*transpose_keys)(const uint16_t *k, uint32_t n_keys, uint32_t head_dim, float *out);
    /* [n_keys, head_dim] to [n_keys][stride] */
    void (*convert_values)(const uint16_t *v, uint32_t n_keys, uint32_t head_dim, uint32_t stride,
                           float *out);
    /* [n - 1]: n rows over the block; their weights and values, brought up to date */
    void (*block[ROWS_AT_ONCE])(const struct kernel_attention *a, const struct work *w,
                                const struct rows *rows, uint32_t n_keys);
    uint32_t max_rows;
};

INLINE void attention_transposed(const struct attention_isa *isa, const struct kernel_attention *a,
                                 void *scratch) {
    const struct work w = work_lay_out(scratch, a->head_dim);
    const struct span all = all_rows_span(a);
    for (uint32_t row = 0; row < a->n_q; row++) {
        w.best[row] = -INFINITY;
        w.sum[row] = 0;
    }
    memset(w.values, 0, (uint64_t)a->n_q * w.stride * sizeof(float));
    if (w.stride > a->head_dim) /* what no value fills stays 0 */
        memset(w.v, 0, (uint64_t)KEYS * w.stride * sizeof(float));
    for (uint64_t start = all.begin / KEYS * KEYS; start < all.end; start += KEYS) {
        const uint32_t n_keys = (uint32_t)min_u64(all.end - start, KEYS);
        const uint64_t at = kernel_key_offset(a, start);
        isa->transpose_keys(a->k + at, n_keys, a->head_dim, w.k);
        isa->convert_values(a->v + at, n_keys, a->head_dim, w.stride, w.v);
        struct rows rows;
        for (uint32_t row = 0, n; (n = next_rows(a, start, isa->max_rows, &row, &rows)) > 0;)
            isa->block[n - 1](a, &w, &rows, n_keys);
    }
    for (uint32_t row = 0; row < a->n_q; row++) {
        const float factor = 1.0f / w.sum[row];
        for (uint32_t d = 0; d < a->head_dim; d++)
            a->out[row][d] = w.values[(uint64_t)row * w.stride + d] * factor;
        if (a->totals != NULL)
            a->totals[row] = (double)w.best[row] + log((double)w.sum[row]);
    }
}

#endif
