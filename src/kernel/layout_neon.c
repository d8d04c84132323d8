/* layout_neon.c - LAYOUT_Q8, which the NEON kernels compute from as it is. */
#include <arm_neon.h>
#include <assert.h>
#include <string.h>

#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/layout.h"

static float largest_finite(const float *x, uint32_t n) {
    const uint32x4_t magnitude = vdupq_n_u32(0x7fffffff), limit = vdupq_n_u32(0x7f800000);
    uint32x4_t most = vdupq_n_u32(0);
    for (uint32_t i = 0; i < n; i += 4) {
        const uint32x4_t v = vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), magnitude);
        most = vmaxq_u32(most, vandq_u32(v, vcltq_u32(v, limit)));
    }
    const uint32_t bits = vmaxvq_u32(most);
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    return largest;
}

/* As quantise_16 of layout_scalar.c, number by number: the largest magnitude is found among the bit
 * patterns, where a NaN is above infinity, which is above all else. */
static void quantise_16(const float *x, float unit, int8_t *q, float *d, float *s) {
    const uint32x4_t magnitude = vdupq_n_u32(0x7fffffff);
    float32x4_t v[4];
    uint32x4_t most = vdupq_n_u32(0);
    for (int i = 0; i < 4; i++) {
        v[i] = vld1q_f32(x + 4 * i);
        most = vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(v[i]), magnitude));
    }
    uint32_t largest = vmaxvq_u32(most);
    float scale;
    memcpy(&scale, &largest, sizeof scale);
    scale = largest >= 0x7f800000u ? __builtin_nanf("") : unit * (float)layout_steps(scale, unit);
    if (!(scale > 0)) {
        memset(q, 0, 16);
        *d = scale;
        *s = scale * 0.0f;
        return;
    }
    int32x4_t whole[4];
    for (int i = 0; i < 4; i++) {
        whole[i] = vcvtnq_s32_f32(vmulq_n_f32(v[i], 1.0f / scale));
        whole[i] = vmaxq_s32(vminq_s32(whole[i], vdupq_n_s32(127)), vdupq_n_s32(-127));
    }
    int32x4_t sum = vaddq_s32(vaddq_s32(whole[0], whole[1]), vaddq_s32(whole[2], whole[3]));
    int16x8_t low = vcombine_s16(vmovn_s32(whole[0]), vmovn_s32(whole[1]));
    int16x8_t high = vcombine_s16(vmovn_s32(whole[2]), vmovn_s32(whole[3]));
    vst1q_s8(q, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    *d = scale;
    *s = scale * (float)vaddvq_s32(sum);
}

static void prepare(uint8_t layout, const float *x, uint32_t n_cols, void *out) {
    if (layout != LAYOUT_Q8) {
        layout_prepare_scalar(layout, x, n_cols, out);
        return;
    }
    assert(n_cols % 32 == 0);
    uint32_t n_pad = layout_pad(n_cols);
    int8_t *q = out;
    float *d = (float *)(void *)(q + n_pad), *s = d + n_pad / 16;
    const float row_largest = largest_finite(x, n_cols);
    float unit = 0;
    for (uint32_t g = 0; g < n_cols / 16; g++) {
        if (g % 16 == 0) {
            const uint32_t n = min_u32(n_cols - 16 * g, 256);
            unit = layout_unit(largest_finite(x + 16 * (uint64_t)g, n), row_largest);
        }
        quantise_16(x + 16 * (uint64_t)g, unit, q + 16 * (uint64_t)g, &d[g], &s[g]);
    }
    memset(q + n_cols, 0, n_pad - n_cols);
    memset(d + n_cols / 16, 0, (n_pad - n_cols) / 16 * sizeof *d);
    memset(s + n_cols / 16, 0, (n_pad - n_cols) / 16 * sizeof *s);
}

void layout_fill_neon(struct kernels *k) {
    k->prepare = prepare;
}
