/* layout.h - how prepared (quantised) activations lie in memory.
 *
 * LAYOUT_Q8, the canonical one, for a row of n_cols values padded with zeros to n_pad, the next
 * multiple of 256:
 *
 *   OFFSET                 SIZE         WHAT
 *   0                      n_pad        int8 q[n_pad]
 *   n_pad                  n_pad / 4    f32 d[n_pad / 16]    scale of each 16 values
 *   n_pad + n_pad / 4      n_pad / 4    f32 s[n_pad / 16]    d * sum of the 16 q
 *
 * A group of 16 with an infinite value or a NaN has q = 0 and d = s = NaN.
 *
 * A scale d is a whole number of steps (at most LAYOUT_MAX_STEPS) of a unit, a power of two that
 * 256 columns share, so that scales may be multiplied in integers. Codes are made with the scale as
 * rounded up: nothing is lost but that the step of a group much smaller than its neighbours is a
 * little coarser (by half of unit / d on average). Most units are the row's: 256 columns have their
 * own if all their values are much smaller.
 *
 * Numbers 1..7 are for gemm, 8..31 for gemv; an instruction set defines those that it needs in its
 * layout_ISA.c, always from the same q and d. */
#ifndef KERNEL_LAYOUT_H
#define KERNEL_LAYOUT_H

#include <stdint.h>
#include <string.h>

/* What the scalar table's functions of kernel.h do; the other tables hand layouts 0 and 1 on. */
uint64_t layout_bytes_scalar(uint8_t layout, uint32_t n_cols);
void layout_prepare_scalar(uint8_t layout, const float *x, uint32_t n_cols, void *out);

enum { LAYOUT_Q8 = 1, LAYOUT_GEMM_FIRST = 1, LAYOUT_GEMV_FIRST = 8 };

enum { LAYOUT_UNIT_COLS = 256, LAYOUT_MAX_STEPS = 32767 };
/* A gemm takes so many columns at a time; results wait in f32 between. */
enum { LAYOUT_GEMM_COLS = 4096 };

/* The power of two of which a scale of largest / 127 has LAYOUT_MAX_STEPS / 2 to LAYOUT_MAX_STEPS
 * steps; at least 2^-100. */
static inline float layout_finest_unit(float largest) {
    const float d = largest / 127.0f;
    uint32_t bits;
    memcpy(&bits, &d, sizeof bits);
    const uint32_t exponent = bits >> 23;
    bits = (exponent > 41 ? exponent - 14 : 27) << 23;
    float unit;
    memcpy(&unit, &bits, sizeof unit);
    return unit;
}

/* The unit of 256 columns, of their and the row's largest finite magnitude. Within 2^40 of the
 * row's, so that no sum in units overflows. */
static inline float layout_unit(float largest, float row_largest) {
    const float own = layout_finest_unit(largest), row = layout_finest_unit(row_largest);
    if (own >= row * 0.125f) {
        return row;
    }
    return own > row * 0x1p-40f ? own : row * 0x1p-40f;
}

/* Steps of the scale of a group with this largest magnitude. */
static inline uint32_t layout_steps(float largest, float unit) {
    const float steps = largest / 127.0f / unit;
    const uint32_t whole = (uint32_t)steps;
    const uint32_t up = whole + ((float)whole < steps ? 1 : 0);
    return up < LAYOUT_MAX_STEPS ? up : LAYOUT_MAX_STEPS;
}

static inline uint32_t layout_pad(uint32_t n_cols) {
    return (n_cols + 255u) / 256u * 256u;
}
static inline uint64_t layout_q8_bytes(uint32_t n_cols) {
    return (uint64_t)layout_pad(n_cols) + layout_pad(n_cols) / 2;
}
static inline const int8_t *layout_q8_q(const void *row) {
    return (const int8_t *)row;
}
static inline const float *layout_q8_d(const void *row, uint32_t n_cols) {
    return (const float *)(const void *)((const char *)row + layout_pad(n_cols));
}
static inline const float *layout_q8_s(const void *row, uint32_t n_cols) {
    return layout_q8_d(row, n_cols) + layout_pad(n_cols) / 16;
}

#endif
