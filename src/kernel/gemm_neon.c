/* gemm_neon.c - many tokens by a quantised weight matrix, with NEON's SDOT (tile.h).
 *
 * A part is 8 rows: two vectors of four rows by four columns for each four columns. The 16 values
 * of a token's group are one vector, of which SDOT takes one lane of four at a time. */
#include <arm_neon.h>

#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/layout.h"
#include "kernel/tile_neon.h"

#define INLINE static inline __attribute__((always_inline))

INLINE const float *scales(const struct tile_tokens *a, uint32_t m) {
    return (const float *)(const void *)(a->row[m] + a->d_offset);
}

/* One part; n and has_min are constants where this is inlined. */
INLINE void multiply_part(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                          bool has_min, uint32_t part, uint32_t n_rows) {
    const int8_t *codes = t->codes + part * t->codes_stride;
    const float *scale = t->scale + part * t->group_stride;
    const float *min = t->min + part * t->group_stride;
    float32x4_t f[TILE_MAX_TOKENS][2];
    float y[8] = {0};
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        for (uint32_t r = 0; a->add && r < n_rows; r++)
            y[r] = a->y[m][part * NEON_PART_ROWS + r];
        f[m][0] = vld1q_f32(y);
        f[m][1] = vld1q_f32(y + 4);
    }
    for (uint64_t g = 0; g < a->n_cols / 16; g++) {
        if (g % 2 == 0)
            tile_ahead(a, g / 2);
        int8x16_t w[4][2];
        for (uint32_t k = 0; k < 4; k++) {
            w[k][0] = vld1q_s8(codes + (g * 8 + 2 * k) * 16);
            w[k][1] = vld1q_s8(codes + (g * 8 + 2 * k + 1) * 16);
        }
        const float32x4_t s0 = vld1q_f32(scale + g * 8), s1 = vld1q_f32(scale + g * 8 + 4);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const int8x16_t q = vld1q_s8((const int8_t *)(a->row[m] + a->q_offset + g * 16));
            const float d = scales(a, m)[g];
            int32x4_t c0 = vdupq_n_s32(0), c1 = vdupq_n_s32(0);
            c0 = vdotq_laneq_s32(c0, w[0][0], q, 0);
            c1 = vdotq_laneq_s32(c1, w[0][1], q, 0);
            c0 = vdotq_laneq_s32(c0, w[1][0], q, 1);
            c1 = vdotq_laneq_s32(c1, w[1][1], q, 1);
            c0 = vdotq_laneq_s32(c0, w[2][0], q, 2);
            c1 = vdotq_laneq_s32(c1, w[2][1], q, 2);
            c0 = vdotq_laneq_s32(c0, w[3][0], q, 3);
            c1 = vdotq_laneq_s32(c1, w[3][1], q, 3);
            f[m][0] = vfmaq_f32(f[m][0], vmulq_n_f32(s0, d), vcvtq_f32_s32(c0));
            f[m][1] = vfmaq_f32(f[m][1], vmulq_n_f32(s1, d), vcvtq_f32_s32(c1));
        }
        if (!has_min)
            continue;
        const float32x4_t m0 = vld1q_f32(min + g * 8), m1 = vld1q_f32(min + g * 8 + 4);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            f[m][0] = vfmaq_n_f32(f[m][0], m0, a->sums[g * n + m]);
            f[m][1] = vfmaq_n_f32(f[m][1], m1, a->sums[g * n + m]);
        }
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        vst1q_f32(y, f[m][0]);
        vst1q_f32(y + 4, f[m][1]);
        for (uint32_t r = 0; r < n_rows; r++)
            a->y[m][part * NEON_PART_ROWS + r] = y[r];
    }
}

#define MULTIPLY_PARTS(name, has_min)                                                              \
    TILE_MULTIPLY_6(name, NEON_PART_ROWS,                                                          \
               multiply_part(a, n_tokens, t, has_min, r / NEON_PART_ROWS,                          \
                             min_u32(n_rows - r, NEON_PART_ROWS)))
MULTIPLY_PARTS(plain, false)
MULTIPLY_PARTS(min, true)

static void gemm_quantised(uint32_t dtype, const struct gemm *g, void *scratch) {
    const struct tile_isa isa = {
        .types = tile_types_neon(4),
        .multiply = {{ROW_6(plain)}, {ROW_6(min)}},
        .max_tokens = 6,
        .part_rows = NEON_PART_ROWS,
        .interleaved = false,
    };
    tile_gemm(&isa, dtype, g, scratch);
}

GEMM_TABLE(gemm_entries);

void gemm_fill_neon(struct kernels *k) {
    tile_fill(k, tile_types_neon(4), gemm_entries);
}
