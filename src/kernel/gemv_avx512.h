/* gemv_avx512.h - what the files of the AVX-512 gemv share.
 *
 * All of them walk their rows as one sequential stream, one row after the other, with several
 * accumulators along the row: the hardware's prefetchers follow one stream best. */
#ifndef KERNEL_GEMV_AVX512_H
#define KERNEL_GEMV_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernel/kernel.h"
#include "kernel/layout_avx512.h"
#include "kernel/prefetch.h"
#include "kernel/tuning.h"

#define GEMV_INLINE static inline __attribute__((always_inline))

GEMV_INLINE __m512 gemv_half_to_f32(__m512i halves) {
    return _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
}

/* A vector that was loaded stays in its register: read again as the memory operand of each use, an
 * unaligned one costs more than the register. */
GEMV_INLINE __m512i gemv_keep(__m512i v) {
    __asm__("" : "+v"(v));
    return v;
}

/* Fixes where a value is computed: the compiler keeps the order of these. */
GEMV_INLINE __m512i gemv_pin(__m512i v) {
    __asm__ volatile("" : "+v"(v));
    return v;
}
GEMV_INLINE __m512 gemv_pin_ps(__m512 v) {
    __asm__ volatile("" : "+v"(v));
    return v;
}

GEMV_INLINE int64_t gemv_read_64(const uint8_t *p) {
    int64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Sums of up to 16 rows, each in lanes that are not summed yet. Together they cost a fraction of
 * what they cost one by one, most of which is waiting. */
struct gemv_sums {
    float of_row[16][16];
} __attribute__((aligned(64)));

/* y[i] = sum of the lanes of row i, i < n. Always in one order: rows are the same in any company.
 */
void gemv_write(const struct gemv_sums *sums, uint32_t n, float *y);

/* Row r of n_rows is done; y: of row 0. */
GEMV_INLINE void gemv_row_done(struct gemv_sums *sums, uint32_t r, uint32_t n_rows, __m512 sum,
                               float *y) {
    _mm512_store_ps(sums->of_row[r % 16], sum);
    if (r % 16 == 15 || r + 1 == n_rows) {
        gemv_write(sums, r % 16 + 1, y + r - r % 16);
    }
}

void gemv_nibbles_fill_avx512(struct kernels *k);
void gemv_block32_fill_avx512(struct kernels *k);
void gemv_block256_fill_avx512(struct kernels *k);
void gemv_float_fill_avx512(struct kernels *k);

#endif
