/* gemv_block32_avx2.c - matrix times vector for types with blocks of 32 values: eight blocks at a
 * time, lane l for block l (MXFP4: in another order; Q8_0: lane l for half l / 4 of block l % 4,
 * two vectors).
 *
 * A row's last one to seven blocks are computed as eight: what follows them in memory meets
 * activations of zero, and its scales are masked, because they may be no numbers. Where nothing
 * readable follows, the blocks are copied first. */
#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/gemv_avx2.h"

GEMV_INLINE uint32_t block_bytes_of(uint32_t dtype) {
    switch (dtype) {
    case OT_Q4_1: return sizeof(struct block_q4_1);
    case OT_Q5_0: return sizeof(struct block_q5_0);
    case OT_Q5_1: return sizeof(struct block_q5_1);
    case OT_Q8_0: return sizeof(struct block_q8_0);
    case OT_MXFP4: return sizeof(struct block_mxfp4);
    default: return sizeof(struct block_q4_0); /* IQ4_NL has the same shape */
    }
}

/* ---- scales: a load for each word wanted, shifted so that the word lies where it shall go ---- */

struct scales {
    __m256 d, m; /* of each block */
};

/* The 32-bit words at p, p + stride..., as one vector. */
GEMV_INLINE __m128i four_words(const uint8_t *p, uint32_t s1, uint32_t s2, uint32_t s3) {
    __m128i v = _mm_blend_epi32(gemv_load16(p), gemv_load16(p + s1 - 4), 2);
    __m128i w = _mm_blend_epi32(gemv_load16(p + s2 - 8), gemv_load16(p + s3 - 12), 8);
    return _mm_blend_epi32(v, w, 12);
}

/* The f16 numbers at the start of 8 blocks of 18 bytes: number k is word k of the k-th 16 bytes. */
GEMV_INLINE __m256 halves_18(const uint8_t *p) {
    __m256i v = _mm256_blend_epi16(gemv_load32(p), gemv_load32(p + 32), 0x0c);
    __m256i w = _mm256_blend_epi16(gemv_load32(p + 64), gemv_load32(p + 96), 0xc0);
    v = _mm256_blend_epi16(v, w, 0xf0);
    __m128i h = _mm256_castsi256_si128(v);
    return _mm256_cvtph_ps(_mm_blend_epi16(h, _mm256_extracti128_si256(v, 1), 0xaa));
}

/* Of blocks of another size. */
GEMV_INLINE __m128i eight_halves(const uint8_t *p, uint32_t block_bytes) {
    const uint32_t s = block_bytes - 2;
    __m128i a = _mm_blend_epi16(gemv_load16(p), gemv_load16(p + s), 0x02);
    __m128i b = _mm_blend_epi16(gemv_load16(p + 2 * s), gemv_load16(p + 3 * s), 0x08);
    __m128i c = _mm_blend_epi16(gemv_load16(p + 4 * s), gemv_load16(p + 5 * s), 0x20);
    __m128i d = _mm_blend_epi16(gemv_load16(p + 6 * s), gemv_load16(p + 7 * s), 0x80);
    return _mm_blend_epi16(_mm_blend_epi16(a, b, 0x0c), _mm_blend_epi16(c, d, 0xc0), 0xf0);
}

/* f16 scale and minimum at the start of each block. */
GEMV_INLINE struct scales scales_and_minima(const uint8_t *p, uint32_t s) {
    __m256 x = _mm256_cvtph_ps(four_words(p, s, 4 * s, 5 * s));
    __m256 y = _mm256_cvtph_ps(four_words(p + 2 * s, s, 4 * s, 5 * s));
    return (struct scales){_mm256_shuffle_ps(x, y, 0x88), _mm256_shuffle_ps(x, y, 0xdd)};
}

/* 2^(e - 128): the exponent e - 1, but for the two smallest, which are denormal. e of block k is
 * byte k of the k-th 16 bytes: of block 2 j in word j of the lower half here, of 2 j + 1 in the
 * upper one's. */
GEMV_INLINE __m256 scales_mxfp4(const uint8_t *p) {
    const __m256i at =
        _mm256_setr_epi32((int)0x80808000u, (int)0x80808002u, (int)0x80808004u, (int)0x80808006u,
                          (int)0x80808001u, (int)0x80808003u, (int)0x80808005u, (int)0x80808007u);
    __m256i v = _mm256_blend_epi16(gemv_load32(p), gemv_load32(p + 32), 0x02);
    __m256i w = _mm256_blend_epi16(gemv_load32(p + 64), gemv_load32(p + 96), 0x08);
    __m256i e = _mm256_shuffle_epi8(_mm256_blend_epi16(v, w, 0x0c), at);
    __m256i usual = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(1)), 21);
    return _mm256_castsi256_ps(_mm256_max_epi32(usual, small));
}

GEMV_INLINE struct scales scales_of(uint32_t dtype, const uint8_t *p) {
    switch (dtype) {
    case OT_Q4_1:
    case OT_Q5_1: return scales_and_minima(p, block_bytes_of(dtype));
    case OT_Q5_0:
    case OT_Q8_0:
        return (struct scales){.d = _mm256_cvtph_ps(eight_halves(p, block_bytes_of(dtype)))};
    case OT_MXFP4: return (struct scales){.d = scales_mxfp4(p)};
    default: return (struct scales){.d = halves_18(p)};
    }
}

/* ---- codes ---- */

/* 16 bytes at p of each of eight blocks, transposed: chunk c of all blocks in vector c. Word j of
 * half h is of block 4 h + j, for MXFP4 of block 2 j + h. */
GEMV_INLINE struct gemv_four nibbles(uint32_t dtype, const uint8_t *p) {
    const uint32_t size = block_bytes_of(dtype);
    const __m256i pairs =
        gemv_twice(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    struct gemv_four q;
    for (uint32_t k = 0; k < 4; k++) {
        const uint8_t *b = p + (dtype == OT_MXFP4 ? 2 * k : k) * size;
        q.x[k] = _mm256_inserti128_si256(_mm256_castsi128_si256(gemv_load16(b)),
                                         gemv_load16(b + (dtype == OT_MXFP4 ? 1 : 4) * size), 1);
        if (dtype == OT_Q5_0 || dtype == OT_Q5_1) {
            q.x[k] = _mm256_shuffle_epi8(q.x[k], pairs);
        }
    }
    return gemv_transpose(q);
}

/* Fifth bits of the low (v = 0) or high codes; bits: 32 bits a block. The codes' order is such (see
 * `pairs`) that bytes 0 and 1 of chunk c want bit 2 c of bytes 2 v and 2 v + 1, bytes 2 and 3 want
 * bit 2 c + 1: one shift of all serves each chunk. */
GEMV_INLINE struct gemv_four with_fifth(struct gemv_four codes, __m256i bits, int v) {
    const __m256i bit = _mm256_set1_epi8(16);
    const int b = 0x01000100 + v * 0x02020202, more = 0x04040404;
    const __m256i at = _mm256_setr_epi32(b, b + more, b + 2 * more, b + 3 * more, b, b + more,
                                         b + 2 * more, b + 3 * more);
    __m256i x = _mm256_shuffle_epi8(bits, at);
    x = _mm256_blend_epi16(x, _mm256_srli_epi16(x, 1), 0xaa);
    __m256i fifth[4] = {_mm256_slli_epi16(x, 4), _mm256_slli_epi16(x, 2), x,
                        _mm256_srli_epi16(x, 2)};
    for (int c = 0; c < 4; c++) {
        codes.x[c] = _mm256_or_si256(codes.x[c], _mm256_and_si256(fifth[c], bit));
    }
    return codes;
}

/* The 32-bit words at p of eight blocks. */
GEMV_INLINE __m256i eight_words(const uint8_t *p, uint32_t s) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(four_words(p, s, 2 * s, 3 * s)),
                                   four_words(p + 4 * s, s, 2 * s, 3 * s), 1);
}

/* ---- one unit; dtype is a constant where these are inlined ---- */

GEMV_INLINE __m256 scaled(__m256i dots, const float d[8], __m256 start) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), _mm256_load_ps(d), start);
}

/* Codes of vector v; bits: the fifth ones, for types that have them. */
GEMV_INLINE struct gemv_four codes(uint32_t dtype, struct gemv_four q, __m256i bits, int v) {
    static const int8_t raised_mxfp4[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                            12, 11, 10, 9,  8,  6,  4,  0};
    struct gemv_four code = v == 0 ? gemv_low_nibbles(q) : gemv_high_nibbles(q);
    switch (dtype) {
    case OT_Q5_0:
    case OT_Q5_1: return with_fifth(code, bits, v);
    case OT_MXFP4: return gemv_look_up(raised_mxfp4, code);
    case OT_IQ4_NL: return gemv_look_up(codes_iq4, code);
    default: return code;
    }
}

GEMV_INLINE __m256i dots_of(uint32_t dtype, struct gemv_four codes, const void *acts, int v) {
    if (dtype == OT_IQ4_NL) {
        return gemv_dot_signed(codes, acts, v, gemv_ones());
    }
    const struct lanes *a = acts;
    return _mm256_madd_epi16(gemv_dot16(codes, a->q[v]), gemv_ones());
}

/* A unit's products, in both vectors of lanes, before they are scaled. */
struct unit_dots {
    __m256i of[2];
};

GEMV_INLINE bool has_fifth(uint32_t dtype) {
    return dtype == OT_Q5_0 || dtype == OT_Q5_1;
}

/* q: the unit's nibbles. */
GEMV_INLINE struct unit_dots dots_of_unit(uint32_t dtype, const uint8_t *p, struct gemv_four q,
                                          const void *acts) {
    const uint32_t size = block_bytes_of(dtype);
    __m256i bits = has_fifth(dtype) ? eight_words(p + size - 20, size) : _mm256_setzero_si256();
    struct unit_dots dots;
    dots.of[0] = dots_of(dtype, codes(dtype, q, bits, 0), acts, 0);
    gemv_order(&dots.of[0], &q);
    dots.of[1] = dots_of(dtype, codes(dtype, q, bits, 1), acts, 1);
    return dots;
}

GEMV_INLINE __m256 add_scaled(uint32_t dtype, struct scales s, struct unit_dots dots,
                              const void *acts, __m256 sum) {
    const struct lane_scales *a = dtype == OT_IQ4_NL ? &((const struct lanes_signed *)acts)->scales
                                                     : &((const struct lanes *)acts)->scales;
    const bool has_min = dtype == OT_Q4_1 || dtype == OT_Q5_1;
    if (has_min) {
        sum = _mm256_fmadd_ps(s.m, _mm256_load_ps(a->s[0]), sum);
    }
    __m256 start = has_min ? _mm256_setzero_ps() : _mm256_load_ps(a->s[0]);
    __m256 both = scaled(dots.of[1], a->d[1], scaled(dots.of[0], a->d[0], start));
    return _mm256_fmadd_ps(s.d, both, sum);
}

/* d: of its four blocks, twice. */
GEMV_INLINE __m256 add_q8_0(struct gemv_four q, __m256 d, const struct lanes_signed *a, int v,
                            __m256 sum) {
    __m256i dots = gemv_dot_signed(q, a, v, gemv_ones());
    __m256 dot = scaled(dots, a->scales.d[v], _mm256_load_ps(a->scales.s[v]));
    return _mm256_fmadd_ps(dot, d, sum);
}

/* A unit for n tokens, a constant where this is inlined. keep: of the scales, where only some of
 * the blocks count. */
GEMV_INLINE void add_unit(uint32_t dtype, uint32_t n, const uint8_t *p, const __m256 *keep,
                          const uint8_t *const *a, __m256 *sums) {
    const uint32_t size = block_bytes_of(dtype);
    struct scales s = scales_of(dtype, p);
    if (keep != NULL) {
        s.d = _mm256_and_ps(s.d, *keep);
        s.m = _mm256_and_ps(s.m, *keep);
    }
    if (dtype == OT_Q8_0) {
        for (int v = 0; v < 2; v++, p += 4 * size) {
            struct gemv_four q = gemv_transpose(
                (struct gemv_four){{gemv_load32(p + 2), gemv_load32(p + size + 2),
                                    gemv_load32(p + 2 * size + 2), gemv_load32(p + 3 * size + 2)}});
            __m256 d = v == 0 ? _mm256_permute2f128_ps(s.d, s.d, 0x00)
                              : _mm256_permute2f128_ps(s.d, s.d, 0x11);
            GEMV_EACH(t, n) {
                sums[t] = add_q8_0(q, d, (const void *)a[t], v, sums[t]);
            }
        }
        return;
    }
    struct gemv_four q = nibbles(dtype, p + size - 16);
    __m256i bits = has_fifth(dtype) ? eight_words(p + size - 20, size) : _mm256_setzero_si256();
    struct unit_dots dots[GEMV_TOGETHER];
    const struct gemv_four low = codes(dtype, q, bits, 0);
    GEMV_EACH(t, n) {
        dots[t].of[0] = dots_of(dtype, low, a[t], 0);
    }
    gemv_order(&dots[n - 1].of[0], &q);
    const struct gemv_four high = codes(dtype, q, bits, 1);
    GEMV_EACH(t, n) {
        dots[t].of[1] = dots_of(dtype, high, a[t], 1);
        sums[t] = add_scaled(dtype, s, dots[t], a[t], sums[t]);
    }
}

GEMV_INLINE uint32_t act_bytes_of(uint32_t dtype) {
    return dtype == OT_IQ4_NL || dtype == OT_Q8_0 ? sizeof(struct lanes_signed)
                                                  : sizeof(struct lanes);
}

/* The row's last n_cols, less than 256. readable: bytes from p on. */
GEMV_INLINE void add_rest(uint32_t dtype, uint32_t n_tokens, const uint8_t *p, uint32_t n_cols,
                          uint64_t readable, const uint8_t *const *a, __m256 *sums) {
    uint8_t copy[8 * sizeof(struct block_q8_0)];
    const uint32_t size = block_bytes_of(dtype), n = n_cols / 32;
    if (readable < 8 * size) {
        memset(copy, 0, sizeof copy);
        memcpy(copy, p, n * size);
        p = copy;
    }
    const __m256i lane = dtype == OT_MXFP4 ? _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)
                                           : _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256 keep = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane));
    add_unit(dtype, n_tokens, p, &keep, a, sums);
}

/* n units, at least one, of a type other than Q8_0. A unit takes longer from its first load to its
 * sum than a core looks ahead, so while one is multiplied the one before is scaled, and the one
 * after is transposed (not where fifth bits take the registers). */
GEMV_INLINE __m256 add_units(uint32_t dtype, const uint8_t *p, uint32_t n, const uint8_t *a,
                             struct kernel_ahead ahead, __m256 sum) {
    const uint32_t size = block_bytes_of(dtype), unit = 8 * size;
    const bool early = !has_fifth(dtype);
    kernel_prefetch(p, ahead, unit);
    struct gemv_four q = nibbles(dtype, p + size - 16), next = q;
    if (early && n > 1) {
        next = nibbles(dtype, p + unit + size - 16);
    }
    struct unit_dots dots = dots_of_unit(dtype, p, q, a);
    for (; n > 1; n--, a += act_bytes_of(dtype)) {
        const uint8_t *const before = p;
        p += unit;
        kernel_prefetch(p, ahead, unit);
        q = early ? next : nibbles(dtype, p + size - 16);
        if (early) {
            next = nibbles(dtype, (n > 2 ? p + unit : p) + size - 16);
        }
        sum = add_scaled(dtype, scales_of(dtype, before), dots, a, sum);
        dots = dots_of_unit(dtype, p, q, a + act_bytes_of(dtype));
    }
    return add_scaled(dtype, scales_of(dtype, p), dots, a, sum);
}

/* A row's columns from p on, n_cols of them, for n tokens; readable: bytes from p on. */
GEMV_INLINE void add_columns_of(uint32_t dtype, uint32_t n, const uint8_t *p, uint32_t n_cols,
                                uint64_t readable, const uint8_t **a, struct kernel_ahead ahead,
                                __m256 *sums) {
    const uint32_t unit = 8 * block_bytes_of(dtype), n_units = n_cols / 256;
    if (n == 1 && dtype != OT_Q8_0 && n_units > 0) {
        sums[0] = add_units(dtype, p, n_units, a[0], ahead, sums[0]);
        p += (uint64_t)n_units * unit;
        a[0] += (uint64_t)n_units * act_bytes_of(dtype);
    } else {
        for (uint32_t i = 0; i < n_units; i++, p += unit) {
            kernel_prefetch(p, ahead, unit);
            add_unit(dtype, n, p, NULL, a, sums);
            GEMV_EACH(t, n) {
                a[t] += act_bytes_of(dtype);
            }
        }
    }
    if (n_cols % 256 > 0) {
        add_rest(dtype, n, p, n_cols % 256, readable - (uint64_t)n_units * unit, a, sums);
    }
}

/* The same for one token. */
GEMV_INLINE __m256 add_columns(uint32_t dtype, const uint8_t *p, uint32_t n_cols, uint64_t readable,
                               const uint8_t *a, struct kernel_ahead ahead, __m256 sum) {
    add_columns_of(dtype, 1, p, n_cols, readable, &a, ahead, &sum);
    return sum;
}

GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const void *acts, float *y) {
    const struct kernel_ahead ahead = kernel_ahead();
    const uint64_t own_bytes = n_cols / 32 * block_bytes_of(dtype);
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint64_t readable = (n_rows - 1 - r) * row_bytes + own_bytes + KERNEL_OVERREAD;
        y[r] = gemv_sum_lanes(add_columns(dtype, w + r * row_bytes, n_cols, readable, acts, ahead,
                                          _mm256_setzero_ps()));
    }
}

enum { BLOCK_COLS = 8192 }; /* of Q8_0: 20 KiB of activations */

/* gemv_avx2.h says what a group of rows does with its blocks of columns. */
GEMV_INLINE void long_rows(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                           uint32_t n_cols, const uint8_t *acts, float *y) {
    const uint32_t size = block_bytes_of(dtype);
    const uint64_t own_bytes = n_cols / 32 * size;
    const uint32_t n_blocks = (n_cols + BLOCK_COLS - 1) / BLOCK_COLS;
    const uint32_t block = (n_cols / n_blocks + 255) / 256 * 256;
    for (uint32_t first = 0; first < n_rows; first += GEMV_GROUP_ROWS) {
        const uint32_t n = min_u32(n_rows - first, GEMV_GROUP_ROWS);
        __m256 sums[GEMV_GROUP_ROWS];
        memset(sums, 0, sizeof sums);
        for (uint32_t from = 0; from < n_cols; from += block) {
            const uint32_t n_block = min_u32(n_cols - from, block);
            const uint64_t at_bytes = from / 32 * size;
            const uint64_t back = gemv_ahead_after_group(row_bytes, n, at_bytes, block / 32 * size,
                                                         from + n_block == n_cols);
            const uint8_t *const a = acts + (uint64_t)from / 256 * act_bytes_of(dtype);
            for (uint32_t r = 0; r < n; r++) {
                const uint64_t after = (n_rows - 1 - first - r) * row_bytes + KERNEL_OVERREAD;
                sums[r] = add_columns(dtype, w + (first + r) * row_bytes + at_bytes, n_block,
                                      after + own_bytes - at_bytes, a,
                                      kernel_ahead_by(r + 1 < n ? row_bytes : back), sums[r]);
            }
        }
        for (uint32_t r = 0; r < n; r++) {
            y[first + r] = gemv_sum_lanes(sums[r]);
        }
    }
}

/* ---- several tokens ---- */

GEMV_INLINE void few_part(uint32_t dtype, uint32_t n, const struct gemv_part *p,
                          const void *const *x, __m256 *sums) {
    const uint32_t from = p->from * 256;
    const uint64_t at = (uint64_t)p->from * 8 * block_bytes_of(dtype);
    const uint8_t *a[GEMV_TOGETHER];
    GEMV_EACH(t, n) {
        a[t] = (const uint8_t *)x[t] + (uint64_t)p->from * act_bytes_of(dtype);
    }
    add_columns_of(dtype, n, p->row + at, min_u32(p->to * 256, p->n_cols) - from, p->readable - at,
                   a, p->ahead, sums);
}

GEMV_INLINE float sum_of(const __m256 *sums) {
    return gemv_sum_lanes(sums[0]);
}

#define FEW(name, dtype, lanes)                                                                    \
    GEMV_FEW(name, few_part, sum_of, dtype, 1, 4, 256, 8 * block_bytes_of(dtype),                  \
             sizeof(struct lanes))
FEW(few_q4_0, OT_Q4_0, lanes)
FEW(few_q4_1, OT_Q4_1, lanes)
FEW(few_q5_0, OT_Q5_0, lanes)
FEW(few_q5_1, OT_Q5_1, lanes)
FEW(few_q8_0, OT_Q8_0, lanes_signed)
FEW(few_iq4_nl, OT_IQ4_NL, lanes_signed)
FEW(few_mxfp4, OT_MXFP4, lanes)

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
    if (n_cols > BLOCK_COLS) {
        long_rows(OT_Q8_0, w, row_bytes, n_rows, n_cols, x, y);
    } else {
        gemv(OT_Q8_0, w, row_bytes, n_rows, n_cols, x, y);
    }
}
static void gemv_iq4_nl(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                        const void *x, float *y) {
    gemv(OT_IQ4_NL, w, row_bytes, n_rows, n_cols, x, y);
}
static void gemv_mxfp4(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                       const void *x, float *y) {
    gemv(OT_MXFP4, w, row_bytes, n_rows, n_cols, x, y);
}

static void set(struct kernels *k, uint32_t dtype, kernel_gemv_fn *fn, kernel_few_fn *few_fn,
                uint8_t layout) {
    k->type[dtype].gemv = fn;
    k->type[dtype].few = few_fn;
    k->type[dtype].layout_gemv = layout;
}

void gemv_block32_fill_avx2(struct kernels *k) {
    set(k, OT_Q4_0, gemv_q4_0, few_q4_0, LAYOUT_LANES_Q4_0);
    set(k, OT_Q4_1, gemv_q4_1, few_q4_1, LAYOUT_LANES_Q4_1);
    set(k, OT_Q5_0, gemv_q5_0, few_q5_0, LAYOUT_LANES_Q5_0);
    set(k, OT_Q5_1, gemv_q5_1, few_q5_1, LAYOUT_LANES_Q5_1);
    set(k, OT_Q8_0, gemv_q8_0, few_q8_0, LAYOUT_LANES_Q8_0);
    set(k, OT_IQ4_NL, gemv_iq4_nl, few_iq4_nl, LAYOUT_LANES_IQ4_NL);
    set(k, OT_MXFP4, gemv_mxfp4, few_mxfp4, LAYOUT_LANES_MXFP4);
}
