/* session.c - opening and reporting, the same for run, eval and bench. */
#include "cli/session.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/model_path.h"

volatile int stop_flag;
const char *volatile stop_unfinished;

static void on_interrupt(int number) {
    if (stop_flag != 0) {
        if (stop_unfinished != NULL) {
            unlink(stop_unfinished);
        }
        signal(number, SIG_DFL);
        raise(number); /* comes when this handler returns */
    }
    stop_flag = 1;
}

static void watch(int number) {
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

void stop_watch(void) {
    watch(SIGINT);
}

void stop_on_terminate(void) {
    watch(SIGTERM);
}

void stop_reset(void) {
    stop_flag = 0;
    stop_watch();
}

static const int held_signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { N_HELD = sizeof held_signals / sizeof *held_signals };
static volatile sig_atomic_t held;

static void on_held(int number) {
    held = number;
}

/* Until held_release a signal waits: what ends the program in the middle of a file that is renamed
 * when it is whole would leave it behind under its temporary name. False for a pipe or a device,
 * which may wait for ever and is written in place. */
static bool held_begin(const char *path, struct sigaction before[N_HELD]) {
    struct stat facts;
    if (stat(path, &facts) == 0 && !S_ISREG(facts.st_mode)) {
        return false;
    }
    struct sigaction action = {.sa_handler = on_held, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    held = 0;
    for (size_t i = 0; i < N_HELD; i++) {
        sigaction(held_signals[i], &action, &before[i]);
    }
    return true;
}

static void held_release(const struct sigaction before[N_HELD]) {
    for (size_t i = 0; i < N_HELD; i++) {
        sigaction(held_signals[i], &before[i], NULL);
    }
    if (held != 0) {
        raise(held);
    }
}

/* Why no file could be made there; 0: it could. One that is replaced when it is whole has a longer
 * name until then. */
static int folder_error(const char *path, bool replaced) {
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
    size_t room = strlen(path) + 32;
    char *name = malloc(room);
    struct stat facts;
    if (name == NULL) {
        return ENOMEM;
    }
    snprintf(name, room, "%.*s", (int)length, slash == NULL ? "." : path);
    int error = access(name, W_OK | X_OK) != 0 ? errno : 0;
    snprintf(name, room, replaced ? "%s.%ld.part" : "%s", path, (long)getpid());
    if (error == 0 && stat(name, &facts) != 0 && errno != ENOENT) {
        error = errno;
    }
    free(name);
    return error;
}

/* Whether a file could be written there: said before the work, not after it. A trace is written in
 * place, all others are replaced by a file that is whole. */
static int check_output(const char *option, const char *path) {
    if (path[0] == '\0') {
        complain("%s: the name of the file is empty", option);
        return EXIT_FAILED;
    }
    if (strcmp(path, "-") == 0) {
        complain("%s -: the name of a file is expected (/dev/stdout is standard output)", option);
        return EXIT_USAGE;
    }
    struct stat facts;
    bool there = stat(path, &facts) == 0, replaced = strcmp(option, "--trace") != 0;
    int error = 0;
    if (there) {
        error = S_ISDIR(facts.st_mode) ? EISDIR : access(path, W_OK) != 0 ? errno : 0;
    }
    if (!there || (error == 0 && replaced && S_ISREG(facts.st_mode))) {
        error = folder_error(path, replaced);
    }
    if (error != 0) {
        complain("%s %s: cannot be written: %s", option, path, strerror(error));
        return EXIT_FAILED;
    }
    return 0;
}

/* Whether both names mean one file whose content would be lost: one that is there, or one that
 * both would make. Devices and pipes may be named twice. */
static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    if (stat(a, &x) == 0 && stat(b, &y) == 0) {
        return S_ISREG(x.st_mode) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    }
    return strcmp(a, b) == 0;
}

static bool begins_as_gguf(const char *path) {
    struct stat facts;
    char magic[4] = "";
    if (stat(path, &facts) == 0 && S_ISREG(facts.st_mode)) {
        FILE *file = fopen(path, "rbe");
        size_t n = file != NULL ? fread(magic, 1, sizeof magic, file) : 0;
        if (file != NULL) {
            fclose(file);
        }
        return n == sizeof magic && memcmp(magic, "GGUF", sizeof magic) == 0;
    }
    return false;
}

/* Each file that the command writes can be written, is none that it reads, and no other model: a
 * slip of the hand must not cost one. */
static int check_outputs(const struct settings *set) {
    const char *const outputs[][2] = {{"--report", set->report},
                                      {"--ledger", set->ledger},
                                      {"--trace", set->trace},
                                      {"--logits", set->logits}};
    const char *const inputs[] = {set->file, set->ids};
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
        const char *option = outputs[i][0], *path = outputs[i][1];
        if (path == NULL) {
            continue;
        }
        int rc = check_output(option, path);
        if (rc != 0) {
            return rc;
        }
        if (begins_as_gguf(path)) {
            complain("%s %s: is a model, and is not written over", option, path);
            return EXIT_FAILED;
        }
        for (size_t k = 0; k < sizeof inputs / sizeof inputs[0]; k++) {
            if (inputs[k] != NULL && same_file(path, inputs[k])) {
                complain("%s %s: is read by this command, and is not written over", option, path);
                return EXIT_FAILED;
            }
        }
        for (size_t k = 0; k < i; k++) {
            if (outputs[k][1] != NULL && same_file(path, outputs[k][1])) {
                complain("%s %s: is the file of %s, too", option, path, outputs[k][0]);
                return EXIT_USAGE;
            }
        }
    }
    return 0;
}

int session_open_model(struct session *s, const struct settings *settings, bool vocab_only) {
    memset(s, 0, sizeof *s);
    s->start_s = now_s();
    s->settings = settings;
    int rc = check_outputs(settings);
    if (rc != 0) {
        return rc;
    }
    s->path = model_path(settings->operand);
    if (s->path == NULL) {
        return complain_memory();
    }
    if (access(s->path, F_OK) != 0 && strchr(settings->operand, '/') == NULL) {
        char cache[512];
        if (model_cache(cache, sizeof cache)[0] == '\0') {
            complain("%s: no such file here, and no folder for models: neither HOME nor "
                     "XDG_CACHE_HOME is set",
                     settings->operand);
            return EXIT_FAILED;
        }
        complain("%s: no such file here, and no model of that name in %s (make model "
                 "NAME=smollm2 fetches one)",
                 settings->operand, cache);
        return EXIT_FAILED;
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

static void note_requests(struct session *s, uint32_t n_threads, uint32_t n_draft) {
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
    snprintf(s->numbers[3], sizeof s->numbers[3], "%u", n_draft);
    request(s, "draft", n_draft == OT_DRAFT_AUTO ? "auto" : s->numbers[3]);
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

/* Half as many positions, or as many as take a quarter of the budget that was asked for: what KV
 * takes is missing for weights. */
static uint32_t shorter_ctx(const struct session *s, uint32_t n_ctx) {
    uint64_t budget = s->settings->ram.bytes, position = s->info.kv_bytes_per_token;
    uint64_t n = n_ctx / 2;
    if (budget != 0 && position != 0 && budget / 4 / position < n) {
        n = budget / 4 / position;
    }
    return n > s->least_ctx ? (uint32_t)n : s->least_ctx;
}

int session_open_context(struct session *s, uint32_t n_ctx, uint32_t n_threads, uint32_t n_draft) {
    const struct settings *set = s->settings;
    struct ot_context_params params;
    ot_context_default_params(&params);
    params.n_ctx = n_ctx;
    params.n_seq = s->n_seq;
    params.n_threads = n_threads;
    params.ram_bytes = set->ram.bytes;
    params.residency = (enum ot_residency)set->residency;
    params.io = (enum ot_io)set->io;
    params.n_batch = (uint32_t)set->n_batch;
    params.n_draft = n_draft;
    params.n_logits = s->n_logits;
    params.trace_path = set->trace;
    params.stop = &stop_flag;
    if (isatty(STDERR_FILENO) && !set->quiet) {
        params.progress = show_progress;
    }
    note_requests(s, n_threads, n_draft);
    struct ot_error err;
    int rc = ot_context_open(s->model, &params, &s->ctx, &err);
    while (rc == OT_ERR_BUDGET && s->least_ctx != 0 && params.n_ctx > s->least_ctx) {
        params.n_ctx = shorter_ctx(s, params.n_ctx);
        rc = ot_context_open(s->model, &params, &s->ctx, &err);
    }
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
    struct sigaction before[N_HELD];
    const char *report = s->settings->report, *ledger = s->settings->ledger;
    if (report != NULL) {
        bool holds = held_begin(report, before);
        if (ot_report_write(s->ctx, &whole, report, &err) != 0) {
            exit_code = complain_error(&err);
        }
        if (holds) {
            held_release(before);
        }
    }
    if (ledger != NULL) {
        bool holds = held_begin(ledger, before);
        if (ot_ledger_write(s->ctx, ledger, &err) != 0) {
            exit_code = complain_error(&err);
        }
        if (holds) {
            held_release(before);
        }
    }
    return exit_code;
}

void session_close(struct session *s) {
    ot_context_close(s->ctx);
    ot_model_close(s->model);
    free(s->path);
    memset(s, 0, sizeof *s);
}
