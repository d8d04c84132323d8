/* tiny_weights.c - random blocks of every data type, with a given standard deviation.
 *
 * Codes and packed scales are random bits; only the block's own factors are set, to
 * deviation / (standard deviation of what the bits stand for). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "support/tiny_model.h"

const uint32_t tiny_dtypes[TINY_DTYPE_COUNT] = {
    OT_F32,  OT_F16,  OT_BF16, OT_Q4_0, OT_Q4_1, OT_Q5_0,   OT_Q5_1,   OT_Q8_0,
    OT_Q2_K, OT_Q3_K, OT_Q4_K, OT_Q5_K, OT_Q6_K, OT_IQ4_NL, OT_IQ4_XS, OT_MXFP4,
};

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* A sum of four even numbers: near enough to a normal one, and never far out. */
static float next_normal(uint64_t *state) {
    uint64_t bits = next_random(state);
    int32_t sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += (int32_t)(bits >> 16 * i & 0xffff);
    }
    return (float)(sum - 131070) / 37837.0f;
}

static uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Rounded to nearest; the values here are far below the largest half. */
static uint16_t half_bits(float value) {
    uint32_t sign = float_bits(value) >> 16 & 0x8000;
    float magnitude = fabsf(value);
    if (magnitude < 0x1p-14f) {
        return (uint16_t)(sign | (uint32_t)lrintf(magnitude * 0x1p24f));
    }
    uint32_t bits = float_bits(magnitude) - (112u << 23);
    return (uint16_t)(sign | ((bits + 0xfff + (bits >> 13 & 1)) >> 13));
}

static void put_half(uint8_t *at, float value) {
    uint16_t bits = half_bits(value);
    at[0] = (uint8_t)bits;
    at[1] = (uint8_t)(bits >> 8);
}

/* Sets the factors of one block of random bytes. Where codes are off centre (-8 to 7), the sign of
 * the factor is random too, so that rows have no bias in common. */
static void scale_block(uint32_t dtype, uint8_t *b, float s, float sign) {
    switch (dtype) {
    case OT_Q4_0: put_half(b, sign * s / 4.6f); break;
    case OT_Q4_1:
        put_half(b, s / 4.6f);
        put_half(b + 2, -7.5f * s / 4.6f);
        break;
    case OT_Q5_0: put_half(b, sign * s / 9.2f); break;
    case OT_Q5_1:
        put_half(b, s / 9.2f);
        put_half(b + 2, -15.5f * s / 9.2f);
        break;
    case OT_Q8_0: put_half(b, s / 74.0f); break;
    case OT_Q2_K: /* scales[16], codes[64], d, dmin */
        put_half(b + 80, s / 12.0f);
        put_half(b + 82, 1.5f * s / 12.0f);
        break;
    case OT_Q3_K: /* high bits[32], codes[64], scales[12], d */ put_half(b + 108, s / 43.0f); break;
    case OT_Q4_K: /* d, dmin, scales[12], codes[128] */
        put_half(b, s / 257.0f);
        put_half(b + 2, 7.5f * s / 257.0f);
        break;
    case OT_Q5_K:
        put_half(b, s / 525.0f);
        put_half(b + 2, 15.5f * s / 525.0f);
        break;
    case OT_Q6_K: /* codes[192], scales[16], d */ put_half(b + 208, s / (18.5f * 73.9f)); break;
    case OT_IQ4_NL: put_half(b, sign * s / 67.0f); break;
    case OT_IQ4_XS: put_half(b, s / 1240.0f); break;
    case OT_MXFP4: b[0] = (uint8_t)lrintf(128.0f + log2f(s / 5.85f)); break;
    default: abort();
    }
}

struct image_bytes tiny_weights(uint32_t dtype, uint64_t n_values, float deviation, uint64_t seed) {
    struct image_bytes out = {0};
    const struct dtype_info *d = dtype_get(dtype);
    uint64_t state = seed;
    if (d->name == NULL || n_values % d->block_values != 0) {
        abort();
    }
    if (d->block_values == 1) {
        for (uint64_t i = 0; i < n_values; i++) {
            uint32_t bits = float_bits(next_normal(&state) * deviation);
            if (dtype == OT_F16) {
                float value;
                memcpy(&value, &bits, sizeof value);
                bits = half_bits(value);
            } else if (dtype == OT_BF16) {
                bits >>= 16;
            }
            uint8_t bytes[4] = {(uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16),
                                (uint8_t)(bits >> 24)};
            image_put(&out, bytes, d->block_bytes);
        }
        return out;
    }
    for (uint64_t i = 0; i < n_values / d->block_values; i++) {
        uint8_t block[256 + 8];
        for (uint32_t j = 0; j < d->block_bytes; j += 8) {
            uint64_t bits = next_random(&state);
            memcpy(block + j, &bits, sizeof bits);
        }
        scale_block(dtype, block, deviation, next_random(&state) & 1 ? 1.0f : -1.0f);
        image_put(&out, block, d->block_bytes);
    }
    return out;
}
