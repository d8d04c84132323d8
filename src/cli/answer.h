/* answer.h - from a prompt's tokens to text on standard output. */
#ifndef CLI_ANSWER_H
#define CLI_ANSWER_H

#include "cli/output.h"
#include "cli/session.h"

struct id_list {
    uint32_t *ids; /* owned [n] */
    size_t n, capacity;
};
bool id_list_add(struct id_list *list, const uint32_t *ids, size_t n);

enum finish { FINISH_END, FINISH_LENGTH, FINISH_STOP, FINISH_FULL, FINISH_INTERRUPTED };

struct answerer {
    struct session *session; /* borrowed, its context open */
    struct ot_sampler *sampler;
    struct ot_drafter *drafter;
    float *logits;    /* owned [1 + n_draft, n_vocab]: a row for each token of the last call */
    uint32_t *enders; /* owned [n_enders]: tokens that --ignore-eos rules out */
    size_t n_enders;
    uint32_t guessed[MAX_DRAFT]; /* tokens of the last call after the one that was known */
    uint32_t n_guessed, n_right; /* those that were picked too, so far; also the row to pick from */
    double call_s;               /* that the last call took */
    uint64_t n_drafted, n_accepted;
    struct id_list held;      /* tokens in the context, in order, but for guesses not yet picked */
    struct id_list prompt;    /* all that was read from prompts */
    struct id_list generated; /* all that was generated */
    double first_token_s, prompt_s, decode_s;
};

/* Each returns 0 or an exit code after a message. */
int answerer_open(struct answerer *a, struct session *session);
/* Makes the context hold ids [n_ids] (what it already holds of them is kept), then generates and
 * streams. EXIT_INTERRUPTED comes as *finish, not as a return. */
int answer(struct answerer *a, const uint32_t *ids, size_t n_ids, struct stream *out,
           enum finish *finish);
/* What is known of the run so far; pointers stay borrowed from *a. */
struct ot_run answerer_run(const struct answerer *a);
void answerer_close(struct answerer *a);

#endif
