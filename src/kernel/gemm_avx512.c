/* gemm_avx512.c - many tokens by a quantised weight matrix, with AVX-512 VNNI.
 *
 * A strip of up to MAX_TILES tiles of 32 rows is unpacked (tile_avx512.h) into scratch that fits
 * L2, then all tokens pass over it, 6 at a time: 12 sums of products, 12 results in registers.
 * Columns are taken BLOCK_COLS at a time, results of the blocks before waiting in y. One
 * micro-kernel serves every type; a type is one unpacker.
 *
 * A value's sums are formed in the same order whatever rows and tokens are computed with it: 16
 * columns in integers, pairs of those and their activation scales in f32, then the weight's scale.
 *
 * While a tile is unpacked the next one is prefetched: 32 rows at once are more streams than the
 * hardware follows. */
#include <immintrin.h>
#include <string.h>

#include "base/checked.h"
#include "kernel/fill.h"
#include "kernel/layout_avx512.h"
#include "kernel/tile_avx512.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    ROWS = KERNEL_TILE_ROWS,
    BLOCK_COLS = 4096,
    MAX_TILES = 4,
    MAX_TOKENS = 6,
    SCRATCH_TILE_BYTES_PER_COL = ROWS + ROWS * 4 * 3 / 16, /* codes, start, scale, min */
    STRIP_BYTES = 480 << 10,
};

/* One call. */
struct gemm {
    const uint8_t *w;
    uint64_t row_bytes;
    uint32_t n_rows, n_cols;
    const uint8_t *acts;
    uint64_t act_bytes;
    const uint32_t *act_index;
    uint32_t n_tokens;
    float *y;
    uint64_t y_stride;
};

/* A few tokens' activations in a block of columns. */
struct tokens {
    const uint8_t *row[MAX_TOKENS];
    uint64_t q_offset, d_offset; /* into each row */
    float *s;                    /* [groups of scale_cols][n tokens] */
    float *y[MAX_TOKENS];        /* at the strip's first row */
    uint32_t n_cols;
    bool add; /* not the first block: add to what y holds */
};

INLINE __m512i broadcast_4(const uint8_t *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

INLINE __m512 broadcast_f32(const uint8_t *p) {
    float v;
    memcpy(&v, p, 4);
    return _mm512_set1_ps(v);
}

/* Products of 16 columns: c[token][half of the rows]. */
INLINE void dot_16(const struct tokens *a, uint32_t n, const struct tile *t, uint64_t g,
                   __m512i c[MAX_TOKENS][2]) {
    const int8_t *codes = t->codes + g * 16 * ROWS;
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        c[m][0] = _mm512_load_si512(t->start + g * ROWS);
        c[m][1] = _mm512_load_si512(t->start + g * ROWS + 16);
    }
#pragma GCC unroll 4
    for (uint32_t k = 0; k < 4; k++) {
        const __m512i w0 = _mm512_load_si512(codes + k * 128);
        const __m512i w1 = _mm512_load_si512(codes + k * 128 + 64);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m512i q = broadcast_4(a->row[m] + a->q_offset + g * 16 + k * 4);
            c[m][0] = _mm512_dpbusd_epi32(c[m][0], q, w0);
            c[m][1] = _mm512_dpbusd_epi32(c[m][1], q, w1);
        }
    }
}

/* One tile by n tokens; n and the type's two properties are constants where this is inlined. */
INLINE void multiply(const struct tokens *a, uint32_t n, const struct tile *t, uint32_t scale_cols,
                     bool has_min, uint64_t first_row, uint32_t n_rows) {
    const __mmask16 rows0 = n_rows >= 16 ? 0xffff : (__mmask16)((1u << n_rows) - 1);
    const __mmask16 rows1 = n_rows >= 32  ? 0xffff
                            : n_rows > 16 ? (__mmask16)((1u << (n_rows - 16)) - 1)
                                          : 0;
    __m512 f[MAX_TOKENS][2];
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        const float *y = a->y[m] + first_row;
        f[m][0] = a->add ? _mm512_maskz_loadu_ps(rows0, y) : _mm512_setzero_ps();
        f[m][1] = a->add ? _mm512_maskz_loadu_ps(rows1, y + 16) : _mm512_setzero_ps();
    }
    for (uint64_t b = 0; b < a->n_cols / 32; b++) {
        __m512 pair[MAX_TOKENS][2];
#pragma GCC unroll 2
        for (uint32_t h = 0; h < 2; h++) {
            const uint64_t g = 2 * b + h;
            __m512i c[MAX_TOKENS][2];
            dot_16(a, n, t, g, c);
            const uint64_t group = scale_cols == 16 ? g : b;
            const float *scale = t->scale + group * ROWS;
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                const __m512 d = broadcast_f32(a->row[m] + a->d_offset + g * 4);
#pragma GCC unroll 2
                for (uint32_t i = 0; i < 2; i++) {
                    const __m512 x = _mm512_cvtepi32_ps(c[m][i]);
                    if (scale_cols == 16)
                        f[m][i] = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_load_ps(scale + 16 * i)),
                                                  x, f[m][i]);
                    else if (h == 0)
                        pair[m][i] = _mm512_mul_ps(d, x);
                    else
                        f[m][i] = _mm512_fmadd_ps(_mm512_fmadd_ps(d, x, pair[m][i]),
                                                  _mm512_load_ps(scale + 16 * i), f[m][i]);
                }
            }
            if (!has_min || (scale_cols == 32 && h == 0))
                continue;
            const float *min = t->min + group * ROWS;
#pragma GCC unroll 6
            for (uint32_t m = 0; m < n; m++) {
                const __m512 s = _mm512_set1_ps(a->s[group * n + m]);
                f[m][0] = _mm512_fmadd_ps(s, _mm512_load_ps(min), f[m][0]);
                f[m][1] = _mm512_fmadd_ps(s, _mm512_load_ps(min + 16), f[m][1]);
            }
        }
    }
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        float *y = a->y[m] + first_row;
        _mm512_mask_storeu_ps(y, rows0, f[m][0]);
        _mm512_mask_storeu_ps(y + 16, rows1, f[m][1]);
    }
}

typedef void multiply_fn(const struct tokens *a, const struct tile *t, uint64_t first_row,
                         uint32_t n_rows);

#define MULTIPLY(n, scale_cols, has_min)                                                           \
    static void multiply_##n##_##scale_cols##_##has_min(                                           \
        const struct tokens *a, const struct tile *t, uint64_t first_row, uint32_t n_rows) {       \
        multiply(a, n, t, scale_cols, has_min, first_row, n_rows);                                 \
    }
#define MULTIPLY_KIND(scale_cols, has_min)                                                         \
    MULTIPLY(1, scale_cols, has_min)                                                               \
    MULTIPLY(2, scale_cols, has_min)                                                               \
    MULTIPLY(3, scale_cols, has_min)                                                               \
    MULTIPLY(4, scale_cols, has_min)                                                               \
    MULTIPLY(5, scale_cols, has_min)                                                               \
    MULTIPLY(6, scale_cols, has_min)
#define MULTIPLY_ROW(kind)                                                                         \
    {                                                                                              \
        multiply_1_##kind, multiply_2_##kind, multiply_3_##kind, multiply_4_##kind,                \
            multiply_5_##kind, multiply_6_##kind                                                   \
    }

MULTIPLY_KIND(32, 0)
MULTIPLY_KIND(32, 1)
MULTIPLY_KIND(16, 0)
MULTIPLY_KIND(16, 1)

/* [scales for 16 columns][minima][tokens - 1] */
static multiply_fn *const multiply_table[2][2][MAX_TOKENS] = {
    {MULTIPLY_ROW(32_0), MULTIPLY_ROW(32_1)},
    {MULTIPLY_ROW(16_0), MULTIPLY_ROW(16_1)},
};

/* Where the tiles of a strip lie in scratch. */
struct strip {
    struct tile tiles[MAX_TILES];
    float *s; /* [BLOCK_COLS / 16][MAX_TOKENS] */
};

static uint32_t strip_tiles(uint32_t n_cols) {
    const uint64_t cols = n_cols < BLOCK_COLS ? round_up(n_cols, 256) : BLOCK_COLS;
    const uint64_t n = STRIP_BYTES / (cols * SCRATCH_TILE_BYTES_PER_COL);
    return n < MAX_TILES ? (uint32_t)n : MAX_TILES;
}

static struct strip strip_lay_out(void *scratch, uint32_t n_cols, uint32_t n_tiles) {
    const uint64_t cols = n_cols < BLOCK_COLS ? round_up(n_cols, 256) : BLOCK_COLS;
    char *p = scratch;
    struct strip s;
    for (uint32_t i = 0; i < n_tiles; i++) {
        s.tiles[i].codes = (void *)p;
        p += cols * ROWS;
        s.tiles[i].start = (void *)p;
        p += cols / 16 * ROWS * 4;
        s.tiles[i].scale = (void *)p;
        p += cols / 16 * ROWS * 4;
        s.tiles[i].min = (void *)p;
        p += cols / 16 * ROWS * 4;
    }
    s.s = (void *)p;
    return s;
}

static uint64_t scratch_bytes_quantised(uint32_t n_cols) {
    const uint64_t cols = n_cols < BLOCK_COLS ? round_up(n_cols, 256) : BLOCK_COLS;
    return strip_tiles(n_cols) * cols * SCRATCH_TILE_BYTES_PER_COL +
           (uint64_t)BLOCK_COLS / 16 * MAX_TOKENS * 4 + KERNEL_ALIGN;
}

static struct tile right_half(struct tile t) {
    return (struct tile){t.codes + 64, t.start + 16, t.scale + 16, t.min + 16};
}

/* n_rows of columns [col, col + n_cols) into a tile; rows beyond n_rows repeat the last one, or
 * are left as they were; their results are never stored. ahead: bytes from a row's place to where
 * the next tile's is. */
static void unpack(const struct gemm *g, const struct tile_type *type, uint64_t row,
                   uint32_t n_rows, uint32_t col, uint32_t n_cols, int64_t ahead, struct tile t) {
    const uint32_t n_halves = n_rows > 16 ? 2 : 1;
    for (uint32_t half = 0; half < n_halves; half++) {
        const uint8_t *rows[16];
        for (uint32_t i = 0; i < 16; i++) {
            const uint64_t r = half * 16 + i < n_rows ? half * 16 + i : n_rows - 1;
            rows[i] = g->w + (row + r) * g->row_bytes;
        }
        struct tile to = half == 0 ? t : right_half(t);
        const uint32_t step = 256 / type->block_cols;
        uint64_t offset = (uint64_t)col / type->block_cols * type->block_bytes;
        for (uint32_t n = n_cols / type->block_cols; n > 0;) {
            const uint32_t n_blocks = n < step ? n : step;
            for (uint32_t i = 0; i < 16; i++)
                for (uint64_t p = 0; p < (uint64_t)n_blocks * type->block_bytes; p += 64)
                    _mm_prefetch((const char *)rows[i] + (int64_t)(offset + p) + ahead,
                                 _MM_HINT_T1);
            type->unpack(rows, offset, n_blocks, to);
            offset += (uint64_t)n_blocks * type->block_bytes;
            to.codes += 256 * ROWS;
            to.start += 16 * ROWS;
            to.scale += 256 / type->scale_cols * ROWS;
            to.min += 256 / type->scale_cols * ROWS;
            n -= n_blocks;
        }
    }
}

/* s for each group of scale_cols columns, tokens side by side. */
static void gather_sums(const struct gemm *g, const struct tile_type *type, struct tokens *a,
                        uint32_t n, uint32_t col) {
    for (uint32_t m = 0; m < n; m++) {
        const float *s = layout_q8_s(a->row[m], g->n_cols) + col / 16;
        if (type->scale_cols == 16)
            for (uint32_t i = 0; i < a->n_cols / 16; i++)
                a->s[i * n + m] = s[i];
        else
            for (uint32_t i = 0; i < a->n_cols / 32; i++)
                a->s[i * n + m] = s[2 * i] + s[2 * i + 1];
    }
}

/* All tokens over a strip whose tiles hold columns [col, col + n_cols). */
static void pass_tokens(const struct gemm *g, const struct tile_type *type,
                        const struct strip *strip, uint64_t row, uint32_t n_rows, uint32_t col,
                        uint32_t n_cols) {
    multiply_fn *const *fns = multiply_table[type->scale_cols == 16][type->has_min];
    uint32_t n_left = (g->n_tokens + MAX_TOKENS - 1) / MAX_TOKENS; /* passes of nearly equal size */
    for (uint32_t token = 0; token < g->n_tokens; n_left--) {
        const uint32_t n = (g->n_tokens - token + n_left - 1) / n_left;
        struct tokens a = {.q_offset = col,
                           .d_offset = layout_pad(g->n_cols) + (uint64_t)col / 16 * 4,
                           .s = strip->s,
                           .n_cols = n_cols,
                           .add = col != 0};
        for (uint32_t m = 0; m < n; m++) {
            const uint64_t i = g->act_index != NULL ? g->act_index[token + m] : token + m;
            a.row[m] = g->acts + i * g->act_bytes;
            a.y[m] = g->y + (token + m) * g->y_stride + row;
        }
        if (type->has_min)
            gather_sums(g, type, &a, n, col);
        for (uint32_t r = 0; r < n_rows; r += ROWS)
            fns[n - 1](&a, &strip->tiles[r / ROWS], r, n_rows - r < ROWS ? n_rows - r : ROWS);
        token += n;
    }
}

static void gemm_quantised(const struct gemm *g, uint32_t dtype, void *scratch) {
    const struct tile_type *type = tile_type_avx512(dtype);
    const uint32_t strip_rows = strip_tiles(g->n_cols) * ROWS;
    const struct strip strip = strip_lay_out(scratch, g->n_cols, strip_rows / ROWS);
    for (uint64_t row = 0; row < g->n_rows; row += strip_rows) {
        const uint32_t n_rows =
            g->n_rows - row < strip_rows ? (uint32_t)(g->n_rows - row) : strip_rows;
        for (uint32_t col = 0; col < g->n_cols; col += BLOCK_COLS) {
            const uint32_t n_cols = g->n_cols - col < BLOCK_COLS ? g->n_cols - col : BLOCK_COLS;
            for (uint32_t r = 0; r < n_rows; r += ROWS)
                unpack(g, type, row + r, n_rows - r < ROWS ? n_rows - r : ROWS, col, n_cols,
                       (int64_t)(ROWS * g->row_bytes), strip.tiles[r / ROWS]);
            pass_tokens(g, type, &strip, row, n_rows, col, n_cols);
        }
    }
}

/* The table's signature has no room for the type: one entry for each. */
#define GEMM(name, dtype)                                                                          \
    static void name(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,       \
                     const void *acts, uint64_t act_bytes, const uint32_t *act_index,              \
                     uint32_t n_tokens, float *y, uint64_t y_stride, void *scratch) {              \
        gemm_quantised(&(const struct gemm){w, row_bytes, n_rows, n_cols, acts, act_bytes,         \
                                            act_index, n_tokens, y, y_stride},                     \
                       dtype, scratch);                                                            \
    }

GEMM(gemm_q4_0, OT_Q4_0)
GEMM(gemm_q4_1, OT_Q4_1)
GEMM(gemm_q5_0, OT_Q5_0)
GEMM(gemm_q5_1, OT_Q5_1)
GEMM(gemm_q8_0, OT_Q8_0)
GEMM(gemm_q2_k, OT_Q2_K)
GEMM(gemm_q3_k, OT_Q3_K)
GEMM(gemm_q4_k, OT_Q4_K)
GEMM(gemm_q5_k, OT_Q5_K)
GEMM(gemm_q6_k, OT_Q6_K)
GEMM(gemm_iq4_nl, OT_IQ4_NL)
GEMM(gemm_iq4_xs, OT_IQ4_XS)
GEMM(gemm_mxfp4, OT_MXFP4)

static uint64_t scratch_bytes(uint32_t n_cols) {
    const uint64_t quantised = scratch_bytes_quantised(n_cols);
    const uint64_t floating = gemm_float_scratch_bytes_avx512(n_cols);
    return round_up(quantised > floating ? quantised : floating, KERNEL_ALIGN);
}

void gemm_fill_avx512(struct kernels *k) {
    static const struct {
        uint8_t dtype;
        kernel_gemm_fn *fn;
    } table[] = {
        {OT_Q4_0, gemm_q4_0},   {OT_Q4_1, gemm_q4_1},     {OT_Q5_0, gemm_q5_0},
        {OT_Q5_1, gemm_q5_1},   {OT_Q8_0, gemm_q8_0},     {OT_Q2_K, gemm_q2_k},
        {OT_Q3_K, gemm_q3_k},   {OT_Q4_K, gemm_q4_k},     {OT_Q5_K, gemm_q5_k},
        {OT_Q6_K, gemm_q6_k},   {OT_IQ4_NL, gemm_iq4_nl}, {OT_IQ4_XS, gemm_iq4_xs},
        {OT_MXFP4, gemm_mxfp4},
    };
    for (uint32_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        k->type[table[i].dtype].gemm = table[i].fn;
        k->type[table[i].dtype].layout_gemm = LAYOUT_Q8_BIASED;
    }
    gemm_float_fill_avx512(k);
    k->gemm_scratch_bytes = scratch_bytes;
}
