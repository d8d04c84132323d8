/* ask.c - several questions about one text, answered together: ask MODEL TEXT QUESTION...
 *
 *     cc ask.c $(pkg-config --cflags --libs onetrip) -o ask
 *
 * What all of them begin with is computed once, its keys and values exist once, and each sweep of
 * the weights gives every answer its next token. */
#include <onetrip.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8, ANSWER = 64 };

struct answer {
    uint32_t *ids, next;
    size_t n_ids;
    char *text;
    size_t n_text;
    bool done;
};

static int fail(const struct ot_error *err) {
    char text[1024];
    fprintf(stderr, "ask: %s\n", ot_error_text(err, text, sizeof text));
    return 1;
}

/* As the model's chat format has it; without one, the text and the question. */
static int make_ids(const struct ot_model *model, const char *text, const char *question,
                    struct answer *a, struct ot_error *err) {
    const struct ot_message messages[] = {{OT_ROLE_SYSTEM, text, strlen(text)},
                                          {OT_ROLE_USER, question, strlen(question)}};
    int rc = ot_chat_tokenize(model, NULL, messages, 2, &a->ids, &a->n_ids, err);
    if (rc != OT_ERR_UNSUPPORTED) {
        return rc;
    }
    size_t size = strlen(text) + strlen(question) + 2;
    char *both = malloc(size);
    snprintf(both, size, "%s %s", text, question);
    rc = ot_tokenize(model, both, strlen(both), OT_TOK_ADD_SPECIAL, &a->ids, &a->n_ids, err);
    free(both);
    return rc;
}

/* Tokens that all begin with; each has at least one more. */
static size_t common(const struct answer *a, uint32_t n) {
    size_t length = a[0].n_ids - 1;
    for (uint32_t s = 1; s < n; s++) {
        size_t same = 0;
        while (same < length && same + 1 < a[s].n_ids && a[s].ids[same] == a[0].ids[same]) {
            same++;
        }
        length = same;
    }
    return length;
}

static void take_token(const struct ot_model *model, uint32_t n_vocab, const float *logits,
                       struct answer *a) {
    a->next = 0;
    for (uint32_t i = 1; i < n_vocab; i++) {
        a->next = logits[i] > logits[a->next] ? i : a->next;
    }
    a->done |= ot_token_ends(model, a->next);
    if (!a->done) {
        size_t bytes = ot_token_bytes(model, a->next, false, NULL, 0);
        a->text = realloc(a->text, a->n_text + bytes + 1);
        a->n_text += ot_token_bytes(model, a->next, false, a->text + a->n_text, bytes);
    }
}

int main(int argc, char **argv) {
    struct ot_error err;
    struct ot_model *model = NULL;
    struct ot_context *ctx = NULL;
    struct ot_model_info info;
    struct answer a[MOST] = {{0}};
    uint32_t n_seq = argc > 3 ? (uint32_t)argc - 3 : 0;
    if (n_seq == 0 || n_seq > MOST) {
        return fprintf(stderr, "usage: ask MODEL TEXT QUESTION... (at most %d)\n", MOST), 2;
    }
    if (ot_model_open(argv[1], NULL, &model, &err) != 0) {
        return fail(&err);
    }
    size_t total = 0;
    for (uint32_t s = 0; s < n_seq; s++) {
        if (make_ids(model, argv[2], argv[3 + s], &a[s], &err) != 0) {
            return fail(&err);
        }
        total += a[s].n_ids;
    }
    size_t shared = common(a, n_seq), longest = 0, own = 0;
    for (uint32_t s = 0; s < n_seq; s++) {
        longest = a[s].n_ids > longest ? a[s].n_ids : longest;
        own += a[s].n_ids - shared + ANSWER + 2 * OT_KV_BLOCK;
    }
    struct ot_context_params params;
    ot_context_default_params(&params);
    params.n_seq = n_seq;
    params.n_ctx = (uint32_t)longest + ANSWER;
    params.n_kv = (uint32_t)(shared + own); /* not n_seq times n_ctx */
    params.n_logits = n_seq;
    if (ot_context_open(model, &params, &ctx, &err) != 0) {
        return fail(&err);
    }
    ot_model_get_info(model, &info);
    float *logits = malloc((size_t)n_seq * info.n_vocab * sizeof *logits);
    struct ot_input *inputs = calloc(total, sizeof *inputs);
    for (size_t i = 0; i < shared; i++) {
        inputs[i].token = a[0].ids[i];
    }
    if (shared > 0 && ot_decode(ctx, inputs, (uint32_t)shared, NULL, &err) != 0) {
        return fail(&err);
    }
    /* The questions, but for their last tokens: those are the first step, a token of each. */
    uint32_t n = 0;
    for (uint32_t s = 0; s < n_seq; s++) {
        if (s > 0 && ot_seq_copy(ctx, s, 0, (uint32_t)shared, &err) != 0) {
            return fail(&err);
        }
        for (size_t i = shared; i + 1 < a[s].n_ids; i++) {
            inputs[n++] = (struct ot_input){.token = a[s].ids[i], .seq = s};
        }
    }
    if (n > 0 && ot_decode(ctx, inputs, n, NULL, &err) != 0) {
        return fail(&err);
    }
    n = 0;
    for (uint32_t s = 0; s < n_seq; s++) {
        inputs[n++] = (struct ot_input){a[s].ids[a[s].n_ids - 1], s, true};
    }
    for (uint32_t step = 0; step < ANSWER && n > 0; step++) {
        if (ot_decode(ctx, inputs, n, logits, &err) != 0) {
            return fail(&err);
        }
        const float *row = logits;
        n = 0;
        for (uint32_t s = 0; s < n_seq; s++) {
            if (!a[s].done) {
                take_token(model, info.n_vocab, row, &a[s]);
                row += info.n_vocab;
                if (!a[s].done) {
                    inputs[n++] = (struct ot_input){a[s].next, s, true};
                }
            }
        }
    }
    for (uint32_t s = 0; s < n_seq; s++) {
        printf("%s\n", argv[3 + s]), fwrite(a[s].text, 1, a[s].n_text, stdout), printf("\n\n");
        free(a[s].text), ot_free(a[s].ids);
    }
    ot_report_print(ctx, NULL, stderr, &err);
    free(inputs), free(logits), ot_context_close(ctx), ot_model_close(model);
    return 0;
}
