/* prefetch.h - bringing weights into the L2 cache before a kernel needs them. A prefetch takes the
 * place of a load, so each line is asked for once. */
#ifndef KERNEL_PREFETCH_H
#define KERNEL_PREFETCH_H

#include <stdint.h>

/* What lies `distance` after p, `bytes` of it. No branch: in the loops of light kernels one costs a
 * quarter of their speed. */
__attribute__((always_inline)) static inline void
kernel_prefetch(const uint8_t *p, uint64_t distance, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(p + distance + i, 0, 2);
    }
}

/* The same, but nothing that begins at or after end. */
__attribute__((always_inline)) static inline void
kernel_prefetch_before(const uint8_t *p, uint64_t distance, uint32_t bytes, const uint8_t *end) {
    if ((uint64_t)(end - p) > distance) {
        kernel_prefetch(p, distance, bytes);
    }
}

#endif
