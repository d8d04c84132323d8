/* test_gguf_damage.c - the GGUF reader: what it says of files that are cut, changed or claim too
 * much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "format/gguf.h"
#include "support/gguf_small.h"
#include "support/tiny_model.h"

static const char *const path = parsed_path;

/* ---- helpers ------------------------------------------------------------------------------ */

/* Parses a copy that ends where the bytes end, so that a sanitizer sees every step beyond. */
static int parse_exact(struct gguf *g, const uint8_t *data, size_t bytes, uint8_t **copy,
                       struct ot_error *err) {
    *copy = malloc(bytes != 0 ? bytes : 1);
    assert_non_null(*copy);
    if (bytes != 0) {
        memcpy(*copy, data, bytes);
    }
    return gguf_parse(g, *copy, bytes, bytes, path, err);
}

/* The parse fails with code, names the file, says all of the texts (NULL ends them), keeps nothing.
 */
static void expect_bytes_refused(const struct image_bytes *file, int code, ...) {
    uint64_t before = mem_live_bytes();
    struct gguf g;
    struct ot_error err = {0};
    uint8_t *copy;
    int rc = parse_exact(&g, file->data, file->bytes, &copy, &err);
    free(copy);
    assert_int_equal(rc, code);
    assert_int_equal(err.code, code);
    assert_string_equal(err.at, path);
    va_list texts;
    va_start(texts, code);
    for (const char *text; (text = va_arg(texts, const char *)) != NULL;) {
        if (strstr(err.message, text) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", err.message, text);
        }
    }
    va_end(texts);
    assert_int_equal(mem_live_bytes(), before);
}

#define expect_refused(image, code, ...)                                                           \
    do {                                                                                           \
        struct image_bytes refused_ = image_serialise(image, NULL);                                \
        expect_bytes_refused(&refused_, code, __VA_ARGS__, (const char *)NULL);                    \
        image_bytes_free(&refused_);                                                               \
    } while (0)

/* Reads everything that can be read, as every user of the reader together would. */
static uint64_t walk(const struct gguf *g) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        struct gguf_strings it;
        struct gguf_string s;
        if (gguf_strings_init(&it, kv)) {
            while (gguf_strings_next(&it, &s)) {
                sum += s.bytes != 0 ? (uint8_t)s.data[s.bytes - 1] : 1;
            }
            continue;
        }
        for (uint64_t j = 0; j < kv->count; j++) {
            sum += gguf_item_u64(kv, j) + (gguf_item_f32(kv, j) > 0.0f);
        }
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        sum += g->tensors[i].bytes + g->tensors[i].offset;
    }
    return sum;
}

/* ---- damaged files ------------------------------------------------------------------------ */

static void test_a_file_cut_at_any_byte_is_refused(void **state) {
    (void)state;
    struct image image;
    gguf_small_image(&image);
    struct image_bytes file = image_serialise(&image, NULL);
    size_t whole = file.bytes;
    assert_true(whole < 2000);
    for (file.bytes = 0; file.bytes < whole; file.bytes++) {
        expect_bytes_refused(&file, OT_ERR_FORMAT, (const char *)NULL);
    }
    image_bytes_free(&file);
    image_deinit(&image);
}

static void test_a_file_with_any_byte_changed_is_read_safely(void **state) {
    (void)state;
    static const uint8_t masks[] = {0x01, 0x80, 0xff, 0x10};
    struct image image;
    size_t header_bytes, n_refused = 0;
    gguf_small_image(&image);
    struct image_bytes file = image_serialise(&image, &header_bytes);
    uint64_t before = mem_live_bytes();
    for (size_t at = 0; at < header_bytes; at++) {
        for (size_t i = 0; i < sizeof masks; i++) {
            struct gguf g;
            struct ot_error err = {0};
            uint8_t *copy;
            file.data[at] ^= masks[i];
            int rc = parse_exact(&g, file.data, file.bytes, &copy, &err);
            if (rc == 0) {
                walk(&g);
                gguf_deinit(&g);
            } else {
                assert_true(err.message[0] != '\0');
                n_refused++;
            }
            free(copy);
            file.data[at] ^= masks[i];
        }
    }
    assert_true(n_refused > 500);
    assert_int_equal(mem_live_bytes(), before);
    image_bytes_free(&file);
    image_deinit(&image);
}

static void test_the_preamble_is_checked(void **state) {
    (void)state;
    static const struct {
        const char *bytes; /* the first 8 */
        int code;
        const char *says;
    } cases[] = {
        {"GGML\x03\0\0", OT_ERR_FORMAT, "47 47 4d 4c, expected \"GGUF\""},
        {"FUGG\x03\0\0", OT_ERR_FORMAT, "expected \"GGUF\""},
        {"gguf\x03\0\0", OT_ERR_FORMAT, "expected \"GGUF\""},
        {"GGUF\x00\0\0", OT_ERR_UNSUPPORTED, "version 0, expected 2 or 3"},
        {"GGUF\x01\0\0", OT_ERR_UNSUPPORTED, "version 1, expected 2 or 3"},
        {"GGUF\x04\0\0", OT_ERR_UNSUPPORTED, "version 4, expected 2 or 3"},
        {"GGUF\0\0\0\x03", OT_ERR_UNSUPPORTED, "big-endian file, expected little-endian"},
        {"GGUF\0\0\0\x02", OT_ERR_UNSUPPORTED, "big-endian file, expected little-endian"},
    };
    struct image image;
    gguf_small_image(&image);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image_bytes file = image_serialise(&image, NULL);
        memcpy(file.data, cases[i].bytes, 8);
        expect_bytes_refused(&file, cases[i].code, cases[i].says, (const char *)NULL);
        image_bytes_free(&file);
    }
    image_deinit(&image);
}

static void put_u64_at(struct image_bytes *b, size_t at, uint64_t value) {
    for (size_t i = 0; i < 8; i++) {
        b->data[at + i] = (uint8_t)(value >> 8 * i);
    }
}

static void test_a_claim_of_endless_entries_costs_nothing(void **state) {
    (void)state;
    static const uint64_t claims[] = {
        100, 1 << 20, UINT64_C(1) << 32, UINT64_C(1) << 60, UINT64_MAX / 8, UINT64_MAX};
    struct image image;
    gguf_small_image(&image);
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        for (size_t field = 0; field < 2; field++) {
            struct image_bytes file = image_serialise(&image, NULL);
            char number[32];
            snprintf(number, sizeof number, "%llu", (unsigned long long)claims[i]);
            put_u64_at(&file, 8 + 8 * field, claims[i]);
            mem_fail_at(0);
            expect_bytes_refused(&file, OT_ERR_FORMAT, number, field == 0 ? "tensors" : "keys",
                                 "expected at most", (const char *)NULL);
            assert_int_equal(mem_fail_count(), 0);
            image_bytes_free(&file);
        }
    }
    image_deinit(&image);
}

/* Five million keys fit into this file by its size; what is taken follows what is there. */
static void test_memory_follows_the_entries_not_their_number(void **state) {
    (void)state;
    enum { ZEROS = 64 << 20 };
    struct image_bytes file = {0};
    image_put(&file, "GGUF\x03\0\0\0\0\0\0\0\0\0\0\0", 16);
    image_put_u64(&file, 1000000);
    file.data = realloc(file.data, 24 + ZEROS);
    assert_non_null(file.data);
    memset(file.data + 24, 0, ZEROS);
    uint64_t peak = mem_peak_bytes();
    struct gguf g;
    struct ot_error err;
    assert_int_equal(gguf_parse(&g, file.data, 24 + ZEROS, 24 + ZEROS, path, &err), OT_ERR_FORMAT);
    assert_true(mem_peak_bytes() < peak + 65536);
    image_bytes_free(&file);
}

static void test_names_must_be_short_printable_ascii(void **state) {
    (void)state;
    struct image image;
    gguf_small_image(&image);
    struct image_key *key = image_find_key(&image, "flag");
    free(key->name);
    key->name = calloc(1, 1100);
    assert_non_null(key->name);
    expect_refused(&image, OT_ERR_FORMAT, "key number 3", "0 bytes, expected 1 to 1024");
    memset(key->name, 'k', 1025);
    expect_refused(&image, OT_ERR_FORMAT, "key number 3", "1025 bytes, expected 1 to 1024");
    strcpy(key->name, "fl\x01g");
    expect_refused(&image, OT_ERR_FORMAT, "key \"fl\\x01g\"", "0x01");
    strcpy(key->name, "fl\xc3\xa4g");
    expect_refused(&image, OT_ERR_FORMAT, "0xc3", "printable ASCII");
    strcpy(key->name, "flag");
    image_rename_tensor(&image, "b.weight", "b\n");
    expect_refused(&image, OT_ERR_FORMAT, "tensor \"b\\x0a\"", "0x0a");
    image_deinit(&image);
}

static void test_value_types_must_be_known(void **state) {
    (void)state;
    struct image image;
    gguf_small_image(&image);
    image_find_key(&image, "flag")->type = 13;
    expect_refused(&image, OT_ERR_FORMAT, "key \"flag\"",
                   "unknown value type 13, expected 0 to 12");
    image_find_key(&image, "flag")->type = UINT32_MAX;
    expect_refused(&image, OT_ERR_FORMAT, "key \"flag\"", "4294967295");
    image_set_bool(&image, "flag", true);
    image_find_key(&image, "numbers")->item_type = 99;
    expect_refused(&image, OT_ERR_FORMAT, "key \"numbers\"", "unknown value type 99");
    image_find_key(&image, "numbers")->item_type = GGUF_ARRAY;
    expect_refused(&image, OT_ERR_FORMAT, "key \"numbers\"", "array of arrays");
    image_deinit(&image);
}

static void test_a_boolean_is_0_or_1(void **state) {
    (void)state;
    struct image image;
    gguf_small_image(&image);
    image_find_key(&image, "flag")->values.data[0] = 2;
    expect_refused(&image, OT_ERR_FORMAT, "key \"flag\"", "a boolean is 2, expected 0 or 1");
    image_set_bool(&image, "flag", true);
    struct image_key *list = image_set_array(&image, "flags", GGUF_BOOL);
    image_put_u8(&list->values, 1);
    image_put_u8(&list->values, 255);
    list->count = 2;
    expect_refused(&image, OT_ERR_FORMAT, "key \"flags\"", "a boolean is 255");
    image_deinit(&image);
}

static void test_array_lengths_are_held_against_the_file(void **state) {
    (void)state;
    static const uint64_t counts[] = {5000, UINT64_C(1) << 32, UINT64_C(1) << 61, UINT64_C(1) << 62,
                                      UINT64_MAX};
    static const char *const names[] = {"numbers", "words"};
    struct image image;
    gguf_small_image(&image);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        for (size_t j = 0; j < 2; j++) {
            struct image_key *key = image_find_key(&image, names[j]);
            uint64_t count = key->count;
            key->count = counts[i];
            expect_refused(&image, OT_ERR_FORMAT, names[j]);
            key->count = count;
        }
    }
    image_deinit(&image);
}

static void test_string_lengths_are_held_against_the_file(void **state) {
    (void)state;
    static const uint64_t lengths[] = {5000, UINT64_C(1) << 63, UINT64_MAX - 7, UINT64_MAX};
    static const char *const names[] = {"general.architecture", "words"};
    struct image image;
    gguf_small_image(&image);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t j = 0; j < 2; j++) {
            struct image_key *key = image_find_key(&image, names[j]);
            put_u64_at(&key->values, 0, lengths[i]);
            expect_refused(&image, OT_ERR_FORMAT, names[j], "string 0", "longer than the file");
            put_u64_at(&key->values, 0, j == 0 ? 5 : 3);
        }
    }
    image_deinit(&image);
}

static void test_keys_and_tensors_come_once(void **state) {
    (void)state;
    struct image image;
    gguf_small_image(&image);
    image_repeat_key(&image, "llama.block_count");
    expect_refused(&image, OT_ERR_FORMAT, "key \"llama.block_count\"", "found twice",
                   "number 1 and 6");
    image_deinit(&image);
    gguf_small_image(&image);
    image_repeat_tensor(&image, "b.weight");
    expect_refused(&image, OT_ERR_FORMAT, "tensor \"b.weight\"", "found twice", "number 1 and 3");
    image_deinit(&image);
}

static void test_dimensions_are_checked(void **state) {
    (void)state;
    static const struct {
        uint32_t n_dims;
        uint64_t dims[5];
        const char *says;
    } cases[] = {
        {0, {0}, "0 dimensions, expected 1 to 4"},
        {5, {32, 1, 1, 1, 1}, "5 dimensions, expected 1 to 4"},
        {2, {0, 3}, "dimension 0 is 0"},
        {2, {64, 0}, "dimension 1 is 0"},
        {2, {48, 4}, "rows of 48 values, expected a multiple of 32 for Q4_0"},
        {2, {33, 4}, "rows of 33 values"},
        {2, {UINT64_C(1) << 32, UINT64_C(1) << 32}, "overflow"},
        {4, {32, UINT64_C(1) << 20, UINT64_C(1) << 20, UINT64_C(1) << 20}, "overflow"},
        {2, {UINT64_C(1) << 63, 2}, "overflow"},
        {1, {UINT64_C(1) << 63}, "overflow"},
        {3, {32, UINT64_MAX, UINT64_MAX}, "overflow"},
        {2, {32, UINT64_C(1) << 57}, "inside the file"},
        {2, {64, 1000}, "inside the file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image;
        gguf_small_image(&image);
        struct image_tensor *t = image_find_tensor(&image, "a.weight");
        t->n_dims = cases[i].n_dims;
        memcpy(t->dims, cases[i].dims, sizeof cases[i].dims);
        expect_refused(&image, OT_ERR_FORMAT, "tensor \"a.weight\"", cases[i].says);
        image_deinit(&image);
    }
}

static void test_a_tensor_type_that_is_not_read_is_named(void **state) {
    (void)state;
    static const struct {
        uint32_t dtype;
        const char *says;
    } cases[] = {
        {4, "tensor type 4 (Q4_2)"},
        {16, "tensor type 16 (IQ2_XXS)"},
        {26, "type 26 (I32)"},
        {35, "tensor type 35 (TQ2_0)"},
        {36, "tensor type 36 (unknown)"},
        {40, "type 40 (unknown)"},
        {UINT32_MAX, "type 4294967295 (unknown)"},
    };
    struct image image;
    gguf_small_image(&image);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        image_find_tensor(&image, "b.weight")->dtype = cases[i].dtype;
        expect_refused(&image, OT_ERR_UNSUPPORTED, "tensor \"b.weight\"", cases[i].says, "MXFP4");
    }
    image_deinit(&image);
}

static void test_offsets_are_aligned_inside_the_file_and_apart(void **state) {
    (void)state;
    static const struct {
        uint64_t offset; /* of c.weight, 48 bytes; a: 0 to 108, b: 128 to 148, c: 160 */
        const char *says;
    } cases[] = {
        {1, "offset 1, expected a multiple of the alignment 32"},
        {168, "offset 168, expected a multiple"},
        {192, "inside the file"},
        {UINT64_C(1) << 40, "inside the file"},
        {UINT64_MAX - 31, "inside the file"},
        {UINT64_C(1) << 63, "inside the file"},
        {0, "inside tensor \"a.weight\""},
        {96, "inside tensor \"a.weight\""},
        {128, "inside tensor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image;
        gguf_small_image(&image);
        image_move_tensor(&image, "c.weight", cases[i].offset);
        expect_refused(&image, OT_ERR_FORMAT, "tensor \"", cases[i].says);
        image_deinit(&image);
    }
}

static void test_the_alignment_must_be_a_power_of_two(void **state) {
    (void)state;
    static const struct {
        uint32_t alignment;
        const char *says;
    } cases[] = {
        {0, "u32 0, expected"},
        {4, "u32 4, expected"},
        {24, "24, expected a power of two"},
        {33, "33, expected"},
        {UINT32_MAX, "u32 4294967295, expected"},
        {1u << 31, "2147483648"},
    };
    struct image image;
    gguf_small_image(&image);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        image_set_u32(&image, "general.alignment", cases[i].alignment);
        expect_refused(&image, OT_ERR_FORMAT, "key \"general.alignment\"", cases[i].says);
    }
    image_set_text(&image, "general.alignment", "32");
    expect_refused(&image, OT_ERR_FORMAT, "key \"general.alignment\"", "string \"32\"");
    image_deinit(&image);
}

static void test_an_alignment_beyond_the_file_is_refused_if_tensors_need_it(void **state) {
    (void)state;
    struct image image;
    gguf_small_image(&image);
    image_set_u32(&image, "general.alignment", 1 << 30);
    expect_refused(&image, OT_ERR_FORMAT, "tensor \"a.weight\"", "inside the file");
    image_deinit(&image);
}

static void test_every_failing_allocation_is_an_error_and_no_leak(void **state) {
    (void)state;
    struct image image;
    gguf_small_image(&image);
    struct image_bytes file = image_serialise(&image, NULL);
    uint64_t before = mem_live_bytes(), n = 0;
    int rc = OT_ERR_MEMORY;
    while (rc == OT_ERR_MEMORY) {
        struct gguf g;
        struct ot_error err;
        mem_fail_at(++n);
        rc = gguf_parse(&g, file.data, file.bytes, file.bytes, path, &err);
        if (rc == 0) {
            gguf_deinit(&g);
        }
        assert_int_equal(mem_live_bytes(), before);
    }
    mem_fail_at(0);
    assert_int_equal(rc, 0);
    assert_true(n > 4);
    image_bytes_free(&file);
    image_deinit(&image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(test_a_file_with_any_byte_changed_is_read_safely),
        cmocka_unit_test(test_the_preamble_is_checked),
        cmocka_unit_test(test_a_claim_of_endless_entries_costs_nothing),
        cmocka_unit_test(test_memory_follows_the_entries_not_their_number),
        cmocka_unit_test(test_names_must_be_short_printable_ascii),
        cmocka_unit_test(test_value_types_must_be_known),
        cmocka_unit_test(test_a_boolean_is_0_or_1),
        cmocka_unit_test(test_array_lengths_are_held_against_the_file),
        cmocka_unit_test(test_string_lengths_are_held_against_the_file),
        cmocka_unit_test(test_keys_and_tensors_come_once),
        cmocka_unit_test(test_dimensions_are_checked),
        cmocka_unit_test(test_a_tensor_type_that_is_not_read_is_named),
        cmocka_unit_test(test_offsets_are_aligned_inside_the_file_and_apart),
        cmocka_unit_test(test_the_alignment_must_be_a_power_of_two),
        cmocka_unit_test(test_an_alignment_beyond_the_file_is_refused_if_tensors_need_it),
        cmocka_unit_test(test_every_failing_allocation_is_an_error_and_no_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
