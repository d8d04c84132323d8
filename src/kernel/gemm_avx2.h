/* gemm_avx2.h - what the gemm of AVX2 and that of AVX-VNNI share.
 *
 * A part is 16 rows, two vectors; up to 6 tokens pass over it, each broadcast serving both. The sums of
 * products are in registers, the results in memory. */
#ifndef KERNEL_GEMM_AVX2_H
#define KERNEL_GEMM_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <string.h>

#include "kernel/layout_avx2.h"
#include "kernel/tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { PART_ROWS = 16, VECTORS = 2, MAX_TOKENS = 6 };

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

/* Row vector i of column quadruple k. */
INLINE __m256i load(const int8_t *codes, uint32_t k, uint32_t i) {
    return _mm256_load_si256((const __m256i *)(const void *)(codes + (k * VECTORS + i) * 32));
}

typedef __m256i sums[MAX_TOKENS][VECTORS];
typedef __m256 results[MAX_TOKENS][VECTORS];

INLINE __m256i first(uint32_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Row vector i of a part: what y holds, and back. Masked stores take many times as long as others
 * on some machines, so they are kept for the rows that are not eight. */
INLINE __m256 load_rows(const float *y, uint32_t n) {
    return n >= 8 ? _mm256_loadu_ps(y) : _mm256_maskload_ps(y, first(n));
}
INLINE void store_rows(float *y, uint32_t n, __m256 v) {
    if (n >= 8)
        _mm256_storeu_ps(y, v);
    else
        _mm256_maskstore_ps(y, first(n), v);
}

/* Results of a part: what y holds if there were columns before these, else 0; and back. */
INLINE void begin(const struct tile_tokens *a, uint32_t n, uint32_t row, uint32_t n_rows,
                  results f) {
    for (uint32_t m = 0; m < n; m++)
        for (uint32_t i = 0; i < VECTORS; i++)
            f[m][i] = a->add && n_rows > 8 * i ? load_rows(a->y[m] + row + 8 * i, n_rows - 8 * i)
                                               : _mm256_setzero_ps();
}
INLINE void finish(const struct tile_tokens *a, uint32_t n, uint32_t row, uint32_t n_rows,
                   const results f) {
    for (uint32_t m = 0; m < n; m++)
        for (uint32_t i = 0; i < VECTORS && n_rows > 8 * i; i++)
            store_rows(a->y[m] + row + 8 * i, n_rows - 8 * i, f[m][i]);
}

/* Rows of the multipliers (tile_type.kind). Those without MIN multiply by code - 8 (FOUR) or code - 32
 * (SIX, scales of 16 columns), FIVE_MIN by code - 16. */
enum kind { KIND_FOUR, KIND_FOUR_MIN, KIND_FIVE_MIN, KIND_GROUPS_MIN, KIND_SIX, KIND_SIGNED };

#endif
