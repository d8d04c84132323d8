/* attention_avx512.c - softmax(scale * q k^T) v of one kv head, with AVX-512.
 *
 * Keys are visited 64 at a time. A block's K is converted to f32 and transposed once into scratch,
 * so that scores of 64 keys are broadcasts of q times four vectors; then all query rows pass over
 * the block, 6 at a time. Softmax is online: each row carries its best score, the sum of its
 * weights and its weighted values. Many rows read V from a converted copy of the block, few from
 * its place.
 *
 * A row's arithmetic is the same whichever rows are with it: keys that it must not see get the
 * weight 0, which leaves its sums as they are. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "kernel/fill.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    KEYS = KERNEL_KEY_BLOCK,
    MAX_ROWS = 6,
    FEW_ROWS = 4,
    PANEL = 4 /* vectors of 16 dimensions */
};

/* Scratch of one call; strides of v and values: head_dim rounded up to 16. */
struct work {
    float *k;      /* [head_dim][KEYS] */
    float *v;      /* [KEYS][stride] */
    float *values; /* [n_q][stride]: sum of weight * v */
    float *weight; /* [n_q][KEYS], of this block */
    float *keep;   /* [n_q] factor of what was summed before this block */
    float *best;   /* [n_q] */
    float *sum;    /* [n_q] */
    uint32_t stride;
};

static uint64_t scratch_bytes(uint32_t head_dim) {
    const uint64_t stride = round_up(head_dim, 16);
    return 4 * (stride * KEYS + stride * KEYS + stride * KERNEL_MAX_Q + KEYS * KERNEL_MAX_Q +
                3 * KERNEL_MAX_Q);
}

static struct work lay_out(void *scratch, uint32_t head_dim) {
    struct work w;
    w.stride = (uint32_t)round_up(head_dim, 16);
    w.k = scratch;
    w.v = w.k + (uint64_t)w.stride * KEYS;
    w.values = w.v + (uint64_t)w.stride * KEYS;
    w.weight = w.values + (uint64_t)w.stride * KERNEL_MAX_Q;
    w.keep = w.weight + KEYS * KERNEL_MAX_Q;
    w.best = w.keep + KERNEL_MAX_Q;
    w.sum = w.best + KERNEL_MAX_Q;
    return w;
}

/* e^x for x <= 0, or NaN; relative error below 1e-7. */
INLINE __m512 exp_negative(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-110.0f), x); /* in this order NaN passes */
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e43p-1f), x); /* ln 2 in two parts */
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-0x1.05c61p-29f), r);
    __m512 p = _mm512_set1_ps(0x1.6a1a72p-10f); /* minimax for (e^r - 1 - r) / r^2 */
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.123fc6p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555916p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55548ap-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* From 0.55 on by way of e^(-2|x|); below, where that cancels, by a polynomial in x^2. */
INLINE __m512 tanh_ps(__m512 x) {
    const __m512 magnitude = _mm512_abs_ps(x);
    const __m512 e = exp_negative(_mm512_mul_ps(magnitude, _mm512_set1_ps(-2.0f)));
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 large = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    const __m512 x2 = _mm512_mul_ps(x, x);
    __m512 p = _mm512_set1_ps(-0x1.96cf64p-8f);
    p = _mm512_fmadd_ps(p, x2, _mm512_set1_ps(0x1.58828cp-6f));
    p = _mm512_fmadd_ps(p, x2, _mm512_set1_ps(-0x1.b9137p-5f));
    p = _mm512_fmadd_ps(p, x2, _mm512_set1_ps(0x1.110cb2p-3f));
    p = _mm512_fmadd_ps(p, x2, _mm512_set1_ps(-0x1.55554ap-2f));
    const __m512 small = _mm512_fmadd_ps(_mm512_mul_ps(p, x2), magnitude, magnitude);
    large = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(0.55f), _CMP_LT_OQ),
                                 large, small);
    const __m512i sign = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MIN));
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(large), sign));
}

/* r[i] lane j becomes r[j] lane i. */
INLINE void transpose_16(__m512 r[16]) {
    __m512 t[16];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 16; i += 4) { /* 4 x 4 within each 128-bit lane */
        const __m512 a = _mm512_unpacklo_ps(r[i], r[i + 1]);
        const __m512 b = _mm512_unpackhi_ps(r[i], r[i + 1]);
        const __m512 c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]);
        const __m512 d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm512_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++) { /* 4 x 4 of the lanes */
        const __m512 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x44);
        const __m512 b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xee);
        const __m512 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x44);
        const __m512 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xee);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        r[i + 4] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[i + 8] = _mm512_shuffle_f32x4(b, d, 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}

/* 16 half precision numbers, or those of mask and zeros. */
INLINE __m512 load_half(const uint16_t *p, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
}

INLINE __mmask16 first(uint32_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
}

/* K [n_keys, head_dim] to [head_dim][KEYS]; zeros for keys that are not there. The next block is
 * prefetched by the way. */
static void transpose_keys(const uint16_t *k, uint32_t n_keys, uint32_t head_dim, float *out) {
    for (uint32_t key = 0; key < KEYS; key += 16)
        for (uint32_t d = 0; d < head_dim; d += 16) {
            const __mmask16 mask = first(head_dim - d);
            __m512 r[16];
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++) {
                const uint16_t *p = k + (uint64_t)(key + i) * head_dim + d;
                _mm_prefetch((const char *)(p + (uint64_t)KEYS * head_dim), _MM_HINT_T0);
                r[i] = load_half(p, key + i < n_keys ? mask : 0);
            }
            transpose_16(r);
            const uint32_t n = min_u32(head_dim - d, 16);
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++)
                if (i < n)
                    _mm512_store_ps(out + (uint64_t)(d + i) * KEYS + key, r[i]);
        }
}

static void convert_values(const uint16_t *v, uint32_t n_keys, uint32_t head_dim, uint32_t stride,
                           float *out) {
    for (uint32_t key = 0; key < n_keys; key++)
        for (uint32_t d = 0; d < head_dim; d += 16) {
            const uint16_t *p = v + (uint64_t)key * head_dim + d;
            _mm_prefetch((const char *)(p + (uint64_t)KEYS * head_dim), _MM_HINT_T0);
            _mm512_store_ps(out + (uint64_t)key * stride + d, load_half(p, first(head_dim - d)));
        }
}

/* ---- scores ---- */

/* Keys [start, start + n_keys) where they are in the cache. in_place: they are used from there, not
 * from their converted copies in scratch. */
struct block {
    const uint16_t *k, *v;
    uint32_t n_keys;
    bool in_place;
};

/* A few rows of the call, and what they see of a block. */
struct rows {
    uint32_t index[MAX_ROWS];
    uint64_t visible[MAX_ROWS]; /* bit j: key j of the block */
};

/* The row's dots become weights; its best score and sum are brought up to date. */
static void soften(const struct kernel_attention *a, const struct work *w, uint32_t row,
                   uint64_t visible) {
    float *weight_row = w->weight + row * KEYS;
    __m512 x[4];
    const __m512 scale = _mm512_set1_ps(a->scale);
    __m512 best = _mm512_set1_ps(w->best[row]);
    for (uint32_t i = 0; i < 4; i++) {
        x[i] = _mm512_mul_ps(_mm512_load_ps(weight_row + 16 * i), scale);
        if (a->softcap > 0)
            x[i] = _mm512_mul_ps(tanh_ps(_mm512_div_ps(x[i], _mm512_set1_ps(a->softcap))),
                                 _mm512_set1_ps(a->softcap));
        best = _mm512_mask_max_ps(best, (__mmask16)(visible >> 16 * i), best, x[i]);
    }
    best = _mm512_set1_ps(_mm512_reduce_max_ps(best));
    __m512 sum = _mm512_setzero_ps();
    for (uint32_t i = 0; i < 4; i++) {
        const __mmask16 mask = (__mmask16)(visible >> 16 * i);
        const __m512 weight = _mm512_maskz_mov_ps(mask, exp_negative(_mm512_sub_ps(x[i], best)));
        _mm512_store_ps(weight_row + 16 * i, weight);
        sum = _mm512_add_ps(sum, weight);
    }
    const float keep =
        _mm512_cvtss_f32(exp_negative(_mm512_sub_ps(_mm512_set1_ps(w->best[row]), best)));
    w->keep[row] = keep;
    w->best[row] = _mm512_cvtss_f32(best);
    w->sum[row] = w->sum[row] * keep + _mm512_reduce_add_ps(sum);
}

/* What keys [key, key + 16) have in dimensions [d, d + 8), as f32: out[i], lane j is dimension d +
 * i of key + j. row: the 16 keys' vectors. */
INLINE void load_8_dims(const uint16_t *const row[16], uint64_t d, __m512 out[8]) {
    __m512i r[4]; /* r[i], lane l: 8 dimensions of key 4 l + i */
    for (uint32_t i = 0; i < 4; i++) {
        __m256i half[2];
        for (uint32_t h = 0; h < 2; h++)
            half[h] = _mm256_inserti128_si256(
                _mm256_castsi128_si256(_mm_loadu_si128((const void *)(row[8 * h + i] + d))),
                _mm_loadu_si128((const void *)(row[8 * h + 4 + i] + d)), 1);
        r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
    }
    const __m512i a = _mm512_unpacklo_epi16(r[0], r[1]), b = _mm512_unpacklo_epi16(r[2], r[3]);
    const __m512i c = _mm512_unpackhi_epi16(r[0], r[1]), e = _mm512_unpackhi_epi16(r[2], r[3]);
    /* each lane: 4 keys' dimension 2 i, then 4 keys' dimension 2 i + 1 */
    const __m512i pairs[4] = {_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b),
                              _mm512_unpacklo_epi32(c, e), _mm512_unpackhi_epi32(c, e)};
    const __m512i even_odd = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    for (uint32_t i = 0; i < 4; i++) {
        const __m512i x = _mm512_permutexvar_epi64(even_odd, pairs[i]);
        out[2 * i] = _mm512_cvtph_ps(_mm512_castsi512_si256(x));
        out[2 * i + 1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1));
    }
}

/* Scores straight from the cache of keys, for few rows: the same sums as by way of scratch. */
INLINE void dot_in_place(const struct kernel_attention *a, const struct work *w,
                         const struct rows *rows, uint32_t n, const uint16_t *k, uint32_t n_keys) {
    const float *q[MAX_ROWS];
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        q[m] = a->q[rows->index[m]];
    for (uint32_t key = 0; key < KEYS; key += 16) {
        const uint16_t *row[16]; /* beyond the last key: the last one again, which nobody sees */
        for (uint32_t i = 0; i < 16; i++)
            row[i] = k + (uint64_t)min_u32(key + i, n_keys - 1) * a->head_dim;
        __m512 x[MAX_ROWS];
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++)
            x[m] = _mm512_setzero_ps();
        for (uint64_t d = 0; d < a->head_dim; d += 8) {
            __m512 dims[8];
            load_8_dims(row, d, dims);
            /* 16 keys by 8 dimensions are 4 cache lines */
            for (uint32_t i = 0; i < 4; i++)
                _mm_prefetch(
                    (const char *)(k + (KEYS + key) * (uint64_t)a->head_dim + 16 * d + 32 * i),
                    _MM_HINT_T0);
            for (uint32_t i = 0; i < 8; i++)
#pragma GCC unroll 6
                for (uint32_t m = 0; m < n; m++)
                    x[m] = _mm512_fmadd_ps(_mm512_set1_ps(q[m][d + i]), dims[i], x[m]);
        }
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++)
            _mm512_store_ps(w->weight + rows->index[m] * KEYS + key, x[m]);
    }
}

/* Scores from the transposed block. n is a constant where this is inlined. */
INLINE void dot_in_scratch(const struct kernel_attention *a, const struct work *w,
                           const struct rows *rows, uint32_t n) {
    const float *q[MAX_ROWS];
    __m512 x[MAX_ROWS][4];
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        q[m] = a->q[rows->index[m]];
        for (uint32_t i = 0; i < 4; i++)
            x[m][i] = _mm512_setzero_ps();
    }
    const float *k = w->k;
    for (uint64_t d = 0; d < a->head_dim; d++, k += KEYS) {
        const __m512 k0 = _mm512_load_ps(k), k1 = _mm512_load_ps(k + 16);
        const __m512 k2 = _mm512_load_ps(k + 32), k3 = _mm512_load_ps(k + 48);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m512 qd = _mm512_set1_ps(q[m][d]);
            x[m][0] = _mm512_fmadd_ps(qd, k0, x[m][0]);
            x[m][1] = _mm512_fmadd_ps(qd, k1, x[m][1]);
            x[m][2] = _mm512_fmadd_ps(qd, k2, x[m][2]);
            x[m][3] = _mm512_fmadd_ps(qd, k3, x[m][3]);
        }
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        for (uint32_t i = 0; i < 4; i++)
            _mm512_store_ps(w->weight + rows->index[m] * KEYS + 16 * i, x[m][i]);
}

/* ---- values ---- */

/* Adds a block's values to dimensions [dim, dim + 16 * n_vectors) of n rows. n, n_vectors and
 * in_place are constants where this is inlined; last: the mask of the last vector. */
INLINE void add_panel(const struct kernel_attention *a, const struct work *w,
                      const struct rows *rows, uint32_t n, const struct block *b, uint32_t dim,
                      uint32_t n_vectors, __mmask16 last, bool in_place) {
    const float *weight[MAX_ROWS];
    float *values[MAX_ROWS];
    __m512 x[MAX_ROWS][PANEL];
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        const uint32_t row = rows->index[m];
        const __m512 keep = _mm512_set1_ps(w->keep[row]);
        weight[m] = w->weight + row * KEYS;
        values[m] = w->values + (uint64_t)row * w->stride + dim;
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n_vectors; i++)
            x[m][i] = _mm512_mul_ps(_mm512_load_ps(values[m] + 16 * i), keep);
    }
    for (uint64_t key = 0; key < b->n_keys; key++) {
        __m512 value[PANEL];
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n_vectors; i++) {
            const __mmask16 mask = i == n_vectors - 1 ? last : 0xffff;
            value[i] = in_place ? load_half(b->v + key * a->head_dim + dim + 16 * i, mask)
                                : _mm512_load_ps(w->v + key * w->stride + dim + 16 * i);
        }
        if (in_place)
            _mm_prefetch((const char *)(b->v + (key + KEYS) * a->head_dim + dim), _MM_HINT_T0);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m512 p = _mm512_set1_ps(weight[m][key]);
#pragma GCC unroll 4
            for (uint32_t i = 0; i < n_vectors; i++)
                x[m][i] = _mm512_fmadd_ps(p, value[i], x[m][i]);
        }
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n_vectors; i++)
            _mm512_store_ps(values[m] + 16 * i, x[m][i]);
}

INLINE void add_values(const struct kernel_attention *a, const struct work *w,
                       const struct rows *rows, uint32_t n, const struct block *b, bool in_place) {
    uint32_t dim = 0;
    for (; a->head_dim - dim >= 16 * PANEL; dim += 16 * PANEL)
        add_panel(a, w, rows, n, b, dim, PANEL, 0xffff, in_place);
    const uint32_t left = a->head_dim - dim;
    const __mmask16 last = first((left + 15) % 16 + 1);
    switch ((left + 15) / 16) {
    case 1: add_panel(a, w, rows, n, b, dim, 1, last, in_place); break;
    case 2: add_panel(a, w, rows, n, b, dim, 2, last, in_place); break;
    case 3: add_panel(a, w, rows, n, b, dim, 3, last, in_place); break;
    case 4: add_panel(a, w, rows, n, b, dim, 4, last, in_place); break;
    default: break;
    }
}

typedef void block_fn(const struct kernel_attention *a, const struct work *w,
                      const struct rows *rows, const struct block *b);

#define BLOCK(name, n, in_place)                                                                   \
    static void name##_##n(const struct kernel_attention *a, const struct work *w,                 \
                           const struct rows *rows, const struct block *b) {                       \
        if (in_place)                                                                              \
            dot_in_place(a, w, rows, n, b->k, b->n_keys);                                          \
        else                                                                                       \
            dot_in_scratch(a, w, rows, n);                                                         \
        for (uint32_t m = 0; m < n; m++)                                                           \
            soften(a, w, rows->index[m], rows->visible[m]);                                        \
        add_values(a, w, rows, n, b, in_place);                                                    \
    }
BLOCK(few, 1, true)
BLOCK(few, 2, true)
BLOCK(few, 3, true)
BLOCK(few, 4, true)
BLOCK(many, 1, false)
BLOCK(many, 2, false)
BLOCK(many, 3, false)
BLOCK(many, 4, false)
BLOCK(many, 6, false)

/* The rows that see something of a block that begins at position start, over it. */
static void visit_block(const struct kernel_attention *a, const struct work *w, uint64_t start,
                        const struct block *b) {
    static block_fn *const few[] = {NULL, few_1, few_2, few_3, few_4};
    static block_fn *const many[] = {NULL, many_1, many_2, many_3, many_4, NULL, many_6};
    struct rows rows;
    uint32_t n = 0, row = 0;
    for (;;) {
        for (; n < MAX_ROWS && row < a->n_q; row++) {
            const uint64_t end = (uint64_t)a->pos[row] + 1;
            const uint64_t begin = a->window != 0 && end > a->window ? end - a->window : 0;
            if (end <= start || begin >= start + KEYS)
                continue;
            uint64_t visible = UINT64_MAX;
            if (end < start + KEYS)
                visible >>= start + KEYS - end;
            if (begin > start)
                visible = visible >> (begin - start) << (begin - start);
            rows.index[n] = row;
            rows.visible[n++] = visible;
        }
        if (n == 0)
            return;
        const uint32_t take = n == 5 ? 3 : n;
        (b->in_place ? few : many)[take](a, w, &rows, b);
        for (uint32_t i = take; i < n; i++) {
            rows.index[i - take] = rows.index[i];
            rows.visible[i - take] = rows.visible[i];
        }
        n -= take;
    }
}

static void attention(const struct kernel_attention *a, void *scratch) {
    const struct work w = lay_out(scratch, a->head_dim);
    uint64_t begin = UINT64_MAX, end = 0; /* of all rows' keys */
    for (uint32_t row = 0; row < a->n_q; row++) {
        const uint64_t row_end = (uint64_t)a->pos[row] + 1;
        const uint64_t row_begin = a->window != 0 && row_end > a->window ? row_end - a->window : 0;
        begin = min_u64(begin, row_begin);
        end = max_u64(end, row_end);
        w.best[row] = -INFINITY;
        w.sum[row] = 0;
    }
    const bool in_place = a->n_q <= FEW_ROWS && a->head_dim % 8 == 0;
    memset(w.values, 0, (uint64_t)a->n_q * w.stride * sizeof(float));
    for (uint64_t start = begin / KEYS * KEYS; start < end; start += KEYS) {
        const struct block b = {a->k + start * a->head_dim, a->v + start * a->head_dim,
                                (uint32_t)min_u64(end - start, KEYS), in_place};
        if (!in_place) {
            transpose_keys(b.k, b.n_keys, a->head_dim, w.k);
            convert_values(b.v, b.n_keys, a->head_dim, w.stride, w.v);
        }
        visit_block(a, &w, start, &b);
    }
    for (uint32_t row = 0; row < a->n_q; row++) {
        const __m512 factor = _mm512_set1_ps(1.0f / w.sum[row]);
        for (uint32_t d = 0; d < a->head_dim; d += 16)
            _mm512_mask_storeu_ps(
                a->out[row] + d, first(a->head_dim - d),
                _mm512_mul_ps(_mm512_load_ps(w.values + (uint64_t)row * w.stride + d), factor));
    }
}

void attention_fill_avx512(struct kernels *k) {
    k->attention = attention;
    k->attention_scratch_bytes = scratch_bytes;
}
