/* attention_avx2.c - softmax(scale * q k^T) v of one kv head, with AVX2.
 *
 * A block of 64 keys is converted to f32 and transposed once into scratch (attention_transposed.h),
 * then all query rows pass over it with an online softmax. Vectors hold 8 values: scores are formed
 * for 2 vectors of keys and up to 6 rows at a time, values for as many vectors of dimensions.
 *
 * A row's arithmetic is the same whichever rows are with it: keys that it must not see get the
 * weight 0, which leaves its sums as they are while their values are finite. */
#include <immintrin.h>

#include "kernel/attention_transposed.h"
#include "kernel/fill.h"

enum { MAX_ROWS = 6, PANEL = 2 /* vectors of 8 */, KEY_VECTORS = KEYS / 8 };

/* e^x for x <= 0, or NaN; relative error below 1e-7; 0 where the result is not a normal number. */
INLINE __m256 exp_negative(__m256 x) {
    const __m256 least = _mm256_set1_ps(-87.0f);
    const __m256 tiny = _mm256_cmp_ps(x, least, _CMP_LT_OQ);
    x = _mm256_max_ps(least, x); /* in this order NaN passes */
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e43p-1f), x); /* ln 2 in two parts */
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-0x1.05c61p-29f), r);
    __m256 p = _mm256_set1_ps(0x1.6a1a72p-10f); /* minimax for (e^r - 1 - r) / r^2 */
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.123fc6p-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.555916p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.55548ap-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.fffffcp-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    /* n >= -126: the exponent of a normal number. Where n is NaN so is p. */
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    const __m256 result = _mm256_mul_ps(p, _mm256_castsi256_ps(exponent));
    return _mm256_andnot_ps(tiny, result);
}

/* From 0.55 on by way of e^(-2|x|); below, where that cancels, by a polynomial in x^2. */
INLINE __m256 tanh_ps(__m256 x) {
    const __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    const __m256 e = exp_negative(_mm256_mul_ps(magnitude, _mm256_set1_ps(-2.0f)));
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 large = _mm256_div_ps(_mm256_sub_ps(one, e), _mm256_add_ps(one, e));
    const __m256 x2 = _mm256_mul_ps(x, x);
    __m256 p = _mm256_set1_ps(-0x1.96cf64p-8f);
    p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(0x1.58828cp-6f));
    p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(-0x1.b9137p-5f));
    p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(0x1.110cb2p-3f));
    p = _mm256_fmadd_ps(p, x2, _mm256_set1_ps(-0x1.55554ap-2f));
    const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(p, x2), magnitude, magnitude);
    const __m256 is_small = _mm256_cmp_ps(magnitude, _mm256_set1_ps(0.55f), _CMP_LT_OQ);
    return _mm256_or_ps(_mm256_blendv_ps(large, small, is_small), sign);
}

INLINE float reduce_max(__m256 v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

INLINE float reduce_add(__m256 v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

/* 8 half precision numbers, or n of them and zeros. */
INLINE __m256 load_half(const uint16_t *p, uint32_t n) {
    if (n >= 8)
        return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
    uint16_t some[8] = {0};
    memcpy(some, p, n * sizeof some[0]);
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)some));
}

/* r[i] lane j becomes r[j] lane i. */
INLINE void transpose_8(__m256 r[8]) {
    __m256 t[8];
    for (uint32_t i = 0; i < 8; i += 4) { /* 4 x 4 within each 128-bit lane */
        const __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]);
        const __m256 b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        const __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
        const __m256 d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (uint32_t i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}

/* K [n_keys, head_dim] to [head_dim][KEYS]; zeros for keys that are not there. The next block is
 * prefetched by the way. */
static void transpose_keys(const uint16_t *k, uint32_t n_keys, uint32_t head_dim, float *out) {
    for (uint32_t key = 0; key < KEYS; key += 8)
        for (uint32_t d = 0; d < head_dim; d += 8) {
            const uint32_t n = min_u32(head_dim - d, 8);
            __m256 r[8];
            for (uint32_t i = 0; i < 8; i++) {
                const uint16_t *p = k + (uint64_t)(key + i) * head_dim + d;
                _mm_prefetch((const char *)(p + (uint64_t)KEYS * head_dim), _MM_HINT_T0);
                r[i] = key + i < n_keys ? load_half(p, n) : _mm256_setzero_ps();
            }
            transpose_8(r);
            for (uint32_t i = 0; i < 8; i++) /* scratch has room for whole vectors */
                _mm256_store_ps(out + (uint64_t)(d + i) * KEYS + key, r[i]);
        }
}

static void convert_values(const uint16_t *v, uint32_t n_keys, uint32_t head_dim, uint32_t stride,
                           float *out) {
    for (uint32_t key = 0; key < n_keys; key++)
        for (uint32_t d = 0; d < head_dim; d += 8) {
            const uint16_t *p = v + (uint64_t)key * head_dim + d;
            _mm_prefetch((const char *)(p + (uint64_t)KEYS * head_dim), _MM_HINT_T0);
            _mm256_store_ps(out + (uint64_t)key * stride + d, load_half(p, head_dim - d));
        }
}

/* ---- scores ---- */

/* All ones in the lanes whose bit is set. */
INLINE __m256 mask_of(uint64_t bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i v = _mm256_and_si256(_mm256_set1_epi32((int)(bits & 255)), bit);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(v, bit));
}

/* The row's dots become weights; its best score and sum are brought up to date. */
static void soften(const struct kernel_attention *a, const struct work *w, uint32_t row,
                   uint64_t visible) {
    float *weight = w->weight + row * KEYS;
    const __m256 scale = _mm256_set1_ps(a->scale), lowest = _mm256_set1_ps(-INFINITY);
    __m256 x[KEY_VECTORS], best = _mm256_set1_ps(w->best[row]);
    for (uint32_t i = 0; i < KEY_VECTORS; i++) {
        x[i] = _mm256_mul_ps(_mm256_load_ps(weight + 8 * i), scale);
        if (a->softcap > 0)
            x[i] = _mm256_mul_ps(tanh_ps(_mm256_div_ps(x[i], _mm256_set1_ps(a->softcap))),
                                 _mm256_set1_ps(a->softcap));
        best = _mm256_max_ps(best, _mm256_blendv_ps(lowest, x[i], mask_of(visible >> 8 * i)));
    }
    best = _mm256_set1_ps(reduce_max(best));
    __m256 sum = _mm256_setzero_ps();
    for (uint32_t i = 0; i < KEY_VECTORS; i++) {
        const __m256 e =
            _mm256_and_ps(exp_negative(_mm256_sub_ps(x[i], best)), mask_of(visible >> 8 * i));
        _mm256_store_ps(weight + 8 * i, e);
        sum = _mm256_add_ps(sum, e);
    }
    const float keep =
        _mm256_cvtss_f32(exp_negative(_mm256_sub_ps(_mm256_set1_ps(w->best[row]), best)));
    w->keep[row] = keep;
    w->best[row] = _mm256_cvtss_f32(best);
    w->sum[row] = w->sum[row] * keep + reduce_add(sum);
}

/* n is a constant where this is inlined. */
INLINE void score_rows(const struct kernel_attention *a, const struct work *w,
                       const struct rows *rows, uint32_t n) {
    const float *q[MAX_ROWS];
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        q[m] = a->q[rows->index[m]];
    for (uint32_t key = 0; key < KEYS; key += 16) {
        __m256 x[MAX_ROWS][2];
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++)
            x[m][0] = x[m][1] = _mm256_setzero_ps();
        const float *k = w->k + key;
        for (uint64_t d = 0; d < a->head_dim; d++, k += KEYS) {
            const __m256 k0 = _mm256_load_ps(k), k1 = _mm256_load_ps(k + 8);
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                const __m256 qd = _mm256_broadcast_ss(q[m] + d);
                x[m][0] = _mm256_fmadd_ps(qd, k0, x[m][0]);
                x[m][1] = _mm256_fmadd_ps(qd, k1, x[m][1]);
            }
        }
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            _mm256_store_ps(w->weight + rows->index[m] * KEYS + key, x[m][0]);
            _mm256_store_ps(w->weight + rows->index[m] * KEYS + key + 8, x[m][1]);
        }
    }
    for (uint32_t m = 0; m < n; m++)
        soften(a, w, rows->index[m], rows->visible[m]);
}

/* ---- values ---- */

/* Adds a block's values to dimensions [dim, dim + 16) of n rows; n is a constant. */
INLINE void add_panel(const struct work *w, const struct rows *rows, uint32_t n, uint32_t n_keys,
                      uint32_t dim) {
    const float *weight[MAX_ROWS];
    float *values[MAX_ROWS];
    __m256 x[MAX_ROWS][PANEL];
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        const uint32_t row = rows->index[m];
        const __m256 keep = _mm256_set1_ps(w->keep[row]);
        weight[m] = w->weight + row * KEYS;
        values[m] = w->values + (uint64_t)row * w->stride + dim;
        x[m][0] = _mm256_mul_ps(_mm256_load_ps(values[m]), keep);
        x[m][1] = _mm256_mul_ps(_mm256_load_ps(values[m] + 8), keep);
    }
    const float *v = w->v + dim;
    for (uint64_t key = 0; key < n_keys; key++, v += w->stride) {
        const __m256 v0 = _mm256_load_ps(v), v1 = _mm256_load_ps(v + 8);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m256 p = _mm256_broadcast_ss(weight[m] + key);
            x[m][0] = _mm256_fmadd_ps(p, v0, x[m][0]);
            x[m][1] = _mm256_fmadd_ps(p, v1, x[m][1]);
        }
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        _mm256_store_ps(values[m], x[m][0]);
        _mm256_store_ps(values[m] + 8, x[m][1]);
    }
}

#define BLOCK(n)                                                                                   \
    static void block_##n(const struct kernel_attention *a, const struct work *w,                  \
                          const struct rows *rows, uint32_t n_keys) {                              \
        score_rows(a, w, rows, n);                                                                 \
        for (uint32_t dim = 0; dim < w->stride; dim += 8 * PANEL)                                  \
            add_panel(w, rows, n, n_keys, dim);                                                    \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)
BLOCK(5)
BLOCK(6)

static void attention(const struct kernel_attention *a, void *scratch) {
    static const struct attention_isa isa = {
        .transpose_keys = transpose_keys,
        .convert_values = convert_values,
        .block = {block_1, block_2, block_3, block_4, block_5, block_6},
        .max_rows = MAX_ROWS,
    };
    attention_transposed(&isa, a, scratch);
}

void attention_fill_avx2(struct kernels *k) {
    k->attention = attention;
    k->attention_prompt = attention;
    k->attention_scratch_bytes = work_bytes;
}
