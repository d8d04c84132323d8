/* gemm_avx2.c - many tokens by a quantised weight matrix, with AVX2 (tile.h).
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs into 16 bits, saturating. Four such
 * sums of codes below 32 still fit 16 bits (4 * 2 * 31 * 127 < 2^15), two of codes below 64 do, and
 * one of 8-bit codes whose sign has gone to the activation.
 *
 * A part is 8 rows; up to 6 tokens pass over it with their results in registers. The
 * multiplications are the limit (two a cycle, vpmaddubsw and vpmaddwd among them), so the sums of
 * 16 products are multiplied by their activations' scale where vpmaddwd makes 32 bits of them
 * (struct gemm_units), and by the weights' scale once for all columns that share it; then minima
 * times the sums of the activations are added. Signed codes leave no room for that: the scales are
 * multiplied in f32. */
#include <immintrin.h>
#include <string.h>

#include "kernel/fill.h"
#include "kernel/layout_avx2.h"
#include "kernel/tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { PART_ROWS = 8 };
enum width { FOUR_BITS, FIVE_BITS, SIX_BITS, SIGNED };

INLINE __m256i broadcast_4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

INLINE __m256 broadcast_f32(const void *p) {
    float v;
    memcpy(&v, p, 4);
    return _mm256_set1_ps(v);
}

INLINE __m256i load(const int8_t *p) {
    return _mm256_load_si256((const __m256i *)(const void *)p);
}

INLINE __m256i first(uint32_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Results of a part: what y holds if there were columns before these, else 0; and back. */
INLINE void begin(const struct tile_tokens *a, uint32_t n, uint32_t part, uint32_t n_rows,
                  __m256 f[TILE_MAX_TOKENS]) {
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        f[m] = a->add ? _mm256_maskload_ps(a->y[m] + part * PART_ROWS, first(n_rows))
                      : _mm256_setzero_ps();
}
INLINE void finish(const struct tile_tokens *a, uint32_t n, uint32_t part, uint32_t n_rows,
                   const __m256 f[TILE_MAX_TOKENS]) {
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        _mm256_maskstore_ps(a->y[m] + part * PART_ROWS, first(n_rows), f[m]);
}

/* ---- codes below 32 ---- */

/* Products of 16 columns of 8 rows, w [4 columns], times the activations' steps. */
INLINE __m256i dot_steps(const int8_t *q, const int16_t steps[2], const __m256i w[4]) {
    __m256i p[4];
    for (uint32_t k = 0; k < 4; k++)
        p[k] = _mm256_maddubs_epi16(w[k], broadcast_4(q + 4 * k));
    const __m256i sum =
        _mm256_add_epi16(_mm256_add_epi16(p[0], p[1]), _mm256_add_epi16(p[2], p[3]));
    return _mm256_madd_epi16(sum, broadcast_4(steps));
}

/* Block b of 32 columns, which share a scale. Sums of 16 products in steps are below 2^31, those of
 * 32 products of 4-bit codes too. */
INLINE void add_block_32(const struct gemm_units *const *act, uint32_t b, uint32_t n,
                         const int8_t *codes, const float *scale, const float *min,
                         enum width width, __m256 f[TILE_MAX_TOKENS]) {
    const __m256 s = _mm256_load_ps(scale), low = _mm256_load_ps(min);
    __m256i w[8];
    for (uint32_t k = 0; k < 8; k++)
        w[k] = load(codes + k * 4 * PART_ROWS);
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        const __m256i i = dot_steps(act[m]->block[b].q, act[m]->block[b].steps[0], w);
        const __m256i j = dot_steps(act[m]->block[b].q + 16, act[m]->block[b].steps[1], w + 4);
        const __m256 dot = width == FOUR_BITS
                               ? _mm256_cvtepi32_ps(_mm256_add_epi32(i, j))
                               : _mm256_add_ps(_mm256_cvtepi32_ps(i), _mm256_cvtepi32_ps(j));
        f[m] = _mm256_fmadd_ps(dot, s, f[m]);
        f[m] = _mm256_fmadd_ps(broadcast_f32(&act[m]->block[b].s_both), low, f[m]);
    }
}

/* Half h of block b: 16 columns. */
INLINE void add_block_16(const struct gemm_units *const *act, uint32_t b, uint32_t h, uint32_t n,
                         const int8_t *codes, const float *scale, const float *min,
                         __m256 f[TILE_MAX_TOKENS]) {
    const __m256 s = _mm256_load_ps(scale), low = _mm256_load_ps(min);
    __m256i w[4];
    for (uint32_t k = 0; k < 4; k++)
        w[k] = load(codes + k * 4 * PART_ROWS);
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        const __m256i dot = dot_steps(act[m]->block[b].q + 16 * h, act[m]->block[b].steps[h], w);
        f[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), s, f[m]);
        f[m] = _mm256_fmadd_ps(broadcast_f32(&act[m]->block[b].s[h]), low, f[m]);
    }
}

/* One part; n, scale_cols and width are constants where this is inlined. */
INLINE void multiply_part(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                          uint32_t scale_cols, enum width width, uint32_t part, uint32_t n_rows) {
    const uint32_t per_block = PART_ROWS * 32 / scale_cols;
    const int8_t *codes = t->codes + part * t->codes_stride;
    const float *scale = t->scale + part * t->group_stride;
    const float *min = t->min + part * t->group_stride;
    const struct gemm_units *act[TILE_MAX_TOKENS];
    __m256 f[TILE_MAX_TOKENS];
    begin(a, n, part, n_rows, f);
    for (uint32_t m = 0; m < n; m++)
        act[m] = (const struct gemm_units *)(const void *)a->row[m] + a->col / 256;
    for (uint32_t left = a->n_cols / 32;;) {
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++)
            f[m] = _mm256_mul_ps(f[m], broadcast_f32(&act[m]->ratio));
        const uint32_t n_blocks = left < 8 ? left : 8;
        for (uint32_t b = 0; b < n_blocks; b++) {
            if (scale_cols == 32) {
                add_block_32(act, b, n, codes, scale, min, width, f);
            } else {
                add_block_16(act, b, 0, n, codes, scale, min, f);
                add_block_16(act, b, 1, n, codes + 16 * PART_ROWS, scale + PART_ROWS,
                             min + PART_ROWS, f);
            }
            codes += 32 * PART_ROWS;
            scale += per_block;
            min += per_block;
        }
        left -= n_blocks;
        if (left == 0)
            break;
        for (uint32_t m = 0; m < n; m++)
            act[m]++;
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        f[m] = _mm256_mul_ps(f[m], broadcast_f32(&act[m]->unit));
    finish(a, n, part, n_rows, f);
}

/* ---- codes of more bits: no room for steps, scales are multiplied in f32 (LAYOUT_Q8) ---- */

/* Products of 16 columns of 8 rows, w [4 columns]; magnitude: |w| where w is signed. */
INLINE __m256i dot_wide(const uint8_t *q, const __m256i w[4], const __m256i magnitude[4],
                        enum width width) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i p[4];
    for (uint32_t k = 0; k < 4; k++) {
        const __m256i a = broadcast_4(q + 4 * k);
        p[k] = width == SIGNED ? _mm256_maddubs_epi16(magnitude[k], _mm256_sign_epi8(a, w[k]))
                               : _mm256_maddubs_epi16(w[k], a);
    }
    if (width == SIGNED) {
        for (uint32_t k = 0; k < 4; k++)
            p[k] = _mm256_madd_epi16(p[k], ones);
        return _mm256_add_epi32(_mm256_add_epi32(p[0], p[1]), _mm256_add_epi32(p[2], p[3]));
    }
    return _mm256_add_epi32(_mm256_madd_epi16(_mm256_add_epi16(p[0], p[1]), ones),
                            _mm256_madd_epi16(_mm256_add_epi16(p[2], p[3]), ones));
}

INLINE void multiply_wide(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                          enum width width, uint32_t part, uint32_t n_rows) {
    const int8_t *codes = t->codes + part * t->codes_stride;
    const float *scale = t->scale + part * t->group_stride;
    const float *min = t->min + part * t->group_stride;
    __m256 f[TILE_MAX_TOKENS];
    begin(a, n, part, n_rows, f);
    for (uint64_t g = 0; g < a->n_cols / 16; g++) {
        const uint64_t group = width == SIGNED ? g / 2 : g;
        __m256i w[4], magnitude[4];
        for (uint32_t k = 0; k < 4; k++) {
            w[k] = load(codes + (g * 4 + k) * 4 * PART_ROWS);
            magnitude[k] = width == SIGNED ? _mm256_abs_epi8(w[k]) : w[k];
        }
        const __m256 s = _mm256_load_ps(scale + group * PART_ROWS);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m256i dot = dot_wide(a->row[m] + a->q_offset + g * 16, w, magnitude, width);
            const __m256 d = broadcast_f32(a->row[m] + a->d_offset + g * 4);
            f[m] = _mm256_fmadd_ps(_mm256_mul_ps(d, s), _mm256_cvtepi32_ps(dot), f[m]);
        }
        if (width == SIGNED)
            continue;
        const __m256 low = _mm256_load_ps(min + group * PART_ROWS);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++)
            f[m] = _mm256_fmadd_ps(_mm256_set1_ps(a->sums[group * n + m]), low, f[m]);
    }
    finish(a, n, part, n_rows, f);
}

#define MULTIPLY(n, kind, call)                                                                    \
    static void multiply_##kind##_##n(const struct tile_tokens *a, const struct tile *t,           \
                                      uint32_t n_rows) {                                           \
        const uint32_t n_tokens = n;                                                               \
        for (uint32_t r = 0; r < n_rows; r += PART_ROWS)                                           \
            call;                                                                                  \
    }
#define MULTIPLY_KIND(kind, call)                                                                  \
    MULTIPLY(1, kind, call)                                                                        \
    MULTIPLY(2, kind, call)                                                                        \
    MULTIPLY(3, kind, call)                                                                        \
    MULTIPLY(4, kind, call)                                                                        \
    MULTIPLY(5, kind, call)                                                                        \
    MULTIPLY(6, kind, call)
#define MULTIPLY_ROW(kind)                                                                         \
    {                                                                                              \
        multiply_##kind##_1, multiply_##kind##_2, multiply_##kind##_3, multiply_##kind##_4,        \
            multiply_##kind##_5, multiply_##kind##_6                                               \
    }

MULTIPLY_KIND(four_32, multiply_part(a, n_tokens, t, 32, FOUR_BITS, r / PART_ROWS, n_rows - r))
MULTIPLY_KIND(five_32, multiply_part(a, n_tokens, t, 32, FIVE_BITS, r / PART_ROWS, n_rows - r))
MULTIPLY_KIND(five_16, multiply_part(a, n_tokens, t, 16, FIVE_BITS, r / PART_ROWS, n_rows - r))
MULTIPLY_KIND(six_16, multiply_wide(a, n_tokens, t, SIX_BITS, r / PART_ROWS, n_rows - r))
MULTIPLY_KIND(signed_32, multiply_wide(a, n_tokens, t, SIGNED, r / PART_ROWS, n_rows - r))

static void gemm_quantised(uint32_t dtype, const struct gemm *g, void *scratch) {
    const struct tile_isa isa = {
        .types = tile_types_avx2(),
        .multiply = {MULTIPLY_ROW(four_32), MULTIPLY_ROW(five_32), MULTIPLY_ROW(five_16),
                     MULTIPLY_ROW(six_16), MULTIPLY_ROW(signed_32)},
        .max_tokens = 6,
        .part_rows = PART_ROWS,
        .interleaved = false,
    };
    tile_gemm(&isa, dtype, g, scratch);
}

GEMM_ENTRY(gemm_q4_0, gemm_quantised(OT_Q4_0, &g, scratch))
GEMM_ENTRY(gemm_q4_1, gemm_quantised(OT_Q4_1, &g, scratch))
GEMM_ENTRY(gemm_q5_0, gemm_quantised(OT_Q5_0, &g, scratch))
GEMM_ENTRY(gemm_q5_1, gemm_quantised(OT_Q5_1, &g, scratch))
GEMM_ENTRY(gemm_q8_0, gemm_quantised(OT_Q8_0, &g, scratch))
GEMM_ENTRY(gemm_q2_k, gemm_quantised(OT_Q2_K, &g, scratch))
GEMM_ENTRY(gemm_q3_k, gemm_quantised(OT_Q3_K, &g, scratch))
GEMM_ENTRY(gemm_q4_k, gemm_quantised(OT_Q4_K, &g, scratch))
GEMM_ENTRY(gemm_q5_k, gemm_quantised(OT_Q5_K, &g, scratch))
GEMM_ENTRY(gemm_q6_k, gemm_quantised(OT_Q6_K, &g, scratch))
GEMM_ENTRY(gemm_iq4_nl, gemm_quantised(OT_IQ4_NL, &g, scratch))
GEMM_ENTRY(gemm_iq4_xs, gemm_quantised(OT_IQ4_XS, &g, scratch))
GEMM_ENTRY(gemm_mxfp4, gemm_quantised(OT_MXFP4, &g, scratch))

static bool is_wide(uint32_t dtype) {
    return dtype == OT_Q6_K || dtype == OT_Q8_0 || dtype == OT_IQ4_NL || dtype == OT_IQ4_XS;
}

void gemm_fill_avx2(struct kernels *k) {
    static const struct {
        uint8_t dtype;
        kernel_gemm_fn *fn;
    } table[] = {
        {OT_Q4_0, gemm_q4_0},   {OT_Q4_1, gemm_q4_1},     {OT_Q5_0, gemm_q5_0},
        {OT_Q5_1, gemm_q5_1},   {OT_Q8_0, gemm_q8_0},     {OT_Q2_K, gemm_q2_k},
        {OT_Q3_K, gemm_q3_k},   {OT_Q4_K, gemm_q4_k},     {OT_Q5_K, gemm_q5_k},
        {OT_Q6_K, gemm_q6_k},   {OT_IQ4_NL, gemm_iq4_nl}, {OT_IQ4_XS, gemm_iq4_xs},
        {OT_MXFP4, gemm_mxfp4},
    };
    for (uint32_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        k->type[table[i].dtype].gemm = table[i].fn;
        k->type[table[i].dtype].layout_gemm =
            is_wide(table[i].dtype) ? (uint8_t)LAYOUT_Q8 : (uint8_t)LAYOUT_GEMM_UNITS;
    }
    gemm_float_fill_avx2(k);
    k->gemm_scratch_bytes = gemm_scratch_bytes;
}
