/* gemv_nibbles_avx512.c - matrix times vector for the types with blocks of 32 values that are
 * nibbles: Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL and MXFP4.
 *
 * Eight blocks at a time, a group (struct lanes8x32): one permute brings half of their codes into
 * the lanes' order, another one the other half, a third one their scales. A permute reads two
 * registers and eight blocks lie in up to three: what lies in the middle is blended over those
 * bytes of the first part that the permute does not want. Which chunks each permute brings is
 * chosen so that this needs few blends (LANES8X32_... in layout_avx512.h).
 *
 * Several groups are computed in step, not one after the other: their instructions do not wait
 * for each other, and a core looks only so far ahead. The farther it looks, the fewer should there
 * be, because the memory is then read more in order (struct kernel_tuning).
 *
 * A row's last one to seven blocks are a group whose other blocks have scales of zero. Nothing is
 * read that starts after the row's end, so at most 64 bytes behind it. */
#include "kernel/blocks.h"
#include "kernel/fill.h"
#include "kernel/gemv_avx512.h"

/* ---- where a byte of the group is in the two registers that a permute reads ---- */

/* Q4_0: bytes 0 to 63, 80 to 143; the 32-bit words from 64 to 79 over words 8, 5, 14, 15. */
#define PLAIN_Q4_0(x) ((x) < 64 ? (x) : 64 + (x)-80)
#define BLEND_Q4_0(x)                                                                              \
    ((x) < 64   ? (x)                                                                              \
     : (x) < 68 ? (x)-64 + 4 * 8                                                                   \
     : (x) < 72 ? (x)-68 + 4 * 5                                                                   \
     : (x) < 80 ? (x)-72 + 4 * 14                                                                  \
                : 64 + (x)-80)
enum { WORDS_Q4_0 = 1 << 8 | 1 << 5 | 1 << 14 | 1 << 15 };

/* MXFP4: bytes 0 to 63, 72 to 135; those from 64 to 71 over the last eight of the first. */
#define PLAIN_MXFP4(x) ((x) < 64 ? (x) : 64 + (x)-72)
#define BLEND_MXFP4(x) ((x) < 64 ? (x) : (x) < 72 ? (x)-8 : 64 + (x)-72)

/* Q4_1: bytes 0 to 63, 96 to 159; of the words 16 to 23: 0, 3, 5 in place (first), 1, 2, 6, 7 in
 * place, 4 over word 12 (second). */
#define FIRST_Q4_1(x) ((x) < 64 ? (x) : (x) < 96 ? (x)-64 : 64 + (x)-96)
#define SECOND_Q4_1(x)                                                                             \
    ((x) < 64 ? (x) : (x) < 80 ? (x)-64 : (x) < 84 ? (x)-32 : (x) < 96 ? (x)-64 : 64 + (x)-96)
enum { WORDS_FIRST_Q4_1 = 1 << 0 | 1 << 3 | 1 << 5 };
enum { WORDS_SECOND_Q4_1 = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 7 | 1 << 12 };

/* Q5_0: bytes 0 to 63, 112 to 175; those from 62 on blended in place. */
#define PLACE_Q5_0(x) ((x) < 64 ? (x) : (x) < 112 ? (x)-62 : 64 + (x)-112)
/* Q5_1: bytes 0 to 63, 128 to 191; those from 64 on blended in place. */
#define PLACE_Q5_1(x) ((x) < 64 ? (x) : (x) < 128 ? (x)-64 : 64 + (x)-128)

/* The bytes [from, to). */
#define RANGE(from, to) (~0ull >> (64 - ((to) - (from))) << (from))
static const uint64_t first_bytes_q5_0 = /* chunks 0, 2 of blocks 3, 4; scales of 3, 4, 5 */
    RANGE(10, 14) | RANGE(18, 22) | RANGE(32, 36) | RANGE(40, 44) | RANGE(4, 6) | RANGE(26, 28) |
    RANGE(48, 50);
static const uint64_t second_bytes_q5_0 = /* the end of block 2; chunks 1, 3 of blocks 3, 4 */
    RANGE(2, 4) | RANGE(14, 18) | RANGE(22, 26) | RANGE(36, 40) | RANGE(44, 48);
static const uint64_t fifth_bytes_q5_0 = RANGE(6, 10) | RANGE(28, 32); /* of blocks 3, 4 */
enum {
    FIRST_WORDS_Q5_1 = 1 << 4 | 1 << 5 | 1 << 10 | 1 << 11,
    SECOND_WORDS_Q5_1 = 1 << 0 | 1 << 1 | 1 << 6 | 1 << 7 | 1 << 12 | 1 << 13,
    HEAD_WORDS_Q5_1 = 1 << 2 | 1 << 3 | 1 << 8 | 1 << 9 | 1 << 14 | 1 << 15,
};

/* ---- the permutes ---- */

#define BYTES4(place, x)                                                                           \
    (uint8_t) place(x), (uint8_t)place((x) + 1), (uint8_t)place((x) + 2), (uint8_t)place((x) + 3)
/* The four bytes at `at` + 4 * (chunk c_b) of each block b. */
#define CHUNKS_(place, at, size, c0, c1, c2, c3, c4, c5, c6, c7)                                   \
    BYTES4(place, (at) + 4 * (c0)), BYTES4(place, (at) + 4 * (c1) + (size)),                       \
        BYTES4(place, (at) + 4 * (c2) + 2 * (size)), BYTES4(place, (at) + 4 * (c3) + 3 * (size)),  \
        BYTES4(place, (at) + 4 * (c4) + 4 * (size)), BYTES4(place, (at) + 4 * (c5) + 5 * (size)),  \
        BYTES4(place, (at) + 4 * (c6) + 6 * (size)), BYTES4(place, (at) + 4 * (c7) + 7 * (size))
#define CHUNKS(place, at, size, order) CHUNKS_(place, at, size, order)
#define WORD2(place, x) (uint16_t)(place(x) / 2)
#define WORDS2(place, at, size)                                                                    \
    WORD2(place, at), WORD2(place, (at) + (size)), WORD2(place, (at) + 2 * (size)),                \
        WORD2(place, (at) + 3 * (size)), WORD2(place, (at) + 4 * (size)),                          \
        WORD2(place, (at) + 5 * (size)), WORD2(place, (at) + 6 * (size)),                          \
        WORD2(place, (at) + 7 * (size))

#define ALL(c) c, c, c, c, c, c, c, c
static const uint8_t first_q4_0[64] = {CHUNKS(PLAIN_Q4_0, 2, 18, LANES8X32_Q4_0(0)),
                                       CHUNKS(PLAIN_Q4_0, 2, 18, LANES8X32_Q4_0(1))};
static const uint8_t second_q4_0[64] = {CHUNKS(BLEND_Q4_0, 2, 18, LANES8X32_Q4_0(2)),
                                        CHUNKS(BLEND_Q4_0, 2, 18, LANES8X32_Q4_0(3))};
static const uint16_t scales_q4_0[32] = {WORDS2(BLEND_Q4_0, 0, 18), WORDS2(BLEND_Q4_0, 0, 18)};

static const uint8_t first_mxfp4[64] = {CHUNKS(PLAIN_MXFP4, 1, 17, LANES8X32_MXFP4(0)),
                                        CHUNKS(PLAIN_MXFP4, 1, 17, LANES8X32_MXFP4(1))};
static const uint8_t second_mxfp4[64] = {CHUNKS(BLEND_MXFP4, 1, 17, LANES8X32_MXFP4(2)),
                                         CHUNKS(BLEND_MXFP4, 1, 17, LANES8X32_MXFP4(3))};
static const uint8_t scales_mxfp4[64] = {CHUNKS(BLEND_MXFP4, 0, 17, ALL(0))};

static const uint8_t first_q4_1[64] = {CHUNKS(FIRST_Q4_1, 4, 20, LANES8X32_Q4_1(0)),
                                       CHUNKS(FIRST_Q4_1, 4, 20, LANES8X32_Q4_1(1))};
static const uint8_t second_q4_1[64] = {CHUNKS(SECOND_Q4_1, 4, 20, LANES8X32_Q4_1(2)),
                                        CHUNKS(SECOND_Q4_1, 4, 20, LANES8X32_Q4_1(3))};
static const uint16_t scales_q4_1[32] = {WORDS2(SECOND_Q4_1, 0, 20), WORDS2(SECOND_Q4_1, 2, 20)};

static const uint8_t first_q5_0[64] = {CHUNKS(PLACE_Q5_0, 6, 22, LANES8X32_Q5_0(0)),
                                       CHUNKS(PLACE_Q5_0, 6, 22, LANES8X32_Q5_0(1))};
static const uint8_t second_q5_0[64] = {CHUNKS(PLACE_Q5_0, 6, 22, LANES8X32_Q5_0(2)),
                                        CHUNKS(PLACE_Q5_0, 6, 22, LANES8X32_Q5_0(3))};
static const uint8_t fifth_q5_0[64] = {CHUNKS(PLACE_Q5_0, 2, 22, ALL(0)),
                                       CHUNKS(PLACE_Q5_0, 2, 22, ALL(0))};
static const uint16_t scales_q5_0[32] = {WORDS2(PLACE_Q5_0, 0, 22), WORDS2(PLACE_Q5_0, 0, 22)};

static const uint8_t first_q5_1[64] = {CHUNKS(PLACE_Q5_1, 8, 24, LANES8X32_Q5_1(0)),
                                       CHUNKS(PLACE_Q5_1, 8, 24, LANES8X32_Q5_1(1))};
static const uint8_t second_q5_1[64] = {CHUNKS(PLACE_Q5_1, 8, 24, LANES8X32_Q5_1(2)),
                                        CHUNKS(PLACE_Q5_1, 8, 24, LANES8X32_Q5_1(3))};
static const uint8_t fifth_q5_1[64] = {CHUNKS(PLACE_Q5_1, 4, 24, ALL(0)),
                                       CHUNKS(PLACE_Q5_1, 4, 24, ALL(0))};
static const uint16_t scales_q5_1[32] = {WORDS2(PLACE_Q5_1, 0, 24), WORDS2(PLACE_Q5_1, 2, 24)};

/* The values of the non-linear codes, raised by the zero point of their layout; four times, because
 * a look-up by 6 bits then needs no mask. */
#define RAISED_IQ4 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241
#define RAISED_MXFP4 16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4
static const uint8_t raised_iq4[64] = {RAISED_IQ4, RAISED_IQ4, RAISED_IQ4, RAISED_IQ4};
static const uint8_t raised_mxfp4[64] = {RAISED_MXFP4, RAISED_MXFP4, RAISED_MXFP4, RAISED_MXFP4};

/* Four bits as the fifth ones of four bytes. */
#define FIFTH4(n)                                                                                  \
    ((n)&1) * 0x10u + ((n) >> 1 & 1) * 0x1000u + ((n) >> 2 & 1) * 0x100000u +                      \
        ((n) >> 3 & 1) * 0x10000000u
static const uint32_t fifth4[16] = {
    FIFTH4(0), FIFTH4(1), FIFTH4(2),  FIFTH4(3),  FIFTH4(4),  FIFTH4(5),  FIFTH4(6),  FIFTH4(7),
    FIFTH4(8), FIFTH4(9), FIFTH4(10), FIFTH4(11), FIFTH4(12), FIFTH4(13), FIFTH4(14), FIFTH4(15)};

/* ---- types; dtype is a constant where these are inlined ---- */

GEMV_INLINE bool has_minima(uint32_t dtype) {
    return dtype == OT_Q4_1 || dtype == OT_Q5_1;
}
GEMV_INLINE bool has_fifth_bits(uint32_t dtype) {
    return dtype == OT_Q5_0 || dtype == OT_Q5_1;
}
/* The codes stay in place (struct lanes8x32: mixed). */
GEMV_INLINE bool is_mixed(uint32_t dtype) {
    return !has_fifth_bits(dtype);
}

/* Where a group's second and third part are read: parts that start after the row's end are not,
 * and have no blocks. */
struct parts {
    uint32_t block_bytes, middle, last;
    __mmask16 scales; /* the blocks that exist */
};

GEMV_INLINE struct parts parts_full(uint32_t dtype) {
    switch (dtype) {
    case OT_Q4_1: return (struct parts){20, 64, 96, 0xffff};
    case OT_Q5_0: return (struct parts){22, 62, 112, 0xffff};
    case OT_Q5_1: return (struct parts){24, 64, 128, 0xffff};
    case OT_MXFP4: return (struct parts){17, 64, 72, 0xffff};
    default: return (struct parts){18, 64, 80, 0xffff};
    }
}

GEMV_INLINE struct parts parts_of(uint32_t dtype, uint32_t n_blocks) {
    struct parts p = parts_full(dtype);
    uint32_t bytes = n_blocks * p.block_bytes;
    p.middle = p.middle < bytes ? p.middle : 0;
    p.last = p.last < bytes ? p.last : 0;
    p.scales = (__mmask16)(((1u << n_blocks) - 1) * 0x0101);
    return p;
}

GEMV_INLINE __m512i load(const void *p) {
    return _mm512_loadu_si512(p);
}
GEMV_INLINE __m512i blend8(uint64_t mask, __m512i a, __m512i b) {
    return _mm512_mask_blend_epi8(_cvtu64_mask64(mask), a, b);
}
GEMV_INLINE __m512i blend32(uint32_t mask, __m512i a, __m512i b) {
    return _mm512_mask_blend_epi32(_cvtu32_mask16(mask), a, b);
}
GEMV_INLINE __m512i bytes_at(__m512i a, const uint8_t at[64], __m512i b) {
    return _mm512_permutex2var_epi8(a, load(at), b);
}
GEMV_INLINE __m512i words_at(__m512i a, const uint16_t at[32], __m512i b) {
    return _mm512_permutex2var_epi16(a, load(at), b);
}

/* A group as it was read. */
struct codes {
    __m512i first, second; /* nibbles of two chunks each of all blocks */
    __m512i fifth;         /* 32 bits of each block, twice */
    __m512 scales;         /* twice; types with minima: scales and minima */
};

GEMV_INLINE __m512 halves(const struct parts *at, __m512i words) {
    return at->scales == 0xffff ? gemv_half_to_f32(words)
                                : _mm512_maskz_cvtph_ps(at->scales, _mm512_castsi512_si256(words));
}

/* 2^(e - 128), twice, of the bytes e. */
GEMV_INLINE __m512 powers(__m512i words) {
    __m256i n = _mm256_sub_epi32(_mm512_castsi512_si256(words), _mm256_set1_epi32(128));
    __m256 d = _mm256_scalef_ps(_mm256_set1_ps(1.0f), _mm256_cvtepi32_ps(n));
    return _mm512_broadcast_f32x8(d);
}

GEMV_INLINE struct codes read_group(uint32_t dtype, const uint8_t *p, const struct parts *at) {
    struct codes c;
    __m512i a = gemv_keep(load(p)), b = gemv_keep(load(p + at->last)), x, y;
    switch (dtype) {
    case OT_Q4_1: {
        __m512i m = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)(p + at->middle)));
        x = blend32(WORDS_FIRST_Q4_1, a, m);
        y = blend32(WORDS_SECOND_Q4_1, a, m);
        c.first = bytes_at(x, first_q4_1, b);
        c.second = bytes_at(y, second_q4_1, b);
        c.scales = halves(at, words_at(y, scales_q4_1, b));
        break;
    }
    case OT_Q5_0: {
        __m512i m = gemv_keep(load(p + at->middle));
        x = blend8(first_bytes_q5_0, a, m);
        y = blend8(second_bytes_q5_0, a, m);
        c.first = bytes_at(x, first_q5_0, b);
        c.second = bytes_at(y, second_q5_0, b);
        c.fifth = bytes_at(blend8(fifth_bytes_q5_0, a, m), fifth_q5_0, b);
        c.scales = halves(at, words_at(x, scales_q5_0, b));
        break;
    }
    case OT_Q5_1: {
        __m512i m = gemv_keep(load(p + at->middle));
        c.first = bytes_at(blend32(FIRST_WORDS_Q5_1, a, m), first_q5_1, b);
        c.second = bytes_at(blend32(SECOND_WORDS_Q5_1, a, m), second_q5_1, b);
        x = blend32(HEAD_WORDS_Q5_1, a, m);
        c.fifth = bytes_at(x, fifth_q5_1, b);
        c.scales = halves(at, words_at(x, scales_q5_1, b));
        break;
    }
    case OT_MXFP4:
        y = _mm512_mask_set1_epi64(a, 1 << 7, gemv_read_64(p + at->middle));
        c.first = bytes_at(a, first_mxfp4, b);
        c.second = bytes_at(y, second_mxfp4, b);
        c.scales = powers(_mm512_maskz_permutex2var_epi8(0x11111111, y, load(scales_mxfp4), b));
        break;
    default: /* Q4_0, IQ4_NL */
        y = _mm512_mask_broadcast_i32x4(a, WORDS_Q4_0,
                                        _mm_loadu_si128((const void *)(p + at->middle)));
        c.first = bytes_at(a, first_q4_0, b);
        c.second = bytes_at(y, second_q4_0, b);
        c.scales = halves(at, words_at(y, scales_q4_0, b));
    }
    if (has_fifth_bits(dtype)) { /* the four bits of a lane's chunk lowest */
        const int s = dtype == OT_Q5_0 ? 8 : 4;
        const __m512i right = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, s, s, s, s, s, s, s, s);
        c.fifth = gemv_pin(_mm512_srlv_epi32(c.fifth, right));
    }
    c.first = gemv_pin(c.first);
    c.second = gemv_pin(c.second);
    c.scales = gemv_pin_ps(c.scales);
    return c;
}

/* Sums of products: of the low nibbles and the high ones; or mixed. */
struct dots {
    __m512i a, b;
};

GEMV_INLINE __m512i start(const int32_t eight[8]) {
    return _mm512_zextsi256_si512(_mm256_load_si256((const __m256i *)eight));
}
GEMV_INLINE __m512i dot(__m512i sum, __m512i codes, const int8_t q[64]) {
    return _mm512_dpbusd_epi32(sum, codes, _mm512_load_si512(q));
}

/* Unsigned codes: of the lanes' low nibbles where `low` is set, of their high ones elsewhere. Q4_0
 * and Q4_1 leave them in place: raised by 16 where high. */
GEMV_INLINE __m512i codes_mixed(uint32_t dtype, __m512i q, bool low_first) {
    if (dtype == OT_IQ4_NL || dtype == OT_MXFP4) {
        const int l = low_first ? 0 : 4, h = low_first ? 4 : 0;
        const __m512i right = _mm512_setr_epi32(l, l, l, l, l, l, l, l, h, h, h, h, h, h, h, h);
        return _mm512_permutexvar_epi8(_mm512_srlv_epi32(q, right),
                                       load(dtype == OT_IQ4_NL ? raised_iq4 : raised_mxfp4));
    }
    const char l = low_first ? 15 : (char)0xf0, h = low_first ? (char)0xf0 : 15;
    return _mm512_and_si512(q, _mm512_inserti64x4(_mm512_set1_epi8(l), _mm256_set1_epi8(h), 1));
}

/* Unsigned codes of the low nibbles; bits: the fifth ones of each lane's chunk, lowest. */
GEMV_INLINE __m512i codes_uniform(__m512i q, __m512i bits) {
    /* (q & 15) | fifth */
    return _mm512_ternarylogic_epi32(_mm512_permutexvar_epi32(bits, load(fifth4)), q,
                                     _mm512_set1_epi8(15), 0xf8);
}

/* Codes as they are multiplied with the four vectors of activations. */
struct chunks {
    __m512i q[4];
};

GEMV_INLINE struct chunks chunks_of(uint32_t dtype, const struct codes *c) {
    if (is_mixed(dtype)) {
        return (struct chunks){
            {codes_mixed(dtype, c->first, true), codes_mixed(dtype, c->first, false),
             codes_mixed(dtype, c->second, true), codes_mixed(dtype, c->second, false)}};
    }
    const __m512i bits = c->fifth;
    const uint32_t next = dtype == OT_Q5_0 ? 4 : 8; /* bits from the first chunks to the second */
    return (struct chunks){
        {codes_uniform(c->first, bits),
         codes_uniform(_mm512_srli_epi16(c->first, 4), _mm512_srli_epi32(bits, 16)),
         codes_uniform(c->second, _mm512_srli_epi32(bits, next)),
         codes_uniform(_mm512_srli_epi16(c->second, 4), _mm512_srli_epi32(bits, 16 + next))}};
}

GEMV_INLINE struct dots dots_of(uint32_t dtype, const struct chunks *c, const struct lanes8x32 *a) {
    const __m512i zero = _mm512_setzero_si512();
    struct dots d;
    if (is_mixed(dtype)) {
        d.a = has_minima(dtype) ? zero : _mm512_load_si512(a->start);
        d.b = zero;
    } else {
        d.a = has_minima(dtype) ? zero : start(a->start);
        d.b = has_minima(dtype) ? zero : start(a->start + 8);
    }
    d.a = dot(d.a, c->q[0], a->q[0]);
    d.b = dot(d.b, c->q[1], a->q[1]);
    d.a = dot(d.a, c->q[2], a->q[2]);
    d.b = dot(d.b, c->q[3], a->q[3]);
    return (struct dots){gemv_pin(d.a), gemv_pin(d.b)};
}

GEMV_INLINE __m512 twice(const float eight[8]) {
    return _mm512_broadcast_f32x8(_mm256_load_ps(eight));
}

GEMV_INLINE __m512 add_scaled(uint32_t dtype, struct dots d, __m512 scales,
                              const struct lanes8x32 *a, __m512 sum) {
    __m512 v;
    if (is_mixed(dtype)) {
        v = _mm512_cvtepi32_ps(_mm512_add_epi32(d.a, _mm512_shuffle_i64x2(d.b, d.b, 0x4e)));
        v = _mm512_mul_ps(v, _mm512_load_ps(a->d));
    } else {
        v = _mm512_mul_ps(_mm512_cvtepi32_ps(d.a), twice(a->d));
        v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(d.b), twice(a->d + 8), v);
    }
    if (has_minima(dtype)) { /* both halves together in the lower lanes, sums for minima above */
        v = _mm512_mask_add_ps(_mm512_load_ps(a->s), 0x00ff, v, _mm512_shuffle_f32x4(v, v, 0x4e));
    }
    return gemv_pin_ps(_mm512_fmadd_ps(scales, v, sum));
}

enum { MOST_IN_STEP = 4 };

/* n groups in step; n is a constant where this is inlined. last: the parts of the last one. */
GEMV_INLINE __m512 add_groups(uint32_t dtype, uint32_t n, const uint8_t *p,
                              const struct parts *last, const struct lanes8x32 *a, __m512 sum) {
    const struct parts full = parts_full(dtype);
    struct codes c[MOST_IN_STEP];
    struct dots d[MOST_IN_STEP];
    for (uint32_t i = 0; i < n; i++) {
        c[i] = read_group(dtype, p + i * 8 * full.block_bytes, i + 1 == n ? last : &full);
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct chunks q = chunks_of(dtype, &c[i]);
        d[i] = dots_of(dtype, &q, a + i);
    }
    for (uint32_t i = 0; i < n; i++) {
        sum = add_scaled(dtype, d[i], c[i].scales, a + i, sum);
    }
    return sum;
}

/* step: groups in step; n_last: of the last step of a row, 1 to step. Constants where this is
 * inlined. */
GEMV_INLINE void rows(uint32_t dtype, uint32_t step, uint32_t n_last, const uint8_t *w,
                      uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const struct lanes8x32 *acts, float *y) {
    const struct parts full = parts_full(dtype);
    const struct parts last = parts_of(dtype, (n_cols - 1) % 256 / 32 + 1);
    const uint32_t step_bytes = step * 8 * full.block_bytes;
    const uint32_t n_steps = (layout_ceil(n_cols, 256) - n_last) / step;
    const struct kernel_ahead ahead = kernel_ahead();
    struct gemv_sums done;
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = w + r * row_bytes;
        const struct lanes8x32 *a = acts;
        __m512 sum = _mm512_setzero_ps();
        for (uint32_t i = 0; i < n_steps; i++, p += step_bytes, a += step) {
            kernel_prefetch(p, ahead, step_bytes);
            sum = add_groups(dtype, step, p, &full, a, sum);
        }
        kernel_prefetch(p, ahead, n_last * 8 * full.block_bytes);
        sum = add_groups(dtype, n_last, p, &last, a, sum);
        if (dtype == OT_Q4_0) { /* From memory its rows are faster by a tenth one by one. */
            y[r] = gemv_sum(sum);
        } else {
            gemv_row_done(&done, r, n_rows, sum, y);
        }
    }
}

GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const struct lanes8x32 *acts, float *y) {
    const uint32_t n_groups = layout_ceil(n_cols, 256);
    if (dtype == OT_Q4_1 || kernel_tuning.two_in_step) {
        if (n_groups % 2 == 1) {
            rows(dtype, 2, 1, w, row_bytes, n_rows, n_cols, acts, y);
        } else {
            rows(dtype, 2, 2, w, row_bytes, n_rows, n_cols, acts, y);
        }
        return;
    }
    switch (n_groups % 4) {
    case 1: rows(dtype, 4, 1, w, row_bytes, n_rows, n_cols, acts, y); break;
    case 2: rows(dtype, 4, 2, w, row_bytes, n_rows, n_cols, acts, y); break;
    case 3: rows(dtype, 4, 3, w, row_bytes, n_rows, n_cols, acts, y); break;
    default: rows(dtype, 4, 4, w, row_bytes, n_rows, n_cols, acts, y);
    }
}

/* ---- several tokens ---- */

GEMV_INLINE void few_part(uint32_t dtype, uint32_t n, const uint8_t *row, uint32_t n_cols,
                          uint32_t from, uint32_t to, bool end, struct kernel_ahead ahead,
                          const void *const *x, __m512 *sums) {
    const struct parts full = parts_full(dtype);
    const struct parts last = parts_of(dtype, end ? (n_cols - 1) % 256 / 32 + 1 : 8);
    const uint32_t group_bytes = 8 * full.block_bytes;
    const uint8_t *p = row + from * (uint64_t)group_bytes;
    const struct lanes8x32 *a[GEMV_TOGETHER];
    _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
        a[t] = (const struct lanes8x32 *)x[t] + from;
    }
    for (uint32_t i = from; i < to; i++, p += group_bytes) {
        kernel_prefetch(p, ahead, group_bytes);
        const struct codes c = read_group(dtype, p, i + 1 == to ? &last : &full);
        const struct chunks q = chunks_of(dtype, &c);
        _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
            const struct lanes8x32 *at = a[t]++;
            sums[t] = add_scaled(dtype, dots_of(dtype, &q, at), c.scales, at, sums[t]);
        }
    }
}

/* One function a type: the compiler makes each from the code above. */
static void gemv_q4_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q4_0, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q4_1(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q4_1, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q5_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q5_0, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q5_1(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q5_1, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_iq4_nl(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                        const void *x, float *y) {
    gemv(OT_IQ4_NL, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_mxfp4(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                       const void *x, float *y) {
    gemv(OT_MXFP4, w, row_bytes, n_rows, n_cols, x, y);
}

#define FEW(name, dtype, together, block_bytes)                                                    \
    GEMV_FEW(name, few_part, dtype, 1, together, 256, 8 * (block_bytes), sizeof(struct lanes8x32))
FEW(few_q4_0, OT_Q4_0, 8, 18)
FEW(few_q4_1, OT_Q4_1, 8, 20)
FEW(few_q5_0, OT_Q5_0, 4, 22)
FEW(few_q5_1, OT_Q5_1, 4, 24)
FEW(few_iq4_nl, OT_IQ4_NL, 4, 18)
FEW(few_mxfp4, OT_MXFP4, 4, 17)

static void set(struct kernels *k, uint32_t dtype, kernel_gemv_fn *fn, kernel_few_fn *few_fn,
                uint8_t layout) {
    k->type[dtype].gemv = fn;
    k->type[dtype].few = few_fn;
    k->type[dtype].layout_gemv = layout;
}

void gemv_nibbles_fill_avx512(struct kernels *k) {
    set(k, OT_Q4_0, gemv_q4_0, few_q4_0, LAYOUT_LANES8X32_Q4_0);
    set(k, OT_Q4_1, gemv_q4_1, few_q4_1, LAYOUT_LANES8X32_Q4_1);
    set(k, OT_Q5_0, gemv_q5_0, few_q5_0, LAYOUT_LANES8X32_Q5_0);
    set(k, OT_Q5_1, gemv_q5_1, few_q5_1, LAYOUT_LANES8X32_Q5_1);
    set(k, OT_IQ4_NL, gemv_iq4_nl, few_iq4_nl, LAYOUT_LANES8X32_IQ4_NL);
    set(k, OT_MXFP4, gemv_mxfp4, few_mxfp4, LAYOUT_LANES8X32_MXFP4);
}
