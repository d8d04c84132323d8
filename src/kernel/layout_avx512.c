/* layout_avx512.c - preparing activations for the AVX-512 kernels. */
#include "kernel/layout_avx512.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#include "kernel/fill.h"

struct group {
    __m128i q;      /* 16 int8 */
    uint32_t steps; /* 0 where d is NaN */
    float d;
    int32_t sum;
};

/* Largest finite magnitude of the next 256 values, or what is left. */
static float largest_finite(const float *x, uint32_t n_left) {
    __m512i most = _mm512_setzero_si512();
    for (uint32_t i = 0; i < 256 && i < n_left; i += 16) {
        __m512i v = _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x + i)),
                                     _mm512_set1_epi32(0x7fffffff));
        __mmask16 finite = _mm512_cmplt_epi32_mask(v, _mm512_set1_epi32(0x7f800000));
        most = _mm512_mask_max_epi32(most, finite, most, v);
    }
    uint32_t bits = _mm512_reduce_max_epu32(most);
    float largest;
    memcpy(&largest, &bits, sizeof bits);
    return largest;
}

/* As quantise_16 of layout_scalar.c, number by number: the largest magnitude is found among the bit
 * patterns, where a NaN is above infinity, which is above all else. */
static inline struct group quantise_16(const float *x, float unit) {
    struct group g;
    __m512 v = _mm512_loadu_ps(x);
    uint32_t largest = _mm512_reduce_max_epu32(
        _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)));
    if (largest >= 0x7f800000u) {
        g.q = _mm_setzero_si128();
        g.steps = 0;
        g.d = __builtin_nanf("");
        g.sum = 0;
        return g;
    }
    memcpy(&g.d, &largest, sizeof largest);
    g.steps = layout_steps(g.d, unit);
    g.d = unit * (float)g.steps;
    __mmask16 some = g.d > 0 ? 0xffff : 0;
    __m512i q = _mm512_cvtps_epi32(_mm512_maskz_div_ps(some, v, _mm512_set1_ps(g.d)));
    q = _mm512_min_epi32(_mm512_max_epi32(q, _mm512_set1_epi32(-127)), _mm512_set1_epi32(127));
    g.q = _mm512_cvtepi32_epi8(q);
    g.sum = _mm512_reduce_add_epi32(q);
    return g;
}

static void store_chunks(__m128i q, int8_t *to, uint32_t stride) {
    int32_t chunks[4];
    _mm_storeu_si128((__m128i *)(void *)chunks, q);
    for (uint32_t c = 0; c < 4; c++) {
        memcpy(to + c * stride, &chunks[c], 4);
    }
}

#define LANES(group)                                                                               \
    {                                                                                              \
        group(0), group(1), group(2), group(3), group(4), group(5), group(6), group(7), group(8),  \
            group(9), group(10), group(11), group(12), group(13), group(14), group(15)             \
    }

/* How a type's kernel wants its lanes. */
struct lanes256_kind {
    uint8_t zero;          /* of the codes; 0: the type has minima */
    uint8_t raise_log2[8]; /* by sub-block of 32 values */
    bool sums_of_subs;
    uint8_t group[16]; /* of each lane */
};

static const struct lanes256_kind lanes256_kinds[] = {
    [LAYOUT_LANES256_Q2_K] = {0, {0, 2, 4, 6, 0, 2, 4, 6}, false, LANES(LANES256_Q2_K)},
    [LAYOUT_LANES256_Q3_K] = {4, {0, 0, 4, 4, 0, 0, 4, 4}, false, LANES(LANES256_Q3_K)},
    [LAYOUT_LANES256_Q4_K] = {0, {0, 4, 0, 4, 0, 4, 0, 4}, true, LANES(LANES256_Q4_K)},
    [LAYOUT_LANES256_Q5_K] = {0, {0}, true, LANES(LANES256_Q4_K)},
    [LAYOUT_LANES256_Q6_K] = {32, {0}, false, LANES(LANES256_Q6_K)},
    [LAYOUT_LANES256_IQ4_XS] = {128, {0}, false, LANES(LANES256_IQ4_XS)},
};

static void prepare_lane(const float *x, float unit, const struct lanes256_kind *kind,
                         uint32_t lane, struct lanes256 *to) {
    uint32_t group = kind->group[lane], sub = group / 2, raise = kind->raise_log2[sub];
    struct group g = quantise_16(x + 16 * (uint64_t)group, unit);
    float s = g.d * (float)g.sum;
    store_chunks(g.q, (int8_t *)(void *)to->q + 4 * lane, 64);
    to->d[lane] = g.d / (float)(1u << raise);
    if (kind->zero != 0) {
        to->start[lane] = -((int32_t)kind->zero << raise) * g.sum;
    } else if (kind->sums_of_subs) {
        to->s_of_subs[sub] += s;
    } else {
        to->s[lane] = s / 16;
    }
}

static void prepare_lanes256(const float *x, uint32_t n_cols, const struct lanes256_kind *kind,
                             struct lanes256 *out) {
    float least = 0;
    for (; n_cols > 0; n_cols -= n_cols < 256 ? n_cols : 256, x += 256, out++) {
        if (n_cols < 256) {
            memset(out, 0, sizeof *out);
        } else if (kind->sums_of_subs) {
            memset(out->s_of_subs, 0, sizeof out->s_of_subs);
        }
        float unit = layout_unit(largest_finite(x, n_cols), &least);
        for (uint32_t lane = 0; lane < 16; lane++) {
            if (n_cols >= 256 || kind->group[lane] < n_cols / 16) {
                prepare_lane(x, unit, kind, lane, out);
            }
        }
    }
}

static void prepare_lanes4x32(const float *x, uint32_t n_cols, struct lanes4x32 *out) {
    if (n_cols % 128 != 0) {
        memset(&out[n_cols / 128], 0, sizeof *out);
    }
    float unit = 0, least = 0;
    for (uint32_t i = 0; i < n_cols / 16; i++) {
        struct lanes4x32 *to = &out[i / 8];
        uint32_t half = i % 2, b = i / 2 % 4, lane = 4 * half + b;
        if (i % 16 == 0) {
            unit = layout_unit(largest_finite(x + 16 * (uint64_t)i, n_cols - 16 * i), &least);
        }
        struct group g = quantise_16(x + 16 * (uint64_t)i, unit);
        store_chunks(g.q, (int8_t *)(void *)to->q + 4 * lane, 32);
        to->start[lane] = -128 * g.sum;
        to->d[lane] = to->d[8 + lane] = g.d;
    }
}

struct lanes8x32_kind {
    uint8_t zero; /* of the codes; 0: the type has minima */
    uint8_t raise;
    bool mixed;
    uint8_t chunk[4][8];
};

#define CHUNKS(of)                                                                                 \
    {                                                                                              \
        {of(0)}, {of(1)}, {of(2)}, {                                                               \
            of(3)                                                                                  \
        }                                                                                          \
    }
static const struct lanes8x32_kind lanes8x32_kinds[] = {
    [LAYOUT_LANES8X32_Q4_0] = {8, 16, true, CHUNKS(LANES8X32_Q4_0)},
    [LAYOUT_LANES8X32_Q4_1] = {0, 16, true, CHUNKS(LANES8X32_Q4_1)},
    [LAYOUT_LANES8X32_Q5_0] = {16, 1, false, CHUNKS(LANES8X32_Q5_0)},
    [LAYOUT_LANES8X32_Q5_1] = {0, 1, false, CHUNKS(LANES8X32_Q5_1)},
    [LAYOUT_LANES8X32_IQ4_NL] = {128, 1, false, CHUNKS(LANES8X32_Q4_0)},
    [LAYOUT_LANES8X32_MXFP4] = {16, 1, false, CHUNKS(LANES8X32_MXFP4)},
};

/* The first (half 0) or second 16 values of block b. */
static void prepare_half(const float *x, float unit, const struct lanes8x32_kind *kind, uint32_t b,
                         uint32_t half, struct lanes8x32 *to) {
    struct group g = quantise_16(x, unit);
    int32_t raise = half == 1 ? kind->raise : 1;
    int8_t q[16];
    _mm_storeu_si128((__m128i *)(void *)q, g.q);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t vector = i / 2 * 2 + (half ^ (kind->mixed ? i % 2 : 0));
        memcpy(to->q[vector] + 32 * (i % 2) + 4 * b, q + 4 * kind->chunk[i][b], 4);
    }
    to->d[8 * half + b] = g.d / (float)raise;
    if (kind->zero != 0) {
        to->start[8 * half + b] = -kind->zero * raise * g.sum;
    } else {
        to->s[8 + b] += g.d * (float)g.sum;
    }
}

static void prepare_lanes8x32(const float *x, uint32_t n_cols, const struct lanes8x32_kind *kind,
                              struct lanes8x32 *out) {
    if (n_cols % 256 != 0) {
        memset(&out[n_cols / 256], 0, sizeof *out);
    }
    float unit = 0, least = 0;
    for (uint32_t block = 0; block < n_cols / 32; block++, x += 32) {
        struct lanes8x32 *to = &out[block / 8];
        if (block % 8 == 0) {
            unit = layout_unit(largest_finite(x, n_cols - 32 * block), &least);
            memset(to->s, 0, sizeof to->s);
        }
        prepare_half(x, unit, kind, block % 8, 0, to);
        prepare_half(x + 16, unit, kind, block % 8, 1, to);
    }
}

static void prepare_q8(const float *x, uint32_t n_cols, void *out) {
    uint32_t n_pad = layout_pad(n_cols);
    int8_t *q = out;
    float *d = (float *)(void *)(q + n_pad), *s = d + n_pad / 16;
    float unit = 0, least = 0;
    for (uint32_t i = 0; i < n_cols / 16; i++) {
        if (i % 16 == 0) {
            unit = layout_unit(largest_finite(x + 16 * (uint64_t)i, n_cols - 16 * i), &least);
        }
        struct group g = quantise_16(x + 16 * (uint64_t)i, unit);
        _mm_storeu_si128((__m128i *)(void *)(q + 16 * (uint64_t)i), g.q);
        d[i] = g.d;
        s[i] = g.d * (float)g.sum;
    }
    memset(q + n_cols, 0, n_pad - n_cols);
    memset(d + n_cols / 16, 0, (n_pad - n_cols) / 16 * sizeof *d);
    memset(s + n_cols / 16, 0, (n_pad - n_cols) / 16 * sizeof *s);
}

static void prepare_gemm_blocks(const float *x, uint32_t n_cols, void *out) {
    struct gemm_block *block = out;
    float *s = (void *)((char *)out + gemm_sums_offset(n_cols)), unit = 0, least = 0;
    for (uint32_t b = 0; b < n_cols / 32; b++) {
        if (b % 8 == 0) {
            unit = layout_unit(largest_finite(x + 32 * (uint64_t)b, n_cols - 32 * b), &least);
        }
        for (uint32_t h = 0; h < 2; h++) {
            struct group g = quantise_16(x + 32 * (uint64_t)b + 16 * h, unit);
            _mm_storeu_si128((__m128i *)(void *)(block[b].q + 16 * h), g.q);
            block[b].start[h] = -128 * g.sum;
            block[b].d[h] = g.d;
            s[2 * b + h] = g.d * (float)g.sum;
        }
    }
    uint32_t n = n_cols / 32, n_more = layout_pad(n_cols) / 32 - n;
    memset(block + n, 0, n_more * sizeof *block);
    memset(s + 2 * n, 0, 2 * n_more * sizeof *s);
}

static void prepare_gemm_pairs(const float *x, uint32_t n_cols, struct gemm_pairs *out) {
    if (n_cols % 256 != 0) {
        memset(&out[n_cols / 256], 0, sizeof *out);
    }
    float unit = 0, least = 0;
    for (uint32_t block = 0; block < n_cols / 32; block++, x += 32) {
        struct gemm_pairs *to = &out[block / 8];
        uint32_t b = block % 8;
        if (b == 0) {
            float before = block % (LAYOUT_GEMM_COLS / 32) == 0 ? 1 : unit;
            unit = layout_unit(largest_finite(x, n_cols - 32 * block), &least);
            to->ratio = before / unit;
            to->unit = unit;
        }
        struct group low = quantise_16(x, unit), high = quantise_16(x + 16, unit);
        _mm_storeu_si128((__m128i *)(void *)to->block[b].q, low.q);
        _mm_storeu_si128((__m128i *)(void *)(to->block[b].q + 16), high.q);
        to->block[b].start_high = -128 * high.sum;
        to->block[b].start_low = 0x8000 - 128 * low.sum;
        to->block[b].steps[0] = (int16_t)low.steps;
        to->block[b].steps[1] = (int16_t)high.steps;
        to->block[b].s = (float)((int32_t)low.steps * low.sum + (int32_t)high.steps * high.sum);
        to->ratio += 0 * (low.d + high.d); /* NaN if one is */
    }
}

static uint64_t layout_bytes(uint8_t layout, uint32_t n_cols) {
    switch (layout) {
    case LAYOUT_GEMM_BLOCKS:
        return gemm_sums_offset(n_cols) + layout_pad(n_cols) / 16 * sizeof(float);
    case LAYOUT_GEMM_PAIRS: return (uint64_t)layout_ceil(n_cols, 256) * sizeof(struct gemm_pairs);
    case LAYOUT_LANES256_Q2_K:
    case LAYOUT_LANES256_Q3_K:
    case LAYOUT_LANES256_Q4_K:
    case LAYOUT_LANES256_Q5_K:
    case LAYOUT_LANES256_Q6_K:
    case LAYOUT_LANES256_IQ4_XS:
        return (uint64_t)layout_ceil(n_cols, 256) * sizeof(struct lanes256);
    case LAYOUT_LANES4X32_Q8_0:
        return (uint64_t)layout_ceil(n_cols, 128) * sizeof(struct lanes4x32);
    case LAYOUT_LANES8X32_Q4_0:
    case LAYOUT_LANES8X32_Q4_1:
    case LAYOUT_LANES8X32_Q5_0:
    case LAYOUT_LANES8X32_Q5_1:
    case LAYOUT_LANES8X32_IQ4_NL:
    case LAYOUT_LANES8X32_MXFP4:
        return (uint64_t)layout_ceil(n_cols, 256) * sizeof(struct lanes8x32);
    default: return layout_bytes_scalar(layout, n_cols);
    }
}

static void prepare(uint8_t layout, const float *x, uint32_t n_cols, void *out) {
    assert(layout == KERNEL_LAYOUT_F32 || n_cols % 32 == 0);
    switch (layout) {
    case LAYOUT_Q8: prepare_q8(x, n_cols, out); break;
    case LAYOUT_GEMM_BLOCKS: prepare_gemm_blocks(x, n_cols, out); break;
    case LAYOUT_GEMM_PAIRS: prepare_gemm_pairs(x, n_cols, out); break;
    case LAYOUT_LANES256_Q2_K:
    case LAYOUT_LANES256_Q3_K:
    case LAYOUT_LANES256_Q4_K:
    case LAYOUT_LANES256_Q5_K:
    case LAYOUT_LANES256_Q6_K:
    case LAYOUT_LANES256_IQ4_XS: prepare_lanes256(x, n_cols, &lanes256_kinds[layout], out); break;
    case LAYOUT_LANES4X32_Q8_0: prepare_lanes4x32(x, n_cols, out); break;
    case LAYOUT_LANES8X32_Q4_0:
    case LAYOUT_LANES8X32_Q4_1:
    case LAYOUT_LANES8X32_Q5_0:
    case LAYOUT_LANES8X32_Q5_1:
    case LAYOUT_LANES8X32_IQ4_NL:
    case LAYOUT_LANES8X32_MXFP4: prepare_lanes8x32(x, n_cols, &lanes8x32_kinds[layout], out); break;
    default: layout_prepare_scalar(layout, x, n_cols, out);
    }
}

void layout_fill_avx512(struct kernels *k) {
    k->layout_bytes = layout_bytes;
    k->prepare = prepare;
}
