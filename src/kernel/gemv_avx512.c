/* gemv_avx512.c - the AVX-512 gemv's parts together, and how their rows end. */
#include "kernel/gemv_avx512.h"

#include "kernel/fill.h"

GEMV_INLINE __m512 add_halves(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
GEMV_INLINE __m512 add_quarters(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
GEMV_INLINE __m512 add_pairs(__m512 a, __m512 b) {
    __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
GEMV_INLINE __m512 add_lanes(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

void gemv_write(const struct gemv_sums *sums, uint32_t n, float *y) {
    __m512 row[16], a[4];
    for (uint32_t i = 0; i < 16; i++) {
        row[i] = _mm512_load_ps(sums->of_row[i < n ? i : 0]);
    }
    for (uint32_t i = 0; i < 4; i++) { /* 16 bytes each of rows i, i + 4, i + 8, i + 12 */
        a[i] = add_quarters(add_halves(row[i], row[i + 4]), add_halves(row[i + 8], row[i + 12]));
    }
    __m512 all = add_lanes(add_pairs(a[0], a[1]), add_pairs(a[2], a[3]));
    _mm512_mask_storeu_ps(y, (__mmask16)((1u << n) - 1), all);
}

void gemv_fill_avx512(struct kernels *k) {
    gemv_nibbles_fill_avx512(k);
    gemv_block32_fill_avx512(k);
    gemv_block256_fill_avx512(k);
    gemv_float_fill_avx512(k);
}
