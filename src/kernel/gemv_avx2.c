/* gemv_avx2.c - the AVX2 gemv's parts together. */
#include "kernel/gemv_avx2.h"

#include "kernel/fill.h"

void gemv_fill_avx2(struct kernels *k) {
    gemv_block32_fill_avx2(k);
    gemv_block256_fill_avx2(k);
    gemv_float_fill_avx2(k);
}
