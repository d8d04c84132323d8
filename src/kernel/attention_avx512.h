/* attention_avx512.h - what the two ways to compute attention with AVX-512 share: the online
 * softmax of a few rows over a block of keys. */
#ifndef KERNEL_ATTENTION_AVX512_H
#define KERNEL_ATTENTION_AVX512_H

#include <immintrin.h>
#include <math.h>

#include "kernel/attention_rows.h"

#define LOG2_E 0x1.715476p+0f
#define LN_2 0x1.62e42fefa39efp-1

enum { MAX_ROWS = 4, LANES = 16 };

/* What rows carry from block to block. */
struct softmax {
    float *weight; /* [n_q][KEYS]: scores of this block in base 2, then weights */
    float *sum;    /* [n_q][LANES]: of weights */
    float *best;   /* [n_q]: score */
    float *keep;   /* [n_q]: factor of what was summed before this block */
};

/* 2^x for x <= 0, or NaN; relative error below 1e-7; 1 for 0. */
INLINE __m512 exp2_negative(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-160.0f), x); /* in this order NaN passes */
    const __m512 n = _mm512_roundscale_ps(x, 0);
    const __m512 r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(0x1.41d334p-13f); /* minimax */
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5f456ap-10f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3b2dbcp-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6aed4p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebfbdap-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e43p-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* From 0.55 on by way of e^(-2|x|); below, where that cancels, by a polynomial in x^2. */
INLINE __m512 tanh_ps(__m512 x) {
    const __m512 magnitude = _mm512_abs_ps(x);
    const __m512 e = exp2_negative(_mm512_mul_ps(magnitude, _mm512_set1_ps(-2 * LOG2_E)));
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 large = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    const __m512 x2 = _mm512_mul_ps(x, x);
    __m512 p = _mm512_set1_ps(-0x1.96cf64p-8f);
    p = _mm512_fmadd_ps(p, x2, _mm512_set1_ps(0x1.58828cp-6f));
    p = _mm512_fmadd_ps(p, x2, _mm512_set1_ps(-0x1.b9137p-5f));
    p = _mm512_fmadd_ps(p, x2, _mm512_set1_ps(0x1.110cb2p-3f));
    p = _mm512_fmadd_ps(p, x2, _mm512_set1_ps(-0x1.55554ap-2f));
    const __m512 small = _mm512_fmadd_ps(_mm512_mul_ps(p, x2), magnitude, magnitude);
    large = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(0.55f), _CMP_LT_OQ),
                                 large, small);
    const __m512i sign = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MIN));
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(large), sign));
}

INLINE __mmask16 first(uint32_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
}

/* x rounded to bf16, to nearest and even, for x >= 0 that is not NaN; NaN stays one. */
INLINE __m512 to_bf16(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even);
    return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32((int)0xffff0000)));
}

/* Lane 4 m of the result: the greatest lane of x[m]. */
INLINE __m512 greatest(const __m512 x[MAX_ROWS], uint32_t n) {
    const __m512 a = x[0], b = n > 1 ? x[1] : a, c = n > 2 ? x[2] : a, d = n > 3 ? x[3] : c;
    const __m512 ab =
        _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const __m512 cd =
        n < 3 ? ab
              : _mm512_max_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 y =
        _mm512_max_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    y = _mm512_max_ps(y, _mm512_permute_ps(y, 0x4e));
    return _mm512_max_ps(y, _mm512_permute_ps(y, 0xb1));
}

INLINE void cap(float *scores, float softcap) {
    const __m512 limit = _mm512_set1_ps(softcap * LOG2_E);
    for (uint32_t i = 0; i < KEYS; i += 16)
        _mm512_store_ps(scores + i, _mm512_mul_ps(tanh_ps(_mm512_div_ps(_mm512_load_ps(scores + i),
                                                                        _mm512_set1_ps(softcap))),
                                                  limit));
}

/* The rows' scores become weights; their best scores and sums are brought up to date. rounded: to
 * bf16, in the sums too. n and rounded are constants where this is inlined. */
INLINE void soften(float softcap, const struct softmax *s, const struct rows *rows, uint32_t n,
                   bool rounded) {
    float *weight[MAX_ROWS];
    __m512 best[MAX_ROWS];
    __m512 old = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++) {
        const float row_best = s->best[rows->index[m]];
        weight[m] = s->weight + rows->index[m] * KEYS;
        if (softcap > 0)
            cap(weight[m], softcap);
        best[m] = _mm512_set1_ps(row_best);
        old = _mm512_mask_mov_ps(old, (__mmask16)(0xf << 4 * m), best[m]);
        for (uint32_t i = 0; i < 4; i++) {
            const __m512 x = _mm512_load_ps(weight[m] + 16 * i);
            best[m] =
                _mm512_mask_max_ps(best[m], (__mmask16)(rows->visible[m] >> 16 * i), best[m], x);
        }
    }
    const __m512 all = greatest(best, n);
    const __m512 keep = exp2_negative(_mm512_sub_ps(old, all));
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++) {
        const uint32_t row = rows->index[m];
        const __m512i lane = _mm512_set1_epi32((int)(4 * m));
        const __m512 row_best = _mm512_permutexvar_ps(lane, all);
        const __m512 row_keep = _mm512_permutexvar_ps(lane, keep);
        __m512 sum = _mm512_mul_ps(_mm512_load_ps(s->sum + row * LANES), row_keep);
        for (uint32_t i = 0; i < 4; i++) {
            const __m512 x = _mm512_load_ps(weight[m] + 16 * i);
            __m512 e = _mm512_maskz_mov_ps((__mmask16)(rows->visible[m] >> 16 * i),
                                           exp2_negative(_mm512_sub_ps(x, row_best)));
            if (rounded)
                e = to_bf16(e);
            _mm512_store_ps(weight[m] + 16 * i, e);
            sum = _mm512_add_ps(sum, e);
        }
        _mm512_store_ps(s->sum + row * LANES, sum);
        _mm_store_ss(s->best + row, _mm512_castps512_ps128(row_best));
        _mm_store_ss(s->keep + row, _mm512_castps512_ps128(row_keep));
    }
}

/* out = values [n_q][stride] / sums. */
INLINE void give_rows(const struct kernel_attention *a, const struct softmax *s,
                      const float *values, uint32_t stride) {
    for (uint32_t row = 0; row < a->n_q; row++) {
        const float sum = _mm512_reduce_add_ps(_mm512_load_ps(s->sum + row * LANES));
        const __m512 factor = _mm512_set1_ps(1.0f / sum);
        if (a->totals != NULL)
            a->totals[row] = ((double)s->best[row] + log2((double)sum)) * LN_2;
        for (uint32_t d = 0; d < a->head_dim; d += 16)
            _mm512_mask_storeu_ps(
                a->out[row] + d, first(a->head_dim - d),
                _mm512_mul_ps(_mm512_load_ps(values + (uint64_t)row * stride + d), factor));
    }
}

#endif
