/* layout_avx2.c - preparing activations for the AVX2 kernels. */
#include "kernel/layout_avx2.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#include "kernel/fill.h"

struct group {
    __m128i q; /* 16 int8 */
    float d;
    int32_t sum;
};

static inline uint32_t largest_of(__m256i a, __m256i b) {
    __m256i m = _mm256_max_epu32(a, b);
    __m128i n = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    n = _mm_max_epu32(n, _mm_shuffle_epi32(n, 0x4e));
    n = _mm_max_epu32(n, _mm_shuffle_epi32(n, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(n);
}

static inline int32_t sum_of(__m256i a, __m256i b) {
    __m256i s = _mm256_add_epi32(a, b);
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    return _mm_cvtsi128_si32(t);
}

static inline __m256i rounded(__m256 x, float d) {
    __m256i q = _mm256_cvtps_epi32(_mm256_div_ps(x, _mm256_set1_ps(d)));
    q = _mm256_max_epi32(q, _mm256_set1_epi32(-127));
    return _mm256_min_epi32(q, _mm256_set1_epi32(127));
}

/* As quantise_16 of layout_scalar.c, number by number: the largest magnitude is found among the bit
 * patterns, where a NaN is above infinity, which is above all else. */
static inline struct group quantise_16(const float *x) {
    struct group g = {_mm_setzero_si128(), 0, 0};
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256 a = _mm256_loadu_ps(x), b = _mm256_loadu_ps(x + 8);
    uint32_t largest = largest_of(_mm256_and_si256(_mm256_castps_si256(a), magnitude),
                                  _mm256_and_si256(_mm256_castps_si256(b), magnitude));
    if (largest >= 0x7f800000u) {
        g.d = __builtin_nanf("");
        return g;
    }
    memcpy(&g.d, &largest, sizeof largest);
    g.d /= 127.0f;
    if (g.d > 0) {
        __m256i p = rounded(a, g.d), q = rounded(b, g.d);
        g.sum = sum_of(p, q);
        __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(p, q), 0xd8);
        g.q = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    }
    return g;
}

static void prepare_subs256(const float *x, uint32_t n_cols, struct subs256 *out) {
    if (n_cols % 256 != 0) {
        memset(&out[n_cols / 256], 0, sizeof *out);
    }
    for (uint32_t i = 0; i < n_cols / 16; i++) {
        struct subs256 *to = &out[i / 16];
        uint32_t at = i % 16;
        struct group g = quantise_16(x + 16 * (uint64_t)i);
        _mm_store_si128((__m128i *)(void *)(to->q[at / 2] + at % 2 * 16), g.q);
        _mm_store_ps(to->d[at / 2] + at % 2 * 4, _mm_set1_ps(g.d));
        to->s[at] = g.d * (float)g.sum;
        to->s32[at / 2] = at % 2 == 0 ? to->s[at] : to->s32[at / 2] + to->s[at];
    }
}

static void prepare_q8(const float *x, uint32_t n_cols, void *out) {
    uint32_t n_pad = layout_pad(n_cols);
    int8_t *q = out;
    float *d = (float *)(void *)(q + n_pad), *s = d + n_pad / 16;
    for (uint32_t i = 0; i < n_cols / 16; i++) {
        struct group g = quantise_16(x + 16 * (uint64_t)i);
        _mm_storeu_si128((__m128i *)(void *)(q + 16 * (uint64_t)i), g.q);
        d[i] = g.d;
        s[i] = g.d * (float)g.sum;
    }
    memset(q + n_cols, 0, n_pad - n_cols);
    memset(d + n_cols / 16, 0, (n_pad - n_cols) / 16 * sizeof *d);
    memset(s + n_cols / 16, 0, (n_pad - n_cols) / 16 * sizeof *s);
}

static uint64_t layout_bytes(uint8_t layout, uint32_t n_cols) {
    if (layout == LAYOUT_SUBS256) {
        return (uint64_t)layout_pad(n_cols) / 256 * sizeof(struct subs256);
    }
    return layout_bytes_scalar(layout, n_cols);
}

static void prepare(uint8_t layout, const float *x, uint32_t n_cols, void *out) {
    assert(layout == KERNEL_LAYOUT_F32 || n_cols % 32 == 0);
    switch (layout) {
    case LAYOUT_Q8: prepare_q8(x, n_cols, out); break;
    case LAYOUT_SUBS256: prepare_subs256(x, n_cols, out); break;
    default: layout_prepare_scalar(layout, x, n_cols, out);
    }
}

void layout_fill_avx2(struct kernels *k) {
    k->layout_bytes = layout_bytes;
    k->prepare = prepare;
}
