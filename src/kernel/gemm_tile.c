/* gemm_tile.c - the order in which a gemm goes through rows, columns and tokens (tile.h).
 *
 * A strip of up to MAX_TILES tiles is unpacked, then all tokens pass over it, a few at a time:
 * their activations are read once for the strip. Columns are taken BLOCK_COLS at a time, results of
 * the blocks before waiting in y, so that a value's sums are formed in the same order whatever rows
 * and tokens are computed with it.
 *
 * While a tile is unpacked the next one is prefetched: 32 rows at once are more streams than the
 * hardware follows. */
#include <stddef.h>

#include "base/checked.h"
#include "kernel/layout.h"
#include "kernel/tile.h"

enum {
    BLOCK_COLS = LAYOUT_GEMM_COLS,
    MAX_TILES = 4,
    TILE_BYTES_PER_COL = TILE_ROWS + TILE_ROWS * 4 * 2 / 16, /* codes, scale, min */
    STRIP_BYTES = 480 << 10,
};

static uint64_t block_cols(uint32_t n_cols) {
    return n_cols < BLOCK_COLS ? round_up(n_cols, 256) : BLOCK_COLS;
}

static uint32_t strip_tiles(uint32_t n_cols) {
    return (uint32_t)min_u64(STRIP_BYTES / (block_cols(n_cols) * TILE_BYTES_PER_COL), MAX_TILES);
}

uint64_t gemm_scratch_bytes(uint32_t n_cols) {
    /* A strip of fewer columns may have more tiles, and be larger; but never than this. */
    const uint64_t strip =
        min_u64(MAX_TILES * block_cols(n_cols) * TILE_BYTES_PER_COL, STRIP_BYTES);
    const uint64_t quantised = strip + block_cols(n_cols) / 16 * TILE_MAX_TOKENS * sizeof(float);
    const uint64_t floating =
        (uint64_t)min_u32(n_cols, TILE_FLOAT_COLS) * TILE_ROWS * sizeof(float);
    return round_up(max_u64(quantised, floating), KERNEL_ALIGN);
}

struct strip {
    struct tile tiles[MAX_TILES];
    float *sums;
};

static struct strip lay_out(const struct tile_isa *isa, uint32_t n_cols, void *scratch) {
    const uint64_t cols = block_cols(n_cols);
    char *p = scratch;
    struct strip s;
    for (uint32_t i = 0; i < strip_tiles(n_cols); i++) {
        struct tile *t = &s.tiles[i];
        t->codes_stride = (uint64_t)isa->part_rows * (isa->interleaved ? 4 : cols);
        t->group_stride = (uint64_t)isa->part_rows * (isa->interleaved ? 1 : cols / 16);
        t->codes = (void *)p;
        p += cols * TILE_ROWS;
        t->scale = (void *)p;
        p += cols / 16 * TILE_ROWS * 4;
        t->min = (void *)p;
        p += cols / 16 * TILE_ROWS * 4;
    }
    s.sums = (void *)p;
    return s;
}

/* What one call of unpack_part does: rows [row, row + n_rows), columns from col on. */
struct extent {
    uint64_t row;
    uint32_t n_rows, col, n_cols;
};

/* The part's blocks 256 columns at a time, the same place of the next tile prefetched before. */
static void unpack_part(const struct gemm *g, const struct tile_type *type, uint32_t part_rows,
                        bool interleaved, const struct extent *e, struct tile part) {
    const uint8_t *rows[TILE_ROWS];
    for (uint32_t i = 0; i < part_rows; i++)
        rows[i] = g->w + (e->row + min_u32(i, e->n_rows - 1)) * g->row_bytes;
    const uint64_t width = interleaved ? TILE_ROWS : part_rows;
    const uint64_t next_tile = TILE_ROWS * g->row_bytes;
    const uint32_t step = 256 / type->block_cols;
    uint64_t offset = (uint64_t)e->col / type->block_cols * type->block_bytes;
    for (uint32_t n = e->n_cols / type->block_cols; n > 0;) {
        const uint32_t n_blocks = min_u32(n, step);
        const uint64_t bytes = (uint64_t)n_blocks * type->block_bytes;
        for (uint32_t i = 0; i < part_rows; i++)
            for (uint64_t p = 0; p < bytes; p += 64)
                __builtin_prefetch(rows[i] + offset + next_tile + p, 0, 2);
        type->unpack(rows, offset, n_blocks, part);
        offset += bytes;
        part.codes += 256 * width;
        part.scale += 256 / type->scale_cols * width;
        part.min += 256 / type->scale_cols * width;
        n -= n_blocks;
    }
}

/* Parts of rows that the matrix does not have are left as they were; nobody reads their results. */
static void unpack_tile(const struct tile_isa *isa, const struct gemm *g,
                        const struct tile_type *type, const struct extent *e,
                        const struct tile *tile) {
    struct tile part = *tile;
    for (uint32_t r = 0; r < e->n_rows; r += isa->part_rows) {
        const struct extent rows = {e->row + r, min_u32(e->n_rows - r, isa->part_rows), e->col,
                                    e->n_cols};
        unpack_part(g, type, isa->part_rows, isa->interleaved, &rows, part);
        part.codes += tile->codes_stride;
        part.scale += tile->group_stride;
        part.min += tile->group_stride;
    }
}

static void gather_sums(const struct gemm *g, const struct tile_type *type, struct tile_tokens *a,
                        uint32_t n, uint32_t col) {
    for (uint32_t m = 0; m < n; m++) {
        const float *s = layout_q8_s(a->row[m], g->n_cols) + col / 16;
        if (type->scale_cols == 16)
            for (uint32_t i = 0; i < a->n_cols / 16; i++)
                a->sums[i * n + m] = s[i];
        else
            for (uint32_t i = 0; i < a->n_cols / 32; i++)
                a->sums[i * n + m] = s[2 * i] + s[2 * i + 1];
    }
}

/* As many as the kind has multipliers for. */
static uint32_t tokens_at_once(const struct tile_isa *isa, uint32_t kind) {
    uint32_t n = isa->max_tokens;
    while (isa->multiply[kind][n - 1] == NULL)
        n--;
    return n;
}

/* All tokens over a strip, in passes of nearly equal size. */
static void pass_tokens(const struct tile_isa *isa, const struct gemm *g,
                        const struct tile_type *type, const struct extent *e,
                        const struct strip *strip) {
    const uint32_t at_once = tokens_at_once(isa, type->kind);
    uint32_t n_passes = (g->n_tokens + at_once - 1) / at_once;
    for (uint32_t token = 0; token < g->n_tokens; n_passes--) {
        const uint32_t n = (g->n_tokens - token + n_passes - 1) / n_passes;
        tile_multiply_fn *multiply = isa->multiply[type->kind][n - 1];
        struct tile_tokens a = {.col = e->col,
                                .q_offset = e->col,
                                .d_offset = layout_pad(g->n_cols) + (uint64_t)e->col / 16 * 4,
                                .sums = strip->sums,
                                .n_cols = e->n_cols,
                                .add = e->col != 0};
        for (uint32_t m = 0; m < n; m++) {
            a.row[m] = gemm_act(g, token + m);
            a.y[m] = g->y + (token + m) * g->y_stride + e->row;
        }
        if (type->wants_sums)
            gather_sums(g, type, &a, n, e->col);
        for (uint32_t r = 0; r < e->n_rows; r += TILE_ROWS) {
            multiply(&a, &strip->tiles[r / TILE_ROWS], min_u32(e->n_rows - r, TILE_ROWS));
            for (uint32_t m = 0; m < n; m++)
                a.y[m] += TILE_ROWS;
        }
        token += n;
    }
}

void tile_gemm(const struct tile_isa *isa, uint32_t dtype, const struct gemm *g, void *scratch) {
    const struct tile_type *type = &isa->types[dtype];
    const struct strip strip = lay_out(isa, g->n_cols, scratch);
    const uint32_t strip_rows = strip_tiles(g->n_cols) * TILE_ROWS;
    for (uint64_t row = 0; row < g->n_rows; row += strip_rows) {
        const uint32_t n_rows = (uint32_t)min_u64(g->n_rows - row, strip_rows);
        for (uint32_t col = 0; col < g->n_cols; col += BLOCK_COLS) {
            const uint32_t n_cols = min_u32(g->n_cols - col, BLOCK_COLS);
            for (uint32_t r = 0; r < n_rows; r += TILE_ROWS) {
                const struct extent tile = {row + r, min_u32(n_rows - r, TILE_ROWS), col, n_cols};
                unpack_tile(isa, g, type, &tile, &strip.tiles[r / TILE_ROWS]);
            }
            const struct extent all = {row, n_rows, col, n_cols};
            pass_tokens(isa, g, type, &all, &strip);
        }
    }
}

void tile_fill(struct kernels *k, const struct tile_type types[], kernel_gemm_fn *const entries[]) {
    for (uint32_t i = 0; i < OT_DTYPE_MAX; i++) {
        if (types[i].unpack != NULL) {
            k->type[i].gemm = entries[i];
            k->type[i].layout_gemm = types[i].layout;
        }
    }
    k->gemm_scratch_bytes = gemm_scratch_bytes;
}
