/* attention_avx512.c - softmax(scale * q k^T) v of one kv head, with AVX-512.
 *
 * Keys are visited 64 at a time, and over each block the query rows pass 4 at a time: scores, an
 * online softmax, values. A row carries its best score, the sum of its weights and its weighted
 * values. K and V are converted where they lie, each value once for 4 rows; where many rows come,
 * K is converted into scratch, once for all, and for more V too. On some CPUs conversions, sums and
 * shuffles have other pipes than multiplications, which are the limit from 4 rows on; but a load
 * that broadcasts takes one of theirs, so q lies in scratch as often as a vector needs it.
 *
 * Scores: a vector holds 8 dimensions of two keys, so a score is 8 partial sums, which are added
 * when 16 scores are complete. Values: a vector holds 16 dimensions of one key.
 *
 * A row's arithmetic is the same whichever rows are with it: keys that it must not see get the
 * weight 0, which leaves its sums as they are while their values are finite. */
#include <string.h>

#include "kernel/attention_avx512.h"
#include "kernel/fill.h"

enum {
    FEW_ROWS = 8,   /* up to which K is not worth a copy */
    MANY_ROWS = 33, /* from which on V is */
    TAIL_KEYS = 16, /* keys whose scores are formed together, at most */
    PANEL = 4       /* vectors of 16 dimensions */
};

/* Scratch of one call. stride: head_dim rounded up to 16. */
struct work {
    float *q;      /* [n_q][stride / 8][2][8]: scaled, then zeros; each 8 twice */
    float *k;      /* [KEYS / 8][stride / 8][4][2][8]: keys i and i + 4 of 8, for many rows */
    float *v;      /* [KEYS][stride], for many rows */
    float *values; /* [n_q][stride]: sum of weight * v */
    struct softmax softmax;
    uint16_t *tail; /* [TAIL_KEYS][head_dim]: the last keys, where they are fewer; then zeros */
    uint32_t stride;
};

static uint64_t scratch_bytes(uint32_t head_dim) {
    const uint64_t stride = round_up(head_dim, 16);
    return sizeof(float) * (KERNEL_MAX_Q * (3 * stride + KEYS + LANES + 2) + 2 * KEYS * stride) +
           sizeof(uint16_t) * TAIL_KEYS * stride;
}

static struct work lay_out(void *scratch, uint32_t head_dim) {
    struct work w;
    w.stride = (uint32_t)round_up(head_dim, 16);
    w.q = scratch;
    w.k = w.q + 2 * (uint64_t)w.stride * KERNEL_MAX_Q;
    w.v = w.k + (uint64_t)w.stride * KEYS;
    w.values = w.v + (uint64_t)w.stride * KEYS;
    struct softmax *s = &w.softmax;
    s->weight = w.values + (uint64_t)w.stride * KERNEL_MAX_Q;
    s->sum = s->weight + KEYS * KERNEL_MAX_Q;
    s->best = s->sum + LANES * KERNEL_MAX_Q;
    s->keep = s->best + KERNEL_MAX_Q;
    w.tail = (uint16_t *)(void *)(s->keep + KERNEL_MAX_Q);
    return w;
}

/* Keys [start, start + n_keys) where they are in the cache. */
struct block {
    const uint16_t *k, *v;
    uint32_t n_keys;
    bool keys_converted, values_converted; /* k, v are in scratch too */
};

/* ---- scores ---- */

/* 8 dimensions of key a, then of key b, which lies at least 8 dimensions further. */
INLINE __m512 load_pair(const uint16_t *a, const uint16_t *b, __mmask8 mask) {
    if (mask == 0xff) /* blended, not inserted: any pipe can do that */
        return _mm512_cvtph_ps(
            _mm256_blend_epi32(_mm256_castsi128_si256(_mm_loadu_si128((const void *)a)),
                               _mm256_loadu_si256((const void *)(b - 8)), 0xf0));
    return _mm512_cvtph_ps(_mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_maskz_loadu_epi16(mask, a)), _mm_maskz_loadu_epi16(mask, b), 1));
}

/* a[i] holds the partial sums of scores i and i + 4, b[i] those of scores i + 8 and i + 12. */
INLINE __m512 add_partial(const __m512 a[4], const __m512 b[4]) {
    __m512 x[4]; /* lane l of 4 partial sums: score i + 4 l */
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++)
        x[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], b[i], 0x88),
                             _mm512_shuffle_f32x4(a[i], b[i], 0xdd));
    const __m512 x01 =
        _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
    const __m512 x23 =
        _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
    return _mm512_add_ps(_mm512_shuffle_ps(x01, x23, 0x44), _mm512_shuffle_ps(x01, x23, 0xee));
}

/* 8 * groups keys: where they lie, or where their pairs were converted to if that is not NULL. */
struct keys {
    const uint16_t *k;
    const float *pairs;
    uint64_t head_dim, stride;
};

/* Dimensions [d, d + 8) of n rows and 8 * groups keys. */
INLINE void dot_step(__m512 x[MAX_ROWS][2][4], const float *const q[MAX_ROWS], uint64_t d,
                     uint32_t n, uint32_t groups, const struct keys *keys, bool converted,
                     __mmask8 mask) {
    __m512 qd[MAX_ROWS];
#pragma GCC unroll 2
    for (uint32_t g = 0; g < groups; g++)
#pragma GCC unroll 4
        for (uint32_t i = 0; i < 4; i++) {
            const uint16_t *k = keys->k + (8 * g + i) * keys->head_dim + d;
            const __m512 pair =
                converted ? _mm512_load_ps(keys->pairs + 8 * (g * keys->stride + d) + 16 * i)
                          : load_pair(k, k + 4 * keys->head_dim, mask);
#pragma GCC unroll 4
            for (uint32_t m = 0; m < n; m++) {
                if (g == 0 && i == 0)
                    qd[m] = _mm512_load_ps(q[m] + 2 * d);
                x[m][g][i] = _mm512_fmadd_ps(qd[m], pair, x[m][g][i]);
            }
        }
}

/* Scores of n rows with 8 * groups keys, the first of them the key-th of the block. n, groups and
 * converted are constants where this is inlined. */
INLINE void dot_tile(const struct work *w, const struct rows *rows, uint32_t n, uint32_t groups,
                     const struct keys *keys, bool converted, uint32_t key, const uint16_t *ahead) {
    const float *q[MAX_ROWS];
    __m512 x[MAX_ROWS][2][4];
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++) {
        q[m] = w->q + (uint64_t)rows->index[m] * 2 * w->stride;
#pragma GCC unroll 4
        for (uint32_t i = 0; i < 4; i++)
            x[m][0][i] = x[m][1][i] = _mm512_setzero_ps();
    }
    uint64_t d = 0;
    for (; d + 8 <= keys->head_dim; d += 8) {
        if (!converted) { /* 8 keys by 8 dimensions are 2 cache lines */
            _mm_prefetch((const char *)(ahead + 8 * groups * d), _MM_HINT_T1);
            _mm_prefetch((const char *)(ahead + 8 * groups * d + 32), _MM_HINT_T1);
            if (groups == 2) {
                _mm_prefetch((const char *)(ahead + 8 * groups * d + 64), _MM_HINT_T1);
                _mm_prefetch((const char *)(ahead + 8 * groups * d + 96), _MM_HINT_T1);
            }
        }
        dot_step(x, q, d, n, groups, keys, converted, 0xff);
    }
    if (d < keys->head_dim)
        dot_step(x, q, d, n, groups, keys, converted,
                 (__mmask8)first((uint32_t)(keys->head_dim - d)));
    float *weight[MAX_ROWS];
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++)
        weight[m] = w->softmax.weight + rows->index[m] * KEYS + key;
    if (groups == 2) {
#pragma GCC unroll 4
        for (uint32_t m = 0; m < n; m++)
            _mm512_store_ps(weight[m], add_partial(x[m][0], x[m][1]));
        return;
    }
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m += 2) {
        const __m512 two = add_partial(x[m][0], x[m + 1][0]);
        _mm256_store_ps(weight[m], _mm512_castps512_ps256(two));
        _mm256_store_ps(weight[m + 1], _mm512_extractf32x8_ps(two, 1));
    }
}

INLINE void dot(const struct work *w, const struct rows *rows, uint32_t n, const struct block *b,
                uint64_t head_dim, bool converted) {
    const uint32_t groups = n == 4 ? 1 : 2;
    struct keys keys = {.pairs = w->k, .head_dim = head_dim, .stride = w->stride};
    uint32_t key = 0;
    for (; key < b->n_keys; key += 8 * groups, keys.pairs += 8 * groups * keys.stride) {
        keys.k = b->k + key * head_dim;
        if (!converted && key + 8 * groups > b->n_keys)
            break;
        dot_tile(w, rows, n, groups, &keys, converted, key, keys.k + KEYS * head_dim);
    }
    for (; key < b->n_keys; key += 8 * groups) {
        keys.k = w->tail + key % TAIL_KEYS * head_dim;
        dot_tile(w, rows, n, groups, &keys, converted, key, keys.k);
    }
}

/* A block's keys, into scratch. The next block is prefetched by the way. */
static void convert_keys(const struct work *w, const struct block *b, uint64_t head_dim) {
    float *out = w->k;
    for (uint32_t tile = 0; tile < round_up(b->n_keys, TAIL_KEYS); tile += 8) {
        const bool whole = tile < b->n_keys / TAIL_KEYS * TAIL_KEYS;
        const uint16_t *k = whole ? b->k + tile * head_dim : w->tail + tile % TAIL_KEYS * head_dim;
        for (uint64_t d = 0; d < head_dim; d += 8)
            for (uint32_t i = 0; i < 4; i++, out += 16) {
                const uint16_t *key = k + i * head_dim + d;
                const uint64_t left = head_dim - d;
                _mm_prefetch((const char *)(key + KEYS * head_dim), _MM_HINT_T1);
                _mm_prefetch((const char *)(key + (KEYS + 4) * head_dim), _MM_HINT_T1);
                _mm512_store_ps(out, left >= 8 ? load_pair(key, key + 4 * head_dim, 0xff)
                                               : load_pair(key, key + 4 * head_dim,
                                                           (__mmask8)first((uint32_t)left)));
            }
        out = w->k + (uint64_t)(tile + 8) * w->stride;
    }
}

static void convert_values(const struct work *w, const struct block *b, uint32_t head_dim) {
    const uint16_t *v = b->v;
    float *out = w->v;
    for (uint32_t key = 0; key < b->n_keys; key++, v += head_dim, out += w->stride)
        for (uint32_t d = 0; d < head_dim; d += 16) {
            if (d % 32 == 0)
                _mm_prefetch((const char *)(v + KEYS * head_dim + d), _MM_HINT_T1);
            _mm512_store_ps(out + d,
                            _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(head_dim - d), v + d)));
        }
}

/* ---- values ---- */

/* Adds a block's values to dimensions [dim, dim + 16 * n_vectors) of n rows. n, n_vectors and
 * converted are constants where this is inlined; last: the mask of the last vector. */
INLINE void add_panel(const struct kernel_attention *a, const struct work *w,
                      const struct rows *rows, uint32_t n, const struct block *b, uint32_t dim,
                      uint32_t n_vectors, __mmask16 last, bool converted) {
    const float *weight[MAX_ROWS];
    float *values[MAX_ROWS];
    __m512 x[MAX_ROWS][PANEL];
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++) {
        const uint32_t row = rows->index[m];
        const __m512 keep = _mm512_set1_ps(w->softmax.keep[row]);
        weight[m] = w->softmax.weight + row * KEYS;
        values[m] = w->values + (uint64_t)row * w->stride + dim;
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n_vectors; i++)
            x[m][i] = _mm512_mul_ps(_mm512_load_ps(values[m] + 16 * i), keep);
    }
    const uint16_t *v = b->v + dim;
    const float *v_f32 = w->v + dim;
    for (uint64_t key = 0; key < b->n_keys; key++, v += a->head_dim, v_f32 += w->stride) {
        __m512 value[PANEL];
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n_vectors; i++) {
            const __mmask16 mask = i == n_vectors - 1 ? last : 0xffff;
            if (converted) {
                value[i] = _mm512_load_ps(v_f32 + 16 * i);
                continue;
            }
            value[i] =
                _mm512_cvtph_ps(mask == 0xffff ? _mm256_loadu_si256((const void *)(v + 16 * i))
                                               : _mm256_maskz_loadu_epi16(mask, v + 16 * i));
            if (i % 2 == 0)
                _mm_prefetch((const char *)(v + (uint64_t)KEYS * a->head_dim + 16 * i),
                             _MM_HINT_T1);
        }
#pragma GCC unroll 4
        for (uint32_t m = 0; m < n; m++) {
            const __m512 p = _mm512_set1_ps(weight[m][key]);
#pragma GCC unroll 4
            for (uint32_t i = 0; i < n_vectors; i++)
                x[m][i] = _mm512_fmadd_ps(p, value[i], x[m][i]);
        }
    }
#pragma GCC unroll 4
    for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n_vectors; i++)
            _mm512_store_ps(values[m] + 16 * i, x[m][i]);
}

INLINE void add_values(const struct kernel_attention *a, const struct work *w,
                       const struct rows *rows, uint32_t n, const struct block *b, bool converted) {
    uint32_t dim = 0;
    for (; a->head_dim - dim >= 16 * PANEL; dim += 16 * PANEL)
        add_panel(a, w, rows, n, b, dim, PANEL, 0xffff, converted);
    const uint32_t left = a->head_dim - dim;
    const __mmask16 last = first((left + 15) % 16 + 1);
    switch ((left + 15) / 16) {
    case 1: add_panel(a, w, rows, n, b, dim, 1, last, converted); break;
    case 2: add_panel(a, w, rows, n, b, dim, 2, last, converted); break;
    case 3: add_panel(a, w, rows, n, b, dim, 3, last, converted); break;
    case 4: add_panel(a, w, rows, n, b, dim, 4, last, converted); break;
    default: break;
    }
}

typedef void block_fn(const struct kernel_attention *a, const struct work *w,
                      const struct rows *rows, const struct block *b);

/* The most frequent sizes are constants. */
#define BLOCK(n)                                                                                   \
    static void block_##n(const struct kernel_attention *a, const struct work *w,                  \
                          const struct rows *rows, const struct block *b) {                        \
        if (b->keys_converted)                                                                     \
            dot(w, rows, n, b, a->head_dim, true);                                                 \
        else if (a->head_dim == 64)                                                                \
            dot(w, rows, n, b, 64, false);                                                         \
        else if (a->head_dim == 128)                                                               \
            dot(w, rows, n, b, 128, false);                                                        \
        else                                                                                       \
            dot(w, rows, n, b, a->head_dim, false);                                                \
        soften(a->softcap, &w->softmax, rows, n, false);                                           \
        if (b->values_converted)                                                                   \
            add_values(a, w, rows, n, b, true);                                                    \
        else                                                                                       \
            add_values(a, w, rows, n, b, false);                                                   \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)

/* The rows that see something of a block that begins at position start, over it. */
static void visit_block(const struct kernel_attention *a, const struct work *w, uint64_t start,
                        const struct block *b) {
    static block_fn *const fns[] = {block_1, block_2, block_3, block_4};
    struct rows rows;
    for (uint32_t row = 0, n; (n = next_rows(a, start, MAX_ROWS, &row, &rows)) > 0;)
        fns[n - 1](a, w, &rows, b);
}

static void attention(const struct kernel_attention *a, void *scratch) {
    const struct work w = lay_out(scratch, a->head_dim);
    const float scale = a->softcap > 0 ? a->scale : a->scale * LOG2_E;
    const struct span all = all_rows_span(a);
    for (uint32_t row = 0; row < a->n_q; row++) {
        w.softmax.best[row] = -INFINITY;
        float *q = w.q + (uint64_t)row * 2 * w.stride;
        for (uint32_t d = 0; d < a->head_dim; d += 8, q += 16) {
            const __m256 x = _mm256_mul_ps(
                _mm256_maskz_loadu_ps((__mmask8)first(a->head_dim - d), a->q[row] + d),
                _mm256_set1_ps(scale));
            _mm512_store_ps(q, _mm512_insertf32x8(_mm512_castps256_ps512(x), x, 1));
        }
    }
    memset(w.softmax.sum, 0, (uint64_t)a->n_q * LANES * sizeof(float));
    memset(w.values, 0, (uint64_t)a->n_q * w.stride * sizeof *w.values);
    const uint64_t n_tail = all.end % TAIL_KEYS * a->head_dim;
    if (n_tail > 0)
        memcpy(w.tail, a->k + kernel_key_offset(a, all.end / TAIL_KEYS * TAIL_KEYS),
               n_tail * sizeof *w.tail);
    memset(w.tail + n_tail, 0, ((uint64_t)TAIL_KEYS * a->head_dim - n_tail) * sizeof *w.tail);
    for (uint64_t start = all.begin / KEYS * KEYS; start < all.end; start += KEYS) {
        const uint64_t at = kernel_key_offset(a, start);
        const struct block b = {.k = a->k + at,
                                .v = a->v + at,
                                .n_keys = (uint32_t)min_u64(all.end - start, KEYS),
                                .keys_converted = a->n_q > FEW_ROWS,
                                .values_converted = a->n_q >= MANY_ROWS};
        if (b.keys_converted)
            convert_keys(&w, &b, a->head_dim);
        if (b.values_converted)
            convert_values(&w, &b, a->head_dim);
        visit_block(a, &w, start, &b);
    }
    give_rows(a, &w.softmax, w.values, w.stride);
}

void attention_fill_avx512(struct kernels *k) {
    k->attention = attention;
    k->attention_prompt = attention;
    k->attention_scratch_bytes = scratch_bytes;
}
