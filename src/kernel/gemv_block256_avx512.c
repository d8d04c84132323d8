/* gemv_block256_avx512.c - matrix times vector for types with blocks of 256 values.
 *
 * A block has 16 groups of 16 values, and a vector 16 lanes: lane g computes group g (struct
 * lanes256). Four vectors of codes, one for each chunk of 4 values, are dot-multiplied into one sum
 * a lane, which is then scaled once, by the group's weight scale and activation scale.
 *
 * A chunk's codes come from one 32-bit word of the packed codes, shifted by the lane's own amount.
 */
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
GEMV_INLINE __m512i load128(const void *p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}
GEMV_INLINE __m512i load32(const void *p) {
    int32_t word;
    memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
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

/* Word of chunk 0 in the packed codes; chunk c is c words further. Shift to the lane's bits. */
#define WORD_4BIT(g) ((g) / 4 * 8 + (g) % 2 * 4) /* Q4_K, Q5_K: nibbles of 32-byte runs */
#define SHIFT_4BIT(g) ((g) / 2 % 2 * 4)
#define WORD_Q6(g) ((g) / 8 * 16 + (g) / 2 % 2 * 8 + (g) % 2 * 4)
#define SHIFT_Q6(g) ((g) % 8 / 4 * 4)
#define WORD_2BIT(g) ((g) / 8 * 8 + (g) % 2 * 4) /* Q2_K, Q3_K, and the high bits of Q6_K */
#define SHIFT_2BIT(g) ((g) / 2 % 4 * 2)
#define WORD_XS(g) ((g) / 2 * 4)
#define SHIFT_XS(g) ((g) % 2 * 4)
#define WORD_1BIT(g) ((g) % 2 * 4) /* bit g / 2 of the high bits of Q5_K and Q3_K */
/* Rotation to the left that brings a lane's high bits on top of its low ones. */
#define ROTATE_Q5(g) ((4 - (g) / 2) & 31)
#define ROTATE_Q6(g) ((4 - (g) / 2 % 4 * 2) & 31)
#define ROTATE_Q3(g) ((2 - (g) / 2) & 31)

static const int32_t word_4bit[16] = LANES(WORD_4BIT), shift_4bit[16] = LANES(SHIFT_4BIT);
static const int32_t word_q6[16] = LANES(WORD_Q6), shift_q6[16] = LANES(SHIFT_Q6);
static const int32_t word_2bit[16] = LANES(WORD_2BIT), shift_2bit[16] = LANES(SHIFT_2BIT);
static const int32_t word_xs[16] = LANES(WORD_XS), shift_xs[16] = LANES(SHIFT_XS);
static const int32_t word_1bit[16] = LANES(WORD_1BIT), rotate_q5[16] = LANES(ROTATE_Q5);
static const int32_t rotate_q6[16] = LANES(ROTATE_Q6), rotate_q3[16] = LANES(ROTATE_Q3);

GEMV_INLINE __m512i word(const int32_t of_chunk_0[16], int chunk) {
    return _mm512_add_epi32(load(of_chunk_0), _mm512_set1_epi32(chunk));
}
/* a | (b & mask) */
GEMV_INLINE __m512i or_and(__m512i a, __m512i b, int32_t mask) {
    return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi32(mask), 0xf8);
}

/* ---- codes of chunk c of each group ---- */

GEMV_INLINE __m512i codes_q4_k(const struct block_q4_k *b, int c) {
    __m512i q = _mm512_permutex2var_epi32(load(b->qs), word(word_4bit, c), load(b->qs + 64));
    return _mm512_and_si512(_mm512_srlv_epi32(q, load(shift_4bit)), _mm512_set1_epi8(15));
}

GEMV_INLINE __m512i codes_q5_k(const struct block_q5_k *b, int c) {
    __m512i q = _mm512_permutex2var_epi32(load(b->qs), word(word_4bit, c), load(b->qs + 64));
    q = _mm512_and_si512(_mm512_srlv_epi32(q, load(shift_4bit)), _mm512_set1_epi8(15));
    __m512i high = _mm512_permutexvar_epi32(word(word_1bit, c), load256(b->qh));
    return or_and(q, _mm512_rolv_epi32(high, load(rotate_q5)), 0x10101010);
}

GEMV_INLINE __m512i codes_q6_k(const struct block_q6_k *b, int c) {
    __m512i q = _mm512_permutex2var_epi32(load(b->ql), word(word_q6, c), load(b->ql + 64));
    q = _mm512_and_si512(_mm512_srlv_epi32(q, load(shift_q6)), _mm512_set1_epi8(15));
    __m512i high = _mm512_permutexvar_epi32(word(word_2bit, c), load(b->qh));
    return or_and(q, _mm512_rolv_epi32(high, load(rotate_q6)), 0x30303030);
}

GEMV_INLINE __m512i codes_q2_k(const struct block_q2_k *b, int c) {
    __m512i q = _mm512_permutexvar_epi32(word(word_2bit, c), load(b->qs));
    return _mm512_and_si512(_mm512_srlv_epi32(q, load(shift_2bit)), _mm512_set1_epi8(3));
}

/* Raised by 4. */
GEMV_INLINE __m512i codes_q3_k(const struct block_q3_k *b, int c) {
    __m512i q = _mm512_permutexvar_epi32(word(word_2bit, c), load(b->qs));
    q = _mm512_and_si512(_mm512_srlv_epi32(q, load(shift_2bit)), _mm512_set1_epi8(3));
    __m512i high = _mm512_permutexvar_epi32(word(word_1bit, c), load256(b->hmask));
    return or_and(q, _mm512_rolv_epi32(high, load(rotate_q3)), 0x04040404);
}

/* Raised by 128. */
static const uint8_t raised_iq4[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                       129, 141, 153, 166, 181, 197, 217, 241};

GEMV_INLINE __m512i codes_iq4_xs(const struct block_iq4_xs *b, int c) {
    __m512i q = _mm512_permutex2var_epi32(load(b->qs), word(word_xs, c), load(b->qs + 64));
    q = _mm512_and_si512(_mm512_srlv_epi32(q, load(shift_xs)), _mm512_set1_epi8(15));
    return _mm512_shuffle_epi8(load128(raised_iq4), q);
}

/* ---- scales of each group, times d; minima, times dmin ---- */

struct scales {
    __m512 d, m;
};

GEMV_INLINE __m512 int_to_f32(__m512i v) {
    return _mm512_cvtepi32_ps(v);
}

/* The 6-bit scales and minima of Q4_K and Q5_K. Byte 0 of each lane is the byte with a number's low
 * bits, byte 1 (for sub-blocks 4 to 7) the one with its two high bits on top. */
#define NONE (-1)
#define SCALE_BYTES(k) ((k) < 4 ? (k) : 4 + (k)), ((k) < 4 ? NONE : (k)-4), NONE, NONE
#define MIN_BYTES(k) (4 + (k)), ((k) < 4 ? NONE : (k)), NONE, NONE
#define TWICE(bytes, k) bytes(k), bytes(k)
static const int8_t scale_bytes[64] = {
    TWICE(SCALE_BYTES, 0), TWICE(SCALE_BYTES, 1), TWICE(SCALE_BYTES, 2), TWICE(SCALE_BYTES, 3),
    TWICE(SCALE_BYTES, 4), TWICE(SCALE_BYTES, 5), TWICE(SCALE_BYTES, 6), TWICE(SCALE_BYTES, 7)};
static const int8_t min_bytes[64] = {TWICE(MIN_BYTES, 0), TWICE(MIN_BYTES, 1), TWICE(MIN_BYTES, 2),
                                     TWICE(MIN_BYTES, 3), TWICE(MIN_BYTES, 4), TWICE(MIN_BYTES, 5),
                                     TWICE(MIN_BYTES, 6), TWICE(MIN_BYTES, 7)};
#define SCALE_MASK(g) ((g) < 8 ? 63 : 15)
static const int32_t scale_mask[16] = LANES(SCALE_MASK);
/* A minimum of the upper half is a high nibble. */
#define MIN_SHIFT(g) ((g) < 8 ? 0 : 4)
static const int32_t min_shift[16] = LANES(MIN_SHIFT);

GEMV_INLINE struct scales scales_k4(uint16_t d, uint16_t dmin, const uint8_t packed[12]) {
    /* Four bytes of codes are read along with the 12; both users have them behind. */
    __m512i all = load128(packed);
    __m512i scale = _mm512_shuffle_epi8(all, load(scale_bytes));
    __m512i high = _mm512_srli_epi32(scale, 10);
    scale = or_and(_mm512_and_si512(scale, load(scale_mask)), high, 0x30);
    __m512i min = _mm512_shuffle_epi8(all, load(min_bytes));
    high = _mm512_srli_epi32(min, 10);
    min = _mm512_and_si512(_mm512_srlv_epi32(min, load(min_shift)), load(scale_mask));
    min = or_and(min, high, 0x30);
    return (struct scales){_mm512_mul_ps(int_to_f32(scale), half(d)),
                           _mm512_mul_ps(int_to_f32(min), half(dmin))};
}

GEMV_INLINE struct scales scales_q2_k(const struct block_q2_k *b) {
    __m512i s = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)b->scales));
    __m512i scale = _mm512_and_si512(s, _mm512_set1_epi32(15));
    __m512i min = _mm512_srli_epi32(s, 4);
    return (struct scales){_mm512_mul_ps(int_to_f32(scale), half(b->d)),
                           _mm512_mul_ps(int_to_f32(min), half(b->dmin))};
}

/* Scale g of Q3_K: nibble g / 8 of byte g % 8; its high bits: bits 2 (g / 4) of byte 8 + g % 4. */
#define Q3_BYTES(g) ((g) % 8), (8 + (g) % 4), NONE, NONE
static const int8_t q3_bytes[64] = {Q3_BYTES(0),  Q3_BYTES(1),  Q3_BYTES(2),  Q3_BYTES(3),
                                    Q3_BYTES(4),  Q3_BYTES(5),  Q3_BYTES(6),  Q3_BYTES(7),
                                    Q3_BYTES(8),  Q3_BYTES(9),  Q3_BYTES(10), Q3_BYTES(11),
                                    Q3_BYTES(12), Q3_BYTES(13), Q3_BYTES(14), Q3_BYTES(15)};
#define Q3_LOW_SHIFT(g) ((g) / 8 * 4)
#define Q3_HIGH_SHIFT(g) (8 + (g) / 4 * 2 - 4)
static const int32_t q3_low_shift[16] = LANES(Q3_LOW_SHIFT);
static const int32_t q3_high_shift[16] = LANES(Q3_HIGH_SHIFT);

GEMV_INLINE struct scales scales_q3_k(const struct block_q3_k *b) {
    /* The 12 bytes, d, and two bytes of the last codes before them. */
    __m512i bytes = _mm512_shuffle_epi8(load128(b->scales - 2),
                                        _mm512_add_epi8(load(q3_bytes), _mm512_set1_epi32(0x0202)));
    __m512i low = _mm512_srlv_epi32(bytes, load(q3_low_shift));
    __m512i high = _mm512_srlv_epi32(bytes, load(q3_high_shift));
    __m512i scale = or_and(_mm512_and_si512(low, _mm512_set1_epi32(15)), high, 0x30);
    scale = _mm512_sub_epi32(scale, _mm512_set1_epi32(32));
    return (struct scales){_mm512_mul_ps(int_to_f32(scale), half(b->d)), _mm512_setzero_ps()};
}

GEMV_INLINE struct scales scales_q6_k(const struct block_q6_k *b) {
    __m512i s = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)b->scales));
    return (struct scales){_mm512_mul_ps(int_to_f32(s), half(b->d)), _mm512_setzero_ps()};
}

/* Sub-block k = g / 2: nibble k of the 32 bits scales_l; its high bits are 2 k of scales_h, which
 * is the upper half of the first word, and is rotated to stand at bit 4. */
#define XS_LOW_SHIFT(g) ((g) / 2 * 4)
#define XS_HIGH_SHIFT(g) (16 + (g) / 2 * 2 - 4)
static const int32_t xs_low_shift[16] = LANES(XS_LOW_SHIFT);
static const int32_t xs_high_shift[16] = LANES(XS_HIGH_SHIFT);

GEMV_INLINE struct scales scales_iq4_xs(const struct block_iq4_xs *b) {
    __m512i low = _mm512_srlv_epi32(load32(b->scales_l), load(xs_low_shift));
    __m512i high = _mm512_srlv_epi32(load32(b), load(xs_high_shift));
    __m512i scale = or_and(_mm512_and_si512(low, _mm512_set1_epi32(15)), high, 0x30);
    scale = _mm512_sub_epi32(scale, _mm512_set1_epi32(32));
    return (struct scales){_mm512_mul_ps(int_to_f32(scale), half(b->d)), _mm512_setzero_ps()};
}

/* ---- one block ---- */

/* dtype is a constant where these are inlined. */
GEMV_INLINE __m512i codes(uint32_t dtype, const void *block, int chunk) {
    switch (dtype) {
    case OT_Q2_K: return codes_q2_k(block, chunk);
    case OT_Q3_K: return codes_q3_k(block, chunk);
    case OT_Q4_K: return codes_q4_k(block, chunk);
    case OT_Q5_K: return codes_q5_k(block, chunk);
    case OT_Q6_K: return codes_q6_k(block, chunk);
    default: return codes_iq4_xs(block, chunk);
    }
}

GEMV_INLINE struct scales scales(uint32_t dtype, const void *block) {
    switch (dtype) {
    case OT_Q2_K: return scales_q2_k(block);
    case OT_Q3_K: return scales_q3_k(block);
    case OT_Q4_K: {
        const struct block_q4_k *b = block;
        return scales_k4(b->d, b->dmin, b->scales);
    }
    case OT_Q5_K: {
        const struct block_q5_k *b = block;
        return scales_k4(b->d, b->dmin, b->scales);
    }
    case OT_Q6_K: return scales_q6_k(block);
    default: return scales_iq4_xs(block);
    }
}

/* Codes are raised by 2 to this power; 0 for the types with minima. */
GEMV_INLINE int zero_log2(uint32_t dtype) {
    return dtype == OT_Q3_K ? 2 : dtype == OT_Q6_K ? 5 : dtype == OT_IQ4_XS ? 7 : 0;
}

GEMV_INLINE void add_block(uint32_t dtype, const uint8_t *block, const struct lanes256 *a,
                           __m512 sum[2]) {
    const int zero = zero_log2(dtype);
    __m512i dot =
        zero == 0 ? _mm512_setzero_si512() : _mm512_slli_epi32(load(a->minus_sum), (unsigned)zero);
    for (int c = 0; c < 4; c++) {
        dot = _mm512_dpbusd_epi32(dot, codes(dtype, block, c), _mm512_load_si512(a->q[c]));
    }
    struct scales s = scales(dtype, block);
    __m512 scaled = _mm512_mul_ps(int_to_f32(dot), _mm512_load_ps(a->d));
    sum[0] = _mm512_fmadd_ps(scaled, s.d, sum[0]);
    if (zero == 0) {
        sum[1] = _mm512_fnmadd_ps(s.m, _mm512_load_ps(a->s), sum[1]);
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
        __m512 even[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        __m512 odd[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        uint32_t left = n_blocks;
        for (; left >= 2; left -= 2, p += 2 * block_bytes, a += 2) {
            gemv_prefetch(p, ahead, (int)(2 * block_bytes + 63) / 64);
            add_block(dtype, p, a, even);
            add_block(dtype, p + block_bytes, a + 1, odd);
        }
        if (left > 0) {
            add_block(dtype, p, a, even);
        }
        y[r] = _mm512_reduce_add_ps(
            _mm512_add_ps(_mm512_add_ps(even[0], odd[0]), _mm512_add_ps(even[1], odd[1])));
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

static void set(struct kernels *k, uint32_t dtype, kernel_gemv_fn *fn) {
    k->type[dtype].gemv = fn;
    k->type[dtype].layout_gemv = LAYOUT_LANES256;
}

void gemv_block256_fill_avx512(struct kernels *k) {
    set(k, OT_Q2_K, gemv_q2_k);
    set(k, OT_Q3_K, gemv_q3_k);
    set(k, OT_Q4_K, gemv_q4_k);
    set(k, OT_Q5_K, gemv_q5_k);
    set(k, OT_Q6_K, gemv_q6_k);
    set(k, OT_IQ4_XS, gemv_iq4_xs);
}
