/* dot_bf16.h - the dot product of pairs of bf16. */
#ifndef KERNEL_DOT_BF16_H
#define KERNEL_DOT_BF16_H

#include <immintrin.h>
#include <stdint.h>

/* sum += the dot products of 16 pairs with one pair, which is broadcast by the instruction: a load
 * of its own would take one of the multiplications' places. */
static inline __attribute__((always_inline)) __m512 dot_pairs(__m512 sum, __m512i pairs,
                                                              const uint32_t *one) {
    __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(pairs), "m"(*one));
    return sum;
}

#endif
