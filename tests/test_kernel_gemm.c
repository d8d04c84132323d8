/* Many tokens by a weight matrix: every instruction set's gemm against the scalar one, for every
 * type, and what kernel.h promises of all of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "kernel/codes.h"
#include "kernel/half.h"
#include "kernel/kernel.h"

static const uint8_t dtypes[] = {OT_F32,  OT_F16,    OT_BF16,   OT_Q4_0, OT_Q4_1, OT_Q5_0,
                                 OT_Q5_1, OT_Q8_0,   OT_Q2_K,   OT_Q3_K, OT_Q4_K, OT_Q5_K,
                                 OT_Q6_K, OT_IQ4_NL, OT_IQ4_XS, OT_MXFP4};
enum { N_DTYPES = sizeof dtypes };

static const char *const isas[] = {"scalar",     "avx2", "avxvnni", "avx512",
                                   "avx512bf16", "neon", "i8mm"};
enum { N_ISAS = sizeof isas / sizeof isas[0] };

static uint64_t random_state;

static uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

/* Roughly normal, deviation 1. */
static float random_float(void) {
    float sum = 0;
    for (int i = 0; i < 6; i++)
        sum += (float)(random_bits() >> 8) / 16777216.0f - 0.5f;
    return sum * 1.4f;
}

/* Where a block keeps its half precision scales. */
static uint32_t half_offsets(uint32_t dtype, uint32_t offsets[2]) {
    switch (dtype) {
    case OT_Q4_1:
    case OT_Q5_1:
    case OT_Q4_K:
    case OT_Q5_K: offsets[0] = 0, offsets[1] = 2; return 2;
    case OT_Q2_K: offsets[0] = 80, offsets[1] = 82; return 2;
    case OT_Q3_K: offsets[0] = 108; return 1;
    case OT_Q6_K: offsets[0] = 208; return 1;
    case OT_MXFP4: return 0;
    default: offsets[0] = 0; return 1;
    }
}

/* Any bits for codes, scales of a weight matrix's usual size. */
static void random_weights(uint32_t dtype, uint8_t *w, uint64_t n_values) {
    const uint32_t block_bytes = dtype_get(dtype)->block_bytes;
    const uint64_t n = n_values / dtype_get(dtype)->block_values;
    for (uint64_t b = 0; b < n; b++) {
        uint8_t *block = w + b * block_bytes;
        if (dtype == OT_F32 || dtype == OT_BF16) {
            const uint32_t bits = half_to_bits(random_float());
            memcpy(block, (const uint8_t *)&bits + (dtype == OT_BF16 ? 2 : 0), block_bytes);
            continue;
        }
        for (uint32_t i = 0; i < block_bytes; i++)
            block[i] = (uint8_t)random_bits();
        if (dtype == OT_MXFP4)
            block[0] = (uint8_t)(120 + random_bits() % 8);
        uint32_t offsets[2];
        const uint32_t n_halves = half_offsets(dtype, offsets);
        for (uint32_t i = 0; i < n_halves; i++) {
            const uint16_t h = half_from_f32(random_float() * (dtype == OT_F16 ? 1.0f : 0.02f));
            memcpy(block + offsets[i], &h, 2);
        }
    }
}

/* One problem and its results. Weights end where the memory that may be read does. */
struct problem {
    uint32_t dtype, n_rows, n_cols, n_tokens;
    uint64_t row_bytes, mapped_bytes;
    uint8_t *mapping, *w;
    float *x;    /* [n_tokens, n_cols] */
    double *sum; /* [n_tokens, n_rows]: of magnitudes, what a rounding error is measured by */
};

static void problem_init(struct problem *p, uint32_t dtype, uint32_t n_rows, uint32_t n_cols,
                         uint32_t n_tokens) {
    p->dtype = dtype;
    p->n_rows = n_rows;
    p->n_cols = n_cols;
    p->n_tokens = n_tokens;
    p->row_bytes = dtype_bytes(dtype, n_cols);
    const uint64_t bytes = p->row_bytes * n_rows + KERNEL_OVERREAD;
    p->mapped_bytes = (bytes + 4095) / 4096 * 4096 + 4096;
    p->mapping =
        mmap(NULL, p->mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p->mapping != MAP_FAILED);
    assert_int_equal(mprotect(p->mapping + p->mapped_bytes - 4096, 4096, PROT_NONE), 0);
    p->w = p->mapping + p->mapped_bytes - 4096 - bytes;
    random_weights(dtype, p->w, (uint64_t)n_rows * n_cols);
    memset(p->w + p->row_bytes * n_rows, 0xff, KERNEL_OVERREAD);
    p->x = mem_calloc((uint64_t)n_tokens * n_cols, sizeof *p->x);
    assert_non_null(p->x);
    for (uint64_t i = 0; i < (uint64_t)n_tokens * n_cols; i++)
        p->x[i] = random_float();
    p->sum = NULL;
}

static void problem_deinit(struct problem *p) {
    munmap(p->mapping, p->mapped_bytes);
    mem_free(p->x);
    mem_free(p->sum);
}

/* Magnitudes of a row's values before a minimum cancels a part of them. */
static void row_magnitudes(uint32_t dtype, const uint8_t *w, uint32_t n_cols, float *out) {
    const struct kernels *scalar = kernels_find("scalar");
    const uint32_t n = dtype_get(dtype)->block_values;
    if (n == 1) {
        scalar->type[dtype].dequant(w, n_cols, out);
        for (uint32_t i = 0; i < n_cols; i++)
            out[i] = fabsf(out[i]);
        return;
    }
    for (uint32_t b = 0; b < n_cols / n; b++) {
        struct codes c;
        codes_unpack(dtype, w + b * dtype_get(dtype)->block_bytes, &c);
        for (uint32_t i = 0; i < n; i++)
            out[b * n + i] =
                fabsf(c.d[i / 16] * (float)c.q[i]) + (c.has_min ? fabsf(c.m[i / 16]) : 0);
    }
}

static void problem_sums(struct problem *p) {
    p->sum = mem_calloc((uint64_t)p->n_tokens * p->n_rows, sizeof *p->sum);
    float *row = mem_calloc(p->n_cols, sizeof *row);
    assert_non_null(p->sum);
    assert_non_null(row);
    for (uint32_t r = 0; r < p->n_rows; r++) {
        row_magnitudes(p->dtype, p->w + r * p->row_bytes, p->n_cols, row);
        for (uint32_t t = 0; t < p->n_tokens; t++) {
            double sum = 0;
            for (uint32_t i = 0; i < p->n_cols; i++)
                sum += (double)row[i] * fabs((double)p->x[(uint64_t)t * p->n_cols + i]);
            p->sum[(uint64_t)t * p->n_rows + r] = sum;
        }
    }
    mem_free(row);
}

/* Prepared activations of all tokens, in the layout that k's gemm wants. */
static uint8_t *prepare(const struct kernels *k, const struct problem *p, uint64_t *act_bytes) {
    const uint8_t layout = k->type[p->dtype].layout_gemm;
    *act_bytes = k->layout_bytes(layout, p->n_cols);

    uint8_t *acts = aligned_alloc(KERNEL_ALIGN, *act_bytes * p->n_tokens);
    assert_non_null(acts);
    for (uint32_t t = 0; t < p->n_tokens; t++)
        k->prepare(layout, p->x + (uint64_t)t * p->n_cols, p->n_cols, acts + t * *act_bytes);
    return acts;
}

/* Rows [r0, r1) of tokens [t0, t1) into y [n_tokens, n_rows]. */
static void run_part(const struct kernels *k, const struct problem *p, const uint8_t *acts,
                     uint64_t act_bytes, uint32_t r0, uint32_t r1, uint32_t t0, uint32_t t1,
                     float *y) {
    void *scratch = aligned_alloc(KERNEL_ALIGN, k->gemm_scratch_bytes(p->n_cols));
    assert_non_null(scratch);
    memset(scratch, 0, k->gemm_scratch_bytes(p->n_cols));
    k->type[p->dtype].gemm(p->w + r0 * p->row_bytes, p->row_bytes, r1 - r0,
                           p->n_rows - r1, p->n_cols,
                           acts + t0 * act_bytes, act_bytes, NULL, t1 - t0,
                           y + (uint64_t)t0 * p->n_rows + r0, p->n_rows, scratch);
    free(scratch);
}

static float *run_all(const struct kernels *k, const struct problem *p) {
    uint64_t act_bytes;
    uint8_t *acts = prepare(k, p, &act_bytes);
    float *y = mem_calloc((uint64_t)p->n_tokens * p->n_rows, sizeof *y);
    assert_non_null(y);
    run_part(k, p, acts, act_bytes, 0, p->n_rows, 0, p->n_tokens, y);
    free(acts);
    return y;
}

static void check_close(const struct kernels *k, const struct problem *p, const float *y,
                        const float *expected) {
    for (uint64_t i = 0; i < (uint64_t)p->n_tokens * p->n_rows; i++) {
        const double error = fabs((double)y[i] - (double)expected[i]);
        if (!(error <= 3e-6 * p->sum[i]))
            fail_msg("%s %s rows %u cols %u tokens %u: token %u row %u is %.9g, not %.9g (of %g)",
                     k->isa, ot_dtype_name(p->dtype), p->n_rows, p->n_cols, p->n_tokens,
                     (uint32_t)(i / p->n_rows), (uint32_t)(i % p->n_rows), (double)y[i],
                     (double)expected[i], p->sum[i]);
    }
}

/* To nearest and even; finite values. */
static void round_to_bf16(float *x, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        memcpy(&x[i], &bits, sizeof bits);
    }
}

static void compare(uint32_t dtype, uint32_t n_rows, uint32_t n_cols, uint32_t n_tokens) {
    const uint32_t unit = dtype_get(dtype)->block_values;
    n_cols = (n_cols + unit - 1) / unit * unit;
    struct problem p;
    problem_init(&p, dtype, n_rows, n_cols, n_tokens);
    problem_sums(&p);
    float *expected = run_all(kernels_find("scalar"), &p);
    for (uint32_t i = 1; i < N_ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        if (k == NULL)
            continue;
        float *y = run_all(k, &p);
        if (dtype == OT_BF16 && strcmp(isas[i], "avx512bf16") == 0) {
            mem_free(expected);
            round_to_bf16(p.x, (uint64_t)n_tokens * n_cols);
            expected = run_all(kernels_find("scalar"), &p);
        }
        check_close(k, &p, y, expected);
        mem_free(y);
    }
    mem_free(expected);
    problem_deinit(&p);
}

static void test_every_variant_agrees_with_scalar_for_odd_sizes(void **state) {
    (void)state;
    static const uint32_t n_cols[] = {32, 64, 96, 576, 640, 1536};
    static const uint32_t n_rows[] = {1, 31, 33, 100};
    for (uint32_t d = 0; d < N_DTYPES; d++)
        for (uint32_t c = 0; c < 6; c++)
            for (uint32_t r = 0; r < 4; r++) {
                random_state = d * 100 + c * 10 + r;
                compare(dtypes[d], n_rows[r], n_cols[c], 1 + (c * 5 + r * 3) % 14);
            }
}

/* A model takes scratch once, for its widest matrix. */
static void test_scratch_for_wide_matrices_is_enough_for_narrower_ones(void **state) {
    (void)state;
    for (uint32_t i = 0; i < N_ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        uint64_t before = 0;
        for (uint32_t n_cols = 32; k != NULL && n_cols <= 16384; n_cols += 32) {
            uint64_t bytes = k->gemm_scratch_bytes(n_cols);
            assert_true(bytes >= before);
            before = bytes;
        }
    }
}

static void test_every_number_of_tokens_is_served(void **state) {
    (void)state;
    for (uint32_t n_tokens = 1; n_tokens <= 70; n_tokens++)
        for (uint32_t d = n_tokens % 2; d < N_DTYPES; d += 2) {
            random_state = n_tokens * 100 + d;
            compare(dtypes[d], 33, 256, n_tokens);
        }
}

static void test_rows_longer_than_a_scratchpad_are_right(void **state) {
    (void)state;
    for (uint32_t d = 0; d < N_DTYPES; d++) {
        random_state = d;
        compare(dtypes[d], 34, 4096 + 256, 3);
        compare(dtypes[d], 3, 65536, 2);
    }
}

/* Plain floats have no block: their rows may have any length. */
static void test_float_rows_may_have_any_length(void **state) {
    (void)state;
    for (uint32_t d = 0; d < 3; d++)
        for (uint32_t n_cols = 1; n_cols < 40; n_cols++)
            compare(dtypes[d], 17, n_cols, 3);
}

static void check_same_bits(const struct kernels *k, uint32_t dtype, const float *a, const float *b,
                            uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (half_to_bits(a[i]) != half_to_bits(b[i]))
            fail_msg("%s %s: value %u is %.9g or %.9g", k->isa, ot_dtype_name(dtype), (uint32_t)i,
                     (double)a[i], (double)b[i]);
}

static void test_results_do_not_depend_on_how_work_is_divided(void **state) {
    (void)state;
    for (uint32_t i = 0; i < N_ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        for (uint32_t d = 0; k != NULL && d < N_DTYPES; d++) {
            struct problem p;
            random_state = i * 100 + d;
            problem_init(&p, dtypes[d], 100, d % 4 == 0 ? 4352 : 512, 13);
            uint64_t act_bytes;
            uint8_t *acts = prepare(k, &p, &act_bytes);
            float *whole = mem_calloc(13 * 100, sizeof *whole);
            float *parts = mem_calloc(13 * 100, sizeof *parts);
            assert_true(whole != NULL && parts != NULL);
            run_part(k, &p, acts, act_bytes, 0, 100, 0, 13, whole);
            for (uint32_t t = 0; t < 13; t++)
                run_part(k, &p, acts, act_bytes, 0, 100, t, t + 1, parts);
            check_same_bits(k, dtypes[d], whole, parts, 13 * 100);
            run_part(k, &p, acts, act_bytes, 0, 1, 0, 13, parts);
            run_part(k, &p, acts, act_bytes, 1, 34, 0, 13, parts);
            run_part(k, &p, acts, act_bytes, 34, 100, 0, 7, parts);
            run_part(k, &p, acts, act_bytes, 34, 100, 7, 13, parts);
            check_same_bits(k, dtypes[d], whole, parts, 13 * 100);
            mem_free(whole);
            mem_free(parts);
            free(acts);
            problem_deinit(&p);
        }
    }
}

static void test_tokens_are_taken_in_the_order_of_the_index(void **state) {
    (void)state;
    static const uint32_t index[9] = {4, 0, 4, 2, 1, 3, 3, 0, 2};
    for (uint32_t i = 0; i < N_ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        for (uint32_t d = 0; k != NULL && d < N_DTYPES; d++) {
            struct problem p;
            random_state = i * 100 + d;
            problem_init(&p, dtypes[d], 40, 256, 5);
            uint64_t act_bytes;
            uint8_t *acts = prepare(k, &p, &act_bytes);
            float *y = run_all(k, &p), indexed[9 * 50];
            memset(indexed, 0, sizeof indexed);
            void *scratch = aligned_alloc(KERNEL_ALIGN, k->gemm_scratch_bytes(p.n_cols));
            assert_non_null(scratch);
            memset(scratch, 0, k->gemm_scratch_bytes(p.n_cols));
            k->type[p.dtype].gemm(p.w, p.row_bytes, p.n_rows, 0, p.n_cols, acts, act_bytes, index, 9,
                                  indexed, 50, scratch);
            for (uint32_t t = 0; t < 9; t++) {
                check_same_bits(k, p.dtype, indexed + t * 50, y + index[t] * 40, 40);
                for (uint32_t r = 40; r < 50; r++) /* nothing is written between rows of y */
                    assert_int_equal(half_to_bits(indexed[t * 50 + r]), 0);
            }
            free(scratch);
            free(acts);
            mem_free(y);
            problem_deinit(&p);
        }
    }
}

/* Finite where the scalar kernel is, NaN or infinite where it is. */
static void check_same_kind(const struct kernels *k, uint32_t dtype, const float *y,
                            const float *expected, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if ((isfinite(y[i]) != 0) != (isfinite(expected[i]) != 0))
            fail_msg("%s %s: value %u is %g, scalar %g", k->isa, ot_dtype_name(dtype), (uint32_t)i,
                     (double)y[i], (double)expected[i]);
}

static void test_scales_and_activations_that_are_not_finite_show(void **state) {
    (void)state;
    static const uint16_t scales[] = {0x7c00, 0x7e00, 0xfc00, 0x0001, 0x8000, 0x7bff};
    static const float values[] = {INFINITY, NAN, -INFINITY, 1e-42f, 0, 3e4f};
    for (uint32_t d = 0; d < N_DTYPES; d++)
        for (uint32_t e = 0; e < 6; e++) {
            struct problem p;
            random_state = d * 10 + e;
            problem_init(&p, dtypes[d], 35, 512, 4);
            const uint32_t block_bytes = dtype_get(p.dtype)->block_bytes;
            uint32_t offsets[2] = {0, 0};
            if (p.dtype != OT_F32 && half_offsets(p.dtype, offsets) > 0)
                memcpy(p.w + 5 * p.row_bytes + block_bytes + offsets[0], &scales[e], 2);
            else
                memset(p.w + 5 * p.row_bytes, 0xff, 2);
            p.x[2 * 512 + 70] = values[e];
            float *expected = run_all(kernels_find("scalar"), &p);
            for (uint32_t i = 1; i < N_ISAS; i++) {
                const struct kernels *k = kernels_find(isas[i]);
                if (k == NULL)
                    continue;
                float *y = run_all(k, &p);
                check_same_kind(k, p.dtype, y, expected, 4 * 35);
                mem_free(y);
            }
            mem_free(expected);
            problem_deinit(&p);
        }
}

/* Codes and activations all at an end of their range: no integer sum may saturate. */
static void test_the_largest_codes_do_not_overflow(void **state) {
    (void)state;
    for (uint32_t d = 3; d < N_DTYPES; d++)
        for (uint32_t e = 0; e < 4; e++) {
            struct problem p;
            random_state = d;
            problem_init(&p, dtypes[d], 33, 1024, 7);
            memset(p.w, (e & 1) != 0 ? 0xff : (dtypes[d] == OT_Q8_0 ? 0x80 : 0), p.row_bytes * 33);
            const uint32_t block_bytes = dtype_get(p.dtype)->block_bytes;
            const uint16_t h = half_from_f32(0.01f);
            uint32_t offsets[2];
            const uint32_t n = half_offsets(p.dtype, offsets);
            for (uint64_t b = 0; b < p.row_bytes * 33 / block_bytes; b++) {
                if (p.dtype == OT_MXFP4)
                    p.w[b * block_bytes] = 120;
                for (uint32_t i = 0; i < n; i++)
                    memcpy(p.w + b * block_bytes + offsets[i], &h, 2);
            }
            for (uint32_t i = 0; i < 7 * 1024; i++)
                p.x[i] = (e & 2) != 0 ? 3.0f : -3.0f;
            problem_sums(&p);
            float *expected = run_all(kernels_find("scalar"), &p);
            for (uint32_t i = 1; i < N_ISAS; i++) {
                const struct kernels *k = kernels_find(isas[i]);
                if (k == NULL)
                    continue;
                float *y = run_all(k, &p);
                check_close(k, &p, y, expected);
                mem_free(y);
            }
            mem_free(expected);
            problem_deinit(&p);
        }
}

/* The oracle itself: against the values that the type stands for, and rounded activations. */
static void test_scalar_is_the_product_of_values_and_activations(void **state) {
    (void)state;
    const struct kernels *k = kernels_find("scalar");
    for (uint32_t d = 0; d < N_DTYPES; d++) {
        struct problem p;
        random_state = d;
        problem_init(&p, dtypes[d], 5, 512, 3);
        problem_sums(&p);
        float *y = run_all(k, &p), row[512];
        for (uint32_t r = 0; r < 5; r++) {
            k->type[p.dtype].dequant(p.w + r * p.row_bytes, 512, row);
            for (uint32_t t = 0; t < 3; t++) {
                double sum = 0;
                for (uint32_t i = 0; i < 512; i++)
                    sum += (double)row[i] * (double)p.x[t * 512 + i];
                /* 8-bit activations: half a step of 1/127 of the largest of 16 each */
                const double bound = p.sum[t * 5 + r] * (d < 3 ? 1e-6 : 0.015);
                assert_true(fabs(sum - (double)y[t * 5 + r]) <= bound);
            }
        }
        mem_free(y);
        problem_deinit(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalar_is_the_product_of_values_and_activations),
        cmocka_unit_test(test_every_variant_agrees_with_scalar_for_odd_sizes),
        cmocka_unit_test(test_scratch_for_wide_matrices_is_enough_for_narrower_ones),
        cmocka_unit_test(test_every_number_of_tokens_is_served),
        cmocka_unit_test(test_rows_longer_than_a_scratchpad_are_right),
        cmocka_unit_test(test_float_rows_may_have_any_length),
        cmocka_unit_test(test_results_do_not_depend_on_how_work_is_divided),
        cmocka_unit_test(test_tokens_are_taken_in_the_order_of_the_index),
        cmocka_unit_test(test_scales_and_activations_that_are_not_finite_show),
        cmocka_unit_test(test_the_largest_codes_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
