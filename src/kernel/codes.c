/* codes.c - unpacking of blocks, written to be compared with the format's description. */
#include "kernel/codes.h"

#include <string.h>

#include "kernel/blocks.h"
#include "kernel/half.h"
#include "onetrip.h"

/* The 16-value groups of sub-block k of 32 values share one scale and one minimum. */
static void set_32(struct codes *out, uint32_t k, float d, float m) {
    out->d[2 * k] = out->d[2 * k + 1] = d;
    out->m[2 * k] = out->m[2 * k + 1] = m;
}

static uint32_t nibble(uint8_t byte, uint32_t high) {
    return high != 0 ? byte >> 4 : byte & 15u;
}

static void unpack_q4_0(const struct block_q4_0 *b, struct codes *out) {
    set_32(out, 0, half_to_f32(b->d), 0);
    for (uint32_t i = 0; i < 32; i++) {
        out->q[i] = (int8_t)((int)nibble(b->qs[i % 16], i / 16) - 8);
    }
}

static void unpack_q4_1(const struct block_q4_1 *b, struct codes *out) {
    set_32(out, 0, half_to_f32(b->d), half_to_f32(b->m));
    for (uint32_t i = 0; i < 32; i++) {
        out->q[i] = (int8_t)nibble(b->qs[i % 16], i / 16);
    }
}

static uint32_t five_bits(const uint8_t qh[4], const uint8_t qs[16], uint32_t i) {
    return nibble(qs[i % 16], i / 16) | (uint32_t)(qh[i / 8] >> i % 8 & 1) << 4;
}

static void unpack_q5_0(const struct block_q5_0 *b, struct codes *out) {
    set_32(out, 0, half_to_f32(b->d), 0);
    for (uint32_t i = 0; i < 32; i++) {
        out->q[i] = (int8_t)((int)five_bits(b->qh, b->qs, i) - 16);
    }
}

static void unpack_q5_1(const struct block_q5_1 *b, struct codes *out) {
    set_32(out, 0, half_to_f32(b->d), half_to_f32(b->m));
    for (uint32_t i = 0; i < 32; i++) {
        out->q[i] = (int8_t)five_bits(b->qh, b->qs, i);
    }
}

static void unpack_q8_0(const struct block_q8_0 *b, struct codes *out) {
    set_32(out, 0, half_to_f32(b->d), 0);
    memcpy(out->q, b->qs, sizeof b->qs);
}

static void unpack_iq4_nl(const struct block_iq4_nl *b, struct codes *out) {
    set_32(out, 0, half_to_f32(b->d), 0);
    for (uint32_t i = 0; i < 32; i++) {
        out->q[i] = codes_iq4[nibble(b->qs[i % 16], i / 16)];
    }
}

/* Half of 2^(e - 127), because the codes are doubled; denormal for the two smallest. */
static float mxfp4_scale(uint8_t e) {
    return half_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

static void unpack_mxfp4(const struct block_mxfp4 *b, struct codes *out) {
    set_32(out, 0, mxfp4_scale(b->e), 0);
    for (uint32_t i = 0; i < 32; i++) {
        out->q[i] = codes_mxfp4[nibble(b->qs[i % 16], i / 16)];
    }
}

static void unpack_q2_k(const struct block_q2_k *b, struct codes *out) {
    float d = half_to_f32(b->d), dmin = half_to_f32(b->dmin);
    for (uint32_t j = 0; j < 16; j++) {
        out->d[j] = d * (float)(b->scales[j] & 15);
        out->m[j] = -(dmin * (float)(b->scales[j] >> 4));
    }
    for (uint32_t i = 0; i < 256; i++) {
        out->q[i] = (int8_t)(b->qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3);
    }
}

static void unpack_q3_k(const struct block_q3_k *b, struct codes *out) {
    float d = half_to_f32(b->d);
    for (uint32_t j = 0; j < 16; j++) {
        uint32_t low = nibble(b->scales[j % 8], j / 8);
        uint32_t high = (uint32_t)b->scales[8 + j % 4] >> j / 4 * 2 & 3u;
        out->d[j] = d * (float)((int)(low | high << 4) - 32);
        out->m[j] = 0;
    }
    for (uint32_t i = 0; i < 256; i++) {
        int low = b->qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        int high = b->hmask[i % 32] >> i / 32 & 1;
        out->q[i] = (int8_t)(low - (high != 0 ? 0 : 4));
    }
}

/* The 6-bit scales and minima of Q4_K and Q5_K: those of sub-blocks 4..7 have their high two bits
 * on top of those of 0..3. */
static void scales_k(uint16_t d_bits, uint16_t dmin_bits, const uint8_t s[12], struct codes *out) {
    float d = half_to_f32(d_bits), dmin = half_to_f32(dmin_bits);
    for (uint32_t k = 0; k < 8; k++) {
        uint32_t scale, min;
        if (k < 4) {
            scale = s[k] & 63u;
            min = s[4 + k] & 63u;
        } else {
            scale = (s[4 + k] & 15u) | (uint32_t)(s[k - 4] >> 6) << 4;
            min = (uint32_t)(s[4 + k] >> 4) | (uint32_t)(s[k] >> 6) << 4;
        }
        set_32(out, k, d * (float)scale, -(dmin * (float)min));
    }
}

static void unpack_q4_k(const struct block_q4_k *b, struct codes *out) {
    scales_k(b->d, b->dmin, b->scales, out);
    for (uint32_t i = 0; i < 256; i++) {
        out->q[i] = (int8_t)nibble(b->qs[i / 64 * 32 + i % 32], i / 32 % 2);
    }
}

static void unpack_q5_k(const struct block_q5_k *b, struct codes *out) {
    scales_k(b->d, b->dmin, b->scales, out);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t low = nibble(b->qs[i / 64 * 32 + i % 32], i / 32 % 2);
        out->q[i] = (int8_t)(low | (uint32_t)(b->qh[i % 32] >> i / 32 & 1) << 4);
    }
}

static void unpack_q6_k(const struct block_q6_k *b, struct codes *out) {
    float d = half_to_f32(b->d);
    for (uint32_t j = 0; j < 16; j++) {
        out->d[j] = d * (float)b->scales[j];
        out->m[j] = 0;
    }
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t half = i / 128, k = i % 128 / 32;
        uint32_t low = nibble(b->ql[half * 64 + k % 2 * 32 + i % 32], k / 2);
        uint32_t high = (uint32_t)b->qh[half * 32 + i % 32] >> k * 2 & 3u;
        out->q[i] = (int8_t)((int)(low | high << 4) - 32);
    }
}

static void unpack_iq4_xs(const struct block_iq4_xs *b, struct codes *out) {
    float d = half_to_f32(b->d);
    for (uint32_t k = 0; k < 8; k++) {
        uint32_t scale = nibble(b->scales_l[k / 2], k % 2) | (b->scales_h >> 2 * k & 3u) << 4;
        set_32(out, k, d * (float)((int)scale - 32), 0);
    }
    for (uint32_t i = 0; i < 256; i++) {
        out->q[i] = codes_iq4[nibble(b->qs[i / 32 * 16 + i % 16], i / 16 % 2)];
    }
}

void codes_unpack(uint32_t dtype, const uint8_t *block, struct codes *out) {
    const void *b = block;
    out->has_min = dtype == OT_Q4_1 || dtype == OT_Q5_1 || dtype == OT_Q2_K || dtype == OT_Q4_K ||
                   dtype == OT_Q5_K;
    switch (dtype) {
    case OT_Q4_0: unpack_q4_0(b, out); break;
    case OT_Q4_1: unpack_q4_1(b, out); break;
    case OT_Q5_0: unpack_q5_0(b, out); break;
    case OT_Q5_1: unpack_q5_1(b, out); break;
    case OT_Q8_0: unpack_q8_0(b, out); break;
    case OT_IQ4_NL: unpack_iq4_nl(b, out); break;
    case OT_MXFP4: unpack_mxfp4(b, out); break;
    case OT_Q2_K: unpack_q2_k(b, out); break;
    case OT_Q3_K: unpack_q3_k(b, out); break;
    case OT_Q4_K: unpack_q4_k(b, out); break;
    case OT_Q5_K: unpack_q5_k(b, out); break;
    case OT_Q6_K: unpack_q6_k(b, out); break;
    case OT_IQ4_XS: unpack_iq4_xs(b, out); break;
    default: assert(!"not a quantised type");
    }
}
