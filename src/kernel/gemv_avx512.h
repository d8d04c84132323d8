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

void gemv_nibbles_fill_avx512(struct kernels *k);
void gemv_block32_fill_avx512(struct kernels *k);
void gemv_block256_fill_avx512(struct kernels *k);
void gemv_float_fill_avx512(struct kernels *k);

#endif
