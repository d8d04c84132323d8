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
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernel/blocks.h"
#include "kernel/gemv_few.h"
#include "kernel/kernel.h"
#include "kernel/layout_avx2.h"
#include "kernel/prefetch.h"

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

/* ---- several tokens (kernel_few_fn) ----
 *
 * A row is taken in parts of so many columns that the tokens' activations for them stay in the L1
 * cache; where there are several parts, rows go in groups of 16, all of which go over a part before
 * any goes over the next one. What is unpacked of a unit is used by up to GEMV_TOGETHER tokens at
 * once, one vector of lanes after the other: so many as have registers for their sums and products,
 * beside the codes of one vector. Sums are added in the order of gemv. */

enum { GEMV_TOGETHER = 4, GEMV_ACT_BYTES = 24 << 10 };

/* For each token (or sum); n is a constant where this is inlined. */
#define GEMV_EACH(t, n) _Pragma("GCC unroll 4") for (uint32_t t = 0; t < (n); t++)

/* The units [from, to) of a row. */
struct gemv_part {
    const uint8_t *row;
    uint64_t readable; /* bytes from the row's start on */
    uint32_t n_cols, from, to;
    bool end;                  /* of the row */
    struct kernel_ahead ahead; /* what is prefetched: so far after what is read */
    __m256 *kept;              /* sums of the row's tokens, between its parts */
    float *y;                  /* what the row gives, of the first token */
};

/* How a type is computed: constants where this is inlined. */
struct gemv_way {
    /* A part for n tokens, whose sums go on, n_sums vectors each. */
    void (*part)(uint32_t dtype, uint32_t n, const struct gemv_part *p, const void *const *x,
                 __m256 *sums);
    float (*sum)(const __m256 *sums); /* one token's, at the row's end */
    uint32_t dtype, n_sums;
    uint32_t together; /* tokens at once, at most GEMV_TOGETHER */
    uint32_t unit_cols, unit_bytes, unit_act_bytes;
};

GEMV_INLINE void gemv_part_of(const struct gemv_way *way, uint32_t n, const struct gemv_few *f,
                              const struct gemv_part *p, uint32_t first) {
    __m256 sums[4 * GEMV_TOGETHER], *kept = p->kept + first * way->n_sums;
    _Pragma("GCC unroll 16") for (uint32_t i = 0; i < n * way->n_sums; i++) {
        sums[i] = p->from > 0 ? kept[i] : _mm256_setzero_ps();
    }
    way->part(way->dtype, n, p, f->x + first, sums);
    if (p->end) {
        GEMV_EACH(t, n) {
            p->y[(first + t) * f->y_stride] = way->sum(&sums[t * way->n_sums]);
        }
    } else {
        _Pragma("GCC unroll 16") for (uint32_t i = 0; i < n * way->n_sums; i++) {
            kept[i] = sums[i];
        }
    }
}

/* All tokens, some at a time. */
GEMV_INLINE void gemv_tokens(const struct gemv_way *way, const struct gemv_few *f,
                             struct gemv_part *p) {
    for (uint32_t t = 0, n; t < f->n_tokens; t += n) {
        const uint32_t left = f->n_tokens - t, half = (left + 1) / 2;
        n = left <= way->together ? left : half < way->together ? half : way->together;
        switch (n) { /* more than `together` there never are: those cases are left out */
        case 1: gemv_part_of(way, 1, f, p, t); break;
        case 3: gemv_part_of(way, way->together > 2 ? 3 : 2, f, p, t); break;
        case 4: gemv_part_of(way, way->together > 3 ? 4 : 2, f, p, t); break;
        default: gemv_part_of(way, 2, f, p, t);
        }
        p->ahead.bytes = 0;
    }
}

GEMV_INLINE void gemv_few_rows(const struct gemv_way *way, const struct gemv_few *f) {
    const uint32_t n_units = (f->n_cols + way->unit_cols - 1) / way->unit_cols;
    const uint32_t fits = GEMV_ACT_BYTES / (f->n_tokens * way->unit_act_bytes);
    const uint32_t step = n_units < fits ? n_units : fits, n_parts = (n_units + step - 1) / step;
    const uint64_t own_bytes = (uint64_t)f->n_cols * way->unit_bytes / way->unit_cols;
    __m256 kept[GEMV_GROUP_ROWS][4 * KERNEL_FEW];
    for (uint32_t first = 0; first < f->n_rows; first += GEMV_GROUP_ROWS) {
        const uint32_t left = f->n_rows - first;
        const uint32_t n_rows = left < GEMV_GROUP_ROWS ? left : GEMV_GROUP_ROWS;
        for (uint32_t i = 0; i < n_parts; i++) {
            struct gemv_part p = {.n_cols = f->n_cols, .from = i * step, .end = i + 1 == n_parts};
            p.to = p.end ? n_units : p.from + step;
            /* with one part: as gemv; else the same part of the row after the next, or the next
             * part of the first ones */
            const uint64_t back =
                gemv_ahead_after_group(f->row_bytes, n_rows, (uint64_t)p.from * way->unit_bytes,
                                       (uint64_t)step * way->unit_bytes, p.end);
            for (uint32_t r = 0; r < n_rows; r++) {
                p.row = f->w + (first + r) * f->row_bytes;
                p.readable = (left - 1 - r) * f->row_bytes + own_bytes + KERNEL_OVERREAD;
                p.ahead = n_parts == 1     ? kernel_ahead()
                          : r + 2 < n_rows ? kernel_ahead_by(2 * f->row_bytes)
                                           : kernel_ahead_by(back + f->row_bytes);
                p.kept = kept[r];
                p.y = f->y + first + r;
                gemv_tokens(way, f, &p);
            }
        }
    }
}

void gemv_block32_fill_avx2(struct kernels *k);
void gemv_block256_fill_avx2(struct kernels *k);
void gemv_float_fill_avx2(struct kernels *k);

#endif
