/* layout_avx512.h - the layouts that the AVX-512 gemv wants, made from the same q and d as
 * LAYOUT_Q8.
 *
 * A group is 16 values with one activation scale; a chunk is 4 of them, the bytes that one 32-bit
 * lane of a dot-product instruction sums. Both layouts put chunks into lanes so that each lane's
 * sum belongs to one group, and needs no sum over lanes before it is scaled.
 *
 * Zero points: codes are unsigned in the dot product. What that adds too much is taken off by
 * starting the integer sum at -zero * (sum of the group's q): exact, and free. */
#ifndef KERNEL_LAYOUT_AVX512_H
#define KERNEL_LAYOUT_AVX512_H

#include <stdint.h>

#include "kernel/layout.h"

enum {
    /* For gemm: LAYOUT_Q8 with each q as u8 q + 128, the unsigned operand of the dot product. */
    LAYOUT_Q8_BIASED = LAYOUT_GEMM_FIRST + 1,
    /* struct lanes256 */
    LAYOUT_LANES256 = LAYOUT_GEMV_FIRST,
    /* struct lanes128, by the zero point of the weights' codes */
    LAYOUT_LANES128_ZERO8,
    LAYOUT_LANES128_ZERO16,
    LAYOUT_LANES128_ZERO128,
    LAYOUT_LANES128_SUMS,
};

/* 256 values for types with blocks of 256: lane g of every vector belongs to group g. */
struct lanes256 {
    int8_t q[4][64];       /* chunk c of group g: q[c][4 g ...] */
    float d[16];           /* scale of each group */
    float s[16];           /* d * sum of the group's q */
    int32_t minus_sum[16]; /* -sum of the group's q */
};

/* 128 values, 4 blocks, for types with blocks of 32: lane i of a vector holds chunk i / 4 of block
 * i % 4, so that four scales, repeated four times, are the scales of all lanes. */
struct lanes128 {
    int8_t low[64], high[64]; /* the blocks' first and second 16 values */
    union {
        int32_t zero[2][4]; /* -zero * sum of q of each block's first and second 16 values */
        float s[2][4];      /* LAYOUT_LANES128_SUMS: [0] sum over the block of d * q; [1] unused */
    };
    float d_low[4], d_high[4];
};

static inline uint32_t layout_ceil(uint32_t n, uint32_t unit) {
    return (n + unit - 1) / unit;
}

#endif
