/* gemv_block32_avx512.c - matrix times vector for Q4_1, Q5_0, Q5_1 and Q8_0, types with blocks of
 * 32 values.
 *
 * Four blocks at a time (struct lanes128): byte permutes put the blocks' codes into the lanes'
 * order, from two overlapping loads that never reach beyond the four blocks. A row's last one to
 * three blocks are loaded with a mask instead: bytes that were not read are zero, and so are the
 * activations they meet. */
#include <string.h>

#include "kernel/blocks.h"
#include "kernel/fill.h"
#include "kernel/gemv_avx512.h"

/* Where byte `at` of four blocks is when they were loaded as [0, 64) and from `second` on. */
#define AT(at, second) (uint8_t)((at) < 64 ? (at) : 64 + (at) - (second))
#define CHUNK(at, second)                                                                          \
    AT(at, second), AT((at) + 1, second), AT((at) + 2, second), AT((at) + 3, second)
/* One chunk, from `at` in each block on, of the four blocks; and the 16 bytes of each. */
#define CHUNKS(at, size, second)                                                                   \
    CHUNK(at, second), CHUNK((at) + (size), second), CHUNK((at) + 2 * (size), second),             \
        CHUNK((at) + 3 * (size), second)
#define CODES(at, size, second)                                                                    \
    {                                                                                              \
        CHUNKS(at, size, second), CHUNKS((at) + 4, size, second), CHUNKS((at) + 8, size, second),  \
            CHUNKS((at) + 12, size, second)                                                        \
    }
/* The same chunk of the four blocks in all lanes, or once. */
#define FOUR_TIMES(at, size, second)                                                               \
    {                                                                                              \
        CHUNKS(at, size, second), CHUNKS(at, size, second), CHUNKS(at, size, second),              \
            CHUNKS(at, size, second)                                                               \
    }
#define ONCE(at, size, second)                                                                     \
    { CHUNKS(at, size, second) }
/* The 16-bit words at `at` of the four blocks, repeated. */
#define WORD_AT(at, second) (uint16_t)((at) < 64 ? (at) / 2 : 32 + ((at) - (second)) / 2)
#define WORDS4(at, size, second)                                                                   \
    WORD_AT(at, second), WORD_AT((at) + (size), second), WORD_AT((at) + 2 * (size), second),       \
        WORD_AT((at) + 3 * (size), second)
#define WORDS16(at, size, second)                                                                  \
    {                                                                                              \
        WORDS4(at, size, second), WORDS4(at, size, second), WORDS4(at, size, second),              \
            WORDS4(at, size, second)                                                               \
    }

/* Q4_1: 80 bytes, loaded as [0, 64) and 16 bytes from 64 on. Q5_0: 88 bytes, 32 from 56. Q5_1: 96
 * bytes, 32 from 64. */
static const uint8_t codes_at_q4_1[64] = CODES(4, 20, 64);
static const uint8_t dm_at_q4_1[64] = ONCE(0, 20, 64);
static const uint8_t codes_at_q5_0[64] = CODES(6, 22, 56);
static const uint8_t bits_at_q5_0[64] = FOUR_TIMES(2, 22, 56);
static const uint16_t d_at_q5_0[32] = WORDS16(0, 22, 56);
static const uint8_t codes_at_q5_1[64] = CODES(8, 24, 64);
static const uint8_t bits_at_q5_1[64] = FOUR_TIMES(4, 24, 64);
static const uint8_t dm_at_q5_1[64] = ONCE(0, 24, 64);
/* Q8_0: 136 bytes: [0, 64) and [64, 128) hold the first 16 values of the blocks; [16, 80) and
 * [72, 136) the second 16. */
static const uint8_t low_at_q8_0[64] = CODES(2, 34, 64);
static const uint16_t d_at_q8_0[32] = WORDS16(0, 34, 64);
static const uint8_t high_at_q8_0[64] = CODES(18 - 16, 34, 72 - 16);

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

/* Four blocks, as loaded. Their second and later parts are no longer than a type needs. */
struct raw {
    __m512i x[4];
};

/* Where the parts start, and the blocks' size. */
struct parts {
    uint32_t n, at[4], block_bytes;
};

GEMV_INLINE struct parts parts_of(uint32_t dtype) {
    switch (dtype) {
    case OT_Q4_1: return (struct parts){2, {0, 64}, sizeof(struct block_q4_1)};
    case OT_Q5_0: return (struct parts){2, {0, 56}, sizeof(struct block_q5_0)};
    case OT_Q5_1: return (struct parts){2, {0, 64}, sizeof(struct block_q5_1)};
    default: return (struct parts){4, {0, 64, 16, 72}, sizeof(struct block_q8_0)};
    }
}

GEMV_INLINE __m512i load(const void *p) {
    return _mm512_loadu_si512(p);
}
GEMV_INLINE __m512i load256(const void *p) {
    return _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)p));
}
GEMV_INLINE __m512i load128(const void *p) {
    return _mm512_zextsi128_si512(_mm_loadu_si128((const __m128i *)p));
}
GEMV_INLINE struct raw raw_full(uint32_t dtype, const uint8_t *p) {
    struct raw r;
    r.x[0] = gemv_keep(load(p));
    switch (dtype) {
    case OT_Q4_1: r.x[1] = load128(p + 64); break;
    case OT_Q5_0: r.x[1] = load256(p + 56); break;
    case OT_Q5_1: r.x[1] = load256(p + 64); break;
    default: /* Q8_0 */
        r.x[1] = gemv_keep(load(p + 64));
        r.x[2] = load(p + 16);
        r.x[3] = load(p + 72);
    }
    return r;
}

/* Bytes that are not in mask are zero and are not read. */
GEMV_INLINE struct raw raw_rest(uint32_t dtype, const uint8_t *p, const __mmask64 mask[4]) {
    const struct parts parts = parts_of(dtype);
    struct raw r;
    for (uint32_t i = 0; i < parts.n; i++) {
        r.x[i] = _mm512_maskz_loadu_epi8(mask[i], p + parts.at[i]);
    }
    return r;
}

/* Unsigned codes; scales in lane i % 4; for types with minima, scale and minimum of block b in
 * places 2b and 2b + 1. */
struct codes128 {
    __m512i low, high;
    __m512 d;
    __m256 dm;
};

GEMV_INLINE __m512i bytes_at(struct raw r, const uint8_t at[64]) {
    return _mm512_permutex2var_epi8(r.x[0], load(at), r.x[1]);
}

GEMV_INLINE void nibbles_in_place(__m512i q, struct codes128 *c) {
    c->low = _mm512_and_si512(q, _mm512_set1_epi8(0x0f));
    c->high = _mm512_and_si512(q, _mm512_set1_epi8((char)0xf0));
}

GEMV_INLINE void five_bits(__m512i q, __m512i bits, struct codes128 *c) {
    const __m512i nibble = _mm512_set1_epi8(15), fifth = _mm512_set1_epi8(16);
    __m512i low = _mm512_multishift_epi64_epi8(load(low_bits), bits);
    __m512i high = _mm512_multishift_epi64_epi8(load(high_bits), bits);
    c->low = _mm512_and_si512(q, nibble);
    c->high = _mm512_and_si512(_mm512_srli_epi16(q, 4), nibble);
    c->low = _mm512_ternarylogic_epi32(low, fifth, c->low, 0xea); /* (a & b) | c */
    c->high = _mm512_ternarylogic_epi32(high, fifth, c->high, 0xea);
}

/* 16 words, the f16 scales. */
GEMV_INLINE __m512 scales_at(struct raw r, const uint16_t at[32]) {
    return gemv_half_to_f32(_mm512_permutex2var_epi16(r.x[0], load(at), r.x[1]));
}

/* 8 words, f16 scales and minima in turn. */
GEMV_INLINE void scales_and_minima(__m512i words, struct codes128 *c) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6);
    c->dm = _mm256_cvtph_ps(_mm512_castsi512_si128(words));
    c->d = _mm512_permutexvar_ps(even, _mm512_castps256_ps512(c->dm));
}

/* dtype is a constant where this is inlined. */
GEMV_INLINE struct codes128 unpack(uint32_t dtype, struct raw r) {
    struct codes128 c;
    c.dm = _mm256_setzero_ps();
    switch (dtype) {
    case OT_Q4_1:
        nibbles_in_place(bytes_at(r, codes_at_q4_1), &c);
        scales_and_minima(_mm512_permutexvar_epi8(load(dm_at_q4_1), r.x[0]), &c);
        break;
    case OT_Q5_0:
        five_bits(bytes_at(r, codes_at_q5_0), bytes_at(r, bits_at_q5_0), &c);
        c.d = scales_at(r, d_at_q5_0);
        break;
    case OT_Q5_1:
        five_bits(bytes_at(r, codes_at_q5_1), bytes_at(r, bits_at_q5_1), &c);
        scales_and_minima(bytes_at(r, dm_at_q5_1), &c);
        break;
    default: { /* Q8_0 */
        const __m512i flip = _mm512_set1_epi8((char)0x80);
        struct raw second = {{r.x[2], r.x[3]}};
        c.low = _mm512_xor_si512(bytes_at(r, low_at_q8_0), flip);
        c.high = _mm512_xor_si512(bytes_at(second, high_at_q8_0), flip);
        c.d = scales_at(r, d_at_q8_0);
    }
    }
    return c;
}

/* What a row's products are summed in. */
struct sums {
    __m512 dots;
    __m256 minima;
};

GEMV_INLINE __m512i start(const int32_t four[4]) {
    return _mm512_zextsi128_si512(_mm_load_si128((const __m128i *)four));
}

GEMV_INLINE __m512 four_times(const float four[4]) {
    return _mm512_broadcast_f32x4(_mm_load_ps(four));
}

GEMV_INLINE void add_group(uint32_t dtype, struct raw r, const struct lanes128 *a,
                           struct sums *sums) {
    const bool has_min = dtype == OT_Q4_1 || dtype == OT_Q5_1;
    struct codes128 c = unpack(dtype, r);
    __m512i low = has_min ? _mm512_setzero_si512() : start(a->start[0]);
    __m512i high = has_min ? _mm512_setzero_si512() : start(a->start[1]);
    low = _mm512_dpbusd_epi32(low, c.low, _mm512_load_si512(a->low));
    high = _mm512_dpbusd_epi32(high, c.high, _mm512_load_si512(a->high));
    __m512 dot = _mm512_mul_ps(_mm512_cvtepi32_ps(low), four_times(a->d_low));
    dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), four_times(a->d_high), dot);
    sums->dots = _mm512_fmadd_ps(c.d, dot, sums->dots);
    if (has_min) {
        sums->minima = _mm256_fmadd_ps(c.dm, _mm256_load_ps(a->s), sums->minima);
    }
}

GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const struct lanes128 *acts, float *y) {
    const struct parts parts = parts_of(dtype);
    const uint32_t group_bytes = 4 * parts.block_bytes;
    const uint32_t n_full = n_cols / 128, rest_bytes = n_cols % 128 / 32 * parts.block_bytes;
    const uint64_t ahead = kernel_tuning.prefetch_bytes;
    __mmask64 mask[4];
    for (uint32_t i = 0; i < 4; i++) {
        mask[i] = gemv_bytes_below(parts.at[i], rest_bytes);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = w + r * row_bytes;
        const struct lanes128 *a = acts;
        struct sums even = {_mm512_setzero_ps(), _mm256_setzero_ps()}, odd = even;
        uint32_t left = n_full;
        for (; left >= 4; left -= 4, p += 4 * group_bytes, a += 4) {
            gemv_prefetch(p, ahead, (int)(4 * group_bytes + 63) / 64);
            add_group(dtype, raw_full(dtype, p), a, &even);
            add_group(dtype, raw_full(dtype, p + group_bytes), a + 1, &odd);
            add_group(dtype, raw_full(dtype, p + 2 * group_bytes), a + 2, &even);
            add_group(dtype, raw_full(dtype, p + 3 * group_bytes), a + 3, &odd);
        }
        for (; left > 0; left--, p += group_bytes, a++) {
            gemv_prefetch(p, ahead, (int)(group_bytes + 63) / 64);
            add_group(dtype, raw_full(dtype, p), a, &even);
        }
        if (rest_bytes != 0) {
            add_group(dtype, raw_rest(dtype, p, mask), a, &odd);
        }
        __m512 dots = _mm512_add_ps(even.dots, odd.dots);
        __m256 minima = _mm256_add_ps(even.minima, odd.minima);
        y[r] = _mm512_reduce_add_ps(_mm512_add_ps(dots, _mm512_zextps256_ps512(minima)));
    }
}

/* One function a type: the compiler makes each from the code above. */
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
static void set(struct kernels *k, uint32_t dtype, kernel_gemv_fn *fn, uint8_t layout) {
    k->type[dtype].gemv = fn;
    k->type[dtype].layout_gemv = layout;
}

void gemv_block32_fill_avx512(struct kernels *k) {
    set(k, OT_Q4_1, gemv_q4_1, LAYOUT_LANES128_SUMS_RAISE16);
    set(k, OT_Q5_0, gemv_q5_0, LAYOUT_LANES128_ZERO16);
    set(k, OT_Q5_1, gemv_q5_1, LAYOUT_LANES128_SUMS);
    set(k, OT_Q8_0, gemv_q8_0, LAYOUT_LANES128_ZERO128);
}
