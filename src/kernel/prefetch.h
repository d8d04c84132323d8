/* prefetch.h - bringing weights into the L2 cache before a kernel needs them. A prefetch takes the
 * place of a load, so each line is asked for once. */
#ifndef KERNEL_PREFETCH_H
#define KERNEL_PREFETCH_H

#include <stdint.h>

#include "kernel/tuning.h"

/* What lies `distance` after p, `bytes` of it; addresses that are not there do no harm. No branch:
 * in the loops of light kernels one costs a quarter of their speed, and what is beyond a thread's
 * piece is mostly its next piece. */
__attribute__((always_inline)) static inline void
kernel_prefetch(const uint8_t *p, uint64_t distance, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(p + distance + i, 0, 2);
    }
}

/* A line of each page of [p, p + bytes): the pages' addresses are then translated, which takes as
 * long as several reads where the page table is not in the caches either (in a virtual machine:
 * both tables), and prefetchers of the hardware, which stop where a page ends, have begun. There are
 * cores, Zen 5, that lose a tenth by it: they take the lines for beginnings of other streams. */
static inline void kernel_prefetch_pages(const uint8_t *p, uint64_t bytes) {
    if (!kernel_tuning.prefetch_pages) {
        return;
    }
    for (uint64_t i = 0; i < bytes; i += 4096) {
        __builtin_prefetch(p + i, 0, 2);
    }
}

#endif
