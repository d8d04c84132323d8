/* tile_avx512.h - a tile of 32 rows, unpacked for the AVX-512 gemm, and who unpacks it.
 *
 * Whatever the type, a tile is signed 8-bit codes in the operand order of vpdpbusd, with f32 scales
 * and minima beside them. Activations come as u8 (LAYOUT_Q8_BIASED: q + 128), so each sum of 16
 * products starts at -128 * (the 16 codes' sum), which is the same for all tokens.
 *
 *   value(row, col) = scale(row, group) * code(row, col) + min(row, group)
 *
 * where group is a run of 32 columns, or of 16 for the types whose scales are that fine. */
#ifndef KERNEL_TILE_AVX512_H
#define KERNEL_TILE_AVX512_H

#include <stdbool.h>
#include <stdint.h>

struct tile {
    int8_t *codes;  /* [n_cols / 4][32 rows][4] */
    int32_t *start; /* [n_cols / 16][32 rows] */
    float *scale;   /* [n_cols / 32 or 16][32 rows] */
    float *min;     /* as scale; unused by types without minima */
};

/* Unpacks n_blocks blocks of 16 rows, from offset bytes into each row, into the left (or, with all
 * of t's pointers 16 rows further, the right) half of a tile. */
typedef void tile_unpack_fn(const uint8_t *const rows[16], uint64_t offset, uint32_t n_blocks,
                            struct tile t);

struct tile_type {
    tile_unpack_fn *unpack;
    uint16_t block_cols, block_bytes;
    uint16_t scale_cols; /* 32 or 16: columns that share a scale */
    bool has_min;
};

/* Of a quantised dtype. */
const struct tile_type *tile_type_avx512(uint32_t dtype);

/* gemm_float_avx512.c: F32, F16, BF16. */
struct kernels;
void gemm_float_fill_avx512(struct kernels *k);
uint64_t gemm_float_scratch_bytes_avx512(uint32_t n_cols);

#endif
