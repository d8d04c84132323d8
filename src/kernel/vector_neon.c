/* vector_neon.c - operations on rows of f32; of the scalar ones only stream_read stays, of which
 * the compiler makes vectors by itself. */
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "kernel/fill.h"
#include "kernel/half.h"

#define VECTOR_INLINE static inline __attribute__((always_inline))

/* n of 4 values (1 to 4); the others are 0. */
VECTOR_INLINE float32x4_t load_some(const float *x, uint64_t n) {
    if (n >= 4) {
        return vld1q_f32(x);
    }
    float some[4] = {0};
    memcpy(some, x, n * sizeof *x);
    return vld1q_f32(some);
}
VECTOR_INLINE void store_some(float *y, uint64_t n, float32x4_t v) {
    if (n >= 4) {
        vst1q_f32(y, v);
        return;
    }
    float some[4];
    vst1q_f32(some, v);
    memcpy(y, some, n * sizeof *y);
}

/* 2^n for whole n in [-126, 127]. */
VECTOR_INLINE float32x4_t power_of_two(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

/* e^x: 2^n times a Taylor polynomial of degree 7 on [-ln 2 / 2, ln 2 / 2]; relative error below
 * 2e-7. 2^n in two factors, because n reaches beyond the exponents that one number has. NaN stays.
 */
VECTOR_INLINE float32x4_t exponential(float32x4_t x) {
    x = vmaxq_f32(vminq_f32(x, vdupq_n_f32(100.0f)), vdupq_n_f32(-120.0f));
    float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
    float32x4_t r = vfmsq_n_f32(x, n, 0.693359375f); /* ln 2 in two parts */
    r = vfmsq_n_f32(r, n, -2.12194440e-4f);
    float32x4_t p = vdupq_n_f32(1.0f / 5040);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 720), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 120), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 24), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 6), p, r);
    p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return vmulq_f32(vmulq_f32(p, power_of_two(half)), power_of_two(vsubq_s32(whole, half)));
}

static void rms_norm(const float *x, const float *gain, uint32_t n, float eps, float *y) {
    float64x2_t sum0 = vdupq_n_f64(0), sum1 = sum0;
    for (uint32_t i = 0; i < n; i += 4) {
        float32x4_t v = load_some(x + i, n - i);
        float64x2_t low = vcvt_f64_f32(vget_low_f32(v)), high = vcvt_high_f64_f32(v);
        sum0 = vfmaq_f64(sum0, low, low);
        sum1 = vfmaq_f64(sum1, high, high);
    }
    double sum = vaddvq_f64(vaddq_f64(sum0, sum1));
    float factor = (float)(1.0 / sqrt(sum / n + (double)eps));
    for (uint32_t i = 0; i < n; i += 4) {
        float32x4_t v = vmulq_n_f32(load_some(x + i, n - i), factor);
        store_some(y + i, n - i, gain != NULL ? vmulq_f32(v, load_some(gain + i, n - i)) : v);
    }
}

static void silu_mul(float *gate, const float *up, uint64_t n) {
    for (uint64_t i = 0; i < n; i += 4) {
        float32x4_t x = load_some(gate + i, n - i);
        float32x4_t e = exponential(vnegq_f32(x));
        x = vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), e));
        store_some(gate + i, n - i, vmulq_f32(x, load_some(up + i, n - i)));
    }
}

/* x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
static void gelu_mul(float *gate, const float *up, uint64_t n) {
    const float32x4_t one = vdupq_n_f32(1.0f);
    for (uint64_t i = 0; i < n; i += 4) {
        float32x4_t x = load_some(gate + i, n - i);
        float32x4_t u = vfmaq_n_f32(one, vmulq_f32(x, x), 0.044715f);
        u = vmulq_f32(u, vmulq_n_f32(x, -2.0f * 0.79788456080286535588f));
        x = vdivq_f32(x, vaddq_f32(one, exponential(u)));
        store_some(gate + i, n - i, vmulq_f32(x, load_some(up + i, n - i)));
    }
}

/* tanh: an odd polynomial (Cephes, tanhf) below 0.625, 1 - 2 / (e^2|x| + 1) above. */
VECTOR_INLINE float32x4_t hyperbolic_tangent(float32x4_t x) {
    const float32x4_t one = vdupq_n_f32(1.0f), size = vabsq_f32(x), square = vmulq_f32(x, x);
    float32x4_t p = vdupq_n_f32(-5.70498872745e-3f);
    p = vfmaq_f32(vdupq_n_f32(2.06390887954e-2f), p, square);
    p = vfmaq_f32(vdupq_n_f32(-5.37397155531e-2f), p, square);
    p = vfmaq_f32(vdupq_n_f32(1.33314422036e-1f), p, square);
    p = vfmaq_f32(vdupq_n_f32(-3.33332819422e-1f), p, square);
    p = vfmaq_f32(x, vmulq_f32(p, square), x);
    float32x4_t e = exponential(vaddq_f32(size, size));
    float32x4_t far = vsubq_f32(one, vdivq_f32(vdupq_n_f32(2.0f), vaddq_f32(e, one)));
    far = vbslq_f32(vdupq_n_u32(0x80000000u), x, far); /* x's sign */
    return vbslq_f32(vcltq_f32(size, vdupq_n_f32(0.625f)), p, far);
}

static void softcap(float *x, uint64_t n, float cap) {
    for (uint64_t i = 0; i < n; i += 4) {
        float32x4_t v = vdivq_f32(load_some(x + i, n - i), vdupq_n_f32(cap));
        store_some(x + i, n - i, vmulq_n_f32(hyperbolic_tangent(v), cap));
    }
}

static void add_scaled(float *y, const float *x, float factor, uint64_t n) {
    for (uint64_t i = 0; i < n; i += 4) {
        float32x4_t v = vfmaq_n_f32(load_some(y + i, n - i), load_some(x + i, n - i), factor);
        store_some(y + i, n - i, v);
    }
}

/* Pairs (i, i + half). */
VECTOR_INLINE void rope_halves(float *x, uint32_t half, const float *cos, const float *sin) {
    for (uint32_t i = 0; i < half; i += 4) {
        uint32_t n = half - i;
        float32x4_t a = load_some(x + i, n), b = load_some(x + half + i, n);
        float32x4_t c = load_some(cos + i, n), s = load_some(sin + i, n);
        store_some(x + i, n, vfmsq_f32(vmulq_f32(a, c), b, s));
        store_some(x + half + i, n, vfmaq_f32(vmulq_f32(b, c), a, s));
    }
}

/* Pairs (2i, 2i + 1): four at a time, taken apart by the load and put together by the store. */
VECTOR_INLINE void rope_neighbours(float *x, uint32_t half, const float *cos, const float *sin) {
    uint32_t i = 0;
    for (; i + 4 <= half; i += 4) {
        const float32x4x2_t v = vld2q_f32(x + 2 * i);
        const float32x4_t c = vld1q_f32(cos + i), s = vld1q_f32(sin + i);
        float32x4x2_t rotated;
        rotated.val[0] = vfmsq_f32(vmulq_f32(v.val[0], c), v.val[1], s);
        rotated.val[1] = vfmaq_f32(vmulq_f32(v.val[1], c), v.val[0], s);
        vst2q_f32(x + 2 * i, rotated);
    }
    for (; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = a * sin[i] + b * cos[i];
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
    for (; n >= 4; n -= 4, x += 4, y += 4) {
        vst1_u16(y, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x))));
    }
    for (uint64_t i = 0; i < n; i++) {
        y[i] = half_from_f32(x[i]);
    }
}

static bool all_finite(const float *x, uint64_t n) {
    const uint32x4_t exponent = vdupq_n_u32(0x7f800000);
    uint32x4_t bad = vdupq_n_u32(0);
    for (uint64_t i = 0; i < n; i += 4) {
        uint32x4_t v = vreinterpretq_u32_f32(load_some(x + i, n - i));
        bad = vorrq_u32(bad, vceqq_u32(vandq_u32(v, exponent), exponent));
    }
    return vmaxvq_u32(bad) == 0;
}

void vector_fill_neon(struct kernels *k) {
    k->rms_norm = rms_norm;
    k->silu_mul = silu_mul;
    k->gelu_mul = gelu_mul;
    k->softcap = softcap;
    k->add_scaled = add_scaled;
    k->rope = rope;
    k->f32_to_f16 = f32_to_f16;
    k->all_finite = all_finite;
}
