/* eval.c - `onetrip eval`: perplexity, and logits for other programs.
 *
 * Logits are never held for the whole text: chunks of positions are decoded, scored, written. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/input.h"
#include "cli/npy.h"
#include "cli/session.h"

/* A text of more than CHUNK_LEAST tokens is divided evenly into calls of more than 16, and a
 * shorter one not at all: so that whether a call takes the kernels for a few tokens does not depend
 * on how many rows of logits the budget has room for, nor do the results. */
enum { DEFAULT_CTX = 4096, CHUNK_TOKENS = 128, CHUNK_LEAST = 34 };
static const uint64_t chunk_bytes = 64u << 20;

struct evaluation {
    struct session *session;
    const uint32_t *ids;
    size_t n_ids;
    uint32_t n_chunk;
    float *logits; /* owned [n_chunk, n_vocab] */
    struct output_file npy;
    double sum, sum_squares; /* of the scored tokens' -ln p */
    size_t n_scored, n_windows;
    double seconds;
};

static double negative_log_p(const float *logits, uint32_t n_vocab, uint32_t token) {
    float most = logits[0];
    for (uint32_t i = 1; i < n_vocab; i++) {
        most = logits[i] > most ? logits[i] : most;
    }
    double sum = 0.0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        sum += (double)expf(logits[i] - most);
    }
    return log(sum) - (double)(logits[token] - most);
}

/* Positions [first, first + n) of the text, all in the window that ends at window_end. */
static int run_chunk(struct evaluation *e, size_t first, uint32_t n, size_t window_end) {
    struct ot_input inputs[CHUNK_TOKENS];
    uint32_t n_vocab = e->session->info.n_vocab;
    struct ot_error err;
    for (uint32_t i = 0; i < n; i++) {
        inputs[i] = (struct ot_input){.token = e->ids[first + i], .want_logits = true};
    }
    double start = now_s();
    int rc = ot_decode(e->session->ctx, inputs, n, e->logits, &err);
    progress_clear();
    if (rc != 0) {
        return complain_error(&err);
    }
    e->seconds += now_s() - start;
    for (uint32_t i = 0; i < n && first + i + 1 < window_end; i++) {
        double loss =
            negative_log_p(e->logits + (size_t)i * n_vocab, n_vocab, e->ids[first + i + 1]);
        e->sum += loss;
        e->sum_squares += loss * loss;
        e->n_scored++;
    }
    if (e->npy.file != NULL) {
        return files_write(&e->npy, e->logits, (size_t)n * n_vocab * sizeof *e->logits);
    }
    return 0;
}

static int run_windows(struct evaluation *e) {
    uint32_t n_ctx = e->session->context.n_ctx;
    for (size_t start = 0; start < e->n_ids; start += n_ctx) {
        size_t end = e->n_ids - start < n_ctx ? e->n_ids : start + n_ctx;
        ot_seq_truncate(e->session->ctx, 0, 0);
        e->n_windows++;
        size_t n_chunks = (end - start + e->n_chunk - 1) / e->n_chunk;
        for (size_t i = 0, at = start; i < n_chunks; i++) {
            size_t n = (end - at) / (n_chunks - i);
            int rc = run_chunk(e, at, (uint32_t)n, end);
            if (rc != 0) {
                return rc;
            }
            at += n;
        }
    }
    return 0;
}

/* JSON has no word for what is not finite. */
static void print_json_real(const char *key, double value, bool known) {
    if (known && isfinite(value)) {
        printf("\"%s\": %.6f, ", key, value);
    } else {
        printf("\"%s\": null, ", key);
    }
}

static void print_result(const struct evaluation *e) {
    double n = (double)e->n_scored, mean = e->n_scored != 0 ? e->sum / n : 0.0;
    double variance = e->n_scored > 1 ? (e->sum_squares / n - mean * mean) / (n - 1.0) : 0.0;
    double perplexity = exp(mean), error = perplexity * sqrt(variance > 0.0 ? variance : 0.0);
    double rate = e->seconds > 0.0 ? (double)e->n_ids / e->seconds : 0.0;
    if (e->session->settings->json) {
        putchar('{');
        print_json_real("perplexity", perplexity, e->n_scored != 0);
        print_json_real("standard_error", error, e->n_scored != 0);
        printf("\"tokens\": %zu, \"scored\": %zu, \"windows\": %zu, \"n_ctx\": %u, "
               "\"seconds\": %.6f, \"tokens_per_s\": %.3f}\n",
               e->n_ids, e->n_scored, e->n_windows, e->session->context.n_ctx, e->seconds, rate);
        return;
    }
    if (e->n_scored != 0) {
        printf("perplexity %.4f +- %.4f\n", perplexity, error);
    } else {
        printf("perplexity: one token has nothing before it to be predicted from\n");
    }
    printf("%zu token%s, %zu scored, %zu window%s of %u, %.3f s, %.1f tokens/s\n", e->n_ids,
           e->n_ids == 1 ? "" : "s", e->n_scored, e->n_windows, e->n_windows == 1 ? "" : "s",
           e->session->context.n_ctx, e->seconds, rate);
}

static int evaluate(struct evaluation *e) {
    struct session *s = e->session;
    const struct settings *set = s->settings;
    uint64_t most = s->info.n_ctx_train < DEFAULT_CTX ? s->info.n_ctx_train : DEFAULT_CTX;
    uint64_t n_ctx = set->n_ctx != CTX_CHOSEN ? session_ctx_asked(s) : most;
    n_ctx = e->n_ids < n_ctx ? e->n_ids : n_ctx; /* positions that no token comes to take memory */
    uint64_t row_bytes = (uint64_t)s->info.n_vocab * sizeof(float);
    uint64_t n_chunk = chunk_bytes / row_bytes;
    n_chunk = n_chunk < CHUNK_LEAST ? CHUNK_LEAST : n_chunk > CHUNK_TOKENS ? CHUNK_TOKENS : n_chunk;
    s->n_logits = (uint32_t)(n_chunk < n_ctx ? n_chunk : n_ctx);
    s->n_logits_least = CHUNK_LEAST;
    int rc = session_open_context(s, (uint32_t)n_ctx, (uint32_t)set->n_threads);
    if (rc != 0) {
        return rc;
    }
    e->n_chunk = s->context.n_logits;
    e->logits = malloc(e->n_chunk * row_bytes);
    if (e->logits == NULL) {
        return complain_memory();
    }
    if (set->logits != NULL) {
        rc = npy_open(&e->npy, set->logits, e->n_ids, s->info.n_vocab);
    }
    if (rc == 0) {
        rc = run_windows(e);
    }
    int closed = files_close(&e->npy, rc == 0);
    rc = rc != 0 ? rc : closed;
    if (rc == 0) {
        print_result(e);
    }
    if (rc == 0 || rc == EXIT_INTERRUPTED) { /* what moved until then */
        struct ot_run run = {.prompt = e->ids, .n_prompt = e->n_ids, .prompt_s = e->seconds};
        int reported = session_report(s, &run, rc == 0 && !set->quiet);
        rc = rc != 0 ? rc : reported;
    }
    free(e->logits);
    return rc;
}

static int read_tokens(const struct session *s, uint32_t **ids, size_t *n_ids) {
    const struct settings *set = s->settings;
    bool as_ids = set->ids != NULL;
    char *text = NULL;
    size_t bytes = 0;
    int rc = as_ids ? input_read(set, NULL, set->ids, &text, &bytes)
                    : input_read_prompt(set, &text, &bytes);
    if (rc != 0) {
        return rc;
    }
    if (as_ids) {
        rc = input_ids(set->ids, text, bytes, s->info.n_vocab, false, ids, n_ids);
    } else {
        struct ot_error err;
        if (ot_tokenize(s->model, text, bytes, OT_TOK_ADD_SPECIAL, ids, n_ids, &err) != 0) {
            rc = complain_error(&err);
        }
    }
    free(text);
    if (rc == 0 && *n_ids == 0) {
        complain("the text is empty: there is nothing to evaluate");
        rc = as_ids ? EXIT_FAILED : EXIT_USAGE;
    }
    return rc;
}

int command_eval(const struct settings *set) {
    struct session s;
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    if (set->ids != NULL && (set->file != NULL || set->prompt != NULL)) {
        complain("eval: --ids and a text were given: one of them");
        return EXIT_USAGE;
    }
    stop_watch();
    int rc = session_open_model(&s, set, false);
    if (rc == 0) {
        rc = read_tokens(&s, &ids, &n_ids);
    }
    if (rc == 0) {
        struct evaluation e = {.session = &s, .ids = ids, .n_ids = n_ids};
        rc = evaluate(&e);
    }
    if (set->ids != NULL) {
        free(ids);
    } else {
        ot_free(ids);
    }
    session_close(&s);
    return rc;
}
