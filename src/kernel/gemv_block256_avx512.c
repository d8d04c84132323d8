/* gemv_block256_avx512.c - matrix times vector for types with blocks of 256 values.
 *
 * A block has 16 groups of 16 values, and a vector 16 lanes: each lane computes one group (struct
 * lanes256). Four vectors of codes, one for each chunk of 4 values, are dot-multiplied into one sum
 * a lane, which is then scaled once, by the group's weight scale and activation scale.
 *
 * A chunk's codes come from one 32-bit word of the packed codes. They are left where they lie in
 * their bytes if possible (struct lanes256: `raise`). High bits that lie apart are put beside the
 * low ones in whole registers, by one instruction that moves bits inside bytes (GFNI). Shuffles
 * inside 16-byte lanes are preferred: more of the execution units can do them.
 *
 * Several blocks are computed in step: their instructions do not wait for each other. */
#include <string.h>

#include "kernel/blocks.h"
#include "kernel/fill.h"
#include "kernel/gemv_avx512.h"

GEMV_INLINE __m512i load(const void *p) {
    return _mm512_loadu_si512(p);
}
GEMV_INLINE __m512i load256(const void *p) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)p));
}

/* One constant for each lane. */
#define LANES(f)                                                                                   \
    {                                                                                              \
        f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13),    \
            f(14), f(15)                                                                           \
    }
#define BYTES(mask) (int32_t)((mask)*0x01010101u)
/* The word that a lane is of its 16 bytes. */
#define WORD(l) ((l) % 4)

/* (a & mask) | b */
GEMV_INLINE __m512i and_or(__m512i a, __m512i mask, __m512i b) {
    return _mm512_ternarylogic_epi32(a, mask, b, 0xea);
}

/* Of each 16-byte lane, in its word i: word i ^ c of a for i = 0, 1, of b for i = 2, 3. Over all c
 * a word of the result has met each word of its operand, and c = 0 costs no shuffle. c is a
 * constant where this is inlined, so one case is left; clang wants to see that it is one. */
GEMV_INLINE __m512i words_aabb(__m512i a, __m512i b, int c) {
    __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    switch (c) {
    case 0: return _mm512_mask_blend_epi32(_cvtu32_mask16(0xcccc), a, b);
    case 1: return _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xb1));
    case 2: return _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x4e));
    default: return _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x1b));
    }
}

/* ---- codes ---- */

/* Two registers, from which the codes are taken chunk by chunk. */
struct packed {
    __m512i low0, low1;
};

/* Q2_K: 2 bits, left where they are: raised by 1, 4, 16, 64. */
#define MASK_Q2(l) BYTES(3u << WORD(l) * 2)
static const int32_t mask_q2[16] = LANES(MASK_Q2);

GEMV_INLINE __m512i codes_q2_k(const struct packed *p, int c) {
    __m512i q = c == 0 ? p->low0 : words_aabb(p->low0, p->low0, c);
    return _mm512_and_si512(q, load(mask_q2));
}

/* Eight bytes times an 8x8 matrix of bits each: bit i of a result is bit FROM_i of its byte (NONE:
 * 0). Bit j of the matrix' byte 7 - i stands for bit j of the operand. */
#define NONE 8
#define ROW(i, from) ((uint64_t)((1u << (from)) & 0xff) << (7 - (i)) * 8)
#define BITS(b0, b1, b2, b3, b4, b5, b6, b7)                                                       \
    (int64_t)(ROW(0, b0) | ROW(1, b1) | ROW(2, b2) | ROW(3, b3) | ROW(4, b4) | ROW(5, b5) |        \
              ROW(6, b6) | ROW(7, b7))
/* One matrix for bytes 0 to 31, another for bytes 32 to 63. */
#define HALVES(low, high)                                                                          \
    { low, low, low, low, high, high, high, high }

GEMV_INLINE __m512i bits_of(__m512i bytes, const int64_t matrices[8]) {
    return _mm512_gf2p8affine_epi64_epi8(bytes, load(matrices), 0);
}

/* Q3_K: sub-blocks 0 and 2 (mod 4) with their third bits in one register, at bits 0 and 4; 1 and 3
 * in another one, the same. The third bit is bit k of its byte for sub-block k. */
#define MASK_Q3(l) BYTES(7u << WORD(l) % 2 * 4)
static const int32_t mask_q3[16] = LANES(MASK_Q3);
#define THIRD(k) BITS(NONE, NONE, k, NONE, NONE, NONE, (k) + 2, NONE)
static const int64_t third_even[8] = HALVES(THIRD(0), THIRD(4));
static const int64_t third_odd[8] = HALVES(THIRD(1), THIRD(5));

GEMV_INLINE struct packed packed_q3_k(const struct block_q3_k *b) {
    const __m512i two = _mm512_set1_epi8(0x33);
    __m512i low = gemv_keep(load(b->qs)), high = gemv_keep(load256(b->hmask));
    return (struct packed){.low0 = and_or(low, two, bits_of(high, third_even)),
                           .low1 =
                               and_or(_mm512_srli_epi16(low, 2), two, bits_of(high, third_odd))};
}

GEMV_INLINE __m512i codes_q3_k(const struct packed *p, int c) {
    return _mm512_and_si512(words_aabb(p->low0, p->low1, c), load(mask_q3));
}

/* Q4_K: nibbles, left where they are: raised by 1, 16. */
#define MASK_Q4(l) BYTES(15u << WORD(l) % 2 * 4)
static const int32_t mask_q4[16] = LANES(MASK_Q4);

GEMV_INLINE __m512i codes_q4_k(const struct packed *p, int c) {
    return _mm512_and_si512(words_aabb(p->low0, p->low1, c), load(mask_q4));
}

/* Q5_K, Q6_K: whole codes are put together in four registers: 16-byte lane i of register r has the
 * 16 values that lane 4 i + r computes. Then they are transposed. */
struct whole {
    __m512i r[4];
};

GEMV_INLINE void transpose(const struct whole *q, __m512i chunks[4]) {
    __m512i a = _mm512_unpacklo_epi32(q->r[0], q->r[1]);
    __m512i b = _mm512_unpackhi_epi32(q->r[0], q->r[1]);
    __m512i c = _mm512_unpacklo_epi32(q->r[2], q->r[3]);
    __m512i d = _mm512_unpackhi_epi32(q->r[2], q->r[3]);
    chunks[0] = _mm512_unpacklo_epi64(a, c);
    chunks[1] = _mm512_unpackhi_epi64(a, c);
    chunks[2] = _mm512_unpacklo_epi64(b, d);
    chunks[3] = _mm512_unpackhi_epi64(b, d);
}

/* Nibbles of two registers, high bits of four. */
GEMV_INLINE struct whole whole_of(__m512i q0, __m512i q1, const __m512i high[4]) {
    const __m512i nibble = _mm512_set1_epi8(15);
    return (struct whole){
        {and_or(q0, nibble, high[0]), and_or(_mm512_srli_epi16(q0, 4), nibble, high[1]),
         and_or(q1, nibble, high[2]), and_or(_mm512_srli_epi16(q1, 4), nibble, high[3])}};
}

/* Q5_K: the fifth bit is bit k of its byte for sub-block k. */
#define FIFTH(k) BITS(NONE, NONE, NONE, NONE, k, NONE, NONE, NONE)
static const int64_t fifth[4][8] = {HALVES(FIFTH(0), FIFTH(2)), HALVES(FIFTH(1), FIFTH(3)),
                                    HALVES(FIFTH(4), FIFTH(6)), HALVES(FIFTH(5), FIFTH(7))};

GEMV_INLINE struct whole whole_q5_k(const struct block_q5_k *b) {
    __m512i bits = gemv_keep(load256(b->qh));
    __m512i high[4] = {bits_of(bits, fifth[0]), bits_of(bits, fifth[1]), bits_of(bits, fifth[2]),
                       bits_of(bits, fifth[3])};
    return whole_of(gemv_keep(load(b->qs)), gemv_keep(load(b->qs + 64)), high);
}

/* Q6_K: two high bits, of four sub-blocks in a byte. */
#define HIGH2(k) BITS(NONE, NONE, NONE, NONE, 2 * (k), 2 * (k) + 1, NONE, NONE)
static const int64_t high2[2][8] = {HALVES(HIGH2(0), HIGH2(1)), HALVES(HIGH2(2), HIGH2(3))};

GEMV_INLINE struct whole whole_q6_k(const struct block_q6_k *b) {
    __m512i h0 = gemv_keep(load256(b->qh)), h1 = gemv_keep(load256(b->qh + 32));
    __m512i high[4] = {bits_of(h0, high2[0]), bits_of(h0, high2[1]), bits_of(h1, high2[0]),
                       bits_of(h1, high2[1])};
    return whole_of(gemv_keep(load(b->ql)), gemv_keep(load(b->ql + 64)), high);
}

/* IQ4_XS: values raised by the zero point, 128; the table four times, because a look-up by 6 bits
 * then needs no mask. */
#define RAISED_IQ4 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241
static const uint8_t raised_iq4[64] = {RAISED_IQ4, RAISED_IQ4, RAISED_IQ4, RAISED_IQ4};
#define SHIFT_XS(l) (WORD(l) % 2 * 4)
static const int32_t shift_xs[16] = LANES(SHIFT_XS);

GEMV_INLINE __m512i codes_iq4_xs(const struct packed *p, int c) {
    __m512i q = _mm512_srlv_epi32(words_aabb(p->low0, p->low1, c), load(shift_xs));
    return _mm512_permutexvar_epi8(q, load(raised_iq4));
}

/* ---- scales: of each lane's group as an integer. What is packed in bits is taken apart in general
 * registers: the vector units have enough to do. ---- */

GEMV_INLINE uint64_t read_32(const void *block, uint32_t at) {
    uint32_t v;
    memcpy(&v, (const uint8_t *)block + at, sizeof v);
    return v;
}

/* Bytes that stay in a general register until here. */
GEMV_INLINE __m128i to_vector(uint64_t low, uint64_t high) {
    __asm__ volatile("" : "+r"(low), "+r"(high));
    return _mm_set_epi64x((int64_t)high, (int64_t)low);
}
GEMV_INLINE __m128i to_vector_8(uint64_t bytes) {
    __asm__ volatile("" : "+r"(bytes));
    return _mm_cvtsi64_si128((int64_t)bytes);
}

GEMV_INLINE __m128i bytes16(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

/* Bytes in the order of a type's lanes. */
#define TO_LANES(bytes, place)                                                                     \
    _mm_shuffle_epi8(bytes,                                                                        \
                     _mm_setr_epi8(place(0), place(1), place(2), place(3), place(4), place(5),     \
                                   place(6), place(7), place(8), place(9), place(10), place(11),   \
                                   place(12), place(13), place(14), place(15)))

enum { QUAD = 4 };

/* 16 bytes of each of n <= QUAD blocks; n is a constant where this is inlined. */
GEMV_INLINE __m512i quad_bytes(uint32_t n, const void *first, uint32_t block_bytes) {
    const uint8_t *p = first;
    __m256i low = _mm256_zextsi128_si256(bytes16(p));
    low = n > 1 ? _mm256_inserti128_si256(low, bytes16(p + block_bytes), 1) : low;
    __m512i v = _mm512_zextsi256_si512(low);
    if (n > 2) {
        p += (uint64_t)2 * block_bytes;
        __m256i high = _mm256_zextsi128_si256(bytes16(p));
        high = n > 3 ? _mm256_inserti128_si256(high, bytes16(p + block_bytes), 1) : high;
        v = _mm512_inserti64x4(v, high, 1);
    }
    return gemv_keep(v);
}

/* What is written to memory, because loads spread and broadcast at no cost. */
#define IN_MEMORY(array) __asm__ volatile("" : "+m"(array))

/* Q3_K: 16 numbers of 6 bits, of which 32 is taken. The low nibbles of the first 8 are those of 8
 * bytes, of the others their high nibbles; 4 bytes more have 4 high pairs each. They are made four
 * times too large: with its highest bit flipped a number is negative where it shall be. Each block
 * has a 16-byte lane, its numbers in the order of the type's lanes. PAIR_Q3: where the byte starts
 * whose bits 6 and 7 are the pair. */
#define NIBBLE_Q3(l) (LANES256_Q3_K(l) % 8)
#define PAIR_Q3(l) (uint8_t)((8 * (LANES256_Q3_K(l) % 4) + 2 * (LANES256_Q3_K(l) / 4) + 58) % 64)

static const uint8_t nibbles_q3[16] = LANES(NIBBLE_Q3), pairs_q3[16] = LANES(PAIR_Q3);

GEMV_INLINE __m512i quad_scales_q3(__m512i bytes) {
    const __m512i nibbles = _mm512_broadcast_i32x4(bytes16(nibbles_q3));
    const __m512i pairs = _mm512_broadcast_i32x4(bytes16(pairs_q3));
    const __m512i places = _mm512_broadcast_i32x4(_mm_set_epi64x(
        BITS(NONE, NONE, 4, 5, 6, 7, NONE, NONE), BITS(NONE, NONE, 0, 1, 2, 3, NONE, NONE)));
    __m512i low = _mm512_shuffle_epi8(bytes, nibbles);
    low = _mm512_gf2p8affine_epi64_epi8(low, places, 0x80);
    __m512i high = _mm512_multishift_epi64_epi8(pairs, _mm512_shuffle_epi32(bytes, 0xaa));
    /* (high & 0xc0) ^ low */
    return _mm512_ternarylogic_epi32(high, _mm512_set1_epi8((char)0xc0), low, 0x6a);
}

/* The scales of scales of four blocks: f16 in word 6 of each 16-byte lane. */
GEMV_INLINE __m128 quad_d_q3(__m512i bytes) {
    const __m512i words = _mm512_zextsi128_si512(_mm_setr_epi16(6, 14, 22, 30, 6, 6, 6, 6));
    return _mm_cvtph_ps(_mm512_castsi512_si128(_mm512_permutexvar_epi16(words, bytes)));
}

/* 8 numbers of 6 bits, each for two groups: a nibble and two bits. The rest as in Q3_K. */
#define SUB_XS(l) (LANES256_IQ4_XS(l) / 2)
GEMV_INLINE __m512i scales_iq4_xs(const struct block_iq4_xs *b) {
    uint64_t low = _pdep_u64(read_32(b, 4), 0x3c3c3c3c3c3c3c3c);
    uint64_t high = _pdep_u64(b->scales_h, 0xc0c0c0c0c0c0c0c0);
    __m128i four_times = to_vector_8((low | high) ^ 0x8080808080808080);
    return _mm512_cvtepi8_epi32(TO_LANES(four_times, SUB_XS));
}

/* Q4_K, Q5_K: 8 bytes of scales or minima, of 6 bits: four whole ones, with two bits of the other
 * four on top, whose low nibbles are elsewhere. */
GEMV_INLINE uint64_t bytes_k4(uint64_t first, uint64_t nibbles) {
    return (first & 0x3f3f3f3f) | (nibbles & 0x0f0f0f0f) << 32 | (first & 0xc0c0c0c0) << 30;
}
#define SUB_K4(l) (LANES256_Q4_K(l) / 2)
GEMV_INLINE __m512i scales_k4(const void *block) {
    __m128i six = to_vector_8(bytes_k4(read_32(block, 4), read_32(block, 12)));
    return _mm512_cvtepu8_epi32(TO_LANES(six, SUB_K4));
}
GEMV_INLINE __m256 minima_k4(const void *block) {
    __m128i six = to_vector_8(bytes_k4(read_32(block, 8), read_32(block, 12) >> 4));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(six));
}

/* ---- a block; dtype is a constant where these are inlined ---- */

GEMV_INLINE struct packed unpack(uint32_t dtype, const void *block) {
    struct packed p = {0};
    switch (dtype) {
    case OT_Q2_K: p.low0 = load(((const struct block_q2_k *)block)->qs); break;
    case OT_Q3_K: p = packed_q3_k(block); break;
    case OT_Q4_K:
        p.low0 = load(((const struct block_q4_k *)block)->qs);
        p.low1 = load(((const struct block_q4_k *)block)->qs + 64);
        break;
    default:
        p.low0 = load(((const struct block_iq4_xs *)block)->qs);
        p.low1 = load(((const struct block_iq4_xs *)block)->qs + 64);
    }
    p.low0 = gemv_keep(p.low0);
    p.low1 = gemv_keep(p.low1);
    return p;
}

GEMV_INLINE __m512i codes(uint32_t dtype, const struct packed *p, int chunk) {
    switch (dtype) {
    case OT_Q2_K: return codes_q2_k(p, chunk);
    case OT_Q3_K: return codes_q3_k(p, chunk);
    case OT_Q4_K: return codes_q4_k(p, chunk);
    default: return codes_iq4_xs(p, chunk);
    }
}

/* The codes as they are multiplied with the four vectors of activations. */
struct chunks {
    __m512i q[4];
};

GEMV_INLINE struct chunks chunks_of(uint32_t dtype, const void *b) {
    struct chunks c;
    if (dtype == OT_Q5_K || dtype == OT_Q6_K) {
        struct whole q = dtype == OT_Q5_K ? whole_q5_k(b) : whole_q6_k(b);
        transpose(&q, c.q);
    } else {
        struct packed p = unpack(dtype, b);
        for (int i = 0; i < 4; i++) {
            c.q[i] = codes(dtype, &p, i);
        }
    }
    return c;
}

GEMV_INLINE __m512i dots_of(uint32_t dtype, const struct chunks *c, const struct lanes256 *a) {
    const bool has_min = dtype == OT_Q2_K || dtype == OT_Q4_K || dtype == OT_Q5_K;
    __m512i dots = has_min ? _mm512_setzero_si512() : _mm512_load_si512(a->start);
    for (int i = 0; i < 4; i++) {
        dots = _mm512_dpbusd_epi32(dots, c->q[i], _mm512_load_si512(a->q[i]));
    }
    return gemv_pin(dots);
}

/* What a block's products are scaled with. */
struct scales {
    __m512i of_lanes;
    __m128 d;        /* scale, minimum: the first two numbers */
    __m256 minima_8; /* Q4_K, Q5_K: of each sub-block */
};

GEMV_INLINE __m128 two_halves(const void *halves) {
    __m128 f = _mm_cvtph_ps(_mm_loadl_epi64(halves));
    __asm__ volatile("" : "+v"(f));
    return f;
}

GEMV_INLINE struct scales scales_of(uint32_t dtype, const void *block) {
    struct scales s = {.minima_8 = _mm256_setzero_ps()};
    switch (dtype) {
    case OT_Q4_K:
    case OT_Q5_K:
        s.of_lanes = scales_k4(block);
        s.minima_8 = minima_k4(block);
        s.d = two_halves(block);
        break;
    case OT_Q6_K: {
        const struct block_q6_k *b = block;
        s.of_lanes = _mm512_cvtepi8_epi32(TO_LANES(bytes16(b->scales), LANES256_Q6_K));
        s.d = two_halves(&b->d);
        break;
    }
    default: /* IQ4_XS */ s.of_lanes = scales_iq4_xs(block); s.d = two_halves(block);
    }
    s.of_lanes = gemv_pin(s.of_lanes);
    return s;
}

/* What a row's products and minima are summed in. */
struct sums {
    __m512 dots;
    __m512 minima;   /* Q2_K */
    __m256 minima_8; /* Q4_K, Q5_K */
};

GEMV_INLINE void add_scaled(uint32_t dtype, __m512i dots, const struct scales *s,
                            const struct lanes256 *a, struct sums *sums) {
    const __m512 d = _mm512_mul_ps(_mm512_load_ps(a->d), _mm512_broadcastss_ps(s->d));
    /* dots * scales are integers below 2^27 */
    const __m512 scaled = _mm512_cvtepi32_ps(_mm512_mullo_epi32(dots, s->of_lanes));
    sums->dots = gemv_pin_ps(_mm512_fmadd_ps(scaled, d, sums->dots));
    if (dtype == OT_Q4_K || dtype == OT_Q5_K) {
        const __m256 minima = _mm256_mul_ps(s->minima_8, _mm256_load_ps(a->s_of_subs));
        const __m256 dmin = _mm256_broadcastss_ps(_mm_movehdup_ps(s->d));
        sums->minima_8 = _mm256_fmadd_ps(minima, dmin, sums->minima_8);
    }
}

/* ---- Q2_K and Q3_K: four blocks, a quad; of a row's last one, what is not there is 0 ---- */

/* Q2_K's constants that stay in their registers: the compiler would make them anew for each row. */
struct quad_constants {
    __m512i low, high; /* nibbles */
    __mmask64 lowest;  /* bytes of each lane */
};

GEMV_INLINE struct quad_constants quad_constants(void) {
    struct quad_constants k = {gemv_keep(_mm512_set1_epi8(15)),
                               gemv_keep(_mm512_set1_epi8((char)0xf0)), 0x1111111111111111};
    __asm__("" : "+k"(k.lowest));
    return k;
}

/* d and dmin of each block. */
GEMV_INLINE __m256 quad_d_q2(uint32_t n, const struct block_q2_k *b) {
    uint64_t low = read_32(&b[0], 80), high = 0;
    low |= n > 1 ? read_32(&b[1], 80) << 32 : 0;
    high |= n > 2 ? read_32(&b[2], 80) : 0;
    high |= n > 3 ? read_32(&b[3], 80) << 32 : 0;
    return _mm256_cvtph_ps(to_vector(low, high));
}

/* Byte 16 i + LANES256_Q2_K(l) of a register in lane l. */
#define BYTE_Q2_0(l) LANES256_Q2_K(l)
#define BYTE_Q2_1(l) (16 + LANES256_Q2_K(l))
#define BYTE_Q2_2(l) (32 + LANES256_Q2_K(l))
#define BYTE_Q2_3(l) (48 + LANES256_Q2_K(l))
static const int32_t scales_q2[QUAD][16] = {LANES(BYTE_Q2_0), LANES(BYTE_Q2_1), LANES(BYTE_Q2_2),
                                            LANES(BYTE_Q2_3)};
#define LANE_OF_DMIN(l) ((l) / 4 * 2 + 1)
static const int32_t lanes_of_dmin[16] = LANES(LANE_OF_DMIN);

/* The minima are bytes; the activations' sums have three (struct lanes256). */
GEMV_INLINE void add_minima(__m512i minima, __m256 d, const struct lanes256 *a, struct sums *sums) {
    __m512i sum = _mm512_setzero_si512();
    sum = _mm512_dpbusd_epi32(sum, minima, _mm512_load_si512(a[2].sums));
    sum = _mm512_slli_epi32(sum, 8);
    sum = _mm512_dpbusd_epi32(sum, minima, _mm512_load_si512(a[1].sums));
    sum = _mm512_slli_epi32(sum, 8);
    sum = _mm512_dpbusd_epi32(sum, minima, _mm512_load_si512(a[0].sums));
    __m512 dmin = _mm512_permutexvar_ps(load(lanes_of_dmin), _mm512_castps256_ps512(d));
    dmin = _mm512_mul_ps(dmin, _mm512_load_ps(a[3].sums_unit));
    sums->minima = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), dmin, sums->minima);
}

/* Products of n blocks, chunk by chunk: a chunk of each block before the next one, so that products
 * that wait for each other are not beside each other. */
GEMV_INLINE void quad_dots(uint32_t dtype, uint32_t n, const struct packed packed[QUAD],
                           const struct lanes256 *a, __m512i dots[QUAD]) {
    _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++) {
        _Pragma("GCC unroll 4") for (uint32_t i = 0; i < n; i++) {
            dots[i] = gemv_pin(_mm512_dpbusd_epi32(dots[i], codes(dtype, &packed[i], c),
                                                   _mm512_load_si512(a[i].q[c])));
        }
    }
}

GEMV_INLINE void add_scaled_block(__m512i dots, __m512i scales, float d, const struct lanes256 *a,
                                  struct sums *sums) {
    __m512 scaled = _mm512_cvtepi32_ps(_mm512_mullo_epi32(dots, scales));
    scaled = _mm512_mul_ps(scaled, _mm512_load_ps(a->d));
    sums->dots = gemv_pin_ps(_mm512_fmadd_ps(scaled, _mm512_set1_ps(d), sums->dots));
}

/* What the blocks of a quad are scaled with, as loads spread and broadcast it at no cost. */
struct quad_memory {
    int8_t scales[QUAD][16]; /* Q3_K, in the lanes' order */
    float d[2 * QUAD];       /* Q2_K: d and dmin */
} __attribute__((aligned(64)));

/* The same of Q2_K in registers. */
struct quad {
    __m512i scales, minima;
    __m256 d;
};

/* n: of the quad. */
GEMV_INLINE struct quad read_quad(uint32_t dtype, const struct quad_constants *k, uint32_t n,
                                  const void *b, struct quad_memory *m) {
    struct quad q = {0};
    if (dtype == OT_Q2_K) {
        const __m512i bytes =
            quad_bytes(n, ((const struct block_q2_k *)b)->scales, sizeof(struct block_q2_k));
        q.scales = _mm512_and_si512(bytes, k->low);
        q.minima = _mm512_and_si512(bytes, k->high);
        q.d = quad_d_q2(n, b);
        _mm256_store_ps(m->d, q.d);
    } else {
        const __m512i bytes =
            quad_bytes(n, ((const struct block_q3_k *)b)->scales, sizeof(struct block_q3_k));
        _mm512_store_si512(m->scales, quad_scales_q3(bytes));
        _mm_store_ps(m->d, quad_d_q3(bytes));
    }
    IN_MEMORY(*m);
    return q;
}

/* Of block i's lanes. */
GEMV_INLINE __m512i scales_of_block(uint32_t dtype, const struct quad_constants *k,
                                    const struct quad *q, const struct quad_memory *m, uint32_t i) {
    return dtype == OT_Q2_K
               ? _mm512_maskz_permutexvar_epi8(k->lowest, load(scales_q2[i]), q->scales)
               : _mm512_cvtepi8_epi32(bytes16(m->scales[i]));
}

GEMV_INLINE uint32_t block_bytes_of(uint32_t dtype) {
    switch (dtype) {
    case OT_Q2_K: return sizeof(struct block_q2_k);
    case OT_Q3_K: return sizeof(struct block_q3_k);
    case OT_Q4_K: return sizeof(struct block_q4_k);
    case OT_Q5_K: return sizeof(struct block_q5_k);
    case OT_Q6_K: return sizeof(struct block_q6_k);
    default: return sizeof(struct block_iq4_xs);
    }
}

/* n blocks in step; n is a constant where this is inlined. */
GEMV_INLINE void add_blocks(uint32_t dtype, uint32_t n, const uint8_t *p, const struct lanes256 *a,
                            struct sums *sums) {
    const uint32_t block_bytes = block_bytes_of(dtype);
    struct scales s[4];
    __m512i dots[4];
    _Pragma("GCC unroll 4") for (uint32_t i = 0; i < n; i++) {
        s[i] = scales_of(dtype, p + i * block_bytes);
        const struct chunks c = chunks_of(dtype, p + i * block_bytes);
        dots[i] = dots_of(dtype, &c, a + i);
    }
    _Pragma("GCC unroll 4") for (uint32_t i = 0; i < n; i++) {
        add_scaled(dtype, dots[i], &s[i], a + i, sums);
    }
}

/* step: blocks in step, a constant where this is inlined. Two are best but for IQ4_XS on cores that
 * do not look far ahead. (Four blocks of Q4_K are read in an order that Zen 4's prefetchers take
 * for another stream: half of the speed.) */
GEMV_INLINE void gemv(uint32_t dtype, uint32_t step, const uint8_t *w, uint64_t row_bytes,
                      uint32_t n_rows, uint32_t n_cols, const struct lanes256 *acts, float *y) {
    const uint32_t block_bytes = block_bytes_of(dtype);
    const struct kernel_ahead ahead = kernel_ahead();
    struct gemv_sums done;
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = w + r * row_bytes;
        const struct lanes256 *a = acts;
        struct sums sums = {.dots = _mm512_setzero_ps(), .minima_8 = _mm256_setzero_ps()};
        uint32_t left = n_cols / 256;
        for (; left >= step; left -= step, p += step * block_bytes, a += step) {
            kernel_prefetch(p, ahead, step * block_bytes);
            add_blocks(dtype, step, p, a, &sums);
        }
        for (; left > 0; left--, p += block_bytes, a++) {
            kernel_prefetch(p, ahead, block_bytes);
            add_blocks(dtype, 1, p, a, &sums);
        }
        __m512 minima = _mm512_zextps256_ps512(sums.minima_8);
        gemv_row_done(&done, r, n_rows, _mm512_sub_ps(sums.dots, minima), y);
    }
}

/* n: of the quad; dtype and n are constants where this is inlined. */
GEMV_INLINE void add_quad(uint32_t dtype, const struct quad_constants *k, uint32_t n,
                          const uint8_t *p, const struct lanes256 *a, struct sums *sums) {
    const bool has_min = dtype == OT_Q2_K;
    struct quad_memory m;
    __m512i dots[QUAD];
    struct packed packed[QUAD];
    const struct quad q = read_quad(dtype, k, n, p, &m);
    if (has_min) {
        add_minima(q.minima, q.d, a, sums);
    }
    _Pragma("GCC unroll 4") for (uint32_t i = 0; i < n; i++, p += block_bytes_of(dtype)) {
        packed[i] = unpack(dtype, p);
        packed[i].low0 = gemv_pin(packed[i].low0);
        if (!has_min) {
            packed[i].low1 = gemv_pin(packed[i].low1);
        }
        dots[i] = has_min ? _mm512_setzero_si512() : _mm512_load_si512(a[i].start);
    }
    quad_dots(dtype, n, packed, a, dots);
    _Pragma("GCC unroll 4") for (uint32_t i = 0; i < n; i++) {
        add_scaled_block(dots[i], scales_of_block(dtype, k, &q, &m, i), m.d[has_min ? 2 * i : i],
                         &a[i], sums);
    }
}

/* n_last: blocks of a row's last quad; a constant where this is inlined. */
GEMV_INLINE void rows_of_quads(uint32_t dtype, uint32_t n_last, const uint8_t *w,
                               uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                               const struct lanes256 *acts, float *y) {
    const uint32_t block_bytes = block_bytes_of(dtype);
    const struct kernel_ahead ahead = kernel_ahead();
    const uint32_t n_quads = (n_cols / 256 - n_last) / QUAD;
    const struct quad_constants k = quad_constants();
    struct gemv_sums done;
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = w + r * row_bytes;
        const struct lanes256 *a = acts;
        struct sums sums = {.dots = _mm512_setzero_ps(), .minima = _mm512_setzero_ps()};
        for (uint32_t i = 0; i < n_quads; i++, p += QUAD * block_bytes, a += QUAD) {
            kernel_prefetch(p, ahead, QUAD * block_bytes);
            add_quad(dtype, &k, QUAD, p, a, &sums);
        }
        if (n_last != 0) {
            kernel_prefetch(p, ahead, n_last * block_bytes);
            add_quad(dtype, &k, n_last, p, a, &sums);
        }
        gemv_row_done(&done, r, n_rows, _mm512_sub_ps(sums.dots, sums.minima), y);
    }
}

GEMV_INLINE void gemv_quads(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                            uint32_t n_cols, const struct lanes256 *acts, float *y) {
    switch (n_cols / 256 % QUAD) {
    case 0: rows_of_quads(dtype, 0, w, row_bytes, n_rows, n_cols, acts, y); break;
    case 1: rows_of_quads(dtype, 1, w, row_bytes, n_rows, n_cols, acts, y); break;
    case 2: rows_of_quads(dtype, 2, w, row_bytes, n_rows, n_cols, acts, y); break;
    default: rows_of_quads(dtype, 3, w, row_bytes, n_rows, n_cols, acts, y);
    }
}

/* ---- several tokens: sums and minima in two vectors each ---- */

GEMV_INLINE void few_part(uint32_t dtype, uint32_t n, const uint8_t *row, uint32_t n_cols,
                          uint32_t from, uint32_t to, bool end, struct kernel_ahead ahead,
                          const void *const *x, __m512 *kept) {
    (void)n_cols;
    const bool has_min = dtype == OT_Q4_K || dtype == OT_Q5_K;
    const uint32_t block_bytes = block_bytes_of(dtype), stride = has_min ? 2 : 1;
    const uint8_t *p = row + from * (uint64_t)block_bytes;
    const struct lanes256 *a[GEMV_TOGETHER];
    struct sums sums[GEMV_TOGETHER];
    _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
        a[t] = (const struct lanes256 *)x[t] + from;
        sums[t].dots = kept[t * stride];
        sums[t].minima_8 =
            has_min ? _mm512_castps512_ps256(kept[t * stride + 1]) : _mm256_setzero_ps();
    }
    for (uint32_t i = from; i < to; i++, p += block_bytes) {
        kernel_prefetch(p, ahead, block_bytes);
        const struct scales s = scales_of(dtype, p);
        const struct chunks c = chunks_of(dtype, p);
        _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
            const struct lanes256 *at = a[t]++;
            add_scaled(dtype, dots_of(dtype, &c, at), &s, at, &sums[t]);
        }
    }
    _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
        const __m512 minima = _mm512_zextps256_ps512(sums[t].minima_8);
        kept[t * stride] = end ? _mm512_sub_ps(sums[t].dots, minima) : sums[t].dots;
        if (has_min) {
            kept[t * stride + 1] = minima;
        }
    }
}

/* Q2_K, Q3_K: by quads, block after block. */
GEMV_INLINE void few_quads(uint32_t dtype, uint32_t n, const uint8_t *row, uint32_t n_cols,
                           uint32_t from, uint32_t to, bool end, struct kernel_ahead ahead,
                           const void *const *x, __m512 *kept) {
    const bool has_min = dtype == OT_Q2_K;
    const uint32_t block_bytes = block_bytes_of(dtype), stride = has_min ? 2 : 1;
    const uint8_t *p = row + from * (uint64_t)QUAD * block_bytes;
    const struct quad_constants k = quad_constants();
    const struct lanes256 *a[GEMV_TOGETHER];
    struct sums sums[GEMV_TOGETHER];
    _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
        a[t] = (const struct lanes256 *)x[t] + from * QUAD;
        sums[t].dots = kept[t * stride];
        sums[t].minima = has_min ? kept[t * stride + 1] : _mm512_setzero_ps();
    }
    for (uint32_t i = from; i < to; i++) {
        const uint32_t left = n_cols / 256 - i * QUAD, n_blocks = left < QUAD ? left : QUAD;
        struct quad_memory m;
        kernel_prefetch(p, ahead, n_blocks * block_bytes);
        const struct quad q = read_quad(dtype, &k, n_blocks, p, &m);
        _Pragma("GCC unroll 8") for (uint32_t t = 0; has_min && t < n; t++) {
            add_minima(q.minima, q.d, a[t], &sums[t]);
        }
        for (uint32_t b = 0; b < n_blocks; b++, p += block_bytes) {
            const struct chunks c = chunks_of(dtype, p);
            const __m512i of_lanes = scales_of_block(dtype, &k, &q, &m, b);
            _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
                const struct lanes256 *at = a[t]++;
                add_scaled_block(dots_of(dtype, &c, at), of_lanes, m.d[has_min ? 2 * b : b], at,
                                 &sums[t]);
            }
        }
    }
    _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
        kept[t * stride] = end ? _mm512_sub_ps(sums[t].dots, sums[t].minima) : sums[t].dots;
        if (has_min) {
            kept[t * stride + 1] = sums[t].minima;
        }
    }
}

/* One function a type: the compiler makes each from the code above. */
static void gemv_q2_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_quads(OT_Q2_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q3_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv_quads(OT_Q3_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q4_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q4_K, 2, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q5_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q5_K, 2, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q6_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q6_K, 2, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_iq4_xs(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                        const void *x, float *y) {
    if (kernel_tuning.two_in_step) {
        gemv(OT_IQ4_XS, 2, w, row_bytes, n_rows, n_cols, x, y);
    } else {
        gemv(OT_IQ4_XS, 4, w, row_bytes, n_rows, n_cols, x, y);
    }
}
#define FEW(name, dtype, n_sums, block)                                                            \
    GEMV_FEW(name, few_part, dtype, n_sums, 8, 256, sizeof(struct block), sizeof(struct lanes256))
#define FEW_QUADS(name, dtype, n_sums, together, block)                                            \
    GEMV_FEW(name, few_quads, dtype, n_sums, together, QUAD * 256, QUAD * sizeof(struct block),    \
             QUAD * sizeof(struct lanes256))
FEW_QUADS(few_q2_k, OT_Q2_K, 2, 4, block_q2_k)
FEW_QUADS(few_q3_k, OT_Q3_K, 1, 8, block_q3_k)
FEW(few_q4_k, OT_Q4_K, 2, block_q4_k)
FEW(few_q5_k, OT_Q5_K, 2, block_q5_k)
FEW(few_q6_k, OT_Q6_K, 1, block_q6_k)
FEW(few_iq4_xs, OT_IQ4_XS, 1, block_iq4_xs)

static void set(struct kernels *k, uint32_t dtype, kernel_gemv_fn *fn, kernel_few_fn *few_fn,
                uint8_t layout) {
    k->type[dtype].gemv = fn;
    k->type[dtype].few = few_fn;
    k->type[dtype].layout_gemv = layout;
}

void gemv_block256_fill_avx512(struct kernels *k) {
    set(k, OT_Q2_K, gemv_q2_k, few_q2_k, LAYOUT_LANES256_Q2_K);
    set(k, OT_Q3_K, gemv_q3_k, few_q3_k, LAYOUT_LANES256_Q3_K);
    set(k, OT_Q4_K, gemv_q4_k, few_q4_k, LAYOUT_LANES256_Q4_K);
    set(k, OT_Q5_K, gemv_q5_k, few_q5_k, LAYOUT_LANES256_Q5_K);
    set(k, OT_Q6_K, gemv_q6_k, few_q6_k, LAYOUT_LANES256_Q6_K);
    set(k, OT_IQ4_XS, gemv_iq4_xs, few_iq4_xs, LAYOUT_LANES256_IQ4_XS);
}
