/* gemm_codes.h - any quantised block as 8-bit codes with a scale and an offset for each 16 values.
 *
 * Plain and complete; what the scalar gemm computes from, and what other instruction sets use for
 * the types they have no own unpacker for. Of a block of n values (32 or 256):
 *   value[i] = d[i / 16] * q[i] + m[i / 16] */
#ifndef KERNEL_GEMM_CODES_H
#define KERNEL_GEMM_CODES_H

#include <stdint.h>
#include <string.h>

struct gemm_codes {
    int8_t q[256];
    float d[16], m[16];
};

/* dtype: a quantised type; w: one block of it. */
typedef void gemm_codes_fn(const uint8_t *w, struct gemm_codes *c);
gemm_codes_fn *gemm_codes_find(uint32_t dtype);

static inline float gemm_f32_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* IEEE half to single, every bit pattern; NaN stays NaN. */
static inline float gemm_f32_of_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t rest = h & 0x7fffu;
    if (rest >= 0x7c00u)
        return gemm_f32_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    /* Shifted into place the exponent is 112 too low, for subnormals too: a product mends both. */
    return gemm_f32_of_bits(sign | rest << 13) * 0x1p112f;
}

static inline float gemm_load_f16(const uint8_t *p) {
    return gemm_f32_of_f16((uint16_t)(p[0] | p[1] << 8));
}

/* MXFP4's exponent byte, halved: its codes are twice the e2m1 values. */
static inline float gemm_f32_of_e8m0_half(uint8_t e) {
    return gemm_f32_of_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* Scale j and minimum j (0..7) from the 12 bytes of Q4_K and Q5_K. */
static inline void gemm_scale_min(const uint8_t *s, int j, uint8_t *scale, uint8_t *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
        *min = (uint8_t)(s[j + 4] >> 4 | (s[j] >> 6) << 4);
    }
}

extern const int8_t gemm_iq4_values[16];
extern const int8_t gemm_mxfp4_values[16];

#endif
