/* tile.h - many tokens by a quantised weight matrix: what all instruction sets do alike.
 *
 * A tile is 32 rows of a block of columns, unpacked from the file's layout into scratch that fits
 * the L2 cache: 8-bit codes in the order in which the instruction set multiplies them, with f32
 * scales and minima beside them. All tokens pass over a tile before it is overwritten. An
 * instruction set gives one unpacker for each type and a few multipliers; one multiplier serves
 * many types.
 *
 *   value(row, col) = scale(row, group) * code(row, col) + min(row, group)
 *
 * where a group is a run of 16 or 32 columns, as fine as the type's scales. */
#ifndef KERNEL_TILE_H
#define KERNEL_TILE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernel/kernel.h"

enum { TILE_ROWS = KERNEL_TILE_ROWS, TILE_MAX_TOKENS = 6, TILE_MAX_KINDS = 6 };
/* Columns of a block where tiles are f32: [TILE_FLOAT_COLS][TILE_ROWS] of scratch. */
enum { TILE_FLOAT_COLS = 1024 };

/* A tile, or from a later row on: parts of part_rows rows, their pointers a stride apart. */
struct tile {
    int8_t *codes; /* part 0; what part p has lies p * codes_stride further */
    float *scale;  /* [group][part_rows or more]; p * group_stride further */
    float *min;    /* as scale; unused where the type has no minima */
    uint64_t codes_stride, group_stride;
};

/* Unpacks n_blocks blocks of a part's rows, from offset bytes into each row. Rows that the matrix
 * does not have are given as repetitions of others. */
typedef void tile_unpack_fn(const uint8_t *const *rows, uint64_t offset, uint32_t n_blocks,
                            struct tile part);

struct tile_type {
    tile_unpack_fn *unpack; /* NULL: the instruction set has no kernel for this type */
    uint16_t block_cols, block_bytes;
    uint8_t scale_cols; /* 16 or 32: columns of a group */
    uint8_t layout;     /* of activations */
    uint8_t kind;       /* which multiplier */
    bool wants_sums;    /* the multiplier reads tile_tokens.sums */
};

/* A few tokens' activations in a block of columns. */
struct tile_tokens {
    const uint8_t *row[TILE_MAX_TOKENS]; /* in the type's layout */
    uint32_t col;                        /* the block's first */
    uint64_t q_offset, d_offset;         /* LAYOUT_Q8: from row to the block's q and d */
    float *sums;                         /* [group][token]: d * sum of q, if the type wants sums */
    float *y[TILE_MAX_TOKENS];           /* at the tile's first row */
    uint32_t n_cols;
    bool add; /* not the first block of columns: add to what y holds */
    /* packed rows to be asked for meanwhile, of those that are unpacked next */
    const uint8_t *ahead;
    uint64_t ahead_stride;
    uint32_t n_ahead, ahead_bytes; /* rows; bytes of 32 columns */
    uint32_t ahead_mask; /* a line is asked for where block & mask is 0: it has mask + 1 blocks */
};

/* Called for each 32 columns, from block 0 on: spread over the products, requests to memory cost next
 * to nothing. */
static inline void tile_ahead(const struct tile_tokens *a, uint64_t block) {
    if ((block & a->ahead_mask) == 0) {
        const uint8_t *p = a->ahead + block * a->ahead_bytes;
        for (uint32_t i = 0; i < a->n_ahead; i++, p += a->ahead_stride)
            __builtin_prefetch(p, 0, 2);
    }
}

/* y[m][r] (+)= the products of token m with row r, for r < n_rows <= TILE_ROWS. */
typedef void tile_multiply_fn(const struct tile_tokens *tokens, const struct tile *tile,
                              uint32_t n_rows);

struct tile_isa {
    const struct tile_type *types;                               /* [OT_DTYPE_MAX] */
    tile_multiply_fn *multiply[TILE_MAX_KINDS][TILE_MAX_TOKENS]; /* [kind][tokens - 1] */
    uint32_t max_tokens; /* of one multiplication; at most TILE_MAX_TOKENS */
    uint32_t part_rows;
    bool
        interleaved; /* parts lie side by side in [col / 4][32 rows][4], else one after the other */
};

/* The arguments of kernel_gemm_fn. */
struct gemm {
    const uint8_t *w;
    uint64_t row_bytes;
    uint32_t n_rows, n_next, n_cols;
    const void *acts; /* in the layout of the type */
    uint64_t act_bytes;
    const uint32_t *act_index;
    uint32_t n_tokens;
    float *y;
    uint64_t y_stride;
};

static inline const uint8_t *gemm_act(const struct gemm *g, uint32_t token) {
    const uint64_t i = g->act_index != NULL ? g->act_index[token] : token;
    return (const uint8_t *)g->acts + i * g->act_bytes;
}

void tile_gemm(const struct tile_isa *isa, uint32_t dtype, const struct gemm *g, void *scratch);
/* What any gemm of quantised or floating weights needs: kernels.gemm_scratch_bytes. */
uint64_t gemm_scratch_bytes(uint32_t n_cols);

/* A kernel_gemm_fn: the table's signature has no room for what differs between types. */
#define GEMM_ENTRY(name, call)                                                                     \
    static void name(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_next,       \
                     uint32_t n_cols, const void *acts, uint64_t act_bytes,                        \
                     const uint32_t *act_index, uint32_t n_tokens, float *y, uint64_t y_stride,    \
                     void *scratch) {                                                              \
        const struct gemm g = {w,         row_bytes, n_rows,   n_next, n_cols,  acts,              \
                               act_bytes, act_index, n_tokens, y,      y_stride};                  \
        call;                                                                                      \
    }

/* Enters tile_gemm for the types that there are unpackers for; entries[dtype] is a kernel_gemm_fn. */
void tile_fill(struct kernels *k, const struct tile_type types[], kernel_gemm_fn *const entries[]);

/* Such entries for all types, each of which calls gemm_quantised(dtype, &g, scratch). */
#define GEMM_TYPES(x)                                                                              \
    x(Q4_0) x(Q4_1) x(Q5_0) x(Q5_1) x(Q8_0) x(Q2_K) x(Q3_K) x(Q4_K) x(Q5_K) x(Q6_K) x(IQ4_NL)      \
        x(IQ4_XS) x(MXFP4)
#define GEMM_TABLE_ENTRY(type) GEMM_ENTRY(gemm_##type, gemm_quantised(OT_##type, &g, scratch))
#define GEMM_TABLE_ROW(type) [OT_##type] = gemm_##type,
#define GEMM_TABLE(name)                                                                           \
    GEMM_TYPES(GEMM_TABLE_ENTRY)                                                                   \
    static kernel_gemm_fn *const name[OT_DTYPE_MAX] = {GEMM_TYPES(GEMM_TABLE_ROW)}

/* A tile_multiply_fn multiply_name_n for up to 4 or 6 tokens: call for each part, with a, t, r (its
 * first row), n_rows and n_tokens, a constant. */
#define TILE_MULTIPLY(n, name, part_rows, call)                                                    \
    static void multiply_##name##_##n(const struct tile_tokens *a, const struct tile *t,           \
                                      uint32_t n_rows) {                                           \
        const uint32_t n_tokens = n;                                                               \
        for (uint32_t r = 0; r < n_rows; r += part_rows)                                           \
            call;                                                                                  \
    }
#define TILE_MULTIPLY_4(name, part_rows, call)                                                     \
    TILE_MULTIPLY(1, name, part_rows, call)                                                        \
    TILE_MULTIPLY(2, name, part_rows, call)                                                        \
    TILE_MULTIPLY(3, name, part_rows, call)                                                        \
    TILE_MULTIPLY(4, name, part_rows, call)
#define TILE_MULTIPLY_6(name, part_rows, call)                                                     \
    TILE_MULTIPLY_4(name, part_rows, call)                                                         \
    TILE_MULTIPLY(5, name, part_rows, call)                                                        \
    TILE_MULTIPLY(6, name, part_rows, call)
/* The same as a row of tile_isa.multiply. */
#define ROW_4(name) multiply_##name##_1, multiply_##name##_2, multiply_##name##_3, multiply_##name##_4
#define ROW_6(name) ROW_4(name), multiply_##name##_5, multiply_##name##_6

/* Parts of an instruction set's gemm that have a file of their own. */
const struct tile_type *tile_types_avx512(void);
const struct tile_type *tile_types_avx2(void);
void gemm_float_fill_avx512(struct kernels *k);
void gemm_float_fill_avx2(struct kernels *k);

#endif
