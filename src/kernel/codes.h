/* codes.h - one block of any quantised type as small integers, scales and minima: what the scalar
 * kernels and the tests compute from.
 *
 *   value[i] = d[i / 16] * q[i]                 where has_min is false
 *   value[i] = d[i / 16] * q[i] + m[i / 16]     where it is true
 *
 * computed in f32 in this order, these are the values of the gguf Python package, bit for bit. */
#ifndef KERNEL_CODES_H
#define KERNEL_CODES_H

#include <stdbool.h>
#include <stdint.h>

struct codes {
    int8_t q[256];
    float d[16], m[16];
    bool has_min;
};

/* block: one block of a quantised dtype (not F32, F16, BF16), at any address. Fills as many q, d, m
 * as the block has values. */
void codes_unpack(uint32_t dtype, const uint8_t *block, struct codes *out);

#endif
