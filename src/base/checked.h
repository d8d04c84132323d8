/* checked.h - arithmetic on numbers that a file or a user chose. Each returns true on success and
 * leaves *out alone otherwise. */
#ifndef BASE_CHECKED_H
#define BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *out = sum;
    return true;
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *out = product;
    return true;
}

/* Rounds up to a multiple of unit (> 0). */
static inline bool checked_round_up(uint64_t a, uint64_t unit, uint64_t *out) {
    uint64_t rest = a % unit;
    if (rest == 0) {
        *out = a;
        return true;
    }
    return checked_add(a, unit - rest, out);
}

static inline uint64_t round_up(uint64_t a, uint64_t unit) {
    return (a + unit - 1) / unit * unit;
}
static inline uint64_t min_u64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}
static inline uint32_t min_u32(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}
static inline uint32_t max_u32(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

#endif
