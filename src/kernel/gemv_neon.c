/* gemv_neon.c - matrix times vector with the dot-product instructions of ARMv8.2, for the types
 * that models are mostly made of: Q4_0, Q8_0, Q4_K, Q6_K. The others are the scalar table's.
 *
 * From LAYOUT_Q8: 16 codes and 16 activations give four sums of four, scaled by the product of the
 * weights' scale and the activations'. Codes are signed: zero points are taken off before. */
#include <arm_neon.h>
#include <string.h>

#include "kernel/blocks.h"
#include "kernel/fill.h"
#include "kernel/half.h"
#include "kernel/layout.h"

#define GEMV_INLINE static inline __attribute__((always_inline))

/* A prepared row: 16 activations from q + 16 g on have the scale d[g] and the scaled sum s[g]. */
struct acts {
    const int8_t *q;
    const float *d, *s;
};

GEMV_INLINE float32x4_t add_16(float32x4_t sum, int8x16_t codes, float scale, struct acts a,
                               uint32_t g) {
    int32x4_t dot = vdotq_s32(vdupq_n_s32(0), codes, vld1q_s8(a.q + 16 * (uint64_t)g));
    return vfmaq_n_f32(sum, vcvtq_f32_s32(dot), scale * a.d[g]);
}

GEMV_INLINE int8x16_t low_nibbles(uint8x16_t v) {
    return vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
}
GEMV_INLINE int8x16_t high_nibbles(uint8x16_t v) {
    return vreinterpretq_s8_u8(vshrq_n_u8(v, 4));
}

/* w is the row's next block, g its first group of 16 activations. */
GEMV_INLINE void add_q4_0(const struct block_q4_0 *w, struct acts a, uint32_t g,
                          float32x4_t sum[2]) {
    const float d = half_to_f32(w->d);
    const int8x16_t zero = vdupq_n_s8(8);
    uint8x16_t qs = vld1q_u8(w->qs);
    sum[0] = add_16(sum[0], vsubq_s8(low_nibbles(qs), zero), d, a, g);
    sum[1] = add_16(sum[1], vsubq_s8(high_nibbles(qs), zero), d, a, g + 1);
}

GEMV_INLINE void add_q8_0(const struct block_q8_0 *w, struct acts a, uint32_t g,
                          float32x4_t sum[2]) {
    const float d = half_to_f32(w->d);
    sum[0] = add_16(sum[0], vld1q_s8(w->qs), d, a, g);
    sum[1] = add_16(sum[1], vld1q_s8(w->qs + 16), d, a, g + 1);
}

/* Eight scales and, in the upper half, eight minima of 6 bits. */
GEMV_INLINE void scales_k4(const uint8_t packed[12], uint8_t scales[16]) {
    uint32_t w[3];
    memcpy(w, packed, sizeof w);
    const uint32_t out[4] = {w[0] & 0x3f3f3f3fu, (w[2] & 0x0f0f0f0fu) | (w[0] >> 2 & 0x30303030u),
                             w[1] & 0x3f3f3f3fu,
                             (w[2] >> 4 & 0x0f0f0f0fu) | (w[1] >> 2 & 0x30303030u)};
    memcpy(scales, out, sizeof out);
}

GEMV_INLINE void add_q4_k(const struct block_q4_k *w, struct acts a, uint32_t g,
                          float32x4_t sum[2]) {
    const float d = half_to_f32(w->d), dmin = half_to_f32(w->dmin);
    uint8_t scales[16];
    scales_k4(w->scales, scales);
    float min_sum = 0;
    for (uint32_t k = 0; k < 8; k += 2, g += 4) {
        const float low = d * (float)scales[k], high = d * (float)scales[k + 1];
        uint8x16_t first = vld1q_u8(w->qs + 16 * k), second = vld1q_u8(w->qs + 16 * k + 16);
        sum[0] = add_16(sum[0], low_nibbles(first), low, a, g);
        sum[1] = add_16(sum[1], low_nibbles(second), low, a, g + 1);
        sum[0] = add_16(sum[0], high_nibbles(first), high, a, g + 2);
        sum[1] = add_16(sum[1], high_nibbles(second), high, a, g + 3);
        min_sum += (float)scales[8 + k] * (a.s[g] + a.s[g + 1]);
        min_sum += (float)scales[9 + k] * (a.s[g + 2] + a.s[g + 3]);
    }
    sum[0] = vsetq_lane_f32(vgetq_lane_f32(sum[0], 0) - dmin * min_sum, sum[0], 0);
}

/* 16 codes of 6 bits: nibbles, and two bits of each byte of high on top. */
GEMV_INLINE int8x16_t six_bits(int8x16_t nibbles, uint8x16_t high) {
    uint8x16_t top = vshlq_n_u8(vandq_u8(high, vdupq_n_u8(3)), 4);
    return vsubq_s8(vorrq_s8(nibbles, vreinterpretq_s8_u8(top)), vdupq_n_s8(32));
}

GEMV_INLINE void add_q6_k(const struct block_q6_k *w, struct acts a, uint32_t g,
                          float32x4_t sum[2]) {
    const float d = half_to_f32(w->d);
    for (uint32_t i = 0; i < 4; i++) { /* 16 bytes of high bits: half i / 2, run i % 2 */
        const uint8_t *ql = w->ql + i / 2 * 64 + i % 2 * 16;
        const int8_t *scales = w->scales + i / 2 * 8 + i % 2;
        const uint32_t at = g + i / 2 * 8 + i % 2;
        uint8x16_t first = vld1q_u8(ql), second = vld1q_u8(ql + 32);
        uint8x16_t high = vld1q_u8(w->qh + 16 * i);
        sum[0] = add_16(sum[0], six_bits(low_nibbles(first), high), d * (float)scales[0], a, at);
        sum[1] = add_16(sum[1], six_bits(low_nibbles(second), vshrq_n_u8(high, 2)),
                        d * (float)scales[2], a, at + 2);
        sum[0] = add_16(sum[0], six_bits(high_nibbles(first), vshrq_n_u8(high, 4)),
                        d * (float)scales[4], a, at + 4);
        sum[1] = add_16(sum[1], six_bits(high_nibbles(second), vshrq_n_u8(high, 6)),
                        d * (float)scales[6], a, at + 6);
    }
}

/* dtype is a constant where this is inlined. */
GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const void *x, float *y) {
    const struct acts a = {layout_q8_q(x), layout_q8_d(x, n_cols), layout_q8_s(x, n_cols)};
    for (uint32_t r = 0; r < n_rows; r++) {
        const void *row = w + r * row_bytes;
        float32x4_t sum[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
        for (uint32_t g = 0, b = 0; g < n_cols / 16; b++) {
            switch (dtype) {
            case OT_Q4_0: add_q4_0((const struct block_q4_0 *)row + b, a, g, sum); break;
            case OT_Q8_0: add_q8_0((const struct block_q8_0 *)row + b, a, g, sum); break;
            case OT_Q4_K: add_q4_k((const struct block_q4_k *)row + b, a, g, sum); break;
            default: add_q6_k((const struct block_q6_k *)row + b, a, g, sum);
            }
            g += dtype == OT_Q4_0 || dtype == OT_Q8_0 ? 2 : 16;
        }
        y[r] = vaddvq_f32(vaddq_f32(sum[0], sum[1]));
    }
}

static void gemv_q4_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q4_0, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q8_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q8_0, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q4_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q4_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q6_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q6_K, w, row_bytes, n_rows, n_cols, x, y);
}

void gemv_fill_neon(struct kernels *k) {
    k->type[OT_Q4_0].gemv = gemv_q4_0;
    k->type[OT_Q8_0].gemv = gemv_q8_0;
    k->type[OT_Q4_K].gemv = gemv_q4_k;
    k->type[OT_Q6_K].gemv = gemv_q6_k;
}
