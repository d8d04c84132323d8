/* gemv_block32_avx512.c - matrix times vector for Q8_0.
 *
 * Four blocks at a time, a group (struct lanes4x32): two permutes of [0, 64) and [64, 128) bring
 * half of their codes each into the lanes' order. The last eight bytes are blended over eight that
 * the second permute does not want. Several groups are computed in step, and what is said of a
 * row's end, as in gemv_nibbles_avx512.c. */
#include "base/checked.h"
#include "kernel/blocks.h"
#include "kernel/fill.h"
#include "kernel/gemv_avx512.h"

/* Four bytes of each block's first 16 values, then of its second 16. */
#define AT(x) (uint8_t)((x) < 128 ? (x) : (x)-8)
#define CHUNK(x) AT(x), AT((x) + 1), AT((x) + 2), AT((x) + 3)
#define CHUNKS(x)                                                                                  \
    CHUNK(x), CHUNK((x) + 34), CHUNK((x) + 68), CHUNK((x) + 102), CHUNK((x) + 16),                 \
        CHUNK((x) + 50), CHUNK((x) + 84), CHUNK((x) + 118)
static const uint8_t first_at[64] = {CHUNKS(2), CHUNKS(6)};
static const uint8_t second_at[64] = {CHUNKS(10), CHUNKS(14)};
#define SCALES 0, 17, 34, 51
static const uint16_t scales_at[32] = {SCALES, SCALES, SCALES, SCALES};

enum { STEP = 2, BLOCK_BYTES = sizeof(struct block_q8_0), GROUP_BYTES = 4 * BLOCK_BYTES };
enum { BLOCK_COLS = 8192 }; /* 12 KiB of activations */

/* Where a group's later parts are read, and which blocks exist. */
struct parts {
    uint32_t second, last;
    __mmask16 scales;
};
static const struct parts full = {64, 128, 0xffff};

GEMV_INLINE struct parts parts_of(uint32_t n_blocks) {
    uint32_t bytes = n_blocks * BLOCK_BYTES;
    return (struct parts){64 < bytes ? 64 : 0, 128 < bytes ? 128 : 0,
                          (__mmask16)(((1u << n_blocks) - 1) * 0x1111)};
}

GEMV_INLINE __m512i load(const void *p) {
    return _mm512_loadu_si512(p);
}

struct codes {
    __m512i first, second;
    __m512 scales;
};

GEMV_INLINE struct codes read_group(const uint8_t *p, const struct parts *at) {
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    __m512i a = gemv_keep(load(p)), b = gemv_keep(load(p + at->second));
    __m512i c = _mm512_mask_set1_epi64(b, 1 << 7, gemv_read_64(p + at->last));
    __m512i first = _mm512_permutex2var_epi8(a, load(first_at), b);
    __m512i second = _mm512_permutex2var_epi8(a, load(second_at), c);
    __m512i scales = _mm512_permutex2var_epi16(a, load(scales_at), b);
    return (struct codes){
        gemv_pin(_mm512_xor_si512(first, flip)), gemv_pin(_mm512_xor_si512(second, flip)),
        gemv_pin_ps(at->scales == 0xffff
                        ? gemv_half_to_f32(scales)
                        : _mm512_maskz_cvtph_ps(at->scales, _mm512_castsi512_si256(scales)))};
}

GEMV_INLINE __m512i dots_of(const struct codes *c, const struct lanes4x32 *a) {
    __m512i sum = _mm512_zextsi256_si512(_mm256_load_si256((const __m256i *)a->start));
    sum = _mm512_dpbusd_epi32(sum, c->first, _mm512_load_si512(a->q[0]));
    return gemv_pin(_mm512_dpbusd_epi32(sum, c->second, _mm512_load_si512(a->q[1])));
}

GEMV_INLINE __m512 add_scaled(__m512i dots, __m512 scales, const struct lanes4x32 *a, __m512 sum) {
    const __m512 d = _mm512_broadcast_f32x8(_mm256_load_ps(a->d));
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dots), d);
    return gemv_pin_ps(_mm512_fmadd_ps(scales, scaled, sum));
}

/* n groups in step; n is a constant where this is inlined. last: the parts of the last one. */
GEMV_INLINE __m512 add_groups(uint32_t n, const uint8_t *p, const struct parts *last,
                              const struct lanes4x32 *a, __m512 sum) {
    struct codes c[STEP];
    __m512i dots[STEP];
    for (uint32_t i = 0; i < n; i++) {
        c[i] = read_group(p + i * GROUP_BYTES, i + 1 == n ? last : &full);
    }
    for (uint32_t i = 0; i < n; i++) {
        dots[i] = dots_of(&c[i], a + i);
    }
    for (uint32_t i = 0; i < n; i++) {
        sum = add_scaled(dots[i], c[i].scales, a + i, sum);
    }
    return sum;
}

/* A row's steps [from, to) and, if it is the row's end, its last groups; sum goes on. */
GEMV_INLINE __m512 row_part(uint32_t n_last, const struct parts *last, const uint8_t *row,
                            const struct lanes4x32 *acts, uint32_t from, uint32_t to, bool end,
                            struct kernel_ahead ahead, __m512 sum) {
    const uint8_t *p = row + (uint64_t)from * STEP * GROUP_BYTES;
    const struct lanes4x32 *a = acts + from * STEP;
    for (uint32_t i = from; i < to; i++, p += STEP * GROUP_BYTES, a += STEP) {
        kernel_prefetch(p, ahead, STEP * GROUP_BYTES);
        sum = add_groups(STEP, p, &full, a, sum);
    }
    if (end) {
        kernel_prefetch(p, ahead, n_last * GROUP_BYTES);
        sum = add_groups(n_last, p, last, a, sum);
    }
    return sum;
}

/* Rows of so many columns that their weights and activations do not fit the L1 cache together: all
 * rows of a group of 16 go over a block of columns before any goes over the next one. Prefetched is
 * the same block of the next row, or where the group, or the next one, goes on. */
GEMV_INLINE void long_rows(uint32_t n_last, const struct parts *last, const uint8_t *w,
                           uint64_t row_bytes, uint32_t n_rows, uint32_t n_steps, uint32_t n_blocks,
                           const struct lanes4x32 *acts, float *y) {
    const uint32_t block = layout_ceil(n_steps, n_blocks);
    const uint64_t block_bytes = (uint64_t)block * STEP * GROUP_BYTES;
    struct gemv_sums sums;
    for (uint32_t first = 0; first < n_rows; first += 16) {
        const uint32_t n = n_rows - first < 16 ? n_rows - first : 16;
        const uint8_t *rows = w + first * row_bytes;
        for (uint32_t b = 0; b < n_blocks; b++) {
            const bool end = b + 1 == n_blocks;
            const uint32_t from = min_u32(b * block, n_steps);
            const uint32_t to = end ? n_steps : min_u32(from + block, n_steps);
            const uint64_t back =
                end ? 0 - b * block_bytes + row_bytes : block_bytes - (n - 1) * row_bytes;
            for (uint32_t r = 0; r < n; r++) {
                __m512 sum = b > 0 ? _mm512_load_ps(sums.of_row[r]) : _mm512_setzero_ps();
                sum = row_part(n_last, last, rows + r * row_bytes, acts, from, to, end,
                               kernel_ahead_by(r + 1 < n ? row_bytes : back), sum);
                _mm512_store_ps(sums.of_row[r], sum);
            }
        }
        gemv_write(&sums, n, y + first);
    }
}

/* n_last: groups of the last step of a row, 1 to STEP; a constant where this is inlined. */
GEMV_INLINE void rows(uint32_t n_last, const uint8_t *w, uint64_t row_bytes, uint32_t n_rows,
                      uint32_t n_cols, const struct lanes4x32 *acts, float *y) {
    const struct parts last = parts_of((n_cols - 1) % 128 / 32 + 1);
    const uint32_t n_steps = (layout_ceil(n_cols, 128) - n_last) / STEP;
    if (n_cols > (kernel_tuning.large_l1 ? 2 * BLOCK_COLS : BLOCK_COLS)) {
        long_rows(n_last, &last, w, row_bytes, n_rows, n_steps, layout_ceil(n_cols, BLOCK_COLS),
                  acts, y);
        return;
    }
    const struct kernel_ahead ahead = kernel_ahead_light();
    struct gemv_sums done;
    for (uint32_t r = 0; r < n_rows; r++) {
        const __m512 sum = row_part(n_last, &last, w + r * row_bytes, acts, 0, n_steps, true, ahead,
                                    _mm512_setzero_ps());
        gemv_row_done(&done, r, n_rows, sum, y);
    }
}

static void gemv_q8_0(const uint8_t *w, uint64_t row_bytes, uint32_t n_rows, uint32_t n_cols,
                      const void *x, float *y) {
    if (layout_ceil(n_cols, 128) % 2 == 1) {
        rows(1, w, row_bytes, n_rows, n_cols, x, y);
    } else {
        rows(2, w, row_bytes, n_rows, n_cols, x, y);
    }
}

/* ---- several tokens ---- */

GEMV_INLINE void few_part(uint32_t dtype, uint32_t n, const uint8_t *row, uint32_t n_cols,
                          uint32_t from, uint32_t to, bool end, struct kernel_ahead ahead,
                          const void *const *x, __m512 *sums) {
    (void)dtype;
    const struct parts last = parts_of(end ? (n_cols - 1) % 128 / 32 + 1 : 4);
    const uint8_t *p = row + from * (uint64_t)GROUP_BYTES;
    const struct lanes4x32 *a[GEMV_TOGETHER];
    _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
        a[t] = (const struct lanes4x32 *)x[t] + from;
    }
    for (uint32_t i = from; i < to; i++, p += GROUP_BYTES) {
        kernel_prefetch(p, ahead, GROUP_BYTES);
        const struct codes c = read_group(p, i + 1 == to ? &last : &full);
        _Pragma("GCC unroll 8") for (uint32_t t = 0; t < n; t++) {
            const struct lanes4x32 *at = a[t]++;
            sums[t] = add_scaled(dots_of(&c, at), c.scales, at, sums[t]);
        }
    }
}

GEMV_FEW(few_q8_0, few_part, OT_Q8_0, 1, 8, 128, GROUP_BYTES, sizeof(struct lanes4x32))

void gemv_block32_fill_avx512(struct kernels *k) {
    k->type[OT_Q8_0].few = few_q8_0;
    k->type[OT_Q8_0].gemv = gemv_q8_0;
    k->type[OT_Q8_0].layout_gemv = LAYOUT_LANES4X32_Q8_0;
}
