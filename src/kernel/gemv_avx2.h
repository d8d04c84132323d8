/* gemv_avx2.h - what the files of the AVX2 gemv share.
 *
 * A row is walked in units of 256 values (layout_avx2.h): a block of 256, or eight blocks of 32.
 * Its packed codes are put into the lanes' order by a transposition before they are unpacked, which
 * is less work than after it, and leaves one conversion and one scaling to all products of a group.
 * vpmaddubsw adds two products into 16 bits; four such sums of codes of up to 5 bits are added
 * there before vpmaddwd makes 32 bits of them.
 *
 * Rows are walked one after the other, as one sequential stream. Those so long that their weights
 * and activations do not fit the L1 cache together go in groups: all rows of a group over a block
 * of columns, then over the next one, each with its own sums, which go on. Meanwhile the same block
 * of the next row is prefetched; while the last row is read, what the group, or the next one, goes
 * on with. */
#ifndef KERNEL_GEMV_AVX2_H
#define KERNEL_GEMV_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernel/blocks.h"
#include "kernel/kernel.h"
#include "kernel/layout_avx2.h"
#include "kernel/prefetch.h"
#include "kernel/tuning.h"

#define GEMV_INLINE static inline __attribute__((always_inline))

GEMV_INLINE __m128i gemv_load16(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}
GEMV_INLINE __m256i gemv_load32(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
GEMV_INLINE __m256i gemv_twice(__m128i v) {
    return _mm256_broadcastsi128_si256(v);
}

/* Four vectors, or four rows of words of each 16-byte half: columns become rows. */
struct gemv_four {
    __m256i x[4];
};

GEMV_INLINE struct gemv_four gemv_transpose(struct gemv_four a) {
    __m256i t0 = _mm256_unpacklo_epi32(a.x[0], a.x[1]), t1 = _mm256_unpacklo_epi32(a.x[2], a.x[3]);
    __m256i t2 = _mm256_unpackhi_epi32(a.x[0], a.x[1]), t3 = _mm256_unpackhi_epi32(a.x[2], a.x[3]);
    return (struct gemv_four){{_mm256_unpacklo_epi64(t0, t1), _mm256_unpackhi_epi64(t0, t1),
                               _mm256_unpacklo_epi64(t2, t3), _mm256_unpackhi_epi64(t2, t3)}};
}

/* Keeps the compiler from computing with `later` before `first` is done, which would need more
 * registers than there are. */
GEMV_INLINE void gemv_order(__m256i *first, struct gemv_four *later) {
    __asm__(""
            : "+x"(*first), "+x"(later->x[0]), "+x"(later->x[1]), "+x"(later->x[2]),
              "+x"(later->x[3]));
}

GEMV_INLINE struct gemv_four gemv_masked(struct gemv_four a, __m256i mask) {
    for (int c = 0; c < 4; c++) {
        a.x[c] = _mm256_and_si256(a.x[c], mask);
    }
    return a;
}
/* The nibbles of every byte. */
GEMV_INLINE struct gemv_four gemv_low_nibbles(struct gemv_four a) {
    return gemv_masked(a, _mm256_set1_epi8(15));
}
GEMV_INLINE struct gemv_four gemv_high_nibbles(struct gemv_four a) {
    for (int c = 0; c < 4; c++) {
        a.x[c] = _mm256_srli_epi16(a.x[c], 4);
    }
    return gemv_low_nibbles(a);
}

/* ---- products of the four chunks of each lane's group ---- */

/* Sums of 8 products, in 16 bits, modulo 2^16: codes below 32 fit. */
GEMV_INLINE __m256i gemv_dot16(struct gemv_four codes, const int8_t q[4][32]) {
    __m256i p[4];
    for (int c = 0; c < 4; c++) {
        p[c] = _mm256_maddubs_epi16(codes.x[c], gemv_load32(q[c]));
    }
    return _mm256_add_epi16(_mm256_add_epi16(p[0], p[1]), _mm256_add_epi16(p[2], p[3]));
}

/* Codes below 64, each sum of two products times a 16-bit factor. */
GEMV_INLINE __m256i gemv_dot_six(struct gemv_four codes, const int8_t q[4][32], __m256i factors) {
    __m256i p[4];
    for (int c = 0; c < 4; c++) {
        p[c] = _mm256_maddubs_epi16(codes.x[c], gemv_load32(q[c]));
    }
    return _mm256_add_epi32(_mm256_madd_epi16(_mm256_add_epi16(p[0], p[1]), factors),
                            _mm256_madd_epi16(_mm256_add_epi16(p[2], p[3]), factors));
}

/* Signed codes of 8 bits; struct lanes_signed says how. */
GEMV_INLINE __m256i gemv_dot_signed(struct gemv_four codes, const struct lanes_signed *a, int v,
                                    __m256i factors) {
    __m256i p[4];
    for (int c = 0; c < 4; c++) {
        __m256i w = _mm256_xor_si256(codes.x[c], gemv_load32(a->flip[v][c]));
        p[c] = _mm256_madd_epi16(_mm256_maddubs_epi16(gemv_load32(a->magnitude[v][c]), w), factors);
    }
    return _mm256_add_epi32(_mm256_add_epi32(p[0], p[1]), _mm256_add_epi32(p[2], p[3]));
}

GEMV_INLINE __m256i gemv_ones(void) {
    return _mm256_set1_epi16(1);
}

GEMV_INLINE struct gemv_four gemv_look_up(const int8_t values[16], struct gemv_four q) {
    const __m256i table = gemv_twice(gemv_load16(values));
    for (int c = 0; c < 4; c++) {
        q.x[c] = _mm256_shuffle_epi8(table, q.x[c]);
    }
    return q;
}

GEMV_INLINE float gemv_sum_lanes(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

enum { GEMV_GROUP_ROWS = 16 };

/* What to prefetch while a group's last row, the n-th, is read in the block at_bytes from a row's
 * start, as a distance. */
GEMV_INLINE uint64_t gemv_ahead_after_group(uint64_t row_bytes, uint32_t n, uint64_t at_bytes,
                                            uint64_t block_bytes, bool is_last_block) {
    return is_last_block ? row_bytes - at_bytes : block_bytes - (n - 1) * row_bytes;
}

void gemv_block32_fill_avx2(struct kernels *k);
void gemv_block256_fill_avx2(struct kernels *k);
void gemv_float_fill_avx2(struct kernels *k);

#endif
