/* gemm_avx512.c - many tokens by a quantised weight matrix, with AVX-512 VNNI (tile.h).
 *
 * Codes come as u8 (code + 128), activations are signed (struct gemm_block): each sum of 16
 * products starts at -128 * (sum of the 16 activations), which is the same for all rows. 4 tokens
 * by 32 rows keep 8 integer sums, 8 half-scaled pairs and 8 results in registers. Where weights
 * have a scale for each 16 columns no pair waits, and 6 tokens fit.
 *
 * Order of a value's sums: 16 columns in integers; two of those with their activation scales in
 * f32; then the weight's scale. Where weights have a scale for each 16 columns: each with both
 * scales. */
#include <immintrin.h>
#include <string.h>

#include "kernel/fill.h"
#include "kernel/layout_avx512.h"
#include "kernel/tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_TOKENS = 6 };

INLINE __m512i broadcast_4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

INLINE __m512 broadcast_f32(const void *p) {
    float v;
    memcpy(&v, p, 4);
    return _mm512_set1_ps(v);
}

/* Products of 16 columns, half h of block x: c[token][half of the rows]. */
INLINE void dot_16(const struct gemm_block *const *act, uint64_t x, uint32_t n, uint32_t h,
                   const int8_t *codes, __m512i c[MAX_TOKENS][2]) {
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        c[m][0] = c[m][1] = broadcast_4(&act[m][x].start[h]);
#pragma GCC unroll 4
    for (uint32_t k = 0; k < 4; k++) {
        const __m512i w0 = _mm512_load_si512(codes + k * 128);
        const __m512i w1 = _mm512_load_si512(codes + k * 128 + 64);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m512i q = broadcast_4(&act[m][x].q[h * 16 + k * 4]);
            c[m][0] = _mm512_dpbusd_epi32(c[m][0], w0, q);
            c[m][1] = _mm512_dpbusd_epi32(c[m][1], w1, q);
        }
    }
}

INLINE __mmask16 first(uint32_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
}

/* n, scale_cols and has_min are constants where this is inlined. */
INLINE void multiply(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                     uint32_t scale_cols, bool has_min, uint32_t n_rows) {
    const __mmask16 rows[2] = {first(n_rows), n_rows > 16 ? first(n_rows - 16) : 0};
    const struct gemm_block *act[MAX_TOKENS];
    __m512 f[MAX_TOKENS][2];
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        act[m] = (const struct gemm_block *)(const void *)a->row[m] + a->col / 32;
#pragma GCC unroll 2
        for (uint32_t i = 0; i < 2; i++)
            f[m][i] =
                a->add ? _mm512_maskz_loadu_ps(rows[i], a->y[m] + 16 * i) : _mm512_setzero_ps();
    }
    const uint64_t sums = gemm_sums_offset(a->row_cols, scale_cols) + a->col / scale_cols * 4;
    for (uint64_t b = 0; b < a->n_cols / 32; b++) {
        __m512 pair[MAX_TOKENS][2];
#pragma GCC unroll 2
        for (uint32_t h = 0; h < 2; h++) {
            const uint64_t g = 2 * b + h, group = scale_cols == 16 ? g : b;
            const float *scale = t->scale + group * TILE_ROWS, *min = t->min + group * TILE_ROWS;
            __m512i c[MAX_TOKENS][2];
            dot_16(act, b, n, h, t->codes + g * 16 * TILE_ROWS, c);
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                const __m512 d = broadcast_f32(&act[m][b].d[h]);
#pragma GCC unroll 2
                for (uint32_t i = 0; i < 2; i++) {
                    const __m512 x = _mm512_cvtepi32_ps(c[m][i]);
                    if (scale_cols == 16)
                        f[m][i] = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_load_ps(scale + 16 * i)),
                                                  x, f[m][i]);
                    else if (h == 0)
                        pair[m][i] = _mm512_mul_ps(d, x);
                    else
                        f[m][i] = _mm512_fmadd_ps(_mm512_fmadd_ps(d, x, pair[m][i]),
                                                  _mm512_load_ps(scale + 16 * i), f[m][i]);
                }
            }
            if (!has_min || (scale_cols == 32 && h == 0))
                continue;
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                const __m512 s = broadcast_f32(a->row[m] + sums + group * 4);
                f[m][0] = _mm512_fmadd_ps(s, _mm512_load_ps(min), f[m][0]);
                f[m][1] = _mm512_fmadd_ps(s, _mm512_load_ps(min + 16), f[m][1]);
            }
        }
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 2
        for (uint32_t i = 0; i < 2; i++)
            _mm512_mask_storeu_ps(a->y[m] + 16 * i, rows[i], f[m][i]);
}

#define MULTIPLY(n, kind, scale_cols, has_min)                                                     \
    static void multiply_##kind##_##n(const struct tile_tokens *a, const struct tile *t,           \
                                      uint32_t n_rows) {                                           \
        multiply(a, n, t, scale_cols, has_min, n_rows);                                            \
    }
#define MULTIPLY_4(kind, scale_cols, has_min)                                                      \
    MULTIPLY(1, kind, scale_cols, has_min)                                                         \
    MULTIPLY(2, kind, scale_cols, has_min)                                                         \
    MULTIPLY(3, kind, scale_cols, has_min)                                                         \
    MULTIPLY(4, kind, scale_cols, has_min)
#define MULTIPLY_6(kind, scale_cols, has_min)                                                      \
    MULTIPLY_4(kind, scale_cols, has_min)                                                          \
    MULTIPLY(5, kind, scale_cols, has_min)                                                         \
    MULTIPLY(6, kind, scale_cols, has_min)
#define ROW_4(k) multiply_##k##_1, multiply_##k##_2, multiply_##k##_3, multiply_##k##_4
#define ROW_6(k) ROW_4(k), multiply_##k##_5, multiply_##k##_6

MULTIPLY_4(plain_32, 32, false)
MULTIPLY_4(min_32, 32, true)
MULTIPLY_6(plain_16, 16, false)
MULTIPLY_6(min_16, 16, true)

static void gemm_quantised(uint32_t dtype, const struct gemm *g, void *scratch) {
    const struct tile_isa isa = {
        .types = tile_types_avx512(),
        .multiply = {{ROW_4(plain_32)}, {ROW_4(min_32)}, {ROW_6(plain_16)}, {ROW_6(min_16)}},
        .max_tokens = MAX_TOKENS,
        .part_rows = 16,
        .interleaved = true,
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

void gemm_fill_avx512(struct kernels *k) {
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
        k->type[table[i].dtype].layout_gemm = LAYOUT_GEMM_BLOCKS;
    }
    gemm_float_fill_avx512(k);
    k->gemm_scratch_bytes = gemm_scratch_bytes;
}
