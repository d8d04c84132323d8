/* gemv_block32_avx512.c - matrix times vector for types with blocks of 32 values.
 *
 * Four blocks at a time (struct lanes128): byte permutes put the blocks' codes into the lanes'
 * order, from two overlapping loads that never reach beyond the four blocks. A row's last one to
 * three blocks are loaded with a mask instead: bytes that were not read are zero, and so are the
 * activations they meet. */
#include <string.h>

#include "kernel/blocks.h"
#include "kernel/fill.h"
#include "kernel/gemv_avx512.h"

/* The two vectors of unsigned codes, and the blocks' scales in lane i % 4. */
struct codes128 {
    __m512i low, high;
    __m512 d, m; /* m: for the types with minima only */
};

/* Where byte `at` of four blocks is when they were loaded as [0, 64) and [second, second + 64). */
#define AT(at, second) (uint8_t)((at) < 64 ? (at) : 64 + (at) - (second))
#define CHUNK(at, second)                                                                          \
    AT(at, second), AT((at) + 1, second), AT((at) + 2, second), AT((at) + 3, second)
/* One chunk of each block; all 64 bytes from `at` of each block on. */
#define CHUNKS(at, size, second)                                                                   \
    CHUNK(at, second), CHUNK((at) + (size), second), CHUNK((at) + 2 * (size), second),             \
        CHUNK((at) + 3 * (size), second)
#define CODES(at, size, second)                                                                    \
    CHUNKS(at, size, second), CHUNKS((at) + 4, size, second), CHUNKS((at) + 8, size, second),      \
        CHUNKS((at) + 12, size, second)
/* The 16-bit words (byte offset `at` in each block) of blocks 0 to 3. */
#define WORD_AT(at, second) (uint16_t)((at) < 64 ? (at) / 2 : 32 + ((at) - (second)) / 2)
#define WORDS4(at, size, second)                                                                   \
    WORD_AT(at, second), WORD_AT((at) + (size), second), WORD_AT((at) + 2 * (size), second),       \
        WORD_AT((at) + 3 * (size), second)
#define WORDS16(at, size, second)                                                                  \
    WORDS4(at, size, second), WORDS4(at, size, second), WORDS4(at, size, second),                  \
        WORDS4(at, size, second)

static const uint8_t codes_at_q4_0[64] = {CODES(2, 18, 8)};
static const uint16_t words_at_q4_0[32] = {WORDS16(0, 18, 8)};
static const uint8_t codes_at_q4_1[64] = {CODES(4, 20, 16)};
static const uint16_t words_at_q4_1[32] = {WORDS16(0, 20, 16), WORDS16(2, 20, 16)};
static const uint8_t codes_at_q5_0[64] = {CODES(6, 22, 24)};
static const uint8_t bits_at_q5_0[64] = {CHUNKS(2, 22, 24), CHUNKS(2, 22, 24), CHUNKS(2, 22, 24),
                                         CHUNKS(2, 22, 24)};
static const uint16_t words_at_q5_0[32] = {WORDS16(0, 22, 24)};
static const uint8_t codes_at_q5_1[64] = {CODES(8, 24, 32)};
static const uint8_t bits_at_q5_1[64] = {CHUNKS(4, 24, 32), CHUNKS(4, 24, 32), CHUNKS(4, 24, 32),
                                         CHUNKS(4, 24, 32)};
static const uint16_t words_at_q5_1[32] = {WORDS16(0, 24, 32), WORDS16(2, 24, 32)};
static const uint8_t codes_at_mxfp4[64] = {CODES(1, 17, 4)};
static const uint8_t low_at_q8_0[64] = {CODES(2, 34, 64)};
static const uint16_t words_at_q8_0[32] = {WORDS16(0, 34, 64)};
/* The second 16 values lie in [16, 80) and [72, 136). */
#define HIGH(at) (uint8_t)((at)-16 < 64 ? (at)-16 : 64 + (at)-72)
#define HIGH_CHUNK(at) HIGH(at), HIGH((at) + 1), HIGH((at) + 2), HIGH((at) + 3)
#define HIGH_CHUNKS(at)                                                                            \
    HIGH_CHUNK(at), HIGH_CHUNK((at) + 34), HIGH_CHUNK((at) + 68), HIGH_CHUNK((at) + 102)
static const uint8_t high_at_q8_0[64] = {HIGH_CHUNKS(18), HIGH_CHUNKS(22), HIGH_CHUNKS(26),
                                         HIGH_CHUNKS(30)};

/* Fifth bits: a 64-bit word holds the 32 bits of two neighbouring lanes' blocks. Byte k of chunk c
 * wants bit 4 c + k of its block (16 more for the high half) in its own bit 4, so it takes the
 * eight bits that start four before that one. */
#define BIT(lane, k, more) (uint8_t)((32 * ((lane) % 2) + (lane) / 4 * 4 + (k) + 60 + (more)) % 64)
#define BITS4(lane, more)                                                                          \
    BIT(lane, 0, more), BIT(lane, 1, more), BIT(lane, 2, more), BIT(lane, 3, more)
#define BITS16(lane, more)                                                                         \
    BITS4(lane, more), BITS4((lane) + 1, more), BITS4((lane) + 2, more), BITS4((lane) + 3, more)
static const uint8_t low_bits[64] = {BITS16(0, 0), BITS16(4, 0), BITS16(8, 0), BITS16(12, 0)};
static const uint8_t high_bits[64] = {BITS16(0, 16), BITS16(4, 16), BITS16(8, 16), BITS16(12, 16)};

static const uint8_t exponent_at_mxfp4[64] = {CHUNKS(0, 17, 4), CHUNKS(0, 17, 4), CHUNKS(0, 17, 4),
                                              CHUNKS(0, 17, 4)};

/* The values of the non-linear codes, raised by the zero point of their layout. */
static const uint8_t raised_iq4[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                       129, 141, 153, 166, 181, 197, 217, 241};
static const uint8_t raised_mxfp4[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                         16, 15, 14, 13, 12, 10, 8,  4};

/* Offsets of the loads that four blocks of a type need, and the blocks' size. */
struct windows {
    uint32_t n, at[4], block_bytes;
};

GEMV_INLINE struct windows windows_of(uint32_t dtype) {
    switch (dtype) {
    case OT_Q4_1: return (struct windows){2, {0, 16}, sizeof(struct block_q4_1)};
    case OT_Q5_0: return (struct windows){2, {0, 24}, sizeof(struct block_q5_0)};
    case OT_Q5_1: return (struct windows){2, {0, 32}, sizeof(struct block_q5_1)};
    case OT_MXFP4: return (struct windows){2, {0, 4}, sizeof(struct block_mxfp4)};
    case OT_Q8_0: return (struct windows){4, {0, 64, 16, 72}, sizeof(struct block_q8_0)};
    default: return (struct windows){2, {0, 8}, sizeof(struct block_q4_0)}; /* and IQ4_NL */
    }
}

GEMV_INLINE __m512i load(const void *p) {
    return _mm512_loadu_si512(p);
}

GEMV_INLINE void split_nibbles(__m512i q, struct codes128 *c) {
    const __m512i low = _mm512_set1_epi8(15);
    c->low = _mm512_and_si512(q, low);
    c->high = _mm512_and_si512(_mm512_srli_epi16(q, 4), low);
}

GEMV_INLINE void add_fifth_bits(const __m512i x[4], const uint8_t bits_at[64], struct codes128 *c) {
    __m512i bits = _mm512_permutex2var_epi8(x[0], load(bits_at), x[1]);
    __m512i low = _mm512_multishift_epi64_epi8(load(low_bits), bits);
    __m512i high = _mm512_multishift_epi64_epi8(load(high_bits), bits);
    const __m512i fifth = _mm512_set1_epi8(16);
    c->low = _mm512_ternarylogic_epi32(c->low, low, fifth, 0xf8); /* a | (b & c) */
    c->high = _mm512_ternarylogic_epi32(c->high, high, fifth, 0xf8);
}

GEMV_INLINE void look_up(const uint8_t values[16], struct codes128 *c) {
    __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)values));
    c->low = _mm512_shuffle_epi8(table, c->low);
    c->high = _mm512_shuffle_epi8(table, c->high);
}

/* 2^(e - 128) of each lane's e; the two smallest are denormal. */
GEMV_INLINE __m512 mxfp4_scales(__m512i e) {
    __m512i bits = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __mmask16 small = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
    bits = _mm512_mask_sllv_epi32(bits, small, _mm512_set1_epi32(0x00200000), e);
    return _mm512_castsi512_ps(bits);
}

GEMV_INLINE __m512 high_halves(__m512i words) {
    return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(words, 1));
}

/* dtype is a constant where this is inlined. */
GEMV_INLINE struct codes128 unpack(uint32_t dtype, const __m512i x[4]) {
    struct codes128 c;
    __m512i words;
    c.m = _mm512_setzero_ps();
    switch (dtype) {
    case OT_Q4_1:
        split_nibbles(_mm512_permutex2var_epi8(x[0], load(codes_at_q4_1), x[1]), &c);
        words = _mm512_permutexvar_epi16(load(words_at_q4_1), x[0]);
        c.m = high_halves(words);
        break;
    case OT_Q5_0:
        split_nibbles(_mm512_permutex2var_epi8(x[0], load(codes_at_q5_0), x[1]), &c);
        add_fifth_bits(x, bits_at_q5_0, &c);
        words = _mm512_permutex2var_epi16(x[0], load(words_at_q5_0), x[1]);
        break;
    case OT_Q5_1:
        split_nibbles(_mm512_permutex2var_epi8(x[0], load(codes_at_q5_1), x[1]), &c);
        add_fifth_bits(x, bits_at_q5_1, &c);
        words = _mm512_permutex2var_epi16(x[0], load(words_at_q5_1), x[1]);
        c.m = high_halves(words);
        break;
    case OT_Q8_0: {
        const __m512i flip = _mm512_set1_epi8((char)0x80);
        c.low = _mm512_permutex2var_epi8(x[0], load(low_at_q8_0), x[1]);
        c.high = _mm512_permutex2var_epi8(x[2], load(high_at_q8_0), x[3]);
        c.low = _mm512_xor_si512(c.low, flip);
        c.high = _mm512_xor_si512(c.high, flip);
        words = _mm512_permutex2var_epi16(x[0], load(words_at_q8_0), x[1]);
        break;
    }
    case OT_MXFP4:
        split_nibbles(_mm512_permutex2var_epi8(x[0], load(codes_at_mxfp4), x[1]), &c);
        look_up(raised_mxfp4, &c);
        c.d = mxfp4_scales(
            _mm512_maskz_permutexvar_epi8(0x1111111111111111, load(exponent_at_mxfp4), x[0]));
        return c;
    default: /* Q4_0, IQ4_NL */
        split_nibbles(_mm512_permutex2var_epi8(x[0], load(codes_at_q4_0), x[1]), &c);
        words = _mm512_permutexvar_epi16(load(words_at_q4_0), x[0]);
        if (dtype == OT_IQ4_NL) {
            look_up(raised_iq4, &c);
        }
    }
    c.d = gemv_half_to_f32(words);
    return c;
}

GEMV_INLINE __m512i start(const void *four) {
    return _mm512_zextsi128_si512(_mm_load_si128((const __m128i *)four));
}

GEMV_INLINE __m512 four_times(const float *four) {
    return _mm512_broadcast_f32x4(_mm_load_ps(four));
}

GEMV_INLINE __m512 add_group(uint32_t dtype, const __m512i x[4], const struct lanes128 *a,
                             __m512 sum) {
    bool has_min = dtype == OT_Q4_1 || dtype == OT_Q5_1;
    struct codes128 c = unpack(dtype, x);
    __m512i low = has_min ? _mm512_setzero_si512() : start(a->zero[0]);
    __m512i high = has_min ? _mm512_setzero_si512() : start(a->zero[1]);
    low = _mm512_dpbusd_epi32(low, c.low, _mm512_load_si512(a->low));
    high = _mm512_dpbusd_epi32(high, c.high, _mm512_load_si512(a->high));
    __m512 dot = _mm512_mul_ps(_mm512_cvtepi32_ps(low), four_times(a->d_low));
    dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), four_times(a->d_high), dot);
    if (has_min) {
        sum = _mm512_fmadd_ps(c.m, _mm512_castsi512_ps(start(a->s[0])), sum);
    }
    return _mm512_fmadd_ps(c.d, dot, sum);
}

GEMV_INLINE __m512 add_full(uint32_t dtype, const uint8_t *p, const struct lanes128 *a,
                            __m512 sum) {
    const struct windows win = windows_of(dtype);
    __m512i x[4];
    for (uint32_t i = 0; i < win.n; i++) {
        x[i] = load(p + win.at[i]);
    }
    return add_group(dtype, x, a, sum);
}

GEMV_INLINE __m512 add_rest(uint32_t dtype, const uint8_t *p, const __mmask64 mask[4],
                            const struct lanes128 *a, __m512 sum) {
    const struct windows win = windows_of(dtype);
    __m512i x[4];
    for (uint32_t i = 0; i < win.n; i++) {
        x[i] = _mm512_maskz_loadu_epi8(mask[i], p + win.at[i]);
    }
    return add_group(dtype, x, a, sum);
}

GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const struct lanes128 *acts, float *y) {
    const struct windows win = windows_of(dtype);
    const uint32_t group_bytes = 4 * win.block_bytes;
    const uint32_t n_full = n_cols / 128, rest_bytes = n_cols % 128 / 32 * win.block_bytes;
    const uint64_t ahead = kernel_tuning.prefetch_bytes;
    __mmask64 mask[4];
    for (uint32_t i = 0; i < 4; i++) {
        mask[i] = gemv_bytes_below(win.at[i], rest_bytes);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = w + r * row_bytes;
        const struct lanes128 *a = acts;
        __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
        uint32_t left = n_full;
        for (; left >= 4; left -= 4, p += 4 * group_bytes, a += 4) {
            gemv_prefetch(p, ahead, (int)(4 * group_bytes + 63) / 64);
            sum0 = add_full(dtype, p, a, sum0);
            sum1 = add_full(dtype, p + group_bytes, a + 1, sum1);
            sum2 = add_full(dtype, p + 2 * group_bytes, a + 2, sum2);
            sum3 = add_full(dtype, p + 3 * group_bytes, a + 3, sum3);
        }
        for (; left > 0; left--, p += group_bytes, a++) {
            gemv_prefetch(p, ahead, (int)(group_bytes + 63) / 64);
            sum0 = add_full(dtype, p, a, sum0);
        }
        if (rest_bytes != 0) {
            sum1 = add_rest(dtype, p, mask, a, sum1);
        }
        y[r] = _mm512_reduce_add_ps(
            _mm512_add_ps(_mm512_add_ps(sum0, sum1), _mm512_add_ps(sum2, sum3)));
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
static void gemv_q8_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q8_0, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_iq4_nl(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                        const void *x, float *y) {
    gemv(OT_IQ4_NL, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_mxfp4(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                       const void *x, float *y) {
    gemv(OT_MXFP4, w, row_bytes, n_rows, n_cols, x, y);
}

static void set(struct kernels *k, uint32_t dtype, kernel_gemv_fn *fn, uint8_t layout) {
    k->type[dtype].gemv = fn;
    k->type[dtype].layout_gemv = layout;
}

void gemv_block32_fill_avx512(struct kernels *k) {
    set(k, OT_Q4_0, gemv_q4_0, LAYOUT_LANES128_ZERO8);
    set(k, OT_Q4_1, gemv_q4_1, LAYOUT_LANES128_SUMS);
    set(k, OT_Q5_0, gemv_q5_0, LAYOUT_LANES128_ZERO16);
    set(k, OT_Q5_1, gemv_q5_1, LAYOUT_LANES128_SUMS);
    set(k, OT_Q8_0, gemv_q8_0, LAYOUT_LANES128_ZERO128);
    set(k, OT_IQ4_NL, gemv_iq4_nl, LAYOUT_LANES128_ZERO128);
    set(k, OT_MXFP4, gemv_mxfp4, LAYOUT_LANES128_ZERO16);
}
