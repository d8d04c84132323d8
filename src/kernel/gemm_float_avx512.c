/* gemm_float_avx512.c - many tokens by a weight matrix of floats, with AVX-512: as
 * gemm_float_avx512.h, in f32. */
#include "kernel/gemm_float_avx512.h"
#include "kernel/fill.h"

/* tile [n_cols][32 rows] by n tokens; n is a constant where this is inlined. */
INLINE void multiply(const struct tokens *a, uint32_t n, const float *tile, uint32_t n_rows) {
    __m512 f[MAX_TOKENS][2];
    take_sums(a, n, n_rows, f);
    for (uint64_t c = 0; c < a->n_cols; c++) {
        const __m512 w0 = _mm512_load_ps(tile + c * ROWS);
        const __m512 w1 = _mm512_load_ps(tile + c * ROWS + 16);
#pragma GCC unroll 12
        for (uint32_t m = 0; m < n; m++) {
            const __m512 x = _mm512_set1_ps(((const float *)a->x[m])[c]);
            f[m][0] = _mm512_fmadd_ps(x, w0, f[m][0]);
            f[m][1] = _mm512_fmadd_ps(x, w1, f[m][1]);
        }
    }
    give_sums(a, n, n_rows, f);
}

MULTIPLIERS

/* 16 values of a row, or the first n, as f32. */
typedef __m512 load_fn(const uint8_t *w, __mmask16 mask);

INLINE __m512 load_f32(const uint8_t *w, __mmask16 mask) {
    return _mm512_maskz_loadu_ps(mask, w);
}
INLINE __m512 load_f16(const uint8_t *w, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, w));
}
INLINE __m512 load_bf16(const uint8_t *w, __mmask16 mask) {
    const __m512i v = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, w));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}

/* tile [n_cols][32]. */
INLINE void unpack(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,
                   uint32_t n_cols, uint32_t value_bytes, load_fn *load, float *tile) {
    for (uint32_t half = 0; half < n_rows; half += 16) {
        const uint8_t *rows[16];
        for (uint32_t i = 0; i < 16; i++)
            rows[i] = w + (uint64_t)min_u32(half + i, n_rows - 1) * row_bytes +
                      (uint64_t)col * value_bytes;
        for (uint32_t c = 0; c < n_cols; c += 16) {
            const uint32_t n = min_u32(n_cols - c, 16);
            const __mmask16 mask = (__mmask16)((1u << n) - 1);
            __m512 r[16];
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++) {
                const uint8_t *p = rows[i] + (uint64_t)c * value_bytes;
                _mm_prefetch((const char *)p + ROWS * row_bytes, _MM_HINT_T1);
                r[i] = load(p, mask);
            }
            transpose_16(r);
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++)
                if (i < n)
                    _mm512_store_ps(tile + (uint64_t)(c + i) * ROWS + half, r[i]);
        }
    }
}

#define UNPACK(name, bytes, load)                                                                  \
    static void name(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,          \
                     uint32_t n_cols, void *tile) {                                                \
        unpack(w, row_bytes, n_rows, col, n_cols, bytes, load, tile);                              \
    }
UNPACK(unpack_f32, 4, load_f32)
UNPACK(unpack_f16, 2, load_f16)
UNPACK(unpack_bf16, 2, load_bf16)

GEMM_ENTRY(gemm_f32, gemm_float(&g, unpack_f32, &multipliers, sizeof(float), scratch))
GEMM_ENTRY(gemm_f16, gemm_float(&g, unpack_f16, &multipliers, sizeof(float), scratch))
GEMM_ENTRY(gemm_bf16, gemm_float(&g, unpack_bf16, &multipliers, sizeof(float), scratch))

void gemm_float_fill_avx512(struct kernels *k) {
    k->type[OT_F32].gemm = gemm_f32;
    k->type[OT_F16].gemm = gemm_f16;
    k->type[OT_BF16].gemm = gemm_bf16;
    k->type[OT_F32].layout_gemm = KERNEL_LAYOUT_F32;
    k->type[OT_F16].layout_gemm = KERNEL_LAYOUT_F32;
    k->type[OT_BF16].layout_gemm = KERNEL_LAYOUT_F32;
}
