/* gemv_float_avx2.c - matrix times vector for F32, F16 and BF16 weights; activations stay f32. */
#include <immintrin.h>
#include <string.h>

#include "kernel/fill.h"
#include "kernel/gemv_avx2.h"
#include "kernel/tuning.h"

/* 8 weights from p on. */
GEMV_INLINE __m256 weights(uint32_t dtype, const uint8_t *p) {
    if (dtype == OT_F32) {
        return _mm256_loadu_ps((const float *)(const void *)p);
    }
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (dtype == OT_F16) {
        return _mm256_cvtph_ps(h);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

GEMV_INLINE float row(uint32_t dtype, const uint8_t *p, uint32_t n_cols, const float *x,
                      uint64_t ahead) {
    const uint32_t size = dtype == OT_F32 ? 4 : 2;
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                     _mm256_setzero_ps()};
    for (; n_cols >= 32; n_cols -= 32, x += 32, p += 32 * size) {
        kernel_prefetch(p, ahead, 32 * size);
        for (uint32_t i = 0; i < 4; i++) {
            sum[i] = _mm256_fmadd_ps(weights(dtype, p + 8 * size * i), _mm256_loadu_ps(x + 8 * i),
                                     sum[i]);
        }
    }
    /* The last ones, by way of a buffer padded with zeros. */
    for (; n_cols > 0; n_cols -= n_cols < 8 ? n_cols : 8, x += 8, p += 8 * size) {
        uint32_t n = n_cols < 8 ? n_cols : 8;
        _Alignas(32) uint8_t last[32] = {0};
        float last_x[8] = {0};
        memcpy(last, p, (uint64_t)n * size);
        memcpy(last_x, x, n * sizeof *x);
        sum[0] = _mm256_fmadd_ps(weights(dtype, last), _mm256_loadu_ps(last_x), sum[0]);
    }
    __m256 v = _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const float *x, float *y) {
    const uint64_t ahead =
        dtype == OT_F32 ? kernel_tuning.prefetch_light_bytes : kernel_tuning.prefetch_bytes;
    for (uint32_t r = 0; r < n_rows; r++) {
        y[r] = row(dtype, w + r * row_bytes, n_cols, x, ahead);
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

void gemv_float_fill_avx2(struct kernels *k) {
    k->type[OT_F32].gemv = gemv_f32;
    k->type[OT_F16].gemv = gemv_f16;
    k->type[OT_BF16].gemv = gemv_bf16;
}
