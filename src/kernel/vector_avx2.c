/* vector_avx2.c - operations on rows of f32. A row's last 1 to 7 values are done like the others,
 * by way of a padded buffer; conversions, which are exact, in plain C. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernel/fill.h"
#include "kernel/half.h"

#define VECTOR_INLINE static inline __attribute__((always_inline))

/* n of 8 values (1 to 8); the others are 0. */
VECTOR_INLINE __m256 load_some(const float *x, uint64_t n) {
    if (n >= 8) {
        return _mm256_loadu_ps(x);
    }
    float some[8] = {0};
    memcpy(some, x, n * sizeof *x);
    return _mm256_loadu_ps(some);
}
VECTOR_INLINE void store_some(float *y, uint64_t n, __m256 v) {
    if (n >= 8) {
        _mm256_storeu_ps(y, v);
        return;
    }
    float some[8];
    _mm256_storeu_ps(some, v);
    memcpy(y, some, n * sizeof *y);
}

/* 2^n for whole n in [-126, 127]. */
VECTOR_INLINE __m256 power_of_two(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* e^x, as in vector_avx512.c; 2^n in two factors, because n reaches beyond the exponents that one
 * number has. NaN stays NaN: it is the second operand of min and max. */
VECTOR_INLINE __m256 exponential(__m256 x) {
    x = _mm256_min_ps(_mm256_set1_ps(100.0f), x);
    x = _mm256_max_ps(_mm256_set1_ps(-120.0f), x);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    p = _mm256_mul_ps(p, power_of_two(half));
    return _mm256_mul_ps(p, power_of_two(_mm256_sub_epi32(whole, half)));
}

/* tanh: an odd polynomial (Cephes, tanhf) below 0.625, 1 - 2 / (e^2|x| + 1) above. */
VECTOR_INLINE __m256 hyperbolic_tangent(__m256 x) {
    const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
    __m256 square = _mm256_mul_ps(x, x);
    __m256 p = _mm256_set1_ps(-5.70498872745e-3f);
    p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(2.06390887954e-2f));
    p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(-5.37397155531e-2f));
    p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(1.33314422036e-1f));
    p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(-3.33332819422e-1f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(p, square), x, x);
    __m256 size = _mm256_andnot_ps(sign, x);
    __m256 e = exponential(_mm256_add_ps(size, size));
    __m256 far = _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one)));
    far = _mm256_or_ps(far, _mm256_and_ps(sign, x));
    __m256 near = _mm256_cmp_ps(size, _mm256_set1_ps(0.625f), _CMP_LT_OQ);
    return _mm256_blendv_ps(far, p, near);
}

static void rms_norm(const float *x, const float *gain, uint32_t n, float eps, float *y) {
    __m256d sum0 = _mm256_setzero_pd(), sum1 = sum0;
    for (uint32_t i = 0; i < n; i += 8) {
        __m256 v = load_some(x + i, n - i);
        __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
        __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
        sum0 = _mm256_fmadd_pd(low, low, sum0);
        sum1 = _mm256_fmadd_pd(high, high, sum1);
    }
    sum0 = _mm256_add_pd(sum0, sum1);
    __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(sum0), _mm256_extractf128_pd(sum0, 1));
    double sum = _mm_cvtsd_f64(pair) + _mm_cvtsd_f64(_mm_unpackhi_pd(pair, pair));
    __m256 factor = _mm256_set1_ps((float)(1.0 / sqrt(sum / n + (double)eps)));
    for (uint32_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load_some(x + i, n - i), factor);
        if (gain != NULL) {
            v = _mm256_mul_ps(v, load_some(gain + i, n - i));
        }
        store_some(y + i, n - i, v);
    }
}

static void silu_mul(float *gate, const float *up, uint64_t n) {
    for (uint64_t i = 0; i < n; i += 8) {
        __m256 x = load_some(gate + i, n - i);
        __m256 e = exponential(_mm256_sub_ps(_mm256_setzero_ps(), x));
        x = _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
        store_some(gate + i, n - i, _mm256_mul_ps(x, load_some(up + i, n - i)));
    }
}

/* x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
static void gelu_mul(float *gate, const float *up, uint64_t n) {
    const __m256 factor = _mm256_set1_ps(-2.0f * 0.79788456080286535588f);
    const __m256 one = _mm256_set1_ps(1.0f);
    for (uint64_t i = 0; i < n; i += 8) {
        __m256 x = load_some(gate + i, n - i);
        __m256 u = _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(0.044715f), one);
        u = _mm256_mul_ps(u, _mm256_mul_ps(x, factor));
        x = _mm256_div_ps(x, _mm256_add_ps(one, exponential(u)));
        store_some(gate + i, n - i, _mm256_mul_ps(x, load_some(up + i, n - i)));
    }
}

static void add_scaled(float *y, const float *x, float factor, uint64_t n) {
    const __m256 f = _mm256_set1_ps(factor);
    for (uint64_t i = 0; i < n; i += 8) {
        store_some(y + i, n - i,
                   _mm256_fmadd_ps(load_some(x + i, n - i), f, load_some(y + i, n - i)));
    }
}

/* Pairs (i, i + half). */
VECTOR_INLINE void rope_halves(float *x, uint32_t half, const float *cos, const float *sin) {
    for (uint32_t i = 0; i < half; i += 8) {
        uint32_t n = half - i;
        __m256 a = load_some(x + i, n), b = load_some(x + half + i, n);
        __m256 c = load_some(cos + i, n), s = load_some(sin + i, n);
        store_some(x + i, n, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        store_some(x + half + i, n, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
}

/* Four values (or n of them), each twice. */
VECTOR_INLINE __m256 load_twice(const float *x, uint32_t n) {
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    __m256 v = n == 4 ? _mm256_castps128_ps256(_mm_loadu_ps(x)) : load_some(x, n);
    return _mm256_permutevar8x32_ps(v, twice);
}

/* Pairs (2i, 2i + 1): four of them in a vector, with each cosine and sine twice. */
VECTOR_INLINE void rope_neighbours(float *x, uint32_t half, const float *cos, const float *sin) {
    for (uint32_t i = 0; i < half; i += 4) {
        uint32_t n = half - i < 4 ? half - i : 4;
        __m256 v = load_some(x + 2 * i, 2 * n);
        __m256 c = load_twice(cos + i, n), s = load_twice(sin + i, n);
        __m256 swapped = _mm256_permute_ps(v, 0xb1);
        store_some(x + 2 * i, 2 * n, _mm256_fmaddsub_ps(v, c, _mm256_mul_ps(swapped, s)));
    }
}

static void rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, bool neox,
                 const float *cos, const float *sin) {
    for (uint32_t h = 0; h < n_heads; h++, x += head_dim) {
        if (neox) {
            rope_halves(x, n_rot / 2, cos, sin);
        } else {
            rope_neighbours(x, n_rot / 2, cos, sin);
        }
    }
}

static void f32_to_f16(const float *x, uint64_t n, uint16_t *y) {
    for (; n >= 8; n -= 8, x += 8, y += 8) {
        __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)y, h);
    }
    for (uint64_t i = 0; i < n; i++) {
        y[i] = half_from_f32(x[i]);
    }
}

static void softcap(float *x, uint64_t n, float cap) {
    const __m256 c = _mm256_set1_ps(cap);
    for (uint64_t i = 0; i < n; i += 8) {
        __m256 t = hyperbolic_tangent(_mm256_div_ps(load_some(x + i, n - i), c));
        store_some(x + i, n - i, _mm256_mul_ps(t, c));
    }
}

static bool all_finite(const float *x, uint64_t n) {
    const __m256i exponent = _mm256_set1_epi32(0x7f800000);
    __m256i bad = _mm256_setzero_si256();
    for (uint64_t i = 0; i < n; i += 8) {
        __m256i v = _mm256_castps_si256(load_some(x + i, n - i));
        bad = _mm256_or_si256(bad, _mm256_cmpeq_epi32(_mm256_and_si256(v, exponent), exponent));
    }
    return _mm256_testz_si256(bad, bad) != 0;
}

static uint64_t stream_read(const uint8_t *data, uint64_t bytes, uint64_t ahead) {
    __m256i sum[8];
    for (int i = 0; i < 8; i++) {
        sum[i] = _mm256_setzero_si256();
    }
    uint64_t at = 0;
    for (; at + 256 <= bytes; at += 256) {
        for (int i = 0; i < 8; i++) {
            if (i % 2 == 0) {
                _mm_prefetch((const char *)data + at + ahead + 32 * i, _MM_HINT_T1);
            }
            const __m256i *p = (const __m256i *)(const void *)(data + at + 32 * i);
            sum[i] = _mm256_add_epi64(sum[i], _mm256_loadu_si256(p));
        }
    }
    for (int i = 1; i < 8; i++) {
        sum[0] = _mm256_add_epi64(sum[0], sum[i]);
    }
    uint64_t words[4];
    _mm256_storeu_si256((__m256i *)(void *)words, sum[0]);
    uint64_t total = words[0] + words[1] + words[2] + words[3];
    for (; at < bytes; at++) {
        total += data[at];
    }
    return total;
}

void vector_fill_avx2(struct kernels *k) {
    k->rms_norm = rms_norm;
    k->silu_mul = silu_mul;
    k->gelu_mul = gelu_mul;
    k->add_scaled = add_scaled;
    k->rope = rope;
    k->f32_to_f16 = f32_to_f16;
    k->softcap = softcap;
    k->all_finite = all_finite;
    k->stream_read = stream_read;
}
