/* conversation.c - turns on a terminal: a text in, an answer out, the history kept.
 *
 * A text is a line; a line that ends in a backslash goes on in the next, and so do lines that came
 * at once, as a paste does. /read puts a file before the text that is typed next.
 *
 * Every turn renders the whole conversation; what the context already holds of it is not computed
 * again. */
#include "cli/conversation.h"

#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#include "cli/answer.h"
#include "cli/files.h"
#include "cli/input.h"

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

/* What the user is typing. */
struct question {
    char *text; /* owned [bytes] */
    size_t bytes, capacity, most;
    char *line; /* owned: getline's */
    size_t line_capacity;
};

/* False after a message. */
static bool question_add(struct question *q, const char *text, size_t bytes) {
    if (bytes > q->most - q->bytes) {
        input_too_long("what you say", q->most);
        return false;
    }
    if (!bytes_append(&q->text, &q->bytes, &q->capacity, text, bytes)) {
        complain_memory();
        return false;
    }
    return true;
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
    if (rc != 0) {
        rc = complain_error(&err);
    } else if (n_ids > s->context.n_ctx) {
        complain("with this the conversation has %zu tokens, the context holds %u: /clear begins a new "
                 "one, a larger -c holds more",
                 n_ids, s->context.n_ctx);
        rc = EXIT_FAILED;
    } else {
        rc = answer(a, ids, n_ids, &out, &finish);
    }
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
            fprintf(stderr, "(the context is full, %u tokens: /clear begins a new conversation)\n",
                    s->context.n_ctx);
        }
    }
    stream_deinit(&out);
    stop_reset();
    return rc;
}

/* Of a conversation, the time to the first token would tell how long somebody typed. */
static struct ot_run run_so_far(const struct answerer *a) {
    struct ot_run run = answerer_run(a);
    run.first_token_s = 0.0;
    return run;
}

static void print_ledger(struct session *s, const struct answerer *a) {
    struct ot_run run = run_so_far(a);
    struct ot_error err;
    run.requested = s->requested;
    run.n_requested = s->n_requested / 2;
    run.load_s = s->load_s;
    if (ot_report_print(s->ctx, &run, stderr, &err) != 0) {
        complain_error(&err);
    }
}

/* The text of a file, to go before what is typed next. */
static void read_file(const struct settings *set, struct question *q, const char *path) {
    char *text = NULL;
    size_t bytes = 0;
    const char *option = files_option_of(set, path);
    if (path[0] == '\0') {
        fprintf(stderr, "/read needs the name of a file\n");
    } else if (option != NULL) {
        complain("%s: is the file of %s, which is written over; it is not read", path, option);
    } else if (input_read(set, NULL, path, &text, &bytes) == 0) {
        size_t before = q->bytes;
        if (question_add(q, text, bytes) && question_add(q, "\n", 1)) {
            fprintf(stderr, "(%zu bytes go before what you type next)\n", bytes);
        } else {
            q->bytes = before;
        }
    }
    free(text);
}

/* True where the conversation is to end. Blanks at the end of the line are nobody's. */
static bool run_command(struct session *s, struct answerer *a, struct history *h,
                        struct question *q, char *line) {
    for (size_t n = strlen(line); n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t'); n--) {
        line[n - 1] = '\0';
    }
    if (strcmp(line, "/exit") == 0) {
        return true;
    }
    if (strcmp(line, "/ledger") == 0) {
        print_ledger(s, a);
    } else if (strcmp(line, "/clear") == 0) {
        q->bytes = 0;
        if (!history_start(h, s->settings)) {
            complain_memory();
        }
        fprintf(stderr, "(a new conversation)\n");
    } else if (strncmp(line, "/read", 5) == 0 && (line[5] == ' ' || line[5] == '\0')) {
        read_file(s->settings, q, line + 5 + strspn(line + 5, " "));
    } else if (strcmp(line, "/help") != 0) {
        print_safe(line, 0, stderr);
        fprintf(stderr, " is no command: /help lists them, a space before it makes it text\n");
    } else {
        fprintf(stderr, "/read FILE  put a file before what you type next\n"
                        "/clear      forget the conversation\n"
                        "/ledger     what moved so far\n"
                        "/exit       leave, as Ctrl-D does\n"
                        "Ctrl-C      stop an answer\n"
                        "A line that ends in \\ goes on in the next; a paste is one text.\n");
    }
    return false;
}

/* Waits until a line can be read; false where a signal came first, also one from before the wait.
 */
static bool wait_for_line(void) {
    sigset_t before;
    fd_set input;
    stop_block(&before);
    FD_ZERO(&input);
    FD_SET(STDIN_FILENO, &input);
    bool ready =
        stop_flag == 0 && pselect(STDIN_FILENO + 1, &input, NULL, NULL, NULL, &before) >= 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    return ready;
}

/* Whether another line is there at once, as in a paste. */
static bool line_follows(void) {
    struct timeval at_once = {.tv_usec = 20000};
    fd_set input;
    FD_ZERO(&input);
    FD_SET(STDIN_FILENO, &input);
    return select(STDIN_FILENO + 1, &input, NULL, NULL, &at_once) > 0;
}

/* The rest of a paste, of which a part is lost. */
static void drop_paste(struct question *q) {
    while (line_follows() && getline(&q->line, &q->line_capacity, stdin) >= 0) {
    }
}

enum asked { ASKED, ASKED_NOTHING, ASKED_COMMAND, ASKED_END };

/* Adds a line, and those that belong to it, to the question. A command is left in q->line. */
static enum asked ask(struct question *q) {
    enum { TERMINAL_BYTES = 4096 }; /* the longest line that a terminal passes on, with its end */
    bool first = true, goes_on = true;
    while (goes_on) {
        fprintf(stderr, first ? "> " : "  ");
        fflush(stderr);
        if (!wait_for_line()) {
            if (stop_program != 0) {
                return ASKED_END;
            }
            stop_reset();
            fprintf(stderr, "\n(Ctrl-D leaves)\n");
            return ASKED_NOTHING;
        }
        do {
            ssize_t n = getline(&q->line, &q->line_capacity, stdin);
            if (n < 0) {
                return ASKED_END;
            }
            if (n == TERMINAL_BYTES) {
                drop_paste(q);
                fprintf(stderr,
                        "(the terminal cut a line off at %d bytes: /read FILE takes longer ones)\n",
                        TERMINAL_BYTES - 1);
                return ASKED_NOTHING;
            }
            while (n > 0 && (q->line[n - 1] == '\n' || q->line[n - 1] == '\r')) {
                q->line[--n] = '\0';
            }
            if (first && q->line[0] == '/') {
                return ASKED_COMMAND;
            }
            if (first && n == 0) {
                return ASKED_NOTHING;
            }
            goes_on = n > 0 && q->line[n - 1] == '\\';
            if ((!first && !question_add(q, "\n", 1)) ||
                !question_add(q, q->line, (size_t)n - goes_on)) {
                return ASKED_NOTHING;
            }
            first = false;
        } while (line_follows());
    }
    return ASKED;
}

/* The exit code of what ended the conversation. */
static int converse(struct session *s, struct answerer *a, struct history *h, struct question *q,
                    const char *format) {
    bool leave = false;
    while (!leave && stop_program == 0) {
        size_t before = q->bytes; /* of files that were read */
        switch (ask(q)) {
        case ASKED_END: leave = true; break;
        case ASKED_NOTHING: q->bytes = before; break;
        case ASKED_COMMAND: leave = run_command(s, a, h, q, q->line); break;
        case ASKED: {
            /* A turn that failed was explained; it goes on, unless nobody listens. */
            int rc = take_turn(s, a, h, format, q->text, q->bytes);
            if (rc == EXIT_PIPE) {
                return rc;
            }
            q->bytes = 0;
        }
        }
    }
    return stop_program != 0 ? EXIT_INTERRUPTED : EXIT_OK;
}

int conversation(struct session *s, const char *format) {
    struct answerer a;
    struct history h = {0};
    struct question q = {.most = input_most_bytes(s->settings)};
    int rc = answerer_open(&a, s);
    if (rc == 0 && !history_start(&h, s->settings)) {
        rc = complain_memory();
    }
    if (rc == 0) {
        if (!s->settings->quiet) {
            print_safe(s->info.name[0] != '\0' ? s->info.name : s->path, 0, stderr);
            fprintf(stderr, "; /help tells more, Ctrl-D leaves\n");
        }
        rc = converse(s, &a, &h, &q, format);
        fprintf(stderr, "\n");
        struct ot_run run = run_so_far(&a);
        int reported = session_report(s, &run, !s->settings->quiet);
        rc = rc != 0 ? rc : reported;
    }
    history_cut(&h, 0);
    free(h.messages);
    free(q.text);
    free(q.line);
    answerer_close(&a);
    return rc;
}
