/* attention_avx512bf16.c - softmax(scale * q k^T) v of a prompt's rows, with dot products of bf16.
 *
 * Twice as many multiplications an instruction as in f32. q, k, v and the weights of the softmax
 * are rounded to bf16 (8 bits), sums are f32. Models are trained with that; the error is a fifth of
 * what 8-bit activations have. Rows that decode are limited by the reading of keys, and stay f32.
 *
 * A block of 64 keys is brought into the order of the dot products once for all rows: pairs of
 * dimensions of 64 keys, and pairs of keys of all dimensions. Then both products are one loop: rows
 * of pairs, each broadcast, times pairs of 64 columns.
 *
 * A row's arithmetic is the same whichever rows are with it. */
#include <string.h>

#include "kernel/attention_avx512.h"
#include "kernel/dot_bf16.h"
#include "kernel/fill.h"
#include "kernel/transpose_avx512.h"

enum {
    COLUMNS = 64, /* of a product at most: 4 vectors */
    DIMS = 32     /* that are transposed together: 16 pairs */
};

/* Scratch of one call: never more than attention_avx512.c's, as dims <= 2 * its stride. Pairs are
 * two bf16, the lower dimension or key first. A row's weights become pairs where they lie. */
struct work {
    uint32_t *q;   /* [n_q][dims / 2]: scaled, then zeros */
    uint32_t *k;   /* [dims / 2][KEYS] */
    uint32_t *v;   /* [KEYS / 2][dims] */
    float *values; /* [n_q][dims]: sum of weight * v */
    struct softmax softmax;
    uint32_t dims; /* head_dim rounded up to DIMS */
};

static struct work lay_out(void *scratch, uint32_t head_dim) {
    struct work w = {.q = scratch, .dims = (uint32_t)round_up(head_dim, DIMS)};
    w.k = w.q + (uint64_t)w.dims / 2 * KERNEL_MAX_Q;
    w.v = w.k + (uint64_t)w.dims / 2 * KEYS;
    w.values = (float *)(void *)(w.v + (uint64_t)w.dims * KEYS / 2);
    struct softmax *s = &w.softmax;
    s->weight = w.values + (uint64_t)w.dims * KERNEL_MAX_Q;
    s->sum = s->weight + KEYS * KERNEL_MAX_Q;
    s->best = s->sum + LANES * KERNEL_MAX_Q;
    s->keep = s->best + KERNEL_MAX_Q;
    return w;
}

/* 32 values: those of low, then those of high. */
INLINE __m512i round_two(__m512 low, __m512 high) {
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* x [n][vectors] += rows a[m] [n_pairs] times pairs b [n_pairs][16 * vectors], stride apart. n and
 * vectors are constants where this is inlined. */
INLINE void multiply(__m512 x[MAX_ROWS][4], const uint32_t *const a[MAX_ROWS], uint32_t n,
                     const uint32_t *b, uint64_t stride, uint32_t n_pairs, uint32_t vectors) {
    for (uint32_t i = 0; i < n_pairs; i++, b += stride) {
        __m512i pairs[4];
#pragma GCC unroll 4
        for (uint32_t c = 0; c < vectors; c++)
            pairs[c] = _mm512_load_si512(b + 16 * c);
#pragma GCC unroll 4
        for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 4
            for (uint32_t c = 0; c < vectors; c++)
                x[m][c] = dot_pairs(x[m][c], pairs[c], a[m] + i);
    }
}

/* ---- a block of keys and values ---- */

/* 16 f16, those from n on 0. */
INLINE __m512 load_halves(const uint16_t *x, uint32_t n) {
    return _mm512_cvtph_ps(n >= 16 ? _mm256_loadu_si256((const void *)x)
                                   : _mm256_maskz_loadu_epi16(first(n), x));
}

static void convert_keys(const struct work *w, const uint16_t *k, uint32_t n_keys,
                         uint32_t head_dim) {
    for (uint32_t key = 0; key < KEYS; key += 16)
        for (uint32_t d = 0; d < w->dims; d += DIMS) {
            const uint32_t left = head_dim - d;
            __m512 x[16];
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++) {
                const uint16_t *row = k + (uint64_t)(key + i) * head_dim + d;
                x[i] = _mm512_setzero_ps();
                if (key + i < n_keys)
                    x[i] = _mm512_castsi512_ps(round_two(
                        load_halves(row, left), load_halves(row + 16, left > 16 ? left - 16 : 0)));
                _mm_prefetch((const char *)(row + (uint64_t)KEYS * head_dim), _MM_HINT_T1);
            }
            transpose_16(x);
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++)
                _mm512_store_si512(w->k + (uint64_t)(d / 2 + i) * KEYS + key,
                                   _mm512_castps_si512(x[i]));
        }
}

static void convert_values(const struct work *w, const uint16_t *v, uint32_t n_keys,
                           uint32_t head_dim) {
    /* 16-bit words 0, 16, 1, 17, ... */
    const __m512i spread = _mm512_cvtepu8_epi16(
        _mm256_add_epi8(_mm256_broadcastsi128_si256(
                            _mm_setr_epi8(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)),
                        _mm256_inserti128_si256(_mm256_setzero_si256(), _mm_set1_epi8(8), 1)));
    for (uint32_t key = 0; key < KEYS; key += 2) {
        const uint16_t *row = v + (uint64_t)key * head_dim;
        for (uint32_t d = 0; d < w->dims; d += 16) {
            const uint32_t left = d < head_dim ? head_dim - d : 0;
            const __m512 low = load_halves(row + d, key < n_keys ? left : 0);
            const __m512 high = load_halves(row + head_dim + d, key + 1 < n_keys ? left : 0);
            _mm_prefetch((const char *)(row + (uint64_t)KEYS * head_dim + 2 * d), _MM_HINT_T1);
            _mm512_store_si512(w->v + (uint64_t)key / 2 * w->dims + d,
                               _mm512_permutexvar_epi16(spread, round_two(low, high)));
        }
    }
}

/* ---- rows over a block ---- */

INLINE void score(const struct work *w, const struct rows *rows, uint32_t n, uint32_t head_dim) {
    const uint32_t *q[MAX_ROWS];
    __m512 x[MAX_ROWS][4];
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++) {
        q[m] = w->q + (uint64_t)rows->index[m] * (w->dims / 2);
#pragma GCC unroll 4
        for (uint32_t c = 0; c < 4; c++)
            x[m][c] = _mm512_setzero_ps();
    }
    multiply(x, q, n, w->k, KEYS, (head_dim + 1) / 2, 4);
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 4
        for (uint32_t c = 0; c < 4; c++)
            _mm512_store_ps(w->softmax.weight + rows->index[m] * KEYS + 16 * c, x[m][c]);
}

/* Adds the block's values to dimensions [dim, dim + 16 * vectors). */
INLINE void add_panel(const struct work *w, const struct rows *rows, uint32_t n, uint32_t dim,
                      uint32_t vectors) {
    const uint32_t *p[MAX_ROWS];
    float *values[MAX_ROWS];
    __m512 x[MAX_ROWS][4];
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++) {
        const uint32_t row = rows->index[m];
        const __m512 keep = _mm512_set1_ps(w->softmax.keep[row]);
        p[m] = (const uint32_t *)(const void *)(w->softmax.weight + row * KEYS);
        values[m] = w->values + (uint64_t)row * w->dims + dim;
#pragma GCC unroll 4
        for (uint32_t c = 0; c < vectors; c++)
            x[m][c] = _mm512_mul_ps(_mm512_load_ps(values[m] + 16 * c), keep);
    }
    multiply(x, p, n, w->v + dim, w->dims, KEYS / 2, vectors);
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 4
        for (uint32_t c = 0; c < vectors; c++)
            _mm512_store_ps(values[m] + 16 * c, x[m][c]);
}

/* n is a constant where this is inlined. */
INLINE void visit(const struct kernel_attention *a, const struct work *w, const struct rows *rows,
                  uint32_t n) {
    score(w, rows, n, a->head_dim);
    soften(a->softcap, &w->softmax, rows, n, true);
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++) {
        float *weight = w->softmax.weight + rows->index[m] * KEYS;
        for (uint32_t i = 0; i < KEYS; i += 32)
            _mm512_store_si512(weight + i / 2, round_two(_mm512_load_ps(weight + i),
                                                         _mm512_load_ps(weight + i + 16)));
    }
    uint32_t dim = 0;
    for (; dim + COLUMNS <= w->dims; dim += COLUMNS)
        add_panel(w, rows, n, dim, 4);
    if (dim < w->dims) /* dims is a multiple of 32 */
        add_panel(w, rows, n, dim, 2);
}

static void visit_block(const struct kernel_attention *a, const struct work *w, uint64_t start) {
    struct rows rows;
    for (uint32_t row = 0, n; (n = next_rows(a, start, MAX_ROWS, &row, &rows)) > 0;)
        switch (n) {
        case 1: visit(a, w, &rows, 1); break;
        case 2: visit(a, w, &rows, 2); break;
        case 3: visit(a, w, &rows, 3); break;
        default: visit(a, w, &rows, 4); break;
        }
}

static void attention(const struct kernel_attention *a, void *scratch) {
    const struct work w = lay_out(scratch, a->head_dim);
    const __m512 scale = _mm512_set1_ps(a->softcap > 0 ? a->scale : a->scale * LOG2_E);
    const struct span all = all_rows_span(a);
    for (uint32_t row = 0; row < a->n_q; row++) {
        w.softmax.best[row] = -INFINITY;
        for (uint32_t d = 0; d < w.dims; d += 32) {
            const uint32_t left = a->head_dim - d;
            const __mmask16 low = first(left), high = first(left > 16 ? left - 16 : 0);
            const float *q = a->q[row] + d;
            _mm512_store_si512(
                w.q + ((uint64_t)row * w.dims + d) / 2,
                round_two(_mm512_mul_ps(_mm512_maskz_loadu_ps(low, q), scale),
                          _mm512_mul_ps(_mm512_maskz_loadu_ps(high, q + 16), scale)));
        }
    }
    memset(w.softmax.sum, 0, (uint64_t)a->n_q * LANES * sizeof(float));
    memset(w.values, 0, (uint64_t)a->n_q * w.dims * sizeof(float));
    for (uint64_t start = all.begin / KEYS * KEYS; start < all.end; start += KEYS) {
        const uint32_t n_keys = (uint32_t)min_u64(all.end - start, KEYS);
        const uint64_t at = kernel_key_offset(a, start);
        convert_keys(&w, a->k + at, n_keys, a->head_dim);
        convert_values(&w, a->v + at, n_keys, a->head_dim);
        visit_block(a, &w, start);
    }
    give_rows(a, &w.softmax, w.values, w.dims);
}

void attention_fill_avx512bf16(struct kernels *k) {
    k->attention_prompt = attention;
}
