/* gemm_float_avx512.h - many tokens by a weight matrix of floats: what f32 and bf16 arithmetic
 * share.
 *
 * 32 rows of a block of columns are unpacked, transposed, in scratch that fits L2, and all tokens
 * pass over them, 12 at a time. A value is one chain of multiply-adds over the columns in order,
 * broken only where y holds it between two blocks of columns. */
#ifndef KERNEL_GEMM_FLOAT_AVX512_H
#define KERNEL_GEMM_FLOAT_AVX512_H

#include <immintrin.h>

#include "base/checked.h"
#include "kernel/tile.h"
#include "kernel/transpose_avx512.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = TILE_ROWS, BLOCK_COLS = TILE_FLOAT_COLS, MAX_TOKENS = 12 };

struct tokens {
    const void *x[MAX_TOKENS]; /* prepared, at the block's first column */
    float *y[MAX_TOKENS];      /* at the tile's first row */
    uint32_t n_cols;
    bool add; /* not the first block: add to what y holds */
};

/* Sums of n tokens: where they begin, and where they go. n is a constant where this is inlined. */
INLINE void take_sums(const struct tokens *a, uint32_t n, uint32_t n_rows,
                      __m512 f[MAX_TOKENS][2]) {
    const __mmask32 rows = (__mmask32)(n_rows >= 32 ? UINT32_MAX : (1u << n_rows) - 1);
#pragma GCC unroll 12
    for (uint32_t m = 0; m < n; m++) {
        f[m][0] = _mm512_setzero_ps();
        f[m][1] = _mm512_setzero_ps();
        if (a->add) {
            f[m][0] = _mm512_maskz_loadu_ps((__mmask16)rows, a->y[m]);
            f[m][1] = _mm512_maskz_loadu_ps((__mmask16)(rows >> 16), a->y[m] + 16);
        }
    }
}

INLINE void give_sums(const struct tokens *a, uint32_t n, uint32_t n_rows,
                      const __m512 f[MAX_TOKENS][2]) {
    const __mmask32 rows = (__mmask32)(n_rows >= 32 ? UINT32_MAX : (1u << n_rows) - 1);
#pragma GCC unroll 12
    for (uint32_t m = 0; m < n; m++) {
        _mm512_mask_storeu_ps(a->y[m], (__mmask16)rows, f[m][0]);
        _mm512_mask_storeu_ps(a->y[m] + 16, (__mmask16)(rows >> 16), f[m][1]);
    }
}

/* A tile by some tokens; there is one for each number of them that a call may take. */
typedef void multiply_fn(const struct tokens *a, const void *tile, uint32_t n_rows);
struct multipliers {
    struct {
        uint32_t n;
        multiply_fn *fn;
    } of[8]; /* from the most tokens to one */
};

/* Defines `multipliers` from multiply(tokens, n, tile, n_rows), n being a constant. */
#define MULTIPLY(n)                                                                                \
    static void multiply_##n(const struct tokens *a, const void *tile, uint32_t n_rows) {          \
        multiply(a, n, tile, n_rows);                                                              \
    }
#define MULTIPLIERS                                                                                \
    MULTIPLY(1)                                                                                    \
    MULTIPLY(2)                                                                                    \
    MULTIPLY(3)                                                                                    \
    MULTIPLY(4)                                                                                    \
    MULTIPLY(6)                                                                                    \
    MULTIPLY(8)                                                                                    \
    MULTIPLY(10)                                                                                   \
    MULTIPLY(12)                                                                                   \
    static const struct multipliers multipliers = {{{12, multiply_12},                             \
                                                    {10, multiply_10},                             \
                                                    {8, multiply_8},                               \
                                                    {6, multiply_6},                               \
                                                    {4, multiply_4},                               \
                                                    {3, multiply_3},                               \
                                                    {2, multiply_2},                               \
                                                    {1, multiply_1}}};

/* Columns [col, col + n_cols) of n_rows rows into a tile; rows beyond n_rows repeat the last one or
 * are left as they were. */
typedef void unpack_fn(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,
                       uint32_t n_cols, void *tile);

/* value_bytes: of a prepared activation. */
INLINE void gemm_float(const struct gemm *g, unpack_fn *unpack,
                       const struct multipliers *multipliers, uint32_t value_bytes, void *tile) {
    for (uint64_t row = 0; row < g->n_rows; row += ROWS) {
        const uint32_t n_rows = (uint32_t)min_u64(g->n_rows - row, ROWS);
        for (uint32_t col = 0; col < g->n_cols; col += BLOCK_COLS) {
            const uint32_t n_cols = min_u32(g->n_cols - col, BLOCK_COLS);
            unpack(g->w + row * g->row_bytes, g->row_bytes, n_rows, col, n_cols, tile);
            for (uint32_t token = 0, n, i; token < g->n_tokens; token += n) {
                for (i = 0; multipliers->of[i].n > g->n_tokens - token;)
                    i++;
                n = multipliers->of[i].n;
                struct tokens a = {.n_cols = n_cols, .add = col != 0};
                for (uint32_t m = 0; m < n; m++) {
                    a.x[m] = (const uint8_t *)gemm_act(g, token + m) + (uint64_t)col * value_bytes;
                    a.y[m] = g->y + (token + m) * g->y_stride + row;
                }
                multipliers->of[i].fn(&a, tile, n_rows);
            }
        }
    }
}

#endif
