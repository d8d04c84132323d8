/* gemv_scalar.c - matrix times vector, plainly: the oracle of every other variant.
 *
 * Quantised types: an integer sum over each 16 values, scaled by the weight's and the activation's
 * scale, plus the weight's minimum times the activation's sum. Sums are kept in double, so that
 * what a variant's test sees is the variant's own rounding. */
#include "base/dtype.h"
#include "kernel/codes.h"
#include "kernel/fill.h"
#include "kernel/half.h"
#include "kernel/layout.h"

static void gemv_blocks(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                        uint32_t n_cols, const void *x, float *y) {
    const struct dtype_info *info = dtype_get(dtype);
    const int8_t *q = layout_q8_q(x);
    const float *d = layout_q8_d(x, n_cols), *s = layout_q8_s(x, n_cols);
    struct codes codes;
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *block = w + r * row_bytes;
        double sum = 0;
        for (uint32_t c = 0; c < n_cols; c += info->block_values, block += info->block_bytes) {
            codes_unpack(dtype, block, &codes);
            for (uint32_t g = 0; g < info->block_values / 16; g++) {
                int32_t dot = 0;
                for (uint32_t i = 0; i < 16; i++) {
                    dot += codes.q[g * 16 + i] * q[c + g * 16 + i];
                }
                sum += (double)codes.d[g] * (double)d[c / 16 + g] * dot;
                if (codes.has_min) {
                    sum += (double)codes.m[g] * (double)s[c / 16 + g];
                }
            }
        }
        y[r] = (float)sum;
    }
}

static void gemv_f32(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                     const void *x, float *y) {
    const float *xs = x;
    for (uint32_t r = 0; r < n_rows; r++) {
        double sum = 0;
        for (uint32_t c = 0; c < n_cols; c++) {
            float value;
            memcpy(&value, w + r * row_bytes + 4 * (uint64_t)c, 4);
            sum += (double)value * (double)xs[c];
        }
        y[r] = (float)sum;
    }
}

static void gemv_f16(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                     const void *x, float *y) {
    const float *xs = x;
    for (uint32_t r = 0; r < n_rows; r++) {
        double sum = 0;
        for (uint32_t c = 0; c < n_cols; c++) {
            uint16_t h;
            memcpy(&h, w + r * row_bytes + 2 * (uint64_t)c, 2);
            sum += (double)half_to_f32(h) * (double)xs[c];
        }
        y[r] = (float)sum;
    }
}

static void gemv_bf16(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    const float *xs = x;
    for (uint32_t r = 0; r < n_rows; r++) {
        double sum = 0;
        for (uint32_t c = 0; c < n_cols; c++) {
            uint16_t h;
            memcpy(&h, w + r * row_bytes + 2 * (uint64_t)c, 2);
            sum += (double)half_bf16_to_f32(h) * (double)xs[c];
        }
        y[r] = (float)sum;
    }
}

/* One function a type, because the table's functions do not name the type. */
static void gemv_q4_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q4_0, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q4_1(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q4_1, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q5_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q5_0, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q5_1(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q5_1, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q8_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q8_0, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q2_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q2_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q3_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q3_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q4_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q4_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q5_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q5_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q6_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_blocks(OT_Q6_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_iq4_nl(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                        const void *x, float *y) {
    gemv_blocks(OT_IQ4_NL, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_iq4_xs(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                        const void *x, float *y) {
    gemv_blocks(OT_IQ4_XS, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_mxfp4(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                       const void *x, float *y) {
    gemv_blocks(OT_MXFP4, w, row_bytes, n_rows, n_cols, x, y);
}

static void set(struct kernels *k, uint32_t dtype, kernel_gemv_fn *fn, uint8_t layout) {
    k->type[dtype].gemv = fn;
    k->type[dtype].layout_gemv = layout;
}

void gemv_fill_scalar(struct kernels *k) {
    set(k, OT_F32, gemv_f32, KERNEL_LAYOUT_F32);
    set(k, OT_F16, gemv_f16, KERNEL_LAYOUT_F32);
    set(k, OT_BF16, gemv_bf16, KERNEL_LAYOUT_F32);
    set(k, OT_Q4_0, gemv_q4_0, LAYOUT_Q8);
    set(k, OT_Q4_1, gemv_q4_1, LAYOUT_Q8);
    set(k, OT_Q5_0, gemv_q5_0, LAYOUT_Q8);
    set(k, OT_Q5_1, gemv_q5_1, LAYOUT_Q8);
    set(k, OT_Q8_0, gemv_q8_0, LAYOUT_Q8);
    set(k, OT_Q2_K, gemv_q2_k, LAYOUT_Q8);
    set(k, OT_Q3_K, gemv_q3_k, LAYOUT_Q8);
    set(k, OT_Q4_K, gemv_q4_k, LAYOUT_Q8);
    set(k, OT_Q5_K, gemv_q5_k, LAYOUT_Q8);
    set(k, OT_Q6_K, gemv_q6_k, LAYOUT_Q8);
    set(k, OT_IQ4_NL, gemv_iq4_nl, LAYOUT_Q8);
    set(k, OT_IQ4_XS, gemv_iq4_xs, LAYOUT_Q8);
    set(k, OT_MXFP4, gemv_mxfp4, LAYOUT_Q8);
}
