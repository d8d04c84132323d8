/* tuning.h - what fits the memory system of the machine, not its instruction set. kernel.c begins
 * with a choice by the make of the CPU; the engine may find a better one while it runs. Results do
 * not depend on it. */
#ifndef KERNEL_TUNING_H
#define KERNEL_TUNING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct kernel_tuning {
    /* How far ahead of its reads gemv prefetches: of types that take many instructions a byte, and
     * of those that take few (F32; with AVX-512 Q8_0, F16 and BF16 too). 0: not ahead at all. */
    _Atomic uint64_t prefetch_bytes, prefetch_light_bytes;
    /* Whether a line of each page to come is asked for before its turn (kernel_prefetch_pages). */
    _Atomic bool prefetch_pages;
};
extern struct kernel_tuning kernel_tuning;

#endif
