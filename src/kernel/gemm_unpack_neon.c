/* gemm_unpack_neon.c - 8 rows of any quantised type to a part of a tile (tile.h), on aarch64.
 *
 * Rows are decoded one block at a time to signed codes, then dealt out in pieces of 4 columns
 * ([col / 4][8 rows][4], what SDOT takes) or of 8 ([col / 8][8 rows][8], what SMMLA takes). The
 * decoders of the most used types are vectors; the others are those of the scalar kernels. */
#include <arm_neon.h>
#include <string.h>

#include "base/dtype.h"
#include "kernel/blocks.h"
#include "kernel/codes.h"
#include "kernel/half.h"
#include "kernel/layout.h"
#include "kernel/tile_neon.h"

#define INLINE static inline __attribute__((always_inline))

typedef void decode_fn(uint32_t dtype, const uint8_t *block, struct codes *c);

static void decode_any(uint32_t dtype, const uint8_t *block, struct codes *c) {
    codes_unpack(dtype, block, c);
}

INLINE void store_nibbles(uint8x16_t qs, int8x16_t zero, int8_t *low, int8_t *high) {
    vst1q_s8(low, vsubq_s8(vreinterpretq_s8_u8(vandq_u8(qs, vdupq_n_u8(15))), zero));
    vst1q_s8(high, vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(qs, 4)), zero));
}

static void decode_q4_0(uint32_t dtype, const uint8_t *block, struct codes *c) {
    (void)dtype;
    const struct block_q4_0 *b = (const void *)block;
    c->d[0] = c->d[1] = half_to_f32(b->d);
    store_nibbles(vld1q_u8(b->qs), vdupq_n_s8(8), c->q, c->q + 16);
}

static void decode_q8_0(uint32_t dtype, const uint8_t *block, struct codes *c) {
    (void)dtype;
    const struct block_q8_0 *b = (const void *)block;
    c->d[0] = c->d[1] = half_to_f32(b->d);
    vst1q_s8(c->q, vld1q_s8(b->qs));
    vst1q_s8(c->q + 16, vld1q_s8(b->qs + 16));
}

static void decode_q4_k(uint32_t dtype, const uint8_t *block, struct codes *c) {
    (void)dtype;
    const struct block_q4_k *b = (const void *)block;
    const float d = half_to_f32(b->d), dmin = half_to_f32(b->dmin);
    for (uint32_t k = 0; k < 8; k++) {
        const uint8_t *s = b->scales;
        const uint32_t scale =
            k < 4 ? s[k] & 63u : (s[k + 4] & 15u) | (uint32_t)(s[k - 4] >> 6) << 4;
        const uint32_t min =
            k < 4 ? s[k + 4] & 63u : (uint32_t)(s[k + 4] >> 4) | (uint32_t)(s[k] >> 6) << 4;
        c->d[2 * k] = c->d[2 * k + 1] = d * (float)scale;
        c->m[2 * k] = c->m[2 * k + 1] = -(dmin * (float)min);
    }
    for (uint32_t i = 0; i < 8; i++) {
        int8_t *q = c->q + i / 2 * 64 + i % 2 * 16;
        store_nibbles(vld1q_u8(b->qs + 16 * i), vdupq_n_s8(0), q, q + 32);
    }
}

static void decode_q6_k(uint32_t dtype, const uint8_t *block, struct codes *c) {
    (void)dtype;
    const struct block_q6_k *b = (const void *)block;
    const float d = half_to_f32(b->d);
    for (uint32_t g = 0; g < 16; g++)
        c->d[g] = d * (float)b->scales[g];
    const uint8x16_t top = vdupq_n_u8(0x30);
    const int8x16_t zero = vdupq_n_s8(32);
    for (uint32_t i = 0; i < 4; i++) { /* 16 of the 32 values that share a shift, in 2 halves */
        const uint8x16_t high = vld1q_u8(b->qh + 16 * i);
        const uint8x16_t low0 = vld1q_u8(b->ql + i / 2 * 64 + i % 2 * 16);
        const uint8x16_t low1 = vld1q_u8(b->ql + i / 2 * 64 + i % 2 * 16 + 32);
        const uint8x16_t four = vdupq_n_u8(15);
        const uint8x16_t q[4] = {
            vorrq_u8(vandq_u8(low0, four), vandq_u8(vshlq_n_u8(high, 4), top)),
            vorrq_u8(vandq_u8(low1, four), vandq_u8(vshlq_n_u8(high, 2), top)),
            vorrq_u8(vshrq_n_u8(low0, 4), vandq_u8(high, top)),
            vorrq_u8(vshrq_n_u8(low1, 4), vandq_u8(vshrq_n_u8(high, 2), top)),
        };
        for (uint32_t k = 0; k < 4; k++)
            vst1q_s8(c->q + i / 2 * 128 + 32 * k + i % 2 * 16,
                     vsubq_s8(vreinterpretq_s8_u8(q[k]), zero));
    }
}

/* piece: 4 or 8 columns; constant, like dtype and decode, where this is inlined. */
INLINE void unpack(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks, struct tile t,
                   uint32_t piece, uint32_t dtype, uint32_t block_cols, uint32_t block_bytes,
                   bool has_min, decode_fn *decode) {
    for (uint32_t r = 0; r < NEON_PART_ROWS; r++)
        for (uint64_t b = 0; b < n_blocks; b++) {
            struct codes c;
            decode(dtype, rows[r] + offset + b * block_bytes, &c);
            int8_t *codes = t.codes + b * block_cols * NEON_PART_ROWS + r * piece;
            for (uint32_t i = 0; i < block_cols / piece; i++)
                memcpy(codes + i * piece * NEON_PART_ROWS, c.q + i * piece, piece);
            for (uint64_t i = 0; i < block_cols / 16; i++) {
                const uint64_t at = (b * (block_cols / 16) + i) * NEON_PART_ROWS + r;
                t.scale[at] = c.d[i];
                if (has_min)
                    t.min[at] = c.m[i];
            }
        }
}

#define UNPACK(name, dtype, cols, bytes, has_min, decode)                                          \
    static void name##_4(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,           \
                         struct tile t) {                                                          \
        unpack(rows, offset, n_blocks, t, 4, dtype, cols, bytes, has_min, decode);                 \
    }                                                                                              \
    static void name##_8(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,           \
                         struct tile t) {                                                          \
        unpack(rows, offset, n_blocks, t, 8, dtype, cols, bytes, has_min, decode);                 \
    }
UNPACK(q4_0, OT_Q4_0, 32, 18, false, decode_q4_0)
UNPACK(q4_1, OT_Q4_1, 32, 20, true, decode_any)
UNPACK(q5_0, OT_Q5_0, 32, 22, false, decode_any)
UNPACK(q5_1, OT_Q5_1, 32, 24, true, decode_any)
UNPACK(q8_0, OT_Q8_0, 32, 34, false, decode_q8_0)
UNPACK(iq4_nl, OT_IQ4_NL, 32, 18, false, decode_any)
UNPACK(mxfp4, OT_MXFP4, 32, 17, false, decode_any)
UNPACK(q2_k, OT_Q2_K, 256, 84, true, decode_any)
UNPACK(q3_k, OT_Q3_K, 256, 110, false, decode_any)
UNPACK(q4_k, OT_Q4_K, 256, 144, true, decode_q4_k)
UNPACK(q5_k, OT_Q5_K, 256, 176, true, decode_any)
UNPACK(q6_k, OT_Q6_K, 256, 210, false, decode_q6_k)
UNPACK(iq4_xs, OT_IQ4_XS, 256, 136, false, decode_any)

/* Kinds of multipliers: 0 without minima, 1 with. Every type has its scales for each 16 columns. */
#define TYPE(type, name, piece, cols, bytes, kind)                                                 \
    [OT_##type] = {name##_##piece, cols, bytes, 16, LAYOUT_Q8, kind, kind == 1}
#define TYPES(piece)                                                                               \
    {                                                                                              \
        TYPE(Q4_0, q4_0, piece, 32, 18, 0),                                                        \
        TYPE(Q4_1, q4_1, piece, 32, 20, 1),                                                        \
        TYPE(Q5_0, q5_0, piece, 32, 22, 0),                                                        \
        TYPE(Q5_1, q5_1, piece, 32, 24, 1),                                                        \
        TYPE(Q8_0, q8_0, piece, 32, 34, 0),                                                        \
        TYPE(IQ4_NL, iq4_nl, piece, 32, 18, 0),                                                    \
        TYPE(MXFP4, mxfp4, piece, 32, 17, 0),                                                      \
        TYPE(Q2_K, q2_k, piece, 256, 84, 1),                                                       \
        TYPE(Q3_K, q3_k, piece, 256, 110, 0),                                                      \
        TYPE(Q4_K, q4_k, piece, 256, 144, 1),                                                      \
        TYPE(Q5_K, q5_k, piece, 256, 176, 1),                                                      \
        TYPE(Q6_K, q6_k, piece, 256, 210, 0),                                                      \
        TYPE(IQ4_XS, iq4_xs, piece, 256, 136, 0),                                                  \
    }

const struct tile_type *tile_types_neon(uint32_t piece) {
    static const struct tile_type by_4[OT_DTYPE_MAX] = TYPES(4), by_8[OT_DTYPE_MAX] = TYPES(8);
    return piece == 4 ? by_4 : by_8;
}
