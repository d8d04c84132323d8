/* attention_neon.c - softmax(scale * q k^T) v of one kv head, with NEON.
 *
 * A block of 64 keys is converted to f32 and transposed once into scratch (attention_transposed.h),
 * then all query rows pass over it with an online softmax, 4 rows by 4 vectors of 4 at a time.
 *
 * A row's arithmetic is the same whichever rows are with it: keys that it must not see get the
 * weight 0, which leaves its sums as they are while their values are finite. */
#include <arm_neon.h>

#include "kernel/attention_transposed.h"
#include "kernel/fill.h"

enum { MAX_ROWS = 4, PANEL = 16, KEY_VECTORS = KEYS / 4 };

/* e^x for x <= 0, or NaN; relative error below 1e-7; 0 where the result is not a normal number. */
INLINE float32x4_t exp_negative(float32x4_t x) {
    const float32x4_t least = vdupq_n_f32(-87.0f);
    const uint32x4_t tiny = vcltq_f32(x, least);
    x = vmaxq_f32(x, least); /* NaN passes */
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 0x1.715476p+0f));
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0x1.62e43p-1f)); /* ln 2 in two parts */
    r = vfmsq_f32(r, n, vdupq_n_f32(-0x1.05c61p-29f));
    float32x4_t p = vdupq_n_f32(0x1.6a1a72p-10f); /* minimax for (e^r - 1 - r) / r^2 */
    p = vfmaq_f32(vdupq_n_f32(0x1.123fc6p-7f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.555916p-5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.55548ap-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.fffffcp-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    /* n >= -126: the exponent of a normal number. Where n is NaN so is p. */
    const int32x4_t exponent = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    const float32x4_t result = vmulq_f32(p, vreinterpretq_f32_s32(exponent));
    return vbslq_f32(tiny, vdupq_n_f32(0), result);
}

/* From 0.55 on by way of e^(-2|x|); below, where that cancels, by a polynomial in x^2. */
INLINE float32x4_t tanh_f32(float32x4_t x) {
    const float32x4_t magnitude = vabsq_f32(x), one = vdupq_n_f32(1.0f);
    const float32x4_t e = exp_negative(vmulq_n_f32(magnitude, -2.0f));
    const float32x4_t large = vdivq_f32(vsubq_f32(one, e), vaddq_f32(one, e));
    const float32x4_t x2 = vmulq_f32(x, x);
    float32x4_t p = vdupq_n_f32(-0x1.96cf64p-8f);
    p = vfmaq_f32(vdupq_n_f32(0x1.58828cp-6f), p, x2);
    p = vfmaq_f32(vdupq_n_f32(-0x1.b9137p-5f), p, x2);
    p = vfmaq_f32(vdupq_n_f32(0x1.110cb2p-3f), p, x2);
    p = vfmaq_f32(vdupq_n_f32(-0x1.55554ap-2f), p, x2);
    const float32x4_t small = vfmaq_f32(magnitude, vmulq_f32(p, x2), magnitude);
    const float32x4_t y = vbslq_f32(vcltq_f32(magnitude, vdupq_n_f32(0.55f)), small, large);
    return vbslq_f32(vdupq_n_u32(0x80000000u), x, y); /* x's sign */
}

/* n <= 4 half precision numbers, and zeros. */
INLINE float32x4_t load_half(const uint16_t *p, uint32_t n) {
    if (n >= 4)
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
    uint16_t some[4] = {0};
    memcpy(some, p, n * sizeof some[0]);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(some)));
}

/* K [n_keys, head_dim] to [head_dim][KEYS]; zeros for keys that are not there. */
static void transpose_keys(const uint16_t *k, uint32_t n_keys, uint32_t head_dim, float *out) {
    for (uint32_t key = 0; key < KEYS; key += 4)
        for (uint32_t d = 0; d < head_dim; d += 4) {
            float32x4_t r[4];
            for (uint32_t i = 0; i < 4; i++)
                r[i] = key + i < n_keys
                           ? load_half(k + (uint64_t)(key + i) * head_dim + d, head_dim - d)
                           : vdupq_n_f32(0);
            const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
            const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
            const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
            const float64x2_t e = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
            float *to = out + (uint64_t)d * KEYS + key; /* scratch has room for whole vectors */
            vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(a, c)));
            vst1q_f32(to + KEYS, vreinterpretq_f32_f64(vtrn1q_f64(b, e)));
            vst1q_f32(to + 2 * KEYS, vreinterpretq_f32_f64(vtrn2q_f64(a, c)));
            vst1q_f32(to + 3 * KEYS, vreinterpretq_f32_f64(vtrn2q_f64(b, e)));
        }
}

static void convert_values(const uint16_t *v, uint32_t n_keys, uint32_t head_dim, uint32_t stride,
                           float *out) {
    for (uint32_t key = 0; key < n_keys; key++)
        for (uint32_t d = 0; d < head_dim; d += 4)
            vst1q_f32(out + (uint64_t)key * stride + d,
                      load_half(v + (uint64_t)key * head_dim + d, head_dim - d));
}

/* ---- scores ---- */

/* All ones in the lanes whose bit is set. */
INLINE uint32x4_t mask_of(uint64_t bits) {
    const uint32_t bit[4] = {1, 2, 4, 8};
    return vtstq_u32(vdupq_n_u32((uint32_t)(bits & 15)), vld1q_u32(bit));
}

/* The row's dots become weights; its best score and sum are brought up to date. */
static void soften(const struct kernel_attention *a, const struct work *w, uint32_t row,
                   uint64_t visible) {
    float *weight = w->weight + row * KEYS;
    float32x4_t x[KEY_VECTORS], best = vdupq_n_f32(w->best[row]);
    for (uint32_t i = 0; i < KEY_VECTORS; i++) {
        x[i] = vmulq_n_f32(vld1q_f32(weight + 4 * i), a->scale);
        if (a->softcap > 0)
            x[i] = vmulq_n_f32(tanh_f32(vdivq_f32(x[i], vdupq_n_f32(a->softcap))), a->softcap);
        const float32x4_t seen = vbslq_f32(mask_of(visible >> 4 * i), x[i], vdupq_n_f32(-INFINITY));
        best = vmaxq_f32(best, seen);
    }
    best = vdupq_n_f32(vmaxvq_f32(best));
    float32x4_t sum = vdupq_n_f32(0);
    for (uint32_t i = 0; i < KEY_VECTORS; i++) {
        const float32x4_t e = vbslq_f32(mask_of(visible >> 4 * i),
                                        exp_negative(vsubq_f32(x[i], best)), vdupq_n_f32(0));
        vst1q_f32(weight + 4 * i, e);
        sum = vaddq_f32(sum, e);
    }
    const float keep = vgetq_lane_f32(exp_negative(vsubq_f32(vdupq_n_f32(w->best[row]), best)), 0);
    w->keep[row] = keep;
    w->best[row] = vgetq_lane_f32(best, 0);
    w->sum[row] = w->sum[row] * keep + vaddvq_f32(sum);
}

/* n is a constant where this is inlined. */
INLINE void score_rows(const struct kernel_attention *a, const struct work *w,
                       const struct rows *rows, uint32_t n) {
    const float *q[MAX_ROWS];
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++)
        q[m] = a->q[rows->index[m]];
    for (uint32_t key = 0; key < KEYS; key += 16) {
        float32x4_t x[MAX_ROWS][4];
#pragma GCC unroll 4
        for (uint32_t m = 0; m < n; m++)
            for (uint32_t i = 0; i < 4; i++)
                x[m][i] = vdupq_n_f32(0);
        const float *k = w->k + key;
        for (uint64_t d = 0; d < a->head_dim; d++, k += KEYS) {
            const float32x4_t k0 = vld1q_f32(k), k1 = vld1q_f32(k + 4);
            const float32x4_t k2 = vld1q_f32(k + 8), k3 = vld1q_f32(k + 12);
#pragma GCC unroll 4
            for (uint32_t m = 0; m < n; m++) {
                x[m][0] = vfmaq_n_f32(x[m][0], k0, q[m][d]);
                x[m][1] = vfmaq_n_f32(x[m][1], k1, q[m][d]);
                x[m][2] = vfmaq_n_f32(x[m][2], k2, q[m][d]);
                x[m][3] = vfmaq_n_f32(x[m][3], k3, q[m][d]);
            }
        }
#pragma GCC unroll 4
        for (uint32_t m = 0; m < n; m++)
            for (uint32_t i = 0; i < 4; i++)
                vst1q_f32(w->weight + rows->index[m] * KEYS + key + 4 * i, x[m][i]);
    }
    for (uint32_t m = 0; m < n; m++)
        soften(a, w, rows->index[m], rows->visible[m]);
}

/* ---- values ---- */

/* Adds a block's values to dimensions [dim, dim + 16) of n rows; n is a constant. */
INLINE void add_panel(const struct work *w, const struct rows *rows, uint32_t n, uint32_t n_keys,
                      uint32_t dim) {
    const float *weight[MAX_ROWS];
    float *values[MAX_ROWS];
    float32x4_t x[MAX_ROWS][4];
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++) {
        const uint32_t row = rows->index[m];
        weight[m] = w->weight + row * KEYS;
        values[m] = w->values + (uint64_t)row * w->stride + dim;
        for (uint32_t i = 0; i < 4; i++)
            x[m][i] = vmulq_n_f32(vld1q_f32(values[m] + 4 * i), w->keep[row]);
    }
    const float *v = w->v + dim;
    for (uint64_t key = 0; key < n_keys; key++, v += w->stride) {
        const float32x4_t v0 = vld1q_f32(v), v1 = vld1q_f32(v + 4);
        const float32x4_t v2 = vld1q_f32(v + 8), v3 = vld1q_f32(v + 12);
#pragma GCC unroll 4
        for (uint32_t m = 0; m < n; m++) {
            x[m][0] = vfmaq_n_f32(x[m][0], v0, weight[m][key]);
            x[m][1] = vfmaq_n_f32(x[m][1], v1, weight[m][key]);
            x[m][2] = vfmaq_n_f32(x[m][2], v2, weight[m][key]);
            x[m][3] = vfmaq_n_f32(x[m][3], v3, weight[m][key]);
        }
    }
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++)
        for (uint32_t i = 0; i < 4; i++)
            vst1q_f32(values[m] + 4 * i, x[m][i]);
}

#define BLOCK(n)                                                                                   \
    static void block_##n(const struct kernel_attention *a, const struct work *w,                  \
                          const struct rows *rows, uint32_t n_keys) {                              \
        score_rows(a, w, rows, n);                                                                 \
        for (uint32_t dim = 0; dim < w->stride; dim += PANEL)                                      \
            add_panel(w, rows, n, n_keys, dim);                                                    \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)

static void attention(const struct kernel_attention *a, void *scratch) {
    static const struct attention_isa isa = {
        .transpose_keys = transpose_keys,
        .convert_values = convert_values,
        .block = {block_1, block_2, block_3, block_4},
        .max_rows = MAX_ROWS,
    };
    attention_transposed(&isa, a, scratch);
}

void attention_fill_neon(struct kernels *k) {
    k->attention = attention;
    k->attention_prompt = attention;
    k->attention_scratch_bytes = work_bytes;
}
