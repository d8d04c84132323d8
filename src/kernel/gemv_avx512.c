/* gemv_avx512.c - the AVX-512 gemv's parts together. */
#include "kernel/gemv_avx512.h"

#include "kernel/fill.h"

void gemv_fill_avx512(struct kernels *k) {
    gemv_nibbles_fill_avx512(k);
    gemv_block32_fill_avx512(k);
    gemv_block256_fill_avx512(k);
    gemv_float_fill_avx512(k);
}
