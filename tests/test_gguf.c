/* test_gguf.c - the GGUF reader: what it finds in good files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "format/gguf.h"
#include "support/gguf_small.h"
#include "support/tiny_model.h"

static const char *const path = parsed_path;

/* ---- good files --------------------------------------------------------------------------- */

static void test_keys_and_tensors_are_found_as_written(void **state) {
    (void)state;
    struct image image;
    struct parsed p;
    gguf_small_image(&image);
    parsed_open(&p, &image);
    assert_int_equal(p.g.version, 3);
    assert_int_equal(p.g.alignment, 32);
    assert_int_equal(p.g.n_kv, 6);
    assert_int_equal(p.g.n_tensors, 3);
    assert_int_equal(p.g.data_offset % 32, 0);
    assert_int_equal(p.g.kv[0].key.bytes, strlen("general.architecture"));
    assert_memory_equal(p.g.kv[0].key.data, "general.architecture", p.g.kv[0].key.bytes);
    assert_ptr_equal(gguf_find(&p.g, "flag"), &p.g.kv[3]);
    assert_null(gguf_find(&p.g, "fla"));
    assert_null(gguf_find(&p.g, "flags"));
    assert_null(gguf_find(&p.g, ""));

    const struct gguf_tensor *t = gguf_find_tensor(&p.g, "c.weight");
    assert_ptr_equal(t, &p.g.tensors[2]);
    assert_null(gguf_find_tensor(&p.g, "c.weigh"));
    assert_int_equal(t->dtype, OT_F16);
    assert_int_equal(t->n_dims, 3);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[2], 4);
    assert_int_equal(t->dims[3], 1);
    assert_int_equal(t->bytes, 48);
    for (size_t i = 0; i < image.n_tensors; i++) {
        assert_memory_equal(p.file.data + p.g.tensors[i].offset, image.tensors[i].data.data,
                            p.g.tensors[i].bytes);
    }
    parsed_close(&p);
    image_deinit(&image);
}

static void test_version_2_reads_like_version_3(void **state) {
    (void)state;
    struct image image;
    struct parsed p;
    gguf_small_image(&image);
    image.version = 2;
    parsed_open(&p, &image);
    assert_int_equal(p.g.version, 2);
    assert_int_equal(p.g.n_kv, 6);
    parsed_close(&p);
    image_deinit(&image);
}

static void test_a_vocabulary_without_tensors_is_a_file(void **state) {
    (void)state;
    struct image image;
    struct parsed p;
    image_init(&image);
    image_set_text(&image, "general.architecture", "llama");
    parsed_open(&p, &image);
    assert_int_equal(p.g.n_tensors, 0);
    assert_null(gguf_find_tensor(&p.g, "token_embd.weight"));
    parsed_close(&p);
    image_remove_key(&image, "general.architecture");
    parsed_open(&p, &image);
    assert_int_equal(p.g.n_kv, 0);
    assert_null(gguf_find(&p.g, "general.architecture"));
    parsed_close(&p);
    image_deinit(&image);
}

static void test_every_data_type_has_its_size(void **state) {
    (void)state;
    struct image image;
    struct parsed p;
    image_init(&image);
    for (int i = 0; i < TINY_DTYPE_COUNT; i++) {
        image_add_tensor(&image, ot_dtype_name(tiny_dtypes[i]), tiny_dtypes[i], 2,
                         (uint64_t[]){512, 3}, tiny_weights(tiny_dtypes[i], 1536, 1.0f, 1));
    }
    parsed_open(&p, &image);
    for (int i = 0; i < TINY_DTYPE_COUNT; i++) {
        assert_int_equal(p.g.tensors[i].dtype, tiny_dtypes[i]);
        assert_int_equal(p.g.tensors[i].bytes, dtype_bytes(tiny_dtypes[i], 1536));
    }
    parsed_close(&p);
    image_deinit(&image);
}

static void test_the_alignment_key_decides_where_data_begins(void **state) {
    (void)state;
    static const uint32_t alignments[] = {8, 64, 4096};
    for (size_t i = 0; i < 3; i++) {
        struct image image;
        struct parsed p;
        gguf_small_image(&image);
        image.alignment = alignments[i];
        image_set_u32(&image, "general.alignment", alignments[i]);
        parsed_open(&p, &image);
        assert_int_equal(p.g.alignment, alignments[i]);
        assert_int_equal(p.g.data_offset % alignments[i], 0);
        assert_memory_equal(p.file.data + p.g.tensors[2].offset, image.tensors[2].data.data, 48);
        parsed_close(&p);
        image_deinit(&image);
    }
}

static void test_gaps_and_any_order_of_tensor_data_are_valid(void **state) {
    (void)state;
    struct image image;
    struct parsed p;
    gguf_small_image(&image);
    image_add_tensor(&image, "last", OT_F32, 1, (uint64_t[]){256},
                     tiny_weights(OT_F32, 256, 1.0f, 4));
    image_move_tensor(&image, "a.weight", 512);
    image_move_tensor(&image, "b.weight", 32);
    image_move_tensor(&image, "c.weight", 256);
    image_move_tensor(&image, "last", 0);
    image_find_tensor(&image, "last")->dims[0] = 8; /* 32 bytes, up to where b begins */
    parsed_open(&p, &image);
    assert_int_equal(gguf_find_tensor(&p.g, "a.weight")->offset, p.g.data_offset + 512);
    assert_int_equal(gguf_find_tensor(&p.g, "last")->offset, p.g.data_offset);
    parsed_close(&p);
    image_deinit(&image);
}

static void test_the_header_alone_is_enough_to_parse(void **state) {
    (void)state;
    struct image image;
    struct gguf g;
    struct ot_error err;
    size_t header_bytes;
    gguf_small_image(&image);
    struct image_bytes file = image_serialise(&image, &header_bytes);
    assert_int_equal(gguf_parse(&g, file.data, header_bytes, file.bytes, path, &err), 0);
    assert_int_equal(g.data_offset, (header_bytes + 31) / 32 * 32);
    gguf_deinit(&g);
    assert_int_equal(gguf_parse(&g, file.data, header_bytes - 1, file.bytes, path, &err),
                     OT_ERR_FORMAT);
    image_bytes_free(&file);
    image_deinit(&image);
}

static void test_strings_of_any_bytes_and_size_are_kept(void **state) {
    (void)state;
    enum { BIG = 5 << 20 };
    struct image image;
    struct parsed p;
    struct ot_error err;
    struct gguf_string s;
    image_init(&image);
    char *big = malloc(BIG);
    assert_non_null(big);
    memset(big, 'x', BIG);
    big[7] = '\0';
    struct image_key *words = image_set_array(&image, "words", GGUF_STRING);
    image_add_bytes(words, big, BIG);
    image_add_bytes(words, "\xff\x00z", 3);
    image_set_text(&image, "empty", "");
    image_set_array(&image, "none", GGUF_STRING);
    parsed_open(&p, &image);
    struct gguf_strings it;
    assert_true(gguf_strings_init(&it, gguf_find(&p.g, "words")));
    assert_true(gguf_strings_next(&it, &s));
    assert_int_equal(s.bytes, BIG);
    assert_memory_equal(s.data, big, BIG);
    assert_true(gguf_strings_next(&it, &s));
    assert_int_equal(s.bytes, 3);
    assert_memory_equal(s.data, "\xff\x00z", 3);
    assert_false(gguf_strings_next(&it, &s));
    assert_true(gguf_strings_init(&it, gguf_find(&p.g, "none")));
    assert_false(gguf_strings_next(&it, &s));
    assert_int_equal(gguf_get_string(&p.g, path, "empty", "fallback", &s, &err), 0);
    assert_int_equal(s.bytes, 0);
    parsed_close(&p);
    image_deinit(&image);
    free(big);
}

static void test_strings_rewritten_after_parsing_stay_inside_their_array(void **state) {
    (void)state;
    static const uint64_t lengths[] = {4, 23, 24, 1000, UINT64_MAX - 3};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct image image;
        struct parsed p;
        struct gguf_strings it;
        struct gguf_string s;
        gguf_small_image(&image);
        parsed_open(&p, &image);
        const struct gguf_kv *kv = gguf_find(&p.g, "words");
        uint8_t *first = p.file.data + (kv->data - p.file.data);
        for (size_t j = 0; j < 8; j++) {
            first[j] = (uint8_t)(lengths[i] >> 8 * j);
        }
        assert_true(gguf_strings_init(&it, kv));
        while (gguf_strings_next(&it, &s)) {
            assert_true(s.bytes <= kv->data_bytes - 8);
            assert_true((const uint8_t *)s.data + s.bytes <= kv->data + kv->data_bytes);
        }
        parsed_close(&p);
        image_deinit(&image);
    }
}

static void test_many_keys_with_long_common_beginnings_are_all_found(void **state) {
    (void)state;
    enum { N = 3000 };
    struct image image;
    struct parsed p;
    char name[1024];
    image_init(&image);
    memset(name, 'k', sizeof name);
    for (int i = 0; i < N; i++) {
        snprintf(name + 900, sizeof name - 900, ".%d", (i * 7919) % N);
        image.keys = realloc(image.keys, (size_t)(i + 1) * sizeof *image.keys);
        assert_non_null(image.keys);
        image.keys[i] = (struct image_key){.name = strdup(name), .type = GGUF_U8, .count = 1};
        image.n_keys = (size_t)i + 1;
        image_put_u8(&image.keys[i].values, (uint8_t)i);
    }
    parsed_open(&p, &image);
    for (int i = 0; i < N; i++) {
        assert_ptr_equal(gguf_find(&p.g, image.keys[i].name), &p.g.kv[i]);
    }
    parsed_close(&p);
    image_deinit(&image);
}

/* ---- values ------------------------------------------------------------------------------- */

static void add_raw(struct image *image, const char *name, uint32_t type, uint64_t bits,
                    size_t bytes) {
    struct image_key *key = image_set_array(image, name, type);
    key->type = type;
    for (size_t i = 0; i < bytes; i++) {
        image_put_u8(&key->values, (uint8_t)(bits >> 8 * i));
    }
}

static void test_any_integer_type_is_an_integer(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        size_t bytes;
    } types[] = {{GGUF_U8, 1},  {GGUF_I8, 1},  {GGUF_U16, 2}, {GGUF_I16, 2},
                 {GGUF_U32, 4}, {GGUF_I32, 4}, {GGUF_U64, 8}, {GGUF_I64, 8}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct image image;
        struct parsed p;
        struct ot_error err;
        uint32_t value = 0;
        image_init(&image);
        add_raw(&image, "n", types[i].type, 77, types[i].bytes);
        parsed_open(&p, &image);
        assert_int_equal(gguf_get_u32(&p.g, path, "n", 5, 1, 100, &value, &err), 0);
        assert_int_equal(value, 77);
        assert_int_equal(gguf_get_u32(&p.g, path, "n", 5, 1, 76, &value, &err), OT_ERR_FORMAT);
        assert_non_null(strstr(err.message, "\"n\""));
        assert_non_null(strstr(err.message, "77"));
        assert_non_null(strstr(err.message, "from 1 to 76"));
        assert_int_equal(value, 77);
        parsed_close(&p);
        image_deinit(&image);
    }
}

static void test_integers_out_of_range_are_refused_with_their_value(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        uint64_t bits;
        size_t bytes;
        const char *found;
    } cases[] = {
        {GGUF_I8, 0xff, 1, "i8 -1"},
        {GGUF_I32, 0xfffffffe, 4, "i32 -2"},
        {GGUF_I64, UINT64_MAX, 8, "i64 -1"},
        {GGUF_U64, UINT64_C(1) << 32, 8, "u64 4294967296"},
        {GGUF_U64, UINT64_C(1) << 63, 8, "u64 9223372036854775808"},
        {GGUF_F32, 0x3f800000, 4, "f32 1"},
        {GGUF_BOOL, 1, 1, "bool 1"},
        {GGUF_STRING, 0, 8, "string \"\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image;
        struct parsed p;
        struct ot_error err;
        uint32_t value = 9;
        image_init(&image);
        add_raw(&image, "n", cases[i].type, cases[i].bits, cases[i].bytes);
        parsed_open(&p, &image);
        assert_int_equal(gguf_get_u32(&p.g, path, "n", 5, 0, UINT32_MAX, &value, &err),
                         OT_ERR_FORMAT);
        assert_string_equal(err.at, path);
        assert_non_null(strstr(err.message, cases[i].found));
        assert_int_equal(value, 9);
        parsed_close(&p);
        image_deinit(&image);
    }
}

static void test_an_absent_key_gives_the_fallback_or_is_missed(void **state) {
    (void)state;
    struct image image;
    struct parsed p;
    struct ot_error err;
    uint32_t n = 0;
    float x = 0.0f;
    bool flag = false;
    struct gguf_string s;
    image_init(&image);
    parsed_open(&p, &image);
    assert_int_equal(gguf_get_u32(&p.g, path, "n", 5, 10, 20, &n, &err), 0);
    assert_int_equal(n, 5);
    assert_int_equal(gguf_get_f32(&p.g, path, "x", 0.5f, 1.0f, 2.0f, &x, &err), 0);
    assert_true(x == 0.5f);
    assert_int_equal(gguf_get_bool(&p.g, path, "b", true, &flag, &err), 0);
    assert_true(flag);
    assert_int_equal(gguf_get_string(&p.g, path, "s", "word", &s, &err), 0);
    assert_int_equal(s.bytes, 4);
    assert_memory_equal(s.data, "word", 4);
    assert_int_equal(gguf_get_string(&p.g, path, "s", NULL, &s, &err), 0);
    assert_null(s.data);
    assert_int_equal(s.bytes, 0);
    parsed_close(&p);
    image_deinit(&image);
}

static void test_floats_are_finite_and_in_range(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        uint64_t bits;
        size_t bytes;
        bool good;
        const char *found;
    } cases[] = {
        {GGUF_F32, 0x3f000000, 4, true, ""},         /* 0.5 */
        {GGUF_F64, 0x3fe0000000000000, 8, true, ""}, /* 0.5 */
        {GGUF_U8, 1, 1, true, ""},                   /* 1 */
        {GGUF_F32, 0x7fc00000, 4, false, "f32 nan"},
        {GGUF_F32, 0x7f800000, 4, false, "f32 inf"},
        {GGUF_F32, 0xff800000, 4, false, "f32 -inf"},
        {GGUF_F64, 0x7fefffffffffffff, 8, false, "f64 1.797"},
        {GGUF_F32, 0x40000000, 4, false, "f32 2"},
        {GGUF_F32, 0xbf000000, 4, false, "f32 -0.5"},
        {GGUF_I8, 0xff, 1, false, "i8 -1"},
        {GGUF_BOOL, 1, 1, false, "bool 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image;
        struct parsed p;
        struct ot_error err = {0};
        float value = -9.0f;
        image_init(&image);
        add_raw(&image, "x", cases[i].type, cases[i].bits, cases[i].bytes);
        parsed_open(&p, &image);
        int rc = gguf_get_f32(&p.g, path, "x", 0.0f, 0.0f, 1.0f, &value, &err);
        assert_int_equal(rc, cases[i].good ? 0 : OT_ERR_FORMAT);
        assert_true(cases[i].good ? value >= 0.5f && value <= 1.0f : value == -9.0f);
        assert_non_null(strstr(err.message, cases[i].found));
        parsed_close(&p);
        image_deinit(&image);
    }
}

static void test_a_wrong_type_is_said_with_what_was_found(void **state) {
    (void)state;
    struct image image;
    struct parsed p;
    struct ot_error err;
    struct gguf_string s;
    bool flag;
    uint32_t n;
    image_init(&image);
    image_set_u32(&image, "two", 2);
    image_set_text(&image, "text",
                   "a\nb\xff and a very long text that goes on and on and on and on "
                   "until no message could hold it, and then a little longer");
    image_add_u32(image_set_array(&image, "list", GGUF_U32), 7);
    parsed_open(&p, &image);
    assert_int_equal(gguf_get_bool(&p.g, path, "two", false, &flag, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "u32 2, expected a boolean"));
    assert_int_equal(gguf_get_string(&p.g, path, "two", "", &s, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "u32 2, expected a string"));
    assert_int_equal(gguf_get_bool(&p.g, path, "text", false, &flag, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "string \"a\\x0ab\\xff and"));
    assert_non_null(strstr(err.message, "...\", expected a boolean"));
    assert_int_equal(gguf_get_u32(&p.g, path, "list", 1, 0, 9, &n, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "an array of 1 u32"));
    assert_int_equal(gguf_get_string(&p.g, path, "list", "", &s, &err), OT_ERR_FORMAT);
    parsed_close(&p);
    image_deinit(&image);
}

static void test_items_of_arrays_are_read_with_their_sign(void **state) {
    (void)state;
    struct image image;
    struct parsed p;
    image_init(&image);
    struct image_key *list = image_set_array(&image, "i32", GGUF_I32);
    image_add_u32(list, 3);
    image_add_u32(list, UINT32_MAX);
    list = image_set_array(&image, "f32", GGUF_F32);
    image_add_f32(list, 1.5f);
    image_add_f32(list, -2.5f);
    list = image_set_array(&image, "bool", GGUF_BOOL);
    image_put_u8(&list->values, 0);
    image_put_u8(&list->values, 1);
    list->count = 2;
    parsed_open(&p, &image);
    const struct gguf_kv *kv = gguf_find(&p.g, "i32");
    assert_int_equal(gguf_item_u64(kv, 0), 3);
    assert_int_equal((int64_t)gguf_item_u64(kv, 1), -1);
    assert_true(gguf_item_f32(kv, 1) == -1.0f);
    kv = gguf_find(&p.g, "f32");
    assert_true(gguf_item_f32(kv, 0) == 1.5f && gguf_item_f32(kv, 1) == -2.5f);
    assert_int_equal(gguf_item_u64(kv, 0), 0);
    kv = gguf_find(&p.g, "bool");
    assert_int_equal(gguf_item_u64(kv, 1), 1);
    struct gguf_strings it;
    assert_false(gguf_strings_init(&it, kv));
    parsed_close(&p);
    image_deinit(&image);
}

/* ---- split files -------------------------------------------------------------------------- */

static int split_of(struct image *image, uint32_t *no, uint32_t *count, struct ot_error *err) {
    struct parsed p;
    parsed_open(&p, image);
    int rc = gguf_split(&p.g, path, no, count, err);
    parsed_close(&p);
    return rc;
}

static void test_a_split_says_which_part_it_is(void **state) {
    (void)state;
    struct image image;
    struct ot_error err;
    uint32_t no = 9, count = 9;
    gguf_small_image(&image);
    assert_int_equal(split_of(&image, &no, &count, &err), 0);
    assert_int_equal(no, 0);
    assert_int_equal(count, 1);
    image_set_u32(&image, "split.no", 1);
    image_set_u32(&image, "split.count", 3);
    assert_int_equal(split_of(&image, &no, &count, &err), 0);
    assert_int_equal(no, 1);
    assert_int_equal(count, 3);
    image_set_u32(&image, "split.no", 3);
    assert_int_equal(split_of(&image, &no, &count, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "\"split.no\": u32 3, expected an integer from 0 to 2"));
    image_set_u32(&image, "split.count", 0);
    assert_int_equal(split_of(&image, &no, &count, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "\"split.count\": u32 0"));
    image_set_u32(&image, "split.count", 2);
    image_remove_key(&image, "split.no");
    assert_int_equal(split_of(&image, &no, &count, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "\"split.no\": not found"));
    image_deinit(&image);
}

static void test_paths_of_parts_follow_the_first(void **state) {
    (void)state;
    static const struct {
        const char *first;
        uint32_t no, count;
        const char *part; /* NULL: refused */
    } cases[] = {
        {"dir/m-00001-of-00003.gguf", 2, 3, "dir/m-00003-of-00003.gguf"},
        {"-00001-of-00001.gguf", 0, 1, "-00001-of-00001.gguf"},
        {"m-00001-of-12345.gguf", 12344, 12345, "m-12345-of-12345.gguf"},
        {"m-00002-of-00003.gguf", 1, 3, NULL},
        {"m-00001-of-00003.gguf", 1, 4, NULL},
        {"m-00001-of-00003.ggu", 1, 3, NULL},
        {"m.gguf", 0, 1, NULL},
        {"", 0, 1, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *part = NULL;
        struct ot_error err = {0};
        int rc = gguf_split_path(cases[i].first, cases[i].no, cases[i].count, &part, &err);
        if (cases[i].part != NULL) {
            assert_int_equal(rc, 0);
            assert_string_equal(part, cases[i].part);
            mem_free(part);
            continue;
        }
        assert_int_equal(rc, OT_ERR_FORMAT);
        assert_null(part);
        assert_string_equal(err.at, cases[i].first);
        assert_non_null(strstr(err.message, "expected a name that ends in -00001-of-0000"));
    }
}

static void test_messages_hold_long_and_strange_names(void **state) {
    (void)state;
    char quoted[96], long_name[500];
    memset(long_name, 0x80, sizeof long_name);
    gguf_quote(quoted, (struct gguf_string){long_name, sizeof long_name});
    assert_true(strlen(quoted) < 96);
    assert_non_null(strstr(quoted, "\\x80...\""));
    assert_string_equal(gguf_quote(quoted, (struct gguf_string){"a b", 3}), "\"a b\"");
    assert_string_equal(gguf_quote(quoted, (struct gguf_string){NULL, 0}), "\"\"");
    assert_string_equal(gguf_type_name(GGUF_F64), "f64");
    assert_string_equal(gguf_type_name(13), "unknown type");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_and_tensors_are_found_as_written),
        cmocka_unit_test(test_version_2_reads_like_version_3),
        cmocka_unit_test(test_a_vocabulary_without_tensors_is_a_file),
        cmocka_unit_test(test_every_data_type_has_its_size),
        cmocka_unit_test(test_the_alignment_key_decides_where_data_begins),
        cmocka_unit_test(test_gaps_and_any_order_of_tensor_data_are_valid),
        cmocka_unit_test(test_the_header_alone_is_enough_to_parse),
        cmocka_unit_test(test_strings_of_any_bytes_and_size_are_kept),
        cmocka_unit_test(test_strings_rewritten_after_parsing_stay_inside_their_array),
        cmocka_unit_test(test_many_keys_with_long_common_beginnings_are_all_found),
        cmocka_unit_test(test_any_integer_type_is_an_integer),
        cmocka_unit_test(test_integers_out_of_range_are_refused_with_their_value),
        cmocka_unit_test(test_an_absent_key_gives_the_fallback_or_is_missed),
        cmocka_unit_test(test_floats_are_finite_and_in_range),
        cmocka_unit_test(test_a_wrong_type_is_said_with_what_was_found),
        cmocka_unit_test(test_items_of_arrays_are_read_with_their_sign),
        cmocka_unit_test(test_a_split_says_which_part_it_is),
        cmocka_unit_test(test_paths_of_parts_follow_the_first),
        cmocka_unit_test(test_messages_hold_long_and_strange_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
