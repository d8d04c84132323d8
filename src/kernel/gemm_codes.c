/* gemm_codes.c - one decoder for each quantised type; the layouts are those of the GGUF format. */
#include "kernel/gemm_codes.h"

#include "onetrip.h"

const int8_t gemm_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};
const int8_t gemm_mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static void set_scales(struct gemm_codes *c, int n, float d, float m) {
    for (int i = 0; i < n; i++) {
        c->d[i] = d;
        c->m[i] = m;
    }
}

/* 16 bytes of nibbles to 32 codes, low halves first. */
static void nibbles(const uint8_t *qs, int8_t *q) {
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)(qs[i] & 15);
        q[i + 16] = (int8_t)(qs[i] >> 4);
    }
}

static void fifth_bits(const uint8_t *qh, int8_t *q) {
    for (int i = 0; i < 32; i++)
        q[i] = (int8_t)(q[i] | ((qh[i / 8] >> (i % 8)) & 1) << 4);
}

static void add(int8_t *q, int n, int8_t a) {
    for (int i = 0; i < n; i++)
        q[i] = (int8_t)(q[i] + a);
}

static void table_nibbles(const uint8_t *qs, const int8_t *table, int8_t *q) {
    nibbles(qs, q);
    for (int i = 0; i < 32; i++)
        q[i] = table[q[i]];
}

static void codes_q4_0(const uint8_t *w, struct gemm_codes *c) {
    nibbles(w + 2, c->q);
    add(c->q, 32, -8);
    set_scales(c, 2, gemm_load_f16(w), 0);
}

static void codes_q4_1(const uint8_t *w, struct gemm_codes *c) {
    nibbles(w + 4, c->q);
    set_scales(c, 2, gemm_load_f16(w), gemm_load_f16(w + 2));
}

static void codes_q5_0(const uint8_t *w, struct gemm_codes *c) {
    nibbles(w + 6, c->q);
    fifth_bits(w + 2, c->q);
    add(c->q, 32, -16);
    set_scales(c, 2, gemm_load_f16(w), 0);
}

static void codes_q5_1(const uint8_t *w, struct gemm_codes *c) {
    nibbles(w + 8, c->q);
    fifth_bits(w + 4, c->q);
    set_scales(c, 2, gemm_load_f16(w), gemm_load_f16(w + 2));
}

static void codes_q8_0(const uint8_t *w, struct gemm_codes *c) {
    memcpy(c->q, w + 2, 32);
    set_scales(c, 2, gemm_load_f16(w), 0);
}

static void codes_iq4_nl(const uint8_t *w, struct gemm_codes *c) {
    table_nibbles(w + 2, gemm_iq4_values, c->q);
    set_scales(c, 2, gemm_load_f16(w), 0);
}

static void codes_mxfp4(const uint8_t *w, struct gemm_codes *c) {
    table_nibbles(w + 1, gemm_mxfp4_values, c->q);
    set_scales(c, 2, gemm_f32_of_e8m0_half(w[0]), 0);
}

/* scales[16] (low half: scale, high half: minimum), qs[64], d, dmin */
static void codes_q2_k(const uint8_t *w, struct gemm_codes *c) {
    const float d = gemm_load_f16(w + 80), dmin = gemm_load_f16(w + 82);
    for (int i = 0; i < 256; i++)
        c->q[i] = (int8_t)(w[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3);
    for (int g = 0; g < 16; g++) {
        c->d[g] = d * (float)(w[g] & 15);
        c->m[g] = -(dmin * (float)(w[g] >> 4));
    }
}

/* hmask[32], qs[64], scales[12] (6 bits each: 16 low halves, then 16 high pairs), d */
static void codes_q3_k(const uint8_t *w, struct gemm_codes *c) {
    const uint8_t *qs = w + 32, *s = w + 96;
    const float d = gemm_load_f16(w + 108);
    for (int i = 0; i < 256; i++) {
        const int low = qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        const int high = w[i % 32] >> (i / 32) & 1;
        c->q[i] = (int8_t)(low + 4 * high - 4);
    }
    for (int g = 0; g < 16; g++) {
        const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
        const int high = s[8 + g % 4] >> (g / 4 * 2) & 3;
        c->d[g] = d * (float)((low | high << 4) - 32);
        c->m[g] = 0;
    }
}

/* d, dmin, 8 scales and minima */
static void scales_k(const uint8_t *w, struct gemm_codes *c) {
    const float d = gemm_load_f16(w), dmin = gemm_load_f16(w + 2);
    for (int g = 0; g < 16; g++) {
        uint8_t scale, min;
        gemm_scale_min(w + 4, g / 2, &scale, &min);
        c->d[g] = d * (float)scale;
        c->m[g] = -(dmin * (float)min);
    }
}

/* d, dmin, scales[12], qs[128]: 64 values in 32 bytes, low halves first */
static void codes_q4_k(const uint8_t *w, struct gemm_codes *c) {
    scales_k(w, c);
    for (int i = 0; i < 256; i++)
        c->q[i] = (int8_t)(w[16 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15);
}

/* d, dmin, scales[12], qh[32], qs[128] */
static void codes_q5_k(const uint8_t *w, struct gemm_codes *c) {
    scales_k(w, c);
    for (int i = 0; i < 256; i++) {
        const int low = w[48 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
        const int high = w[16 + i % 32] >> (i / 32) & 1;
        c->q[i] = (int8_t)(low | high << 4);
    }
}

/* ql[128], qh[64], scales[16], d: 128 values in 64 + 32 bytes */
static void codes_q6_k(const uint8_t *w, struct gemm_codes *c) {
    const float d = gemm_load_f16(w + 208);
    for (int i = 0; i < 256; i++) {
        const int low = w[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
        const int high = w[128 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        c->q[i] = (int8_t)((low | high << 4) - 32);
    }
    for (int g = 0; g < 16; g++) {
        c->d[g] = d * (float)(int8_t)w[192 + g];
        c->m[g] = 0;
    }
}

/* d, scales_h (2 bits each), scales_l[4] (4 bits each), qs[128] */
static void codes_iq4_xs(const uint8_t *w, struct gemm_codes *c) {
    const float d = gemm_load_f16(w);
    const int scales_h = w[2] | w[3] << 8;
    for (int b = 0; b < 8; b++) {
        const int low = w[4 + b / 2] >> (b % 2 * 4) & 15, high = scales_h >> (2 * b) & 3;
        table_nibbles(w + 8 + b * 16, gemm_iq4_values, c->q + b * 32);
        c->d[2 * b] = c->d[2 * b + 1] = d * (float)((low | high << 4) - 32);
        c->m[2 * b] = c->m[2 * b + 1] = 0;
    }
}

gemm_codes_fn *gemm_codes_find(uint32_t dtype) {
    static gemm_codes_fn *const table[OT_DTYPE_MAX] = {
        [OT_Q4_0] = codes_q4_0,   [OT_Q4_1] = codes_q4_1,     [OT_Q5_0] = codes_q5_0,
        [OT_Q5_1] = codes_q5_1,   [OT_Q8_0] = codes_q8_0,     [OT_Q2_K] = codes_q2_k,
        [OT_Q3_K] = codes_q3_k,   [OT_Q4_K] = codes_q4_k,     [OT_Q5_K] = codes_q5_k,
        [OT_Q6_K] = codes_q6_k,   [OT_IQ4_NL] = codes_iq4_nl, [OT_IQ4_XS] = codes_iq4_xs,
        [OT_MXFP4] = codes_mxfp4,
    };
    return dtype < OT_DTYPE_MAX ? table[dtype] : 0;
}
