/* generate.c - the least program that generates text: generate MODEL PROMPT
 *
 *     cc generate.c $(pkg-config --cflags --libs onetrip) -o generate */
#include <onetrip.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    struct ot_error err;
    struct ot_model *model = NULL;
    struct ot_context *ctx = NULL;
    struct ot_model_info info;
    struct ot_context_params params;
    uint32_t *ids = NULL;
    size_t n_ids;
    char text[1024];
    ot_context_default_params(&params);
    if (argc != 3) {
        return fprintf(stderr, "usage: generate MODEL PROMPT\n"), 2;
    }
    if (ot_model_open(argv[1], NULL, &model, &err) != 0 ||
        ot_context_open(model, &params, &ctx, &err) != 0 ||
        ot_tokenize(model, argv[2], strlen(argv[2]), OT_TOK_ADD_SPECIAL, &ids, &n_ids, &err) != 0) {
        return fprintf(stderr, "generate: %s\n", ot_error_text(&err, text, sizeof text)), 1;
    }
    ot_model_get_info(model, &info);
    float *logits = malloc(info.n_vocab * sizeof *logits);
    struct ot_input *inputs = calloc(n_ids + 1, sizeof *inputs);
    for (size_t i = 0; i < n_ids; i++) {
        inputs[i] = (struct ot_input){.token = ids[i], .want_logits = i + 1 == n_ids};
    }
    for (uint32_t n = (uint32_t)n_ids, left = 32; left > 0; left--, n = 1) {
        if (ot_decode(ctx, inputs, n, logits, &err) != 0) {
            return fprintf(stderr, "generate: %s\n", ot_error_text(&err, text, sizeof text)), 1;
        }
        uint32_t best = 0;
        for (uint32_t i = 1; i < info.n_vocab; i++) {
            best = logits[i] > logits[best] ? i : best;
        }
        if (ot_token_ends(model, best)) {
            break;
        }
        size_t bytes = ot_token_bytes(model, best, false, text, sizeof text);
        fwrite(text, 1, bytes < sizeof text ? bytes : sizeof text, stdout);
        inputs[0] = (struct ot_input){.token = best, .want_logits = true};
    }
    putchar('\n'), free(inputs), free(logits), ot_free(ids), ot_context_close(ctx);
    return ot_model_close(model), 0;
}
