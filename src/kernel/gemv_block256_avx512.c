/* gemv_block256_avx512.c - matrix times vector for types with blocks of 256 values.
 *
 * A block has 16 groups of 16 values, and a vector 16 lanes: each lane computes one group (struct
 * lanes256). Four vectors of codes, one for each chunk of 4 values, are dot-multiplied into one sum
 * a lane, which is then scaled once, by the group's weight scale and activation scale.
 *
 * A chunk's codes come from one 32-bit word of the packed codes. They are left where they lie in
 * their bytes if possible (struct lanes256: `raise`); shifts that several chunks need are made
 * once. Shuffles inside 16-byte lanes are preferred: more of the execution units can do them. */
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
GEMV_INLINE __m512 half(uint16_t h) {
    return _mm512_set1_ps(_cvtsh_ss(h));
}

/* One constant for each lane. */
#define LANES(f)                                                                                   \
    {                                                                                              \
        f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13),    \
            f(14), f(15)                                                                           \
    }
#define BYTES(mask) (int32_t)((mask)*0x01010101u)
/* Places of a lane: the 16-byte lane, and the word in it. */
#define LANE16(l) ((l) / 4)
#define WORD(l) ((l) % 4)

/* (a & mask) | b */
GEMV_INLINE __m512i and_or(__m512i a, __m512i mask, __m512i b) {
    return _mm512_ternarylogic_epi32(a, mask, b, 0xea);
}

/* Word c of each 16-byte lane of a, twice, and of b, twice. c is a constant where this is inlined,
 * so one case is left; clang wants to see that it is one. */
GEMV_INLINE __m512i words_aabb(__m512i a, __m512i b, int c) {
    __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    switch (c) {
    case 0: return _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x00));
    case 1: return _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x55));
    case 2: return _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xaa));
    default: return _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xff));
    }
}

/* ---- codes: what is loaded and shifted once a block, then chunk by chunk ---- */

struct packed {
    __m512i low0, low1;   /* the codes, or their low bits */
    __m512i high0, high1; /* their high bits */
};

/* Q2_K: 2 bits, left where they are: raised by 1, 4, 16, 64. */
#define MASK_Q2(l) BYTES(3u << WORD(l) * 2)
static const int32_t mask_q2[16] = LANES(MASK_Q2);

GEMV_INLINE __m512i codes_q2_k(const struct packed *p, int c) {
    __m512i q = words_aabb(p->low0, p->low0, c);
    return _mm512_and_si512(q, load(mask_q2));
}

/* Q3_K: the low 2 bits of sub-blocks 0 and 1 (mod 4) stay, those of 2 and 3 are taken two bits
 * lower: at bit 0, 2, 2, 4. The third bit comes on top. It is bit k of its byte for sub-block k;
 * the four shifts that this takes (2 and 3 to the left for sub-blocks 0 to 3, 2 and 1 to the right
 * for 4 to 7) are made once a block. */
#define K_Q3(l) (LANES256_Q3_K(l) / 2 % 4)
#define RAISE_Q3(l) ((K_Q3(l) + 1) / 2 * 2)
#define WORD_Q3(l) (LANE16(l) * 4 + K_Q3(l) / 2 * 16)
#define MASK_Q3(l) BYTES(3u << RAISE_Q3(l))
#define MASK_Q3_HIGH(l) BYTES(4u << RAISE_Q3(l))
#define ROTATE_Q3_EVEN(l) (LANE16(l) < 2 ? 2 : 32 - 2)
#define ROTATE_Q3_ODD(l) (LANE16(l) < 2 ? 3 : 32 - 1)
static const int32_t word_q3[16] = LANES(WORD_Q3);
static const int32_t mask_q3[16] = LANES(MASK_Q3), mask_q3_high[16] = LANES(MASK_Q3_HIGH);
static const int32_t rotate_q3_even[16] = LANES(ROTATE_Q3_EVEN);
static const int32_t rotate_q3_odd[16] = LANES(ROTATE_Q3_ODD);

GEMV_INLINE struct packed packed_q3_k(const struct block_q3_k *b) {
    __m512i low = load(b->qs), high = load256(b->hmask);
    return (struct packed){low, _mm512_srli_epi32(low, 2),
                           _mm512_rolv_epi32(high, load(rotate_q3_even)),
                           _mm512_rolv_epi32(high, load(rotate_q3_odd))};
}

GEMV_INLINE __m512i codes_q3_k(const struct packed *p, int c) {
    __m512i word = _mm512_add_epi32(load(word_q3), _mm512_set1_epi32(c));
    __m512i low = _mm512_permutex2var_epi32(p->low0, word, p->low1);
    low = _mm512_and_si512(low, load(mask_q3));
    return and_or(words_aabb(p->high0, p->high1, c), load(mask_q3_high), low);
}

/* Q4_K: nibbles, left where they are: raised by 1, 16. */
#define MASK_Q4(l) BYTES(15u << WORD(l) % 2 * 4)
static const int32_t mask_q4[16] = LANES(MASK_Q4);

GEMV_INLINE __m512i codes_q4_k(const struct packed *p, int c) {
    return _mm512_and_si512(words_aabb(p->low0, p->low1, c), load(mask_q4));
}

/* Q5_K: nibbles at bit 0 and 1, the fifth bit on top. It is bit k of its byte for sub-block k; the
 * four shifts (4 and 2 to the left, 0 and 2 to the right) are made once a block. */
#define SHIFT_Q5(l) (WORD(l) % 2 * 3)
#define MASK_Q5(l) BYTES(15u << WORD(l) % 2)
#define MASK_Q5_HIGH(l) BYTES(16u << WORD(l) % 2)
#define LEFT_Q5(l) (LANE16(l) < 2 ? 4 : 2)
#define RIGHT_Q5(l) (LANE16(l) < 2 ? 0 : 2)
static const int32_t shift_q5[16] = LANES(SHIFT_Q5), mask_q5[16] = LANES(MASK_Q5);
static const int32_t mask_q5_high[16] = LANES(MASK_Q5_HIGH);
static const int32_t left_q5[16] = LANES(LEFT_Q5), right_q5[16] = LANES(RIGHT_Q5);

GEMV_INLINE struct packed packed_q5_k(const struct block_q5_k *b) {
    __m512i high = load256(b->qh);
    return (struct packed){load(b->qs), load(b->qs + 64), _mm512_sllv_epi32(high, load(left_q5)),
                           _mm512_srlv_epi32(high, load(right_q5))};
}

GEMV_INLINE __m512i codes_q5_k(const struct packed *p, int c) {
    __m512i low = _mm512_srlv_epi32(words_aabb(p->low0, p->low1, c), load(shift_q5));
    low = _mm512_and_si512(low, load(mask_q5));
    return and_or(words_aabb(p->high0, p->high1, c), load(mask_q5_high), low);
}

/* Q6_K: nibbles at bit 0, 2, 0, 2 of sub-blocks 0 to 3 (mod 4), which the two high bits, of four in
 * a byte, reach by a shift of 4 to the left for 0 and 1, by none for 2 and 3. */
#define K_Q6(l) (LANES256_Q6_K(l) / 2 % 4)
#define ROTATE_Q6(l) ((K_Q6(l) % 2 * 2 - K_Q6(l) / 2 * 4) & 31)
#define WORD_Q6_HIGH(l) (LANES256_Q6_K(l) / 8 * 8 + LANES256_Q6_K(l) % 2 * 4 + K_Q6(l) / 2 * 16)
#define MASK_Q6(l) BYTES(15u << K_Q6(l) % 2 * 2)
#define MASK_Q6_HIGH(l) BYTES(48u << K_Q6(l) % 2 * 2)
static const int32_t rotate_q6[16] = LANES(ROTATE_Q6), word_q6_high[16] = LANES(WORD_Q6_HIGH);
static const int32_t mask_q6[16] = LANES(MASK_Q6), mask_q6_high[16] = LANES(MASK_Q6_HIGH);

GEMV_INLINE struct packed packed_q6_k(const struct block_q6_k *b) {
    __m512i high = load(b->qh);
    return (struct packed){load(b->ql), load(b->ql + 64), _mm512_slli_epi32(high, 4), high};
}

GEMV_INLINE __m512i codes_q6_k(const struct packed *p, int c) {
    __m512i low = _mm512_rolv_epi32(words_aabb(p->low0, p->low1, c), load(rotate_q6));
    low = _mm512_and_si512(low, load(mask_q6));
    __m512i word = _mm512_add_epi32(load(word_q6_high), _mm512_set1_epi32(c));
    __m512i high = _mm512_permutex2var_epi32(p->high0, word, p->high1);
    return and_or(high, load(mask_q6_high), low);
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

/* ---- scales: of each lane's group as an integer; decoded in the narrowest registers they fit ----
 */

GEMV_INLINE __m128i bytes16(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}
/* (a & mask) | b */
GEMV_INLINE __m128i and_or_128(__m128i a, __m128i mask, __m128i b) {
    return _mm_ternarylogic_epi32(a, mask, b, 0xea);
}

/* 16 bytes in the order of the groups, as words in the order of a type's lanes. */
#define TO_LANES(groups, lanes)                                                                    \
    _mm_shuffle_epi8(groups,                                                                       \
                     _mm_setr_epi8(lanes(0), lanes(1), lanes(2), lanes(3), lanes(4), lanes(5),     \
                                   lanes(6), lanes(7), lanes(8), lanes(9), lanes(10), lanes(11),   \
                                   lanes(12), lanes(13), lanes(14), lanes(15)))

/* 16 numbers of 6 bits: the low nibbles of 8 bytes, their high nibbles; 4 bytes of 4 high pairs. */
GEMV_INLINE __m512i scales_q3_k(const struct block_q3_k *b) {
    /* The 12 bytes and d, and two bytes of codes before them: whole blocks are readable. */
    __m128i all = bytes16(b->scales - 2);
    const __m128i low_at = _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9);
    const __m128i high_at =
        _mm_setr_epi8(10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13);
    __m128i low = _mm_srlv_epi64(_mm_shuffle_epi8(all, low_at), _mm_set_epi64x(4, 0));
    __m128i high = _mm_rolv_epi32(_mm_shuffle_epi8(all, high_at), _mm_setr_epi32(4, 2, 0, 30));
    low = _mm_and_si128(low, _mm_set1_epi8(15));
    __m128i scale = and_or_128(high, _mm_set1_epi8(0x30), low);
    scale = TO_LANES(_mm_sub_epi8(scale, _mm_set1_epi8(32)), LANES256_Q3_K);
    return _mm512_cvtepi8_epi32(scale);
}

#define SUB_XS(l) (LANES256_IQ4_XS(l) / 2)

/* 8 numbers of 6 bits, each for two groups: nibbles of one word, pairs of bits of a half of
 * another, which are rotated to bit 4. */
GEMV_INLINE __m512i scales_iq4_xs(const struct block_iq4_xs *b) {
    int32_t words[2];
    memcpy(words, b, sizeof words);
    const __m256i low_shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m256i high_shift = _mm256_setr_epi32(12, 14, 16, 18, 20, 22, 24, 26);
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32(words[1]), low_shift);
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(words[0]), high_shift);
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    __m256i scale = _mm256_ternarylogic_epi32(high, _mm256_set1_epi32(0x30), low, 0xea);
    scale = _mm256_sub_epi32(scale, _mm256_set1_epi32(32));
    static const int32_t sub_xs[16] = LANES(SUB_XS);
    return _mm512_permutexvar_epi32(load(sub_xs), _mm512_castsi256_si512(scale));
}

/* Q4_K, Q5_K: as f32, times d, in lanes 0..3 and 8..11; minima, times dmin, in lanes 4..7, 12..15.
 *
 * After d and dmin there are 12 bytes: four with a scale, four with a minimum of the first half,
 * both of 6 bits with two bits of the second half's on top; four of the second half's nibbles. */
GEMV_INLINE __m512 scales_k4(const void *block) {
    __m128i all = bytes16(block);
    const __m128i order = _mm_setr_epi8(4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 12, 13, 14, 15);
    const __m128i mask = _mm_setr_epi32(0x3f3f3f3f, 0x3f3f3f3f, 0x0f0f0f0f, 0x0f0f0f0f);
    __m128i bytes = _mm_shuffle_epi8(all, order);
    __m128i low = _mm_and_si128(_mm_srlv_epi32(bytes, _mm_setr_epi32(0, 0, 0, 4)), mask);
    __m128i high = _mm_srli_epi32(_mm_slli_si128(bytes, 8), 2);
    __m512i six = _mm512_cvtepu8_epi32(and_or_128(high, _mm_set1_epi8(0x30), low));
    const __m512i which = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1);
    __m512 d = _mm512_permutexvar_ps(which, _mm512_castps128_ps512(_mm_cvtph_ps(all)));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(six), d);
}

/* ---- one block; dtype is a constant where these are inlined ---- */

GEMV_INLINE struct packed unpack(uint32_t dtype, const void *block) {
    struct packed p = {0};
    switch (dtype) {
    case OT_Q2_K: p.low0 = load(((const struct block_q2_k *)block)->qs); break;
    case OT_Q3_K: p = packed_q3_k(block); break;
    case OT_Q5_K: p = packed_q5_k(block); break;
    case OT_Q6_K: p = packed_q6_k(block); break;
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
    case OT_Q5_K: return codes_q5_k(p, chunk);
    case OT_Q6_K: return codes_q6_k(p, chunk);
    default: return codes_iq4_xs(p, chunk);
    }
}

/* d * scales * dots * a->d onto the sum; dots * scales are integers below 2^27. */
GEMV_INLINE __m512 add_scaled_dots(__m512i dots, __m512i scales, __m512 d, const struct lanes256 *a,
                                   __m512 sum) {
    __m512 factor = _mm512_mul_ps(_mm512_load_ps(a->d), d);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_mullo_epi32(dots, scales)), factor, sum);
}

GEMV_INLINE __m512 add_q2_k(__m512i dots, const struct block_q2_k *b, const struct lanes256 *a,
                            __m512 sum) {
    __m512i both = _mm512_cvtepu8_epi32(TO_LANES(bytes16(b->scales), LANES256_Q2_K));
    __m512i scales = _mm512_and_si512(both, _mm512_set1_epi32(15));
    __m512 mins = _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4));
    sum = _mm512_fnmadd_ps(_mm512_mul_ps(mins, _mm512_load_ps(a->s)), half(b->dmin), sum);
    return add_scaled_dots(dots, scales, half(b->d), a, sum);
}

/* Where the scale of a lane's sub-block is in what scales_k4 returns. */
#define PLACE_K4(l) (LANES256_Q4_K(l) / 2 + LANES256_Q4_K(l) / 8 * 4)
static const int32_t place_k4[16] = LANES(PLACE_K4);

GEMV_INLINE __m512 add_k4(__m512i dots, const void *block, const struct lanes256 *a, __m512 sum) {
    __m512 all = scales_k4(block);
    __m512 scales = _mm512_permutexvar_ps(load(place_k4), all);
    __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dots), _mm512_load_ps(a->d));
    sum = _mm512_fnmadd_ps(all, _mm512_load_ps(a->s_of_subs), sum);
    return _mm512_fmadd_ps(scaled, scales, sum);
}

GEMV_INLINE __m512 add_block(uint32_t dtype, const uint8_t *block, const struct lanes256 *a,
                             __m512 sum) {
    const bool has_min = dtype == OT_Q2_K || dtype == OT_Q4_K || dtype == OT_Q5_K;
    const void *b = block;
    struct packed p = unpack(dtype, b);
    __m512i dots = has_min ? _mm512_setzero_si512() : _mm512_load_si512(a->start);
    for (int c = 0; c < 4; c++) {
        dots = _mm512_dpbusd_epi32(dots, codes(dtype, &p, c), _mm512_load_si512(a->q[c]));
    }
    switch (dtype) {
    case OT_Q2_K: return add_q2_k(dots, b, a, sum);
    case OT_Q3_K:
        return add_scaled_dots(dots, scales_q3_k(b), half(((const struct block_q3_k *)b)->d), a,
                               sum);
    case OT_Q4_K:
    case OT_Q5_K: return add_k4(dots, b, a, sum);
    case OT_Q6_K: {
        const struct block_q6_k *q6 = b;
        __m512i scales = _mm512_cvtepi8_epi32(TO_LANES(bytes16(q6->scales), LANES256_Q6_K));
        return add_scaled_dots(dots, scales, half(q6->d), a, sum);
    }
    default:
        return add_scaled_dots(dots, scales_iq4_xs(b), half(((const struct block_iq4_xs *)b)->d), a,
                               sum);
    }
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

GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const struct lanes256 *acts, float *y) {
    const uint32_t block_bytes = block_bytes_of(dtype), n_blocks = n_cols / 256;
    const uint64_t ahead = kernel_tuning.prefetch_bytes;
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = w + r * row_bytes;
        const struct lanes256 *a = acts;
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        uint32_t left = n_blocks;
        for (; left >= 2; left -= 2, p += 2 * block_bytes, a += 2) {
            gemv_prefetch(p, ahead, (int)(2 * block_bytes + 63) / 64);
            even = add_block(dtype, p, a, even);
            odd = add_block(dtype, p + block_bytes, a + 1, odd);
        }
        if (left > 0) {
            even = add_block(dtype, p, a, even);
        }
        y[r] = _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
    }
}

/* One function a type: the compiler makes each from the code above. */
static void gemv_q2_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q2_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q3_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q3_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q4_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q4_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q5_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q5_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_q6_k(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q6_K, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_iq4_xs(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                        const void *x, float *y) {
    gemv(OT_IQ4_XS, w, row_bytes, n_rows, n_cols, x, y);
}

static void set(struct kernels *k, uint32_t dtype, kernel_gemv_fn *fn, uint8_t layout) {
    k->type[dtype].gemv = fn;
    k->type[dtype].layout_gemv = layout;
}

void gemv_block256_fill_avx512(struct kernels *k) {
    set(k, OT_Q2_K, gemv_q2_k, LAYOUT_LANES256_Q2_K);
    set(k, OT_Q3_K, gemv_q3_k, LAYOUT_LANES256_Q3_K);
    set(k, OT_Q4_K, gemv_q4_k, LAYOUT_LANES256_Q4_K);
    set(k, OT_Q5_K, gemv_q5_k, LAYOUT_LANES256_Q5_K);
    set(k, OT_Q6_K, gemv_q6_k, LAYOUT_LANES256_Q6_K);
    set(k, OT_IQ4_XS, gemv_iq4_xs, LAYOUT_LANES256_IQ4_XS);
}
