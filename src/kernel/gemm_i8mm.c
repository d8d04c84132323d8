/* gemm_i8mm.c - many tokens by a quantised weight matrix, with SMMLA (tile.h).
 *
 * SMMLA multiplies two rows of eight columns by two tokens' eight values: a part of 8 rows is four
 * pairs of rows, tokens go in pairs; a token without a partner is paired with itself. */
#include <arm_neon.h>

#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/layout.h"
#include "kernel/tile_neon.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_PAIRS = TILE_MAX_TOKENS / 2, ROW_PAIRS = NEON_PART_ROWS / 2 };

INLINE float scale_of(const struct tile_tokens *a, uint32_t m, uint64_t g) {
    return ((const float *)(const void *)(a->row[m] + a->d_offset))[g];
}

/* x, y, x, y: the factors of two tokens for results [row][token]. */
INLINE float32x4_t by_token(float x, float y) {
    const float32x2_t xy = vset_lane_f32(y, vdup_n_f32(x), 1);
    return vcombine_f32(xy, xy);
}

/* Rows 2 p and 2 p + 1 of 8, twice each: their factors for results [row][token]. */
INLINE void by_row(const float *rows, float32x4_t out[ROW_PAIRS]) {
    const float32x4_t a = vld1q_f32(rows), b = vld1q_f32(rows + 4);
    out[0] = vzip1q_f32(a, a);
    out[1] = vzip2q_f32(a, a);
    out[2] = vzip1q_f32(b, b);
    out[3] = vzip2q_f32(b, b);
}

/* One part; n and has_min are constants where this is inlined. */
INLINE void multiply_part(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                          bool has_min, uint32_t part, uint32_t n_rows) {
    const int8_t *codes = t->codes + part * t->codes_stride;
    const float *scale = t->scale + part * t->group_stride;
    const float *min = t->min + part * t->group_stride;
    const uint32_t n_pairs = (n + 1) / 2;
    float y[MAX_PAIRS][ROW_PAIRS][4] = {{{0}}};
    for (uint32_t m = 0; a->add && m < n; m++)
        for (uint32_t r = 0; r < n_rows; r++)
            y[m / 2][r / 2][r % 2 * 2 + m % 2] = a->y[m][part * NEON_PART_ROWS + r];
    float32x4_t f[MAX_PAIRS][ROW_PAIRS];
#pragma GCC unroll 3
    for (uint32_t p = 0; p < n_pairs; p++)
#pragma GCC unroll 4
        for (uint32_t r = 0; r < ROW_PAIRS; r++)
            f[p][r] = vld1q_f32(y[p][r]);
    for (uint64_t g = 0; g < a->n_cols / 16; g++) {
        if (g % 2 == 0)
            tile_ahead(a, g / 2);
        int8x16_t w[2][ROW_PAIRS];
        for (uint32_t h = 0; h < 2; h++)
            for (uint32_t r = 0; r < ROW_PAIRS; r++)
                w[h][r] = vld1q_s8(codes + ((2 * g + h) * ROW_PAIRS + r) * 16);
        float32x4_t s[ROW_PAIRS], low[ROW_PAIRS];
        by_row(scale + g * NEON_PART_ROWS, s);
        if (has_min)
            by_row(min + g * NEON_PART_ROWS, low);
#pragma GCC unroll 3
        for (uint32_t p = 0; p < n_pairs; p++) {
            const uint32_t m0 = 2 * p, m1 = 2 * p + 1 < n ? 2 * p + 1 : 2 * p;
            const int64x2_t q0 =
                vreinterpretq_s64_s8(vld1q_s8((const int8_t *)(a->row[m0] + a->q_offset + g * 16)));
            const int64x2_t q1 =
                vreinterpretq_s64_s8(vld1q_s8((const int8_t *)(a->row[m1] + a->q_offset + g * 16)));
            const int8x16_t front = vreinterpretq_s8_s64(vzip1q_s64(q0, q1));
            const int8x16_t back = vreinterpretq_s8_s64(vzip2q_s64(q0, q1));
            const float32x4_t d = by_token(scale_of(a, m0, g), scale_of(a, m1, g));
#pragma GCC unroll 4
            for (uint32_t r = 0; r < ROW_PAIRS; r++) {
                const int32x4_t c =
                    vmmlaq_s32(vmmlaq_s32(vdupq_n_s32(0), w[0][r], front), w[1][r], back);
                f[p][r] = vfmaq_f32(f[p][r], vmulq_f32(s[r], d), vcvtq_f32_s32(c));
            }
            if (!has_min)
                continue;
            const float32x4_t sums = by_token(a->sums[g * n + m0], a->sums[g * n + m1]);
#pragma GCC unroll 4
            for (uint32_t r = 0; r < ROW_PAIRS; r++)
                f[p][r] = vfmaq_f32(f[p][r], low[r], sums);
        }
    }
#pragma GCC unroll 3
    for (uint32_t p = 0; p < n_pairs; p++)
#pragma GCC unroll 4
        for (uint32_t r = 0; r < ROW_PAIRS; r++)
            vst1q_f32(y[p][r], f[p][r]);
    for (uint32_t m = 0; m < n; m++)
        for (uint32_t r = 0; r < n_rows; r++)
            a->y[m][part * NEON_PART_ROWS + r] = y[m / 2][r / 2][r % 2 * 2 + m % 2];
}

#define MULTIPLY_PARTS(name, has_min)                                                              \
    TILE_MULTIPLY_6(name, NEON_PART_ROWS,                                                          \
               multiply_part(a, n_tokens, t, has_min, r / NEON_PART_ROWS,                          \
                             min_u32(n_rows - r, NEON_PART_ROWS)))
MULTIPLY_PARTS(plain, false)
MULTIPLY_PARTS(min, true)

static void gemm_quantised(uint32_t dtype, const struct gemm *g, void *scratch) {
    const struct tile_isa isa = {
        .types = tile_types_neon(8),
        .multiply = {{ROW_6(plain)}, {ROW_6(min)}},
        .max_tokens = 6,
        .part_rows = NEON_PART_ROWS,
        .interleaved = false,
    };
    tile_gemm(&isa, dtype, g, scratch);
}

GEMM_TABLE(gemm_entries);

void gemm_fill_i8mm(struct kernels *k) {
    tile_fill(k, tile_types_neon(8), gemm_entries);
}
