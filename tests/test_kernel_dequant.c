/* Rows of weights as f32 are the gguf Python package's, bit for bit (tools/make_dequant_vectors.py
 * made the files), and 16-bit floats convert exactly. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "kernel/half.h"
#include "kernel/kernel.h"

static uint8_t file[32 * 1024];

static uint64_t read_file(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/dequant/%s", TEST_DATA, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint64_t bytes = fread(file, 1, sizeof file, f);
    fclose(f);
    return bytes;
}

static void check_type(const struct kernels *k, uint32_t dtype, const char *name) {
    uint64_t bytes = read_file(name);
    uint32_t n_values;
    memcpy(&n_values, file, 4);
    uint64_t block_bytes = dtype_bytes(dtype, n_values);
    assert_int_equal(bytes, 4 + block_bytes + 4 * (uint64_t)n_values);

    float *y = mem_calloc(n_values, sizeof *y);
    assert_non_null(y);
    k->type[dtype].dequant(file + 4, n_values, y);
    for (uint32_t i = 0; i < n_values; i++) {
        float expected;
        memcpy(&expected, file + 4 + block_bytes + 4 * (uint64_t)i, 4);
        if (isnan(expected)) {
            assert_true(isnan(y[i]));
        } else {
            assert_int_equal(half_to_bits(y[i]), half_to_bits(expected));
        }
    }
    mem_free(y);
}

static void test_every_type_has_the_reference_values(void **state) {
    (void)state;
    static const struct {
        uint32_t dtype;
        const char *file;
    } types[] = {
        {OT_F32, "f32.bin"},     {OT_F16, "f16.bin"},       {OT_BF16, "bf16.bin"},
        {OT_Q4_0, "q4_0.bin"},   {OT_Q4_1, "q4_1.bin"},     {OT_Q5_0, "q5_0.bin"},
        {OT_Q5_1, "q5_1.bin"},   {OT_Q8_0, "q8_0.bin"},     {OT_Q2_K, "q2_k.bin"},
        {OT_Q3_K, "q3_k.bin"},   {OT_Q4_K, "q4_k.bin"},     {OT_Q5_K, "q5_k.bin"},
        {OT_Q6_K, "q6_k.bin"},   {OT_IQ4_NL, "iq4_nl.bin"}, {OT_IQ4_XS, "iq4_xs.bin"},
        {OT_MXFP4, "mxfp4.bin"},
    };
    static const char *const isas[] = {"scalar", "avx2", "avx512", "neon", "i8mm"};
    for (uint32_t v = 0; v < sizeof isas / sizeof isas[0]; v++) {
        const struct kernels *k = kernels_find(isas[v]);
        for (uint32_t t = 0; k != NULL && t < sizeof types / sizeof types[0]; t++) {
            check_type(k, types[t].dtype, types[t].file);
        }
    }
}

static void test_every_half_survives_the_way_there_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float value = half_to_f32((uint16_t)h);
        if (isnan(value)) {
            assert_true((half_from_f32(value) & 0x7fff) > 0x7c00);
        } else {
            assert_int_equal(half_from_f32(value), h);
        }
    }
}

/* Halfway between two halves the even one is taken; a little more or less decides. */
static void test_halves_round_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = half_to_f32((uint16_t)h), high = half_to_f32((uint16_t)(h + 1));
        float middle = low + (high - low) / 2;
        assert_int_equal(half_from_f32(middle), h % 2 == 0 ? h : h + 1);
        assert_int_equal(half_from_f32(nextafterf(middle, 0.0f)), h);
        assert_int_equal(half_from_f32(nextafterf(-middle, -1e30f)), 0x8000 | (h + 1));
    }
    assert_int_equal(half_from_f32(65519.0f), 0x7bff);
    assert_int_equal(half_from_f32(65520.0f), 0x7c00);
    assert_int_equal(half_from_f32(-3e38f), 0xfc00);
    assert_int_equal(half_from_f32(1e-45f), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_has_the_reference_values),
        cmocka_unit_test(test_every_half_survives_the_way_there_and_back),
        cmocka_unit_test(test_halves_round_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
