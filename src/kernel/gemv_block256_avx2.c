/* gemv_block256_avx2.c - matrix times vector for types with blocks of 256 values.
 *
 * A block has 16 groups of 16 values: two vectors of 8 lanes (layout_avx2.h). The products of a
 * lane are multiplied by its group's scale, a small integer, where they become 32 bits wide: by
 * vpmaddwd, which would multiply by one otherwise. Then they are scaled by the activation's scale,
 * and their sum by the block's. */
#include "kernel/fill.h"
#include "kernel/gemv_avx2.h"

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

/* A constant for each word of 32 bits of a 16-byte half. */
GEMV_INLINE __m256i words(int32_t w0, int32_t w1, int32_t w2, int32_t w3) {
    return _mm256_setr_epi32(w0, w1, w2, w3, w0, w1, w2, w3);
}

/* Word c of each 16-byte half of a, twice, and of b, twice. c is a constant where this is inlined,
 * so one case is left; clang wants to see that it is one. */
GEMV_INLINE __m256i words_aabb(__m256i a, __m256i b, int c) {
    __m256 x = _mm256_castsi256_ps(a), y = _mm256_castsi256_ps(b);
    switch (c) {
    case 0: return _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x00));
    case 1: return _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x55));
    case 2: return _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xaa));
    default: return _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xff));
    }
}

/* ---- codes: what both vectors need, then vector by vector ---- */

struct packed {
    struct gemv_four low, high;
};

/* Four vectors of nibbles, transposed. */
GEMV_INLINE struct gemv_four nibbles(const uint8_t *p) {
    return gemv_transpose((struct gemv_four){
        {gemv_load32(p), gemv_load32(p + 32), gemv_load32(p + 64), gemv_load32(p + 96)}});
}

GEMV_INLINE struct gemv_four all_words_aabb(__m256i a, __m256i b) {
    struct gemv_four w;
    for (int c = 0; c < 4; c++) {
        w.x[c] = words_aabb(a, b, c);
    }
    return w;
}

/* dtype and v are constants where these are inlined. */
GEMV_INLINE struct packed packed_of(uint32_t dtype, const void *block) {
    struct packed p = {0};
    switch (dtype) {
    case OT_Q2_K:
    case OT_Q3_K: break;
    case OT_Q4_K: p.low = nibbles(((const struct block_q4_k *)block)->qs); break;
    case OT_Q5_K: {
        const struct block_q5_k *b = block;
        __m256i high = gemv_load32(b->qh);
        p.low = nibbles(b->qs);
        p.high = all_words_aabb(_mm256_slli_epi16(high, 4), high);
        for (int c = 0; c < 4; c++) {
            p.high.x[c] = _mm256_srlv_epi32(p.high.x[c], words(0, 2, 0, 2));
        }
        break;
    }
    case OT_Q6_K: {
        const struct block_q6_k *b = block;
        p.low = nibbles(b->ql);
        p.high = all_words_aabb(gemv_load32(b->qh), gemv_load32(b->qh + 32));
        break;
    }
    default: p.low = nibbles(((const struct block_iq4_xs *)block)->qs);
    }
    return p;
}

/* Pairs of bits, word j of a half for sub-block j (+ 4): raised by 1, 4, 1, 4. */
GEMV_INLINE struct gemv_four codes_two_bits(const uint8_t qs[64], int v) {
    __m256i q = gemv_load32(qs + 32 * v);
    return gemv_masked(all_words_aabb(q, _mm256_srli_epi16(q, 4)),
                       words(0x03030303, 0x0c0c0c0c, 0x03030303, 0x0c0c0c0c));
}

/* Bits that lie apart, put on top of codes. */
GEMV_INLINE __m256i with_bits(__m256i code, __m256i bits, __m256i mask) {
    return _mm256_or_si256(code, _mm256_and_si256(bits, mask));
}

/* A byte of qs has two bits of each of four sub-blocks, a byte of hmask the third bit of eight. Two
 * look-ups give the codes of the first two sub-blocks in bits 0 to 2 and 3 to 5, two those of the
 * others; words 1 and 3 of a half are so raised by 8. */
GEMV_INLINE struct gemv_four codes_q3_k(const struct block_q3_k *b, int v) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i low_bits =
        gemv_twice(_mm_setr_epi8(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27));
    const __m256i first_high =
        gemv_twice(_mm_setr_epi8(0, 4, 32, 36, 0, 4, 32, 36, 0, 4, 32, 36, 0, 4, 32, 36));
    const __m256i second_high =
        gemv_twice(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 32, 32, 32, 32, 36, 36, 36, 36));
    __m256i q = gemv_load32(b->qs + 32 * v), high = gemv_load32(b->hmask);
    high = _mm256_and_si256(v == 0 ? high : _mm256_srli_epi16(high, 4), nibble);
    __m256i first = _mm256_shuffle_epi8(low_bits, _mm256_and_si256(q, nibble));
    __m256i second =
        _mm256_shuffle_epi8(low_bits, _mm256_and_si256(_mm256_srli_epi16(q, 4), nibble));
    first = _mm256_or_si256(first, _mm256_shuffle_epi8(first_high, high));
    second = _mm256_or_si256(second, _mm256_shuffle_epi8(second_high, high));
    return gemv_masked(all_words_aabb(first, second),
                       words(0x07070707, 0x38383838, 0x07070707, 0x38383838));
}

GEMV_INLINE struct gemv_four codes_nibbles(const struct packed *p, int v) {
    return v == 0 ? gemv_low_nibbles(p->low) : gemv_high_nibbles(p->low);
}

/* The fifth bit is bit k of its byte for sub-block k, here bit 4 for 2 j and bit 5 for 2 j + 1:
 * where they belong if codes of vector 1 are raised by 2. */
GEMV_INLINE struct gemv_four codes_q5_k(const struct packed *p, int v) {
    struct gemv_four q;
    for (int c = 0; c < 4; c++) {
        __m256i low = v == 0 ? p->low.x[c] : _mm256_srli_epi16(p->low.x[c], 3);
        low = _mm256_and_si256(low, _mm256_set1_epi8(v == 0 ? 0x0f : 0x1e));
        q.x[c] = with_bits(low, p->high.x[c], _mm256_set1_epi8(v == 0 ? 0x10 : 0x20));
    }
    return q;
}

/* Words 0, 1 and 2, 3 of a half: sub-blocks 0, 1 of each 128 values, whose high bits are bits 0 to
 * 3 of their bytes; of vector 1: sub-blocks 2, 3. */
GEMV_INLINE struct gemv_four codes_q6_k(const struct packed *p, int v) {
    struct gemv_four q = codes_nibbles(p, v);
    for (int c = 0; c < 4; c++) {
        __m256i high = v == 0 ? _mm256_sllv_epi32(p->high.x[c], words(4, 2, 4, 2))
                              : _mm256_srlv_epi32(p->high.x[c], words(0, 2, 0, 2));
        q.x[c] = with_bits(q.x[c], high, _mm256_set1_epi8(48));
    }
    return q;
}

GEMV_INLINE struct gemv_four codes(uint32_t dtype, const void *block, const struct packed *p,
                                   int v) {
    switch (dtype) {
    case OT_Q2_K: return codes_two_bits(((const struct block_q2_k *)block)->qs, v);
    case OT_Q3_K: return codes_q3_k(block, v);
    case OT_Q5_K: return codes_q5_k(p, v);
    case OT_Q6_K: return codes_q6_k(p, v);
    case OT_IQ4_XS: return gemv_look_up(codes_iq4, codes_nibbles(p, v));
    default: return codes_nibbles(p, v);
    }
}

/* 4 bytes, by a load that repeats them and takes no shuffle; the compiler knows it for floats. */
GEMV_INLINE __m256i repeated(const void *p) {
    return _mm256_castps_si256(_mm256_broadcast_ss(p));
}

/* ---- scales: 16 bytes in each half, of which a lane takes its group's ---- */

/* Bytes at i0 to i3 for the words of the lower half, h more for the upper one's: as 32-bit numbers,
 * as pairs of 16-bit ones, or as the upper bytes of those. */
#define WORD(i) (int32_t)(0x80808000u + (i))
#define PAIR(i) (int32_t)(0x80008000u + 0x00010001u * (i))
#define HIGH_PAIR(i) (int32_t)(0x00800080u + 0x01000100u * (i))
#define PLACES(form, i0, i1, i2, i3, h)                                                            \
    _mm256_setr_epi32(form(i0), form(i1), form(i2), form(i3), form((i0) + (h)), form((i1) + (h)),  \
                      form((i2) + (h)), form((i3) + (h)))

/* 0 to 255 */
GEMV_INLINE __m256i unsigned_pairs(__m256i bytes, __m256i at) {
    return _mm256_shuffle_epi8(bytes, at);
}
/* -128 to 127; at: of HIGH_PAIRs */
GEMV_INLINE __m256i signed_pairs(__m256i bytes, __m256i at) {
    return _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, at), 8);
}
GEMV_INLINE __m256 to_f32(__m256i bytes, __m256i at) {
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, at));
}

struct scales {
    __m256i bytes, high; /* high: Q3_K */
};

/* 16 numbers of 6 bits: the low nibbles of 8 bytes, their high nibbles; 4 bytes of 4 high pairs. As
 * pairs already: both nibbles of a lane of vector 0 and of vector 1; the byte with their high bits.
 */
GEMV_INLINE struct scales scales_q3_k(const struct block_q3_k *b) {
    /* The 12 bytes and d, and two bytes of codes before them. */
    __m256i all = gemv_twice(gemv_load16(b->scales - 2));
    return (struct scales){unsigned_pairs(all, PLACES(PAIR, 2, 4, 6, 8, 1)),
                           unsigned_pairs(all, PLACES(PAIR, 10, 12, 10, 12, 1))};
}

GEMV_INLINE __m256i factors_q3_k(struct scales s, int v) {
    __m256i low =
        v == 0 ? _mm256_and_si256(s.bytes, _mm256_set1_epi16(15)) : _mm256_srli_epi16(s.bytes, 4);
    __m256i high = v == 0 ? _mm256_sllv_epi32(s.high, words(4, 4, 2, 2))
                          : _mm256_srlv_epi32(s.high, words(0, 0, 2, 2));
    high = _mm256_and_si256(high, _mm256_set1_epi16(48));
    return _mm256_sub_epi16(_mm256_or_si256(low, high), _mm256_set1_epi16(32));
}

/* Q4_K, Q5_K: scales of sub-blocks 0 to 3 in bytes 0 to 3, of 4 to 7 in bytes 8 to 11; their minima
 * in the others. After d and dmin there are 12 bytes: four with a scale, four with a minimum of the
 * first half, both of 6 bits with two bits of the second half's on top; four of the second half's
 * nibbles. */
GEMV_INLINE __m256i scales_k4(const void *block) {
    const __m256i order =
        gemv_twice(_mm_setr_epi8(4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 12, 13, 14, 15));
    const __m256i mask = words(0x3f3f3f3f, 0x3f3f3f3f, 0x0f0f0f0f, 0x0f0f0f0f);
    __m256i bytes = _mm256_shuffle_epi8(gemv_twice(gemv_load16(block)), order);
    __m256i low = _mm256_and_si256(_mm256_srlv_epi32(bytes, words(0, 0, 0, 4)), mask);
    __m256i high = _mm256_srli_epi16(_mm256_slli_si256(bytes, 8), 2);
    return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
}

/* 8 numbers of 6 bits: nibbles of one word, pairs of bits of a half of another. As pairs already,
 * number 2 j + h in word j of half h. */
GEMV_INLINE __m256i scales_iq4_xs(const void *block) {
    const __m256i pair =
        gemv_twice(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13));
    __m256i low = _mm256_srlv_epi32(repeated((const uint8_t *)block + 4),
                                    _mm256_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28));
    __m256i high =
        _mm256_srlv_epi32(repeated(block), _mm256_setr_epi32(12, 16, 20, 24, 14, 18, 22, 26));
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    high = _mm256_and_si256(high, _mm256_set1_epi32(48));
    __m256i scale = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
    return _mm256_shuffle_epi8(scale, pair);
}

GEMV_INLINE struct scales scales_of(uint32_t dtype, const void *block) {
    struct scales s = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    switch (dtype) {
    case OT_Q2_K:
        s.bytes = gemv_twice(gemv_load16(((const struct block_q2_k *)block)->scales));
        break;
    case OT_Q3_K: return scales_q3_k(block);
    case OT_Q4_K:
    case OT_Q5_K: s.bytes = scales_k4(block); break;
    case OT_Q6_K:
        s.bytes = gemv_twice(gemv_load16(((const struct block_q6_k *)block)->scales));
        break;
    default: s.bytes = scales_iq4_xs(block);
    }
    return s;
}

/* Of the lanes of vector v, as pairs: group 2 (4 v + j) + h in word j of half h, and by the other
 * orders of layout_avx2.c. */
GEMV_INLINE __m256i factors(uint32_t dtype, struct scales scales, int v) {
    switch (dtype) {
    case OT_Q2_K:
        return unsigned_pairs(_mm256_and_si256(scales.bytes, _mm256_set1_epi8(15)),
                              v == 0 ? PLACES(PAIR, 0, 2, 4, 6, 1)
                                     : PLACES(PAIR, 8, 10, 12, 14, 1));
    case OT_Q3_K: return factors_q3_k(scales, v);
    case OT_Q4_K:
    case OT_Q5_K:
        return unsigned_pairs(scales.bytes,
                              v == 0 ? PLACES(PAIR, 0, 2, 8, 10, 0) : PLACES(PAIR, 1, 3, 9, 11, 0));
    case OT_Q6_K:
        return signed_pairs(scales.bytes, v == 0 ? PLACES(HIGH_PAIR, 0, 2, 8, 10, 1)
                                                 : PLACES(HIGH_PAIR, 4, 6, 12, 14, 1));
    default: return scales.bytes;
    }
}

/* Minima times the sums of their activations. */
GEMV_INLINE __m256 minima(uint32_t dtype, __m256i scales, const struct lane_scales *a) {
    if (dtype == OT_Q2_K) {
        __m256i m = _mm256_and_si256(_mm256_srli_epi16(scales, 4), _mm256_set1_epi8(15));
        __m256 sum = _mm256_mul_ps(to_f32(m, PLACES(WORD, 0, 1, 2, 3, 4)), _mm256_load_ps(a->s[0]));
        return _mm256_fmadd_ps(to_f32(m, PLACES(WORD, 8, 9, 10, 11, 4)), _mm256_load_ps(a->s[1]),
                               sum);
    }
    return _mm256_mul_ps(to_f32(scales, PLACES(WORD, 4, 5, 6, 7, 8)), _mm256_load_ps(a->s[0]));
}

/* The f16 number at p in all lanes. */
GEMV_INLINE __m256 half(const void *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return _mm256_cvtph_ps(_mm_set1_epi16((short)h));
}

/* Two of them. A load that repeats its 4 bytes takes no shuffle; the compiler knows it for floats.
 */
struct two {
    __m256 d, m;
};

GEMV_INLINE struct two halves(const void *p) {
    __m256 both = _mm256_cvtph_ps(_mm256_castsi256_si128(repeated(p)));
    return (struct two){_mm256_moveldup_ps(both), _mm256_movehdup_ps(both)};
}

/* ---- one block; dtype is a constant where these are inlined ---- */

/* Products of vector v of lanes, times the groups' scales. */
GEMV_INLINE __m256i dots_of(uint32_t dtype, struct gemv_four q, const void *acts, __m256i factors,
                            int v) {
    const struct lanes *a = acts;
    const struct lanes_signed *b = acts;
    switch (dtype) {
    case OT_Q3_K:
    case OT_Q6_K:
        /* Without their zero point sums of 8 products fit 16 bits: 8 * 32 * 127 < 2^15. */
        return _mm256_madd_epi16(
            _mm256_add_epi16(gemv_dot16(q, a->q[v]), gemv_load32(a->scales.start[v])), factors);
    case OT_IQ4_XS:
        return _mm256_add_epi32(gemv_dot_signed(q, b, v, factors),
                                _mm256_madd_epi16(factors, gemv_load32(b->scales.start[v])));
    case OT_Q5_K:
        if (v == 1) {
            return gemv_dot_six(q, a->q[v], factors);
        }
        break;
    default: break;
    }
    return _mm256_madd_epi16(gemv_dot16(q, a->q[v]), factors);
}

/* A block's products, in both vectors of lanes, before they are scaled. */
struct block_dots {
    __m256i of[2];
};

GEMV_INLINE struct block_dots dots_of_block(uint32_t dtype, const void *block, struct packed p,
                                            struct scales scales, const void *acts) {
    struct block_dots dots;
    dots.of[0] = dots_of(dtype, codes(dtype, block, &p, 0), acts, factors(dtype, scales, 0), 0);
    if (dtype != OT_Q2_K && dtype != OT_Q3_K) {
        gemv_order(&dots.of[0], &p.low);
    }
    dots.of[1] = dots_of(dtype, codes(dtype, block, &p, 1), acts, factors(dtype, scales, 1), 1);
    return dots;
}

struct sums {
    __m256 dots, minima;
};

GEMV_INLINE void add_scaled(uint32_t dtype, const uint8_t *block, struct scales scales,
                            struct block_dots dots, const void *acts, struct sums *sums) {
    const uint32_t size = block_bytes_of(dtype);
    const struct lane_scales *a = dtype == OT_IQ4_XS ? &((const struct lanes_signed *)acts)->scales
                                                     : &((const struct lanes *)acts)->scales;
    __m256 dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dots.of[0]), _mm256_load_ps(a->d[0]));
    dot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots.of[1]), _mm256_load_ps(a->d[1]), dot);
    if (dtype == OT_Q2_K || dtype == OT_Q4_K || dtype == OT_Q5_K) {
        struct two d = halves(block + (dtype == OT_Q2_K ? size - 4 : 0));
        sums->dots = _mm256_fmadd_ps(d.d, dot, sums->dots);
        sums->minima = _mm256_fmadd_ps(d.m, minima(dtype, scales.bytes, a), sums->minima);
    } else {
        __m256 d = half(block + (dtype == OT_IQ4_XS ? 0 : size - 2));
        sums->dots = _mm256_fmadd_ps(d, dot, sums->dots);
    }
}

GEMV_INLINE uint32_t act_bytes_of(uint32_t dtype) {
    return dtype == OT_IQ4_XS ? sizeof(struct lanes_signed) : sizeof(struct lanes);
}

/* A block takes longer from its first load to its sum than a core looks ahead, so its products are
 * scaled after the next one's codes are transposed. n blocks, at least one. */
GEMV_INLINE void add_overlapped(uint32_t dtype, const uint8_t *p, uint32_t n, const uint8_t *a,
                                struct kernel_ahead ahead, struct sums *sums) {
    const uint32_t size = block_bytes_of(dtype);
    kernel_prefetch(p, ahead, size);
    struct scales scales = scales_of(dtype, p);
    struct block_dots dots = dots_of_block(dtype, p, packed_of(dtype, p), scales, a);
    for (; n > 1; n--) {
        const uint8_t *const next = p + size;
        kernel_prefetch(next, ahead, size);
        const struct packed packed = packed_of(dtype, next);
        const struct scales next_scales = scales_of(dtype, next);
        add_scaled(dtype, p, scales, dots, a, sums);
        p = next;
        a += act_bytes_of(dtype);
        scales = next_scales;
        dots = dots_of_block(dtype, p, packed, scales, a);
    }
    add_scaled(dtype, p, scales, dots, a, sums);
}

/* A block for n tokens, a constant where this is inlined. */
GEMV_INLINE void add_block(uint32_t dtype, uint32_t n, const uint8_t *p, const uint8_t *const *a,
                           struct sums *sums) {
    struct packed packed = packed_of(dtype, p);
    const struct scales scales = scales_of(dtype, p);
    struct block_dots dots[GEMV_TOGETHER];
    const struct gemv_four low = codes(dtype, p, &packed, 0);
    const __m256i f0 = factors(dtype, scales, 0);
    GEMV_EACH(t, n) {
        dots[t].of[0] = dots_of(dtype, low, a[t], f0, 0);
    }
    gemv_order(&dots[n - 1].of[0], &packed.low);
    const struct gemv_four high = codes(dtype, p, &packed, 1);
    const __m256i f1 = factors(dtype, scales, 1);
    GEMV_EACH(t, n) {
        dots[t].of[1] = dots_of(dtype, high, a[t], f1, 1);
        add_scaled(dtype, p, scales, dots[t], a[t], &sums[t]);
    }
}

/* For types that lack the registers for that. */
GEMV_INLINE void add_blocks(uint32_t dtype, const uint8_t *p, uint32_t n, const uint8_t *a,
                            struct kernel_ahead ahead, struct sums *sums) {
    const uint32_t size = block_bytes_of(dtype);
    for (; n > 0; n--, p += size, a += act_bytes_of(dtype)) {
        kernel_prefetch(p, ahead, size);
        const struct scales scales = scales_of(dtype, p);
        add_scaled(dtype, p, scales, dots_of_block(dtype, p, packed_of(dtype, p), scales, a), a,
                   sums);
    }
}

GEMV_INLINE void gemv(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const void *acts, float *y) {
    const struct kernel_ahead ahead = kernel_ahead();
    for (uint32_t r = 0; r < n_rows; r++) {
        struct sums sums = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        if (dtype == OT_Q2_K || dtype == OT_Q6_K) {
            add_blocks(dtype, w + r * row_bytes, n_cols / 256, acts, ahead, &sums);
        } else {
            add_overlapped(dtype, w + r * row_bytes, n_cols / 256, acts, ahead, &sums);
        }
        y[r] = gemv_sum_lanes(_mm256_sub_ps(sums.dots, sums.minima));
    }
}

/* ---- several tokens: sums and minima in two vectors each ---- */

GEMV_INLINE void few_part(uint32_t dtype, uint32_t n, const struct gemv_part *part,
                          const void *const *x, __m256 *kept) {
    const uint32_t size = block_bytes_of(dtype);
    const uint8_t *p = part->row + (uint64_t)part->from * size, *a[GEMV_TOGETHER];
    struct sums sums[GEMV_TOGETHER];
    GEMV_EACH(t, n) {
        a[t] = (const uint8_t *)x[t] + (uint64_t)part->from * act_bytes_of(dtype);
        sums[t] = (struct sums){kept[2 * t], kept[2 * t + 1]};
    }
    for (uint32_t i = part->from; i < part->to; i++, p += size) {
        kernel_prefetch(p, part->ahead, size);
        add_block(dtype, n, p, a, sums);
        GEMV_EACH(t, n) {
            a[t] += act_bytes_of(dtype);
        }
    }
    GEMV_EACH(t, n) {
        kept[2 * t] = sums[t].dots;
        kept[2 * t + 1] = sums[t].minima;
    }
}

GEMV_INLINE float sum_of(const __m256 *sums) {
    return gemv_sum_lanes(_mm256_sub_ps(sums[0], sums[1]));
}

#define FEW(name, dtype, together, block, lanes)                                                   \
    GEMV_FEW(name, few_part, sum_of, dtype, 2, together, 256, sizeof(struct block),                \
             sizeof(struct lanes))
FEW(few_q2_k, OT_Q2_K, 4, block_q2_k, lanes)
FEW(few_q3_k, OT_Q3_K, 4, block_q3_k, lanes)
FEW(few_q4_k, OT_Q4_K, 4, block_q4_k, lanes)
FEW(few_q5_k, OT_Q5_K, 4, block_q5_k, lanes)
FEW(few_q6_k, OT_Q6_K, 4, block_q6_k, lanes)
FEW(few_iq4_xs, OT_IQ4_XS, 4, block_iq4_xs, lanes_signed)

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

static void set(struct kernels *k, uint32_t dtype, kernel_gemv_fn *fn, kernel_few_fn *few_fn,
                uint8_t layout) {
    k->type[dtype].gemv = fn;
    k->type[dtype].few = few_fn;
    k->type[dtype].layout_gemv = layout;
}

void gemv_block256_fill_avx2(struct kernels *k) {
    set(k, OT_Q2_K, gemv_q2_k, few_q2_k, LAYOUT_LANES_Q2_K);
    set(k, OT_Q3_K, gemv_q3_k, few_q3_k, LAYOUT_LANES_Q3_K);
    set(k, OT_Q4_K, gemv_q4_k, few_q4_k, LAYOUT_LANES_Q4_K);
    set(k, OT_Q5_K, gemv_q5_k, few_q5_k, LAYOUT_LANES_Q5_K);
    set(k, OT_Q6_K, gemv_q6_k, few_q6_k, LAYOUT_LANES_Q6_K);
    set(k, OT_IQ4_XS, gemv_iq4_xs, few_iq4_xs, LAYOUT_LANES_IQ4_XS);
}
