/* layout_avx512.c - preparing activations for the AVX-512 kernels. */
#include "kernel/layout_avx512.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#include "base/checked.h"
#include "kernel/fill.h"

/* The groups of up to 256 values; those beyond are 0. */
struct groups {
    int8_t q[256];
    float d[16];
    float s[16]; /* d * sum */
    int32_t sum[16];
    int32_t steps[16]; /* 0 where d is NaN */
    float unit;
} __attribute__((aligned(64)));

/* Magnitudes as bits: in their order, a NaN above infinity, which is above all else. */
static inline __m512i magnitudes(const float *x) {
    return _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x)), _mm512_set1_epi32(0x7fffffff));
}

static inline __mmask16 are_finite(__m512i magnitudes) {
    return _mm512_cmplt_epi32_mask(magnitudes, _mm512_set1_epi32(0x7f800000));
}

static float largest_finite(const float *x, uint32_t n) {
    __m512i most = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n; i += 16) {
        __m512i v = magnitudes(x + i);
        most = _mm512_mask_max_epi32(most, are_finite(v), most, v);
    }
    uint32_t bits = _mm512_reduce_max_epu32(most);
    float largest;
    memcpy(&largest, &bits, sizeof bits);
    return largest;
}

/* Lane i: the largest lane of v[i]. */
static inline __m512i largest_of_each(const __m512i *v) {
    __m512i a[8], b[4], c[2];
    for (uint32_t i = 0; i < 8; i++) {
        a[i] = _mm512_max_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    }
    for (uint32_t i = 0; i < 4; i++) {
        b[i] = _mm512_max_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
                                _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
    }
    for (uint32_t i = 0; i < 2; i++) {
        c[i] = _mm512_max_epi32(_mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0x88),
                                _mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0xdd));
    }
    return _mm512_max_epi32(_mm512_shuffle_i32x4(c[0], c[1], 0x88),
                            _mm512_shuffle_i32x4(c[0], c[1], 0xdd));
}

/* Lane i: the sum of the 16 codes of group i. */
static inline __m512i sums_of(const int8_t *q) {
    __m512i v[4];
    for (uint32_t i = 0; i < 4; i++) {
        v[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1),
                                   _mm512_load_si512(q + 64 * i));
    }
    __m512i a =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    __m512i b =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    a = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    /* Lane 4 l + i has group 4 i + l. */
    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), a);
}

/* As layout_scalar.c does, number by number. */
static void quantise(const float *x, uint32_t n, float row_largest, struct groups *to) {
    __m512i v[16];
    for (uint32_t i = 0; i < 16; i++) {
        v[i] = 16 * i < n ? magnitudes(x + 16 * i) : _mm512_setzero_si512();
    }
    __m512i largest = largest_of_each(v);
    __mmask16 finite = are_finite(largest);
    if (finite == 0xffff) {
        uint32_t bits = _mm512_reduce_max_epu32(largest);
        float f;
        memcpy(&f, &bits, sizeof bits);
        to->unit = layout_unit(f, row_largest);
    } else {
        to->unit = layout_unit(largest_finite(x, n), row_largest);
    }
    __m512 unit = _mm512_set1_ps(to->unit), inverse_unit = _mm512_set1_ps(1.0f / to->unit);
    __m512 steps = _mm512_div_ps(_mm512_castsi512_ps(largest), _mm512_set1_ps(127.0f));
    steps = _mm512_roundscale_ps(_mm512_mul_ps(steps, inverse_unit), _MM_FROUND_CEIL);
    steps = _mm512_maskz_min_ps(finite, steps, _mm512_set1_ps(LAYOUT_MAX_STEPS));
    __m512 d = _mm512_mul_ps(steps, unit);
    float inverse[16];
    __mmask16 some = _mm512_cmp_ps_mask(d, _mm512_setzero_ps(), _CMP_GT_OQ);
    _mm512_storeu_ps(inverse, _mm512_maskz_div_ps(some, _mm512_set1_ps(1.0f), d));
    d = _mm512_mask_mov_ps(_mm512_set1_ps(__builtin_nanf("")), finite, d);
    for (uint32_t i = 0; i < 16; i++) {
        __m128i q = _mm_setzero_si128();
        if (16 * i < n && (some >> i & 1) != 0) {
            q = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(
                _mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), _mm512_set1_ps(inverse[i]))));
        }
        _mm_store_si128((__m128i *)(void *)(to->q + 16 * i), q);
    }
    __m512i sum = sums_of(to->q);
    _mm512_store_ps(to->d, d);
    _mm512_store_ps(to->s, _mm512_mul_ps(d, _mm512_cvtepi32_ps(sum)));
    _mm512_store_si512(to->sum, sum);
    _mm512_store_si512(to->steps, _mm512_cvtps_epi32(steps));
}

/* Chunk first ^ c to vector c. */
static void store_chunks(const int8_t *q, uint32_t first, int8_t *to, uint32_t stride) {
    for (uint32_t c = 0; c < 4; c++) {
        memcpy(to + c * stride, q + 4 * (first ^ c), 4);
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
    uint8_t raise_log2[8]; /* of the codes, by sub-block of 32 values */
    uint8_t scale_log2;    /* of the scales */
    bool sums_of_subs;
    bool crossed;
    uint8_t group[16]; /* of each lane */
};

static const struct lanes256_kind lanes256_kinds[] = {
    [LAYOUT_LANES256_Q2_K] = {0, {0, 2, 4, 6, 0, 2, 4, 6}, 0, false, true, LANES(LANES256_Q2_K)},
    [LAYOUT_LANES256_Q3_K] = {4, {0, 0, 4, 4, 0, 0, 4, 4}, 2, false, true, LANES(LANES256_Q3_K)},
    [LAYOUT_LANES256_Q4_K] = {0, {0, 4, 0, 4, 0, 4, 0, 4}, 0, true, true, LANES(LANES256_Q4_K)},
    [LAYOUT_LANES256_Q5_K] = {0, {0}, 0, true, false, LANES(LANES256_Q4_K)},
    [LAYOUT_LANES256_Q6_K] = {32, {0}, 0, false, false, LANES(LANES256_Q6_K)},
    [LAYOUT_LANES256_IQ4_XS] = {128, {0}, 2, false, true, LANES(LANES256_IQ4_XS)},
};

static void prepare_lane(const struct groups *g, const struct lanes256_kind *kind, uint32_t lane,
                         struct lanes256 *to) {
    uint32_t group = kind->group[lane], sub = group / 2, raise = kind->raise_log2[sub];
    store_chunks(g->q + 16 * group, kind->crossed ? lane % 4 : 0,
                 (int8_t *)(void *)to->q + 4 * lane, 64);
    to->d[lane] = g->d[group] / (float)(1u << (raise + kind->scale_log2));
    if (kind->zero != 0) {
        to->start[lane] = -((int32_t)kind->zero << raise) * g->sum[group];
    } else if (kind->sums_of_subs) {
        to->s_of_subs[sub] += g->s[group];
    }
}

/* The sums of block i of a quad (struct lanes256). */
static void prepare_sums(const struct groups *g, uint32_t i, struct lanes256 quad[4]) {
    int32_t sums[16], most = 0;
    for (uint32_t j = 0; j < 16; j++) { /* below 2^26 */
        sums[j] = g->steps[j] * g->sum[j];
        int32_t magnitude = sums[j] < 0 ? -sums[j] : sums[j];
        most = magnitude > most ? magnitude : most;
    }
    uint32_t shift = 0;
    while (most >> shift >= (1 << 21) - 1) {
        shift++;
    }
    for (uint32_t j = 0; j < 16; j++) {
        int32_t rest = (sums[j] + (1 << shift >> 1)) >> shift;
        for (uint32_t byte = 0; byte < 3; byte++) {
            int8_t low = (int8_t)(uint8_t)((uint32_t)rest & 0xff);
            quad[byte].sums[16 * i + j] = low;
            rest = (rest - low) / 256;
        }
    }
    for (uint32_t j = 0; j < 4; j++) {
        quad[3].sums_unit[4 * i + j] = g->unit * (float)(1 << shift) / 16;
    }
}

static void prepare_quads(const float *x, uint32_t n_cols, struct lanes256 *out) {
    float largest = largest_finite(x, n_cols);
    for (uint32_t i = 0; i < layout_ceil(n_cols, 1024) * 4; i++) {
        struct groups g;
        memset(&g, 0, sizeof g);
        if (256 * i < n_cols) {
            quantise(x + 256 * i, min_u32(n_cols - 256 * i, 256), largest, &g);
        }
        for (uint32_t lane = 0; lane < 16; lane++) {
            prepare_lane(&g, &lanes256_kinds[LAYOUT_LANES256_Q2_K], lane, out + i);
        }
        prepare_sums(&g, i % 4, out + i / 4 * 4);
    }
}

static void prepare_lanes256(const float *x, uint32_t n_cols, const struct lanes256_kind *kind,
                             struct lanes256 *out) {
    float largest = largest_finite(x, n_cols);
    for (uint32_t i = 0; i < n_cols; i += 256, out++) {
        struct groups g;
        quantise(x + i, min_u32(n_cols - i, 256), largest, &g);
        if (kind->sums_of_subs) {
            memset(out->s_of_subs, 0, sizeof out->s_of_subs);
        }
        for (uint32_t lane = 0; lane < 16; lane++) {
            prepare_lane(&g, kind, lane, out);
        }
    }
}

static void prepare_lanes4x32(const float *x, uint32_t n_cols, struct lanes4x32 *out) {
    float largest = largest_finite(x, n_cols);
    for (uint32_t i = 0; i < n_cols; i += 256) {
        struct groups g;
        quantise(x + i, min_u32(n_cols - i, 256), largest, &g);
        for (uint32_t j = 0; j < layout_ceil(min_u32(n_cols - i, 256), 128) * 8; j++) {
            struct lanes4x32 *to = &out[i / 128 + j / 8];
            uint32_t half = j % 2, b = j / 2 % 4, lane = 4 * half + b;
            store_chunks(g.q + 16 * j, 0, (int8_t *)(void *)to->q + 4 * lane, 32);
            to->start[lane] = -128 * g.sum[j];
            to->d[lane] = g.d[j];
        }
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
    [LAYOUT_LANES8X32_IQ4_NL] = {128, 1, true, CHUNKS(LANES8X32_Q4_0)},
    [LAYOUT_LANES8X32_MXFP4] = {16, 1, true, CHUNKS(LANES8X32_MXFP4)},
};

/* The first (half 0) or second 16 values of block b. */
static void prepare_half(const struct groups *g, const struct lanes8x32_kind *kind, uint32_t b,
                         uint32_t half, struct lanes8x32 *to) {
    uint32_t group = 2 * b + half;
    int32_t raise = half == 1 ? kind->raise : 1;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t vector = i / 2 * 2 + (half ^ (kind->mixed ? i % 2 : 0));
        memcpy(to->q[vector] + 32 * (i % 2) + 4 * b, g->q + 16 * group + 4 * kind->chunk[i][b], 4);
    }
    to->d[8 * half + b] = g->d[group] / (float)raise;
    if (kind->zero != 0) {
        to->start[8 * half + b] = -kind->zero * raise * g->sum[group];
    } else {
        to->s[8 + b] += g->s[group];
    }
}

static void prepare_lanes8x32(const float *x, uint32_t n_cols, const struct lanes8x32_kind *kind,
                              struct lanes8x32 *out) {
    float largest = largest_finite(x, n_cols);
    for (uint32_t i = 0; i < n_cols; i += 256, out++) {
        struct groups g;
        quantise(x + i, min_u32(n_cols - i, 256), largest, &g);
        memset(out->s, 0, sizeof out->s);
        for (uint32_t b = 0; b < 8; b++) {
            prepare_half(&g, kind, b, 0, out);
            prepare_half(&g, kind, b, 1, out);
        }
    }
}

static void prepare_q8(const float *x, uint32_t n_cols, void *out) {
    int8_t *q = out;
    float *d = (float *)(void *)(q + layout_pad(n_cols)), *s = d + layout_pad(n_cols) / 16;
    float largest = largest_finite(x, n_cols);
    for (uint32_t i = 0; i < n_cols; i += 256) {
        struct groups g;
        quantise(x + i, min_u32(n_cols - i, 256), largest, &g);
        memcpy(q + i, g.q, sizeof g.q);
        memcpy(d + i / 16, g.d, sizeof g.d);
        memcpy(s + i / 16, g.s, sizeof g.s);
    }
}

static void prepare_gemm_blocks(const float *x, uint32_t n_cols, void *out) {
    const float base_f32 = GEMM_BLOCK_BASE;
    int32_t base;
    memcpy(&base, &base_f32, sizeof base);
    struct gemm_block *block = out;
    float largest = largest_finite(x, n_cols);
    for (uint32_t i = 0; i < n_cols; i += 256) {
        struct groups g;
        quantise(x + i, min_u32(n_cols - i, 256), largest, &g);
        for (uint32_t b = 0; b < 8; b++, block++) {
            memcpy(block->q, g.q + 32 * b, sizeof block->q);
            for (uint32_t h = 0; h < 2; h++) {
                block->start[h] = base - 128 * g.sum[2 * b + h];
                block->d[h] = g.d[2 * b + h] / GEMM_BLOCK_UNIT;
                block->zero[h] = -block->d[h] * GEMM_BLOCK_BASE;
                block->s[h] = g.s[2 * b + h] / GEMM_BLOCK_UNIT;
            }
        }
    }
}

/* Chunks 0, 4, 1, 5, 2, 6, 3, 7 of 32 codes. */
static inline void interleave_halves(const int8_t *q, int8_t *to) {
    const __m256i chunks = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i v = _mm256_loadu_si256((const void *)q);
    _mm256_storeu_si256((void *)to, _mm256_permutevar8x32_epi32(v, chunks));
}

static void prepare_gemm_pairs(const float *x, uint32_t n_cols, struct gemm_pairs *out) {
    float largest = largest_finite(x, n_cols), unit = 1;
    for (uint32_t i = 0; i < n_cols; i += 256, out++) {
        struct groups g;
        quantise(x + i, min_u32(n_cols - i, 256), largest, &g);
        float not_finite = 0; /* or NaN */
        for (uint32_t b = 0; b < 8; b++) {
            int32_t low = g.sum[2 * b], high = g.sum[2 * b + 1];
            interleave_halves(g.q + 32 * b, out->block[b].q);
            out->block[b].start[0] = -128 * low;
            out->block[b].start[1] = -128 * high;
            out->block[b].steps[0] = (int16_t)g.steps[2 * b];
            out->block[b].steps[1] = (int16_t)g.steps[2 * b + 1];
            out->block[b].s = (float)(low * g.steps[2 * b] + high * g.steps[2 * b + 1]);
            not_finite += 0 * (g.d[2 * b] + g.d[2 * b + 1]);
        }
        out->ratio = (i % LAYOUT_GEMM_COLS == 0 ? 1 : unit) / g.unit;
        out->unit = unit = g.unit + not_finite;
    }
}

/* By integers, so that it needs no instructions for bf16. */
static void prepare_gemm_bf16(const float *x, uint32_t n_cols, uint16_t *out) {
    for (uint32_t i = 0; i < n_cols; i += 16) {
        const __mmask16 mask = (__mmask16)(n_cols - i >= 16 ? 0xffffu : (1u << (n_cols - i)) - 1);
        const __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        const __m512i bits = _mm512_castps_si512(v);
        const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even);
        up = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q),
                                   _mm512_set1_epi32(0x7fc00000));
        _mm256_store_si256((void *)(out + i), _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
    }
    for (uint64_t i = round_up(n_cols, 16); i < round_up(n_cols, 32); i++)
        out[i] = 0;
}

static uint64_t layout_bytes(uint8_t layout, uint32_t n_cols) {
    switch (layout) {
    case LAYOUT_GEMM_BLOCKS: return (uint64_t)layout_pad(n_cols) / 32 * sizeof(struct gemm_block);
    case LAYOUT_GEMM_PAIRS:
        return round_up((uint64_t)layout_ceil(n_cols, 256) * sizeof(struct gemm_pairs),
                        KERNEL_ALIGN);
    case LAYOUT_GEMM_BF16: /* an odd number of lines: rows start in different sets of L1 */
        return (layout_ceil(n_cols, 32) | 1) * 64ull;
    case LAYOUT_LANES256_Q2_K:
        return (uint64_t)layout_ceil(n_cols, 1024) * 4 * sizeof(struct lanes256);
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
    assert(layout == KERNEL_LAYOUT_F32 || layout == LAYOUT_GEMM_BF16 || n_cols % 32 == 0);
    switch (layout) {
    case LAYOUT_Q8: prepare_q8(x, n_cols, out); break;
    case LAYOUT_GEMM_BLOCKS: prepare_gemm_blocks(x, n_cols, out); break;
    case LAYOUT_GEMM_PAIRS: prepare_gemm_pairs(x, n_cols, out); break;
    case LAYOUT_GEMM_BF16: prepare_gemm_bf16(x, n_cols, out); break;
    case LAYOUT_LANES256_Q2_K: prepare_quads(x, n_cols, out); break;
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
