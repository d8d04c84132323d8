/* blocks.h - the quantised blocks of the GGUF format, as they lie in a file, little-endian.
 *
 * Sub-block means the run of values that shares a scale inside a block of 256. Nibbles hold two
 * values that are half a group apart: the low ones come first.
 *
 * A block may start at any address: the structs are packed and hold no padding. */
#ifndef KERNEL_BLOCKS_H
#define KERNEL_BLOCKS_H

#include <assert.h>
#include <stdint.h>

#define BLOCK struct __attribute__((packed))

/* ---- 32 values, one scale ---- */

BLOCK block_q4_0 {  /* d * (q - 8) */
    uint16_t d;     /* f16 */
    uint8_t qs[16]; /* value i: low nibble of qs[i], value 16 + i: its high nibble */
};
BLOCK block_q4_1 { /* d * q + m */
    uint16_t d, m;
    uint8_t qs[16];
};
BLOCK block_q5_0 { /* d * (q - 16) */
    uint16_t d;
    uint8_t qh[4]; /* bit i: the fifth bit of value i */
    uint8_t qs[16];
};
BLOCK block_q5_1 { /* d * q + m */
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[16];
};
BLOCK block_q8_0 { /* d * q */
    uint16_t d;
    int8_t qs[32];
};
BLOCK block_iq4_nl { /* d * codes_iq4[q] */
    uint16_t d;
    uint8_t qs[16];
};
BLOCK block_mxfp4 { /* 2^(e - 128) * codes_mxfp4[q] */
    uint8_t e;
    uint8_t qs[16];
};

/* ---- 256 values, scales of scales ---- */

BLOCK block_q2_k {      /* d * scale * q - dmin * min, sub-blocks of 16 */
    uint8_t scales[16]; /* low nibble: scale, high nibble: min */
    uint8_t qs[64];     /* value 128 h + 32 k + i: bits 2k, 2k + 1 of qs[32 h + i] */
    uint16_t d, dmin;
};
BLOCK block_q3_k {      /* d * (scale - 32) * q, q in -4..3, sub-blocks of 16 */
    uint8_t hmask[32];  /* value 32 k + i: bit k of hmask[i], clear: subtract 4 */
    uint8_t qs[64];     /* as in q2_k */
    uint8_t scales[12]; /* scale j: low 4 bits in nibbles of [0, 8), high 2 bits in [8, 12) */
    uint16_t d;
};
BLOCK block_q4_k { /* d * scale * q - dmin * min, sub-blocks of 32 */
    uint16_t d, dmin;
    uint8_t scales[12]; /* 8 scales and 8 minima of 6 bits */
    uint8_t qs[128];    /* value 64 g + i: low nibble of qs[32 g + i], 64 g + 32 + i: high one */
};
BLOCK block_q5_k { /* as q4_k with a fifth bit */
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32]; /* value 32 k + i: bit k of qh[i] */
    uint8_t qs[128];
};
BLOCK block_q6_k {   /* d * scale * (q - 32), sub-blocks of 16 */
    uint8_t ql[128]; /* value 128 h + 32 k + i: nibble k / 2 of ql[64 h + 32 (k % 2) + i] */
    uint8_t qh[64];  /* its two high bits: bits 2k, 2k + 1 of qh[32 h + i] */
    int8_t scales[16];
    uint16_t d;
};
BLOCK block_iq4_xs { /* d * (scale - 32) * codes_iq4[q], sub-blocks of 32 */
    uint16_t d;
    uint16_t scales_h;   /* scale k: bits 2k, 2k + 1 are its high bits */
    uint8_t scales_l[4]; /* its low nibble: scales_l[k / 2], nibble k % 2 */
    uint8_t qs[128];     /* value 32 k + i: low nibble of qs[16 k + i], 32 k + 16 + i: high one */
};

#undef BLOCK

static_assert(sizeof(struct block_q4_0) == 18, "Q4_0");
static_assert(sizeof(struct block_q4_1) == 20, "Q4_1");
static_assert(sizeof(struct block_q5_0) == 22, "Q5_0");
static_assert(sizeof(struct block_q5_1) == 24, "Q5_1");
static_assert(sizeof(struct block_q8_0) == 34, "Q8_0");
static_assert(sizeof(struct block_iq4_nl) == 18, "IQ4_NL");
static_assert(sizeof(struct block_mxfp4) == 17, "MXFP4");
static_assert(sizeof(struct block_q2_k) == 84, "Q2_K");
static_assert(sizeof(struct block_q3_k) == 110, "Q3_K");
static_assert(sizeof(struct block_q4_k) == 144, "Q4_K");
static_assert(sizeof(struct block_q5_k) == 176, "Q5_K");
static_assert(sizeof(struct block_q6_k) == 210, "Q6_K");
static_assert(sizeof(struct block_iq4_xs) == 136, "IQ4_XS");

/* What the codes of the non-linear types stand for. */
static const int8_t codes_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t codes_mxfp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

#endif
