/* vocab.h - a vocabulary: token ids to bytes and back.
 *
 * Built from arrays of a GGUF file without copying their strings. Pure functions over it; read-only
 * after vocab_open, so any thread may tokenize. */
#ifndef TOKEN_VOCAB_H
#define TOKEN_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "onetrip.h"

struct vocab;

struct vocab_string {
    const char *data;
    uint64_t bytes;
};

/* Numbers of the GGUF format. */
enum vocab_token_type {
    VOCAB_NORMAL = 1,
    VOCAB_UNKNOWN = 2,
    VOCAB_CONTROL = 3,
    VOCAB_USER = 4,
    VOCAB_UNUSED = 5,
    VOCAB_BYTE = 6
};

/* What a file says of its tokenizer. All borrowed; strings must outlive the vocab. */
struct vocab_source {
    const char *path;                  /* for messages */
    const char *model;                 /* "gpt2" (BPE) or "llama" (SentencePiece by score) */
    const char *pre;                   /* tokenizer.ggml.pre; NULL: not given, as "default" */
    const struct vocab_string *tokens; /* [n_tokens]; kept by the vocab, not copied */
    const int32_t *types;              /* [n_tokens] or NULL: all normal */
    const float *scores;               /* [n_tokens] or NULL; needed by "llama" */
    const struct vocab_string *merges; /* [n_merges], "left right"; needed by "gpt2" */
    uint32_t n_tokens, n_merges;
    int64_t bos, eos, unk, eot, eom; /* -1: not given */
    int add_bos, add_eos, add_space_prefix; /* -1: not given */
    int64_t fim_pad, fim_rep, fim_sep;      /* -1: not given; an answer ends there, too */
    bool strip_after_special; /* white space after a special token is dropped (Phi-3) */
};

/* Errors: FORMAT (tokens not UTF-8 where they must be, merges that name nothing, ids out of range),
 * UNSUPPORTED (tokenizer model or pre-tokenizer unknown, with the list of known ones), MEMORY.
 * The arrays tokens, types, scores, merges are copied or no longer needed after the return, the
 * bytes that the strings point to are kept in use. */
int vocab_open(const struct vocab_source *source, struct vocab **out, struct ot_error *err);
void vocab_close(struct vocab *vocab);
uint32_t vocab_size(const struct vocab *vocab);

/* Behind ot_tokenize, ot_token_bytes, ot_detokenize, ot_token_ends of onetrip.h: same meaning. */
int vocab_tokenize(const struct vocab *vocab, const char *text, size_t text_bytes, uint32_t flags,
                   uint32_t **ids, size_t *n_ids, struct ot_error *err);
/* Tokenises a text for an answer to follow: special tokens are parsed but for those that touch a
 * quoted span, where they are ordinary text. Between special tokens the text is cut no further than
 * vocab_tokenize would: quoting changes no other token. BOS comes first where the file says so or
 * where bos is set; EOS is never added. quoted [n_quoted]: ascending, not overlapping. */
struct vocab_span {
    uint64_t from, to;
};
int vocab_tokenize_quoting(const struct vocab *vocab, const char *text, size_t text_bytes, bool bos,
                           const struct vocab_span *quoted, uint32_t n_quoted, uint32_t **ids,
                           size_t *n_ids, struct ot_error *err);
size_t vocab_token_bytes(const struct vocab *vocab, uint32_t token, bool special, char *buf,
                         size_t buf_bytes);
int vocab_detokenize(const struct vocab *vocab, const uint32_t *ids, size_t n_ids, bool special,
                     char **text, size_t *text_bytes, struct ot_error *err);
bool vocab_token_ends(const struct vocab *vocab, uint32_t token);
int64_t vocab_bos(const struct vocab *vocab);
int64_t vocab_eos(const struct vocab *vocab);

#endif
