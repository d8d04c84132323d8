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
    /* Into L1, or into L2 only. */
    _Atomic bool prefetch_into_l1;
    /* Whether a line of each page to come is asked for before its turn (kernel_prefetch_pages). */
    _Atomic bool prefetch_pages;
    /* Whether gemv of packed nibbles and of IQ4_XS takes two groups of a row in step, else four
     * (AVX-512). */
    _Atomic bool two_in_step;
    /* Whether rows of Q8_0 and F32 go as a whole up to twice the columns for which an L1 cache of
     * 32 KiB has room, because it has 48 (AVX-512). */
    _Atomic bool large_l1;
};
extern struct kernel_tuning kernel_tuning;

#endif
