/* gemv_codes_avx2.h - the codes of a sub-block of 32 values as bytes, for the AVX2 gemv.
 *
 * Codes are unsigned and small enough (at most 127) for vpmaddubsw, whose sums of two products have
 * 16 bits; or signed, and then the sign is moved to the activations. */
#ifndef KERNEL_GEMV_CODES_AVX2_H
#define KERNEL_GEMV_CODES_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernel/blocks.h"
#include "onetrip.h"

struct kernels;
/* F32, F16 and BF16: gemv_float_avx2.c. */
void gemv_float_fill_avx2(struct kernels *k);

#define CODES_INLINE static inline __attribute__((always_inline))

CODES_INLINE __m256i codes_load(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* 16 bytes: their low nibbles, then their high ones. */
CODES_INLINE __m256i codes_nibbles(const uint8_t qs[16]) {
    __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)qs));
    both = _mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4));
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/* 32 bits, one a byte: 16 where it is set. */
CODES_INLINE __m256i codes_fifth(const uint8_t qh[4]) {
    int32_t word;
    memcpy(&word, qh, 4);
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                            2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(word), spread);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

CODES_INLINE __m256i codes_look_up(const int8_t values[16], __m256i q) {
    __m128i table = _mm_loadu_si128((const __m128i *)(const void *)values);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), q);
}

/* Bits `from` and up of each byte, moved to bit `to` and masked. from, to: constants. */
CODES_INLINE __m256i codes_bits(__m256i v, int from, int to, int mask) {
    if (from > to) {
        v = _mm256_srli_epi16(v, from - to);
    } else if (from < to) {
        v = _mm256_slli_epi16(v, to - from);
    }
    return _mm256_and_si256(v, _mm256_set1_epi8((char)mask));
}

/* Sub-block k of the unit at w: of a block of 256, or block k of eight blocks of 32. dtype and k
 * are constants where this is inlined. */
CODES_INLINE __m256i codes_sub(uint32_t dtype, const uint8_t *w, int k) {
    switch (dtype) {
    case OT_Q4_0: return codes_nibbles(((const struct block_q4_0 *)(const void *)w)[k].qs);
    case OT_Q4_1: return codes_nibbles(((const struct block_q4_1 *)(const void *)w)[k].qs);
    case OT_Q5_0: {
        const struct block_q5_0 *b = (const void *)w;
        return _mm256_or_si256(codes_nibbles(b[k].qs), codes_fifth(b[k].qh));
    }
    case OT_Q5_1: {
        const struct block_q5_1 *b = (const void *)w;
        return _mm256_or_si256(codes_nibbles(b[k].qs), codes_fifth(b[k].qh));
    }
    case OT_Q8_0: return codes_load(((const struct block_q8_0 *)(const void *)w)[k].qs);
    case OT_IQ4_NL: {
        const struct block_iq4_nl *b = (const void *)w;
        return codes_look_up(codes_iq4, codes_nibbles(b[k].qs));
    }
    case OT_MXFP4: {
        const struct block_mxfp4 *b = (const void *)w;
        /* raised by 12 */
        static const int8_t raised[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                          12, 11, 10, 9,  8,  6,  4,  0};
        return codes_look_up(raised, codes_nibbles(b[k].qs));
    }
    case OT_Q2_K: {
        const struct block_q2_k *b = (const void *)w;
        return codes_bits(codes_load(b->qs + k / 4 * 32), k % 4 * 2, 0, 3);
    }
    case OT_Q3_K: { /* raised by 4 */
        const struct block_q3_k *b = (const void *)w;
        __m256i low = codes_bits(codes_load(b->qs + k / 4 * 32), k % 4 * 2, 0, 3);
        return _mm256_or_si256(low, codes_bits(codes_load(b->hmask), k, 2, 4));
    }
    case OT_Q4_K: {
        const struct block_q4_k *b = (const void *)w;
        return codes_bits(codes_load(b->qs + k / 2 * 32), k % 2 * 4, 0, 15);
    }
    case OT_Q5_K: {
        const struct block_q5_k *b = (const void *)w;
        __m256i low = codes_bits(codes_load(b->qs + k / 2 * 32), k % 2 * 4, 0, 15);
        return _mm256_or_si256(low, codes_bits(codes_load(b->qh), k, 4, 16));
    }
    case OT_Q6_K: { /* raised by 32 */
        const struct block_q6_k *b = (const void *)w;
        __m256i low = codes_bits(codes_load(b->ql + k / 4 * 64 + k % 2 * 32), k % 4 / 2 * 4, 0, 15);
        return _mm256_or_si256(low, codes_bits(codes_load(b->qh + k / 4 * 32), k % 4 * 2, 4, 48));
    }
    default: { /* IQ4_XS */
        const struct block_iq4_xs *b = (const void *)w;
        return codes_look_up(codes_iq4, codes_nibbles(b->qs + 16 * k));
    }
    }
}

#endif
