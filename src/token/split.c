/* split.c - cuts text into the words that byte-pair encoding works on.
 *
 * The expressions are those of the models' own tokenizers, in the form that the GGUF world gave
 * them (llama.cpp is the reference where it simplifies). White space is spelled out: PCRE2's \s is
 * not Unicode's White_Space. They are written so that no input makes them slow: repeats are of
 * single characters, so a match never backtracks over more than one run, and no run is tried from
 * more than one of its places. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "token/split.h"

#include <pcre2.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"

/* Inside a class: White_Space without CR and LF, and with them. */
#define BLANK                                                                                      \
    "\\x{9}\\x{b}\\x{c}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"        \
    "\\x{202f}\\x{205f}\\x{3000}"
#define WS BLANK "\\r\\n"
#define S "[" WS "]"
#define SPACES                                                                                     \
    S "+(?!"                                                                                       \
      "[^" WS "])|" S "+"
#define NEWLINES S "*[\\r\\n]+"
#define ENDING "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" SPACES
/* Llama 3 and those after it: up to three digits, or one, and line ends stay with punctuation. */
#define MODERN(digits)                                                                             \
    ENDING "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" NEWLINES \
           "|" SPACES
#define QWEN35                                                                                     \
    ENDING "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS                                 \
           "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" NEWLINES "|" SPACES
/* Letters but for a-z, letters but for A-Z: outside ASCII the reference does not tell case. */
#define UPPER "[^\\P{L}a-z]"
#define LOWER "[^\\P{L}A-Z]"
#define CASED(ending, digits)                                                                      \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ending "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER  \
    "*" ending "|" digits "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n/]*|" NEWLINES "|" SPACES
#define ASCII_PUNCT "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define V3_WORDS(newlines)                                                                         \
    ASCII_PUNCT "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+" newlines \
                "|" SPACES
#define CJK "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]+"
/* U+0800 to U+9FA5 and Hangul, without the white space among them. */
#define DEEPSEEK_CJK                                                                               \
    "[\\x{800}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{"   \
    "205e}"                                                                                        \
    "\\x{2060}-\\x{2fff}\\x{3001}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+"
/* The letters of DeepSeek LLM's own list: alphabets with two cases. */
#define DEEPSEEK_LETTERS                                                                           \
    "\\x{41}-\\x{5a}\\x{61}-\\x{7a}\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}"          \
    "\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}"         \
    "\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}"                  \
    "\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"                         \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}"                 \
    "\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}"                 \
    "\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}"                 \
    "\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}"         \
    "\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}"        \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}"        \
    "\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}"          \
    "\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}"        \
    "\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}"         \
    "\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"                  \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}"                 \
    "\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"               \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"         \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
#define DEEPSEEK_PUNCT                                                                             \
    "!-\\/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3001}-\\x{3002}"

enum { STAGES_MAX = 6 };

enum kind {
    KIND_GPT2,
    KIND_DIGITS,
    KIND_LLAMA3,
    KIND_QWEN2,
    KIND_QWEN35,
    KIND_DEEPSEEK_LLM,
    KIND_DEEPSEEK_CODER,
    KIND_DEEPSEEK_V3,
    KIND_FALCON,
    KIND_GPT4O,
    KIND_TEKKEN,
    KIND_FOUR_STEPS
};

static const char *const expressions[][STAGES_MAX] = {
    [KIND_GPT2] = {GPT2},
    [KIND_DIGITS] = {"\\p{N}", GPT2},
    [KIND_LLAMA3] = {MODERN("\\p{N}{1,3}")},
    [KIND_QWEN2] = {MODERN("\\p{N}")},
    [KIND_QWEN35] = {QWEN35},
    [KIND_DEEPSEEK_LLM] = {"[\\r\\n]", S "?[" DEEPSEEK_LETTERS "]+", S "?[" DEEPSEEK_PUNCT "]+",
                           "(?<!" S ")" S "++\\z", DEEPSEEK_CJK, "\\p{N}+"},
    [KIND_DEEPSEEK_CODER] = {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", DEEPSEEK_CJK, "\\p{N}"},
    [KIND_DEEPSEEK_V3] = {"\\p{N}{1,3}", CJK, V3_WORDS("[\\r\\n]*|" NEWLINES)},
    [KIND_FALCON] = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"},
    [KIND_GPT4O] = {CASED("(?:" ENDING ")?", "\\p{N}{1,3}")},
    [KIND_TEKKEN] = {CASED("", "\\p{N}")},
    [KIND_FOUR_STEPS] = {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
};

enum { WHOLE = 1, BOS = 2 };

/* Names of tokenizer.ggml.pre, and what else they mean. */
static const struct {
    const char *name;
    enum kind kind;
    uint32_t flags;
} known[] = {
    {"gpt-2", KIND_GPT2, 0},
    {"smollm", KIND_DIGITS, 0},
    {"llama-bpe", KIND_LLAMA3, WHOLE | BOS},
    {"qwen2", KIND_QWEN2, 0},
    {"deepseek-llm", KIND_DEEPSEEK_LLM, 0},
    {"deepseek-coder", KIND_DEEPSEEK_CODER, 0},
    {"deepseek-v3", KIND_DEEPSEEK_V3, 0},
    {"falcon", KIND_FALCON, 0},
    {"starcoder", KIND_DIGITS, 0},
    {"refact", KIND_DIGITS, 0},
    {"command-r", KIND_DIGITS, 0},
    {"mpt", KIND_GPT2, 0},
    {"olmo", KIND_GPT2, 0},
    {"gpt-4o", KIND_GPT4O, 0},
    {"tekken", KIND_TEKKEN, WHOLE | BOS},
    {"qwen35", KIND_QWEN35, 0},
    {"default", KIND_FOUR_STEPS, 0},
    /* Others that use the same expressions. */
    {"llama3", KIND_LLAMA3, WHOLE | BOS},
    {"llama-v3", KIND_LLAMA3, WHOLE | BOS},
    {"falcon3", KIND_LLAMA3, WHOLE | BOS},
    {"falcon-h1", KIND_LLAMA3, WHOLE | BOS},
    {"pixtral", KIND_LLAMA3, WHOLE | BOS},
    {"midm-2.0", KIND_LLAMA3, WHOLE | BOS},
    {"lfm2", KIND_LLAMA3, WHOLE | BOS},
    {"dbrx", KIND_LLAMA3, 0},
    {"smaug-bpe", KIND_LLAMA3, 0},
    {"chatglm-bpe", KIND_LLAMA3, 0},
    {"glm4", KIND_LLAMA3, WHOLE},
    {"deepseek-r1-qwen", KIND_QWEN2, 0},
    {"stablelm2", KIND_QWEN2, 0},
    {"megrez", KIND_QWEN2, 0},
    {"hunyuan", KIND_QWEN2, 0},
    {"grok-2", KIND_QWEN2, 0},
    {"hunyuan-dense", KIND_DEEPSEEK_V3, 0},
    {"codeshell", KIND_DIGITS, 0},
    {"exaone", KIND_DIGITS, 0},
    {"minerva-7b", KIND_DIGITS, 0},
    {"phi-2", KIND_GPT2, 0},
    {"jais", KIND_GPT2, 0},
    {"exaone4", KIND_GPT2, 0},
    {"trillion", KIND_GPT2, 0},
    {"mellum", KIND_GPT2, 0},
    {"gigachat", KIND_GPT2, 0},
    {"llama4", KIND_GPT4O, 0},
    {"kanana2", KIND_GPT4O, 0},
};

enum { N_KNOWN = sizeof known / sizeof *known, N_LISTED = 17 };

struct splitter {
    pcre2_general_context *general; /* owned; our allocator */
    pcre2_code *stages[STAGES_MAX]; /* owned [n_stages] */
    uint32_t n_stages;
};

static void *take(size_t bytes, void *unused) {
    (void)unused;
    return mem_calloc(bytes, 1);
}

static void give(void *memory, void *unused) {
    (void)unused;
    mem_free(memory);
}

static int refuse(const char *pre, const char *path, struct ot_error *err) {
    struct text names = {0};
    for (size_t i = 0; i < N_LISTED; i++) {
        text_printf(&names, i == 0 ? "%s" : ", %s", known[i].name);
    }
    int rc =
        error_set(err, OT_ERR_UNSUPPORTED, path,
                  "tokenizer.ggml.pre: unknown pre-tokenizer \"%.60s\"; known: %s and their kin",
                  pre, text_failed(&names) ? "none can be listed" : names.data);
    text_deinit(&names);
    return rc;
}

int split_open(const char *pre, const char *path, struct splitter **out, struct split_rules *rules,
               struct ot_error *err) {
    size_t row = 0;
    while (row < N_KNOWN && strcmp(known[row].name, pre) != 0) {
        row++;
    }
    if (row == N_KNOWN) {
        return refuse(pre, path, err);
    }
    struct splitter *s = mem_calloc(1, sizeof *s);
    if (s == NULL) {
        return error_memory(err, sizeof *s);
    }
    s->general = pcre2_general_context_create(take, give, NULL);
    pcre2_compile_context *compile =
        s->general == NULL ? NULL : pcre2_compile_context_create(s->general);
    bool ok = compile != NULL;
    const char *const *stages = expressions[known[row].kind];
    for (uint32_t i = 0; ok && i < STAGES_MAX && stages[i] != NULL; i++) {
        int code;
        PCRE2_SIZE at;
        s->stages[i] =
            pcre2_compile((PCRE2_SPTR)stages[i], PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NO_AUTO_CAPTURE, &code, &at, compile);
        ok = s->stages[i] != NULL; /* the expressions are ours: only memory can be wanting */
        s->n_stages = i + (ok ? 1 : 0);
        if (ok) {
            /* Where the system forbids it, the interpreter does the same, slower. */
            (void)pcre2_jit_compile(s->stages[i], PCRE2_JIT_COMPLETE);
        }
    }
    pcre2_compile_context_free(compile);
    if (!ok) {
        split_close(s);
        return error_memory(err, 0);
    }
    rules->whole_words = (known[row].flags & WHOLE) != 0;
    rules->add_bos = (known[row].flags & BOS) != 0;
    *out = s;
    return 0;
}

void split_close(struct splitter *splitter) {
    if (splitter == NULL) {
        return;
    }
    for (uint32_t i = 0; i < splitter->n_stages; i++) {
        pcre2_code_free(splitter->stages[i]);
    }
    pcre2_general_context_free(splitter->general);
    mem_free(splitter);
}

/* One call of split_run. */
struct run {
    const struct splitter *splitter;
    /* Owned, one a stage: a stage runs inside a match of the one before. */
    pcre2_match_data *matches[STAGES_MAX];
    pcre2_match_context *context; /* owned */
    split_fn *emit;
    void *arg;
    struct ot_error *err;
    const uint64_t *broken; /* where the copy of the text has U+FFFD for a broken byte, ascending */
    uint64_t n_broken, next_broken;
    const char *source; /* next byte of the text as it was given; NULL: the text was whole */
    const char *copy;
};

/* A word is done: hands it on, as it was before broken bytes were replaced. */
static int finish(struct run *run, const char *word, uint64_t bytes) {
    if (run->source == NULL) {
        return run->emit(run->arg, word, bytes);
    }
    uint64_t end = (uint64_t)(word - run->copy) + bytes, source_bytes = bytes;
    while (run->next_broken < run->n_broken && run->broken[run->next_broken] < end) {
        source_bytes -= 2;
        run->next_broken++;
    }
    const char *source = run->source;
    run->source += source_bytes;
    return run->emit(run->arg, source, source_bytes);
}

static int cut(struct run *run, uint32_t stage, const char *piece, uint64_t bytes) {
    if (bytes == 0) {
        return 0;
    }
    if (stage == run->splitter->n_stages) {
        return finish(run, piece, bytes);
    }
    uint64_t done = 0;
    int rc = 0;
    while (rc == 0 && done < bytes) {
        int n = pcre2_match(run->splitter->stages[stage], (PCRE2_SPTR)piece, bytes, done,
                            PCRE2_NO_UTF_CHECK, run->matches[stage], run->context);
        if (n == PCRE2_ERROR_NOMATCH) {
            break;
        }
        if (n == PCRE2_ERROR_NOMEMORY) {
            return error_memory(run->err, 0);
        }
        if (n < 0) {
            return error_set(run->err, OT_ERR_ARGUMENT, "tokenizer",
                             "the pre-tokenizer's expression gave up on the text (PCRE2 error %d)",
                             n);
        }
        const PCRE2_SIZE *place = pcre2_get_ovector_pointer(run->matches[stage]);
        uint64_t from = place[0], to = place[1];
        rc = cut(run, stage + 1, piece + done, from - done);
        if (rc == 0) {
            rc = cut(run, stage + 1, piece + from, to - from);
        }
        done = to;
    }
    return rc != 0 ? rc : cut(run, stage + 1, piece + done, bytes - done);
}

/* A copy of the text in which each broken byte is U+FFFD; *broken [n_broken] says where. */
static bool mend(const char *text, uint64_t bytes, struct text *copy, uint64_t **broken,
                 uint64_t *n_broken) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < bytes;) {
        uint32_t c = utf8_char_bytes(text + i, bytes - i);
        n += c == 0;
        i += c == 0 ? 1 : c;
    }
    *broken = mem_calloc(n, sizeof **broken);
    if (*broken == NULL) {
        return false;
    }
    uint64_t from = 0;
    *n_broken = 0;
    for (uint64_t i = 0; i < bytes;) {
        uint32_t c = utf8_char_bytes(text + i, bytes - i);
        if (c == 0) {
            text_append(copy, text + from, i - from);
            (*broken)[(*n_broken)++] = copy->bytes;
            text_puts(copy, "\xEF\xBF\xBD");
            from = i + 1;
        }
        i += c == 0 ? 1 : c;
    }
    text_append(copy, text + from, bytes - from);
    return !text_failed(copy);
}

static bool prepare(struct run *run, uint64_t bytes) {
    run->context = pcre2_match_context_create(run->splitter->general);
    if (run->context == NULL) {
        return false;
    }
    /* Linear in the text: enough for every expression here, and an end to any other. */
    uint64_t limit = 1000000 + 32 * bytes;
    pcre2_set_match_limit(run->context, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
    for (uint32_t i = 0; i < run->splitter->n_stages; i++) {
        run->matches[i] = pcre2_match_data_create(1, run->splitter->general);
        if (run->matches[i] == NULL) {
            return false;
        }
    }
    return true;
}

int split_run(const struct splitter *splitter, const char *text, uint64_t bytes, split_fn *emit,
              void *arg, struct ot_error *err) {
    struct run run = {.splitter = splitter, .emit = emit, .arg = arg, .err = err};
    struct text copy = {0};
    uint64_t *broken = NULL;
    bool ok = prepare(&run, bytes);
    if (ok && !utf8_valid(text, bytes)) {
        run.source = text;
        ok = mend(text, bytes, &copy, &broken, &run.n_broken);
        run.broken = broken;
        run.copy = text = copy.data;
        bytes = copy.bytes;
    }
    int rc = ok ? cut(&run, 0, text, bytes) : error_memory(err, bytes);
    for (uint32_t i = 0; i < splitter->n_stages; i++) {
        pcre2_match_data_free(run.matches[i]);
    }
    pcre2_match_context_free(run.context);
    mem_free(broken);
    text_deinit(&copy);
    return rc;
}
