/* attention_rows.h - which query rows of a call see which keys, a few rows and a block of keys at a
 * time: for all vector kernels. */
#ifndef KERNEL_ATTENTION_ROWS_H
#define KERNEL_ATTENTION_ROWS_H

#include "base/checked.h"
#include "kernel/kernel.h"

#define INLINE static inline __attribute__((always_inline))

enum { KEYS = KERNEL_KEY_BLOCK, ROWS_AT_ONCE = 6 };

/* A few rows of the call, and what they see of a block. */
struct rows {
    uint32_t index[ROWS_AT_ONCE];
    uint64_t visible[ROWS_AT_ONCE]; /* bit j: key j of the block */
};

/* Keys [begin, end): those of a row, or of all rows. */
struct span {
    uint64_t begin, end;
};

INLINE struct span row_span(const struct kernel_attention *a, uint32_t row) {
    const uint64_t end = (uint64_t)a->pos[row] + 1;
    return (struct span){a->window != 0 && end > a->window ? end - a->window : 0, end};
}

INLINE struct span all_rows_span(const struct kernel_attention *a) {
    struct span all = {UINT64_MAX, 0};
    for (uint32_t row = 0; row < a->n_q; row++) {
        const struct span s = row_span(a, row);
        all = (struct span){min_u64(all.begin, s.begin), max_u64(all.end, s.end)};
    }
    return all;
}

/* The next rows from *row on, `most` of them at most, that see something of a block that begins at
 * position start. Returns their number; 0: there are no more. */
INLINE uint32_t next_rows(const struct kernel_attention *a, uint64_t start, uint32_t most,
                          uint32_t *row, struct rows *rows) {
    uint32_t n = 0;
    for (; n < most && *row < a->n_q; ++*row) {
        const struct span s = row_span(a, *row);
        if (s.end <= start || s.begin >= start + KEYS)
            continue;
        uint64_t visible = UINT64_MAX;
        if (s.end < start + KEYS)
            visible >>= start + KEYS - s.end;
        if (s.begin > start)
            visible = visible >> (s.begin - start) << (s.begin - start);
        rows->index[n] = *row;
        rows->visible[n++] = visible;
    }
    return n;
}

#endif
