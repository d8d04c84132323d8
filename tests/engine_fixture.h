/* engine_fixture.h - what the tests of contexts share: a folder with a tiny model, a model and a
 * context opened from it, and the least budget of one. */
#ifndef TESTS_ENGINE_FIXTURE_H
#define TESTS_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onetrip.h"
#include "support/tiny_model.h"

enum { MAX_VOCAB = 1024, N_TOKENS = 24 };

/* How much this process may grow or shrink between two openings, and the least budget with it (a
 * program that opens one context does not: test_cli.c): the sanitizer keeps freed memory for a while. */
#if defined(__SANITIZE_ADDRESS__)
enum { OPENINGS_DIFFER_BYTES = 8 << 20 };
void __sanitizer_purge_allocator(void); /* gives freed memory back */
static inline void give_back_what_was_freed(void) {
    __sanitizer_purge_allocator();
}
#else
enum { OPENINGS_DIFFER_BYTES = 1 << 20 };
static inline void give_back_what_was_freed(void) {}
#endif

static char directory[64];
static char path[128];

static inline int make_directory(void **state) {
    (void)state;
    image_directory_make(directory);
    snprintf(path, sizeof path, "%s/model.gguf", directory);
    return 0;
}

static inline int remove_directory(void **state) {
    (void)state;
    image_directory_remove(directory);
    return 0;
}

static inline void write_model(enum tiny_family family, uint32_t dtype) {
    struct tiny_model options;
    tiny_model_defaults(&options, family, dtype, 7);
    tiny_model_write(&options, path);
}

/* 7.8 MB a layer, beside 1 KB for each token of the vocabulary (0: as many as it has) in each of two
 * tables. */
static inline void write_wide_model(uint32_t n_layers, uint32_t n_vocab) {
    struct tiny_model options;
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q8_0, 7);
    options.n_layers = n_layers;
    options.n_embd = options.n_ff = 1024;
    options.n_heads = options.n_kv_heads = 16;
    options.head_dim = 64;
    options.n_vocab = n_vocab;
    tiny_model_write(&options, path);
}

struct session {
    struct ot_model *model;
    struct ot_context *ctx;
    uint32_t n_vocab;
};

static inline void fail_with(const struct ot_error *err) {
    char text[800];
    fail_msg("%s", ot_error_text(err, text, sizeof text));
}

static inline void session_open(struct session *s, const struct ot_context_params *params) {
    struct ot_error err;
    struct ot_model_info info;
    if (ot_model_open(path, NULL, &s->model, &err) != 0 ||
        ot_context_open(s->model, params, &s->ctx, &err) != 0) {
        fail_with(&err);
    }
    ot_model_get_info(s->model, &info);
    s->n_vocab = info.n_vocab;
    assert_true(s->n_vocab <= MAX_VOCAB);
}

static inline void session_close(struct session *s) {
    ot_context_close(s->ctx);
    ot_model_close(s->model);
}

/* Of this process now; a context that is opened later may need OPENINGS_DIFFER_BYTES more. */
static inline uint64_t least_budget(const struct ot_context_params *params) {
    give_back_what_was_freed();
    struct ot_error err;
    struct ot_model *model;
    struct ot_context *ctx;
    struct ot_context_info info;
    assert_int_equal(ot_model_open(path, NULL, &model, &err), 0);
    struct ot_context_params ample = *params;
    ample.ram_bytes = 1u << 30;
    ample.residency = OT_RESIDENCY_STREAM;
    if (ot_context_open(model, &ample, &ctx, &err) != 0) {
        fail_with(&err);
    }
    ot_context_get_info(ctx, &info);
    ot_context_close(ctx);
    ot_model_close(model);
    give_back_what_was_freed();
    return info.least_budget_bytes;
}

static inline uint32_t token_at(uint32_t i) {
    return (i * 7 + 3) % 256;
}

/* Tokens [first, first + n) to sequence seq; logits of all of them. */
static inline int feed(struct session *s, uint32_t seq, uint32_t first, uint32_t n, float *logits,
                struct ot_error *err) {
    struct ot_input inputs[N_TOKENS];
    for (uint32_t i = 0; i < n; i++) {
        inputs[i] = (struct ot_input){token_at(first + i), seq, true};
    }
    return ot_decode(s->ctx, inputs, n, logits, err);
}

static inline void must_feed(struct session *s, uint32_t seq, uint32_t first, uint32_t n, float *logits) {
    struct ot_error err;
    if (feed(s, seq, first, n, logits, &err) != 0) {
        fail_with(&err);
    }
}

static inline float *logits_for(uint32_t n_vocab) {
    return calloc((size_t)N_TOKENS * n_vocab, sizeof(float));
}

#endif
