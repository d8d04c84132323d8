/* gemm_float_avx2.c - many tokens by a weight matrix of floats, with AVX2.
 *
 * 16 rows of a block of columns are unpacked to f32, transposed, in scratch that fits the L2 cache,
 * and all tokens pass over them, 6 at a time with 12 results in registers. A value is one chain of
 * fused multiply-adds over the columns in order, broken only where y holds it between two blocks.
 */
#include <immintrin.h>
#include <string.h>

#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 16, BLOCK_COLS = TILE_FLOAT_COLS, MAX_TOKENS = 6 };

struct tokens {
    const float *x[MAX_TOKENS]; /* at the block's first column */
    float *y[MAX_TOKENS];       /* at the tile's first row */
    uint32_t n_cols;
    bool add; /* not the first block: add to what y holds */
};

INLINE __m256i first(uint32_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* tile [n_cols][16 rows] by n tokens; n is a constant where this is inlined. */
INLINE void multiply(const struct tokens *a, uint32_t n, const float *tile, uint32_t n_rows) {
    const __m256i rows[2] = {first(n_rows), first(n_rows > 8 ? n_rows - 8 : 0)};
    __m256 f[MAX_TOKENS][2];
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        for (uint32_t i = 0; i < 2; i++)
            f[m][i] = a->add ? _mm256_maskload_ps(a->y[m] + 8 * i, rows[i]) : _mm256_setzero_ps();
    for (uint64_t c = 0; c < a->n_cols; c++) {
        const __m256 w0 = _mm256_load_ps(tile + c * ROWS);
        const __m256 w1 = _mm256_load_ps(tile + c * ROWS + 8);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m256 x = _mm256_broadcast_ss(&a->x[m][c]);
            f[m][0] = _mm256_fmadd_ps(x, w0, f[m][0]);
            f[m][1] = _mm256_fmadd_ps(x, w1, f[m][1]);
        }
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        for (uint32_t i = 0; i < 2; i++)
            _mm256_maskstore_ps(a->y[m] + 8 * i, rows[i], f[m][i]);
}

typedef void multiply_fn(const struct tokens *a, const float *tile, uint32_t n_rows);

#define MULTIPLY(n)                                                                                \
    static void multiply_##n(const struct tokens *a, const float *tile, uint32_t n_rows) {         \
        multiply(a, n, tile, n_rows);                                                              \
    }
MULTIPLY(1)
MULTIPLY(2)
MULTIPLY(3)
MULTIPLY(4)
MULTIPLY(5)
MULTIPLY(6)

enum type { F32, F16, BF16 };

/* 8 values of a row, or the first n. */
INLINE __m256 load(const uint8_t *w, enum type type, uint32_t n) {
    if (type == F32)
        return _mm256_maskload_ps((const float *)(const void *)w, first(n));
    __m128i v;
    if (n >= 8) {
        v = _mm_loadu_si128((const void *)w);
    } else {
        uint16_t some[8] = {0};
        memcpy(some, w, n * sizeof some[0]);
        v = _mm_loadu_si128((const void *)some);
    }
    if (type == F16)
        return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
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

/* Columns [col, col + n_cols) of n_rows rows into tile [n_cols][16]; rows beyond n_rows repeat the
 * last one or are left as they were. */
INLINE void unpack(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,
                   uint32_t n_cols, enum type type, float *tile) {
    const uint64_t value_bytes = type == F32 ? 4 : 2;
    for (uint32_t half = 0; half < n_rows; half += 8) {
        const uint8_t *rows[8];
        for (uint32_t i = 0; i < 8; i++)
            rows[i] = w + min_u32(half + i, n_rows - 1) * row_bytes + col * value_bytes;
        for (uint32_t c = 0; c < n_cols; c += 8) {
            const uint32_t n = min_u32(n_cols - c, 8);
            __m256 r[8];
            for (uint32_t i = 0; i < 8; i++) {
                const uint8_t *p = rows[i] + c * value_bytes;
                _mm_prefetch((const char *)p + ROWS * row_bytes, _MM_HINT_T1);
                r[i] = load(p, type, n);
            }
            transpose_8(r);
            for (uint32_t i = 0; i < n; i++)
                _mm256_store_ps(tile + (uint64_t)(c + i) * ROWS + half, r[i]);
        }
    }
}

typedef void unpack_fn(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,
                       uint32_t n_cols, float *tile);

#define UNPACK(name, type)                                                                         \
    static void name(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,          \
                     uint32_t n_cols, float *tile) {                                               \
        unpack(w, row_bytes, n_rows, col, n_cols, type, tile);                                     \
    }
UNPACK(unpack_f32, F32)
UNPACK(unpack_f16, F16)
UNPACK(unpack_bf16, BF16)

static void pass_tokens(const struct gemm *g, const float *tile, uint64_t row, uint32_t n_rows,
                        uint32_t col, uint32_t n_cols) {
    static multiply_fn *const fns[] = {multiply_1, multiply_2, multiply_3,
                                       multiply_4, multiply_5, multiply_6};
    for (uint32_t token = 0; token < g->n_tokens;) {
        const uint32_t n = min_u32(g->n_tokens - token, MAX_TOKENS);
        struct tokens a = {.n_cols = n_cols, .add = col != 0};
        for (uint32_t m = 0; m < n; m++) {
            a.x[m] = (const float *)(const void *)gemm_act(g, token + m) + col;
            a.y[m] = g->y + (token + m) * g->y_stride + row;
        }
        fns[n - 1](&a, tile, n_rows);
        token += n;
    }
}

static void gemm_float(const struct gemm *g, unpack_fn *unpack_type, float *tile) {
    for (uint64_t row = 0; row < g->n_rows; row += ROWS) {
        const uint32_t n_rows = (uint32_t)min_u64(g->n_rows - row, ROWS);
        for (uint32_t col = 0; col < g->n_cols; col += BLOCK_COLS) {
            const uint32_t n_cols = min_u32(g->n_cols - col, BLOCK_COLS);
            unpack_type(g->w + row * g->row_bytes, g->row_bytes, n_rows, col, n_cols, tile);
            pass_tokens(g, tile, row, n_rows, col, n_cols);
        }
    }
}

GEMM_ENTRY(gemm_f32, gemm_float(&g, unpack_f32, scratch))
GEMM_ENTRY(gemm_f16, gemm_float(&g, unpack_f16, scratch))
GEMM_ENTRY(gemm_bf16, gemm_float(&g, unpack_bf16, scratch))

void gemm_float_fill_avx2(struct kernels *k) {
    k->type[OT_F32].gemm = gemm_f32;
    k->type[OT_F16].gemm = gemm_f16;
    k->type[OT_BF16].gemm = gemm_bf16;
    k->type[OT_F32].layout_gemm = KERNEL_LAYOUT_F32;
    k->type[OT_F16].layout_gemm = KERNEL_LAYOUT_F32;
    k->type[OT_BF16].layout_gemm = KERNEL_LAYOUT_F32;
}
