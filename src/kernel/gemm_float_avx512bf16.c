/* gemm_float_avx512bf16.c - many tokens by a weight matrix of bf16: as gemm_float_avx512.h, by dot
 * products of bf16. Weights are exact; activations are rounded to bf16 when they are prepared. */
#include "kernel/dot_bf16.h"
#include "kernel/fill.h"
#include "kernel/gemm_float_avx512.h"
#include "kernel/layout_avx512.h"

/* tile [pairs of columns][32 rows] by n tokens; n is a constant where this is inlined. */
INLINE void multiply(const struct tokens *a, uint32_t n, const uint32_t *tile, uint32_t n_rows) {
    __m512 f[MAX_TOKENS][2];
    take_sums(a, n, n_rows, f);
    for (uint64_t i = 0; i < ((uint64_t)a->n_cols + 1) / 2; i++) {
        const __m512i w0 = _mm512_load_si512(tile + i * ROWS);
        const __m512i w1 = _mm512_load_si512(tile + i * ROWS + 16);
#pragma GCC unroll 12
        for (uint32_t m = 0; m < n; m++) {
            const uint32_t *x = (const uint32_t *)a->x[m] + i;
            f[m][0] = dot_pairs(f[m][0], w0, x);
            f[m][1] = dot_pairs(f[m][1], w1, x);
        }
    }
    give_sums(a, n, n_rows, f);
}

MULTIPLIERS

static void unpack(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t col,
                   uint32_t n_cols, void *tile) {
    for (uint32_t half = 0; half < n_rows; half += 16) {
        const uint8_t *rows[16];
        for (uint32_t i = 0; i < 16; i++)
            rows[i] = w + (uint64_t)min_u32(half + i, n_rows - 1) * row_bytes + 2 * (uint64_t)col;
        for (uint32_t c = 0; c < n_cols; c += 32) {
            const uint32_t n = min_u32(n_cols - c, 32);
            const __mmask32 mask = (__mmask32)(n == 32 ? UINT32_MAX : (1u << n) - 1);
            __m512 r[16];
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++) {
                const uint8_t *p = rows[i] + 2 * (uint64_t)c;
                _mm_prefetch((const char *)p + ROWS * row_bytes, _MM_HINT_T1);
                r[i] = _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, p));
            }
            transpose_16(r);
            uint32_t *to = (uint32_t *)tile + (uint64_t)c / 2 * ROWS + half;
#pragma GCC unroll 16
            for (uint32_t i = 0; i < 16; i++)
                if (2 * i < n)
                    _mm512_store_ps((float *)(void *)(to + i * ROWS), r[i]);
        }
    }
}

GEMM_ENTRY(gemm_bf16, gemm_float(&g, unpack, &multipliers, sizeof(uint16_t), scratch))

void gemm_float_fill_avx512bf16(struct kernels *k) {
    k->type[OT_BF16].gemm = gemm_bf16;
    k->type[OT_BF16].layout_gemm = LAYOUT_GEMM_BF16;
}
