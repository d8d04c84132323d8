/* transpose_avx512.h - 16 vectors of 16 words of 32 bits, turned over. */
#ifndef KERNEL_TRANSPOSE_AVX512_H
#define KERNEL_TRANSPOSE_AVX512_H

#include <immintrin.h>

/* r[i] lane j becomes r[j] lane i. */
static inline __attribute__((always_inline)) void transpose_16(__m512 r[16]) {
    __m512 t[16];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 16; i += 4) { /* 4 x 4 within each 128-bit lane */
        const __m512 a = _mm512_unpacklo_ps(r[i], r[i + 1]);
        const __m512 b = _mm512_unpackhi_ps(r[i], r[i + 1]);
        const __m512 c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]);
        const __m512 d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm512_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++) { /* 4 x 4 of the lanes */
        const __m512 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x44);
        const __m512 b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xee);
        const __m512 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x44);
        const __m512 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xee);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        r[i + 4] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[i + 8] = _mm512_shuffle_f32x4(b, d, 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}

#endif
