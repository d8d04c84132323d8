/* gemm_scalar.c - many tokens by a weight matrix, plain and complete: the oracle of the others.
 *
 * Quantised weights: an integer dot product for each 16 codes, then their two scales. Sums are kept
 * in double, so that a difference to another instruction set is that one's rounding. */
#include <string.h>

#include "base/dtype.h"
#include "kernel/codes.h"
#include "kernel/fill.h"
#include "kernel/half.h"
#include "kernel/layout.h"
#include "kernel/tile.h"

/* One block's part of a row's value for one token; i: the block's first column. */
static double block_dot(const struct codes *c, uint32_t n, const void *act, uint32_t i,
                        uint32_t n_cols) {
    const int8_t *q = layout_q8_q(act) + i;
    const float *d = layout_q8_d(act, n_cols) + i / 16, *s = layout_q8_s(act, n_cols) + i / 16;
    double sum = 0;
    for (uint32_t b = 0; b < n / 16; b++) {
        int32_t dot = 0;
        for (uint32_t j = 16 * b; j < 16 * b + 16; j++)
            dot += c->q[j] * q[j];
        sum += (double)c->d[b] * (double)d[b] * dot;
        if (c->has_min)
            sum += (double)c->m[b] * (double)s[b];
    }
    return sum;
}

static void gemm_quantised(uint32_t dtype, const struct gemm *g, double *sums) {
    const uint32_t n = dtype_get(dtype)->block_values, bytes = dtype_get(dtype)->block_bytes;
    struct codes c;
    for (uint32_t r = 0; r < g->n_rows; r++) {
        const uint8_t *w = g->w + r * g->row_bytes;
        /* As many tokens at a time as sums has room for: a block is decoded once for them. */
        for (uint32_t t0 = 0; t0 < g->n_tokens; t0 += KERNEL_TILE_ROWS) {
            const uint32_t n_t =
                g->n_tokens - t0 < KERNEL_TILE_ROWS ? g->n_tokens - t0 : KERNEL_TILE_ROWS;
            memset(sums, 0, n_t * sizeof *sums);
            for (uint32_t b = 0; b < g->n_cols / n; b++) {
                codes_unpack(dtype, w + (uint64_t)b * bytes, &c);
                for (uint32_t t = 0; t < n_t; t++)
                    sums[t] += block_dot(&c, n, gemm_act(g, t0 + t), b * n, g->n_cols);
            }
            for (uint32_t t = 0; t < n_t; t++)
                g->y[(t0 + t) * g->y_stride + r] = (float)sums[t];
        }
    }
}

static float weight_f32(const uint8_t *w) {
    float f;
    memcpy(&f, w, 4);
    return f;
}

static float weight_f16(const uint8_t *w) {
    return half_to_f32((uint16_t)(w[0] | w[1] << 8));
}

static float weight_bf16(const uint8_t *w) {
    return half_bf16_to_f32((uint16_t)(w[0] | w[1] << 8));
}

static void gemm_float(const struct gemm *g, float (*weight)(const uint8_t *), uint32_t bytes) {
    for (uint32_t r = 0; r < g->n_rows; r++) {
        const uint8_t *w = g->w + r * g->row_bytes;
        for (uint32_t t = 0; t < g->n_tokens; t++) {
            const float *x = (const void *)gemm_act(g, t);
            double sum = 0;
            for (uint32_t i = 0; i < g->n_cols; i++)
                sum += (double)weight(w + (uint64_t)i * bytes) * (double)x[i];
            g->y[t * g->y_stride + r] = (float)sum;
        }
    }
}

GEMM_TABLE(gemm_entries);
GEMM_ENTRY(gemm_f32, (void)scratch; gemm_float(&g, weight_f32, 4))
GEMM_ENTRY(gemm_f16, (void)scratch; gemm_float(&g, weight_f16, 2))
GEMM_ENTRY(gemm_bf16, (void)scratch; gemm_float(&g, weight_bf16, 2))

static uint64_t scratch_bytes(uint32_t n_cols) {
    (void)n_cols;
    return KERNEL_TILE_ROWS * sizeof(double);
}

static void set(struct kernels *k, uint32_t dtype, kernel_gemm_fn *fn, uint8_t layout) {
    k->type[dtype].gemm = fn;
    k->type[dtype].layout_gemm = layout;
}

void gemm_fill_scalar(struct kernels *k) {
    k->gemm_scratch_bytes = scratch_bytes;
    set(k, OT_F32, gemm_f32, KERNEL_LAYOUT_F32);
    set(k, OT_F16, gemm_f16, KERNEL_LAYOUT_F32);
    set(k, OT_BF16, gemm_bf16, KERNEL_LAYOUT_F32);
    for (uint32_t i = 0; i < OT_DTYPE_MAX; i++) {
        if (gemm_entries[i] != NULL)
            set(k, i, gemm_entries[i], LAYOUT_Q8);
    }
}
