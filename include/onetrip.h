/* onetrip.h - the public interface of libonetrip.
 *
 * Two nouns. A *model* is an opened GGUF file: read-only after ot_model_open, shareable between
 * threads. A *context* is one mutable timeline over a model: KV, weights' residency, the ledger of
 * every byte moved. One thread at a time may call functions on one context.
 *
 * Conventions. Functions that can fail return 0 or a negative OT_ERR_* code and fill *err (err may
 * be NULL). Results come through out-parameters, which are set only on success. Strings are UTF-8.
 * The library never prints, never exits and never aborts because of input. Closing NULL does nothing.
 *
 * Order: errors, model, tokens, chat, context, sampling, ledger and reports, measuring. */
#ifndef ONETRIP_H
#define ONETRIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define OT_API __attribute__((visibility("default")))
#define OT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define OT_API
#define OT_PRINTF(fmt, args)
#endif

/* ---- errors ------------------------------------------------------------------------------- */

enum ot_status {
    OT_OK = 0,
    OT_ERR_ARGUMENT = -1,    /* a parameter of the call is out of range */
    OT_ERR_FORMAT = -2,      /* a file's bytes are not what its format demands */
    OT_ERR_UNSUPPORTED = -3, /* valid, but a family, type or version this build does not know */
    OT_ERR_IO = -4,          /* the operating system refused or failed; sys_errno says how */
    OT_ERR_MEMORY = -5,      /* an allocation failed */
    OT_ERR_BUDGET = -6,      /* the memory budget is below the least possible one */
    OT_ERR_FULL = -7,        /* the context has no room for more tokens; nothing changed */
    OT_ERR_NOT_FINITE = -8,  /* a logit is NaN or infinite: the weights are damaged */
    OT_ERR_INTERRUPTED = -9, /* the caller's stop flag was raised; nothing of the call counts */
    OT_ERR_CHANGED = -10,    /* a file shrank or was written to while in use */
};

struct ot_error {
    int code;          /* enum ot_status */
    int sys_errno;     /* errno where the operating system failed, else 0 */
    char at[256];      /* what the fault is in: file, key, tensor, flag */
    char message[512]; /* one line: what was found, what was expected, what to do */
};

/* "file: message" in one line, for printing, cut to buf_bytes (> 0). Returns buf. */
OT_API const char *ot_error_text(const struct ot_error *err, char *buf, size_t buf_bytes);
/* "argument", "format", ...; "ok" for 0, "unknown" for a number that is no enum ot_status. */
OT_API const char *ot_status_name(int code);

/* Version "0.1.0", commit "abc1234" (or "unknown"), kernels "avx512-vnni". */
OT_API const char *ot_version(void);
OT_API const char *ot_commit(void);
OT_API const char *ot_kernels(void);
/* Whether kernels of that name can be used here; names: those that can, "scalar, avx2", cut to
 * names_bytes (> 0). */
OT_API bool ot_kernels_named(const char *name, char *names, size_t names_bytes);

/* ---- data types --------------------------------------------------------------------------- */

/* Numbers are those of the GGUF format. */
enum ot_dtype {
    OT_F32 = 0,
    OT_F16 = 1,
    OT_Q4_0 = 2,
    OT_Q4_1 = 3,
    OT_Q5_0 = 6,
    OT_Q5_1 = 7,
    OT_Q8_0 = 8,
    OT_Q2_K = 10,
    OT_Q3_K = 11,
    OT_Q4_K = 12,
    OT_Q5_K = 13,
    OT_Q6_K = 14,
    OT_IQ4_NL = 20,
    OT_IQ4_XS = 23,
    OT_BF16 = 30,
    OT_MXFP4 = 39,
    OT_DTYPE_MAX = 40,
};

/* "Q4_0"; NULL for a number that is no type this build reads. */
OT_API const char *ot_dtype_name(uint32_t dtype);

/* ---- model -------------------------------------------------------------------------------- */

struct ot_model;

struct ot_model_params {
    bool vocab_only; /* tokenizer only: files without weights are accepted */
};

struct ot_model_info {
    const char *path;         /* all strings are owned by the model */
    const char *name;         /* general.name, or "" */
    const char *architecture; /* general.architecture */
    const char *quantisation; /* the type that holds most weight bytes, as "Q4_0" */
    const char *chat_format;  /* the format that the file's template writes, or "": see ot_chat_render */
    uint32_t n_files;         /* parts of a split file */
    uint64_t file_bytes;      /* all parts together */
    uint64_t weight_bytes;    /* all tensors together */
    uint64_t sweep_bytes;     /* weight bytes that one decode step of one token reads */
    uint64_t n_params;        /* weights, counted as numbers */
    uint32_t n_tensors;
    uint32_t n_vocab;
    uint32_t n_layers;
    uint32_t n_ctx_train;
    uint32_t n_embd, n_ff, n_heads, n_kv_heads, head_dim;
    uint32_t n_experts, n_experts_used; /* 0 for a dense model */
    uint64_t kv_bytes_per_token;
};

struct ot_tensor_info {
    const char *name;
    uint32_t dtype;
    uint32_t n_dims;
    uint64_t dims[4]; /* as in the file: fastest dimension first */
    uint64_t bytes;
    uint64_t bytes_per_token; /* of one decode step: all, the routed share, one row, or 0 */
    uint32_t file;            /* part of a split file */
    uint64_t offset;          /* in that part */
    const char *role;         /* what the schedule uses it for; "" if unused */
};

/* Opens and checks a GGUF file (or the first part of a split one): header, vocabulary, every
 * tensor's place and shape. No weight byte is read. params NULL: the whole model.
 * While a model is open the process handles SIGBUS, which tells of mapped files that were cut; what
 * is none of ours goes to the handler that was there before. A program that sets one later should
 * hand on what is not its own.
 * Errors: ARGUMENT (an empty path), FORMAT, UNSUPPORTED, IO, CHANGED, MEMORY; nothing is left open
 * then. */
OT_API int ot_model_open(const char *path, const struct ot_model_params *params,
                         struct ot_model **out, struct ot_error *err);
OT_API void ot_model_close(struct ot_model *model);
OT_API void ot_model_get_info(const struct ot_model *model, struct ot_model_info *info);
/* Tensors in file order; an index from n_tensors on gives empty names and zeros. */
OT_API void ot_model_get_tensor(const struct ot_model *model, uint32_t index,
                                struct ot_tensor_info *info);

/* ---- tokens ------------------------------------------------------------------------------- */

enum ot_tokenize_flags {
    OT_TOK_ADD_SPECIAL = 1,   /* add BOS and EOS where the file says so */
    OT_TOK_PARSE_SPECIAL = 2, /* special tokens written in the text become those tokens */
};

/* Text to token ids. *ids is allocated by the library; free it with ot_free. Text is any bytes, also
 * broken UTF-8 and NUL. Errors: MEMORY, ARGUMENT (text above 1 GiB); CHANGED or IO, here and below,
 * where the model's file was cut or written to, or a page of the vocabulary cannot be read. */
OT_API int ot_tokenize(const struct ot_model *model, const char *text, size_t text_bytes,
                       uint32_t flags, uint32_t **ids, size_t *n_ids, struct ot_error *err);

/* The bytes a token stands for, written to buf (not NUL-terminated). Returns their number, which
 * may exceed buf_bytes (then buf holds the first buf_bytes). Control tokens give 0 bytes unless
 * special is set, ids outside the vocabulary always, and all ids where the file was cut or written to.
 * A token's bytes may be part of a UTF-8 character. */
OT_API size_t ot_token_bytes(const struct ot_model *model, uint32_t token, bool special, char *buf,
                             size_t buf_bytes);
/* Ids to text, the bytes of ot_token_bytes one after the other: *text is NUL-terminated and
 * allocated; free with ot_free. Undoes the space that ot_tokenize puts before the text. Errors:
 * MEMORY, CHANGED, IO. */
OT_API int ot_detokenize(const struct ot_model *model, const uint32_t *ids, size_t n_ids,
                         bool special, char **text, size_t *text_bytes, struct ot_error *err);
/* True for tokens that end an answer (EOS, end of turn, ...). */
OT_API bool ot_token_ends(const struct ot_model *model, uint32_t token);
/* The tokens for the beginning and the end of a text, also where ot_tokenize does not add them; -1
 * where the vocabulary has none. */
OT_API int64_t ot_token_bos(const struct ot_model *model);
OT_API int64_t ot_token_eos(const struct ot_model *model);
/* Frees what the library allocated for the caller; NULL does nothing. */
OT_API void ot_free(void *memory);

/* Longest prefix of text that ends at a character boundary: what may be shown while more bytes are
 * to come. Broken bytes count as characters of their own. */
OT_API size_t ot_utf8_complete(const char *text, size_t text_bytes);
/* A text that somebody else chose (a name in a file, a path), NUL-terminated, for a terminal or a line
 * of a log: control characters (U+0000 to U+001F, U+007F to U+009F) and bytes that form no character
 * become '?'. Writes whole characters, as many as fit, and a NUL. Returns how many bytes of text that
 * were: the next call goes on there. buf_bytes is 5 or more where all is to be written in the end. */
OT_API size_t ot_text_printable(const char *text, char *buf, size_t buf_bytes);

/* ---- chat --------------------------------------------------------------------------------- */

enum ot_role { OT_ROLE_SYSTEM, OT_ROLE_USER, OT_ROLE_ASSISTANT };

struct ot_message {
    enum ot_role role;
    const char *text;
    size_t text_bytes;
};

/* The conversation as the model was trained to read it, ending where the assistant speaks.
 * format: NULL for the file's own, else a name ("chatml", "llama2", "llama3", "mistral", "gemma",
 * "phi3", "deepseek", "zephyr"). *text is allocated, NUL-terminated; it does not hold a BOS token.
 * Errors: UNSUPPORTED (the file has no template that is recognised), ARGUMENT, MEMORY, CHANGED, IO. */
OT_API int ot_chat_render(const struct ot_model *model, const char *format,
                          const struct ot_message *messages, size_t n_messages, char **text,
                          size_t *text_bytes, struct ot_error *err);

/* The same as token ids, with BOS where the file says so. What stands in the messages is text, also
 * where it reads like a special token: only the template's own marks become special tokens. *ids is
 * allocated; free it with ot_free. Errors as ot_chat_render. */
OT_API int ot_chat_tokenize(const struct ot_model *model, const char *format,
                            const struct ot_message *messages, size_t n_messages, uint32_t **ids,
                            size_t *n_ids, struct ot_error *err);

/* ---- context ------------------------------------------------------------------------------ */

struct ot_context;

enum { OT_KV_BLOCK = 64 }; /* positions whose keys and values are kept, and shared, together */

enum ot_residency {
    OT_RESIDENCY_AUTO,
    OT_RESIDENCY_CACHE,  /* the page cache holds the weights; shared, warm after exit */
    OT_RESIDENCY_WIRED,  /* own memory, filled by direct reads */
    OT_RESIDENCY_STREAM, /* wired as far as the budget goes, the rest streamed every sweep */
};

enum ot_io {
    OT_IO_AUTO,
    OT_IO_URING,   /* io_uring */
    OT_IO_THREADS, /* pread by a few threads */
};

/* 7 where weights are streamed, else 3 where there are kernels for a few tokens at once, else none */
enum { OT_DRAFT_AUTO = 0x7fffffff };

struct ot_context_params {
    uint32_t n_ctx;      /* positions per sequence, at most 2^26; 0: the model's, 4096 at most */
    uint32_t n_ctx_least; /* so many will do, where that is less than n_ctx: where the weights do not fit
                             the budget beside n_ctx, there are as many as leave room for them; where
                             none do, as many as take a 16th of it, fewer where it is too little, never
                             under these; ot_context_info has how many; 0: exactly n_ctx */
    uint32_t n_seq;      /* sequences that share a sweep, at most 4096; 0: 1 */
    uint32_t n_kv;       /* positions of all sequences together, those that they share counted once, in
                            blocks of OT_KV_BLOCK; 0: n_seq times n_ctx */
    uint32_t n_threads;  /* at most 1024; 0: one a core, two if allowed, within affinity and quota */
    uint64_t ram_bytes;  /* memory budget of the whole process; 0: chosen (cgroup, free memory) */
    enum ot_residency residency;
    enum ot_io io;
    uint32_t n_batch;    /* most tokens of a prompt per sweep; 0: chosen */
    uint32_t n_draft;    /* rows of logits beyond one that the caller will keep, for guessed tokens,
                            at most 7, or OT_DRAFT_AUTO: the budget leaves room for as many as
                            it can */
    uint32_t n_logits;   /* rows of logits that the caller will keep for one call: the budget leaves
                            room for as many as it can, at least 16; ot_context_info has how many */
    uint32_t n_logits_least; /* of n_logits, those that there must be room for, where 16 are too few */
    const char *trace_path;      /* write the residency trace of the run here; NULL: none */
    volatile const int *stop;    /* borrowed; non-zero makes ot_decode return OT_ERR_INTERRUPTED */
    /* Bytes loaded of those that stay in memory, on the thread that calls and waits for them; the last
     * call need not be of all. May be NULL. */
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *progress_user;
};

OT_API void ot_context_default_params(struct ot_context_params *params);
/* Opens a context over a model, which must outlive it: divides the budget, takes the memory that it
 * will use (a batch larger than those before may add tables), and begins to read weights that own
 * memory will hold. params NULL: the defaults.
 * Errors: ARGUMENT (a parameter is out of range or none of its enum; the model was opened for its
 * vocabulary only), BUDGET (the message names the least budget in bytes), FORMAT (rope factors that
 * are no numbers), UNSUPPORTED (too many experts), IO, MEMORY, CHANGED; nothing is left open then.
 */
OT_API int ot_context_open(const struct ot_model *model, const struct ot_context_params *params,
                           struct ot_context **out, struct ot_error *err);
OT_API void ot_context_close(struct ot_context *ctx);

/* One token of a batch. Its position is the next one of its sequence. */
struct ot_input {
    uint32_t token;
    uint32_t seq; /* < n_seq */
    bool want_logits;
};

/* Runs a batch through the model: one sweep of the weights for all its tokens, where the budget
 * allows. The tokens are appended to their sequences; blocks until the logits are written.
 *
 *   inputs [n_inputs]            any number of tokens of any sequences, each sequence in order
 *   logits [n_wanted, n_vocab]   out, f32, row-major, in the order of the inputs that want them;
 *                                owned by the caller; may be NULL where none are wanted
 *
 * A call of one token, of at most 3 tokens that all want logits, or of at most 8 such tokens of one
 * sequence, gives each token the logits it would have got in a call of its own, to the bit: so
 * guesses can be checked. So does one of such tokens of any sequences where there are kernels for a
 * few tokens at once: of at most 8 with AVX-512, 4 with AVX2, 16 of a model with experts.
 * Other calls use kernels for many tokens, whose rounding differs.
 *
 * Every byte moved is in the ledger before this returns.
 * Returns 0, or
 *   OT_ERR_ARGUMENT     no tokens, a token or sequence out of range, or no place for wanted logits
 *   OT_ERR_FULL         a sequence would outgrow n_ctx, or all together n_kv; nothing changed
 *   OT_ERR_BUDGET       a control group's limit was lowered further than wired weights can be given
 *                       back; nothing changed, the call may be repeated
 *   OT_ERR_IO, CHANGED  a weight read failed; no sequence advanced, the call may be repeated
 *   OT_ERR_MEMORY       a batch larger than those before needs more memory; nothing changed
 *   OT_ERR_NOT_FINITE   a logit is not finite; no sequence advanced
 *   OT_ERR_INTERRUPTED  *stop was raised; no sequence advanced */
OT_API int ot_decode(struct ot_context *ctx, const struct ot_input *inputs, uint32_t n_inputs,
                     float *logits, struct ot_error *err);

/* Tokens the sequence holds; 0 for one that is not there. */
OT_API uint32_t ot_seq_length(const struct ot_context *ctx, uint32_t seq);
/* Forgets the tokens from position on; position <= length. Returns 0 or OT_ERR_ARGUMENT. */
OT_API int ot_seq_truncate(struct ot_context *ctx, uint32_t seq, uint32_t position);
/* Makes dst hold the first n tokens of src, and no others: a shared prompt is computed once, and its
 * keys and values exist once. Calls of a few tokens (see ot_decode) read them once for all sequences
 * at about the same depth. The sequences go on independently; one that appends within a block of
 * OT_KV_BLOCK positions that others hold gets a copy of what it has there, which is all that is ever
 * copied.
 * Errors: ARGUMENT (n above src's length, a sequence that is not there, or dst is src); nothing
 * changed then. */
OT_API int ot_seq_copy(struct ot_context *ctx, uint32_t dst, uint32_t src, uint32_t n,
                       struct ot_error *err);

struct ot_context_info {
    uint32_t n_ctx, n_seq, n_kv, n_threads, n_batch, n_draft, n_logits;
    uint64_t budget_bytes;      /* in force */
    uint64_t least_budget_bytes; /* does for these parameters, and less is refused, at every start of
                                    the program (a later context counts what is held by then) */
    const char *budget_source;  /* "asked", "available memory, less 10 %", "cgroup limit, ..." */
    const char *residency;      /* "cache", "wired", "stream" */
    const char *residency_why;  /* one phrase */
    const char *io;             /* "mmap", "io_uring direct", "threads direct", "threads buffered"... */
    uint64_t wired_bytes, locked_bytes, slot_bytes, streamed_bytes_per_sweep;
    uint64_t kv_bytes, activation_bytes, table_bytes;
    /* of the budget: what the process held before the context, and what is kept for what may come */
    uint64_t program_bytes, reserve_bytes;
    uint64_t prefetch_bytes;    /* how far ahead decode kernels prefetch, as far as tried */
    uint64_t n_sweeps_prompt;   /* of calls that began a sequence or gave one several tokens */
    uint64_t n_sweeps_decode;   /* of the others; guesses that are checked count as one token */
    uint64_t n_tokens;          /* that sweeps computed, also guesses that were wrong */
    double wait_disk_s;         /* time compute waited for bytes */
    double compute_s[8];        /* by enum ot_phase: time passed on the thread that calls */
    /* of the budget, given back because a control group's limit was lowered since the context was
     * opened: now, and the most so far */
    uint64_t withheld_bytes, withheld_most_bytes;
};

enum ot_phase {
    OT_PHASE_WEIGHTS, OT_PHASE_ATTENTION,
    OT_PHASE_BARRIERS, /* waiting for other threads at a job's end */
    OT_PHASE_OTHER,
    OT_PHASE_WAIT,     /* for bytes */
    OT_PHASE_COUNT
};

/* What is true now. Waits for the reads that are under way, so that the ledger holds them too. */
OT_API void ot_context_get_info(const struct ot_context *ctx, struct ot_context_info *info);

/* ---- sampling ----------------------------------------------------------------------------- */

/* In the order in which they act: penalty, top-k, top-p, min-p, temperature. In brackets what is
 * allowed, and the default. */
struct ot_sampler_params {
    uint64_t seed;        /* of the random numbers [any; 0]: the same for the same seed */
    float temperature;    /* 0 or less: greedy [finite; 0.8] */
    uint32_t top_k;       /* 0: off [any; 40] */
    float top_p, min_p;   /* 1 and 0: off [0 to 1; 0.95, 0.05] */
    float repeat_penalty; /* 1: off [above 0; 1] */
    uint32_t repeat_last_n; /* tokens it looks back [at most 2^24; 64] */
};

struct ot_sampler;
OT_API void ot_sampler_default_params(struct ot_sampler_params *params);
/* params NULL: the defaults. Errors: ARGUMENT (names the parameter), MEMORY. */
OT_API int ot_sampler_open(uint32_t n_vocab, const struct ot_sampler_params *params,
                           struct ot_sampler **out, struct ot_error *err);
OT_API void ot_sampler_close(struct ot_sampler *sampler);
/* Picks a token from logits [n_vocab] (changed in place) and remembers it. */
OT_API uint32_t ot_sampler_pick(struct ot_sampler *sampler, float *logits);
/* Remembers a token that was not picked, for the repeat penalty. */
OT_API void ot_sampler_accept(struct ot_sampler *sampler, uint32_t token);

/* ---- drafts ------------------------------------------------------------------------------- */

/* Guesses tokens from how the text went on before. Fed to ot_decode after the token that is known,
 * all wanting logits, guesses are checked in the sweep of that token: those that are picked too are
 * kept, ot_seq_truncate takes back the rest. The text stays the same, to the bit. */
struct ot_drafter;
/* n_most: tokens guessed at once; more than 7 are taken as 7. Errors: MEMORY. */
OT_API int ot_drafter_open(uint32_t n_most, struct ot_drafter **out, struct ot_error *err);
OT_API void ot_drafter_close(struct ot_drafter *drafter);
/* What may follow ids [n_ids], the whole text with the token known last: writes at most n_most tokens
 * to tokens, and returns their number, 0 where there is no guess or it has not been worth its time. */
OT_API uint32_t ot_drafter_guess(struct ot_drafter *drafter, const uint32_t *ids, size_t n_ids,
                                 uint32_t n_most, uint32_t *tokens);
/* How the last guess fared, also where it was of no token: how many of its tokens were right, before
 * the first wrong one; seconds that ot_decode took for all (0: not known). */
OT_API void ot_drafter_learn(struct ot_drafter *drafter, uint32_t n_accepted, double seconds);

/* ---- ledger and reports ------------------------------------------------------------------- */

enum ot_boundary {
    OT_DISK_RAM, OT_RAM_RAM, OT_RAM_CACHE, OT_CACHE_RAM, OT_RAM_DISK, OT_BOUNDARY_COUNT
};
enum ot_class {
    OT_CLASS_WEIGHT, OT_CLASS_KV, OT_CLASS_ACTIVATION, OT_CLASS_TRANSFORM, OT_CLASS_IO,
    OT_CLASS_OTHER, OT_CLASS_COUNT
};
/* The words of the ledger. No code of this version copies weights, spills or restores: ram>disk, the
 * classes transform and io and the causes repack, dequant, spill and restore are there for ledgers
 * that hold them. */
enum ot_cause {
    OT_CAUSE_LOAD, OT_CAUSE_RELOAD, OT_CAUSE_STREAM, OT_CAUSE_COPY, OT_CAUSE_REPACK,
    OT_CAUSE_DEQUANT, OT_CAUSE_GATHER, OT_CAUSE_COMPUTE, OT_CAUSE_SPILL, OT_CAUSE_RESTORE,
    OT_CAUSE_PREFETCH_WASTED, OT_CAUSE_COUNT
};
enum ot_known { OT_COUNTED, OT_REPORTED, OT_MODELLED };

/* What the caller knows of a run and the library does not. All pointers are borrowed. */
struct ot_run {
    const char *const *requested; /* [2 * n_requested] key, value, key, value, ... */
    size_t n_requested;
    const uint32_t *prompt;
    size_t n_prompt;
    const uint32_t *generated;
    size_t n_generated;
    uint64_t n_drafted, n_accepted; /* tokens guessed, and those that were right */
    double load_s, first_token_s; /* since the caller began; 0: not known, and not printed */
    double prompt_s, decode_s;    /* that calls took */
    const struct ot_bench_result *results; /* of `onetrip bench`; NULL: none */
    size_t n_results;
    double bandwidth_bytes_per_s; /* measured read bandwidth; 0: not measured */
};

struct ot_bench_result {
    char test[40]; /* "pp512", "tg64x4@d100" */
    uint32_t n_threads;
    double tokens_per_s, stddev;
    double needed_bytes_per_token;
};

/* The summary as text: movements by boundary and class, settings, closure. run may be NULL. Errors:
 * MEMORY; faults of writing stay in out (ferror). */
OT_API int ot_report_print(struct ot_context *ctx, const struct ot_run *run, FILE *out,
                           struct ot_error *err);
/* The JSON report. Written to a temporary name, then renamed: after a failure path is as it was, and
 * where only renaming failed, the message names the temporary file, which stays. A device, a pipe and
 * this process's standard output or error are written in place. run may be NULL. Errors: ARGUMENT (an
 * empty path), IO, MEMORY. */
OT_API int ot_report_write(struct ot_context *ctx, const struct ot_run *run, const char *path,
                           struct ot_error *err);
/* Every record, by tensor: JSON lines, or SQLite where path ends in .sqlite or .db. Written as the
 * report is, with the same errors. */
OT_API int ot_ledger_write(struct ot_context *ctx, const char *path, struct ot_error *err);
/* Reads such a file (either kind), or standard input as "-", and prints tables; by: "boundary", "class",
 * "tensor", "cause", "layer"; NULL: class. top: rows of a boundary at most, 0 for all.
 * Errors: ARGUMENT (by), IO, MEMORY, FORMAT; nothing was printed then. Faults of writing stay in out. */
OT_API int ot_ledger_print(const char *path, const char *by, uint32_t top, FILE *out,
                           struct ot_error *err);
/* Bytes moved and needed across a boundary since the context was opened, of a class
 * (OT_CLASS_COUNT: of all); 0 for a number that is no boundary or class. */
OT_API void ot_ledger_total(const struct ot_context *ctx, enum ot_boundary boundary,
                            enum ot_class cls, uint64_t *moved_bytes, uint64_t *needed_bytes);
/* "disk>ram", "weight", "load"; "unknown" for a number that is none. */
OT_API const char *ot_boundary_name(enum ot_boundary boundary);
OT_API const char *ot_class_name(enum ot_class cls);
OT_API const char *ot_cause_name(enum ot_cause cause);

/* ---- measuring ---------------------------------------------------------------------------- */

/* Memory that this process may use: the machine's, or the smallest cgroup limit if that is less. */
OT_API uint64_t ot_memory_bytes(void);
/* Plain streaming read of memory by the context's threads, in bytes a second: best of a few
 * passes over buffers of mib_per_thread MiB, which are memory beside the budget. Errors: ARGUMENT,
 * MEMORY (also: more than is free). */
OT_API int ot_measure_bandwidth(struct ot_context *ctx, uint32_t mib_per_thread, double *out,
                                struct ot_error *err);
/* Reads the extents that the context streams in a sweep, without computing: how many bytes that is,
 * and how many a second come, over sweeps of a quarter of a second together (at most 64) or one that
 * takes longer; wired memory that is not filled yet is filled before. Where nothing is streamed, what
 * a cold start reads is read once, 1 GiB of it at most, into 9 MB beside the budget. In the ledger
 * such bytes are prefetch_wasted. Blocks.
 * Errors: IO, CHANGED, MEMORY, INTERRUPTED (the context's stop flag). */
OT_API int ot_measure_disk(struct ot_context *ctx, double *bytes_per_s, uint64_t *bytes,
                           struct ot_error *err);
/* Replays a trace (of ot_context_params.trace_path) against a policy ("fixed", "lru", "clock",
 * "sieve", "lfu", "min") at a budget and prints hits, misses and bytes. policy NULL: all.
 * Errors: ARGUMENT (policy), IO (also: out cannot be written), MEMORY, FORMAT. */
OT_API int ot_simulate(const char *trace_path, const char *policy, uint64_t budget_bytes, bool json,
                       FILE *out, struct ot_error *err);

#ifdef __cplusplus
}
#endif
#endif
