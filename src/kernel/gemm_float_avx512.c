/* gemm_float_avx512.c - many tokens by a weight matrix of floats, with AVX-512.
 *
 * As gemm_avx512.c: 32 rows of a block of columns are unpacked to f32, transposed, in scratch that
 * fits L2, and all tokens pass over them, 12 at a time. A value is one chain of fused multiply-adds
 * over the columns in order, broken only where y holds it between two blocks of columns. */
#include <immintrin.h>
#include <string.h>

#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = TILE_ROWS, BLOCK_COLS = TILE_FLOAT_COLS, MAX_TOKENS = 12 };

struct tokens {
    const float *x[MAX_TOKENS]; /* at the block's first column */
    float *y[MAX_TOKENS];       /* at the tile's first row */
    uint32_t n_cols;
    bool add; /* not the first block: add to what y holds */
};

/* tile [n_cols][32 rows] by n tokens; n is a constant where this is inlined. */
INLINE void multiply(const struct tokens *a, uint32_t n, const float *tile, uint32_t n_rows) {
    const __mmask16 rows0 = (__mmask16)(n_rows >= 16 ? 0xffffu : (1u << n_rows) - 1);
    const __mmask16 rows1 = (__mmask16)(n_rows >= 32  ? 0xffffu
                                        : n_rows > 16 ? (1u << (n_rows - 16)) - 1
                                                      : 0u);
    __m512 f[MAX_TOKENS][2];
#pragma GCC unroll 12
    for (uint32_t m = 0; m < n; m++) {
        f[m][0] = a->add ? _mm512_maskz_loadu_ps(rows0, a->y[m]) : _mm512_setzero_ps();
        f[m][1] = a->add ? _mm512_maskz_loadu_ps(rows1, a->y[m] + 16) : _mm512_setzero_ps();
    }
    for (uint64_t c = 0; c < a->n_cols; c++) {
        const __m512 w0 = _mm512_load_ps(tile + c * ROWS);
        const __m512 w1 = _mm512_load_ps(tile + c * ROWS + 16);
#pragma GCC unroll 12
        for (uint32_t m = 0; m < n; m++) {
            const __m512 x = _mm512_set1_ps(a->x[m][c]);
            f[m][0] = _mm512_fmadd_ps(x, w0, f[m][0]);
            f[m][1] = _mm512_fmadd_ps(x, w1, f[m][1]);
        }
    }
#pragma GCC unroll 12
    for (uint32_t m = 0; m < n; m++) {
        _mm512_mask_storeu_ps(a->y[m], rows0, f[m][0]);
        _mm512_mask_storeu_ps(a->y[m] + 16, rows1, f[m][1]);
    }
}

#define MULTIPLY(n)                                                                                \
    static void multiply_##n(const struct tokens *a, const float *tile, uint32_t n_rows) {         \
        multiply(a, n, tile, n_rows);                                                              \
    }
MULTIPLY(1)
MULTIPLY(2)
MULTIPLY(3)
MULTIPLY(4)
MULTIPLY(6)
MULTIPLY(8)
MULTIPLY(10)
MULTIPLY(12)

/* The most tokens that one call takes of n_left. */
static uint32_t pick(uint32_t n_left, void (**fn)(const struct tokens *, const float *, uint32_t)) {
    static const struct {
        uint32_t n;
        void (*fn)(const struct tokens *, const float *, uint32_t);
    } table[] = {
        {12, multiply_12}, {10, multiply_10}, {8, multiply_8}, {6, multiply_6},
        {4, multiply_4},   {3, multiply_3},   {2, multiply_2}, {1, multiply_1},
    };
    uint32_t i = 0;
    while (table[i].n > n_left)
        i++;
    *fn = table[i].fn;
    return table[i].n;
}

/* 16 values of a row, or the first n, as f32. */
typedef __m512 load_fn(const uint8_t *w, __mmask16 mask);

INLINE __m512 load_f32(const uint8_t *w, __mmask16 mask) {
    return _mm512_maskz_loadu_ps(mask, w);
}
INLINE __m512 load_f16(const uint8_t *w, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, w));
}
INLINE __m512 load_bf16(const uint8_t *w, __mmask16 mask) {
    const __m512i v = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, w));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
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

/* Columns [col, col + n_cols) of n_rows rows into tile [n_cols][32]; rows beyond n_rows repeat the
 * last one or are left as they were. ahead: bytes to the next tile's rows, to prefetch them. */
INLINE void unpack(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,
                   uint32_t n_cols, uint32_t value_bytes, load_fn *load, float *tile) {
    for (uint32_t half = 0; half < n_rows; half += 16) {
        const uint8_t *rows[16];
        for (uint32_t i = 0; i < 16; i++)
            rows[i] = w + (uint64_t)min_u32(half + i, n_rows - 1) * row_bytes +
                      (uint64_t)col * value_bytes;
        for (uint32_t c = 0; c < n_cols; c += 16) {
            const uint32_t n = min_u32(n_cols - c, 16);
            const __mmask16 mask = (__mmask16)((1u << n) - 1);
            __m512 r[16];
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++) {
                const uint8_t *p = rows[i] + (uint64_t)c * value_bytes;
                _mm_prefetch((const char *)p + ROWS * row_bytes, _MM_HINT_T1);
                r[i] = load(p, mask);
            }
            transpose_16(r);
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++)
                if (i < n)
                    _mm512_store_ps(tile + (uint64_t)(c + i) * ROWS + half, r[i]);
        }
    }
}

typedef void unpack_fn(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,
                       uint32_t n_cols, float *tile);

#define UNPACK(name, bytes, load)                                                                  \
    static void name(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,          \
                     uint32_t n_cols, float *tile) {                                               \
        unpack(w, row_bytes, n_rows, col, n_cols, bytes, load, tile);                              \
    }
UNPACK(unpack_f32, 4, load_f32)
UNPACK(unpack_f16, 2, load_f16)
UNPACK(unpack_bf16, 2, load_bf16)

static void pass_tokens(const struct gemm *g, const float *tile, uint64_t row, uint32_t col,
                        uint32_t n_cols) {
    const uint32_t n_rows = g->n_rows - row < ROWS ? (uint32_t)(g->n_rows - row) : ROWS;
    for (uint32_t token = 0; token < g->n_tokens;) {
        void (*fn)(const struct tokens *, const float *, uint32_t);
        const uint32_t n = pick(g->n_tokens - token, &fn);
        struct tokens a = {.n_cols = n_cols, .add = col != 0};
        for (uint32_t m = 0; m < n; m++) {
            a.x[m] = (const float *)(const void *)gemm_act(g, token + m) + col;
            a.y[m] = g->y + (token + m) * g->y_stride + row;
        }
        fn(&a, tile, n_rows);
        token += n;
    }
}

static void gemm_float(const struct gemm *g, unpack_fn *unpack_type, float *tile) {
    for (uint64_t row = 0; row < g->n_rows; row += ROWS) {
        for (uint32_t col = 0; col < g->n_cols; col += BLOCK_COLS) {
            const uint32_t n_cols = min_u32(g->n_cols - col, BLOCK_COLS);
            unpack_type(g->w + row * g->row_bytes, g->row_bytes,
                        (uint32_t)min_u64(g->n_rows - row, ROWS), col, n_cols, tile);
            pass_tokens(g, tile, row, col, n_cols);
        }
    }
}

GEMM_ENTRY(gemm_f32, gemm_float(&g, unpack_f32, scratch))
GEMM_ENTRY(gemm_f16, gemm_float(&g, unpack_f16, scratch))
GEMM_ENTRY(gemm_bf16, gemm_float(&g, unpack_bf16, scratch))

void gemm_float_fill_avx512(struct kernels *k) {
    k->type[OT_F32].gemm = gemm_f32;
    k->type[OT_F16].gemm = gemm_f16;
    k->type[OT_BF16].gemm = gemm_bf16;
    k->type[OT_F32].layout_gemm = KERNEL_LAYOUT_F32;
    k->type[OT_F16].layout_gemm = KERNEL_LAYOUT_F32;
    k->type[OT_BF16].layout_gemm = KERNEL_LAYOUT_F32;
}
