/* gemm_avxvnni.c - many tokens by a matrix of signed codes of 8 bits, with AVX-VNNI (tile.h).
 *
 * What AVX2 needs four instructions for, products of bytes summed in 32 bits, is one here. It
 * multiplies unsigned codes by signed activations: the codes' highest bit is flipped, which makes
 * them 128 too large, and 128 times the sum of the activations is taken off. Types with smaller
 * codes gain nothing: AVX2 adds their products in 16 bits, a multiplication for as many columns. */
#include "kernel/fill.h"
#include "kernel/gemm_avx2.h"

enum { ZERO = 128 };

/* Products of 16 columns; q: [token]. */
INLINE void dot_16(const int8_t *const *q, uint32_t n, const int8_t *codes, sums t) {
    const __m256i flip = _mm256_set1_epi8((char)ZERO);
#pragma GCC unroll 4
    for (uint32_t k = 0; k < 4; k++) {
        const __m256i w[VECTORS] = {_mm256_xor_si256(load(codes, k, 0), flip),
                                    _mm256_xor_si256(load(codes, k, 1), flip)};
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m256i a = broadcast_4(q[m] + 4 * k);
#pragma GCC unroll 2
            for (uint32_t i = 0; i < VECTORS; i++)
                t[m][i] =
                    _mm256_dpbusd_avx_epi32(k == 0 ? _mm256_setzero_si256() : t[m][i], w[i], a);
        }
    }
}

INLINE void multiply_signed(const struct tile_tokens *a, uint32_t n, const struct tile *tile,
                            uint32_t part, uint32_t n_rows) {
    const int8_t *codes = tile->codes + part * tile->codes_stride;
    const float *scale = tile->scale + part * tile->group_stride;
    const int8_t *q[MAX_TOKENS];
    const float *d[MAX_TOKENS];
    results f;
    begin(a, n, part * PART_ROWS, n_rows, f);
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        q[m] = (const int8_t *)a->row[m] + a->q_offset;
        d[m] = (const float *)(const void *)(a->row[m] + a->d_offset);
    }
    for (uint32_t b = 0; b < a->n_cols / 32; b++) {
        tile_ahead(a, b);
        results first_half;
        sums t;
        dot_16(q, n, codes, t);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m256 start = _mm256_set1_ps(-ZERO * a->sums[b * n + m]);
#pragma GCC unroll 2
            for (uint32_t i = 0; i < VECTORS; i++)
                first_half[m][i] =
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(t[m][i]), broadcast_f32(d[m]), start);
            q[m] += 16;
        }
        dot_16(q, n, codes + 16 * PART_ROWS, t);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
#pragma GCC unroll 2
            for (uint32_t i = 0; i < VECTORS; i++) {
                const __m256 both = _mm256_fmadd_ps(_mm256_cvtepi32_ps(t[m][i]),
                                                    broadcast_f32(d[m] + 1), first_half[m][i]);
                f[m][i] = _mm256_fmadd_ps(both, _mm256_load_ps(scale + 8 * i), f[m][i]);
            }
            q[m] += 16;
            d[m] += 2;
        }
        codes += 32 * PART_ROWS;
        scale += PART_ROWS;
    }
    finish(a, n, part * PART_ROWS, n_rows, f);
}

TILE_MULTIPLY_6(signed, PART_ROWS, multiply_signed(a, n_tokens, t, r / PART_ROWS, n_rows - r))

static struct tile_type types[OT_DTYPE_MAX]; /* written once, when the table is filled */

static void gemm_signed(uint32_t dtype, const struct gemm *g, void *scratch) {
    const struct tile_isa isa = {
        .types = types,
        .multiply = {[KIND_SIGNED] = {ROW_6(signed)}},
        .max_tokens = MAX_TOKENS,
        .part_rows = PART_ROWS,
        .interleaved = false,
    };
    tile_gemm(&isa, dtype, g, scratch);
}

GEMM_ENTRY(gemm_q8_0, gemm_signed(OT_Q8_0, &g, scratch))
GEMM_ENTRY(gemm_iq4_nl, gemm_signed(OT_IQ4_NL, &g, scratch))
GEMM_ENTRY(gemm_iq4_xs, gemm_signed(OT_IQ4_XS, &g, scratch))

void gemm_fill_avxvnni(struct kernels *k) {
    static kernel_gemm_fn *const entries[OT_DTYPE_MAX] = {
        [OT_Q8_0] = gemm_q8_0, [OT_IQ4_NL] = gemm_iq4_nl, [OT_IQ4_XS] = gemm_iq4_xs};
    for (uint32_t i = 0; i < OT_DTYPE_MAX; i++) {
        if (entries[i] != NULL) {
            types[i] = tile_types_avx2()[i];
            types[i].layout = LAYOUT_Q8;
            types[i].wants_sums = true;
        }
    }
    tile_fill(k, types, entries);
}
