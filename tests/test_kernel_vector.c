/* Operations on rows: the scalar ones against their definitions, the others against the scalar. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/half.h"
#include "kernel_weights.h"

static const char *const isas[] = {"scalar", "avx2", "avx512", "neon", "i8mm"};
enum { N_ISAS = sizeof isas / sizeof isas[0], MAX_N = 4099 };

static float x[MAX_N], y[MAX_N], z[MAX_N], expected[MAX_N];
static const uint32_t sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 576, 4099};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

static void for_every_variant(void (*check)(const struct kernels *k, uint32_t n)) {
    for (uint32_t v = 0; v < N_ISAS; v++) {
        const struct kernels *k = kernels_find(isas[v]);
        for (uint32_t i = 0; k != NULL && i < N_SIZES; i++) {
            check(k, sizes[i]);
        }
    }
}

static void fill(float *to, uint32_t n, float size) {
    for (uint32_t i = 0; i < n; i++) {
        to[i] = random_float() * size;
    }
}

/* A relative error, or an absolute one near the smallest normal number. */
static void assert_near(float value, double reference, double relative) {
    if (isinf(reference) || fabs(reference) > 3.4e38) {
        assert_true(isinf(value) && (value > 0) == (reference > 0));
        return;
    }
    double error = fabs((double)value - reference);
    if (!(error <= relative * fabs(reference) + 1e-36)) {
        fail_msg("%.9g, expected %.9g", (double)value, reference);
    }
}

/* Values that y[n..] must still hold after an operation on n. */
static void mark_end(uint32_t n) {
    if (n < MAX_N) {
        y[n] = 12345.0f;
    }
}
static void assert_end_untouched(uint32_t n) {
    if (n < MAX_N) {
        assert_true(y[n] == 12345.0f);
    }
}

static void check_rms_norm(const struct kernels *k, uint32_t n) {
    fill(x, n, n % 2 == 0 ? 100.0f : 0.01f);
    fill(z, n, 2.0f);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    double factor = 1 / sqrt(sum / n + 1e-5);
    mark_end(n);
    k->rms_norm(x, z, n, 1e-5f, y);
    for (uint32_t i = 0; i < n; i++) {
        assert_near(y[i], (double)x[i] * factor * (double)z[i], 3e-7);
    }
    k->rms_norm(x, NULL, n, 1e-5f, y);
    for (uint32_t i = 0; i < n; i++) {
        assert_near(y[i], (double)x[i] * factor, 3e-7);
    }
    assert_end_untouched(n);
    memcpy(expected, y, n * sizeof *y);
    k->rms_norm(x, NULL, n, 1e-5f, x);
    assert_memory_equal(x, expected, n * sizeof *x);
}

static void test_a_normalised_row_has_the_mean_square_of_its_gain(void **state) {
    (void)state;
    for_every_variant(check_rms_norm);
}

static double silu(double v) {
    return v / (1 + exp(-v));
}
static double gelu(double v) {
    return 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
}

static void check_gates(const struct kernels *k, uint32_t n) {
    static const float edges[] = {0.0f,    -0.0f, 1e-30f, -87.0f, -88.8f,
                                  -103.0f, 60.0f, 89.0f,  300.0f, -300.0f};
    fill(x, n, n % 3 == 0 ? 30.0f : 4.0f);
    for (uint32_t i = 0; i < n && i < 10; i++) {
        x[n - 1 - i] = edges[i];
    }
    fill(z, n, 3.0f);
    mark_end(n);
    memcpy(y, x, n * sizeof *x);
    k->silu_mul(y, z, n);
    for (uint32_t i = 0; i < n; i++) {
        assert_near(y[i], silu((double)x[i]) * (double)z[i], 6e-7);
    }
    assert_end_untouched(n);
    memcpy(y, x, n * sizeof *x);
    k->gelu_mul(y, z, n);
    for (uint32_t i = 0; i < n; i++) {
        /* Far down, the exponent's own rounding (of numbers up to 2^7) is what counts. */
        double reference = gelu((double)x[i]) * (double)z[i];
        double error = fabs((double)y[i] - reference);
        assert_true(error <= 2e-6 * fabs(reference) + 1e-6 * fmin(1, exp((double)x[i])));
    }
    assert_end_untouched(n);
}

static void test_gates_follow_their_formulas(void **state) {
    (void)state;
    for_every_variant(check_gates);
}

static void check_softcap(const struct kernels *k, uint32_t n) {
    fill(x, n, n % 2 == 0 ? 100.0f : 20.0f);
    x[0] = 1e-20f;
    x[n / 2] = -1e30f;
    x[n - 1] = 0.001f;
    mark_end(n);
    memcpy(y, x, n * sizeof *x);
    k->softcap(y, n, 30.0f);
    for (uint32_t i = 0; i < n; i++) {
        assert_near(y[i], 30 * tanh((double)x[i] / 30), 4e-7);
    }
    assert_end_untouched(n);
}

static void test_softcap_is_a_scaled_tangent(void **state) {
    (void)state;
    for_every_variant(check_softcap);
}

static void check_add_scaled(const struct kernels *k, uint32_t n) {
    fill(x, n, 1.0f);
    fill(z, n, 1.0f);
    mark_end(n);
    memcpy(y, z, n * sizeof *z);
    k->add_scaled(y, x, 0.75f, n);
    for (uint32_t i = 0; i < n; i++) {
        double terms = fabs((double)z[i]) + fabs((double)x[i]);
        assert_true(fabs((double)y[i] - ((double)z[i] + (double)x[i] * 0.75)) <= 2e-7 * terms);
    }
    assert_end_untouched(n);
}

static void test_scaled_rows_are_added(void **state) {
    (void)state;
    for_every_variant(check_add_scaled);
}

/* Rotation of two heads, of which the last dimensions may stay. */
static void check_rope_of(const struct kernels *k, uint32_t head_dim, uint32_t n_rot, bool neox) {
    static float cosines[256], sines[256];
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        cosines[i] = cosf((float)i * 0.3f + 1.0f);
        sines[i] = sinf((float)i * 0.3f + 1.0f);
    }
    fill(x, 2 * head_dim, 1.0f);
    memcpy(y, x, 2 * head_dim * sizeof *x);
    mark_end(2 * head_dim);
    k->rope(y, 2, head_dim, n_rot, neox, cosines, sines);
    for (uint32_t h = 0; h < 2; h++) {
        const float *from = x + h * head_dim, *to = y + h * head_dim;
        for (uint32_t i = 0; i < n_rot / 2; i++) {
            uint32_t a = neox ? i : 2 * i, b = neox ? i + n_rot / 2 : 2 * i + 1;
            double c = (double)cosines[i], s = (double)sines[i];
            assert_true(fabs((double)to[a] - ((double)from[a] * c - (double)from[b] * s)) < 3e-7);
            assert_true(fabs((double)to[b] - ((double)from[a] * s + (double)from[b] * c)) < 3e-7);
        }
        assert_memory_equal(to + n_rot, from + n_rot, (head_dim - n_rot) * sizeof *to);
    }
    assert_end_untouched(2 * head_dim);
}

static void test_pairs_are_rotated_and_the_rest_stays(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{64, 64},   {128, 128}, {128, 64}, {96, 32}, {80, 20},
                                         {256, 256}, {6, 6},     {2, 2},    {12, 10}, {66, 66}};
    for (uint32_t v = 0; v < N_ISAS; v++) {
        const struct kernels *k = kernels_find(isas[v]);
        for (uint32_t i = 0; k != NULL && i < 2 * sizeof shapes / sizeof shapes[0]; i++) {
            check_rope_of(k, shapes[i / 2][0], shapes[i / 2][1], i % 2 == 0);
        }
    }
}

static void test_halves_convert_as_in_plain_c(void **state) {
    (void)state;
    static uint16_t halves[65536 + 64], back[65536 + 64];
    static float floats[65536 + 64];
    for (uint32_t v = 0; v < N_ISAS; v++) {
        const struct kernels *k = kernels_find(isas[v]);
        if (k == NULL) {
            continue;
        }
        for (uint32_t i = 0; i < 65536; i++) {
            halves[i] = (uint16_t)i;
            floats[i] = half_to_f32(halves[i]);
        }
        back[65529] = 77;
        k->f32_to_f16(floats, 65529, back); /* an odd number: the last are done apart */
        assert_int_equal(back[65529], 77);
        for (uint32_t i = 0; i < 65529; i++) {
            assert_true(isnan(floats[i]) ? isnan(half_to_f32(back[i])) : back[i] == halves[i]);
        }
        for (uint32_t i = 0; i < 65529; i++) { /* any f32: rounding, overflow, denormals */
            floats[i] = half_from_bits((uint32_t)(random_next() >> 32));
        }
        k->f32_to_f16(floats, 65529, back);
        for (uint32_t i = 0; i < 65529; i++) {
            assert_true(isnan(floats[i]) ? isnan(half_to_f32(back[i]))
                                         : back[i] == half_from_f32(floats[i]));
        }
    }
}

static void check_all_finite(const struct kernels *k, uint32_t n) {
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    fill(x, n, 3e38f);
    x[n / 3] = -0.0f;
    assert_true(k->all_finite(x, n));
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t at = i == 0 ? 0 : i == 1 ? n - 1 : (uint32_t)(random_next() % n);
        float was = x[at];
        x[at] = bad[i];
        assert_false(k->all_finite(x, n));
        x[at] = was;
    }
    if (n < MAX_N) {
        x[n] = NAN; /* behind the row */
        assert_true(k->all_finite(x, n));
    }
}

static void test_one_number_that_is_not_finite_is_found(void **state) {
    (void)state;
    for_every_variant(check_all_finite);
    assert_true(kernels_get()->all_finite(x, 0));
}

/* The sum is of no use, but it has to depend on every byte read; and no byte beyond is read. */
static void test_the_stream_read_reads_every_byte_and_no_other(void **state) {
    (void)state;
    static const uint32_t lengths[] = {0, 1, 63, 64, 511, 512, 4096, 5000};
    for (uint32_t v = 0; v < N_ISAS; v++) {
        const struct kernels *k = kernels_find(isas[v]);
        for (uint32_t i = 0; k != NULL && i < 8; i++) {
            struct guarded g;
            uint64_t ahead = kernel_stream_ahead[i % KERNEL_STREAM_WAYS];
            assert_true(guarded_open(&g, lengths[i]));
            uint64_t before = k->stream_read(g.data, lengths[i], ahead);
            assert_int_equal(before, 0);
            for (uint32_t at = 0; at < lengths[i]; at += 61) {
                g.data[at] = 1;
                assert_true(k->stream_read(g.data, lengths[i], ahead) != before);
                g.data[at] = 0;
            }
            guarded_close(&g);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_normalised_row_has_the_mean_square_of_its_gain),
        cmocka_unit_test(test_gates_follow_their_formulas),
        cmocka_unit_test(test_softcap_is_a_scaled_tangent),
        cmocka_unit_test(test_scaled_rows_are_added),
        cmocka_unit_test(test_pairs_are_rotated_and_the_rest_stays),
        cmocka_unit_test(test_halves_convert_as_in_plain_c),
        cmocka_unit_test(test_one_number_that_is_not_finite_is_found),
        cmocka_unit_test(test_the_stream_read_reads_every_byte_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
