/* gemv_few.h - what the gemv for several tokens (kernel_few_fn) of both instruction sets share: how
 * they are called. What they do differs with the registers that there are: gemv_few_rows and struct
 * gemv_way of gemv_avx2.h and gemv_avx512.h. */
#ifndef KERNEL_GEMV_FEW_H
#define KERNEL_GEMV_FEW_H

#include <stdint.h>

/* The arguments of a kernel_few_fn. */
struct gemv_few {
    const uint8_t *w;
    uint64_t row_bytes;
    uint32_t n_rows, n_cols;
    const void *const *x;
    uint32_t n_tokens;
    float *y;
    uint64_t y_stride;
};

/* A type's function. */
#define GEMV_FEW(name, ...)                                                                        \
    static void name(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,       \
                     const void *const *x, uint32_t n_tokens, float *y, uint64_t y_stride) {       \
        const struct gemv_few few = {w, row_bytes, n_rows, n_cols, x, n_tokens, y, y_stride};      \
        const struct gemv_way way = {__VA_ARGS__};                                                 \
        gemv_few_rows(&way, &few);                                                                 \
    }

#endif
