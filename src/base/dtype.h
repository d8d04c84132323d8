/* dtype.h - block layouts of the data types, as facts: how many values a block holds, in how many
 * bytes. Rows are whole blocks. Names and numbers are the GGUF format's. */
#ifndef BASE_DTYPE_H
#define BASE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

struct dtype_info {
    const char *name;      /* NULL: not a type this build reads */
    uint32_t block_values; /* 1, 32 or 256 */
    uint32_t block_bytes;
};

/* dtype may be any number; never NULL, name NULL if unknown. */
const struct dtype_info *dtype_get(uint32_t dtype);
static inline bool dtype_known(uint32_t dtype) {
    return dtype_get(dtype)->name != 0;
}
/* Bytes of n_values, which must be a multiple of block_values. */
static inline uint64_t dtype_bytes(uint32_t dtype, uint64_t n_values) {
    const struct dtype_info *d = dtype_get(dtype);
    return n_values / d->block_values * d->block_bytes;
}

#endif
