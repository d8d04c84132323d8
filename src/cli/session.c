/* session.c - opening and reporting, the same for run, eval and bench. */
#include "cli/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/files.h"
#include "cli/model_path.h"

int session_open_model(struct session *s, const struct settings *settings, bool vocab_only) {
    memset(s, 0, sizeof *s);
    s->start_s = now_s();
    s->settings = settings;
    int rc = files_check(settings);
    if (rc != 0) {
        return rc;
    }
    s->path = model_path(settings->operand);
    if (s->path == NULL) {
        return complain_memory();
    }
    if (access(s->path, F_OK) != 0 && errno == ENOENT &&
        (rc = model_complain_absent(settings->operand)) != 0) {
        return rc;
    }
    struct ot_error err;
    struct ot_model_params params = {.vocab_only = vocab_only};
    if (ot_model_open(s->path, &params, &s->model, &err) != 0) {
        return complain_error(&err);
    }
    ot_model_get_info(s->model, &s->info);
    return 0;
}

static void request(struct session *s, const char *key, const char *value) {
    s->requested[s->n_requested++] = key;
    s->requested[s->n_requested++] = value;
}

static void request_number(struct session *s, int slot, const char *key, int64_t value) {
    if (value == 0) {
        request(s, key, "auto");
        return;
    }
    snprintf(s->numbers[slot], sizeof s->numbers[slot], "%lld", (long long)value);
    request(s, key, s->numbers[slot]);
}

uint32_t session_ctx_asked(const struct session *s) {
    int64_t asked = s->settings->n_ctx;
    return asked == CTX_OF_MODEL ? s->info.n_ctx_train : (uint32_t)asked;
}

static void note_requests(struct session *s, uint32_t n_threads) {
    static const char *const residencies[] = {"auto", "cache", "wired", "stream"};
    static const char *const ios[] = {"auto", "uring", "threads"};
    const struct settings *set = s->settings;
    s->n_requested = 0;
    request(s, "ram", set->ram.text != NULL ? set->ram.text : "auto");
    request(s, "residency", residencies[set->residency]);
    request(s, "io", ios[set->io]);
    request_number(s, 0, "threads", n_threads);
    request_number(s, 1, "ctx", set->n_ctx == CTX_CHOSEN ? 0 : session_ctx_asked(s));
    request_number(s, 2, "batch", set->n_batch);
    snprintf(s->numbers[3], sizeof s->numbers[3], "%lld", (long long)set->n_draft);
    request(s, "draft", !s->guesses ? "-" : set->n_draft < 0 ? "auto" : s->numbers[3]);
}

/* Percent on the terminal's line; -1: nothing is shown. */
static int shown_percent = -1;

static void show_progress(void *user, uint64_t done, uint64_t total) {
    (void)user;
    int percent = total != 0 ? (int)(100.0 * (double)done / (double)total) : 100;
    if (percent != shown_percent) {
        shown_percent = percent;
        fprintf(stderr, "\rloading %d %%", percent);
        fflush(stderr);
    }
}

void progress_clear(void) {
    if (shown_percent >= 0) {
        fprintf(stderr, "\r\033[K");
        fflush(stderr);
        shown_percent = -1;
    }
}

int session_open_context(struct session *s, uint32_t n_ctx, uint32_t n_threads) {
    const struct settings *set = s->settings;
    struct ot_context_params params;
    ot_context_default_params(&params);
    params.n_ctx = n_ctx;
    params.n_ctx_least = s->least_ctx;
    params.n_seq = s->n_seq;
    params.n_kv = s->n_kv;
    params.n_threads = n_threads;
    params.ram_bytes = set->ram.bytes;
    params.residency = (enum ot_residency)set->residency;
    params.io = (enum ot_io)set->io;
    params.n_batch = (uint32_t)set->n_batch;
    if (s->guesses) {
        params.n_draft = set->n_draft < 0 ? OT_DRAFT_AUTO : (uint32_t)set->n_draft;
    }
    params.n_logits = s->n_logits;
    params.n_logits_least = s->n_logits_least;
    params.trace_path = set->trace;
    params.stop = &stop_flag;
    if (isatty(STDERR_FILENO) && !set->quiet) {
        params.progress = show_progress;
    }
    note_requests(s, n_threads);
    struct ot_error err;
    int rc = ot_context_open(s->model, &params, &s->ctx, &err);
    progress_clear();
    if (rc != 0) {
        s->ctx = NULL;
        return complain_error(&err);
    }
    ot_context_get_info(s->ctx, &s->context);
    if (s->context.n_ctx > s->info.n_ctx_train && !set->quiet) {
        fprintf(stderr,
                "onetrip: the model was made for %u positions, the context has %u: what goes "
                "beyond the model's own may read badly\n",
                s->info.n_ctx_train, s->context.n_ctx);
    }
    s->load_s = now_s() - s->start_s;
    return 0;
}

int session_report(struct session *s, const struct ot_run *run, bool print) {
    struct ot_run whole = *run;
    struct ot_error err;
    int exit_code = 0;
    whole.requested = s->requested;
    whole.n_requested = s->n_requested / 2;
    whole.load_s = s->load_s;
    if (print && ot_report_print(s->ctx, &whole, stderr, &err) != 0) {
        exit_code = complain_error(&err);
    }
    const char *report = s->settings->report, *ledger = s->settings->ledger;
    struct stop_held held;
    if (report != NULL) {
        stop_hold(&held, report);
        if (ot_report_write(s->ctx, &whole, report, &err) != 0) {
            exit_code = complain_error(&err);
        }
        stop_release(&held);
    }
    if (ledger != NULL) {
        stop_hold(&held, ledger);
        if (ot_ledger_write(s->ctx, ledger, &err) != 0) {
            exit_code = complain_error(&err);
        }
        stop_release(&held);
    }
    return exit_code;
}

void session_close(struct session *s) {
    ot_context_close(s->ctx);
    ot_model_close(s->model);
    free(s->path);
    memset(s, 0, sizeof *s);
}
