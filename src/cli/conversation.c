/* conversation.c - turns on a terminal: a line in, an answer out, the history kept.
 *
 * Every turn renders the whole conversation; what the context already holds of it is not computed
 * again. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#include "cli/answer.h"

struct history {
    struct ot_message *messages; /* owned [n]; so are their texts */
    size_t n, capacity;
};

static bool history_add(struct history *h, enum ot_role role, const char *text, size_t bytes) {
    if (h->n == h->capacity) {
        size_t capacity = 2 * h->capacity + 8;
        struct ot_message *moved = realloc(h->messages, capacity * sizeof *moved);
        if (moved == NULL) {
            return false;
        }
        h->messages = moved;
        h->capacity = capacity;
    }
    char *copy = malloc(bytes + 1);
    if (copy == NULL) {
        return false;
    }
    if (bytes != 0) {
        memcpy(copy, text, bytes);
    }
    copy[bytes] = '\0';
    h->messages[h->n++] = (struct ot_message){role, copy, bytes};
    return true;
}

static void history_cut(struct history *h, size_t n) {
    while (h->n > n) {
        free((char *)h->messages[--h->n].text);
    }
}

static bool history_start(struct history *h, const struct settings *set) {
    history_cut(h, 0);
    return set->system == NULL || history_add(h, OT_ROLE_SYSTEM, set->system, strlen(set->system));
}

/* One question. A question that could not be answered is taken out of the history. */
static int take_turn(struct session *s, struct answerer *a, struct history *h, const char *format,
                     const char *line, size_t bytes) {
    size_t before = h->n;
    struct stream out = {.stops = s->settings->stops, .n_stops = s->settings->n_stops};
    enum finish finish = FINISH_END;
    struct ot_error err;
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    if (!history_add(h, OT_ROLE_USER, line, bytes)) {
        return complain_memory();
    }
    stop_reset();
    int rc = ot_chat_tokenize(s->model, format, h->messages, h->n, &ids, &n_ids, &err);
    rc = rc != 0 ? complain_error(&err) : answer(a, ids, n_ids, &out, &finish);
    ot_free(ids);
    if (rc != 0) {
        history_cut(h, before);
    } else {
        rc = output_write("\n", out.last != '\n');
        if (!history_add(h, OT_ROLE_ASSISTANT, out.text_bytes != 0 ? out.text : "",
                         out.text_bytes)) {
            rc = complain_memory();
        }
        if (finish == FINISH_FULL) {
            fprintf(stderr, "(the context is full, %u tokens: /reset begins a new conversation)\n",
                    s->context.n_ctx);
        }
    }
    stream_deinit(&out);
    stop_reset();
    return rc;
}

static void print_commands(void) {
    fprintf(stderr, "/help    this\n/ledger  what moved so far\n/reset   forget the conversation\n"
                    "Ctrl-C   stop an answer\nCtrl-D   leave\n");
}

static void run_command(struct session *s, struct answerer *a, struct history *h,
                        const char *line) {
    if (strcmp(line, "/ledger") == 0) {
        struct ot_run run = answerer_run(a);
        struct ot_error err;
        run.requested = s->requested;
        run.n_requested = s->n_requested / 2;
        run.load_s = s->load_s;
        if (ot_report_print(s->ctx, &run, stderr, &err) != 0) {
            complain_error(&err);
        }
    } else if (strcmp(line, "/reset") == 0) {
        if (!history_start(h, s->settings)) {
            complain_memory();
        }
        fprintf(stderr, "(a new conversation)\n");
    } else {
        if (strcmp(line, "/help") != 0) {
            fprintf(stderr, "%s is no command\n", line);
        }
        print_commands();
    }
}

/* Waits until a line can be read; false where Ctrl-C came first, also one from before the wait. */
static bool wait_for_line(void) {
    sigset_t interrupt, before;
    fd_set input;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &before);
    FD_ZERO(&input);
    FD_SET(STDIN_FILENO, &input);
    bool ready =
        stop_flag == 0 && pselect(STDIN_FILENO + 1, &input, NULL, NULL, NULL, &before) >= 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    return ready;
}

/* A line without its end; -1 at the end of input. A Ctrl-C gives an empty line. */
static ssize_t ask(char **line, size_t *capacity) {
    fprintf(stderr, "> ");
    fflush(stderr);
    if (!wait_for_line()) {
        stop_reset();
        fprintf(stderr, "\n(Ctrl-D leaves)\n");
        return 0;
    }
    ssize_t n = getline(line, capacity, stdin);
    while (n > 0 && ((*line)[n - 1] == '\n' || (*line)[n - 1] == '\r')) {
        (*line)[--n] = '\0';
    }
    return n;
}

int conversation(struct session *s, const char *format) {
    struct answerer a;
    struct history h = {0};
    char *line = NULL;
    size_t capacity = 0;
    int rc = answerer_open(&a, s);
    if (rc == 0 && !history_start(&h, s->settings)) {
        rc = complain_memory();
    }
    if (rc == 0 && !s->settings->quiet) {
        fprintf(stderr, "%s; /help tells more, Ctrl-D leaves\n",
                s->info.name[0] != '\0' ? s->info.name : s->path);
    }
    for (ssize_t n; rc == 0 && (n = ask(&line, &capacity)) >= 0;) {
        if (n == 0) {
            continue;
        }
        if (line[0] == '/') {
            run_command(s, &a, &h, line);
            continue;
        }
        /* A turn that failed was explained; the conversation goes on, unless nobody listens. */
        if (take_turn(s, &a, &h, format, line, (size_t)n) == EXIT_PIPE) {
            rc = EXIT_PIPE;
        }
    }
    fprintf(stderr, "\n");
    struct ot_run run = answerer_run(&a);
    int reported = session_report(s, &run, !s->settings->quiet);
    history_cut(&h, 0);
    free(h.messages);
    free(line);
    answerer_close(&a);
    return rc != 0 ? rc : reported;
}
