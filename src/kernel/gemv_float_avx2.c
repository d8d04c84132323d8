/* gemv_float_avx2.c - matrix times vector for F32, F16 and BF16 weights; activations stay f32. */
#include <immintrin.h>
#include <string.h>

#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/gemv_avx2.h"

/* 8 weights from p on. */
GEMV_INLINE __m256 weights(uint32_t dtype, const uint8_t *p) {
    if (dtype == OT_F32) {
        return _mm256_loadu_ps((const float *)(const void *)p);
    }
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (dtype == OT_F16) {
        return _mm256_cvtph_ps(h);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* Four sums of a row, which go on over its columns. */
struct row_sums {
    __m256 of[4];
};

GEMV_INLINE struct row_sums no_sums(void) {
    const __m256 zero = _mm256_setzero_ps();
    return (struct row_sums){{zero, zero, zero, zero}};
}

/* n_cols columns for n tokens, a constant where this is inlined; the first one's weights at p. */
GEMV_INLINE void add_columns_of(uint32_t dtype, uint32_t n, const uint8_t *p, const float **x,
                                uint32_t n_cols, struct kernel_ahead ahead, struct row_sums *s) {
    const uint32_t size = dtype == OT_F32 ? 4 : 2;
    for (; n_cols >= 32; n_cols -= 32, p += 32 * size) {
        kernel_prefetch(p, ahead, 32 * size);
        GEMV_EACH(i, 4) {
            const __m256 w = weights(dtype, p + 8 * size * i);
            GEMV_EACH(t, n) {
                s[t].of[i] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x[t] + 8 * i), s[t].of[i]);
            }
        }
        GEMV_EACH(t, n) {
            x[t] += 32;
        }
    }
    /* The last ones, by way of a buffer padded with zeros. */
    for (; n_cols > 0; n_cols -= n_cols < 8 ? n_cols : 8, p += 8 * size) {
        const uint32_t n_last = n_cols < 8 ? n_cols : 8;
        _Alignas(32) uint8_t last[32] = {0};
        memcpy(last, p, (uint64_t)n_last * size);
        GEMV_EACH(t, n) {
            float last_x[8] = {0};
            memcpy(last_x, x[t], n_last * sizeof *last_x);
            s[t].of[0] = _mm256_fmadd_ps(weights(dtype, last), _mm256_loadu_ps(last_x), s[t].of[0]);
            x[t] += 8;
        }
    }
}

GEMV_INLINE struct row_sums add_columns(uint32_t dtype, const uint8_t *p, const float *x,
                                        uint32_t n_cols, struct kernel_ahead ahead,
                                        struct row_sums s) {
    add_columns_of(dtype, 1, p, &x, n_cols, ahead, &s);
    return s;
}

GEMV_INLINE float sum_of(struct row_sums s) {
    return gemv_sum_lanes(
        _mm256_add_ps(_mm256_add_ps(s.of[0], s.of[1]), _mm256_add_ps(s.of[2], s.of[3])));
}

GEMV_INLINE void short_rows(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                            uint32_t n_cols, const float *x, float *y) {
    const struct kernel_ahead ahead = dtype == OT_F32 ? kernel_ahead_light() : kernel_ahead();
    for (uint32_t r = 0; r < n_rows; r++) {
        y[r] = sum_of(add_columns(dtype, w + r * row_bytes, x, n_cols, ahead, no_sums()));
    }
}

enum { BLOCK_COLS = 4096 }; /* 16 KiB of activations */

/* gemv_avx2.h says what a group of rows does with its blocks of columns. */
GEMV_INLINE void long_rows(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                           uint32_t n_cols, const float *x, float *y) {
    const uint32_t size = dtype == OT_F32 ? 4 : 2;
    struct row_sums sums[GEMV_GROUP_ROWS];
    for (uint32_t first = 0; first < n_rows; first += GEMV_GROUP_ROWS) {
        const uint32_t n = min_u32(n_rows - first, GEMV_GROUP_ROWS);
        const uint8_t *rows = w + first * row_bytes;
        memset(sums, 0, sizeof sums);
        for (uint32_t from = 0; from < n_cols; from += BLOCK_COLS) {
            const uint32_t n_block = min_u32(n_cols - from, BLOCK_COLS);
            const uint64_t back = gemv_ahead_after_group(
                row_bytes, n, (uint64_t)from * size, BLOCK_COLS * size, from + n_block == n_cols);
            for (uint32_t r = 0; r < n; r++) {
                sums[r] =
                    add_columns(dtype, rows + r * row_bytes + (uint64_t)from * size, x + from,
                                n_block, kernel_ahead_by(r + 1 < n ? row_bytes : back), sums[r]);
            }
        }
        for (uint32_t r = 0; r < n; r++) {
            y[first + r] = sum_of(sums[r]);
        }
    }
}

/* The loops apart, as in gemv_float_avx512.c. */
#define GEMV_FLOAT(name, dtype)                                                                    \
    static __attribute__((noinline)) void name##_long(const uint8_t *w, uint64_t row_bytes,        \
                                                      uint32_t n_rows, uint32_t n_cols,            \
                                                      const float *x, float *y) {                  \
        long_rows(dtype, w, row_bytes, n_rows, n_cols, x, y);                                      \
    }                                                                                              \
    static __attribute__((noinline)) void name##_short(const uint8_t *w, uint64_t row_bytes,       \
                                                       uint32_t n_rows, uint32_t n_cols,           \
                                                       const float *x, float *y) {                 \
        short_rows(dtype, w, row_bytes, n_rows, n_cols, x, y);                                     \
    }                                                                                              \
    static void name(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,       \
                     const void *x, float *y) {                                                    \
        (n_cols > BLOCK_COLS ? name##_long : name##_short)(w, row_bytes, n_rows, n_cols, x, y);    \
    }
GEMV_FLOAT(gemv_f32, OT_F32)
GEMV_FLOAT(gemv_f16, OT_F16)
GEMV_FLOAT(gemv_bf16, OT_BF16)

/* ---- several tokens: units of 32 columns, four sums each ---- */

GEMV_INLINE void few_part(uint32_t dtype, uint32_t n, const struct gemv_part *p,
                          const void *const *acts, __m256 *kept) {
    const uint32_t size = dtype == OT_F32 ? 4 : 2, from = p->from * 32;
    const float *x[GEMV_TOGETHER];
    struct row_sums sums[GEMV_TOGETHER];
    GEMV_EACH(t, n) {
        x[t] = (const float *)acts[t] + from;
        GEMV_EACH(i, 4) {
            sums[t].of[i] = kept[4 * t + i];
        }
    }
    add_columns_of(dtype, n, p->row + (uint64_t)from * size, x,
                   min_u32(p->to * 32, p->n_cols) - from, p->ahead, sums);
    GEMV_EACH(t, n) {
        GEMV_EACH(i, 4) {
            kept[4 * t + i] = sums[t].of[i];
        }
    }
}

GEMV_INLINE float few_sum(const __m256 *s) {
    return sum_of((struct row_sums){{s[0], s[1], s[2], s[3]}});
}

GEMV_FEW(few_f32, few_part, few_sum, OT_F32, 4, 3, 32, 128, 128)
GEMV_FEW(few_f16, few_part, few_sum, OT_F16, 4, 3, 32, 64, 128)
GEMV_FEW(few_bf16, few_part, few_sum, OT_BF16, 4, 3, 32, 64, 128)

void gemv_float_fill_avx2(struct kernels *k) {
    k->type[OT_F32].few = few_f32;
    k->type[OT_F16].few = few_f16;
    k->type[OT_BF16].few = few_bf16;
    k->type[OT_F32].gemv = gemv_f32;
    k->type[OT_F16].gemv = gemv_f16;
    k->type[OT_BF16].gemv = gemv_bf16;
}
