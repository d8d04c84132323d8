/* gemm_unpack_avx512.c - 16 rows of any quantised type to a part of a tile (tile.h).
 *
 * 16 bytes of each of 16 rows are loaded so that four in-lane interleavings give, for each of the
 * four dwords, one register with that dword of all rows: packed bits are transposed before they are
 * widened, which halves the shuffles. All types are built from this, shifts and masks. */
#include <immintrin.h>
#include <string.h>

#include "kernel/blocks.h"
#include "kernel/layout_avx512.h"
#include "kernel/tile.h"
#include "onetrip.h"

#define INLINE static inline __attribute__((always_inline))

struct quad {
    __m512i v[4]; /* dword i of 16 rows */
};

/* r.v[i], lane l = 16 bytes of row 4 l + i. The broadcasts are masked loads. */
INLINE struct quad load_rows(const uint8_t *const *rows, uint64_t offset) {
    struct quad r;
    for (uint32_t i = 0; i < 4; i++) {
        __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(rows[i] + offset)));
        for (uint32_t l = 1; l < 4; l++)
            v = _mm512_mask_broadcast_i32x4(
                v, (__mmask16)(0xf << 4 * l),
                _mm_loadu_si128((const void *)(rows[4 * l + i] + offset)));
        r.v[i] = v;
    }
    return r;
}

/* The 16 bytes from offset on of each row, as four dwords. */
INLINE struct quad load_dwords(const uint8_t *const *rows, uint64_t offset) {
    const struct quad r = load_rows(rows, offset);
    const __m512i a = _mm512_unpacklo_epi32(r.v[0], r.v[1]);
    const __m512i b = _mm512_unpacklo_epi32(r.v[2], r.v[3]);
    const __m512i c = _mm512_unpackhi_epi32(r.v[0], r.v[1]);
    const __m512i d = _mm512_unpackhi_epi32(r.v[2], r.v[3]);
    return (struct quad){{_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b),
                          _mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d)}};
}

INLINE __m512i bytes(int b) {
    return _mm512_set1_epi8((char)b);
}

/* The low 16 bits of each dword as half precision. */
INLINE __m512 half_low(__m512i dwords) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(dwords));
}
INLINE __m512 half_high(__m512i dwords) {
    return half_low(_mm512_srli_epi32(dwords, 16));
}
/* Byte i of each dword, unsigned, as f32. */
INLINE __m512 byte_f32(__m512i dwords, uint32_t i) {
    return _mm512_cvtepi32_ps(
        _mm512_and_si512(_mm512_srli_epi32(dwords, 8 * i), _mm512_set1_epi32(255)));
}

/* Group g of 16 columns: its codes + 128, [4][32 rows][4] (rows of the other part between these).
 */
INLINE void store_group(struct tile t, uint64_t g, struct quad codes) {
    for (uint32_t i = 0; i < 4; i++)
        _mm512_store_si512(t.codes + g * 512 + i * 128, _mm512_xor_si512(codes.v[i], bytes(128)));
}

/* Groups 2 b, 2 b + 1: [4][2][2 parts][8 rows][2 groups][4], of a part's 16 rows those of which
 * row % 4 < 2 in the first of two vectors. */
INLINE void store_pair(struct tile t, uint64_t b, struct quad first, struct quad second) {
    for (uint32_t i = 0; i < 4; i++) {
        int8_t *to = t.codes + b * 1024 + i * 256;
        const __m512i v = _mm512_xor_si512(first.v[i], bytes(128));
        const __m512i w = _mm512_xor_si512(second.v[i], bytes(128));
        _mm512_store_si512(to, _mm512_unpacklo_epi32(v, w));
        _mm512_store_si512(to + 128, _mm512_unpackhi_epi32(v, w));
    }
}

INLINE struct quad nibbles(struct quad q, bool high) {
    struct quad r;
    for (uint32_t i = 0; i < 4; i++)
        r.v[i] = _mm512_and_si512(high ? _mm512_srli_epi32(q.v[i], 4) : q.v[i], bytes(15));
    return r;
}

/* ---- types of 32 values ---- */

INLINE struct quad subtract(struct quad q, int n) {
    for (uint32_t i = 0; i < 4; i++)
        q.v[i] = _mm512_sub_epi8(q.v[i], bytes(n));
    return q;
}

INLINE struct quad look_up(struct quad q, __m512i table) {
    for (uint32_t i = 0; i < 4; i++)
        q.v[i] = _mm512_shuffle_epi8(table, q.v[i]);
    return q;
}

INLINE __m512i table_of(const int8_t *values) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)values));
}

/* Where bits 16 h + 4 i .. + 3 of each row's dword, one for each byte of register i of a half, are
 * 0. */
INLINE __mmask64 fifth_bits(__m512i qh, uint32_t half, uint32_t i) {
    const __m512i spread = _mm512_add_epi8(
        _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0)),
        bytes((int)(2 * half + i / 2)));
    const __m512i bit = _mm512_set1_epi32(i % 2 == 0 ? 0x08040201 : (int)0x80402010);
    const __m512i v = _mm512_shuffle_epi8(qh, spread);
    return _mm512_testn_epi8_mask(v, bit);
}

/* Codes - 16 of a half. */
INLINE struct quad with_fifth_bits(struct quad qs, __m512i qh, uint32_t half) {
    struct quad q = nibbles(qs, half != 0);
    for (uint32_t i = 0; i < 4; i++)
        q.v[i] = _mm512_mask_sub_epi8(q.v[i], fifth_bits(qh, half, i), q.v[i], bytes(16));
    return q;
}

static void unpack_q4_0(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint32_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q4_0)) {
        const struct quad qs = load_dwords(rows, offset + 2);
        store_pair(t, b, subtract(nibbles(qs, false), 8), subtract(nibbles(qs, true), 8));
        _mm512_store_ps(t.scale + b * 32, half_low(load_dwords(rows, offset).v[0]));
    }
}

static void unpack_q4_1(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint32_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q4_1)) {
        const struct quad qs = load_dwords(rows, offset + 4);
        const __m512i d = load_dwords(rows, offset).v[0];
        store_pair(t, b, nibbles(qs, false), nibbles(qs, true));
        _mm512_store_ps(t.scale + b * 32, half_low(d));
        _mm512_store_ps(t.min + b * 32, half_high(d));
    }
}

static void unpack_q5_0(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint32_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q5_0)) {
        const struct quad qs = load_dwords(rows, offset + 6), head = load_dwords(rows, offset);
        /* d is the low half of dword 0; the four bytes of bits straddle dwords 0 and 1. */
        const __m512i qh =
            _mm512_or_si512(_mm512_srli_epi32(head.v[0], 16), _mm512_slli_epi32(head.v[1], 16));
        store_pair(t, b, with_fifth_bits(qs, qh, 0), with_fifth_bits(qs, qh, 1));
        _mm512_store_ps(t.scale + b * 32, half_low(head.v[0]));
    }
}

static void unpack_q5_1(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint32_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q5_1)) {
        const struct quad qs = load_dwords(rows, offset + 8), head = load_dwords(rows, offset);
        store_pair(t, b, with_fifth_bits(qs, head.v[1], 0), with_fifth_bits(qs, head.v[1], 1));
        const __m512 d = half_low(head.v[0]);
        _mm512_store_ps(t.scale + b * 32, d);
        _mm512_store_ps(t.min + b * 32,
                        _mm512_fmadd_ps(d, _mm512_set1_ps(16), half_high(head.v[0])));
    }
}

static void unpack_q8_0(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint32_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q8_0)) {
        store_group(t, 2 * b, load_dwords(rows, offset + 2));
        store_group(t, 2 * b + 1, load_dwords(rows, offset + 18));
        _mm512_store_ps(t.scale + b * 32, half_low(load_dwords(rows, offset).v[0]));
    }
}

static void unpack_iq4_nl(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                          struct tile t) {
    const __m512i table = table_of(codes_iq4);
    for (uint32_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_iq4_nl)) {
        const struct quad qs = load_dwords(rows, offset + 2);
        store_group(t, 2 * b, look_up(nibbles(qs, false), table));
        store_group(t, 2 * b + 1, look_up(nibbles(qs, true), table));
        _mm512_store_ps(t.scale + b * 32, half_low(load_dwords(rows, offset).v[0]));
    }
}

/* Half of 2^(e - 127): an exponent, or for the two smallest a denormal. */
INLINE __m512 mxfp4_scale(__m512i dwords) {
    const __m512i e = _mm512_and_si512(dwords, _mm512_set1_epi32(255));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i denormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    const __mmask16 small = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_blend_epi32(small, normal, denormal));
}

static void unpack_mxfp4(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                         struct tile t) {
    const __m512i table = table_of(codes_mxfp4);
    for (uint32_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_mxfp4)) {
        const struct quad qs = load_dwords(rows, offset + 1);
        store_pair(t, b, look_up(nibbles(qs, false), table), look_up(nibbles(qs, true), table));
        _mm512_store_ps(t.scale + b * 32, mxfp4_scale(load_dwords(rows, offset).v[0]));
    }
}

/* ---- types of 256 values ---- */

static void unpack_iq4_xs(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                          struct tile t) {
    const __m512i table = table_of(codes_iq4);
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_iq4_xs)) {
        const struct quad head = load_dwords(rows, offset);
        const __m512i high = _mm512_srli_epi32(head.v[0], 16);
        const __m512 d = half_low(head.v[0]);
        for (uint32_t k = 0; k < 8; k++) {
            const struct quad qs = load_dwords(rows, offset + 8 + 16 * k);
            store_group(t, 16 * b + 2 * k, look_up(nibbles(qs, false), table));
            store_group(t, 16 * b + 2 * k + 1, look_up(nibbles(qs, true), table));
            const __m512i l =
                _mm512_and_si512(_mm512_srli_epi32(head.v[1], 4 * k), _mm512_set1_epi32(15));
            const __m512i h =
                _mm512_and_si512(_mm512_srli_epi32(high, 2 * k), _mm512_set1_epi32(3));
            const __m512i scale = _mm512_sub_epi32(_mm512_or_si512(l, _mm512_slli_epi32(h, 4)),
                                                   _mm512_set1_epi32(32));
            _mm512_store_ps(t.scale + (8 * b + k) * 32,
                            _mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)));
        }
    }
}

/* The 6-bit scales and minima of Q4_K and Q5_K: sub-block k's is byte k % 4 of [k / 4]. */
struct scales_k {
    __m512i scale[2], min[2];
    __m512 d, dmin_negative;
};

INLINE struct scales_k load_scales_k(const uint8_t *const *rows, uint64_t offset) {
    const struct quad head = load_dwords(rows, offset);
    const __m512i a = head.v[1], b = head.v[2], c = head.v[3];
    const __m512i six = bytes(63), four = bytes(15), top = bytes(0x30);
    struct scales_k s;
    s.scale[0] = _mm512_and_si512(a, six);
    s.min[0] = _mm512_and_si512(b, six);
    s.scale[1] =
        _mm512_or_si512(_mm512_and_si512(c, four), _mm512_and_si512(_mm512_srli_epi32(a, 2), top));
    s.min[1] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 4), four),
                               _mm512_and_si512(_mm512_srli_epi32(b, 2), top));
    s.d = half_low(head.v[0]);
    s.dmin_negative = _mm512_sub_ps(_mm512_setzero_ps(), half_high(head.v[0]));
    return s;
}

/* zero: what was taken off the codes. */
INLINE void store_scales_k(struct tile t, uint64_t b, const struct scales_k *s, float zero) {
    for (uint32_t k = 0; k < 8; k++) {
        const __m512 scale = _mm512_mul_ps(s->d, byte_f32(s->scale[k / 4], k % 4));
        __m512 min = _mm512_mul_ps(s->dmin_negative, byte_f32(s->min[k / 4], k % 4));
        if (zero != 0)
            min = _mm512_fmadd_ps(scale, _mm512_set1_ps(zero), min);
        _mm512_store_ps(t.scale + (8 * b + k) * 32, scale);
        _mm512_store_ps(t.min + (8 * b + k) * 32, min);
    }
}

static void unpack_q4_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q4_k)) {
        const struct scales_k s = load_scales_k(rows, offset);
        store_scales_k(t, b, &s, 0);
        for (uint32_t i = 0; i < 4; i++) {
            const struct quad first = load_dwords(rows, offset + 16 + 32 * i);
            const struct quad second = load_dwords(rows, offset + 32 + 32 * i);
            store_pair(t, 8 * b + 2 * i, nibbles(first, false), nibbles(second, false));
            store_pair(t, 8 * b + 2 * i + 1, nibbles(first, true), nibbles(second, true));
        }
    }
}

INLINE struct quad add_where(struct quad q, struct quad flags, uint32_t bit, int n) {
    for (uint32_t i = 0; i < 4; i++)
        q.v[i] = _mm512_mask_add_epi8(q.v[i], _mm512_test_epi8_mask(flags.v[i], bytes(1 << bit)),
                                      q.v[i], bytes(n));
    return q;
}

static void unpack_q5_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q5_k)) {
        const struct scales_k s = load_scales_k(rows, offset);
        store_scales_k(t, b, &s, 16);
        const struct quad qh[2] = {load_dwords(rows, offset + 16), load_dwords(rows, offset + 32)};
        for (uint32_t i = 0; i < 8; i++) {
            struct quad q[2];
            for (uint32_t h = 0; h < 2; h++) {
                const struct quad qs = load_dwords(rows, offset + 48 + 32 * (i / 2) + 16 * h);
                q[h] = subtract(add_where(nibbles(qs, i % 2 != 0), qh[h], i, 16), 16);
            }
            store_pair(t, 8 * b + i, q[0], q[1]);
        }
    }
}

/* Bits 2 k, 2 k + 1 of each byte. */
INLINE __m512i pair(__m512i v, uint32_t k) {
    return _mm512_and_si512(_mm512_srli_epi32(v, 2 * k), bytes(3));
}

static void unpack_q6_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q6_k)) {
        const struct quad scales = load_dwords(rows, offset + 192);
        const __m512 d = half_high(load_dwords(rows, offset + 194).v[3]);
        for (uint32_t g = 0; g < 16; g++) {
            const __m512i s =
                _mm512_srai_epi32(_mm512_slli_epi32(scales.v[g / 4], 24 - g % 4 * 8), 24);
            _mm512_store_ps(t.scale + (16 * b + g) * 32, _mm512_mul_ps(d, _mm512_cvtepi32_ps(s)));
        }
        /* i: which 16 of the 32 values that share a shift */
        for (uint32_t h = 0; h < 2; h++) {
            for (uint32_t i = 0; i < 2; i++) {
                const struct quad qh = load_dwords(rows, offset + 128 + 32 * h + 16 * i);
                for (uint32_t k = 0; k < 4; k++) {
                    struct quad q = nibbles(
                        load_dwords(rows, offset + 64 * h + 32 * (k % 2) + 16 * i), k / 2 != 0);
                    for (uint32_t j = 0; j < 4; j++)
                        q.v[j] = _mm512_or_si512(q.v[j], _mm512_slli_epi32(pair(qh.v[j], k), 4));
                    store_group(t, 16 * b + 8 * h + 2 * k + i, subtract(q, 32));
                }
            }
        }
    }
}

INLINE struct quad pairs(struct quad q, uint32_t k) {
    for (uint32_t i = 0; i < 4; i++)
        q.v[i] = pair(q.v[i], k);
    return q;
}

/* Codes by their rows' factors, a 32-bit lane each, modulo 256. */
INLINE struct quad multiply_codes(struct quad q, __m512i factor) {
    const __m512i both =
        _mm512_mask_blend_epi16(0xaaaaaaaau, factor, _mm512_slli_epi32(factor, 16));
    for (uint32_t i = 0; i < 4; i++) {
        const __m512i even = _mm512_mullo_epi16(q.v[i], both);
        const __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(q.v[i], 8), both);
        q.v[i] = _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaau, even, _mm512_slli_epi16(odd, 8));
    }
    return q;
}

/* Codes with their scales: (code - 4) * (32 - scale) is -128 to 124; d is negative. */
static void unpack_q3_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q3_k)) {
        const struct quad s = load_dwords(rows, offset + 96);
        __m512i factor[16];
        _mm512_store_ps(t.scale + 16 * b * 32,
                        _mm512_sub_ps(_mm512_setzero_ps(), half_low(s.v[3])));
        const struct quad flags[2] = {load_dwords(rows, offset), load_dwords(rows, offset + 16)};
        for (uint32_t g = 0; g < 16; g++) {
            const __m512i low = _mm512_srli_epi32(s.v[g / 4 % 2], g % 4 * 8 + g / 8 * 4);
            const __m512i high = _mm512_srli_epi32(s.v[2], g % 4 * 8 + g / 4 * 2);
            const __m512i scale =
                _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(15)),
                                _mm512_slli_epi32(_mm512_and_si512(high, _mm512_set1_epi32(3)), 4));
            factor[g] = _mm512_sub_epi32(_mm512_set1_epi32(32), scale);
        }
        for (uint32_t i = 0; i < 4; i++) {
            const struct quad qs = load_dwords(rows, offset + 32 + 16 * i);
            for (uint32_t k = 0; k < 4; k++) {
                const struct quad q = add_where(pairs(qs, k), flags[i % 2], i / 2 * 4 + k, 4);
                const uint64_t g = i / 2 * 8 + 2 * k + i % 2;
                store_group(t, 16 * b + g, multiply_codes(subtract(q, 4), factor[g]));
            }
        }
    }
}

/* Codes with their scales: up to 45. */
static void unpack_q2_k(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                        struct tile t) {
    for (uint64_t b = 0; b < n_blocks; b++, offset += sizeof(struct block_q2_k)) {
        const struct quad s = load_dwords(rows, offset);
        const __m512i dm = load_dwords(rows, offset + 68).v[3];
        const __m512 dmin = _mm512_sub_ps(_mm512_setzero_ps(), half_high(dm));
        __m512i factor[16];
        _mm512_store_ps(t.scale + 16 * b * 32, half_low(dm));
        for (uint32_t g = 0; g < 16; g++) {
            const __m512i byte = _mm512_srli_epi32(s.v[g / 4], g % 4 * 8);
            const __m512i min = _mm512_and_si512(_mm512_srli_epi32(byte, 4), _mm512_set1_epi32(15));
            factor[g] = _mm512_and_si512(byte, _mm512_set1_epi32(15));
            _mm512_store_ps(t.min + (16 * b + g) * 32,
                            _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(min)));
        }
        for (uint32_t i = 0; i < 4; i++) {
            const struct quad qs = load_dwords(rows, offset + 16 + 16 * i);
            for (uint32_t k = 0; k < 4; k++) {
                const uint64_t g = i / 2 * 8 + 2 * k + i % 2;
                store_group(t, 16 * b + g, multiply_codes(pairs(qs, k), factor[g]));
            }
        }
    }
}

enum {
    PAIRS,
    PAIRS_MIN,
    PLAIN_32,
    PLAIN_16,
    PLAIN_256,
    MIN_256
}; /* rows of gemm_avx512.c's table of multipliers */

#define TYPE(type, name, cols, group, layout, kind)                                                \
    [OT_##type] = {unpack_##name, cols, sizeof(struct block_##name), group,                        \
                   LAYOUT_GEMM_##layout, kind, false}

const struct tile_type *tile_types_avx512(void) {
    static const struct tile_type types[OT_DTYPE_MAX] = {
        TYPE(Q4_0, q4_0, 32, 32, PAIRS, PAIRS),
        TYPE(Q4_1, q4_1, 32, 32, PAIRS, PAIRS_MIN),
        TYPE(Q5_0, q5_0, 32, 32, PAIRS, PAIRS),
        TYPE(Q5_1, q5_1, 32, 32, PAIRS, PAIRS_MIN),
        TYPE(Q8_0, q8_0, 32, 32, BLOCKS, PLAIN_32),
        TYPE(IQ4_NL, iq4_nl, 32, 32, BLOCKS, PLAIN_32),
        TYPE(MXFP4, mxfp4, 32, 32, PAIRS, PAIRS),
        TYPE(IQ4_XS, iq4_xs, 256, 32, BLOCKS, PLAIN_32),
        TYPE(Q4_K, q4_k, 256, 32, PAIRS, PAIRS_MIN),
        TYPE(Q5_K, q5_k, 256, 32, PAIRS, PAIRS_MIN),
        TYPE(Q6_K, q6_k, 256, 16, BLOCKS, PLAIN_16),
        TYPE(Q3_K, q3_k, 256, 16, BLOCKS, PLAIN_256),
        TYPE(Q2_K, q2_k, 256, 16, BLOCKS, MIN_256),
    };
    return types;
}
