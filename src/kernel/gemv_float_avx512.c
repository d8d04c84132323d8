/* gemv_float_avx512.c - matrix times vector for F32, F16 and BF16 weights; activations stay f32. */
#include "kernel/fill.h"
#include "kernel/gemv_avx512.h"

/* 16 weights from p on, those of mask; the others are 0. */
GEMV_INLINE __m512 weights(uint32_t dtype, const uint8_t *p, __mmask16 mask) {
    if (dtype == OT_F32) {
        return _mm512_maskz_loadu_ps(mask, p);
    }
    __m256i h = _mm256_maskz_loadu_epi16(mask, p);
    if (dtype == OT_F16) {
        return _mm512_cvtph_ps(h);
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const float *x, float *y) {
    const uint32_t size = dtype == OT_F32 ? 4 : 2;
    const uint64_t ahead = kernel_tuning.prefetch_light_bytes;
    const __mmask16 all = 0xffff;
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = w + r * row_bytes;
        __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                         _mm512_setzero_ps()};
        uint32_t c = 0;
        for (; c + 64 <= n_cols; c += 64, p += 64 * size) {
            kernel_prefetch(p, ahead, 64 * size);
            for (int i = 0; i < 4; i++) {
                sum[i] = _mm512_fmadd_ps(weights(dtype, p + 16u * size * (uint32_t)i, all),
                                         _mm512_loadu_ps(x + c + 16 * i), sum[i]);
            }
        }
        for (; c < n_cols; c += 16, p += 16 * size) {
            __mmask16 mask = (__mmask16)(n_cols - c >= 16 ? 0xffffu : (1u << (n_cols - c)) - 1);
            sum[0] = _mm512_fmadd_ps(weights(dtype, p, mask), _mm512_maskz_loadu_ps(mask, x + c),
                                     sum[0]);
        }
        y[r] = _mm512_reduce_add_ps(
            _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
    }
}

static void gemv_f32(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                     const void *x, float *y) {
    gemv(OT_F32, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_f16(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                     const void *x, float *y) {
    gemv(OT_F16, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_bf16(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_BF16, w, row_bytes, n_rows, n_cols, x, y);
}

void gemv_float_fill_avx512(struct kernels *k) {
    k->type[OT_F32].gemv = gemv_f32;
    k->type[OT_F16].gemv = gemv_f16;
    k->type[OT_BF16].gemv = gemv_bf16;
}
