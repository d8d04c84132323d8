/* cli.h - what the commands of the program share: settings, exit codes, messages.
 *
 * The program is a face of the library: it includes onetrip.h and nothing else of it. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "onetrip.h"

/* Exit codes, as the man page has them. */
enum {
    EXIT_OK = 0,
    EXIT_FAILED = 1,        /* a file, the model, the machine: the message says what */
    EXIT_USAGE = 2,         /* the command line */
    EXIT_INTERRUPTED = 130, /* Ctrl-C, SIGTERM, SIGHUP */
    EXIT_PIPE = 141,        /* whoever read the output has gone */
};

enum { MAX_STOPS = 16, MAX_LIST = 16, MAX_DRAFT = 7, MAX_REPEAT_LAST_N = 1 << 20 };
enum { CTX_CHOSEN = -1, CTX_OF_MODEL = 0 }; /* values of n_ctx that are no numbers of positions */

struct size_setting {
    const char *text; /* as typed; NULL: not given */
    uint64_t bytes;   /* 0: auto */
};

struct list_setting {
    uint32_t items[MAX_LIST];
    uint32_t n; /* 0: not given */
};

/* Every option of every command, at its default until the command line says otherwise. All strings
 * are borrowed from the command line. */
struct settings {
    const char *operand; /* MODEL, FILE or TRACE */
    const char *model;   /* of -m; the operand, too, once the command line is read */
    bool help, version, quiet, json;
    /* text in */
    const char *prompt, *file, *system, *chat, *ids;
    bool raw, no_bos, no_special, no_escape, decode;
    /* how long, and which token */
    int64_t n_predict, seed, top_k, repeat_last_n;
    double temperature, top_p, min_p, repeat_penalty;
    bool ignore_eos;
    const char *stops[MAX_STOPS]; /* escapes in them are processed once the command line is read */
    uint32_t n_stops;
    /* the context */
    int64_t n_ctx, n_threads, n_batch, n_draft;
    struct size_setting ram;
    int64_t residency, io; /* enum ot_residency, enum ot_io */
    /* files out */
    const char *report, *ledger, *trace, *logits;
    /* inspect, ledger, simulate */
    bool tensors;
    const char *by, *policy;
    int64_t top;
    struct size_setting budget;
    /* bench */
    struct list_setting prompts, generates, depths, parallels, threads;
    int64_t repetitions; /* 0: not given */
    bool disk, share_depth;
};

struct command {
    const char *name;
    uint32_t mask;       /* its bit in the option table */
    const char *operand; /* what its argument is called: "MODEL" */
    const char *summary; /* one line */
    const char *about;   /* a paragraph for --help */
    int (*run)(const struct settings *settings);
};

enum {
    FOR_RUN = 1,
    FOR_EVAL = 2,
    FOR_TOKENIZE = 4,
    FOR_INSPECT = 8,
    FOR_BENCH = 16,
    FOR_LEDGER = 32,
    FOR_SIMULATE = 64,
    FOR_ALL = 127,
};

int command_run(const struct settings *settings);
int command_eval(const struct settings *settings);
int command_tokenize(const struct settings *settings);
int command_inspect(const struct settings *settings);
int command_bench(const struct settings *settings);
int command_ledger(const struct settings *settings);
int command_simulate(const struct settings *settings);

/* "onetrip: " and one line on standard error. */
void complain(const char *fmt, ...) OT_PRINTF(1, 2);
/* The same for a fault of the library; returns the exit code for it. Of an interruption nothing is
 * said. */
int complain_error(const struct ot_error *err);
int complain_memory(void);

/* Makes room for n bytes more behind *data [*bytes of *capacity, owned by the caller] and adds
 * them. False, and nothing changed, where there is no memory. */
bool bytes_append(char **data, size_t *bytes, size_t *capacity, const char *more, size_t n);

/* Prints words of text from column indent on, in lines of at most 80 columns, the last one ended.
 */
void print_wrapped(const char *text, int indent, FILE *out);

/* Prints a name that a file holds, or the path of one, filled up to a width: what would command the
 * terminal is a "?". */
void print_safe(const char *text, int width, FILE *out);

/* "98.4 MB"; returns buf. */
const char *human_bytes(char buf[24], double bytes);
/* Seconds of a clock that only goes forward. */
double now_s(void);

#endif
