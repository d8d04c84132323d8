/* layout_avx2.c - preparing activations for the AVX2 kernels. */
#include "kernel/layout_avx2.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#include "base/checked.h"
#include "kernel/fill.h"

struct group {
    __m128i q;      /* 16 int8 */
    uint32_t steps; /* 0 where d is NaN */
    float d;
    int32_t sum;
};

static inline uint32_t largest_of(__m256i a, __m256i b) {
    __m256i m = _mm256_max_epu32(a, b);
    __m128i n = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    n = _mm_max_epu32(n, _mm_shuffle_epi32(n, 0x4e));
    n = _mm_max_epu32(n, _mm_shuffle_epi32(n, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(n);
}

static float largest_finite(const float *x, uint32_t n) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), limit = _mm256_set1_epi32(0x7f800000);
    __m256i most = _mm256_setzero_si256();
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        v = _mm256_and_si256(v, magnitude);
        v = _mm256_and_si256(v, _mm256_cmpgt_epi32(limit, v));
        most = _mm256_max_epi32(most, v);
    }
    const uint32_t bits = largest_of(most, most);
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    return largest;
}

static inline int32_t sum_bytes(__m128i unsigned_bytes) {
    __m128i s = _mm_sad_epu8(unsigned_bytes, _mm_setzero_si128());
    return _mm_cvtsi128_si32(s) + _mm_extract_epi16(s, 4);
}

/* Lane i: the largest of the eight lanes of m[i]. */
static inline __m256i largest_of_each(const __m256i m[8]) {
    __m256i two[4], four[2];
    for (uint32_t i = 0; i < 4; i++) {
        two[i] = _mm256_max_epi32(_mm256_unpacklo_epi32(m[2 * i], m[2 * i + 1]),
                                  _mm256_unpackhi_epi32(m[2 * i], m[2 * i + 1]));
    }
    for (uint32_t i = 0; i < 2; i++) {
        four[i] = _mm256_max_epi32(_mm256_unpacklo_epi64(two[2 * i], two[2 * i + 1]),
                                   _mm256_unpackhi_epi64(two[2 * i], two[2 * i + 1]));
    }
    return _mm256_max_epi32(_mm256_permute2x128_si256(four[0], four[1], 0x20),
                            _mm256_permute2x128_si256(four[0], four[1], 0x31));
}

/* 16 values times the inverse of their scale, rounded, at most 127. */
static inline __m128i quantised_16(const float *x, float inverse) {
    const __m256 factor = _mm256_set1_ps(inverse);
    __m256i p = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factor));
    __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), factor));
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(p, q), 0xd8);
    words = _mm256_max_epi16(words, _mm256_set1_epi16(-127));
    return _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/* Up to 8 groups, as layout_scalar.c's quantise_16 does it, number by number: the largest magnitude
 * is found among the bit patterns, where a NaN is above infinity, which is above all else. */
static inline void quantise_8(const float *x, uint32_t n, float unit, struct group *g) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    _Alignas(32) float d[8], inverse[8];
    _Alignas(32) uint32_t steps[8];
    __m256i m[8];
    for (uint32_t i = 0; i < 8; i++) {
        m[i] = _mm256_setzero_si256();
        if (i < n) {
            __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(x + 16 * i));
            __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(x + 16 * i + 8));
            m[i] = _mm256_max_epi32(_mm256_and_si256(a, magnitude), _mm256_and_si256(b, magnitude));
        }
    }
    const __m256i largest = largest_of_each(m);
    const __m256i finite = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x7f800000), largest);
    /* layout_steps() of each */
    const __m256 exact =
        _mm256_div_ps(_mm256_div_ps(_mm256_castsi256_ps(_mm256_and_si256(largest, finite)),
                                    _mm256_set1_ps(127.0f)),
                      _mm256_set1_ps(unit));
    __m256i whole = _mm256_cvttps_epi32(exact);
    const __m256 below = _mm256_cmp_ps(_mm256_cvtepi32_ps(whole), exact, _CMP_LT_OQ);
    whole = _mm256_sub_epi32(whole, _mm256_castps_si256(below));
    whole = _mm256_min_epi32(whole, _mm256_set1_epi32(LAYOUT_MAX_STEPS));
    const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(unit), _mm256_cvtepi32_ps(whole));
    const __m256 some = _mm256_cmp_ps(scale, _mm256_setzero_ps(), _CMP_GT_OQ);
    _mm256_store_si256((__m256i *)(void *)steps, whole);
    _mm256_store_ps(d, scale);
    _mm256_store_ps(inverse, _mm256_and_ps(_mm256_div_ps(_mm256_set1_ps(1.0f), scale), some));
    const uint32_t all_finite = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(finite));
    for (uint32_t i = 0; i < n; i++) {
        if ((all_finite >> i & 1) == 0) {
            g[i] = (struct group){_mm_setzero_si128(), 0, __builtin_nanf(""), 0};
            continue;
        }
        g[i].q = quantised_16(x + 16 * i, inverse[i]);
        g[i].steps = steps[i];
        g[i].d = d[i];
        g[i].sum = sum_bytes(_mm_xor_si128(g[i].q, _mm_set1_epi8((char)0x80))) - 16 * 128;
    }
}

/* The next 256 values, or the n_cols that are left; returns their unit. */
static float quantise_256(const float *x, uint32_t n_cols, float row_largest, struct group g[16]) {
    const uint32_t n = min_u32(n_cols, 256);
    const float unit = layout_unit(largest_finite(x, n), row_largest);
    quantise_8(x, min_u32(n / 16, 8), unit, g);
    if (n > 128) {
        quantise_8(x + 128, n / 16 - 8, unit, g + 8);
    }
    return unit;
}

/* The group of lane l of vector v, in 16-byte half l / 4. */
#define LANES_BLOCK32(v, l) (2 * (l) + (v))
#define LANES_HALVES(v, l) (2 * (4 * (v) + (l) % 4) + (l) / 4)
#define LANES_Q4_K(v, l) (2 * (2 * ((l) % 4) + (v)) + (l) / 4)
#define LANES_Q6_K(v, l) (2 * ((l) % 4 / 2 * 4 + (l) % 2 + 2 * (v)) + (l) / 4)
#define LANES_IQ4_XS(v, l) (2 * (2 * ((l) % 4) + (l) / 4) + (v))
#define EIGHT(f, v) f(v, 0), f(v, 1), f(v, 2), f(v, 3), f(v, 4), f(v, 5), f(v, 6), f(v, 7)
#define LANES(f)                                                                                   \
    { EIGHT(f, 0), EIGHT(f, 1) }

/* What a group's sum is kept for. */
enum offset { ZERO_OF_BLOCK, ZERO_OF_GROUP, START, SUM_OF_BLOCK, SUM_OF_SUB, SUM_OF_GROUP };

struct lanes_kind {
    uint8_t group[16]; /* of each lane */
    enum offset offset;
    int8_t zero;
    bool is_signed;           /* struct lanes_signed */
    bool pairs;               /* values i and 8 + i of a group side by side, for Q5_0 and Q5_1 */
    uint8_t raise_log2[2][4]; /* of lane l of vector v: [v][l % 4] */
};

static const struct lanes_kind kinds[] = {
    [LAYOUT_LANES_Q4_0] = {.group = LANES(LANES_BLOCK32), .offset = ZERO_OF_BLOCK, .zero = 8},
    [LAYOUT_LANES_Q4_1] = {.group = LANES(LANES_BLOCK32), .offset = SUM_OF_BLOCK},
    [LAYOUT_LANES_Q5_0] = {.group = LANES(LANES_BLOCK32),
                           .offset = ZERO_OF_BLOCK,
                           .zero = 16,
                           .pairs = true},
    [LAYOUT_LANES_Q5_1] = {.group = LANES(LANES_BLOCK32), .offset = SUM_OF_BLOCK, .pairs = true},
    [LAYOUT_LANES_MXFP4] = {.group = LANES(LANES_IQ4_XS), .offset = ZERO_OF_BLOCK, .zero = 12},
    [LAYOUT_LANES_Q2_K] = {.group = LANES(LANES_HALVES),
                           .offset = SUM_OF_GROUP,
                           .raise_log2 = {{0, 2, 0, 2}, {0, 2, 0, 2}}},
    [LAYOUT_LANES_Q3_K] = {.group = LANES(LANES_HALVES),
                           .offset = START,
                           .zero = 4,
                           .raise_log2 = {{0, 3, 0, 3}, {0, 3, 0, 3}}},
    [LAYOUT_LANES_Q4_K] = {.group = LANES(LANES_Q4_K), .offset = SUM_OF_SUB},
    [LAYOUT_LANES_Q5_K] = {.group = LANES(LANES_Q4_K),
                           .offset = SUM_OF_SUB,
                           .raise_log2 = {{0}, {1, 1, 1, 1}}},
    [LAYOUT_LANES_Q6_K] = {.group = LANES(LANES_Q6_K), .offset = START, .zero = 32},
    [LAYOUT_LANES_Q8_0] = {.group = LANES(LANES_HALVES),
                           .offset = ZERO_OF_GROUP,
                           .is_signed = true},
    [LAYOUT_LANES_IQ4_NL] = {.group = LANES(LANES_BLOCK32),
                             .offset = ZERO_OF_BLOCK,
                             .is_signed = true},
    [LAYOUT_LANES_IQ4_XS] = {.group = LANES(LANES_IQ4_XS), .offset = START, .is_signed = true},
};

static inline void store_chunks(__m128i q, void *to) {
    int32_t chunks[4];
    _mm_storeu_si128((__m128i *)(void *)chunks, q);
    for (uint32_t c = 0; c < 4; c++) {
        memcpy((char *)to + 32 * c, &chunks[c], 4);
    }
}

/* -8 times the sums of the first and of the second two of each four q, as two 16-bit numbers: what
 * products of codes that are 8 too large have too much, in each 16-bit lane. */
static inline int32_t starts_of_pairs(__m128i q) {
    __m128i sum = _mm_maddubs_epi16(_mm_set1_epi8(8), q);
    sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0xb1));
    return _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), sum));
}

/* offset: what the integer sum of the products begins at, raised; sum: of q. */
static inline void set_scales(const struct lanes_kind *kind, uint32_t v, uint32_t l, float d,
                              int32_t sum, int32_t offset, struct lane_scales *to) {
    const uint32_t group = kind->group[8 * v + l];
    float *const block = &to->s[0][l], *const sub = &to->s[0][group / 2];
    to->d[v][l] = d / (float)(1u << kind->raise_log2[v][l % 4]);
    switch (kind->offset) {
    case ZERO_OF_BLOCK: *block = d * (float)offset + (v == 0 ? 0 : *block); break;
    case ZERO_OF_GROUP: to->s[v][l] = d * (float)offset; break;
    case START:
        to->start[v][2 * l] = (int16_t)(offset / 2);
        to->start[v][2 * l + 1] = (int16_t)(offset - offset / 2);
        break;
    case SUM_OF_BLOCK: *block = d * (float)sum + (v == 0 ? 0 : *block); break;
    case SUM_OF_SUB: *sub = d * (float)sum + (group % 2 == 0 ? 0 : *sub); break;
    case SUM_OF_GROUP: to->s[group / 8][group % 8] = d * (float)sum; break;
    }
}

static inline void set_start(__m128i q, int32_t zero, int16_t to[2]) {
    const int32_t both = starts_of_pairs(q);
    memcpy(to, &both, sizeof both);
    to[0] = (int16_t)(to[0] / 8 * zero);
    to[1] = (int16_t)(to[1] / 8 * zero);
}

/* 16 codes as an unsigned and a flipping operand (struct lanes_signed). */
struct signs {
    __m128i magnitude, flip;
    int32_t negative; /* sum of the magnitudes of negative codes */
};

static inline struct signs signs_of(__m128i q) {
    struct signs s = {_mm_abs_epi8(q), _mm_cmpgt_epi8(_mm_setzero_si128(), q), 0};
    s.negative = sum_bytes(_mm_and_si128(s.magnitude, s.flip));
    return s;
}

static inline void prepare_lane(struct group g, const struct lanes_kind *kind, uint32_t v,
                                uint32_t l, void *out) {
    if (kind->pairs) {
        const __m128i pairs = _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
        g.q = _mm_shuffle_epi8(g.q, pairs);
    }
    if (!kind->is_signed) {
        struct lanes *to = out;
        store_chunks(g.q, to->q[v][0] + 4 * l);
        int32_t zero = kind->zero << kind->raise_log2[v][l % 4];
        set_scales(kind, v, l, g.d, g.sum, -zero * g.sum, &to->scales);
        if (kind->offset == START) {
            set_start(g.q, zero, to->scales.start[v] + 2 * (size_t)l);
        }
        return;
    }
    struct lanes_signed *to = out;
    const struct signs s = signs_of(g.q);
    store_chunks(s.magnitude, to->magnitude[v][0] + 4 * l);
    store_chunks(s.flip, to->flip[v][0] + 4 * l);
    set_scales(kind, v, l, g.d, g.sum, s.negative, &to->scales);
}

static inline uint64_t unit_bytes(const struct lanes_kind *kind) {
    return kind->is_signed ? sizeof(struct lanes_signed) : sizeof(struct lanes);
}

/* A unit's first lanes come first: a block's or sub-block's first group before its second. */
static void prepare_lanes(const float *x, uint32_t n_cols, const struct lanes_kind *kind,
                          uint8_t *out) {
    const float row_largest = largest_finite(x, n_cols);
    for (; n_cols > 0; n_cols -= n_cols < 256 ? n_cols : 256, x += 256, out += unit_bytes(kind)) {
        if (n_cols < 256) {
            memset(out, 0, unit_bytes(kind));
        }
        struct group groups[16];
        quantise_256(x, n_cols, row_largest, groups);
        for (uint32_t lane = 0; lane < 16; lane++) {
            if (kind->group[lane] < n_cols / 16) {
                prepare_lane(groups[kind->group[lane]], kind, lane / 8, lane % 8, out);
            }
        }
    }
}

static void prepare_q8(const float *x, uint32_t n_cols, void *out) {
    uint32_t n_pad = layout_pad(n_cols);
    int8_t *q = out;
    float *d = (float *)(void *)(q + n_pad), *s = d + n_pad / 16;
    const float row_largest = largest_finite(x, n_cols);
    struct group groups[16];
    for (uint32_t i = 0; i < n_cols / 16; i++) {
        if (i % 16 == 0) {
            quantise_256(x + 16 * (uint64_t)i, n_cols - 16 * i, row_largest, groups);
        }
        const struct group g = groups[i % 16];
        _mm_storeu_si128((__m128i *)(void *)(q + 16 * (uint64_t)i), g.q);
        d[i] = g.d;
        s[i] = g.d * (float)g.sum;
    }
    memset(q + n_cols, 0, n_pad - n_cols);
    memset(d + n_cols / 16, 0, (n_pad - n_cols) / 16 * sizeof *d);
    memset(s + n_cols / 16, 0, (n_pad - n_cols) / 16 * sizeof *s);
}

struct units {
    float unit, ratio;
};

/* The groups of the next 256 columns, or of those that are left, from column col on; before: the
 * unit of the columns before. */
static struct units quantise_unit(const float *x, uint32_t n_cols, uint32_t col, float row_largest,
                                  float before, struct group groups[16]) {
    struct units u;
    u.unit = quantise_256(x + col, n_cols - col, row_largest, groups);
    u.ratio = (col % LAYOUT_GEMM_COLS == 0 ? 1.0f : before) / u.unit;
    for (uint32_t i = 0; i < min_u32(n_cols - col, 256) / 16; i++) {
        u.ratio += 0 * groups[i].d; /* NaN if d is */
    }
    return u;
}

static void prepare_gemm_units(const float *x, uint32_t n_cols, struct gemm_units *out) {
    const float row_largest = largest_finite(x, n_cols);
    float unit = 0;
    for (uint32_t col = 0; col < n_cols; col += 256, out++) {
        struct group groups[16] = {0};
        const struct units u = quantise_unit(x, n_cols, col, row_largest, unit, groups);
        out->unit = unit = u.unit;
        out->ratio = u.ratio;
        for (uint32_t i = 0; i < 16; i++) {
            const struct group g = groups[i];
            const uint32_t b = i / 2, half = i % 2;
            _mm_storeu_si128((__m128i *)(void *)(out->block[b].q + 16 * half), g.q);
            out->block[b].steps[half][0] = out->block[b].steps[half][1] = (int16_t)g.steps;
            const int32_t start = starts_of_pairs(g.q);
            memcpy(out->block[b].start[half], &start, sizeof start);
            out->block[b].s[half] = (float)((int32_t)g.steps * g.sum);
        }
        memset(out->unused, 0, sizeof out->unused);
    }
}

static void prepare_gemm_halves(const float *x, uint32_t n_cols, struct gemm_halves *out) {
    const float row_largest = largest_finite(x, n_cols);
    float unit = 0;
    for (uint32_t col = 0; col < n_cols; col += 256, out++) {
        struct group groups[16] = {0};
        const struct units u = quantise_unit(x, n_cols, col, row_largest, unit, groups);
        out->unit = unit = u.unit;
        out->ratio = u.ratio;
        for (uint32_t b = 0; b < 8; b++) {
            const struct group g = groups[2 * b], h = groups[2 * b + 1];
            const int32_t sum = (int32_t)g.steps * g.sum + (int32_t)h.steps * h.sum;
            __m128i *const q = (__m128i *)(void *)out->block[b].q;
            _mm_storeu_si128(q, _mm_unpacklo_epi16(g.q, h.q));
            _mm_storeu_si128(q + 1, _mm_unpackhi_epi16(g.q, h.q));
            out->block[b].steps[0] = (int16_t)g.steps;
            out->block[b].steps[1] = (int16_t)h.steps;
            out->block[b].start[0] = (int16_t)(-8 * g.sum);
            out->block[b].start[1] = (int16_t)(-8 * h.sum);
            out->block[b].s = (float)sum;
        }
        memset(out->unused, 0, sizeof out->unused);
    }
}

static void prepare_gemm_flips(const float *x, uint32_t n_cols, struct gemm_flips *out) {
    const float row_largest = largest_finite(x, n_cols);
    for (uint32_t col = 0; col < n_cols; col += 256, out += 8) {
        struct group groups[16] = {0};
        quantise_256(x + col, n_cols - col, row_largest, groups);
        for (uint32_t i = 0; i < 16; i++) {
            struct gemm_flips *const to = &out[i / 2];
            const uint32_t half = i % 2;
            const struct signs s = signs_of(groups[i].q);
            _mm_storeu_si128((__m128i *)(void *)(to->magnitude + 16 * half), s.magnitude);
            _mm_storeu_si128((__m128i *)(void *)(to->flip + 16 * half), s.flip);
            to->d[half] = groups[i].d;
            to->start = groups[i].d * (float)s.negative + (half == 0 ? 0 : to->start);
        }
    }
}

static uint64_t layout_bytes(uint8_t layout, uint32_t n_cols) {
    if (layout >= LAYOUT_GEMV_FIRST) {
        return (uint64_t)layout_pad(n_cols) / 256 * unit_bytes(&kinds[layout]);
    }
    if (layout == LAYOUT_GEMM_UNITS) {
        return (uint64_t)layout_pad(n_cols) / 256 * sizeof(struct gemm_units);
    }
    if (layout == LAYOUT_GEMM_HALVES) {
        return (uint64_t)layout_pad(n_cols) / 256 * sizeof(struct gemm_halves);
    }
    if (layout == LAYOUT_GEMM_FLIPS) {
        return round_up((uint64_t)layout_pad(n_cols) / 32 * sizeof(struct gemm_flips),
                        KERNEL_ALIGN);
    }
    return layout_bytes_scalar(layout, n_cols);
}

static void prepare(uint8_t layout, const float *x, uint32_t n_cols, void *out) {
    assert(layout == KERNEL_LAYOUT_F32 || n_cols % 32 == 0);
    if (layout >= LAYOUT_GEMV_FIRST) {
        prepare_lanes(x, n_cols, &kinds[layout], out);
    } else if (layout == LAYOUT_Q8) {
        prepare_q8(x, n_cols, out);
    } else if (layout == LAYOUT_GEMM_UNITS) {
        prepare_gemm_units(x, n_cols, out);
    } else if (layout == LAYOUT_GEMM_HALVES) {
        prepare_gemm_halves(x, n_cols, out);
    } else if (layout == LAYOUT_GEMM_FLIPS) {
        prepare_gemm_flips(x, n_cols, out);
    } else {
        layout_prepare_scalar(layout, x, n_cols, out);
    }
}

void layout_fill_avx2(struct kernels *k) {
    k->layout_bytes = layout_bytes;
    k->prepare = prepare;
}
