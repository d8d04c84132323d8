/* answer.c - one prompt through the model, then token by token until something ends the answer. */
#include "cli/answer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool id_list_add(struct id_list *list, const uint32_t *ids, size_t n) {
    if (list->capacity - list->n < n) {
        size_t capacity = list->capacity + list->capacity / 2 + n + 64;
        uint32_t *moved = realloc(list->ids, capacity * sizeof *moved);
        if (moved == NULL) {
            return false;
        }
        list->ids = moved;
        list->capacity = capacity;
    }
    if (n != 0) {
        memcpy(list->ids + list->n, ids, n * sizeof *ids);
    }
    list->n += n;
    return true;
}

static int open_sampler(struct answerer *a) {
    const struct settings *set = a->session->settings;
    uint32_t n_ctx = a->session->context.n_ctx;
    struct ot_sampler_params params;
    ot_sampler_default_params(&params);
    uint64_t by_clock = (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid();
    params.seed = set->seed >= 0 ? (uint64_t)set->seed : by_clock;
    params.temperature = (float)set->temperature;
    params.top_k = (uint32_t)set->top_k;
    params.top_p = (float)set->top_p;
    params.min_p = (float)set->min_p;
    params.repeat_penalty = (float)set->repeat_penalty;
    params.repeat_last_n = set->repeat_last_n >= 0     ? (uint32_t)set->repeat_last_n
                           : n_ctx < MAX_REPEAT_LAST_N ? n_ctx
                                                       : MAX_REPEAT_LAST_N;
    struct ot_error err;
    if (ot_sampler_open(a->session->info.n_vocab, &params, &a->sampler, &err) != 0) {
        a->sampler = NULL;
        return complain_error(&err);
    }
    return 0;
}

static int find_enders(struct answerer *a) {
    uint32_t n_vocab = a->session->info.n_vocab;
    a->enders = calloc((size_t)n_vocab + 1, sizeof *a->enders);
    if (a->enders == NULL) {
        return complain_memory();
    }
    for (uint32_t id = 0; id < n_vocab; id++) {
        if (ot_token_ends(a->session->model, id)) {
            a->enders[a->n_enders++] = id;
        }
    }
    return 0;
}

int answerer_open(struct answerer *a, struct session *session) {
    memset(a, 0, sizeof *a);
    a->session = session;
    uint32_t n_draft = session->context.n_draft;
    struct ot_error err;
    a->logits = calloc((1 + (size_t)n_draft) * session->info.n_vocab, sizeof *a->logits);
    if (a->logits == NULL || ot_drafter_open(n_draft, &a->drafter, &err) != 0) {
        return complain_memory();
    }
    int rc = open_sampler(a);
    if (rc == 0 && session->settings->ignore_eos) {
        rc = find_enders(a);
    }
    return rc;
}

void answerer_close(struct answerer *a) {
    ot_sampler_close(a->sampler);
    ot_drafter_close(a->drafter);
    free(a->logits);
    free(a->enders);
    free(a->held.ids);
    free(a->prompt.ids);
    free(a->generated.ids);
    memset(a, 0, sizeof *a);
}

/* Runs a prompt's tokens through the model; the last one's logits come out. 0, or a negative OT_ERR
 * code. */
static int decode_prompt(struct answerer *a, const uint32_t *ids, size_t n, struct ot_error *err) {
    struct ot_input *inputs = calloc(n, sizeof *inputs);
    if (inputs == NULL) {
        *err = (struct ot_error){.code = OT_ERR_MEMORY, .message = "no memory for the prompt"};
        return OT_ERR_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        inputs[i] = (struct ot_input){.token = ids[i], .want_logits = i + 1 == n};
    }
    int rc = ot_decode(a->session->ctx, inputs, (uint32_t)n, a->logits, err);
    if (rc == 0 && !id_list_add(&a->held, ids, n)) {
        *err = (struct ot_error){.code = OT_ERR_MEMORY, .message = "no memory for the tokens"};
        rc = OT_ERR_MEMORY;
    }
    free(inputs);
    a->n_guessed = a->n_right = 0;
    a->call_s = 0.0;
    return rc;
}

/* Runs the token that was picked, and guesses of what follows it. */
static int decode_next(struct answerer *a, uint32_t token, uint32_t n_most, struct ot_error *err) {
    struct ot_context *ctx = a->session->ctx;
    struct ot_input inputs[1 + MAX_DRAFT] = {{.token = token, .want_logits = true}};
    ot_drafter_learn(a->drafter, a->n_right, a->call_s);
    ot_seq_truncate(ctx, 0, (uint32_t)a->held.n); /* wrong guesses */
    if (!id_list_add(&a->held, &token, 1)) {
        *err = (struct ot_error){.code = OT_ERR_MEMORY, .message = "no memory for the tokens"};
        return OT_ERR_MEMORY;
    }
    a->n_guessed = ot_drafter_guess(a->drafter, a->held.ids, a->held.n, n_most, a->guessed);
    for (uint32_t i = 0; i < a->n_guessed; i++) {
        inputs[1 + i] = (struct ot_input){.token = a->guessed[i], .want_logits = true};
    }
    double start = now_s();
    int rc = ot_decode(ctx, inputs, 1 + a->n_guessed, a->logits, err);
    a->call_s = now_s() - start;
    a->n_right = 0;
    if (rc != 0) {
        a->held.n--;
        a->n_guessed = 0;
        return rc;
    }
    a->decode_s += a->call_s;
    a->n_drafted += a->n_guessed;
    return 0;
}

/* Whether the token that was picked had been guessed: then the context holds it already. */
static bool was_guessed(struct answerer *a, uint32_t token) {
    if (a->n_right == a->n_guessed || a->guessed[a->n_right] != token ||
        !id_list_add(&a->held, &token, 1)) {
        return false;
    }
    a->n_right++;
    a->n_accepted++;
    return true;
}

/* Most tokens to guess after token n of the answer: as many as may still be said and held. */
static uint32_t most_guesses(const struct answerer *a, int64_t n) {
    const struct settings *set = a->session->settings;
    int64_t most = MAX_DRAFT, room = (int64_t)a->session->context.n_ctx - (int64_t)a->held.n - 1;
    if (set->n_predict >= 0 && set->n_predict - n - 2 < most) {
        most = set->n_predict - n - 2; /* the last token is picked, and never run */
    }
    most = room < most ? room : most;
    return most > 0 ? (uint32_t)most : 0;
}

/* Brings the context from what it holds to ids: common beginning kept, rest decoded. */
static int read_prompt(struct answerer *a, const uint32_t *ids, size_t n_ids,
                       struct ot_error *err) {
    size_t same = 0;
    while (same < a->held.n && same + 1 < n_ids && a->held.ids[same] == ids[same]) {
        same++;
    }
    a->held.n = same;
    int rc = ot_seq_truncate(a->session->ctx, 0, (uint32_t)same);
    if (rc != 0) {
        *err = (struct ot_error){.code = rc, .message = "the context cannot be shortened"};
        return rc;
    }
    double start = now_s();
    rc = decode_prompt(a, ids + same, n_ids - same, err);
    progress_clear();
    if (rc == 0) {
        a->prompt_s += now_s() - start;
        for (size_t i = 0; i < n_ids; i++) {
            ot_sampler_accept(a->sampler, ids[i]);
        }
        if (!id_list_add(&a->prompt, ids + same, n_ids - same)) {
            *err = (struct ot_error){.code = OT_ERR_MEMORY, .message = "no memory for the tokens"};
            rc = OT_ERR_MEMORY;
        }
    }
    return rc;
}

static int show_token(struct answerer *a, uint32_t token, struct stream *out) {
    char small[256];
    size_t n = ot_token_bytes(a->session->model, token, false, small, sizeof small);
    if (n <= sizeof small) {
        return stream_add(out, small, n);
    }
    char *large = malloc(n);
    if (large == NULL) {
        return complain_memory();
    }
    size_t now = ot_token_bytes(a->session->model, token, false, large, n);
    n = now < n ? now : n;
    int rc = stream_add(out, large, n);
    free(large);
    return rc;
}

static uint32_t pick(struct answerer *a) {
    float *logits = a->logits + (size_t)a->n_right * a->session->info.n_vocab;
    for (size_t i = 0; i < a->n_enders; i++) {
        logits[a->enders[i]] = -INFINITY;
    }
    uint32_t token = ot_sampler_pick(a->sampler, logits);
    if (a->first_token_s == 0.0) {
        a->first_token_s = now_s() - a->session->start_s;
    }
    return token;
}

/* The loop after the prompt. A negative OT_ERR code comes in *fault; the return is an exit code. */
static int generate(struct answerer *a, struct stream *out, enum finish *finish, int *fault,
                    struct ot_error *err) {
    const struct settings *set = a->session->settings;
    for (int64_t n = 0; set->n_predict < 0 || n < set->n_predict; n++) {
        uint32_t token = pick(a);
        if (!set->ignore_eos && ot_token_ends(a->session->model, token)) {
            *finish = FINISH_END;
            return 0;
        }
        if (!id_list_add(&a->generated, &token, 1)) {
            return complain_memory();
        }
        int rc = show_token(a, token, out);
        if (rc != 0) {
            return rc;
        }
        if (out->stopped) {
            *finish = FINISH_STOP;
            return 0;
        }
        if (n + 1 == set->n_predict) {
            break;
        }
        if (was_guessed(a, token)) {
            continue;
        }
        if (a->held.n >= a->session->context.n_ctx) {
            *finish = FINISH_FULL;
            return 0;
        }
        *fault = decode_next(a, token, most_guesses(a, n), err);
        if (*fault != 0) {
            return 0;
        }
    }
    *finish = FINISH_LENGTH;
    return 0;
}

int answer(struct answerer *a, const uint32_t *ids, size_t n_ids, struct stream *out,
           enum finish *finish) {
    struct ot_error err = {0};
    uint32_t n_ctx = a->session->context.n_ctx;
    if (n_ids > n_ctx) {
        complain("the prompt has %zu tokens, the context holds %u: use a larger -c (the model was "
                 "made for %u) or a shorter text",
                 n_ids, n_ctx, a->session->info.n_ctx_train);
        return EXIT_FAILED;
    }
    int exit_code = 0;
    int fault = read_prompt(a, ids, n_ids, &err);
    if (fault == 0) {
        exit_code = generate(a, out, finish, &fault, &err);
    }
    if (fault == OT_ERR_INTERRUPTED) {
        *finish = FINISH_INTERRUPTED;
        fault = 0;
    }
    int flushed = stream_flush(out);
    if (exit_code == 0) {
        exit_code = flushed;
    }
    if (fault != 0) {
        if (out->last != 0 && out->last != '\n') {
            output_write("\n", 1);
        }
        return complain_error(&err);
    }
    return exit_code;
}

struct ot_run answerer_run(const struct answerer *a) {
    return (struct ot_run){
        .prompt = a->prompt.ids,
        .n_prompt = a->prompt.n,
        .generated = a->generated.ids,
        .n_generated = a->generated.n,
        .n_drafted = a->n_drafted,
        .n_accepted = a->n_accepted,
        .first_token_s = a->first_token_s,
        .prompt_s = a->prompt_s,
        .decode_s = a->decode_s,
    };
}
