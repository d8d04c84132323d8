/* layout_scalar.c - preparing activations: the plain f32 row, and LAYOUT_Q8. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/layout.h"

uint64_t layout_bytes_scalar(uint8_t layout, uint32_t n_cols) {
    if (layout == KERNEL_LAYOUT_F32) {
        return round_up((uint64_t)n_cols * sizeof(float), KERNEL_ALIGN);
    }
    assert(layout == LAYOUT_Q8);
    return layout_q8_bytes(n_cols);
}

static float largest_finite(const float *x, uint32_t n) {
    float largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        largest = isfinite(x[i]) ? fmaxf(largest, fabsf(x[i])) : largest;
    }
    return largest;
}

/* The 16 values from x on. A group with a value that is not finite gets the scale NaN, which every
 * result then shows; no number is made up for it. */
static void quantise_16(const float *x, float unit, int8_t *q, float *d, float *s) {
    bool finite = true;
    for (uint32_t i = 0; i < 16; i++) {
        finite = finite && isfinite(x[i]);
    }
    float scale = finite ? unit * (float)layout_steps(largest_finite(x, 16), unit) : NAN;
    float inverse = 1.0f / scale;
    int32_t sum = 0;
    for (uint32_t i = 0; i < 16; i++) {
        float value = finite && scale > 0 ? nearbyintf(x[i] * inverse) : 0;
        q[i] = (int8_t)fminf(fmaxf(value, -127.0f), 127.0f);
        sum += q[i];
    }
    *d = scale;
    *s = scale * (float)sum;
}

void layout_prepare_scalar(uint8_t layout, const float *x, uint32_t n_cols, void *out) {
    if (layout == KERNEL_LAYOUT_F32) {
        memcpy(out, x, (uint64_t)n_cols * sizeof *x);
        return;
    }
    assert(layout == LAYOUT_Q8 && n_cols % 32 == 0);
    memset(out, 0, layout_q8_bytes(n_cols));
    int8_t *q = out;
    float *d = (float *)(void *)(q + layout_pad(n_cols)), *s = d + layout_pad(n_cols) / 16;
    float row_largest = largest_finite(x, n_cols), unit = 0;
    for (uint32_t g = 0; g < n_cols / 16; g++) {
        if (g % 16 == 0) {
            const uint32_t n = min_u32(n_cols - 16 * g, LAYOUT_UNIT_COLS);
            unit = layout_unit(largest_finite(x + 16 * (uint64_t)g, n), row_largest);
        }
        quantise_16(x + 16 * (uint64_t)g, unit, q + 16 * (uint64_t)g, &d[g], &s[g]);
    }
}

void layout_fill_scalar(struct kernels *k) {
    k->layout_bytes = layout_bytes_scalar;
    k->prepare = layout_prepare_scalar;
}
