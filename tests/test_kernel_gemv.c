/* Every variant's matrix times vector against the scalar one, for every type. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/layout.h"
#include "kernel_weights.h"

static const char *const isas[] = {"scalar", "avx2", "avx512", "neon", "i8mm"};
enum { N_ISAS = sizeof isas / sizeof isas[0], MAX_COLS = 14336, MAX_ROWS = 40 };

static float x[MAX_COLS];
static _Alignas(64) uint8_t act[MAX_COLS * 8], act_scalar[MAX_COLS * 8];
static float y[MAX_ROWS], expected[MAX_ROWS];

static void fill_x(uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        x[i] = random_float() * (random_next() % 50 == 0 ? 40.0f : 1.0f);
    }
}

static void prepare(const struct kernels *k, uint32_t dtype, uint32_t n_cols, uint8_t *out) {
    uint8_t layout = k->type[dtype].layout_gemv;
    assert_true(k->layout_bytes(layout, n_cols) <= sizeof act);
    assert_int_equal(k->layout_bytes(layout, n_cols) % KERNEL_ALIGN, 0);
    k->prepare(layout, x, n_cols, out);
}

/* Columns that a type can have: those of real models, one block, odd numbers of blocks, and more
 * than fit the L1 cache. */
static const uint32_t cols_of_32[] = {32,  64,  96,   128,  160,  192,  224,   480,  512,
                                      576, 640, 1536, 1632, 2048, 8224, 11456, 14336};
static const uint32_t cols_of_256[] = {256, 512, 768, 1024, 1280, 2048, 2304, 14336};
static const uint32_t cols_of_1[] = {1,   3,   15,  16,  17,   31,   33,   63,   65,
                                     127, 576, 577, 640, 2048, 4097, 9001, 14336};

static const uint32_t *cols_of(uint32_t dtype, uint32_t *n) {
    switch (dtype_get(dtype)->block_values) {
    case 32: *n = sizeof cols_of_32 / sizeof *cols_of_32; return cols_of_32;
    case 256: *n = sizeof cols_of_256 / sizeof *cols_of_256; return cols_of_256;
    default: *n = sizeof cols_of_1 / sizeof *cols_of_1; return cols_of_1;
    }
}

static void assert_close(float value, float reference, double magnitude, double relative) {
    double error = fabs((double)value - (double)reference);
    if (!(error <= relative * magnitude + 1e-37)) {
        fail_msg("%.9g, expected %.9g: off by %.3g of %.3g", (double)value, (double)reference,
                 error, magnitude);
    }
}

/* Weights that end 64 bytes before memory that may not be read. */
static uint8_t *weights_open(struct guarded *g, uint64_t bytes) {
    assert_true(guarded_open(g, bytes + KERNEL_OVERREAD));
    return g->data;
}

static void compare(const struct kernels *k, uint32_t dtype, uint32_t n_rows, uint32_t n_cols,
                    uint64_t gap) {
    const struct kernels *scalar = kernels_find("scalar");
    uint64_t row_bytes = dtype_bytes(dtype, n_cols) + gap;
    struct guarded g;
    uint8_t *w = weights_open(&g, row_bytes * n_rows - gap);
    for (uint32_t r = 0; r < n_rows; r++) {
        weights_fill(dtype, w + r * row_bytes, n_cols, -1);
    }
    fill_x(n_cols);
    prepare(scalar, dtype, n_cols, act_scalar);
    prepare(k, dtype, n_cols, act);
    scalar->type[dtype].gemv(w, row_bytes, n_rows, n_cols, act_scalar, expected);
    k->type[dtype].gemv(w, row_bytes, n_rows, n_cols, act, y);
    for (uint32_t r = 0; r < n_rows; r++) {
        assert_close(y[r], expected[r], weights_magnitude(dtype, w + r * row_bytes, n_cols, x),
                     2e-6);
    }
    guarded_close(&g);
}

static void for_every_variant(void (*check)(const struct kernels *k, uint32_t dtype)) {
    for (uint32_t v = 0; v < N_ISAS; v++) {
        const struct kernels *k = kernels_find(isas[v]);
        for (uint32_t t = 0; k != NULL && t < N_WEIGHT_TYPES; t++) {
            check(k, weight_types[t]);
        }
    }
}

static void check_sizes(const struct kernels *k, uint32_t dtype) {
    uint32_t n;
    const uint32_t *cols = cols_of(dtype, &n);
    for (uint32_t i = 0; i < n; i++) {
        compare(k, dtype, 1 + i % 7, cols[i], 0);
        compare(k, dtype, 3, cols[i], 26);
    }
    compare(k, dtype, MAX_ROWS, cols[n / 2], 0);
}

static void test_products_are_the_scalar_ones(void **state) {
    (void)state;
    for_every_variant(check_sizes);
}

/* The scalar oracle itself: against dequantised weights and the activations before rounding. */
static void check_truth(const struct kernels *k, uint32_t dtype) {
    enum { N_COLS = 2048 };
    static float values[N_COLS];
    uint64_t row_bytes = dtype_bytes(dtype, N_COLS);
    struct guarded g;
    uint8_t *w = weights_open(&g, row_bytes);
    weights_fill(dtype, w, N_COLS, -1);
    for (uint32_t i = 0; i < N_COLS; i++) { /* whole numbers up to 127: rounding loses nothing */
        x[i] = i % 16 == 0 ? 127.0f : (float)((int32_t)(random_next() >> 56) - 128) / 2 * 1.0f;
        x[i] = truncf(x[i]);
    }
    k->type[dtype].dequant(w, N_COLS, values);
    double sum = 0;
    for (uint32_t i = 0; i < N_COLS; i++) {
        sum += (double)values[i] * (double)x[i];
    }
    prepare(k, dtype, N_COLS, act);
    k->type[dtype].gemv(w, row_bytes, 1, N_COLS, act, y);
    assert_close(y[0], (float)sum, weights_magnitude(dtype, w, N_COLS, x), 2e-6);
    guarded_close(&g);
}

static void test_products_are_those_of_the_dequantised_weights(void **state) {
    (void)state;
    for_every_variant(check_truth);
}

static void check_partition(const struct kernels *k, uint32_t dtype) {
    enum { N_ROWS = 19 };
    uint32_t n;
    const uint32_t *cols = cols_of(dtype, &n);
    for (uint32_t i = 0; i < n; i += 3) {
        uint64_t row_bytes = dtype_bytes(dtype, cols[i]);
        struct guarded g;
        uint8_t *w = weights_open(&g, row_bytes * N_ROWS);
        weights_fill(dtype, w, (uint64_t)cols[i] * N_ROWS, -1);
        fill_x(cols[i]);
        prepare(k, dtype, cols[i], act);
        k->type[dtype].gemv(w, row_bytes, N_ROWS, cols[i], act, expected);
        for (uint32_t r = 0; r < N_ROWS; r++) {
            k->type[dtype].gemv(w + r * row_bytes, row_bytes, 1, cols[i], act, y);
            assert_memory_equal(&y[0], &expected[r], sizeof y[0]);
        }
        k->type[dtype].gemv(w + 2 * row_bytes, row_bytes, 17, cols[i], act, y);
        assert_memory_equal(y, expected + 2, 17 * sizeof y[0]);
        guarded_close(&g);
    }
}

static void test_a_row_does_not_depend_on_the_rows_computed_with_it(void **state) {
    (void)state;
    for_every_variant(check_partition);
}

/* Several tokens at once are each what they are alone, in any number of rows. */
static void check_few(const struct kernels *k, uint32_t dtype) {
    enum { N_ROWS = 35, STRIDE = N_ROWS + 3 };
    static _Alignas(64) uint8_t acts[KERNEL_FEW][MAX_COLS * 8];
    static float got[KERNEL_FEW * STRIDE], alone[KERNEL_FEW][N_ROWS];
    uint32_t n;
    const uint32_t *cols = cols_of(dtype, &n);
    for (uint32_t i = 0; i < n && k->type[dtype].few != NULL; i++) {
        uint64_t row_bytes = dtype_bytes(dtype, cols[i]);
        struct guarded g;
        uint8_t *w = weights_open(&g, row_bytes * N_ROWS);
        const void *x_of[KERNEL_FEW];
        weights_fill(dtype, w, (uint64_t)cols[i] * N_ROWS, -1);
        for (uint32_t t = 0; t < KERNEL_FEW; t++) {
            fill_x(cols[i]);
            prepare(k, dtype, cols[i], acts[t]);
            k->type[dtype].gemv(w, row_bytes, N_ROWS, cols[i], acts[t], alone[t]);
            x_of[t] = acts[t];
        }
        for (uint32_t n_tokens = 2; n_tokens <= KERNEL_FEW; n_tokens++) {
            for (uint32_t r = 0; r < STRIDE * KERNEL_FEW; r++) {
                got[r] = 7.0f;
            }
            uint32_t first = i % 3, n_rows = i % 2 == 0 ? N_ROWS - first : 5;
            k->type[dtype].few(w + first * row_bytes, row_bytes, n_rows, cols[i], x_of, n_tokens,
                               got, STRIDE);
            for (uint32_t t = 0; t < n_tokens; t++) {
                assert_memory_equal(got + t * STRIDE, alone[t] + first, n_rows * sizeof *got);
                assert_true(got[t * STRIDE + n_rows] == 7.0f);
            }
        }
        guarded_close(&g);
    }
}

static void test_tokens_computed_together_are_what_each_is_alone(void **state) {
    (void)state;
    for_every_variant(check_few);
}

/* Ways differ in where they prefetch, in how much of a row is computed in step, and from which
 * length on rows go block by block. */
static void check_ways(const struct kernels *k, uint32_t dtype) {
    enum { N_ROWS = 5 };
    const uint32_t before = kernels_prefetch_way();
    uint32_t n;
    const uint32_t *cols = cols_of(dtype, &n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t row_bytes = dtype_bytes(dtype, cols[i]);
        struct guarded g;
        uint8_t *w = weights_open(&g, row_bytes * N_ROWS);
        weights_fill(dtype, w, (uint64_t)cols[i] * N_ROWS, -1);
        fill_x(cols[i]);
        prepare(k, dtype, cols[i], act);
        for (uint32_t way = 0; way < KERNEL_PREFETCH_WAYS; way++) {
            kernels_use_prefetch_way(way);
            k->type[dtype].gemv(w, row_bytes, N_ROWS, cols[i], act, way == 0 ? expected : y);
            assert_memory_equal(way == 0 ? expected : y, expected, N_ROWS * sizeof y[0]);
        }
        guarded_close(&g);
    }
    kernels_use_prefetch_way(before);
}

static void test_no_way_to_prefetch_changes_a_product(void **state) {
    (void)state;
    for_every_variant(check_ways);
}

/* x of zeros, huge and denormal numbers; scales zero, denormal, the largest. */
static void check_extremes(const struct kernels *k, uint32_t dtype) {
    const struct kernels *scalar = kernels_find("scalar");
    static const int32_t scales[] = {0x0000, 0x8000, 0x0001, 0x7bff, 0xfbff};
    static const float sizes[] = {0.0f, 1e-45f, 1e-38f, 1e20f};
    const uint32_t n_cols = 768;
    uint64_t row_bytes = dtype_bytes(dtype, n_cols);
    struct guarded g;
    uint8_t *w = weights_open(&g, row_bytes);
    for (uint32_t i = 0; i < 5 * 4; i++) {
        weights_fill(dtype, w, n_cols, scales[i / 4]);
        fill_x(n_cols);
        for (uint32_t c = 0; c < n_cols; c++) {
            x[c] *= sizes[i % 4];
        }
        prepare(scalar, dtype, n_cols, act_scalar);
        prepare(k, dtype, n_cols, act);
        scalar->type[dtype].gemv(w, row_bytes, 1, n_cols, act_scalar, expected);
        k->type[dtype].gemv(w, row_bytes, 1, n_cols, act, y);
        double magnitude = weights_magnitude(dtype, w, n_cols, x);
        if (magnitude < 1e38) { /* denormal scales of activations may lose bits in a layout */
            assert_close(y[0], expected[0], magnitude, sizes[i % 4] > 1e-37f ? 2e-6 : 1e-3);
        }
    }
    guarded_close(&g);
}

static void test_extreme_scales_and_activations(void **state) {
    (void)state;
    for_every_variant(check_extremes);
}

/* Damage shows: no number is made up from what is none. */
static void check_not_finite(const struct kernels *k, uint32_t dtype) {
    const uint32_t n_cols = 512;
    uint64_t row_bytes = dtype_bytes(dtype, n_cols);
    struct guarded g;
    uint8_t *w = weights_open(&g, row_bytes);
    for (uint32_t i = 0; i < 3; i++) {
        weights_fill(dtype, w, n_cols, -1);
        fill_x(n_cols);
        x[100 + 137 * i] = i == 0 ? NAN : i == 1 ? INFINITY : -INFINITY;
        prepare(k, dtype, n_cols, act);
        k->type[dtype].gemv(w, row_bytes, 1, n_cols, act, y);
        assert_true(isfinite(y[0]) == 0);
    }
    fill_x(n_cols);
    prepare(k, dtype, n_cols, act);
    for (uint32_t i = 0; i < 2 && dtype != OT_MXFP4; i++) {
        weights_fill(dtype, w, n_cols,
                     dtype == OT_F32 || dtype == OT_BF16 ? 0x7fc0
                     : i == 0                            ? 0x7e01
                                                         : 0x7c00);
        k->type[dtype].gemv(w, row_bytes, 1, n_cols, act, y);
        assert_true(isfinite(y[0]) == 0);
    }
    guarded_close(&g);
}

static void test_nan_and_infinity_reach_the_result(void **state) {
    (void)state;
    for_every_variant(check_not_finite);
}

static void compare_q8(const struct kernels *k, uint32_t n_cols) {
    const struct kernels *scalar = kernels_find("scalar");
    uint64_t bytes = scalar->layout_bytes(LAYOUT_Q8, n_cols);
    assert_int_equal(k->layout_bytes(LAYOUT_Q8, n_cols), bytes);
    memset(act, 0xaa, bytes);
    memset(act_scalar, 0x55, bytes);
    scalar->prepare(LAYOUT_Q8, x, n_cols, act_scalar);
    k->prepare(LAYOUT_Q8, x, n_cols, act);
    assert_memory_equal(layout_q8_q(act), layout_q8_q(act_scalar), layout_pad(n_cols));
    const float *d[] = {layout_q8_d(act, n_cols), layout_q8_d(act_scalar, n_cols)};
    const float *s[] = {layout_q8_s(act, n_cols), layout_q8_s(act_scalar, n_cols)};
    for (uint32_t i = 0; i < layout_pad(n_cols) / 16; i++) {
        assert_true(d[0][i] == d[1][i] || (isnan(d[0][i]) && isnan(d[1][i])));
        assert_true(s[0][i] == s[1][i] || (isnan(s[0][i]) && isnan(s[1][i])));
    }
}

static void test_every_variant_quantises_activations_alike(void **state) {
    (void)state;
    static const uint32_t cols[] = {32, 96, 256, 576, 2048};
    static const float sizes[] = {1.0f, 0.0f, 1e-44f, 1e-42f, 3e-39f, 1e38f, 5.0f};
    for (uint32_t v = 0; v < N_ISAS; v++) {
        const struct kernels *k = kernels_find(isas[v]);
        for (uint32_t i = 0; k != NULL && i < 5 * 7; i++) {
            uint32_t n_cols = cols[i % 5];
            fill_x(n_cols);
            for (uint32_t c = 0; c < n_cols; c++) {
                x[c] *= sizes[i / 5];
            }
            if (i / 5 == 6) { /* halves of a step, which round to even, and what is no number */
                x[0] = 127;
                x[1] = 0.5f;
                x[2] = -1.5f;
                x[17] = NAN;
                x[31] = -INFINITY;
            }
            compare_q8(k, n_cols);
        }
    }
}

static void test_rounding_of_activations_is_to_even(void **state) {
    (void)state;
    memset(x, 0, 32 * sizeof x[0]);
    x[0] = 127;
    x[1] = 0.5f;
    x[2] = 1.5f;
    x[3] = -2.5f;
    x[16] = NAN;
    kernels_find("scalar")->prepare(LAYOUT_Q8, x, 32, act);
    const int8_t *q = layout_q8_q(act);
    assert_int_equal(q[0], 127);
    assert_int_equal(q[1], 0);
    assert_int_equal(q[2], 2);
    assert_int_equal(q[3], -2);
    assert_true(layout_q8_d(act, 32)[0] == 1.0f);
    assert_true(layout_q8_s(act, 32)[0] == 127.0f);
    assert_true(isnan(layout_q8_d(act, 32)[1]));
}

/* Every lowered choice is a table of its own, complete. */
static void test_every_table_is_complete(void **state) {
    (void)state;
    for (uint32_t v = 0; v < N_ISAS; v++) {
        const struct kernels *k = kernels_find(isas[v]);
        if (k == NULL) {
            continue;
        }
        assert_non_null(k->isa);
        for (uint32_t t = 0; t < N_WEIGHT_TYPES; t++) {
            const struct kernel_type *type = &k->type[weight_types[t]];
            assert_true(type->dequant != NULL && type->gemv != NULL && type->gemm != NULL);
            assert_true(type->layout_gemv < KERNEL_MAX_LAYOUTS);
            assert_true(type->layout_gemm < KERNEL_MAX_LAYOUTS);
        }
    }
    assert_null(kernels_find("sse9"));
    assert_non_null(kernels_get());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_table_is_complete),
        cmocka_unit_test(test_rounding_of_activations_is_to_even),
        cmocka_unit_test(test_every_variant_quantises_activations_alike),
        cmocka_unit_test(test_products_are_the_scalar_ones),
        cmocka_unit_test(test_products_are_those_of_the_dequantised_weights),
        cmocka_unit_test(test_a_row_does_not_depend_on_the_rows_computed_with_it),
        cmocka_unit_test(test_tokens_computed_together_are_what_each_is_alone),
        cmocka_unit_test(test_no_way_to_prefetch_changes_a_product),
        cmocka_unit_test(test_extreme_scales_and_activations),
        cmocka_unit_test(test_nan_and_infinity_reach_the_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
