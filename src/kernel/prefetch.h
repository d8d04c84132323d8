/* prefetch.h - bringing weights into the cache before a kernel needs them. A prefetch takes the
 * place of a load, so each line is asked for once. */
#ifndef KERNEL_PREFETCH_H
#define KERNEL_PREFETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernel/tuning.h"

/* How far ahead of its reads a kernel prefetches, and into which cache. */
struct kernel_ahead {
    uint64_t bytes;
    bool into_l1; /* else into L2 */
};

/* `bytes` ahead, into the cache that is best at present. */
static inline struct kernel_ahead kernel_ahead_by(uint64_t bytes) {
    return (struct kernel_ahead){bytes, kernel_tuning.prefetch_into_l1};
}
static inline struct kernel_ahead kernel_ahead(void) {
    return kernel_ahead_by(kernel_tuning.prefetch_bytes);
}
/* Of types that take few instructions a byte. */
static inline struct kernel_ahead kernel_ahead_light(void) {
    return kernel_ahead_by(kernel_tuning.prefetch_light_bytes);
}

/* What lies ahead of p, `bytes` of it; addresses that are not there do no harm. No branch on where
 * a thread's piece ends: in the loops of light kernels that one costs a quarter of their speed, and
 * what is beyond the piece is mostly the thread's next one. */
__attribute__((always_inline)) static inline void
kernel_prefetch(const uint8_t *p, struct kernel_ahead ahead, uint32_t bytes) {
    if (ahead.into_l1) {
        for (uint32_t i = 0; i < bytes; i += 64) {
            __builtin_prefetch(p + ahead.bytes + i, 0, 3);
        }
    } else {
        for (uint32_t i = 0; i < bytes; i += 64) {
            __builtin_prefetch(p + ahead.bytes + i, 0, 2);
        }
    }
}

/* A line of each page of [p, p + bytes): the pages' addresses are then translated, which takes as
 * long as several reads where the page table is not in the caches either (in a virtual machine:
 * both tables), and prefetchers of the hardware, which stop where a page ends, have begun. There
 * are cores, Zen 5, that lose a tenth by it: they take the lines for beginnings of other streams.
 */
static inline void kernel_prefetch_pages(const uint8_t *p, uint64_t bytes) {
    if (!kernel_tuning.prefetch_pages) {
        return;
    }
    for (uint64_t i = 0; i < bytes; i += 4096) {
        __builtin_prefetch(p + i, 0, 2);
    }
}

#endif
