/* gemm_avx512.c - many tokens by a quantised weight matrix, with AVX-512 VNNI (tile.h).
 *
 * Codes come as u8 (code + 128), activations are signed: each sum of 16 products starts at
 * -128 * (sum of the 16 activations), which is the same for all rows.
 *
 * Pairs (struct gemm_pairs), where a sum of 16 products fits 16 bits: a vector has the sums of both
 * halves of 32 columns for 8 rows, two of them are packed to 16 bits, one instruction scales both
 * halves and adds them. 6 tokens by 16 rows keep 12 sums in registers beside 12 results, those of
 * the tile's other rows among them.
 *
 * Blocks (struct gemm_block), the other types: sums of 16 are scaled in f32. 4 tokens, so that the
 * scaled first half of 32 columns has room too; 6 where no half waits, because weights have a scale
 * for each 16 columns, or because these scales fit the 8 bits of the codes and are multiplied into
 * them (Q2_K, Q3_K).
 *
 * The fewest vector operations count, not only the fewest multiplications: there are CPUs where all
 * of them share two ports.
 *
 * Order of a value's sums, pairs: 32 columns with their activation scales in integers, then the
 * weight's scale, then the minimum; where 256 columns have another unit, a power of two, the sum is
 * taken to it, which rounds nothing. Blocks: 16 columns in integers; two of those with their
 * activation scales in f32; then the weight's scale. Where weights have a scale for each 16
 * columns: each with both scales; where those are part of the codes: 256 columns with their
 * activation scales, then the weight's scale, then the minima. */
#include <immintrin.h>
#include <string.h>

#include "kernel/fill.h"
#include "kernel/layout_avx512.h"
#include "kernel/tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_TOKENS = 6 };

INLINE __m512i broadcast_4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

INLINE __m512i broadcast_8(const void *p) {
    int64_t v;
    memcpy(&v, p, 8);
    return _mm512_set1_epi64(v);
}

INLINE __m512 broadcast_f32(const void *p) {
    float v;
    memcpy(&v, p, 4);
    return _mm512_set1_ps(v);
}

typedef __m512i sums[MAX_TOKENS][2]; /* [token][half of the rows] */
typedef __m512 results[MAX_TOKENS][2];

INLINE __mmask16 first(uint32_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
}

INLINE void begin(const struct tile_tokens *a, uint32_t n, uint32_t n_rows, results f) {
    const __mmask16 rows[2] = {first(n_rows), n_rows > 16 ? first(n_rows - 16) : 0};
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 2
        for (uint32_t i = 0; i < 2; i++)
            f[m][i] =
                a->add ? _mm512_maskz_loadu_ps(rows[i], a->y[m] + 16 * i) : _mm512_setzero_ps();
}

INLINE void multiply_results(uint32_t n, float by, results f) {
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        f[m][0] = _mm512_mul_ps(f[m][0], _mm512_set1_ps(by));
        f[m][1] = _mm512_mul_ps(f[m][1], _mm512_set1_ps(by));
    }
}

INLINE void finish(const struct tile_tokens *a, uint32_t n, uint32_t n_rows, results f) {
    const __mmask16 rows[2] = {first(n_rows), n_rows > 16 ? first(n_rows - 16) : 0};
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 2
        for (uint32_t i = 0; i < 2; i++)
            _mm512_mask_storeu_ps(a->y[m] + 16 * i, rows[i], f[m][i]);
}

/* c += products of 16 columns; q[m]: token m's. */
INLINE void dot_16(const int8_t *const *q, uint32_t n, const int8_t *codes, sums c) {
#pragma GCC unroll 4
    for (uint32_t k = 0; k < 4; k++) {
        const __m512i w0 = _mm512_load_si512(codes + k * 128);
        const __m512i w1 = _mm512_load_si512(codes + k * 128 + 64);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m512i v = broadcast_4(q[m] + k * 4);
            c[m][0] = _mm512_dpbusd_epi32(c[m][0], w0, v);
            c[m][1] = _mm512_dpbusd_epi32(c[m][1], w1, v);
        }
    }
}

/* n and scale_cols are constants where this is inlined. */
INLINE void multiply(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                     uint32_t scale_cols, uint32_t n_rows) {
    const __m512 base = _mm512_set1_ps(GEMM_BLOCK_BASE);
    results f, half;
    begin(a, n, n_rows, f);
    multiply_results(n, 1 / GEMM_BLOCK_UNIT, f);
    for (uint64_t b = 0; b < a->n_cols / 32; b++) {
        tile_ahead(a, b);
        const struct gemm_block *act[MAX_TOKENS];
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++)
            act[m] = (const struct gemm_block *)(const void *)a->row[m] + a->col / 32 + b;
#pragma GCC unroll 2
        for (uint32_t h = 0; h < 2; h++) {
            const uint64_t g = 2 * b + h, group = scale_cols == 16 ? g : b;
            const float *scale = t->scale + group * TILE_ROWS;
            const int8_t *q[MAX_TOKENS];
            sums c;
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                q[m] = act[m]->q + 16 * h;
                c[m][0] = c[m][1] = broadcast_4(&act[m]->start[h]);
            }
            dot_16(q, n, t->codes + g * 16 * TILE_ROWS, c);
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                const __m512 d = broadcast_f32(&act[m]->d[h]);
                const __m512 zero = broadcast_f32(&act[m]->zero[h]);
#pragma GCC unroll 2
                for (uint32_t i = 0; i < 2; i++) {
                    const __m512 x = _mm512_castsi512_ps(c[m][i]);
                    if (scale_cols == 16)
                        f[m][i] = _mm512_fmadd_ps(_mm512_fmadd_ps(d, x, zero),
                                                  _mm512_load_ps(scale + 16 * i), f[m][i]);
                    else if (h == 0)
                        half[m][i] = _mm512_fmadd_ps(d, x, zero);
                    else
                        f[m][i] =
                            _mm512_fmadd_ps(_mm512_fmadd_ps(d, _mm512_sub_ps(x, base), half[m][i]),
                                            _mm512_load_ps(scale + 16 * i), f[m][i]);
                }
            }
        }
    }
    multiply_results(n, GEMM_BLOCK_UNIT, f);
    finish(a, n, n_rows, f);
}

/* Blocks of 256 columns with one scale of weights, multiplied last: the scales of their groups are
 * part of the codes. n and has_min are constants where this is inlined. */
INLINE void multiply_256(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                         bool has_min, uint32_t n_rows) {
    const __m512 base = _mm512_set1_ps(GEMM_BLOCK_BASE);
    results f;
    begin(a, n, n_rows, f);
    multiply_results(n, 1 / GEMM_BLOCK_UNIT, f);
    for (uint64_t b = 0; b < a->n_cols / 32; b += 8) {
        const struct gemm_block *act[MAX_TOKENS];
        results x256;
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            act[m] = (const struct gemm_block *)(const void *)a->row[m] + a->col / 32 + b;
            x256[m][0] = x256[m][1] = _mm512_setzero_ps();
        }
#pragma GCC unroll 1
        for (uint64_t g = 0; g < 16; g++) {
            if (g % 2 == 0)
                tile_ahead(a, b + g / 2);
            const int8_t *q[MAX_TOKENS];
            sums c;
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                q[m] = act[m][g / 2].q + 16 * (g % 2);
                c[m][0] = c[m][1] = broadcast_4(&act[m][g / 2].start[g % 2]);
            }
            dot_16(q, n, t->codes + (2 * b + g) * 16 * TILE_ROWS, c);
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                const __m512 d = broadcast_f32(&act[m][g / 2].d[g % 2]);
#pragma GCC unroll 2
                for (uint32_t i = 0; i < 2; i++)
                    x256[m][i] = _mm512_fmadd_ps(
                        d, _mm512_sub_ps(_mm512_castsi512_ps(c[m][i]), base), x256[m][i]);
            }
        }
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 2
            for (uint32_t i = 0; i < 2; i++)
                f[m][i] = _mm512_fmadd_ps(
                    x256[m][i], _mm512_load_ps(t->scale + 2 * b * TILE_ROWS + 16 * i), f[m][i]);
        for (uint64_t g = 0; has_min && g < 16; g++) {
            const float *min = t->min + (2 * b + g) * TILE_ROWS;
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                const __m512 s = broadcast_f32(&act[m][g / 2].s[g % 2]);
                f[m][0] = _mm512_fmadd_ps(s, _mm512_load_ps(min), f[m][0]);
                f[m][1] = _mm512_fmadd_ps(s, _mm512_load_ps(min + 16), f[m][1]);
            }
        }
    }
    multiply_results(n, GEMM_BLOCK_UNIT, f);
    finish(a, n, n_rows, f);
}

/* Block b of 256 columns: 32 columns by the 16 rows whose codes and results are given. A sum's two
 * halves are neighbours, and stay so when they become 16 bits. */
INLINE void multiply_pair(const struct gemm_pairs *const *act, uint32_t b, uint32_t n,
                          const int8_t *codes, const float *scale, const float *min, uint32_t half,
                          results f) {
    sums c;
    /* Else broadcasts of both halves are made at once, and spilled. */
    __asm__ volatile("" : "+r"(b));
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        c[m][0] = c[m][1] = broadcast_8(act[m]->block[b].start);
#pragma GCC unroll 4
    for (uint32_t k = 0; k < 4; k++) {
        const __m512i w0 = _mm512_load_si512(codes + k * 256);
        const __m512i w1 = _mm512_load_si512(codes + k * 256 + 128);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m512i v = broadcast_8(act[m]->block[b].q + k * 8);
            c[m][0] = _mm512_dpbusd_epi32(c[m][0], w0, v);
            c[m][1] = _mm512_dpbusd_epi32(c[m][1], w1, v);
        }
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        const __m512i steps = broadcast_4(act[m]->block[b].steps);
        const __m512i both = _mm512_packs_epi32(c[m][0], c[m][1]);
        const __m512i x = _mm512_madd_epi16(both, steps);
        f[m][half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(x), _mm512_load_ps(scale), f[m][half]);
    }
    if (min == NULL)
        return;
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        f[m][half] =
            _mm512_fmadd_ps(broadcast_f32(&act[m]->block[b].s), _mm512_load_ps(min), f[m][half]);
}

/* Rare: results of other columns to the unit of these. */
INLINE void change_units(const struct gemm_pairs *const *act, uint32_t n, results f) {
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        const __m512 ratio = broadcast_f32(&act[m]->ratio);
        f[m][0] = _mm512_mul_ps(f[m][0], ratio);
        f[m][1] = _mm512_mul_ps(f[m][1], ratio);
    }
}

INLINE void multiply_pairs(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                           bool has_min, uint32_t n_rows) {
    const struct gemm_pairs *act[MAX_TOKENS];
    const int8_t *codes = t->codes;
    const float *scale = t->scale, *min = has_min ? t->min : NULL;
    results f;
    begin(a, n, n_rows, f);
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        act[m] = (const struct gemm_pairs *)(const void *)a->row[m] + a->col / 256 - 1;
    bool other_unit = a->add; /* results that are 0 need no ratio */
    for (uint32_t left = a->n_cols / 32; left > 0;) {
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++)
            other_unit |= (++act[m])->ratio != 1.0f && left != a->n_cols / 32;
        if (other_unit)
            change_units(act, n, f);
        other_unit = false;
        const uint32_t n_blocks = left < 8 ? left : 8;
        for (uint32_t b = 0; b < n_blocks; b++) {
            tile_ahead(a, a->n_cols / 32 - left + b);
            multiply_pair(act, b, n, codes, scale, min, 0, f);
            multiply_pair(act, b, n, codes + 64, scale + 16, has_min ? min + 16 : NULL, 1, f);
            codes += 32 * TILE_ROWS;
            scale += TILE_ROWS;
            min = has_min ? min + TILE_ROWS : NULL;
        }
        left -= n_blocks;
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        const __m512 unit = broadcast_f32(&act[m]->unit);
        f[m][0] = _mm512_mul_ps(f[m][0], unit);
        f[m][1] = _mm512_mul_ps(f[m][1], unit);
    }
    finish(a, n, n_rows, f);
}

TILE_MULTIPLY_6(pairs, TILE_ROWS, multiply_pairs(a, n_tokens, t, false, n_rows))
TILE_MULTIPLY_6(pairs_min, TILE_ROWS, multiply_pairs(a, n_tokens, t, true, n_rows))
TILE_MULTIPLY_4(plain_32, TILE_ROWS, multiply(a, n_tokens, t, 32, n_rows))
TILE_MULTIPLY_6(plain_16, TILE_ROWS, multiply(a, n_tokens, t, 16, n_rows))
TILE_MULTIPLY_6(plain_256, TILE_ROWS, multiply_256(a, n_tokens, t, false, n_rows))
TILE_MULTIPLY_6(min_256, TILE_ROWS, multiply_256(a, n_tokens, t, true, n_rows))

static void gemm_quantised(uint32_t dtype, const struct gemm *g, void *scratch) {
    const struct tile_isa isa = {
        .types = tile_types_avx512(),
        .multiply = {{ROW_6(pairs)},
                     {ROW_6(pairs_min)},
                     {ROW_4(plain_32)},
                     {ROW_6(plain_16)},
                     {ROW_6(plain_256)},
                     {ROW_6(min_256)}},
        .max_tokens = MAX_TOKENS,
        .part_rows = 16,
        .interleaved = true,
    };
    tile_gemm(&isa, dtype, g, scratch);
}

GEMM_TABLE(gemm_entries);

void gemm_fill_avx512(struct kernels *k) {
    tile_fill(k, tile_types_avx512(), gemm_entries);
    gemm_float_fill_avx512(k);
}
