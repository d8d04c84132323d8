/* gemv_nibbles_avx512.c - matrix times vector for Q4_0, IQ4_NL and MXFP4: blocks of 32 values that
 * are only a scale and nibbles.
 *
 * Eight blocks at a time (struct lanes8x32). Two permutes bring the 32 bytes of chunks 0 and 1, and
 * of chunks 2 and 3, of all blocks into the lanes' order: each from two 64-byte loads, one over the
 * first four blocks, one over the last four, which never reach beyond the blocks. A row's last one
 * to seven blocks are loaded with masks: bytes that were not read are zero, and so are the
 * activations they meet. */
#include "kernel/blocks.h"
#include "kernel/fill.h"
#include "kernel/gemv_avx512.h"

/* Byte `at` of block b is in the first of two loads for b < 4, in the second else. They start at a1
 * and a2. */
#define AT(at, size, b, a1, a2)                                                                    \
    (uint8_t)((b) < 4 ? (at) + (size) * (b) - (a1) : 64 + (at) + (size) * (b) - (a2))
#define CHUNK(at, size, b, a1, a2)                                                                 \
    AT(at, size, b, a1, a2), AT((at) + 1, size, b, a1, a2), AT((at) + 2, size, b, a1, a2),         \
        AT((at) + 3, size, b, a1, a2)
#define CHUNKS(at, size, a1, a2)                                                                   \
    CHUNK(at, size, 0, a1, a2), CHUNK(at, size, 1, a1, a2), CHUNK(at, size, 2, a1, a2),            \
        CHUNK(at, size, 3, a1, a2), CHUNK(at, size, 4, a1, a2), CHUNK(at, size, 5, a1, a2),        \
        CHUNK(at, size, 6, a1, a2), CHUNK(at, size, 7, a1, a2)
#define TWO_CHUNKS(at, size, a1, a2)                                                               \
    { CHUNKS(at, size, a1, a2), CHUNKS((at) + 4, size, a1, a2) }
/* The 16-bit word at the start of each block, twice. */
#define WORD_AT(size, b, a2) (uint16_t)((b) < 4 ? (size) * (b) / 2 : 32 + ((size) * (b) - (a2)) / 2)
#define WORDS(size, a2)                                                                            \
    WORD_AT(size, 0, a2), WORD_AT(size, 1, a2), WORD_AT(size, 2, a2), WORD_AT(size, 3, a2),        \
        WORD_AT(size, 4, a2), WORD_AT(size, 5, a2), WORD_AT(size, 6, a2), WORD_AT(size, 7, a2)

/* Where the loads start: chunks 0 and 1 of blocks 0 to 3 and 4 to 7, chunks 2 and 3 of both. */
static const uint32_t loads_q4_0[4] = {0, 72, 8, 80};
static const uint32_t loads_mxfp4[4] = {0, 64, 8, 72};
static const uint8_t first_q4_0[64] = TWO_CHUNKS(2, 18, 0, 72);
static const uint8_t second_q4_0[64] = TWO_CHUNKS(10, 18, 8, 80);
static const uint16_t d_q4_0[32] = {WORDS(18, 72), WORDS(18, 72)};
static const uint8_t first_mxfp4[64] = TWO_CHUNKS(1, 17, 0, 64);
static const uint8_t second_mxfp4[64] = TWO_CHUNKS(9, 17, 8, 72);
static const uint8_t e_mxfp4[64] = {CHUNKS(0, 17, 0, 64)};

/* The values of the non-linear codes, raised by the zero point of their layout; four times, because
 * a look-up by 6 bits then needs no mask. */
#define RAISED_IQ4 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241
#define RAISED_MXFP4 16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4
static const uint8_t raised_iq4[64] = {RAISED_IQ4, RAISED_IQ4, RAISED_IQ4, RAISED_IQ4};
static const uint8_t raised_mxfp4[64] = {RAISED_MXFP4, RAISED_MXFP4, RAISED_MXFP4, RAISED_MXFP4};

/* Eight blocks, as loaded. */
struct raw {
    __m512i x[4];
};

GEMV_INLINE __m512i load(const void *p) {
    return _mm512_loadu_si512(p);
}

GEMV_INLINE const uint32_t *loads_of(uint32_t dtype) {
    return dtype == OT_MXFP4 ? loads_mxfp4 : loads_q4_0;
}

GEMV_INLINE struct raw raw_full(uint32_t dtype, const uint8_t *p) {
    const uint32_t *at = loads_of(dtype);
    return (struct raw){
        {gemv_keep(load(p + at[0])), gemv_keep(load(p + at[1])), load(p + at[2]), load(p + at[3])}};
}

/* Bytes that are not in mask are zero and are not read. */
GEMV_INLINE struct raw raw_rest(uint32_t dtype, const uint8_t *p, const __mmask64 mask[4]) {
    const uint32_t *at = loads_of(dtype);
    struct raw r;
    for (int i = 0; i < 4; i++) {
        r.x[i] = _mm512_maskz_loadu_epi8(mask[i], p + at[i]);
    }
    return r;
}

/* Unsigned codes of a vector of nibbles. dtype is a constant where these are inlined. */
GEMV_INLINE __m512i low_codes(uint32_t dtype, __m512i q) {
    switch (dtype) {
    case OT_IQ4_NL: return _mm512_permutexvar_epi8(q, load(raised_iq4));
    case OT_MXFP4: return _mm512_permutexvar_epi8(q, load(raised_mxfp4));
    default: return _mm512_and_si512(q, _mm512_set1_epi8(0x0f));
    }
}
GEMV_INLINE __m512i high_codes(uint32_t dtype, __m512i q) {
    if (dtype == OT_Q4_0) { /* stay in place: raised by 16 */
        return _mm512_and_si512(q, _mm512_set1_epi8((char)0xf0));
    }
    return low_codes(dtype, _mm512_srli_epi16(q, 4));
}

/* The blocks' scales, twice. */
GEMV_INLINE __m512 scales(uint32_t dtype, struct raw r) {
    if (dtype != OT_MXFP4) {
        return gemv_half_to_f32(_mm512_permutex2var_epi16(r.x[0], load(d_q4_0), r.x[1]));
    }
    /* 2^(e - 128) */
    __m512i e = _mm512_maskz_permutex2var_epi8(0x11111111, r.x[0], load(e_mxfp4), r.x[1]);
    __m256i n = _mm256_sub_epi32(_mm512_castsi512_si256(e), _mm256_set1_epi32(128));
    __m256 d = _mm256_scalef_ps(_mm256_set1_ps(1.0f), _mm256_cvtepi32_ps(n));
    return _mm512_broadcast_f32x8(d);
}

GEMV_INLINE __m512i start(const int32_t eight[8]) {
    return _mm512_zextsi256_si512(_mm256_load_si256((const __m256i *)eight));
}
GEMV_INLINE __m512 twice(const float eight[8]) {
    return _mm512_broadcast_f32x8(_mm256_load_ps(eight));
}

GEMV_INLINE __m512 add_group(uint32_t dtype, struct raw r, const struct lanes8x32 *a, __m512 sum) {
    const bool mxfp4 = dtype == OT_MXFP4;
    __m512i first =
        _mm512_permutex2var_epi8(r.x[0], load(mxfp4 ? first_mxfp4 : first_q4_0), r.x[1]);
    __m512i second =
        _mm512_permutex2var_epi8(r.x[2], load(mxfp4 ? second_mxfp4 : second_q4_0), r.x[3]);
    __m512i low = start(a->start[0]), high = start(a->start[1]);
    low = _mm512_dpbusd_epi32(low, low_codes(dtype, first), _mm512_load_si512(a->low[0]));
    high = _mm512_dpbusd_epi32(high, high_codes(dtype, first), _mm512_load_si512(a->high[0]));
    low = _mm512_dpbusd_epi32(low, low_codes(dtype, second), _mm512_load_si512(a->low[1]));
    high = _mm512_dpbusd_epi32(high, high_codes(dtype, second), _mm512_load_si512(a->high[1]));
    __m512 dot = _mm512_mul_ps(_mm512_cvtepi32_ps(low), twice(a->d_low));
    dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), twice(a->d_high), dot);
    return _mm512_fmadd_ps(scales(dtype, r), dot, sum);
}

GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const struct lanes8x32 *acts, float *y) {
    const uint32_t block_bytes =
        dtype == OT_MXFP4 ? sizeof(struct block_mxfp4) : sizeof(struct block_q4_0);
    const uint32_t group_bytes = 8 * block_bytes;
    const uint32_t n_full = n_cols / 256, rest_bytes = n_cols % 256 / 32 * block_bytes;
    const uint64_t ahead = kernel_tuning.prefetch_bytes;
    __mmask64 mask[4];
    for (uint32_t i = 0; i < 4; i++) {
        mask[i] = gemv_bytes_below(loads_of(dtype)[i], rest_bytes);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = w + r * row_bytes;
        const struct lanes8x32 *a = acts;
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        uint32_t left = n_full;
        for (; left >= 2; left -= 2, p += 2 * group_bytes, a += 2) {
            gemv_prefetch(p, ahead, (int)(2 * group_bytes + 63) / 64);
            even = add_group(dtype, raw_full(dtype, p), a, even);
            odd = add_group(dtype, raw_full(dtype, p + group_bytes), a + 1, odd);
        }
        if (left > 0) {
            gemv_prefetch(p, ahead, (int)(group_bytes + 63) / 64);
            even = add_group(dtype, raw_full(dtype, p), a, even);
            p += group_bytes;
            a++;
        }
        if (rest_bytes != 0) {
            odd = add_group(dtype, raw_rest(dtype, p, mask), a, odd);
        }
        y[r] = _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
    }
}

/* One function a type: the compiler makes each from the code above. */
static void gemv_q4_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    gemv(OT_Q4_0, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_iq4_nl(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                        const void *x, float *y) {
    gemv(OT_IQ4_NL, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_mxfp4(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                       const void *x, float *y) {
    gemv(OT_MXFP4, w, row_bytes, n_rows, n_cols, x, y);
}

void gemv_nibbles_fill_avx512(struct kernels *k) {
    k->type[OT_Q4_0].gemv = gemv_q4_0;
    k->type[OT_Q4_0].layout_gemv = LAYOUT_LANES8X32_ZERO8_RAISE16;
    k->type[OT_IQ4_NL].gemv = gemv_iq4_nl;
    k->type[OT_IQ4_NL].layout_gemv = LAYOUT_LANES8X32_ZERO128;
    k->type[OT_MXFP4].gemv = gemv_mxfp4;
    k->type[OT_MXFP4].layout_gemv = LAYOUT_LANES8X32_ZERO16;
}
