/* gemm_unpack_avx2.c - 16 rows of any quantised type to a part of a tile (tile.h).
 *
 * As gemm_unpack_avx512.c, 8 rows at a time: packed bits are transposed before they are widened.
 * Codes of up to 6 bits are unsigned here, because that is what vpmaddubsw multiplies by signed
 * activations; gemm_avx2.c says what becomes of their zero point. Codes of 8 bits stay signed.
 */
#include <immintrin.h>

#include "kernel/blocks.h"
#include "kernel/gemm_avx2.h"
#include "kernel/tile.h"
#include "onetrip.h"

enum { ROWS = 8 };

struct quad {
    __m256i v[4]; /* dword i of 8 rows */
};

/* The 16 bytes from offset on of each row, as four dwords. */
INLINE struct quad load_dwords(const uint8_t *const *rows, uint64_t offset) {
    __m256i r[4]; /* row i, row 4 + i */
    for (uint32_t i = 0; i < 4; i++)
        r[i] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const void *)(rows[i] + offset))),
            _mm_loadu_si128((const void *)(rows[4 + i] + offset)), 1);
    const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpacklo_epi32(r[2], r[3]);
    const __m256i c = _mm256_unpackhi_epi32(r[0], r[1]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    return (struct quad){{_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b),
                          _mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d)}};
}

INLINE __m256i bytes(int b) {
    return _mm256_set1_epi8((char)b);
}
INLINE __m256i dwords(int d) {
    return _mm256_set1_epi32(d);
}
INLINE __m256i shift_right(__m256i v, uint32_t n) {
    return _mm256_srl_epi32(v, _mm_cvtsi32_si128((int)n));
}

/* The low 16 bits of each dword as half precision. */
INLINE __m256 half_low(__m256i v) {
    v = _mm256_and_si256(v, dwords(0xffff));
    v = _mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(v));
}
INLINE __m256 half_high(__m256i v) {
    return half_low(_mm256_srli_epi32(v, 16));
}

INLINE void store_group(struct tile t, uint64_t g, struct quad codes) {
    for (uint32_t i = 0; i < 4; i++)
        _mm256_store_si256((__m256i *)(void *)(t.codes + (g * 4 + i) * 4 * PART_ROWS), codes.v[i]);
}

/* Block b of 32 columns: two columns of the first half, two of the second, and so on. */
INLINE void store_halves(struct tile t, uint64_t b, struct quad first, struct quad second) {
    for (uint32_t i = 0; i < 4; i++) {
        __m256i *const to = (__m256i *)(void *)(t.codes + (b * 8 + 2 * i) * 4 * PART_ROWS);
        const __m256i up = _mm256_slli_epi32(second.v[i], 16);
        const __m256i down = _mm256_srli_epi32(first.v[i], 16);
        _mm256_store_si256(to, _mm256_blend_epi16(first.v[i], up, 0xaa));
        _mm256_store_si256(to + PART_ROWS / 8, _mm256_blend_epi16(down, second.v[i], 0xaa));
    }
}

/* Block b of 32 columns, in their order. */
INLINE void store_block(struct tile t, uint64_t b, struct quad first, struct quad second) {
    store_group(t, 2 * b, first);
    store_group(t, 2 * b + 1, second);
}

INLINE void store_scale(struct tile t, uint64_t group, __m256 scale) {
    _mm256_store_ps(t.scale + group * PART_ROWS, scale);
}
INLINE void store_scale_min(struct tile t, uint64_t group, __m256 scale, __m256 min) {
    _mm256_store_ps(t.scale + group * PART_ROWS, scale);
    _mm256_store_ps(t.min + group * PART_ROWS, min);
}

/* What a code of 16 stands for, given what 0 does: five bits are multiplied as code - 16. */
INLINE __m256 low_of_16(__m256 scale, __m256 min) {
    return _mm256_fmadd_ps(scale, _mm256_set1_ps(16), min);
}

INLINE struct quad nibbles(struct quad q, bool high) {
    for (uint32_t i = 0; i < 4; i++)
        q.v[i] = _mm256_and_si256(high ? _mm256_srli_epi32(q.v[i], 4) : q.v[i], bytes(15));
    return q;
}

/* ---- types of 32 values ---- */

INLINE struct quad look_up(struct quad q, __m256i table) {
    for (uint32_t i = 0; i < 4; i++)
        q.v[i] = _mm256_shuffle_epi8(table, q.v[i]);
    return q;
}

INLINE __m256i table_of(const int8_t *values) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)values));
}

/* 16 in the bytes of q whose bit is set among bits 16 h .. 16 h + 15 of each row's dword. */
INLINE struct quad add_fifth_bits(struct quad q, __m256i qh, uint32_t half) {
    const __m256i rows =
        _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
    for (uint32_t i = 0; i < 4; i++) {
        const __m256i byte = _mm256_add_epi8(rows, bytes((int)(2 * half + i / 2)));
        const __m256i bit = dwords(i % 2 == 0 ? 0x08040201 : (int)0x80402010);
        const __m256i set =
            _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(qh, byte), bit), bit);
        q.v[i] = _mm256_or_si256(q.v[i], _mm256_and_si256(set, bytes(16)));
    }
    return q;
}

static void rows_q4_0(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q4_0)) {
        const struct quad qs = load_dwords(rows, offset + 2);
        store_halves(t, b, nibbles(qs, false), nibbles(qs, true));
        store_scale(t, b, half_low(load_dwords(rows, offset).v[0]));
    }
}

static void rows_q4_1(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q4_1)) {
        const struct quad qs = load_dwords(rows, offset + 4);
        const __m256i d = load_dwords(rows, offset).v[0];
        store_halves(t, b, nibbles(qs, false), nibbles(qs, true));
        store_scale_min(t, b, half_low(d), half_high(d));
    }
}

static void rows_q5_0(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q5_0)) {
        const struct quad qs = load_dwords(rows, offset + 6), head = load_dwords(rows, offset);
        /* d is the low half of dword 0; the four bytes of bits straddle dwords 0 and 1. */
        const __m256i qh =
            _mm256_or_si256(_mm256_srli_epi32(head.v[0], 16), _mm256_slli_epi32(head.v[1], 16));
        store_halves(t, b, add_fifth_bits(nibbles(qs, false), qh, 0),
                     add_fifth_bits(nibbles(qs, true), qh, 1));
        store_scale_min(t, b, half_low(head.v[0]), _mm256_setzero_ps());
    }
}

static void rows_q5_1(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q5_1)) {
        const struct quad qs = load_dwords(rows, offset + 8), head = load_dwords(rows, offset);
        store_halves(t, b, add_fifth_bits(nibbles(qs, false), head.v[1], 0),
                     add_fifth_bits(nibbles(qs, true), head.v[1], 1));
        const __m256 d = half_low(head.v[0]);
        store_scale_min(t, b, d, low_of_16(d, half_high(head.v[0])));
    }
}

static void rows_q8_0(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q8_0)) {
        store_block(t, b, load_dwords(rows, offset + 2), load_dwords(rows, offset + 18));
        store_scale(t, b, half_low(load_dwords(rows, offset).v[0]));
    }
}

static void rows_iq4_nl(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    const __m256i table = table_of(codes_iq4);
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_iq4_nl)) {
        const struct quad qs = load_dwords(rows, offset + 2);
        store_block(t, b, look_up(nibbles(qs, false), table), look_up(nibbles(qs, true), table));
        store_scale(t, b, half_low(load_dwords(rows, offset).v[0]));
    }
}

/* Half of 2^(e - 127): an exponent, or for the two smallest a denormal. */
INLINE __m256 mxfp4_scale(__m256i v) {
    const __m256i e = _mm256_and_si256(v, dwords(255));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, dwords(1)), 23);
    const __m256i denormal = _mm256_sllv_epi32(dwords(0x00200000), e);
    const __m256i small = _mm256_cmpgt_epi32(dwords(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, denormal, small));
}

static void rows_mxfp4(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                       struct tile t) {
    const __m256i table = _mm256_add_epi8(table_of(codes_mxfp4), bytes(16));
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_mxfp4)) {
        const struct quad qs = load_dwords(rows, offset + 1);
        store_halves(t, b, look_up(nibbles(qs, false), table), look_up(nibbles(qs, true), table));
        store_scale_min(t, b, mxfp4_scale(load_dwords(rows, offset).v[0]), _mm256_setzero_ps());
    }
}

/* ---- types of 256 values ---- */

/* Byte i of each dword, of which mask's bits, as f32. */
INLINE __m256 field_f32(__m256i v, uint32_t shift, int mask) {
    return _mm256_cvtepi32_ps(_mm256_and_si256(shift_right(v, shift), dwords(mask)));
}

static void rows_iq4_xs(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    const __m256i table = table_of(codes_iq4);
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_iq4_xs)) {
        const struct quad head = load_dwords(rows, offset);
        const __m256i high = _mm256_srli_epi32(head.v[0], 16);
        const __m256 d = half_low(head.v[0]);
        for (uint32_t k = 0; k < 8; k++) {
            const struct quad qs = load_dwords(rows, offset + 8 + 16 * k);
            store_block(t, 8 * b + k, look_up(nibbles(qs, false), table),
                        look_up(nibbles(qs, true), table));
            const __m256i l = _mm256_and_si256(shift_right(head.v[1], 4 * k), dwords(15));
            const __m256i h = _mm256_and_si256(shift_right(high, 2 * k), dwords(3));
            const __m256i scale =
                _mm256_sub_epi32(_mm256_or_si256(l, _mm256_slli_epi32(h, 4)), dwords(32));
            store_scale(t, 8 * b + k, _mm256_mul_ps(d, _mm256_cvtepi32_ps(scale)));
        }
    }
}

/* Scales and minima of Q4_K, and of Q5_K, which is five. */
INLINE void store_scales_k(const uint8_t *const *rows, uint64_t offset, uint64_t b, bool five,
                           struct tile t) {
    const struct quad head = load_dwords(rows, offset);
    const __m256i x = head.v[1], y = head.v[2], z = head.v[3];
    const __m256i six = bytes(63), four = bytes(15), top = bytes(0x30);
    const __m256i scale[2] = {
        _mm256_and_si256(x, six),
        _mm256_or_si256(_mm256_and_si256(z, four), _mm256_and_si256(_mm256_srli_epi32(x, 2), top))};
    const __m256i min[2] = {_mm256_and_si256(y, six),
                            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(z, 4), four),
                                            _mm256_and_si256(_mm256_srli_epi32(y, 2), top))};
    const __m256 d = half_low(head.v[0]);
    const __m256 dmin = _mm256_sub_ps(_mm256_setzero_ps(), half_high(head.v[0]));
    for (uint32_t k = 0; k < 8; k++) {
        const __m256 s = _mm256_mul_ps(d, field_f32(scale[k / 4], k % 4 * 8, 255));
        const __m256 m = _mm256_mul_ps(dmin, field_f32(min[k / 4], k % 4 * 8, 255));
        store_scale_min(t, 8 * b + k, s, five ? low_of_16(s, m) : m);
    }
}

static void rows_q4_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q4_k)) {
        store_scales_k(rows, offset, b, false, t);
        for (uint32_t i = 0; i < 4; i++) {
            const struct quad first = load_dwords(rows, offset + 16 + 32 * i);
            const struct quad second = load_dwords(rows, offset + 32 + 32 * i);
            const uint64_t sub = 8 * b + 2 * i;
            store_halves(t, sub, nibbles(first, false), nibbles(second, false));
            store_halves(t, sub + 1, nibbles(first, true), nibbles(second, true));
        }
    }
}

/* n in the bytes of q whose flag has the bit. */
INLINE struct quad add_where(struct quad q, struct quad flags, uint32_t bit, int n) {
    const __m256i b = bytes(1 << bit);
    for (uint32_t i = 0; i < 4; i++) {
        const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(flags.v[i], b), b);
        q.v[i] = _mm256_or_si256(q.v[i], _mm256_and_si256(set, bytes(n)));
    }
    return q;
}

static void rows_q5_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q5_k)) {
        store_scales_k(rows, offset, b, true, t);
        const struct quad qh[2] = {load_dwords(rows, offset + 16), load_dwords(rows, offset + 32)};
        for (uint32_t i = 0; i < 8; i++) {
            const struct quad first = load_dwords(rows, offset + 48 + i / 2 * 32);
            const struct quad second = load_dwords(rows, offset + 64 + i / 2 * 32);
            store_halves(t, 8 * b + i, add_where(nibbles(first, i % 2 != 0), qh[0], i, 16),
                         add_where(nibbles(second, i % 2 != 0), qh[1], i, 16));
        }
    }
}

INLINE struct quad raised(struct quad q, int n) {
    for (uint32_t i = 0; i < 4; i++)
        q.v[i] = _mm256_add_epi8(q.v[i], bytes(n));
    return q;
}

/* Bits 2 k, 2 k + 1 of each byte. */
INLINE struct quad pairs(struct quad q, uint32_t k) {
    for (uint32_t i = 0; i < 4; i++)
        q.v[i] = _mm256_and_si256(shift_right(q.v[i], 2 * k), bytes(3));
    return q;
}

static void rows_q6_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q6_k)) {
        const struct quad scales = load_dwords(rows, offset + 192);
        const __m256 d = half_high(load_dwords(rows, offset + 194).v[3]);
        for (uint32_t g = 0; g < 16; g++) {
            const __m256i s = _mm256_srai_epi32(
                _mm256_sll_epi32(scales.v[g / 4], _mm_cvtsi32_si128((int)(24 - g % 4 * 8))), 24);
            store_scale(t, 16 * b + g, _mm256_mul_ps(d, _mm256_cvtepi32_ps(s)));
        }
        /* i: which 16 of the 32 values that share a shift */
        for (uint32_t h = 0; h < 2; h++)
            for (uint32_t i = 0; i < 2; i++) {
                const struct quad qh = load_dwords(rows, offset + 128 + 32 * h + 16 * i);
                for (uint32_t k = 0; k < 4; k++) {
                    struct quad q = nibbles(
                        load_dwords(rows, offset + 64 * h + 32 * (k % 2) + 16 * i), k / 2 != 0);
                    const struct quad top = pairs(qh, k);
                    for (uint32_t j = 0; j < 4; j++)
                        q.v[j] = _mm256_or_si256(q.v[j], _mm256_slli_epi32(top.v[j], 4));
                    store_group(t, 16 * b + 8 * h + 2 * k + i, q);
                }
            }
    }
}

static void rows_q3_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q3_k)) {
        const struct quad s = load_dwords(rows, offset + 96);
        const __m256 d = half_low(s.v[3]);
        const struct quad flags[2] = {load_dwords(rows, offset), load_dwords(rows, offset + 16)};
        for (uint32_t g = 0; g < 16; g++) {
            const __m256i low = shift_right(s.v[g / 4 % 2], g % 4 * 8 + g / 8 * 4);
            const __m256i high = shift_right(s.v[2], g % 4 * 8 + g / 4 * 2);
            const __m256i scale =
                _mm256_or_si256(_mm256_and_si256(low, dwords(15)),
                                _mm256_slli_epi32(_mm256_and_si256(high, dwords(3)), 4));
            store_scale(t, 16 * b + g,
                        _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_sub_epi32(scale, dwords(32)))));
        }
        for (uint32_t i = 0; i < 4; i++) {
            const struct quad qs = load_dwords(rows, offset + 32 + 16 * i);
            for (uint32_t k = 0; k < 4; k++)
                store_group(t, 16 * b + i / 2 * 8 + 2 * k + i % 2,
                            raised(add_where(pairs(qs, k), flags[i % 2], i / 2 * 4 + k, 4), 28));
        }
    }
}

static void rows_q2_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                      struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q2_k)) {
        const struct quad s = load_dwords(rows, offset);
        const __m256i dm = load_dwords(rows, offset + 68).v[3];
        const __m256 d = half_low(dm), dmin = _mm256_sub_ps(_mm256_setzero_ps(), half_high(dm));
        for (uint32_t g = 0; g < 16; g++)
            store_scale_min(t, 16 * b + g, _mm256_mul_ps(d, field_f32(s.v[g / 4], g % 4 * 8, 15)),
                            _mm256_mul_ps(dmin, field_f32(s.v[g / 4], g % 4 * 8 + 4, 15)));
        for (uint32_t i = 0; i < 4; i++) {
            const struct quad qs = load_dwords(rows, offset + 16 + 16 * i);
            for (uint32_t k = 0; k < 4; k++)
                store_group(t, 16 * b + i / 2 * 8 + 2 * k + i % 2, pairs(qs, k));
        }
    }
}

/* A tile_unpack_fn of two times 8 rows. */
#define UNPACK(type)                                                                               \
    static void unpack_##type(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,      \
                              struct tile t) {                                                     \
        rows_##type(rows, offset, n_blocks, t);                                                    \
        t.codes += 4 * ROWS;                                                                       \
        t.scale += ROWS;                                                                           \
        t.min += ROWS;                                                                             \
        rows_##type(rows + ROWS, offset, n_blocks, t);                                             \
    }
UNPACK(q4_0)
UNPACK(q4_1)
UNPACK(q5_0)
UNPACK(q5_1)
UNPACK(q8_0)
UNPACK(iq4_nl)
UNPACK(mxfp4)
UNPACK(iq4_xs)
UNPACK(q4_k)
UNPACK(q5_k)
UNPACK(q6_k)
UNPACK(q3_k)
UNPACK(q2_k)

#define TYPE(type, name, cols, group, layout, kind)                                                \
    [OT_##type] = {unpack_##name, cols, sizeof(struct block_##name), group,                        \
                   LAYOUT_GEMM_##layout, KIND_##kind, false}

const struct tile_type *tile_types_avx2(void) {
    static const struct tile_type types[OT_DTYPE_MAX] = {
        TYPE(Q4_0, q4_0, 32, 32, HALVES, FOUR),
        TYPE(Q4_1, q4_1, 32, 32, HALVES, FOUR_MIN),
        TYPE(Q5_0, q5_0, 32, 32, HALVES, FIVE_MIN),
        TYPE(Q5_1, q5_1, 32, 32, HALVES, FIVE_MIN),
        TYPE(Q8_0, q8_0, 32, 32, FLIPS, SIGNED),
        TYPE(IQ4_NL, iq4_nl, 32, 32, FLIPS, SIGNED),
        TYPE(MXFP4, mxfp4, 32, 32, HALVES, FIVE_MIN),
        TYPE(IQ4_XS, iq4_xs, 256, 32, FLIPS, SIGNED),
        TYPE(Q4_K, q4_k, 256, 32, HALVES, FOUR_MIN),
        TYPE(Q5_K, q5_k, 256, 32, HALVES, FIVE_MIN),
        TYPE(Q6_K, q6_k, 256, 16, UNITS, SIX),
        TYPE(Q3_K, q3_k, 256, 16, UNITS, SIX),
        TYPE(Q2_K, q2_k, 256, 16, UNITS, GROUPS_MIN),
    };
    return types;
}
