/* gemv_float_avx512.c - matrix times vector for F32, F16 and BF16 weights; activations stay f32. */
#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/gemv_avx512.h"

/* 16 weights from p on, those of mask; the others are 0. */
GEMV_INLINE __m512 weights(uint32_t dtype, const uint8_t *p, __mmask16 mask) {
    if (dtype == OT_F32) {
        return _mm512_maskz_loadu_ps(mask, p);
    }
    __m256i h = _mm256_maskz_loadu_epi16(mask, p);
    if (dtype == OT_F16) {
        return _mm512_cvtph_ps(h);
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* Four sums of a row, which go on over its columns [from, to). */
struct row_sums {
    __m512 of[4];
};

GEMV_INLINE struct row_sums no_sums(void) {
    const __m512 zero = _mm512_setzero_ps();
    return (struct row_sums){{zero, zero, zero, zero}};
}

GEMV_INLINE struct row_sums add_columns(uint32_t dtype, const uint8_t *row, const float *x,
                                        uint32_t from, uint32_t to, struct kernel_ahead ahead,
                                        struct row_sums s) {
    const uint32_t size = dtype == OT_F32 ? 4 : 2;
    const __mmask16 all = 0xffff;
    const uint8_t *p = row + (uint64_t)from * size;
    uint32_t c = from;
    for (; c + 64 <= to; c += 64, p += 64 * size) {
        kernel_prefetch(p, ahead, 64 * size);
        for (int i = 0; i < 4; i++) {
            s.of[i] = _mm512_fmadd_ps(weights(dtype, p + 16u * size * (uint32_t)i, all),
                                      _mm512_loadu_ps(x + c + 16 * i), s.of[i]);
        }
    }
    for (; c < to; c += 16, p += 16 * size) {
        __mmask16 mask = (__mmask16)(to - c >= 16 ? 0xffffu : (1u << (to - c)) - 1);
        s.of[0] =
            _mm512_fmadd_ps(weights(dtype, p, mask), _mm512_maskz_loadu_ps(mask, x + c), s.of[0]);
    }
    return s;
}

GEMV_INLINE __m512 all_of(struct row_sums s) {
    return _mm512_add_ps(_mm512_add_ps(s.of[0], s.of[1]), _mm512_add_ps(s.of[2], s.of[3]));
}
GEMV_INLINE float sum_of(struct row_sums s) {
    return gemv_sum(all_of(s));
}

GEMV_INLINE void short_rows(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                            uint32_t n_cols, const float *x, float *y) {
    const struct kernel_ahead ahead = kernel_ahead_light();
    for (uint32_t r = 0; r < n_rows; r++) {
        y[r] = sum_of(add_columns(dtype, w + r * row_bytes, x, 0, n_cols, ahead, no_sums()));
    }
}

enum { BLOCK_COLS = 4096, BLOCK_ROWS = 16 }; /* 16 KiB of activations */

/* As in gemv_block32_avx512.c: a group of rows over a block of columns, then over the next one. */
GEMV_INLINE void long_rows(uint32_t dtype, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                           uint32_t n_cols, const float *x, float *y) {
    const uint64_t block_bytes = BLOCK_COLS * (dtype == OT_F32 ? 4 : 2);
    struct row_sums sums[BLOCK_ROWS];
    for (uint32_t first = 0; first < n_rows; first += BLOCK_ROWS) {
        const uint32_t n = min_u32(n_rows - first, BLOCK_ROWS);
        const uint8_t *rows = w + first * row_bytes;
        memset(sums, 0, sizeof sums);
        for (uint32_t from = 0; from < n_cols; from += BLOCK_COLS) {
            const uint32_t to = min_u32(n_cols - from, BLOCK_COLS) + from;
            const uint64_t back = to == n_cols ? row_bytes - from / BLOCK_COLS * block_bytes
                                               : block_bytes - (n - 1) * row_bytes;
            for (uint32_t r = 0; r < n; r++) {
                sums[r] = add_columns(dtype, rows + r * row_bytes, x, from, to,
                                      kernel_ahead_by(r + 1 < n ? row_bytes : back), sums[r]);
            }
        }
        for (uint32_t r = 0; r < n; r++) {
            y[first + r] = sum_of(sums[r]);
        }
    }
}

/* Each in functions of their own: beside the other loop, F16's own reads a quarter slower from
 * memory (bench/results/kernels-decode.md). */
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
        const bool twice = dtype == OT_F32 && kernel_tuning.large_l1;                              \
        const uint32_t most = twice ? 2 * BLOCK_COLS : BLOCK_COLS;                                 \
        (n_cols > most ? name##_long : name##_short)(w, row_bytes, n_rows, n_cols, x, y);          \
    }
GEMV_FLOAT(gemv_f32, OT_F32)
GEMV_FLOAT(gemv_f16, OT_F16)
GEMV_FLOAT(gemv_bf16, OT_BF16)

/* ---- several tokens: units of 64 columns, four sums each ---- */

GEMV_INLINE void few_part(uint32_t dtype, uint32_t n, const uint8_t *row, uint32_t n_cols,
                          uint32_t from, uint32_t to, bool end, struct kernel_ahead ahead,
                          const void *const *acts, __m512 *sums) {
    const uint32_t size = dtype == OT_F32 ? 4 : 2, cols = end ? n_cols : to * 64;
    const __mmask16 all = 0xffff;
    const uint8_t *p = row + (uint64_t)from * 64 * size;
    const float *x[GEMV_TOGETHER];
    uint32_t c = from * 64;
    _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
        x[t] = acts[t];
    }
    for (; c + 64 <= cols; c += 64, p += 64 * size) {
        kernel_prefetch(p, ahead, 64 * size);
        _Pragma("GCC unroll 4") for (uint32_t i = 0; i < 4; i++) {
            const __m512 w = weights(dtype, p + 16u * size * i, all);
            _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
                sums[4 * t + i] =
                    _mm512_fmadd_ps(w, _mm512_loadu_ps(x[t] + c + 16 * i), sums[4 * t + i]);
            }
        }
    }
    for (; c < cols; c += 16, p += 16 * size) {
        __mmask16 mask = (__mmask16)(cols - c >= 16 ? 0xffffu : (1u << (cols - c)) - 1);
        const __m512 w = weights(dtype, p, mask);
        _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
            sums[4 * t] = _mm512_fmadd_ps(w, _mm512_maskz_loadu_ps(mask, x[t] + c), sums[4 * t]);
        }
    }
    if (end) {
        _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
            sums[4 * t] = all_of((struct row_sums){
                {sums[4 * t], sums[4 * t + 1], sums[4 * t + 2], sums[4 * t + 3]}});
        }
    }
}

GEMV_FEW(few_f32, few_part, OT_F32, 4, 4, 64, 256, 256)
GEMV_FEW(few_f16, few_part, OT_F16, 4, 4, 64, 128, 256)
GEMV_FEW(few_bf16, few_part, OT_BF16, 4, 4, 64, 128, 256)

void gemv_float_fill_avx512(struct kernels *k) {
    k->type[OT_F32].few = few_f32;
    k->type[OT_F16].few = few_f16;
    k->type[OT_BF16].few = few_bf16;
    k->type[OT_F32].gemv = gemv_f32;
    k->type[OT_F16].gemv = gemv_f16;
    k->type[OT_BF16].gemv = gemv_bf16;
}
