/* gemv_avx512.h - what the files of the AVX-512 gemv share.
 *
 * All of them walk their rows as one sequential stream, one row after the other, with several
 * accumulators along the row: the hardware's prefetchers follow one stream best. */
#ifndef KERNEL_GEMV_AVX512_H
#define KERNEL_GEMV_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernel/gemv_few.h"
#include "kernel/kernel.h"
#include "kernel/layout_avx512.h"
#include "kernel/prefetch.h"

#define GEMV_INLINE static inline __attribute__((always_inline))

GEMV_INLINE __m512 gemv_half_to_f32(__m512i halves) {
    return _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
}

/* A vector that was loaded stays in its register: read again as the memory operand of each use, an
 * unaligned one costs more than the register. */
GEMV_INLINE __m512i gemv_keep(__m512i v) {
    __asm__("" : "+v"(v));
    return v;
}

/* Fixes where a value is computed: the compiler keeps the order of these. */
GEMV_INLINE __m512i gemv_pin(__m512i v) {
    __asm__ volatile("" : "+v"(v));
    return v;
}
GEMV_INLINE __m512 gemv_pin_ps(__m512 v) {
    __asm__ volatile("" : "+v"(v));
    return v;
}

GEMV_INLINE int64_t gemv_read_64(const uint8_t *p) {
    int64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Sums of up to 16 rows, each in lanes that are not summed yet. Together they cost a fraction of
 * what they cost one by one, most of which is waiting. */
struct gemv_sums {
    float of_row[16][16];
} __attribute__((aligned(64)));

/* y[i] = sum of the lanes of row i, i < n. Always in one order: rows are the same in any company.
 */
void gemv_write(const struct gemv_sums *sums, uint32_t n, float *y);

/* The sum of one row's lanes, in the same order. */
GEMV_INLINE float gemv_sum(__m512 v) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Row r of n_rows is done; y: of row 0. */
GEMV_INLINE void gemv_row_done(struct gemv_sums *sums, uint32_t r, uint32_t n_rows, __m512 sum,
                               float *y) {
    _mm512_store_ps(sums->of_row[r % 16], sum);
    if (r % 16 == 15 || r + 1 == n_rows) {
        gemv_write(sums, r % 16 + 1, y + r - r % 16);
    }
}

/* ---- several tokens (kernel_few_fn) ----
 *
 * A row is taken in parts of so many columns that the tokens' activations for them stay in the L1
 * cache; rows in groups of 16, all of which go over a part before any goes over the next one. What
 * is unpacked of a part is used by up to GEMV_TOGETHER tokens at once, whose sums stay in
 * registers. Sums are added in the order of gemv. */

enum { GEMV_TOGETHER = 8, GEMV_ACT_BYTES = 24 << 10 };

/* How a type is computed: constants where this is inlined. */
struct gemv_way {
    /* The units (groups, blocks) [from, to) of a row for n tokens, whose sums go on, n_sums vectors
     * each. At the row's end each token's first one becomes that of all. */
    void (*part)(uint32_t dtype, uint32_t n, const uint8_t *row, uint32_t n_cols, uint32_t from,
                 uint32_t to, bool end, struct kernel_ahead ahead, const void *const *x,
                 __m512 *sums);
    uint32_t dtype, n_sums;
    uint32_t together; /* tokens at once, at most GEMV_TOGETHER */
    uint32_t unit_cols, unit_bytes, unit_act_bytes;
};

/* A part of a row, which is in `slot` of the group of 16. */
struct gemv_part {
    const uint8_t *row;
    uint32_t slot, from, to;
    bool end;
    struct kernel_ahead ahead; /* what is prefetched: so far after what is read */
};

GEMV_INLINE void gemv_part_of(const struct gemv_way *way, uint32_t n, uint32_t n_cols,
                              const struct gemv_part *p, const void *const *x,
                              struct gemv_sums *done) {
    __m512 sums[2 * GEMV_TOGETHER];
    _Pragma("GCC unroll 16") for (uint32_t i = 0; i < n * way->n_sums; i++) {
        sums[i] = p->from > 0 ? _mm512_load_ps(done[i].of_row[p->slot]) : _mm512_setzero_ps();
    }
    way->part(way->dtype, n, p->row, n_cols, p->from, p->to, p->end, p->ahead, x, sums);
    _Pragma("GCC unroll 16") for (uint32_t i = 0; i < n * way->n_sums; i++) {
        _mm512_store_ps(done[i].of_row[p->slot], sums[i]);
    }
}

/* Tokens [from, to), to - from at most `together`. */
GEMV_INLINE void gemv_tokens(const struct gemv_way *way, uint32_t from, uint32_t to,
                             const struct gemv_few *f, const struct gemv_part *p,
                             struct gemv_sums *done) {
    const void *const *x = f->x + from;
    done += from * way->n_sums;
    switch (to - from) { /* more than `together` there never are: those cases are left out */
    case 1: gemv_part_of(way, 1, f->n_cols, p, x, done); break;
    case 2: gemv_part_of(way, 2, f->n_cols, p, x, done); break;
    case 3: gemv_part_of(way, 3, f->n_cols, p, x, done); break;
    case 5: gemv_part_of(way, way->together > 4 ? 5 : 4, f->n_cols, p, x, done); break;
    case 6: gemv_part_of(way, way->together > 4 ? 6 : 4, f->n_cols, p, x, done); break;
    case 7: gemv_part_of(way, way->together > 4 ? 7 : 4, f->n_cols, p, x, done); break;
    case 8: gemv_part_of(way, way->together > 4 ? 8 : 4, f->n_cols, p, x, done); break;
    default: gemv_part_of(way, 4, f->n_cols, p, x, done);
    }
}

GEMV_INLINE void gemv_few_rows(const struct gemv_way *way, const struct gemv_few *f) {
    const uint32_t n_units = layout_ceil(f->n_cols, way->unit_cols);
    const uint32_t fits = GEMV_ACT_BYTES / (f->n_tokens * way->unit_act_bytes);
    const uint32_t step = n_units < fits ? n_units : fits, n_parts = layout_ceil(n_units, step);
    const uint32_t middle = f->n_tokens > way->together ? (f->n_tokens + 1) / 2 : f->n_tokens;
    struct gemv_sums done[4 * KERNEL_FEW];
    for (uint32_t first = 0; first < f->n_rows; first += 16) {
        const uint32_t n_rows = f->n_rows - first < 16 ? f->n_rows - first : 16;
        for (uint32_t i = 0; i < n_parts; i++) {
            struct gemv_part p = {.from = i * step, .end = i + 1 == n_parts};
            p.to = p.end ? n_units : p.from + step;
            /* with one part: as gemv; else the same part of the row after the next, or the next
             * part of the first ones */
            const uint64_t from_bytes = (uint64_t)p.from * way->unit_bytes;
            const uint64_t back =
                p.end ? f->row_bytes - from_bytes
                      : (uint64_t)step * way->unit_bytes - (n_rows - 1) * f->row_bytes;
            for (p.slot = 0; p.slot < n_rows; p.slot++) {
                p.row = f->w + (first + p.slot) * f->row_bytes;
                p.ahead = n_parts == 1          ? kernel_ahead()
                          : p.slot + 2 < n_rows ? kernel_ahead_by(2 * f->row_bytes)
                                                : kernel_ahead_by(back + f->row_bytes);
                for (uint32_t t = 0, to = middle; t < f->n_tokens; t = to, to = f->n_tokens) {
                    gemv_tokens(way, t, to, f, &p, done);
                    p.ahead.bytes = 0;
                }
            }
        }
        for (uint32_t t = 0; t < f->n_tokens; t++) {
            gemv_write(&done[t * way->n_sums], n_rows, f->y + t * f->y_stride + first);
        }
    }
}

void gemv_nibbles_fill_avx512(struct kernels *k);
void gemv_block32_fill_avx512(struct kernels *k);
void gemv_block256_fill_avx512(struct kernels *k);
void gemv_float_fill_avx512(struct kernels *k);

#endif
