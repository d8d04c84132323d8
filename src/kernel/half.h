/* half.h - 16-bit floating point numbers, in plain C. */
#ifndef KERNEL_HALF_H
#define KERNEL_HALF_H

#include <stdint.h>
#include <string.h>

static inline float half_from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint32_t half_to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Exact. NaN stays NaN, made quiet as the hardware does. */
static inline float half_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u, mantissa = h & 1023u;
    if (exponent == 31) {
        uint32_t quiet = mantissa != 0 ? 0x400000u : 0;
        return half_from_bits(sign | 0x7f800000u | quiet | mantissa << 13);
    }
    if (exponent == 0) { /* zero or denormal: mantissa * 2^-24 */
        float magnitude = (float)mantissa * 0x1p-24f;
        return half_from_bits(sign | half_to_bits(magnitude));
    }
    return half_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* Rounds to nearest, ties to even; too large becomes infinite; NaN stays NaN. */
static inline uint16_t half_from_f32(float f) {
    uint32_t bits = half_to_bits(f);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    }
    if (magnitude >= 0x477ff000u) { /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (magnitude <
        0x38800000u) { /* below 2^-14: adding 0.5 shifts the denormal into the low bits */
        float shifted = half_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (half_to_bits(shifted) - 0x3f000000u));
    }
    magnitude += 0xfffu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | (magnitude - (112u << 23)) >> 13);
}

static inline float half_bf16_to_f32(uint16_t h) {
    return half_from_bits((uint32_t)h << 16);
}

#endif
