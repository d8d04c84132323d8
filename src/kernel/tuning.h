/* tuning.h - what is chosen by the make of the CPU, besides its instruction set. Set once by
 * kernel.c, before any kernel runs; read-only after. */
#ifndef KERNEL_TUNING_H
#define KERNEL_TUNING_H

#include <stdint.h>

struct kernel_tuning {
    /* How far ahead of its reads gemv prefetches. 0: the hardware's prefetchers do better alone. */
    uint64_t prefetch_bytes;
};
extern struct kernel_tuning kernel_tuning;

#endif
