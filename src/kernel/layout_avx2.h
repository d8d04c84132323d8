/* layout_avx2.h - the layout that the AVX2 gemv of every quantised type wants, made from the same q
 * and d as LAYOUT_Q8: eight sub-blocks of 32 values, whatever the type's own blocks. */
#ifndef KERNEL_LAYOUT_AVX2_H
#define KERNEL_LAYOUT_AVX2_H

#include <stdint.h>

#include "kernel/layout.h"

enum { LAYOUT_SUBS256 = LAYOUT_GEMV_FIRST + 16 };

struct subs256 {
    int8_t q[8][32];
    float d[8][8]; /* of each 32-bit lane of a sub-block's products: four times d of its first 16
                      values, four times d of its second */
    float s[16];   /* d * sum of q, of each 16 values */
    float s32[8];  /* of each sub-block */
    float pad[8];
};

#endif
