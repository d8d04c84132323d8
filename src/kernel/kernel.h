/* kernel.h - numeric kernels: one table of functions per instruction set.
 *
 * The scalar table is plain, complete, and the oracle of the tests; each better one starts as a copy
 * of the one below it and overrides what it improves. kernels_get() chooses once, by what the CPU
 * has; the environment variable ONETRIP_ISA=scalar|avx2|avxvnni|avx512|avx512bf16|neon|i8mm lowers
 * the choice (or the table's own name, as avx512-vnni); another value changes nothing.
 *
 * Kernels know pointers and counts only. Weights are read where they lie, in the file's own layout.
 * KERNEL_OVERREAD bytes after the last weight row are readable (their value does not matter).
 *
 * Activations. A weight matrix [n_rows, n_cols] is multiplied with activations that were *prepared*
 * from f32 into the layout its type's kernel wants (`layout_gemv`, `layout_gemm` of the type).
 * Quantised activations are 8-bit with one f32 scale per 16 values, whatever the arrangement:
 *   d = max|x| / 127, rounded up as layout.h says,
 *   q = round-to-nearest-even(x / d) (0 where d is 0),  x is about d * q
 * so that gemv, gemm and every instruction set compute the same sums up to f32 rounding.
 * avx512bf16 rounds a prompt's activations for weights of bf16 to bf16.
 *
 * Results never depend on how rows or tokens are divided over calls: a row's value is the same
 * whichever rows and tokens are computed with it. gemv and gemm may differ in f32 rounding.
 *
 * Threads: all functions are pure; each call owns its outputs and scratch. */
#ifndef KERNEL_KERNEL_H
#define KERNEL_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "onetrip.h"

enum { KERNEL_OVERREAD = 64, KERNEL_ALIGN = 64, KERNEL_TILE_ROWS = 32, KERNEL_MAX_LAYOUTS = 32 };

/* Layout 0 is the plain f32 row. The others are an instruction set's own. */
enum { KERNEL_LAYOUT_F32 = 0 };

/* y[r] = sum over c of W[r, c] * x[c]:  W [n_rows, n_cols] with rows row_bytes apart, x one prepared
 * row in the type's layout_gemv, y [n_rows]. n_cols: a multiple of the type's block. */
typedef void kernel_gemv_fn(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                            const void *x, float *y);

/* gemv for n_tokens tokens, 2 to KERNEL_FEW, whose prepared rows are x[t]: each weight is read and
 * unpacked once for all of them. y[t * y_stride + r] is what gemv gives for x[t], to the bit. */
enum { KERNEL_FEW = 8 };
typedef void kernel_few_fn(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                           const void *const *x, uint32_t n_tokens, float *y, uint64_t y_stride);

/* y[t * y_stride + r] = sum over c of W[r, c] * x_t[c] for n_tokens >= 1 tokens.
 *   acts       prepared rows in the type's layout_gemm, act_bytes apart
 *   act_index  [n_tokens] which row of acts is token t; NULL: row t
 *   n_next     rows that follow in memory, and that this thread is likely to be given next: they may be
 *              brought into its cache meanwhile
 *   scratch    gemm_scratch_bytes(), KERNEL_ALIGN-aligned, this call's own, zeroed before its first use
 * n_rows need not be a multiple of KERNEL_TILE_ROWS (best if it is). */
typedef void kernel_gemm_fn(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_next,
                            uint32_t n_cols, const void *acts, uint64_t act_bytes,
                            const uint32_t *act_index, uint32_t n_tokens, float *y,
                            uint64_t y_stride, void *scratch);

/* y [n_values] = the values of one row, exactly as the gguf Python package gives them. */
typedef void kernel_dequant_fn(const uint8_t *w, uint64_t n_values, float *y);

struct kernel_type {
    kernel_dequant_fn *dequant;
    kernel_gemv_fn *gemv;
    kernel_few_fn *few; /* NULL: there is none, gemv does it token by token */
    kernel_gemm_fn *gemm;
    uint8_t layout_gemv, layout_gemm;
};

/* One kv head's attention for n_q query rows (a row is one token of one query head of the group).
 * Scores are never stored beyond a block of keys; keys are visited in blocks that start at multiples
 * of KERNEL_KEY_BLOCK positions, so the result of a row does not depend on its neighbours.
 * Parts of a row's keys can be computed by calls of their own (pos: the part's last key, window: its
 * length): the whole is the mean of the parts' outputs, weighted with e^total.
 * For row i with position pos[i]: keys j in [max(0, pos[i] - window + 1), pos[i]] (window 0: all). */
enum { KERNEL_KEY_BLOCK = OT_KV_BLOCK };
struct kernel_attention {
    const float *const *q;  /* [n_q] -> [head_dim], not scaled */
    float *const *out;      /* [n_q] -> [head_dim] */
    double *totals;         /* [n_q] out: ln of the sum of e^score; NULL: not wanted */
    const uint32_t *pos;    /* [n_q], ascending order is fastest */
    uint32_t n_q;
    uint32_t head_dim;      /* 1..512 */
    const uint16_t *k, *v;  /* f16 blocks [KERNEL_KEY_BLOCK, head_dim] of this kv head */
    const uint32_t *blocks; /* [i]: which of them has the positions from i * KERNEL_KEY_BLOCK on */
    uint32_t window;
    float scale;            /* scores = scale * q.k */
    float softcap;          /* scores = softcap * tanh(scores / softcap); 0: off */
};
enum { KERNEL_MAX_Q = 64 }; /* most query rows in one call */

/* Where a position's key lies in k, and its value in v. */
static inline uint64_t kernel_key_offset(const struct kernel_attention *a, uint64_t position) {
    const uint64_t block = a->blocks[position / KERNEL_KEY_BLOCK];
    return (block * KERNEL_KEY_BLOCK + position % KERNEL_KEY_BLOCK) * a->head_dim;
}

enum { KERNEL_STREAM_WAYS = 3 };
extern const uint64_t kernel_stream_ahead[KERNEL_STREAM_WAYS];

struct kernels {
    const char *isa; /* "scalar", "avx2", "avx-vnni", "avx512-vnni", "avx512-bf16", "neon-dotprod",
                      * "neon-i8mm" */
    struct kernel_type type[OT_DTYPE_MAX];
    /* Tokens up to which `few` is the faster, where a matrix has all of them; from then on gemm. */
    uint32_t few_most;

    /* Bytes of one prepared row of n_cols values: a multiple of KERNEL_ALIGN. */
    uint64_t (*layout_bytes)(uint8_t layout, uint32_t n_cols);
    /* x [n_cols] -> out, KERNEL_ALIGN-aligned. n_cols: a multiple of 32 (of 1 for the layouts of
     * floats). */
    void (*prepare)(uint8_t layout, const float *x, uint32_t n_cols, void *out);
    /* Scratch of any gemm call with at most n_cols columns, and of any attention call. */
    uint64_t (*gemm_scratch_bytes)(uint32_t n_cols);
    uint64_t (*attention_scratch_bytes)(uint32_t head_dim);

    void (*attention)(const struct kernel_attention *args, void *scratch);
    /* The same for rows of a prompt, which are limited by arithmetic: may round q, k, v and the
     * softmax's weights to bf16. */
    void (*attention_prompt)(const struct kernel_attention *args, void *scratch);

    /* y = x * gain / sqrt(mean(x^2) + eps); gain NULL: 1. y may be x. */
    void (*rms_norm)(const float *x, const float *gain, uint32_t n, float eps, float *y);
    /* gate[i] = silu(gate[i]) * up[i] */
    void (*silu_mul)(float *gate, const float *up, uint64_t n);
    /* gate[i] = gelu(gate[i]) * up[i], the tanh form */
    void (*gelu_mul)(float *gate, const float *up, uint64_t n);
    /* y[i] += x[i] * factor */
    void (*add_scaled)(float *y, const float *x, float factor, uint64_t n);
    /* Rotates the first n_rot dimensions of x [n_heads, head_dim] by cos/sin [n_rot / 2]; neox:
     * pairs (i, i + n_rot/2), else (2i, 2i + 1). */
    void (*rope)(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, bool neox,
                 const float *cos, const float *sin);
    void (*f32_to_f16)(const float *x, uint64_t n, uint16_t *y); /* round to nearest even */
    /* x[i] = cap * tanh(x[i] / cap) */
    void (*softcap)(float *x, uint64_t n, float cap);
    bool (*all_finite)(const float *x, uint64_t n);
    /* Sums bytes of memory, for measuring read bandwidth, and prefetches `ahead` bytes ahead; the
     * result keeps the loads alive. Which distance is fastest depends on the machine: try those of
     * kernel_stream_ahead. */
    uint64_t (*stream_read)(const uint8_t *data, uint64_t bytes, uint64_t ahead);
};

/* The best table for this CPU (lowered by ONETRIP_ISA). Same answer every time. */
const struct kernels *kernels_get(void);
/* Ways in which gemv prefetches. Which is the fastest depends on the machine; nothing else does. The
 * way in use is the process's; it may be changed at any time, by any thread. */
enum { KERNEL_PREFETCH_WAYS = 4 };
uint32_t kernels_prefetch_way(void);
void kernels_use_prefetch_way(uint32_t way);
/* How far ahead that is, for types that take many instructions a byte. */
uint64_t kernels_prefetch_bytes(void);

/* A table by name ("scalar", "avx2", "avxvnni", "avx512", "avx512bf16", "neon", "i8mm") or by its own
 * ("avx512-vnni"); NULL where the CPU or build lacks it. */
const struct kernels *kernels_find(const char *isa);

/* For the variants' own files: each fills in what it improves. Only those compiled for this
 * architecture exist. */
void kernels_fill_scalar(struct kernels *k);
void kernels_fill_avx2(struct kernels *k);
void kernels_fill_avxvnni(struct kernels *k);
void kernels_fill_avx512(struct kernels *k);
void kernels_fill_avx512bf16(struct kernels *k);
void kernels_fill_neon(struct kernels *k);
void kernels_fill_i8mm(struct kernels *k);

#endif
