/* run.c - `onetrip run`: one answer, or a conversation on a terminal. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/answer.h"
#include "cli/conversation.h"
#include "cli/input.h"
#include "cli/output.h"
#include "cli/session.h"

enum { DEFAULT_CTX = 4096, ROOM_FOR_ANSWER = 512, LEAST_TALK = 1024 };

static void note(const struct settings *set, const char *text) {
    if (!set->quiet) {
        fprintf(stderr, "onetrip: %s\n", text);
    }
}

static bool knows_chatml(const struct session *s) {
    static const char mark[] = "<|im_start|>";
    uint32_t *ids = NULL;
    size_t n = 0;
    if (ot_tokenize(s->model, mark, strlen(mark), OT_TOK_PARSE_SPECIAL, &ids, &n, NULL) != 0) {
        return false;
    }
    ot_free(ids);
    return n == 1;
}

/* How the text is put to the model: raw, or by a chat format (NULL: the file's own). */
static int choose_format(const struct session *s, bool *raw, const char **format) {
    const struct settings *set = s->settings;
    *raw = set->raw;
    *format = set->chat;
    if (set->raw && (set->chat != NULL || set->system != NULL)) {
        complain("--raw leaves no place for --system and --chat-template");
        return EXIT_USAGE;
    }
    if (set->raw || set->chat != NULL || s->info.chat_format[0] != '\0') {
        return 0;
    }
    if (knows_chatml(s)) {
        note(set,
             "the file's chat template is none of the known ones; ChatML is used (--raw: none)");
        *format = "chatml";
        return 0;
    }
    note(set, "the file has no chat template that is known; the text goes in as it is, as with "
              "--raw (--chat-template chooses one)");
    *raw = true;
    if (set->system != NULL) {
        complain("--system needs a chat template");
        return EXIT_USAGE;
    }
    return 0;
}

static int tokenize(const struct session *s, bool raw, const char *format, const char *text,
                    size_t bytes, uint32_t **ids, size_t *n_ids) {
    const struct settings *set = s->settings;
    struct ot_error err;
    int rc;
    if (raw) {
        rc = ot_tokenize(s->model, text, bytes, OT_TOK_ADD_SPECIAL | OT_TOK_PARSE_SPECIAL, ids,
                         n_ids, &err);
    } else {
        struct ot_message messages[2];
        size_t n = 0;
        if (set->system != NULL) {
            messages[n++] = (struct ot_message){OT_ROLE_SYSTEM, set->system, strlen(set->system)};
        }
        messages[n++] = (struct ot_message){OT_ROLE_USER, text, bytes};
        rc = ot_chat_tokenize(s->model, format, messages, n, ids, n_ids, &err);
    }
    if (rc != 0) {
        return complain_error(&err);
    }
    if (*n_ids == 0) {
        complain("the prompt has no tokens");
        return EXIT_FAILED;
    }
    return 0;
}

/* The context that -c asks for; else one that holds the prompt and the answer, as far as the model
 * goes. Where -n bounds the answer it is no longer than that: KV that is never used would take its
 * place in the budget from weights. Where nothing bounds it, a short one will do if the budget has
 * no room for more. */
static int choose_ctx(struct session *s, size_t n_ids, uint32_t *n_ctx) {
    const struct settings *set = s->settings;
    uint32_t most = s->info.n_ctx_train;
    if (set->n_ctx != CTX_CHOSEN) {
        *n_ctx = session_ctx_asked(s);
    } else {
        uint64_t least = n_ids + (uint64_t)(set->n_predict >= 0 ? set->n_predict : ROOM_FOR_ANSWER);
        uint64_t wanted = set->n_predict < 0 && least < DEFAULT_CTX ? DEFAULT_CTX : least;
        *n_ctx = wanted < most ? (uint32_t)wanted : most;
        s->least_ctx = least < most ? (uint32_t)least : most;
    }
    if (n_ids > *n_ctx) {
        complain("the prompt has %zu tokens, the context holds %u (the model was made for %u): use "
                 "a larger -c or a shorter text",
                 n_ids, *n_ctx, most);
        return EXIT_FAILED;
    }
    return 0;
}

static int finish_answer(const struct session *s, enum finish finish, const struct stream *out) {
    if (out->last != 0 && out->last != '\n') {
        int rc = output_write("\n", 1);
        if (rc != 0) {
            return rc;
        }
    }
    if (finish == FINISH_FULL && !s->settings->quiet) {
        fprintf(stderr, "onetrip: the context is full (%u tokens); -c makes it larger\n",
                s->context.n_ctx);
    }
    return finish == FINISH_INTERRUPTED ? EXIT_INTERRUPTED : EXIT_OK;
}

static int answer_once(struct session *s, const uint32_t *ids, size_t n_ids) {
    struct answerer a;
    struct stream out = {.stops = s->settings->stops, .n_stops = s->settings->n_stops};
    enum finish finish = FINISH_END;
    int rc = answerer_open(&a, s);
    if (rc == 0) {
        rc = answer(&a, ids, n_ids, &out, &finish);
        if (rc == 0) {
            rc = finish_answer(s, finish, &out);
        }
        struct ot_run run = answerer_run(&a);
        int reported = session_report(s, &run, !s->settings->quiet);
        rc = rc != 0 ? rc : reported;
    }
    stream_deinit(&out);
    answerer_close(&a);
    return rc;
}

static int run_once(struct session *s, bool raw, const char *format) {
    const struct settings *set = s->settings;
    char *text = NULL;
    size_t bytes = 0;
    int rc = input_read_prompt(set, &text, &bytes);
    if (rc != 0) {
        return rc;
    }
    /* A text file or an echo ends in a newline that nobody meant to say. */
    if (!raw && set->prompt == NULL && bytes > 0 && text[bytes - 1] == '\n') {
        bytes--;
    }
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    if (bytes == 0) {
        complain("the prompt is empty: give a text by -p, -f or standard input");
        rc = EXIT_USAGE;
    } else {
        rc = tokenize(s, raw, format, text, bytes, &ids, &n_ids);
    }
    free(text);
    uint32_t n_ctx = 0;
    if (rc == 0) {
        rc = choose_ctx(s, n_ids, &n_ctx);
    }
    if (rc == 0) {
        rc = session_open_context(s, n_ctx, (uint32_t)set->n_threads);
    }
    if (rc == 0) {
        rc = answer_once(s, ids, n_ids);
    }
    ot_free(ids);
    return rc;
}

static int run_conversation(struct session *s, bool raw, const char *format) {
    if (raw) {
        complain("a conversation needs a chat template: give the text by -p, or choose one by "
                 "--chat-template");
        return EXIT_USAGE;
    }
    const struct settings *set = s->settings;
    uint32_t most = s->info.n_ctx_train, n_ctx = most < DEFAULT_CTX ? most : DEFAULT_CTX;
    if (set->n_ctx != CTX_CHOSEN) {
        n_ctx = session_ctx_asked(s);
    } else {
        s->least_ctx = most < LEAST_TALK ? most : LEAST_TALK;
    }
    int rc = session_open_context(s, n_ctx, (uint32_t)set->n_threads);
    return rc != 0 ? rc : conversation(s, format);
}

int command_run(const struct settings *set) {
    struct session s;
    bool raw = false;
    const char *format = NULL;
    stop_watch();
    int rc = session_open_model(&s, set, false);
    s.guesses = true;
    if (rc == 0) {
        rc = choose_format(&s, &raw, &format);
    }
    if (rc == 0) {
        bool talk = set->prompt == NULL && set->file == NULL && isatty(STDIN_FILENO);
        rc = talk ? run_conversation(&s, raw, format) : run_once(&s, raw, format);
    }
    session_close(&s);
    return rc;
}
