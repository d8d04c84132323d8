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
    LAYOUT_GEMM_BLOCKS = LAYOUT_GEMM_FIRST + 1, /* struct gemm_block */
    LAYOUT_GEMM_PAIRS,                          /* struct gemm_pairs */
    LAYOUT_GEMM_BF16,                           /* bf16 [n_cols], to nearest and even; zeros up to 32 */
    /* struct lanes256, for one type each */
    LAYOUT_LANES256_Q2_K = LAYOUT_GEMV_FIRST,
    LAYOUT_LANES256_Q3_K,
    LAYOUT_LANES256_Q4_K,
    LAYOUT_LANES256_Q5_K,
    LAYOUT_LANES256_Q6_K,
    LAYOUT_LANES256_IQ4_XS,
    LAYOUT_LANES4X32_Q8_0,
    /* struct lanes8x32, for one type each */
    LAYOUT_LANES8X32_Q4_0,
    LAYOUT_LANES8X32_Q4_1,
    LAYOUT_LANES8X32_Q5_0,
    LAYOUT_LANES8X32_Q5_1,
    LAYOUT_LANES8X32_IQ4_NL,
    LAYOUT_LANES8X32_MXFP4,
};

/* 256 values for types with blocks of 256: each lane of every vector belongs to one group of 16, in
 * the order (LANES256_..., below) in which the type's codes are cheapest to reach.
 *
 * A type's kernel may leave the codes of a group shifted to the left, as they lie in their bytes,
 * where that saves it a shift: they are then `raise` times too large, a power of two, which is
 * taken out of the group's d, as is what the type's kernel makes scales too large. (A d below
 * 2^-120 may lose bits by that.) */
struct lanes256 {
    int8_t q[4][64]; /* chunk c of lane l's group: q[c][4 l ...] */
    float d[16];     /* scale of each group / raise */
    union {
        int32_t start[16]; /* types with a zero point: -zero * raise * sum of the group's q */
        int8_t sums[64];
        float sums_unit[16];
        float s_of_subs[16]; /* Q4_K, Q5_K: d * sum of q of the 8 sub-blocks, then 0 */
    };
};

/* Q2_K: the minima, bytes that are 16 times too large, are dot-multiplied with the sums of the
 * groups' activations. Four blocks are one quad (a row's last one may hold blocks of zeros). Sums
 * are integers below 2^21, so that four of them times minima fit 32 bits, in three signed bytes:
 * sums of block i of a quad has byte i, 0 to 2, of the 16 groups of all four blocks; sums_unit of
 * block 3 has what 16 of a lane's integers are, the same for the four lanes of a block. */

/* The group of a lane: l / 4 and l % 4 are places in the 16-byte lanes of a 64-byte register. */
#define LANES256_Q2_K(l) ((l) / 8 * 8 + (l) % 4 * 2 + (l) / 4 % 2)
#define LANES256_Q3_K(l) ((l) / 8 * 8 + ((l) % 2 * 2 + (l) % 4 / 2) * 2 + (l) / 4 % 2)
#define LANES256_Q4_K(l) ((l) / 8 * 4 + (l) / 4 % 2 + (l) % 2 * 2 + (l) % 4 / 2 * 8)
#define LANES256_Q6_K(l) ((l) % 4 / 2 * 8 + (l) % 2 * 4 + (l) / 8 * 2 + (l) / 4 % 2)
#define LANES256_IQ4_XS(l) ((l) / 4 * 2 + (l) % 2 + (l) % 4 / 2 * 8)

/* 128 values, 4 blocks of 32, for Q8_0: lane i of a vector belongs to the first (i % 8 < 4) or
 * second 16 values of block i % 4; chunks 0, 1 of them are in lanes i < 8, i >= 8 of q[0], chunks
 * 2, 3 of q[1], so that two vectors are summed before they are scaled. */
struct lanes4x32 {
    int8_t q[2][64];
    int32_t start[8]; /* -128 * sum of q; lanes 8 to 15 start at 0 */
    float d[8];       /* of lanes 0 to 7; lanes 8 to 15 have the same */
};

/* 256 values, 8 blocks of 32: lane i of a vector belongs to block i % 8. The codes of half a block
 * are four chunks: two vectors hold two each (LANES8X32_..., below), and are summed before they are
 * scaled.
 *
 * Plain: q[0] and q[2] are the blocks' first 16 values, q[1] and q[3] their second 16. Mixed: in
 * lanes 8 to 15 it is the other way round, so that vectors 0 and 2 have all blocks' first values in
 * their lower half and all blocks' second values in the upper one. */
struct lanes8x32 {
    int8_t q[4][64];
    union {
        int32_t start[16]; /* -zero * raise * sum of q, of the blocks' first values, then second */
        float s[16];       /* types with minima: in lane 8 + b, sum of d * q of block b */
    };
    float d[16]; /* scale / raise of the blocks' first 16 values, then of their second 16 */
};

/* Which chunk of blocks 0 to 7 is in the lanes: 0: of lanes 0 to 7 of the first two vectors, 1: of
 * their lanes 8 to 15, 2, 3: of the other two vectors. */
#define LANES8X32_Q4_0(i) LANES8X32_Q4_0_##i
#define LANES8X32_Q4_0_0 0, 0, 0, 0, 2, 0, 0, 0
#define LANES8X32_Q4_0_1 1, 3, 1, 1, 3, 1, 1, 1
#define LANES8X32_Q4_0_2 2, 1, 2, 2, 0, 2, 2, 2
#define LANES8X32_Q4_0_3 3, 2, 3, 3, 1, 3, 3, 3
#define LANES8X32_Q4_1(i) LANES8X32_Q4_1_##i
#define LANES8X32_Q4_1_0 0, 0, 0, 0, 0, 0, 0, 0
#define LANES8X32_Q4_1_1 1, 1, 1, 3, 3, 1, 1, 1
#define LANES8X32_Q4_1_2 2, 2, 2, 1, 1, 2, 2, 2
#define LANES8X32_Q4_1_3 3, 3, 3, 2, 2, 3, 3, 3
#define LANES8X32_Q5_0(i) LANES8X32_Q5_0_##i
#define LANES8X32_Q5_0_0 0, 0, 0, 0, 0, 0, 0, 0
#define LANES8X32_Q5_0_1 2, 2, 2, 2, 2, 2, 2, 2
#define LANES8X32_Q5_0_2 1, 1, 1, 1, 1, 1, 1, 1
#define LANES8X32_Q5_0_3 3, 3, 3, 3, 3, 3, 3, 3
#define LANES8X32_Q5_1(i) LANES8X32_Q5_1_##i
#define LANES8X32_Q5_1_0 0, 0, 0, 0, 0, 0, 0, 0
#define LANES8X32_Q5_1_1 1, 1, 1, 1, 1, 1, 1, 1
#define LANES8X32_Q5_1_2 2, 2, 2, 2, 2, 2, 2, 2
#define LANES8X32_Q5_1_3 3, 3, 3, 3, 3, 3, 3, 3
#define LANES8X32_MXFP4(i) LANES8X32_MXFP4_##i
#define LANES8X32_MXFP4_0 0, 0, 0, 1, 2, 0, 0, 0
#define LANES8X32_MXFP4_1 1, 1, 1, 2, 3, 1, 1, 1
#define LANES8X32_MXFP4_2 2, 2, 2, 0, 0, 2, 2, 2
#define LANES8X32_MXFP4_3 3, 3, 3, 3, 1, 3, 3, 3

/* 32 values for gemm, whose codes come as u8 code + 128. A group's integer sum starts at -128 *
 * (sum of its q), and at the bits of GEMM_BLOCK_BASE: so it is the number base + sum in f32, which
 * needs no conversion, and d * (base + sum) + zero is d * sum, rounded once. Scales are divided by
 * GEMM_BLOCK_UNIT, so that zero is finite. */
#define GEMM_BLOCK_BASE 0x1.8p23f
#define GEMM_BLOCK_UNIT 0x1p17f
struct gemm_block {
    int8_t q[32];
    int32_t start[2];
    float d[2], zero[2]; /* zero: -d * base, exact */
    float s[2];          /* d * (sum of q) */
};

/* 256 values for gemm of types whose sums of 16 products fit 16 bits. Both sums of a block of 32
 * lie in one 32-bit lane, that of columns 16 to 31 above, and are scaled in integers. Results are
 * in units while they are summed. */
struct gemm_pairs {
    struct {
        int8_t q[32];     /* columns 0 to 3, 16 to 19, 4 to 7, 20 to 23 and so on */
        int32_t start[2]; /* -128 * (sum of 16 q) */
        int16_t steps[2];
        float s; /* d * (sum of q) over the 32, in units */
    } block[8];
    float ratio; /* what the results so far are multiplied by to be in this unit: the unit before,
                    or 1 at multiples of LAYOUT_GEMM_COLS, by this one */
    float unit;  /* NaN where a value of the 256 is not finite; so is the next ratio then */
};

static inline uint32_t layout_ceil(uint32_t n, uint32_t unit) {
    return (n + unit - 1) / unit;
}

#endif
