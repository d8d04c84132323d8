/* bytes.h - little-endian numbers at any address. */
#ifndef FORMAT_BYTES_H
#define FORMAT_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t bytes_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t bytes_u32(const uint8_t *p) {
    return bytes_u16(p) | (uint32_t)bytes_u16(p + 2) << 16;
}

static inline uint64_t bytes_u64(const uint8_t *p) {
    return bytes_u32(p) | (uint64_t)bytes_u32(p + 4) << 32;
}

static inline float bytes_f32(const uint8_t *p) {
    uint32_t bits = bytes_u32(p);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double bytes_f64(const uint8_t *p) {
    uint64_t bits = bytes_u64(p);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
