/* layout_avx2.h - the layouts that the AVX2 gemv wants, made from the same q and d as LAYOUT_Q8.
 *
 * A group is 16 values with one activation scale; a chunk is 4 of them, one 32-bit lane. A unit of
 * 256 values has 16 groups: two vectors of 8 lanes, each lane of one group. The products of a
 * group's four chunks are summed inside its lane, which is converted and scaled once.
 *
 * Numbers are this instruction set's own: the AVX-512 table replaces all of these kernels. */
#ifndef KERNEL_LAYOUT_AVX2_H
#define KERNEL_LAYOUT_AVX2_H

#include <stdint.h>

#include "kernel/layout.h"

enum {
    LAYOUT_GEMM_UNITS = LAYOUT_GEMM_FIRST + 1, /* struct gemm_units */
    LAYOUT_GEMM_HALVES,                        /* struct gemm_halves */
    LAYOUT_GEMM_FLIPS,                         /* struct gemm_flips */
    /* struct lanes */
    LAYOUT_LANES_Q4_0 = LAYOUT_GEMV_FIRST,
    LAYOUT_LANES_Q4_1,
    LAYOUT_LANES_Q5_0,
    LAYOUT_LANES_Q5_1,
    LAYOUT_LANES_MXFP4,
    LAYOUT_LANES_Q2_K,
    LAYOUT_LANES_Q3_K,
    LAYOUT_LANES_Q4_K,
    LAYOUT_LANES_Q5_K,
    LAYOUT_LANES_Q6_K,
    /* struct lanes_signed */
    LAYOUT_LANES_Q8_0,
    LAYOUT_LANES_IQ4_NL,
    LAYOUT_LANES_IQ4_XS,
};

/* A type's kernel may leave the codes of a group shifted to the left, as they lie in their bytes:
 * they are then `raise` times too large, a power of two, which is taken out of the group's d. (A d
 * below 2^-120 may lose bits by that.) */
struct lane_scales {
    float d[2][8]; /* scale of each group / raise */
    union {
        /* Q4_1, Q5_1: d * sum of q of block l in s[0][l]. Other types with blocks of 32: what their
         * zero point takes off, -zero * d * sum of q, alike; Q8_0: as the groups' lanes.
         * Q2_K: d * sum of q of group i in place i. Q4_K, Q5_K: of sub-block k, in
         * s[0][k]. */
        float s[2][8];
        /* Q3_K, Q6_K: -zero * raise * sum of the q whose products are added in this 16-bit lane.
         * IQ4_XS: what the group's sum starts at, as two numbers to be added. */
        int16_t start[2][16];
    };
};

/* Codes without a sign, at most 127. */
struct lanes {
    int8_t q[2][4][32]; /* chunk c of the group of lane l of vector v: q[v][c][4 l...] */
    struct lane_scales scales;
};

/* Codes with a sign, w. The unsigned operand of a product is |q|, the signed one w with all bits
 * flipped where q is negative, which is -w - 1: too small by |q|. So the sum starts at the sum of
 * the |q| of negative q: this takes the place of the zero point. */
struct lanes_signed {
    uint8_t magnitude[2][4][32];
    int8_t flip[2][4][32]; /* -1 where q is negative, else 0 */
    struct lane_scales scales;
};

/* 256 values for gemm. Sums of products are multiplied by their activations' scale in integers, in
 * steps, and results are in units of these 256 values while they are summed.
 *
 * ratio: what the results so far are multiplied by to be in this unit, which is the unit before, or
 * 1 at multiples of LAYOUT_GEMM_COLS, by this one. NaN where one of the 256 values is not finite.
 * start: -8 * the sum of those q whose products are added in one 16-bit lane, the zero point of
 * codes that are 8 too large. */

/* For weights with a scale for each 16 columns. */
struct gemm_units {
    struct {
        int8_t q[32];
        int16_t steps[2][2]; /* of the first 16 values, twice, and of the second 16 */
        int16_t start[2][2]; /* of the first and of the second two of each four q */
        float s[2];          /* steps * sum of q */
    } block[8];
    float ratio, unit;
    float unused[14];
};

/* For weights with a scale for each 32 columns. Two values of the first 16 are followed by two of
 * the second 16, and so on: sums of two products are then of one half, and lie beside those of the
 * other, so that one vpmaddwd multiplies both halves by their steps and adds them. */
struct gemm_halves {
    struct {
        int8_t q[32];
        int16_t steps[2], start[2];
        float s; /* of both halves together */
    } block[8];
    float ratio, unit;
    float unused[6];
};

/* 32 values for weights with signed codes of 8 bits, w. As in struct lanes_signed: products are of
 * the magnitudes and of w with all bits flipped where q is negative.
 *
 * start: what is added for that, d * the sum of the magnitudes of negative q, of both halves. */
struct gemm_flips {
    uint8_t magnitude[32];
    int8_t flip[32]; /* -1 where q is negative, else 0 */
    float d[2];      /* scales of the first and the second 16 values */
    float start;
};

#endif
