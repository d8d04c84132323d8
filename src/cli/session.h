/* session.h - a model and a context opened as the command line asks, and what is reported of them.
 */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include "cli/cli.h"
#include "cli/stop.h"

struct session {
    const struct settings *settings; /* borrowed */
    char *path;                      /* owned */
    struct ot_model *model;          /* owned */
    struct ot_model_info info;
    struct ot_context *ctx; /* owned; NULL until session_open_context */
    struct ot_context_info context;
    uint32_t n_logits;         /* set before the context opens: rows that the command keeps */
    uint32_t n_logits_least;   /* likewise: of them, those that it cannot do without; 0: 16 */
    uint32_t n_seq;            /* likewise: sequences; 0: 1 */
    uint32_t n_kv;             /* likewise: positions of all of them; 0: n_seq times the context's */
    uint32_t least_ctx;        /* likewise: positions that will do (ot_context_params.n_ctx_least); 0:
                                  only as many as asked for */
    bool guesses;              /* likewise: tokens may be guessed, as --draft-max has it */
    const char *requested[16]; /* key, value, ... */
    size_t n_requested;
    char numbers[4][16]; /* the values among them that are numbers */
    double start_s, load_s;
};

/* Each returns 0 or an exit code after a message. */
int session_open_model(struct session *s, const struct settings *settings, bool vocab_only);
int session_open_context(struct session *s, uint32_t n_ctx, uint32_t n_threads);
/* The positions of a -c that was given. */
uint32_t session_ctx_asked(const struct session *s);
/* Writes --report and --ledger, and prints the summary where asked for. */
int session_report(struct session *s, const struct ot_run *run, bool print);
void session_close(struct session *s);
/* Loading goes on while the first sweep computes: to be called when that is over. */
void progress_clear(void);

#endif
