/* test_hostile.c - opening files that are no good models: an error that names the file, the key or
 * the tensor, what was found and what was expected; nothing taken, nothing left open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "onetrip.h"
#include "support/tiny_model.h"

static char directory[64];
static char path[128];

static int make_directory(void **state) {
    (void)state;
    image_directory_make(directory);
    snprintf(path, sizeof path, "%s/model.gguf", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    image_directory_remove(directory);
    return 0;
}

/* ---- helpers ------------------------------------------------------------------------------ */

static uint32_t open_files(void) {
    uint32_t n = 0;
    DIR *files = opendir("/proc/self/fd");
    while (files != NULL && readdir(files) != NULL) {
        n++;
    }
    closedir(files);
    return n;
}

/* Opening file fails, with one of the two codes for bad files, an error about `at`, and all of the
 * texts in the message (NULL ends them). Memory and file descriptors are as before. */
static void expect_refused_at(const char *file, const char *at, bool vocab_only, ...) {
    uint64_t bytes_before = mem_live_bytes();
    uint32_t files_before = open_files();
    struct ot_model_params params = {.vocab_only = vocab_only};
    struct ot_model *model = NULL;
    struct ot_error err = {0};
    int rc = ot_model_open(file, &params, &model, &err);
    va_list texts;
    va_start(texts, vocab_only);
    const char *first = va_arg(texts, const char *);
    if (rc == 0) {
        ot_model_close(model);
        fail_msg("opened, expected a refusal that says \"%s\"", first);
    }
    if (rc != OT_ERR_FORMAT && rc != OT_ERR_UNSUPPORTED && rc != OT_ERR_IO) {
        fail_msg("%s: %s", ot_status_name(rc), err.message);
    }
    assert_int_equal(err.code, rc);
    assert_null(model);
    if (strcmp(err.at, at) != 0) {
        fail_msg("said of \"%s\" (%s), expected of \"%s\"", err.at, err.message, at);
    }
    for (const char *text = first; text != NULL; text = va_arg(texts, const char *)) {
        if (strstr(err.message, text) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", err.message, text);
        }
    }
    va_end(texts);
    assert_null(strchr(err.message, '\n'));
    assert_int_equal(mem_live_bytes(), bytes_before);
    assert_int_equal(open_files(), files_before);
}

/* Writes the image and expects its refusal; frees it. */
#define expect_refused(image, ...)                                                                 \
    do {                                                                                           \
        image_write(image, path);                                                                  \
        image_deinit(image);                                                                       \
        expect_refused_at(path, path, false, __VA_ARGS__, (const char *)NULL);                     \
    } while (0)

static void expect_opens(const char *file) {
    uint64_t bytes_before = mem_live_bytes();
    struct ot_model *model = NULL;
    struct ot_error err = {0};
    if (ot_model_open(file, NULL, &model, &err) != 0) {
        fail_msg("refused: %s: %s", err.at, err.message);
    }
    ot_model_close(model);
    assert_int_equal(mem_live_bytes(), bytes_before);
}

/* One layer of each kind, so that a loop over all tensors is short. */
static void small(struct image *image, enum tiny_family family) {
    struct tiny_model options;
    tiny_model_defaults(&options, family, OT_Q4_0, 1);
    options.n_layers = 1;
    tiny_model_image(&options, image);
}

static const char *full_key(char key[128], enum tiny_family family, const char *name) {
    snprintf(key, 128, "%s.%s", tiny_architecture(family), name);
    return key;
}

/* ---- the models that all this begins with ------------------------------------------------- */

static void test_undamaged_models_open(void **state) {
    (void)state;
    for (int family = 0; family < TINY_FAMILY_COUNT; family++) {
        for (int i = 0; i < TINY_DTYPE_COUNT; i++) {
            struct tiny_model options;
            tiny_model_defaults(&options, (enum tiny_family)family, tiny_dtypes[i], 1);
            options.long_rope = family == TINY_PHI3 && i % 2 == 0;
            tiny_model_write(&options, path);
            expect_opens(path);
        }
    }
}

/* ---- tensors ------------------------------------------------------------------------------ */

/* Without these a file is still a model, another one: tied, or without scaled frequencies. */
static bool may_be_absent(const char *name) {
    return strcmp(name, "output.weight") == 0 || strcmp(name, "rope_freqs.weight") == 0;
}

static void test_each_missing_tensor_is_named(void **state) {
    (void)state;
    for (int family = 0; family < TINY_FAMILY_COUNT; family++) {
        struct tiny_model options;
        tiny_model_defaults(&options, (enum tiny_family)family, OT_Q4_0, 1);
        struct image image;
        tiny_model_image(&options, &image);
        size_t n = image.n_tensors;
        image_deinit(&image);
        for (size_t i = 0; i < n; i++) {
            tiny_model_image(&options, &image);
            char name[64];
            snprintf(name, sizeof name, "%s", image.tensors[i].name);
            image_remove_tensor(&image, name);
            if (may_be_absent(name)) {
                image_deinit(&image);
                continue;
            }
            expect_refused(&image, name);
        }
    }
}

static void test_each_renamed_tensor_is_noticed(void **state) {
    (void)state;
    for (int family = 0; family < TINY_FAMILY_COUNT; family++) {
        struct image image;
        small(&image, (enum tiny_family)family);
        size_t n = image.n_tensors;
        image_deinit(&image);
        for (size_t i = 0; i < n; i++) {
            small(&image, (enum tiny_family)family);
            char name[64], new_name[80];
            snprintf(name, sizeof name, "%s", image.tensors[i].name);
            snprintf(new_name, sizeof new_name, "%s_", name);
            image_rename_tensor(&image, name, new_name);
            expect_refused(&image, name);
        }
    }
}

static void test_each_wrongly_shaped_tensor_is_named(void **state) {
    (void)state;
    enum change { FEWER_ROWS, MORE_ROWS, WIDER, TRANSPOSED, ONE_MORE_DIMENSION, FLAT, CHANGES };
    for (int family = 0; family < TINY_FAMILY_COUNT; family++) {
        struct image image;
        small(&image, (enum tiny_family)family);
        size_t n = image.n_tensors;
        image_deinit(&image);
        for (size_t i = 0; i < n * CHANGES; i++) {
            small(&image, (enum tiny_family)family);
            struct image_tensor *t = &image.tensors[i / CHANGES];
            char name[64], found[32];
            uint64_t dims[4] = {t->dims[0], t->n_dims > 1 ? t->dims[1] : 1,
                                t->n_dims > 2 ? t->dims[2] : 1, 1};
            uint32_t n_dims = t->n_dims;
            snprintf(name, sizeof name, "%s", t->name);
            switch (i % CHANGES) {
            case FEWER_ROWS: dims[n_dims > 1 ? n_dims - 1 : 0] /= 2; break;
            case MORE_ROWS: dims[n_dims - 1] += 32; break;
            case WIDER: dims[0] *= 2; break;
            case TRANSPOSED:
                dims[0] = 32 * dims[1];
                dims[1] = t->dims[0];
                n_dims = n_dims > 2 ? n_dims : 2;
                break;
            case ONE_MORE_DIMENSION: dims[n_dims++] = 2; break;
            default:
                if (n_dims == 1) {
                    dims[0] += 64;
                }
                for (; n_dims > 1; n_dims--) {
                    dims[0] *= dims[n_dims - 1];
                }
                break;
            }
            image_reshape_tensor(&image, name, n_dims, dims);
            snprintf(found, sizeof found, "%llu", (unsigned long long)dims[0]);
            expect_refused(&image, name, found, "expected");
        }
    }
}

static void test_a_norm_in_blocks_is_refused(void **state) {
    (void)state;
    struct image image;
    small(&image, TINY_LLAMA);
    image_retype_tensor(&image, "blk.0.attn_norm.weight", OT_Q4_0);
    expect_refused(&image, "blk.0.attn_norm.weight", "Q4_0", "expected");
}

static void test_tensors_that_the_family_does_not_have_are_named(void **state) {
    (void)state;
    static const char *const names[] = {"blk.0.attn_q.scale", "blk.0.ffn_gate_exps.weight",
                                        "blk.0.attn_sub_norm.weight", "token_types.weight",
                                        "output_norm.bias"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct image image;
        small(&image, TINY_LLAMA);
        image_add_tensor(&image, names[i], OT_F32, 1, (uint64_t[]){64},
                         tiny_weights(OT_F32, 64, 1.0f, 1));
        expect_refused(&image, names[i], "llama");
    }
}

static void test_optional_tensors_are_in_all_layers_or_in_none(void **state) {
    (void)state;
    struct tiny_model options;
    struct image image;
    tiny_model_defaults(&options, TINY_QWEN2, OT_Q4_0, 1);
    tiny_model_image(&options, &image);
    image_remove_tensor(&image, "blk.1.attn_k.bias");
    expect_refused(&image, "blk.1.attn_k.bias");
    tiny_model_image(&options, &image);
    image_remove_tensor(&image, "blk.0.attn_k.bias");
    expect_refused(&image, "attn_k.bias");
}

/* ---- hyperparameters ---------------------------------------------------------------------- */

enum kind { ABSENT, U32, I32, U64, F32, TEXT, LIST };

struct key_case {
    enum tiny_family family;
    const char *key; /* without the architecture */
    enum kind kind;
    double value;      /* of a number */
    const char *found; /* in the message */
};

static void apply(struct image *image, const char *key, const struct key_case *c) {
    switch (c->kind) {
    case ABSENT: image_remove_key(image, key); break;
    case U32: image_set_u32(image, key, (uint32_t)c->value); break;
    case I32: image_set_i32(image, key, (int32_t)c->value); break;
    case U64: image_set_u64(image, key, (uint64_t)c->value); break;
    case F32: image_set_f32(image, key, (float)c->value); break;
    case TEXT: image_set_text(image, key, "many"); break;
    case LIST: image_add_u32(image_set_array(image, key, GGUF_U32), (uint32_t)c->value); break;
    }
}

static void run_key_cases(const struct key_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct image image;
        char key[128];
        small(&image, cases[i].family);
        apply(&image, full_key(key, cases[i].family, cases[i].key), &cases[i]);
        expect_refused(&image, cases[i].key, cases[i].found);
    }
}

static void test_needed_keys_are_missed_by_name(void **state) {
    (void)state;
    static const struct key_case cases[] = {
        {TINY_LLAMA, "block_count", ABSENT, 0, ""},
        {TINY_LLAMA, "embedding_length", ABSENT, 0, ""},
        {TINY_LLAMA, "feed_forward_length", ABSENT, 0, ""},
        {TINY_LLAMA, "attention.head_count", ABSENT, 0, ""},
        {TINY_LLAMA, "attention.layer_norm_rms_epsilon", ABSENT, 0, ""},
        {TINY_QWEN3MOE, "expert_count", ABSENT, 0, ""},
        {TINY_QWEN3MOE, "expert_used_count", ABSENT, 0, ""},
        {TINY_QWEN3MOE, "expert_feed_forward_length", ABSENT, 0, ""},
    };
    run_key_cases(cases, sizeof cases / sizeof *cases);
}

static void test_zero_and_huge_counts_are_refused(void **state) {
    (void)state;
    static const struct key_case cases[] = {
        {TINY_LLAMA, "block_count", U32, 0, "0"},
        {TINY_LLAMA, "block_count", U32, 4294967295.0, "4294967295"},
        {TINY_LLAMA, "block_count", U64, 1e18, "1000000000000000000"},
        {TINY_LLAMA, "block_count", I32, -1, "-1"},
        {TINY_LLAMA, "block_count", F32, 1, "f32"},
        {TINY_LLAMA, "block_count", TEXT, 0, "many"},
        {TINY_LLAMA, "embedding_length", U32, 0, "0"},
        {TINY_LLAMA, "embedding_length", U32, 4294967295.0, "4294967295"},
        {TINY_LLAMA, "embedding_length", I32, -64, "-64"},
        {TINY_LLAMA, "feed_forward_length", U32, 0, "0"},
        {TINY_LLAMA, "feed_forward_length", U32, 2147483648.0, "2147483648"},
        {TINY_LLAMA, "feed_forward_length", LIST, 0, "0"},
        {TINY_LLAMA, "attention.head_count", U32, 0, "0"},
        {TINY_LLAMA, "attention.head_count", U32, 4294967295.0, "4294967295"},
        {TINY_LLAMA, "attention.head_count_kv", U32, 0, "0"},
        {TINY_LLAMA, "attention.head_count_kv", U32, 4294967295.0, "4294967295"},
        {TINY_LLAMA, "attention.head_count_kv", LIST, 0, "0"},
        {TINY_LLAMA, "attention.key_length", U32, 0, "0"},
        {TINY_LLAMA, "attention.key_length", U32, 1 << 30, "1073741824"},
        {TINY_LLAMA, "attention.value_length", U32, 0, "0"},
        {TINY_LLAMA, "rope.dimension_count", U32, 0, "0"},
        {TINY_LLAMA, "rope.dimension_count", U32, 1 << 30, "1073741824"},
        {TINY_LLAMA, "context_length", U32, 0, "0"},
        {TINY_LLAMA, "context_length", U32, 4294967295.0, "4294967295"},
        {TINY_GEMMA2, "attention.sliding_window", U32, 4294967295.0, "4294967295"},
        {TINY_QWEN3MOE, "expert_count", U32, 0, "0"},
        {TINY_QWEN3MOE, "expert_count", U32, 4294967295.0, "4294967295"},
        {TINY_QWEN3MOE, "expert_used_count", U32, 0, "0"},
        {TINY_QWEN3MOE, "expert_used_count", U32, 4294967295.0, "4294967295"},
        {TINY_QWEN3MOE, "expert_feed_forward_length", U32, 0, "0"},
        {TINY_QWEN3MOE, "expert_feed_forward_length", U32, 4294967295.0, "4294967295"},
    };
    run_key_cases(cases, sizeof cases / sizeof *cases);
}

static void test_numbers_that_are_not_finite_or_senseless_are_refused(void **state) {
    (void)state;
    static const struct key_case cases[] = {
        {TINY_LLAMA, "attention.layer_norm_rms_epsilon", F32, NAN, "nan"},
        {TINY_LLAMA, "attention.layer_norm_rms_epsilon", F32, INFINITY, "inf"},
        {TINY_LLAMA, "attention.layer_norm_rms_epsilon", F32, -1e-5, "-"},
        {TINY_LLAMA, "attention.layer_norm_rms_epsilon", F32, 0, "0"},
        {TINY_LLAMA, "attention.layer_norm_rms_epsilon", F32, 1e20, "e+20"},
        {TINY_LLAMA, "attention.layer_norm_rms_epsilon", TEXT, 0, "many"},
        {TINY_LLAMA, "rope.freq_base", F32, NAN, "nan"},
        {TINY_LLAMA, "rope.freq_base", F32, INFINITY, "inf"},
        {TINY_LLAMA, "rope.freq_base", F32, 0, "0"},
        {TINY_LLAMA, "rope.freq_base", F32, -10000, "-10000"},
        {TINY_LLAMA, "rope.scaling.factor", F32, NAN, "nan"},
        {TINY_LLAMA, "rope.scaling.factor", F32, INFINITY, "inf"},
        {TINY_LLAMA, "rope.scaling.factor", F32, -2, "-2"},
        {TINY_LLAMA, "rope.scaling.attn_factor", F32, NAN, "nan"},
        {TINY_LLAMA, "rope.scaling.type", TEXT, 0, "many"},
        {TINY_LLAMA, "rope.scaling.original_context_length", U32, 0, "0"},
        {TINY_LLAMA, "attention.scale", F32, NAN, "nan"},
        {TINY_GEMMA2, "attn_logit_softcapping", F32, NAN, "nan"},
        {TINY_GEMMA2, "attn_logit_softcapping", F32, -50, "-50"},
        {TINY_GEMMA2, "final_logit_softcapping", F32, INFINITY, "inf"},
        {TINY_GEMMA2, "final_logit_softcapping", F32, -30, "-30"},
    };
    run_key_cases(cases, sizeof cases / sizeof *cases);
}

static void test_numbers_that_do_not_fit_together_are_refused(void **state) {
    (void)state;
    static const struct key_case cases[] = {
        {TINY_LLAMA, "attention.head_count_kv", U32, 3, "3"}, /* of 4 heads */
        {TINY_LLAMA, "attention.head_count_kv", U32, 8, "8"},
        {TINY_LLAMA, "attention.value_length", U32, 16, "16"}, /* of 32 */
        {TINY_LLAMA, "rope.dimension_count", U32, 64, "64"},   /* of 32 */
        {TINY_LLAMA, "rope.dimension_count", U32, 31, "31"},
        {TINY_PHI3, "attention.head_count", U32, 3, "3"},  /* 64 / 3 */
        {TINY_QWEN3MOE, "expert_used_count", U32, 9, "9"}, /* of 8 */
        {TINY_MIXTRAL, "expert_used_count", U32, 5, "5"},  /* of 4 */
        {TINY_LLAMA, "expert_used_count", U32, 2, "2"},    /* of none */
        {TINY_QWEN2, "expert_count", U32, 4, "expert_count"},
    };
    run_key_cases(cases, sizeof cases / sizeof *cases);
}

/* The tensors tell that a width is wrong: the message names one of them, with both numbers. */
static void test_widths_that_tensors_do_not_have_are_refused(void **state) {
    (void)state;
    static const struct {
        enum tiny_family family;
        const char *key;
        uint32_t value;
        const char *tensor;
    } cases[] = {
        {TINY_LLAMA, "embedding_length", 96, "tensor"},
        {TINY_LLAMA, "embedding_length", 65, "tensor"},
        {TINY_LLAMA, "feed_forward_length", 160, "ffn_"},
        {TINY_LLAMA, "attention.head_count", 2, "attn_q"},
        {TINY_LLAMA, "attention.head_count_kv", 1, "attn_k"},
        {TINY_MIXTRAL, "expert_count", 8, "ffn_gate_inp"},
        {TINY_QWEN3MOE, "expert_feed_forward_length", 32, "ffn_"},
        {TINY_LLAMA, "block_count", 2, "blk.1."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image;
        char key[128];
        small(&image, cases[i].family);
        image_set_u32(&image, full_key(key, cases[i].family, cases[i].key), cases[i].value);
        expect_refused(&image, cases[i].tensor);
    }
}

static void test_layers_beyond_the_count_are_noticed(void **state) {
    (void)state;
    struct tiny_model options;
    struct image image;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    options.n_layers = 3;
    tiny_model_image(&options, &image);
    image_set_u32(&image, "llama.block_count", 2);
    expect_refused(&image, "blk.2.", "llama");
}

static void test_an_unknown_family_is_refused_with_the_known_ones(void **state) {
    (void)state;
    struct image image;
    small(&image, TINY_LLAMA);
    image_set_text(&image, "general.architecture", "mamba");
    expect_refused(&image, "mamba", "llama, qwen2, qwen3, qwen3moe, gemma2, gemma3, phi3");
    small(&image, TINY_LLAMA);
    image_set_text(&image, "general.architecture", "");
    expect_refused(&image, "general.architecture");
    small(&image, TINY_LLAMA);
    image_remove_key(&image, "general.architecture");
    expect_refused(&image, "general.architecture");
    small(&image, TINY_LLAMA);
    image_set_u32(&image, "general.architecture", 7);
    expect_refused(&image, "general.architecture", "7", "expected a string");
}

/* ---- vocabularies ------------------------------------------------------------------------- */

static void drop_last_u32(struct image *image, const char *key) {
    struct image_key *k = image_find_key(image, key);
    k->count--;
    k->values.bytes -= 4;
}

/* Replaces string `index` of an array. */
static void replace_string(struct image *image, const char *key, uint64_t index, const char *data,
                           size_t bytes) {
    struct image_key *k = image_find_key(image, key);
    struct image_bytes out = {0};
    size_t at = 0;
    for (uint64_t i = 0; i < k->count; i++) {
        size_t length = k->values.data[at] | (size_t)k->values.data[at + 1] << 8;
        if (i == index) {
            image_put_string(&out, data, bytes);
        } else {
            image_put_string(&out, (const char *)k->values.data + at + 8, length);
        }
        at += 8 + length;
    }
    image_bytes_free(&k->values);
    k->values = out;
}

static void test_token_arrays_have_one_length(void **state) {
    (void)state;
    struct image image;
    small(&image, TINY_LLAMA);
    drop_last_u32(&image, "tokenizer.ggml.token_type");
    expect_refused(&image, "tokenizer.ggml.token_type", "expected");
    small(&image, TINY_GEMMA2);
    drop_last_u32(&image, "tokenizer.ggml.scores");
    expect_refused(&image, "tokenizer.ggml.scores", "expected");
    small(&image, TINY_GEMMA2);
    image_add_f32(image_find_key(&image, "tokenizer.ggml.scores"), 0.0f);
    expect_refused(&image, "tokenizer.ggml.scores", "expected");
    small(&image, TINY_LLAMA);
    image_add_text(image_find_key(&image, "tokenizer.ggml.tokens"), "one too many");
    expect_refused(&image, "tokenizer.ggml.token");
    small(&image, TINY_LLAMA);
    image_set_array(&image, "tokenizer.ggml.tokens", GGUF_STRING);
    expect_refused(&image, "tokenizer.ggml.tokens");
}

static void test_token_arrays_have_their_types(void **state) {
    (void)state;
    static const struct {
        enum tiny_family family;
        const char *key;
    } cases[] = {
        {TINY_LLAMA, "tokenizer.ggml.tokens"},       {TINY_LLAMA, "tokenizer.ggml.token_type"},
        {TINY_LLAMA, "tokenizer.ggml.merges"},       {TINY_GEMMA2, "tokenizer.ggml.scores"},
        {TINY_LLAMA, "tokenizer.ggml.model"},        {TINY_LLAMA, "tokenizer.ggml.pre"},
        {TINY_LLAMA, "tokenizer.ggml.bos_token_id"}, {TINY_LLAMA, "tokenizer.ggml.add_bos_token"},
        {TINY_LLAMA, "tokenizer.chat_template"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image;
        small(&image, cases[i].family);
        image_set_f32(&image, cases[i].key, 1.5f);
        expect_refused(&image, cases[i].key);
        small(&image, cases[i].family);
        bool strings = image_find_key(&image, cases[i].key)->item_type == GGUF_STRING;
        struct image_key *list = image_set_array(&image, cases[i].key, GGUF_U8);
        if (strings) { /* of the right length, but not strings */
            for (int j = 0; j < 1000; j++) {
                image_put_u8(&list->values, 1);
            }
            list->count = 1000;
        }
        expect_refused(&image, cases[i].key);
    }
}

static void test_vocabulary_keys_are_missed_by_name(void **state) {
    (void)state;
    static const struct {
        enum tiny_family family;
        const char *key;
    } cases[] = {
        {TINY_LLAMA, "tokenizer.ggml.tokens"},
        {TINY_LLAMA, "tokenizer.ggml.model"},
        {TINY_LLAMA, "tokenizer.ggml.merges"},
        {TINY_GEMMA2, "tokenizer.ggml.scores"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image;
        small(&image, cases[i].family);
        image_remove_key(&image, cases[i].key);
        expect_refused(&image, cases[i].key);
    }
}

static void test_tokens_must_be_utf8(void **state) {
    (void)state;
    static const char *const broken[] = {
        "\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80", "\x80"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct image image;
        small(&image, i % 2 == 0 ? TINY_LLAMA : TINY_GEMMA2);
        replace_string(&image, "tokenizer.ggml.tokens", 300, broken[i], strlen(broken[i]));
        expect_refused(&image, "tokenizer.ggml.tokens", "300", "UTF-8");
    }
}

static void test_merges_must_name_tokens(void **state) {
    (void)state;
    static const char *const merges[] = {"", "t", "qq zz", " t", "t ", "h e e", "q z"};
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        struct image image;
        small(&image, TINY_LLAMA);
        replace_string(&image, "tokenizer.ggml.merges", 5, merges[i], strlen(merges[i]));
        expect_refused(&image, "tokenizer.ggml.merges", "5");
    }
}

static void test_special_ids_are_tokens(void **state) {
    (void)state;
    static const char *const keys[] = {
        "tokenizer.ggml.bos_token_id",     "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",     "tokenizer.ggml.padding_token_id",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct image image;
        small(&image, TINY_GEMMA2);
        image_set_u32(&image, keys[i], 100000);
        expect_refused(&image, keys[i], "100000", "expected");
        small(&image, TINY_LLAMA);
        image_set_i32(&image, keys[i], -5);
        expect_refused(&image, keys[i], "-5", "expected");
    }
}

static void test_token_types_and_scores_are_sensible(void **state) {
    (void)state;
    struct image image;
    small(&image, TINY_LLAMA);
    image_find_key(&image, "tokenizer.ggml.token_type")->values.data[4 * 7] = 77;
    expect_refused(&image, "tokenizer.ggml.token_type", "77", "expected");
    small(&image, TINY_GEMMA2);
    uint32_t nan_bits = 0x7fc00000;
    memcpy(image_find_key(&image, "tokenizer.ggml.scores")->values.data + 4 * 7, &nan_bits, 4);
    expect_refused(&image, "tokenizer.ggml.scores", "token 7");
}

static void test_unknown_tokenizers_are_refused_by_name(void **state) {
    (void)state;
    struct image image;
    small(&image, TINY_LLAMA);
    image_set_text(&image, "tokenizer.ggml.model", "wordpiece");
    expect_refused(&image, "wordpiece");
    small(&image, TINY_LLAMA);
    image_set_text(&image, "tokenizer.ggml.pre", "no-such-pre");
    expect_refused(&image, "no-such-pre", "qwen2");
}

static void test_a_vocabulary_alone_opens_only_as_one(void **state) {
    (void)state;
    struct image image;
    struct ot_model *model;
    struct ot_error err = {0};
    small(&image, TINY_LLAMA);
    while (image.n_tensors > 0) {
        image_remove_tensor(&image, image.tensors[0].name);
    }
    image_write(&image, path);
    image_deinit(&image);
    expect_refused_at(path, path, false, "weights", (const char *)NULL);
    struct ot_model_params params = {.vocab_only = true};
    assert_int_equal(ot_model_open(path, &params, &model, &err), 0);
    ot_model_close(model);
}

/* ---- files -------------------------------------------------------------------------------- */

static void test_a_model_cut_anywhere_is_refused(void **state) {
    (void)state;
    struct image image;
    small(&image, TINY_LLAMA);
    size_t header_bytes;
    struct image_bytes file = image_serialise(&image, &header_bytes);
    image_deinit(&image);
    size_t whole = file.bytes;
    for (size_t bytes = 0; bytes < whole; bytes += bytes < 64             ? 1
                                                   : bytes < header_bytes ? 41
                                                                          : 4099) {
        image_write_bytes(path, file.data, bytes);
        expect_refused_at(path, path, false, "", (const char *)NULL);
    }
    image_write_bytes(path, file.data, whole - 1);
    expect_refused_at(path, path, false, "file", (const char *)NULL);
    image_bytes_free(&file);
}

static void test_only_regular_files_are_opened(void **state) {
    (void)state;
    char name[128];
    expect_refused_at(directory, directory, false, "directory", (const char *)NULL);
    expect_refused_at("/dev/null", "/dev/null", false, "device", (const char *)NULL);
    expect_refused_at("/dev/zero", "/dev/zero", false, "device", (const char *)NULL);
    snprintf(name, sizeof name, "%s/fifo", directory);
    assert_int_equal(mkfifo(name, 0600), 0);
    expect_refused_at(name, name, false, "FIFO", (const char *)NULL);
    snprintf(name, sizeof name, "%s/socket", directory);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, name); /* shorter: directory has at most 63 bytes */
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(s >= 0 && bind(s, (struct sockaddr *)&address, sizeof address) == 0);
    expect_refused_at(name, name, false, "", (const char *)NULL);
    close(s);
    snprintf(name, sizeof name, "%s/absent.gguf", directory);
    expect_refused_at(name, name, false, strerror(ENOENT), (const char *)NULL);
    snprintf(name, sizeof name, "%s/loop", directory);
    assert_int_equal(symlink(name, name), 0);
    expect_refused_at(name, name, false, strerror(ELOOP), (const char *)NULL);
    image_write_bytes(path, "", 0);
    expect_refused_at(path, path, false, "the file is empty", (const char *)NULL);
}

static void test_a_file_without_permission_is_refused(void **state) {
    (void)state;
    struct image image;
    small(&image, TINY_LLAMA);
    image_write(&image, path);
    image_deinit(&image);
    assert_int_equal(chmod(directory, 0755), 0);
    assert_int_equal(chmod(path, 0), 0);
    bool root = geteuid() == 0;
    if (root) { /* nobody: permissions do not hold root back */
        assert_int_equal(seteuid(65534), 0);
    }
    expect_refused_at(path, path, false, strerror(EACCES), (const char *)NULL);
    if (root) {
        assert_int_equal(seteuid(0), 0);
    }
    assert_int_equal(unlink(path), 0);
}

/* ---- split files -------------------------------------------------------------------------- */

static void part_path(char out[192], uint32_t no, uint32_t count) {
    snprintf(out, 192, "%s/m-%05u-of-%05u.gguf", directory, no, count);
}

static void write_split(enum tiny_family family, uint64_t seed, uint32_t n_files) {
    struct tiny_model options;
    char first[192];
    tiny_model_defaults(&options, family, OT_Q4_0, seed);
    options.n_files = n_files;
    part_path(first, 1, n_files);
    tiny_model_write(&options, first);
}

static void test_a_split_model_opens_by_its_first_part(void **state) {
    (void)state;
    char first[192], second[192], renamed[192];
    for (int family = 0; family < TINY_FAMILY_COUNT; family++) {
        write_split((enum tiny_family)family, 1, 3);
        part_path(first, 1, 3);
        expect_opens(first);
    }
    part_path(second, 2, 3);
    expect_refused_at(second, second, false, "part 2", "00001-of-", (const char *)NULL);
    snprintf(renamed, sizeof renamed, "%s/renamed.gguf", directory);
    assert_int_equal(rename(first, renamed), 0);
    expect_refused_at(renamed, renamed, false, "00001-of-00003", (const char *)NULL);
}

static void test_a_missing_part_is_named(void **state) {
    (void)state;
    char first[192], part[192];
    for (uint32_t no = 2; no <= 3; no++) {
        write_split(TINY_LLAMA, 1, 3);
        part_path(first, 1, 3);
        part_path(part, no, 3);
        assert_int_equal(unlink(part), 0);
        expect_refused_at(first, part, false, strerror(ENOENT), (const char *)NULL);
    }
}

static void test_a_foreign_part_is_named(void **state) {
    (void)state;
    char first[192], second[192], third[192];
    part_path(first, 1, 3);
    part_path(second, 2, 3);
    part_path(third, 3, 3);

    write_split(TINY_LLAMA, 1, 3); /* the third in the second's place */
    assert_int_equal(rename(third, second), 0);
    expect_refused_at(first, second, false, "part 3 of 3", "part 2 of 3", (const char *)NULL);

    write_split(TINY_LLAMA, 1, 3); /* a whole model */
    struct tiny_model options;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_write(&options, second);
    expect_refused_at(first, second, false, "part 1 of 1", "part 2 of 3", (const char *)NULL);

    write_split(TINY_LLAMA, 1, 3); /* no GGUF file at all */
    image_write_bytes(second, "hello, world, hello, world", 26);
    expect_refused_at(first, second, false, "GGUF", (const char *)NULL);

    write_split(TINY_LLAMA, 1, 3); /* the same part of another family: its tensors do not belong */
    char other[192];
    write_split(TINY_GEMMA2, 1, 4);
    part_path(other, 2, 4);
    struct image image;
    image_init(&image);
    image_set_u32(&image, "split.no", 1);
    image_set_u32(&image, "split.count", 3);
    image_set_i32(&image, "split.tensors.count", 99);
    image_write(&image, second);
    image_deinit(&image);
    expect_refused_at(first, second, false, "split.tensors.count", "99", (const char *)NULL);
}

static void test_a_split_that_lost_tensors_is_noticed(void **state) {
    (void)state;
    char first[192], second[192];
    part_path(first, 1, 3);
    part_path(second, 2, 3);
    write_split(TINY_LLAMA, 1, 3);
    struct image image;
    small(&image, TINY_LLAMA);
    int32_t n_tensors = (int32_t)image.n_tensors;
    image_deinit(&image);
    image_init(&image); /* the right numbers, no tensors */
    image_set_u32(&image, "split.no", 1);
    image_set_u32(&image, "split.count", 3);
    image_set_i32(&image, "split.tensors.count", n_tensors);
    image_write(&image, second);
    image_deinit(&image);
    struct ot_model *model;
    struct ot_error err = {0};
    assert_int_equal(ot_model_open(first, NULL, &model, &err), OT_ERR_FORMAT);
    assert_non_null(strstr(err.at, directory));
}

static void test_a_tensor_in_two_parts_is_named(void **state) {
    (void)state;
    char first[192], second[192];
    part_path(first, 1, 2);
    part_path(second, 2, 2);
    write_split(TINY_LLAMA, 1, 2);
    struct tiny_model options;
    struct image image;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_image(&options, &image);
    image_set_u32(&image, "split.no", 1);
    image_set_u32(&image, "split.count", 2);
    image_set_i32(&image, "split.tensors.count", (int32_t)image.n_tensors);
    image_write(&image, second);
    image_deinit(&image);
    expect_refused_at(first, second, false, "token_embd.weight", "part 1", (const char *)NULL);
}

static void test_absurd_split_numbers_are_refused(void **state) {
    (void)state;
    static const uint32_t counts[] = {0, 65535, UINT32_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct image image;
        char found[32];
        snprintf(found, sizeof found, "%u", counts[i]);
        small(&image, TINY_LLAMA);
        image_set_u32(&image, "split.no", 0);
        image_set_u32(&image, "split.count", counts[i]);
        expect_refused(&image, "split.count", found);
    }
}

static void test_a_cut_part_is_named(void **state) {
    (void)state;
    char first[192], second[192];
    part_path(first, 1, 2);
    part_path(second, 2, 2);
    write_split(TINY_LLAMA, 1, 2);
    struct stat s;
    assert_int_equal(stat(second, &s), 0);
    assert_int_equal(truncate(second, s.st_size - 1), 0);
    expect_refused_at(first, second, false, "tensor", "inside the file", (const char *)NULL);
    assert_int_equal(truncate(second, 30), 0);
    expect_refused_at(first, second, false, "header", "expected", (const char *)NULL);
}

/* ---- memory ------------------------------------------------------------------------------- */

static void test_every_failing_allocation_while_opening_is_an_error(void **state) {
    (void)state;
    static const enum tiny_family families[] = {TINY_LLAMA, TINY_GEMMA2};
    for (size_t i = 0; i < 2; i++) {
        write_split(families[i], 1, 2);
        char first[192];
        part_path(first, 1, 2);
        expect_opens(first); /* what is taken once and kept is taken now */
        uint64_t before = mem_live_bytes(), n = 0;
        uint32_t files_before = open_files();
        int rc = OT_ERR_MEMORY;
        while (rc == OT_ERR_MEMORY) {
            struct ot_model *model = NULL;
            struct ot_error err = {0};
            mem_fail_at(++n);
            rc = ot_model_open(first, NULL, &model, &err);
            mem_fail_at(0);
            if (rc == 0) {
                ot_model_close(model);
            } else if (rc != OT_ERR_MEMORY) {
                fail_msg("allocation %llu: %s: %s", (unsigned long long)n, err.at, err.message);
            }
            assert_int_equal(mem_live_bytes(), before);
            assert_int_equal(open_files(), files_before);
        }
        assert_true(n > 20);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_undamaged_models_open),
        cmocka_unit_test(test_each_missing_tensor_is_named),
        cmocka_unit_test(test_each_renamed_tensor_is_noticed),
        cmocka_unit_test(test_each_wrongly_shaped_tensor_is_named),
        cmocka_unit_test(test_a_norm_in_blocks_is_refused),
        cmocka_unit_test(test_tensors_that_the_family_does_not_have_are_named),
        cmocka_unit_test(test_optional_tensors_are_in_all_layers_or_in_none),
        cmocka_unit_test(test_needed_keys_are_missed_by_name),
        cmocka_unit_test(test_zero_and_huge_counts_are_refused),
        cmocka_unit_test(test_numbers_that_are_not_finite_or_senseless_are_refused),
        cmocka_unit_test(test_numbers_that_do_not_fit_together_are_refused),
        cmocka_unit_test(test_widths_that_tensors_do_not_have_are_refused),
        cmocka_unit_test(test_layers_beyond_the_count_are_noticed),
        cmocka_unit_test(test_an_unknown_family_is_refused_with_the_known_ones),
        cmocka_unit_test(test_token_arrays_have_one_length),
        cmocka_unit_test(test_token_arrays_have_their_types),
        cmocka_unit_test(test_vocabulary_keys_are_missed_by_name),
        cmocka_unit_test(test_tokens_must_be_utf8),
        cmocka_unit_test(test_merges_must_name_tokens),
        cmocka_unit_test(test_special_ids_are_tokens),
        cmocka_unit_test(test_token_types_and_scores_are_sensible),
        cmocka_unit_test(test_unknown_tokenizers_are_refused_by_name),
        cmocka_unit_test(test_a_vocabulary_alone_opens_only_as_one),
        cmocka_unit_test(test_a_model_cut_anywhere_is_refused),
        cmocka_unit_test(test_only_regular_files_are_opened),
        cmocka_unit_test(test_a_file_without_permission_is_refused),
        cmocka_unit_test(test_a_split_model_opens_by_its_first_part),
        cmocka_unit_test(test_a_missing_part_is_named),
        cmocka_unit_test(test_a_foreign_part_is_named),
        cmocka_unit_test(test_a_split_that_lost_tensors_is_noticed),
        cmocka_unit_test(test_a_tensor_in_two_parts_is_named),
        cmocka_unit_test(test_absurd_split_numbers_are_refused),
        cmocka_unit_test(test_a_cut_part_is_named),
        cmocka_unit_test(test_every_failing_allocation_while_opening_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
