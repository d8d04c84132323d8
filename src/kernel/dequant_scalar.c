/* dequant_scalar.c - rows of weights as f32: for embeddings (a row a token) and as the truth of
 * tests. Nothing on the way of a matrix product calls this, so there is no faster variant. */
#include "base/dtype.h"
#include "kernel/codes.h"
#include "kernel/fill.h"
#include "kernel/half.h"

static void dequant_blocks(uint32_t dtype, const uint8_t *w, uint64_t n_values, float *y) {
    const struct dtype_info *info = dtype_get(dtype);
    struct codes codes;
    for (uint64_t at = 0; at < n_values; at += info->block_values, w += info->block_bytes) {
        codes_unpack(dtype, w, &codes);
        for (uint32_t i = 0; i < info->block_values; i++) {
            float value = codes.d[i / 16] * (float)codes.q[i];
            y[at + i] = codes.has_min ? value + codes.m[i / 16] : value;
        }
    }
}

static void dequant_f32(const uint8_t *w, uint64_t n_values, float *y) {
    memcpy(y, w, n_values * sizeof *y);
}
static void dequant_f16(const uint8_t *w, uint64_t n_values, float *y) {
    for (uint64_t i = 0; i < n_values; i++) {
        uint16_t h;
        memcpy(&h, w + 2 * i, 2);
        y[i] = half_to_f32(h);
    }
}
static void dequant_bf16(const uint8_t *w, uint64_t n_values, float *y) {
    for (uint64_t i = 0; i < n_values; i++) {
        uint16_t h;
        memcpy(&h, w + 2 * i, 2);
        y[i] = half_bf16_to_f32(h);
    }
}

static void dequant_q4_0(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q4_0, w, n_values, y);
}
static void dequant_q4_1(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q4_1, w, n_values, y);
}
static void dequant_q5_0(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q5_0, w, n_values, y);
}
static void dequant_q5_1(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q5_1, w, n_values, y);
}
static void dequant_q8_0(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q8_0, w, n_values, y);
}
static void dequant_q2_k(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q2_K, w, n_values, y);
}
static void dequant_q3_k(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q3_K, w, n_values, y);
}
static void dequant_q4_k(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q4_K, w, n_values, y);
}
static void dequant_q5_k(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q5_K, w, n_values, y);
}
static void dequant_q6_k(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_Q6_K, w, n_values, y);
}
static void dequant_iq4_nl(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_IQ4_NL, w, n_values, y);
}
static void dequant_iq4_xs(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_IQ4_XS, w, n_values, y);
}
static void dequant_mxfp4(const uint8_t *w, uint64_t n_values, float *y) {
    dequant_blocks(OT_MXFP4, w, n_values, y);
}

void dequant_fill_scalar(struct kernels *k) {
    k->type[OT_F32].dequant = dequant_f32;
    k->type[OT_F16].dequant = dequant_f16;
    k->type[OT_BF16].dequant = dequant_bf16;
    k->type[OT_Q4_0].dequant = dequant_q4_0;
    k->type[OT_Q4_1].dequant = dequant_q4_1;
    k->type[OT_Q5_0].dequant = dequant_q5_0;
    k->type[OT_Q5_1].dequant = dequant_q5_1;
    k->type[OT_Q8_0].dequant = dequant_q8_0;
    k->type[OT_Q2_K].dequant = dequant_q2_k;
    k->type[OT_Q3_K].dequant = dequant_q3_k;
    k->type[OT_Q4_K].dequant = dequant_q4_k;
    k->type[OT_Q5_K].dequant = dequant_q5_k;
    k->type[OT_Q6_K].dequant = dequant_q6_k;
    k->type[OT_IQ4_NL].dequant = dequant_iq4_nl;
    k->type[OT_IQ4_XS].dequant = dequant_iq4_xs;
    k->type[OT_MXFP4].dequant = dequant_mxfp4;
}
