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
    /* For gemm: struct gemm_block, and sums. */
    LAYOUT_GEMM_BLOCKS = LAYOUT_GEMM_FIRST + 1,
    /* struct lanes256, for one type each */
    LAYOUT_LANES256_Q2_K = LAYOUT_GEMV_FIRST,
    LAYOUT_LANES256_Q3_K,
    LAYOUT_LANES256_Q4_K,
    LAYOUT_LANES256_Q5_K,
    LAYOUT_LANES256_Q6_K,
    LAYOUT_LANES256_IQ4_XS,
    /* struct lanes128, by the zero point of the weights' codes, and by how much high codes are
       raised */
    LAYOUT_LANES128_ZERO16,
    LAYOUT_LANES128_ZERO128,
    LAYOUT_LANES128_SUMS,
    LAYOUT_LANES128_SUMS_RAISE16,
    /* struct lanes8x32, the same */
    LAYOUT_LANES8X32_ZERO8_RAISE16,
    LAYOUT_LANES8X32_ZERO16,
    LAYOUT_LANES8X32_ZERO128,
};

/* 256 values for types with blocks of 256: each lane of every vector belongs to one group of 16, in
 * the order (LANES256_..., below) in which the type's codes are cheapest to reach.
 *
 * A type's kernel may leave the codes of a group shifted to the left, as they lie in their bytes,
 * where that saves it a shift: they are then `raise` times too large, a power of two, which is
 * taken out of the group's d. (A d below 2^-120 may lose bits by that.) */
struct lanes256 {
    int8_t q[4][64]; /* chunk c of lane l's group: q[c][4 l ...] */
    float d[16];     /* scale of each group / raise */
    union {
        int32_t start[16]; /* types with a zero point: -zero * raise * sum of the group's q */
        float s[16];       /* Q2_K: d * sum of the group's q, unraised */
        /* Q4_K, Q5_K: the same of sub-block k: in lane 4 + k, of sub-block 4 + k: in lane 12 + k;
         * the other lanes are 0. Minima come in these lanes. */
        float s_of_subs[16];
    };
};

/* The group of a lane: l / 4 and l % 4 are places in the 16-byte lanes of a 64-byte register. */
#define LANES256_Q2_K(l) ((l) / 8 * 8 + (l) % 4 * 2 + (l) / 4 % 2)
#define LANES256_Q3_K(l) ((l) / 8 * 8 + ((l) % 2 * 2 + (l) % 4 / 2) * 2 + (l) / 4 % 2)
#define LANES256_Q4_K(l) ((l) / 8 * 4 + (l) / 4 % 2 + (l) % 2 * 2 + (l) % 4 / 2 * 8)
#define LANES256_Q6_K(l) ((l) % 4 / 2 * 8 + (l) % 2 * 4 + (l) / 8 * 2 + (l) / 4 % 2)
#define LANES256_IQ4_XS(l) ((l) / 4 * 2 + (l) % 2 + (l) % 4 / 2 * 8)

/* 128 values, 4 blocks, for types with blocks of 32: lane i of a vector holds chunk i / 4 of block
 * i % 4, so that four scales, repeated four times, are the scales of all lanes. */
struct lanes128 {
    int8_t low[64], high[64]; /* the blocks' first and second 16 values */
    union {
        /* Types with a zero point: -zero (* raise) * sum of q of each block's first and second 16
         * values. */
        int32_t start[2][4];
        /* Types with minima: sum over block b of d * q in place 2b + 1; the others are 0. The
         * minima come interleaved with the scales. */
        float s[8];
    };
    float d_low[4], d_high[4]; /* d_high / raise: as in lanes256, high nibbles may stay in place */
};

/* 256 values, 8 blocks of 32, for types whose 8 blocks can be reached by permutes of two registers:
 * lane i of vector v holds chunk 2 v + i / 8 of block i % 8, so that two vectors are summed before
 * they are scaled. Members as in lanes128. */
struct lanes8x32 {
    int8_t low[2][64], high[2][64];
    int32_t start[2][8];
    float d_low[8], d_high[8];
};

/* 32 values for gemm, whose codes come as u8 code + 128: a group's integer sum starts at
 * -128 * (sum of its q). A row is one block for each 32 of its n_pad columns, then the sums d *
 * (sum of q): f32 [n_pad / 32] over 32 values, f32 [n_pad / 16] over 16. */
struct gemm_block {
    int8_t q[32];
    int32_t start[2];
    float d[2];
};

/* From a row to its sums over so many columns. */
static inline uint64_t gemm_sums_offset(uint32_t n_cols, uint32_t sum_cols) {
    const uint64_t n = layout_pad(n_cols) / 32;
    return n * sizeof(struct gemm_block) + (sum_cols == 16 ? n * sizeof(float) : 0);
}
static inline uint64_t gemm_blocks_bytes(uint32_t n_cols) {
    return (uint64_t)layout_pad(n_cols) / 32 * (sizeof(struct gemm_block) + 3 * sizeof(float));
}

static inline uint32_t layout_ceil(uint32_t n, uint32_t unit) {
    return (n + unit - 1) / unit;
}

#endif
