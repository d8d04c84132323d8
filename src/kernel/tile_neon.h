/* tile_neon.h - what the two NEON gemms share: SDOT's (gemm_neon.c) and SMMLA's (gemm_i8mm.c). */
#ifndef KERNEL_TILE_NEON_H
#define KERNEL_TILE_NEON_H

#include "kernel/tile.h"

enum { NEON_PART_ROWS = 8 };

/* piece: 4 columns of a row side by side, or 8. */
const struct tile_type *tile_types_neon(uint32_t piece);

#endif
