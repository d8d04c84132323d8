/* gemm_avx2.c - many tokens by a quantised weight matrix, with AVX2 (tile.h).
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs into 16 bits, saturating. The sums
 * of 16 products of codes from 0 to 15 fit 16 bits (16 * 15 * 127 < 2^15), and so do those of codes
 * from -16 to 15, and of 8 products of codes from -32 to 31. Such codes are stored as unsigned
 * ones, and their zero point times the sum of the activations (start) is taken off: sums may wrap
 * before, because additions are modulo 2^16. Of 8-bit codes only two products fit: vpmaddwd makes
 * 32 bits of each such sum. Those codes are signed, so the unsigned operand is the activation's
 * magnitude, and the codes' bits are flipped where it is negative.
 *
 * A part is 16 rows, two vectors; up to 6 tokens pass over it, each broadcast serving both. The
 * sums of products are in registers, the results in memory (they are wanted once for 32 columns),
 * because the multiplications are the limit (two a cycle, vpmaddubsw, vpmaddwd and f32 alike), and
 * additions that wait for a register take their pipes.
 *
 * vpmaddwd, which has to make 32 bits of the sums, multiplies them by the activations' steps at the
 * same time. Then the weights' scale and minimum are multiplied in f32. Sums of signed
 * codes of 8 bits have 32 bits already: all scales are multiplied in f32. */
#include "kernel/gemm_avx2.h"
#include "kernel/fill.h"

/* Adds, and keeps the compiler from adding in another order: it would compute all products first,
 * and has no registers for them. */
INLINE __m256i add_16(__m256i sum, __m256i more) {
    sum = _mm256_add_epi16(sum, more);
    __asm__("" : "+x"(sum));
    return sum;
}

/* Where a part's numbers are, block by block. */
struct place {
    const int8_t *codes;
    const float *scale, *min;
};

/* Products of n_k quadruples, added in 16 bits, modulo 2^16. q: [token]. */
INLINE void dot(const int8_t *const *q, uint32_t n, const int8_t *codes, uint32_t n_k, sums t) {
#pragma GCC unroll 8
    for (uint32_t k = 0; k < n_k; k++) {
        const __m256i w[VECTORS] = {load(codes, k, 0), load(codes, k, 1)};
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m256i a = broadcast_4(q[m] + 4 * k);
#pragma GCC unroll 2
            for (uint32_t i = 0; i < VECTORS; i++) {
                const __m256i p = _mm256_maddubs_epi16(w[i], a);
                t[m][i] = k == 0 ? p : add_16(t[m][i], p);
            }
        }
    }
}

/* A token's numbers for the columns that share a scale of the weights. */
struct act {
    const int8_t *q;
    const int16_t *steps, *start; /* [2] */
    const float *s;
};

INLINE bool is_of_16(enum kind kind) {
    return kind == KIND_GROUPS_MIN || kind == KIND_SIX;
}

/* Columns 16 h.. of block b, or the whole of it. */
INLINE struct act act_of(const uint8_t *row, enum kind kind, uint32_t b, uint32_t h) {
    const struct gemm_units *u = (const void *)row;
    const struct gemm_halves *v = (const void *)row;
    if (is_of_16(kind))
        return (struct act){u->block[b].q + 16 * h, u->block[b].steps[h], u->block[b].start[h],
                            &u->block[b].s[h]};
    return (struct act){v->block[b].q, v->block[b].steps, v->block[b].start, &v->block[b].s};
}

/* Codes are 8, 16 or 32 too large: takes that off the sums of their products. */
INLINE __m256i without_zero(__m256i sum, const int16_t start[2], enum kind kind) {
    const __m256i from = broadcast_4(start);
    switch (kind) {
    case KIND_FOUR: return _mm256_add_epi16(sum, from);
    case KIND_FIVE_MIN: return _mm256_add_epi16(sum, _mm256_add_epi16(from, from));
    case KIND_SIX: return _mm256_add_epi16(sum, _mm256_slli_epi16(from, 2));
    default: return sum;
    }
}

INLINE void add_columns(const uint8_t *const *rows, uint32_t n, enum kind kind, uint32_t b,
                        uint32_t h, const struct place *at, results f) {
    struct act act[MAX_TOKENS];
    const int8_t *q[MAX_TOKENS];
    sums t;
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        act[m] = act_of(rows[m], kind, b, h);
        q[m] = act[m].q;
    }
    dot(q, n, at->codes, is_of_16(kind) ? 4 : 8, t);
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++) {
        const __m256i steps = broadcast_4(act[m].steps);
#pragma GCC unroll 2
        for (uint32_t i = 0; i < VECTORS; i++) {
            const __m256i sum = _mm256_madd_epi16(without_zero(t[m][i], act[m].start, kind), steps);
            f[m][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_load_ps(at->scale + 8 * i),
                                      f[m][i]);
            if (kind != KIND_FOUR && kind != KIND_SIX)
                f[m][i] = _mm256_fmadd_ps(broadcast_f32(act[m].s), _mm256_load_ps(at->min + 8 * i),
                                          f[m][i]);
        }
    }
}

/* ---- one part; n and kind are constants where this is inlined ---- */

INLINE void add_32_columns(const uint8_t *const *rows, uint32_t b, uint32_t n, enum kind kind,
                           const struct place *at, results f) {
    if (!is_of_16(kind)) {
        add_columns(rows, n, kind, b, 0, at, f);
        return;
    }
    for (uint32_t h = 0; h < 2; h++) {
        const struct place half = {at->codes + h * 16 * PART_ROWS, at->scale + h * PART_ROWS,
                                   at->min + h * PART_ROWS};
        add_columns(rows, n, kind, b, h, &half, f);
    }
}

INLINE void multiply_steps(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                           enum kind kind, uint32_t part, uint32_t n_rows) {
    const bool is_units = is_of_16(kind);
    const uint64_t act_bytes = is_units ? sizeof(struct gemm_units) : sizeof(struct gemm_halves);
    const uint64_t ratio_at =
        is_units ? offsetof(struct gemm_units, ratio) : offsetof(struct gemm_halves, ratio);
    const uint32_t scales = is_units ? 2 * PART_ROWS : PART_ROWS; /* of 32 columns */
    struct place at = {t->codes + part * t->codes_stride, t->scale + part * t->group_stride,
                       t->min + part * t->group_stride};
    const uint8_t *act[MAX_TOKENS];
    results f;
    begin(a, n, part * PART_ROWS, n_rows, f);
    for (uint32_t m = 0; m < n; m++)
        act[m] = a->row[m] + (a->col / 256) * act_bytes;
    for (uint32_t left = a->n_cols / 32;;) {
        for (uint32_t m = 0; m < n; m++) {
            const __m256 ratio = broadcast_f32(act[m] + ratio_at);
            for (uint32_t i = 0; i < VECTORS; i++)
                f[m][i] = _mm256_mul_ps(f[m][i], ratio);
        }
        const uint32_t n_blocks = left < 8 ? left : 8;
        for (uint32_t b = 0; b < n_blocks; b++) {
            tile_ahead(a, a->n_cols / 32 - left + b);
            add_32_columns(act, b, n, kind, &at, f);
            at.codes += 32 * PART_ROWS;
            at.scale += scales;
            at.min += scales;
        }
        left -= n_blocks;
        if (left == 0)
            break;
        for (uint32_t m = 0; m < n; m++)
            act[m] += act_bytes;
    }
    for (uint32_t m = 0; m < n; m++) {
        const __m256 unit = broadcast_f32(act[m] + ratio_at + sizeof(float));
        for (uint32_t i = 0; i < VECTORS; i++)
            f[m][i] = _mm256_mul_ps(f[m][i], unit);
    }
    finish(a, n, part * PART_ROWS, n_rows, f);
}

/* ---- signed codes of 8 bits (LAYOUT_GEMM_FLIPS) ---- */

/* As add_16(). */
INLINE __m256i add_32(__m256i sum, __m256i more) {
    sum = _mm256_add_epi32(sum, more);
    __asm__("" : "+x"(sum));
    return sum;
}

/* Both are computed before what follows: a step of one beside the same step of the other. */
INLINE void in_step(__m256i p[VECTORS]) {
    __asm__("" : "+x"(p[0]), "+x"(p[1]));
}

/* Products of 16 columns, the half h of a block, too small by what act's start says. */
INLINE void dot_flips(const struct gemm_flips *const *act, uint32_t n, uint32_t h,
                      const int8_t *codes, sums t) {
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (uint32_t k = 0; k < 4; k++) {
        const __m256i w[VECTORS] = {load(codes, k, 0), load(codes, k, 1)};
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
            const __m256i magnitude = broadcast_4(act[m]->magnitude + 16 * h + 4 * k);
            const __m256i flip = broadcast_4(act[m]->flip + 16 * h + 4 * k);
            __m256i p[VECTORS] = {_mm256_xor_si256(w[0], flip), _mm256_xor_si256(w[1], flip)};
            in_step(p);
            for (uint32_t i = 0; i < VECTORS; i++)
                p[i] = _mm256_maddubs_epi16(magnitude, p[i]);
            in_step(p);
            for (uint32_t i = 0; i < VECTORS; i++)
                p[i] = _mm256_madd_epi16(p[i], ones);
            in_step(p);
            for (uint32_t i = 0; i < VECTORS; i++)
                t[m][i] = k == 0 ? p[i] : add_32(t[m][i], p[i]);
        }
    }
}

INLINE void multiply_flips(const struct tile_tokens *a, uint32_t n, const struct tile *t,
                           uint32_t part, uint32_t n_rows) {
    const int8_t *codes = t->codes + part * t->codes_stride;
    const float *scale = t->scale + part * t->group_stride;
    const struct gemm_flips *act[MAX_TOKENS];
    results f;
    begin(a, n, part * PART_ROWS, n_rows, f);
#pragma GCC unroll 6
    for (uint32_t m = 0; m < n; m++)
        act[m] = (const struct gemm_flips *)(const void *)a->row[m] + a->col / 32;
    for (uint32_t b = 0; b < a->n_cols / 32; b++) {
        tile_ahead(a, b);
        results first_half;
        sums d;
        dot_flips(act, n, 0, codes, d);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++)
#pragma GCC unroll 2
            for (uint32_t i = 0; i < VECTORS; i++)
                first_half[m][i] =
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(d[m][i]), broadcast_f32(&act[m]->d[0]),
                                    broadcast_f32(&act[m]->start));
        dot_flips(act, n, 1, codes + 16 * PART_ROWS, d);
#pragma GCC unroll 6
        for (uint32_t m = 0; m < n; m++) {
#pragma GCC unroll 2
            for (uint32_t i = 0; i < VECTORS; i++) {
                const __m256 both = _mm256_fmadd_ps(_mm256_cvtepi32_ps(d[m][i]),
                                                    broadcast_f32(&act[m]->d[1]), first_half[m][i]);
                f[m][i] = _mm256_fmadd_ps(both, _mm256_load_ps(scale + 8 * i), f[m][i]);
            }
            act[m]++;
        }
        codes += 32 * PART_ROWS;
        scale += PART_ROWS;
    }
    finish(a, n, part * PART_ROWS, n_rows, f);
}

#define MULTIPLY_STEPS(name, kind)                                                                 \
    TILE_MULTIPLY_6(name, PART_ROWS, multiply_steps(a, n_tokens, t, kind, r / PART_ROWS, n_rows - r))
MULTIPLY_STEPS(four, KIND_FOUR)
MULTIPLY_STEPS(four_min, KIND_FOUR_MIN)
MULTIPLY_STEPS(five_min, KIND_FIVE_MIN)
MULTIPLY_STEPS(groups_min, KIND_GROUPS_MIN)
MULTIPLY_STEPS(six, KIND_SIX)
TILE_MULTIPLY_6(flips, PART_ROWS, multiply_flips(a, n_tokens, t, r / PART_ROWS, n_rows - r))

static void gemm_quantised(uint32_t dtype, const struct gemm *g, void *scratch) {
    const struct tile_isa isa = {
        .types = tile_types_avx2(),
        .multiply = {{ROW_6(four)},
                     {ROW_6(four_min)},
                     {ROW_6(five_min)},
                     {ROW_6(groups_min)},
                     {ROW_6(six)},
                     {ROW_6(flips)}},
        .max_tokens = MAX_TOKENS,
        .part_rows = PART_ROWS,
        .interleaved = false,
    };
    tile_gemm(&isa, dtype, g, scratch);
}

GEMM_TABLE(gemm_entries);

void gemm_fill_avx2(struct kernels *k) {
    tile_fill(k, tile_types_avx2(), gemm_entries);
    gemm_float_fill_avx2(k);
}
