/* kernel_weights.h - random weights of every type for the kernels' tests, and memory that ends
 * where the kernels' permission to read ends. */
#ifndef TESTS_KERNEL_WEIGHTS_H
#define TESTS_KERNEL_WEIGHTS_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "base/dtype.h"
#include "kernel/codes.h"
#include "kernel/half.h"
#include "kernel/kernel.h"

static const uint32_t weight_types[] = {OT_F32,  OT_F16,    OT_BF16,   OT_Q4_0, OT_Q4_1, OT_Q5_0,
                                        OT_Q5_1, OT_Q8_0,   OT_Q2_K,   OT_Q3_K, OT_Q4_K, OT_Q5_K,
                                        OT_Q6_K, OT_IQ4_NL, OT_IQ4_XS, OT_MXFP4};
enum { N_WEIGHT_TYPES = sizeof weight_types / sizeof weight_types[0] };

static uint64_t random_state = 1;
static inline uint64_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1du;
}
/* In [-1, 1). */
static inline float random_float(void) {
    return (float)(int32_t)(random_next() >> 32) * 0x1p-31f;
}

/* Byte offsets of a block's f16 numbers; returns how many. */
static inline uint32_t weight_halves(uint32_t dtype, uint32_t at[2]) {
    at[0] = 0;
    at[1] = 2;
    switch (dtype) {
    case OT_F32:
    case OT_BF16:
    case OT_MXFP4: return 0;
    case OT_Q2_K:
        at[0] = 80;
        at[1] = 82;
        return 2;
    case OT_Q3_K: at[0] = 108; return 1;
    case OT_Q6_K: at[0] = 208; return 1;
    case OT_Q4_1:
    case OT_Q5_1:
    case OT_Q4_K:
    case OT_Q5_K: return 2;
    default: return 1;
    }
}

/* scale_bits: of every f16 scale (BF16, F32: the value's upper bits); negative: random ones of an
 * ordinary size. */
static inline void weights_fill(uint32_t dtype, uint8_t *w, uint64_t n_values, int32_t scale_bits) {
    const struct dtype_info *info = dtype_get(dtype);
    uint32_t at[2], n_halves = weight_halves(dtype, at);
    for (uint64_t i = 0; i < n_values; i += info->block_values, w += info->block_bytes) {
        for (uint32_t b = 0; b < info->block_bytes; b++) {
            w[b] = (uint8_t)(random_next() >> 40);
        }
        for (uint32_t h = 0; h < n_halves; h++) {
            uint16_t bits =
                scale_bits < 0 ? half_from_f32(random_float() * 0.1f) : (uint16_t)scale_bits;
            memcpy(w + at[h], &bits, 2);
        }
        if (dtype == OT_MXFP4) {
            w[0] = scale_bits < 0 ? (uint8_t)(120 + w[0] % 8) : (uint8_t)(scale_bits >> 7);
        } else if (dtype == OT_F32 || dtype == OT_BF16) {
            float value = random_float();
            uint16_t upper =
                scale_bits < 0 ? (uint16_t)(half_to_bits(value) >> 16) : (uint16_t)scale_bits;
            memcpy(w + info->block_bytes - 2, &upper, 2);
        }
    }
}

/* Sum of the magnitudes of all terms of a row's product with x, the minima's apart: what rounding
 * errors are measured by. */
static inline double weights_magnitude(uint32_t dtype, const uint8_t *row, uint32_t n_cols,
                                       const float *x) {
    const struct dtype_info *info = dtype_get(dtype);
    double sum = 0;
    if (info->block_values == 1) {
        for (uint32_t c = 0; c < n_cols; c++) {
            float value;
            kernels_find("scalar")->type[dtype].dequant(row + c * (uint64_t)info->block_bytes, 1,
                                                        &value);
            sum += fabs((double)value * (double)x[c]);
        }
        return sum;
    }
    struct codes codes;
    for (uint32_t c = 0; c < n_cols; c += info->block_values, row += info->block_bytes) {
        codes_unpack(dtype, row, &codes);
        for (uint32_t i = 0; i < info->block_values; i++) {
            double w = fabs((double)codes.d[i / 16] * codes.q[i]);
            w += codes.has_min ? fabs((double)codes.m[i / 16]) : 0;
            sum += w * fabs((double)x[c + i]);
        }
    }
    return sum;
}

/* Memory whose last byte is followed by a page that may not be touched, and its first preceded by
 * one. */
struct guarded {
    uint8_t *data; /* of the bytes asked for, which end at the guard */
    uint8_t *map;
    uint64_t map_bytes;
};

static inline bool guarded_open(struct guarded *g, uint64_t bytes) {
    const uint64_t page = 65536; /* a multiple of any page size */
    memset(g, 0, sizeof *g);
    uint64_t inner = (bytes + page - 1) / page * page + (bytes == 0 ? page : 0);
    g->map_bytes = inner + 2 * page;
    g->map = mmap(NULL, g->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->map == MAP_FAILED || mprotect(g->map + page, inner, PROT_READ | PROT_WRITE) != 0) {
        return false;
    }
    g->data = g->map + page + inner - bytes;
    return true;
}
static inline void guarded_close(struct guarded *g) {
    munmap(g->map, g->map_bytes);
}

#endif
