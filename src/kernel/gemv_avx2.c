/* gemv_avx2.c - matrix times vector for every quantised type.
 *
 * A row is walked in units of 256 values (struct subs256): a block of 256, or eight blocks of 32.
 * First the unit's scales are brought into f32, then each sub-block of 32 values is multiplied.
 * Rows are walked one after the other, as one sequential stream. */
#include <immintrin.h>
#include <string.h>

#include "base/dtype.h"
#include "kernel/fill.h"
#include "kernel/gemv_codes_avx2.h"
#include "kernel/layout_avx2.h"
#include "kernel/tuning.h"

/* What is known of a type when it is compiled. */
struct traits {
    uint32_t block_bytes;
    bool small; /* blocks of 32 values */
    bool fine;  /* a scale for each 16 values, not for each 32 */
    bool has_min;
    bool signed_codes;
    uint8_t zero; /* subtracted from each code */
};

CODES_INLINE struct traits traits_of(uint32_t dtype) {
    switch (dtype) {
    case OT_Q4_0: return (struct traits){sizeof(struct block_q4_0), .small = true, .zero = 8};
    case OT_Q4_1: return (struct traits){sizeof(struct block_q4_1), .small = true, .has_min = true};
    case OT_Q5_0: return (struct traits){sizeof(struct block_q5_0), .small = true, .zero = 16};
    case OT_Q5_1: return (struct traits){sizeof(struct block_q5_1), .small = true, .has_min = true};
    case OT_Q8_0:
        return (struct traits){sizeof(struct block_q8_0), .small = true, .signed_codes = true};
    case OT_IQ4_NL:
        return (struct traits){sizeof(struct block_iq4_nl), .small = true, .signed_codes = true};
    case OT_MXFP4: return (struct traits){sizeof(struct block_mxfp4), .small = true, .zero = 12};
    case OT_Q2_K: return (struct traits){sizeof(struct block_q2_k), .fine = true, .has_min = true};
    case OT_Q3_K: return (struct traits){sizeof(struct block_q3_k), .fine = true, .zero = 4};
    case OT_Q4_K: return (struct traits){sizeof(struct block_q4_k), .has_min = true};
    case OT_Q5_K: return (struct traits){sizeof(struct block_q5_k), .has_min = true};
    case OT_Q6_K: return (struct traits){sizeof(struct block_q6_k), .fine = true, .zero = 32};
    default: return (struct traits){sizeof(struct block_iq4_xs), .signed_codes = true};
    }
}

/* ---- scales of a unit ---- */

/* Of each sub-block, or of each 16 values where the type is fine; and the minima. In memory,
 * because they are wanted one by one, in all lanes, which a load does for nothing. */
struct scales {
    _Alignas(32) float d[16];
    __m256 m[2];
};

CODES_INLINE __m128i bytes16(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}
CODES_INLINE __m256 half(uint16_t h) {
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}
CODES_INLINE __m256 u8_to_f32(__m128i eight) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight));
}
CODES_INLINE __m256 i8_to_f32(__m128i eight) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
}

/* The f16 numbers at the start of n (1 to 8) blocks, or 2 bytes further. */
CODES_INLINE __m256 small_halves(const uint8_t *w, uint32_t block_bytes, uint32_t n) {
    _Alignas(16) uint16_t halves[8] = {0};
    for (uint32_t i = 0; i < n; i++) {
        memcpy(&halves[i], w + i * block_bytes, 2);
    }
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)halves));
}

/* All eight, without the way through memory. */
CODES_INLINE __m256 eight_halves(const uint8_t *w, uint32_t block_bytes) {
    uint16_t h[8];
    for (uint32_t i = 0; i < 8; i++) {
        memcpy(&h[i], w + i * block_bytes, 2);
    }
    return _mm256_cvtph_ps(_mm_setr_epi16((short)h[0], (short)h[1], (short)h[2], (short)h[3],
                                          (short)h[4], (short)h[5], (short)h[6], (short)h[7]));
}

/* 2^(e - 128), of which the two smallest are denormal. */
CODES_INLINE __m256 mxfp4_scales(const uint8_t *w, uint32_t n) {
    const uint64_t size = sizeof(struct block_mxfp4);
    uint64_t bytes = 0; /* put together in a register: narrow stores delay a wide load */
    for (uint32_t i = 0; i < n; i++) {
        bytes |= (uint64_t)w[i * size] << 8 * i;
    }
    __m256i e = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes));
    __m256i usual = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(usual, small, is_small));
}

/* The 6-bit scales and minima of Q4_K and Q5_K, as bytes. */
CODES_INLINE void scales_k4(const void *block, struct scales *s) {
    const struct block_q4_k *b = block;
    uint32_t w[3];
    memcpy(w, b->scales, sizeof w);
    uint32_t high_scales = (w[2] & 0x0f0f0f0fu) | (w[0] >> 2 & 0x30303030u);
    uint32_t high_mins = (w[2] >> 4 & 0x0f0f0f0fu) | (w[1] >> 2 & 0x30303030u);
    uint64_t scales = (w[0] & 0x3f3f3f3fu) | (uint64_t)high_scales << 32;
    uint64_t mins = (w[1] & 0x3f3f3f3fu) | (uint64_t)high_mins << 32;
    _mm256_store_ps(s->d,
                    _mm256_mul_ps(u8_to_f32(_mm_cvtsi64_si128((long long)scales)), half(b->d)));
    s->m[0] = _mm256_mul_ps(u8_to_f32(_mm_cvtsi64_si128((long long)mins)), half(b->dmin));
    s->m[0] = _mm256_sub_ps(_mm256_setzero_ps(), s->m[0]);
}

CODES_INLINE void store_16(__m128i scales, uint16_t d, struct scales *s) {
    _mm256_store_ps(s->d, _mm256_mul_ps(i8_to_f32(scales), half(d)));
    _mm256_store_ps(s->d + 8, _mm256_mul_ps(i8_to_f32(_mm_srli_si128(scales, 8)), half(d)));
}

CODES_INLINE void scales_q2_k(const struct block_q2_k *b, struct scales *s) {
    const __m128i low = _mm_set1_epi8(15);
    __m128i both = bytes16(b->scales), mins = _mm_and_si128(_mm_srli_epi16(both, 4), low);
    store_16(_mm_and_si128(both, low), b->d, s);
    __m256 dmin = _mm256_sub_ps(_mm256_setzero_ps(), half(b->dmin));
    s->m[0] = _mm256_mul_ps(u8_to_f32(mins), dmin);
    s->m[1] = _mm256_mul_ps(u8_to_f32(_mm_srli_si128(mins, 8)), dmin);
}

/* 16 numbers of 6 bits: the low nibbles of 8 bytes, their high nibbles; 4 bytes of 4 high pairs. */
CODES_INLINE void scales_q3_k(const struct block_q3_k *b, struct scales *s) {
    uint32_t w[3];
    memcpy(w, b->scales, sizeof w);
    __m128i low = _mm_setr_epi32((int)w[0], (int)w[1], (int)(w[0] >> 4), (int)(w[1] >> 4));
    __m128i high = _mm_srlv_epi32(_mm_set1_epi32((int)w[2]), _mm_setr_epi32(0, 2, 4, 6));
    low = _mm_and_si128(low, _mm_set1_epi8(15));
    high = _mm_slli_epi16(_mm_and_si128(high, _mm_set1_epi8(3)), 4);
    store_16(_mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32)), b->d, s);
}

CODES_INLINE void scales_iq4_xs(const struct block_iq4_xs *b, struct scales *s) {
    uint32_t low_bits;
    memcpy(&low_bits, b->scales_l, 4);
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int)low_bits),
                                    _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(b->scales_h),
                                     _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
    __m256i scale = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
    _mm256_store_ps(s->d, _mm256_mul_ps(_mm256_cvtepi32_ps(scale), half(b->d)));
}

/* Of n sub-blocks; n is 8 but in the last unit of a row of small blocks. */
CODES_INLINE void scales_unit(uint32_t dtype, const uint8_t *w, uint32_t n, struct scales *s) {
    const struct traits t = traits_of(dtype);
    const void *b = w;
    switch (dtype) {
    case OT_Q2_K: scales_q2_k(b, s); break;
    case OT_Q3_K: scales_q3_k(b, s); break;
    case OT_Q4_K:
    case OT_Q5_K: scales_k4(b, s); break;
    case OT_Q6_K: {
        const struct block_q6_k *q6 = b;
        store_16(bytes16(q6->scales), q6->d, s);
        break;
    }
    case OT_IQ4_XS: scales_iq4_xs(b, s); break;
    case OT_MXFP4: _mm256_store_ps(s->d, n == 8 ? mxfp4_scales(w, 8) : mxfp4_scales(w, n)); break;
    default:
        _mm256_store_ps(s->d, n == 8 ? eight_halves(w, t.block_bytes)
                                     : small_halves(w, t.block_bytes, n));
        if (t.has_min) {
            s->m[0] =
                n == 8 ? eight_halves(w + 2, t.block_bytes) : small_halves(w + 2, t.block_bytes, n);
        }
    }
}

/* ---- products ---- */

CODES_INLINE __m256 add_sub(uint32_t dtype, const uint8_t *w, int k, const struct scales *s,
                            const struct subs256 *a, __m256 sum) {
    const struct traits t = traits_of(dtype);
    __m256i codes = codes_sub(dtype, w, k), acts = codes_load(a->q[k]);
    __m256i pairs =
        t.signed_codes ? _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(acts, codes))
                       : _mm256_maddubs_epi16(codes, acts);
    __m256 dots = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    __m256 d;
    if (t.fine) {
        d = _mm256_blend_ps(_mm256_broadcast_ss(&s->d[2 * k]),
                            _mm256_broadcast_ss(&s->d[2 * k + 1]), 0xf0);
    } else {
        d = _mm256_broadcast_ss(&s->d[k]);
    }
    return _mm256_fmadd_ps(dots, _mm256_mul_ps(d, _mm256_load_ps(a->d[k])), sum);
}

/* What zero points or minima add. */
CODES_INLINE __m256 add_offsets(uint32_t dtype, const struct scales *s, const struct subs256 *a,
                                __m256 sum) {
    const struct traits t = traits_of(dtype);
    const __m256 minus_zero = _mm256_set1_ps(-(float)t.zero);
    const float *sums = t.fine ? a->s : a->s32;
    for (int i = 0; i < (t.fine ? 2 : 1) && (t.zero != 0 || t.has_min); i++) {
        __m256 m = t.has_min ? s->m[i] : _mm256_mul_ps(minus_zero, _mm256_load_ps(s->d + 8 * i));
        sum = _mm256_fmadd_ps(m, _mm256_load_ps(sums + 8 * i), sum);
    }
    return sum;
}

CODES_INLINE float sum_lanes(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

CODES_INLINE float row(uint32_t dtype, const uint8_t *p, uint32_t n_cols, const struct subs256 *a) {
    const struct traits t = traits_of(dtype);
    const uint32_t unit_bytes = t.small ? 8 * t.block_bytes : t.block_bytes;
    const uint64_t ahead = kernel_tuning.prefetch_bytes;
    struct scales s;
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, offsets = sum[0];
    for (; n_cols >= 256; n_cols -= 256, p += unit_bytes, a++) {
        for (uint32_t i = 0; i < unit_bytes; i += 64) {
            _mm_prefetch((const char *)p + ahead + i, _MM_HINT_T0);
        }
        scales_unit(dtype, p, 8, &s);
        __asm__("" : "+m"(s.d)); /* the compiler would rather shuffle registers than load */
        /* Written out: the sub-block has to be a constant. */
        sum[0] = add_sub(dtype, p, 0, &s, a, sum[0]);
        sum[1] = add_sub(dtype, p, 1, &s, a, sum[1]);
        sum[0] = add_sub(dtype, p, 2, &s, a, sum[0]);
        sum[1] = add_sub(dtype, p, 3, &s, a, sum[1]);
        sum[0] = add_sub(dtype, p, 4, &s, a, sum[0]);
        sum[1] = add_sub(dtype, p, 5, &s, a, sum[1]);
        sum[0] = add_sub(dtype, p, 6, &s, a, sum[0]);
        sum[1] = add_sub(dtype, p, 7, &s, a, sum[1]);
        offsets = add_offsets(dtype, &s, a, offsets);
    }
    if (t.small && n_cols > 0) {
        scales_unit(dtype, p, n_cols / 32, &s);
        for (uint32_t k = 0; k < n_cols / 32; k++) {
            sum[k % 2] = add_sub(dtype, p, (int)k, &s, a, sum[k % 2]);
        }
        offsets = add_offsets(dtype, &s, a, offsets);
    }
    return sum_lanes(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), offsets));
}

CODES_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                       uint32_t n_cols, const struct subs256 *a, float *y) {
    for (uint32_t r = 0; r < n_rows; r++) {
        y[r] = row(dtype, w + r * row_bytes, n_cols, a);
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
    k->type[dtype].layout_gemv = LAYOUT_SUBS256;
}

void gemv_fill_avx2(struct kernels *k) {
    gemv_float_fill_avx2(k);
    set(k, OT_Q4_0, gemv_q4_0);
    set(k, OT_Q4_1, gemv_q4_1);
    set(k, OT_Q5_0, gemv_q5_0);
    set(k, OT_Q5_1, gemv_q5_1);
    set(k, OT_Q8_0, gemv_q8_0);
    set(k, OT_IQ4_NL, gemv_iq4_nl);
    set(k, OT_MXFP4, gemv_mxfp4);
    set(k, OT_Q2_K, gemv_q2_k);
    set(k, OT_Q3_K, gemv_q3_k);
    set(k, OT_Q4_K, gemv_q4_k);
    set(k, OT_Q5_K, gemv_q5_k);
    set(k, OT_Q6_K, gemv_q6_k);
    set(k, OT_IQ4_XS, gemv_iq4_xs);
}
