/* vector_avx512.c - operations on rows of f32.
 *
 * A row's last 1 to 15 values are handled by the same code under a mask. */
#include <immintrin.h>
#include <math.h>

#include "kernel/fill.h"

#define VECTOR_INLINE static inline __attribute__((always_inline))

/* Lanes of the next 16 that are below n. */
VECTOR_INLINE __mmask16 lanes_below(uint64_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
}

/* e^x: 2^n times a Taylor polynomial of degree 7 on [-ln 2 / 2, ln 2 / 2]; relative error below
 * 2e-7. NaN stays NaN: it is the second operand of min and max. */
VECTOR_INLINE __m512 exponential(__m512 x) {
    x = _mm512_min_ps(_mm512_set1_ps(100.0f), x);
    x = _mm512_max_ps(_mm512_set1_ps(-120.0f), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* ln 2 in two parts, so that n * the first is exact. */
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* tanh: an odd polynomial (Cephes, tanhf) below 0.625, 1 - 2 / (e^2|x| + 1) above. */
VECTOR_INLINE __m512 hyperbolic_tangent(__m512 x) {
    __m512 square = _mm512_mul_ps(x, x);
    __m512 p = _mm512_set1_ps(-5.70498872745e-3f);
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.06390887954e-2f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-5.37397155531e-2f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(1.33314422036e-1f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-3.33332819422e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, square), x, x);
    __m512 size = _mm512_abs_ps(x), one = _mm512_set1_ps(1.0f);
    __m512 e = exponential(_mm512_add_ps(size, size));
    __m512 far = _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, one)));
    /* The sign of x on the magnitude. */
    far = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(far),
                                                        _mm512_castps_si512(x),
                                                        _mm512_set1_epi32((int)0x80000000u), 0xf8));
    __mmask16 near = _mm512_cmp_ps_mask(size, _mm512_set1_ps(0.625f), _CMP_LT_OQ);
    return _mm512_mask_blend_ps(near, far, p);
}

static void rms_norm(const float *x, const float *gain, uint32_t n, float eps, float *y) {
    __m512d sum0 = _mm512_setzero_pd(), sum1 = sum0;
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(lanes_below(n - i), x + i);
        __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
        __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
        sum0 = _mm512_fmadd_pd(low, low, sum0);
        sum1 = _mm512_fmadd_pd(high, high, sum1);
    }
    double sum = _mm512_reduce_add_pd(_mm512_add_pd(sum0, sum1));
    __m512 factor = _mm512_set1_ps((float)(1.0 / sqrt(sum / n + (double)eps)));
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor);
        if (gain != NULL) {
            v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, gain + i));
        }
        _mm512_mask_storeu_ps(y + i, mask, v);
    }
}

static void silu_mul(float *gate, const float *up, uint64_t n) {
    for (uint64_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 x = _mm512_maskz_loadu_ps(mask, gate + i);
        __m512 e = exponential(_mm512_sub_ps(_mm512_setzero_ps(), x));
        x = _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
        _mm512_mask_storeu_ps(gate + i, mask,
                              _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

/* x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
static void gelu_mul(float *gate, const float *up, uint64_t n) {
    const __m512 factor = _mm512_set1_ps(-2.0f * 0.79788456080286535588f);
    const __m512 one = _mm512_set1_ps(1.0f);
    for (uint64_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 x = _mm512_maskz_loadu_ps(mask, gate + i);
        __m512 u = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f), one);
        u = _mm512_mul_ps(u, _mm512_mul_ps(x, factor));
        x = _mm512_div_ps(x, _mm512_add_ps(one, exponential(u)));
        _mm512_mask_storeu_ps(gate + i, mask,
                              _mm512_mul_ps(x, _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

static void add_scaled(float *y, const float *x, float factor, uint64_t n) {
    __m512 f = _mm512_set1_ps(factor);
    for (uint64_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, x + i), f,
                                     _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(y + i, mask, sum);
    }
}

/* Pairs (i, i + half). */
VECTOR_INLINE void rope_halves(float *x, uint32_t half, const float *cos, const float *sin) {
    for (uint32_t i = 0; i < half; i += 16) {
        __mmask16 mask = lanes_below(half - i);
        __m512 a = _mm512_maskz_loadu_ps(mask, x + i);
        __m512 b = _mm512_maskz_loadu_ps(mask, x + half + i);
        __m512 c = _mm512_maskz_loadu_ps(mask, cos + i), s = _mm512_maskz_loadu_ps(mask, sin + i);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + half + i, mask, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

/* Pairs (2i, 2i + 1): eight of them in a vector, with each cosine and sine twice. */
VECTOR_INLINE void rope_neighbours(float *x, uint32_t half, const float *cos, const float *sin) {
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    for (uint32_t i = 0; i < half; i += 8) {
        __mmask16 mask = lanes_below(2 * (half - i)), few = lanes_below(half - i) & 0xff;
        __m512 v = _mm512_maskz_loadu_ps(mask, x + 2 * i);
        __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(few, cos + i));
        __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(few, sin + i));
        __m512 swapped = _mm512_permute_ps(v, 0xb1);
        _mm512_mask_storeu_ps(x + 2 * i, mask, _mm512_fmaddsub_ps(v, c, _mm512_mul_ps(swapped, s)));
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
    for (uint64_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m256i h = _mm512_cvtps_ph(_mm512_maskz_loadu_ps(mask, x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm256_mask_storeu_epi16(y + i, mask, h);
    }
}

static void softcap(float *x, uint64_t n, float cap) {
    __m512 c = _mm512_set1_ps(cap);
    for (uint64_t i = 0; i < n; i += 16) {
        __mmask16 mask = lanes_below(n - i);
        __m512 t = hyperbolic_tangent(_mm512_div_ps(_mm512_maskz_loadu_ps(mask, x + i), c));
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mul_ps(t, c));
    }
}

static bool all_finite(const float *x, uint64_t n) {
    const __m512i exponent = _mm512_set1_epi32(0x7f800000);
    __mmask16 bad = 0;
    for (uint64_t i = 0; i < n; i += 16) {
        __m512i v = _mm512_castps_si512(_mm512_maskz_loadu_ps(lanes_below(n - i), x + i));
        bad |= _mm512_cmpeq_epi32_mask(_mm512_and_si512(v, exponent), exponent);
    }
    return bad == 0;
}

static uint64_t stream_read(const uint8_t *data, uint64_t bytes, uint64_t ahead) {
    __m512i sum[8];
    for (int i = 0; i < 8; i++) {
        sum[i] = _mm512_setzero_si512();
    }
    uint64_t at = 0;
    for (; at + 512 <= bytes; at += 512) {
        for (int i = 0; i < 8; i++) {
            _mm_prefetch((const char *)data + at + ahead + 64 * i, _MM_HINT_T1);
            sum[i] = _mm512_add_epi64(sum[i], _mm512_loadu_si512(data + at + 64 * i));
        }
    }
    for (int i = 1; i < 8; i++) {
        sum[0] = _mm512_add_epi64(sum[0], sum[i]);
    }
    uint64_t lanes[8], total = 0; /* gcc's reduce_add adds signed numbers, which may overflow */
    _mm512_storeu_si512(lanes, sum[0]);
    for (int i = 0; i < 8; i++) {
        total += lanes[i];
    }
    for (; at < bytes; at++) {
        total += data[at];
    }
    return total;
}

void vector_fill_avx512(struct kernels *k) {
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
