/* vocab.c - a vocabulary: text to token ids and back.
 *
 * Text is first cut at special tokens; what lies between goes through byte-level BPE (bpe.c, words
 * from split.c) or SentencePiece's encoding (spm.c). Where models and files leave room, llama.cpp's
 * choices are followed; where that would lose bytes (broken UTF-8), they are kept. */
#include "token/vocab.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/utf8.h"
#include "token/bpe.h"
#include "token/kinds.h"
#include "token/special.h"
#include "token/split.h"
#include "token/spm.h"

#define SPACE_MARK "\xE2\x96\x81" /* U+2581, SentencePiece's space */
#define TEXT_BYTES_MAX (1ull << 30)
#define TOKENS_MAX (1u << 28)

struct vocab {
    struct words words;
    uint8_t *kinds; /* owned [words.n] */
    struct special special;
    bool by_score; /* SentencePiece; else byte-level BPE */
    struct spm spm;
    struct bpe bpe;
    struct splitter *splitter; /* owned; NULL where by_score */
    struct split_rules rules;
    bool add_bos, add_eos, add_space_prefix, strip_after_special;
    int64_t bos, eos, unk;
};

/* ---- opening ------------------------------------------------------------------------------ */

static int check_id(const struct vocab_source *s, const char *key, int64_t id,
                    struct ot_error *err) {
    if (id >= -1 && id < (int64_t)s->n_tokens) {
        return 0;
    }
    return error_set(err, OT_ERR_FORMAT, s->path, "%s is %lld, but there are %u tokens", key,
                     (long long)id, s->n_tokens);
}

static int check_source(const struct vocab_source *s, struct ot_error *err) {
    bool bpe = strcmp(s->model, "gpt2") == 0;
    if (!bpe && strcmp(s->model, "llama") != 0) {
        return error_set(
            err, OT_ERR_UNSUPPORTED, s->path,
            "tokenizer.ggml.model: unknown tokenizer \"%.60s\"; known: gpt2 (byte-level "
            "BPE), llama (SentencePiece by score)",
            s->model);
    }
    if (s->n_tokens == 0 || s->n_tokens > TOKENS_MAX) {
        return error_set(err, OT_ERR_FORMAT, s->path,
                         "tokenizer.ggml.tokens: %u tokens, expected 1 to %u", s->n_tokens,
                         TOKENS_MAX);
    }
    if (bpe && (s->merges == NULL || s->n_merges > TOKENS_MAX)) {
        return error_set(err, OT_ERR_FORMAT, s->path,
                         s->merges == NULL
                             ? "tokenizer.ggml.merges is missing; byte-level BPE needs it"
                             : "tokenizer.ggml.merges: too many merges");
    }
    if (!bpe && s->scores == NULL) {
        return error_set(err, OT_ERR_FORMAT, s->path,
                         "tokenizer.ggml.scores is missing; a \"llama\" tokenizer needs it");
    }
    for (uint32_t i = 0; i < s->n_tokens; i++) {
        if (!utf8_valid(s->tokens[i].data, s->tokens[i].bytes)) {
            return error_set(err, OT_ERR_FORMAT, s->path,
                             "tokenizer.ggml.tokens: token %u is not UTF-8", i);
        }
    }
    const struct {
        const char *key;
        int64_t id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", s->bos},
               {"tokenizer.ggml.eos_token_id", s->eos},
               {"tokenizer.ggml.unknown_token_id", s->unk},
               {"tokenizer.ggml.eot_token_id", s->eot},
               {"tokenizer.ggml.eom_token_id", s->eom},
               {"tokenizer.ggml.fim_pad_token_id", s->fim_pad},
               {"tokenizer.ggml.fim_rep_token_id", s->fim_rep},
               {"tokenizer.ggml.fim_sep_token_id", s->fim_sep}};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof ids / sizeof *ids; i++) {
        rc = check_id(s, ids[i].key, ids[i].id, err);
    }
    return rc;
}

/* An id that a file leaves out: the one that all files of its kind had, if it is there. */
static int64_t id_or_usual(const struct vocab *v, int64_t given, uint32_t usual, const char *text) {
    uint32_t bytes = 0;
    if (given >= 0 || usual >= v->words.n) {
        return given;
    }
    const char *found = words_text(&v->words, usual, &bytes);
    return bytes == strlen(text) && memcmp(found, text, bytes) == 0 ? (int64_t)usual : -1;
}

static void set_ids(struct vocab *v, const struct vocab_source *s) {
    if (v->by_score) {
        v->bos = id_or_usual(v, s->bos, 1, "<s>");
        v->eos = id_or_usual(v, s->eos, 2, "</s>");
        v->unk = id_or_usual(v, s->unk, 0, "<unk>");
    } else {
        v->bos = id_or_usual(v, s->bos, 11, "<|endoftext|>");
        v->eos = id_or_usual(v, s->eos, 11, "<|endoftext|>");
        v->unk = -1; /* in these vocabularies it is some control token: no stand-in for a byte */
    }
}

static void set_habits(struct vocab *v, const struct vocab_source *s) {
    bool add_bos = v->by_score || v->rules.add_bos;
    v->add_bos = (s->add_bos >= 0 ? s->add_bos != 0 : add_bos) && v->bos >= 0;
    v->add_eos = s->add_eos > 0 && v->eos >= 0;
    v->add_space_prefix = v->by_score && s->add_space_prefix != 0;
    v->strip_after_special = s->strip_after_special;
}

int vocab_open(const struct vocab_source *source, struct vocab **out, struct ot_error *err) {
    int rc = check_source(source, err);
    if (rc != 0) {
        return rc;
    }
    struct vocab *v = mem_calloc(1, sizeof *v);
    if (v == NULL) {
        return error_memory(err, sizeof *v);
    }
    v->by_score = strcmp(source->model, "llama") == 0;
    v->kinds = mem_calloc(source->n_tokens, 1);
    rc = v->kinds == NULL ? error_memory(err, source->n_tokens) : 0;
    if (rc == 0) {
        rc = words_open(&v->words, source->tokens, source->n_tokens, source->path, err);
    }
    if (rc == 0) {
        set_ids(v, source);
        rc = kinds_fill(v->kinds, &v->words, source, v->eos, err);
    }
    if (rc == 0) {
        rc = special_open(&v->special, &v->words, v->kinds, err);
    }
    if (rc == 0 && v->by_score) {
        rc = spm_open(&v->spm, &v->words, v->kinds, source->scores, source->path, err);
    }
    if (rc == 0 && !v->by_score) {
        rc = bpe_open(&v->bpe, &v->words, source->merges, source->n_merges, source->path, err);
    }
    if (rc == 0 && !v->by_score) {
        rc = split_open(source->pre == NULL ? "default" : source->pre, source->path, &v->splitter,
                        &v->rules, err);
    }
    if (rc == 0) {
        set_habits(v, source);
    }
    if (rc != 0) {
        vocab_close(v);
        return rc;
    }
    *out = v;
    return 0;
}

void vocab_close(struct vocab *vocab) {
    if (vocab == NULL) {
        return;
    }
    split_close(vocab->splitter);
    bpe_close(&vocab->bpe);
    spm_close(&vocab->spm);
    special_close(&vocab->special);
    words_close(&vocab->words);
    mem_free(vocab->kinds);
    mem_free(vocab);
}

uint32_t vocab_size(const struct vocab *vocab) {
    return vocab->words.n;
}
int64_t vocab_bos(const struct vocab *vocab) {
    return vocab->bos;
}
int64_t vocab_eos(const struct vocab *vocab) {
    return vocab->eos;
}

bool vocab_token_ends(const struct vocab *vocab, uint32_t token) {
    return token < vocab->words.n && (vocab->kinds[token] & KIND_ENDS) != 0;
}

/* ---- text to tokens ----------------------------------------------------------------------- */

/* One call of vocab_tokenize. */
struct work {
    const struct vocab *vocab;
    struct merge merge;
    uint32_t *ids; /* owned until handed out */
    size_t n_ids, capacity;
    char *marked; /* owned [marked_capacity]; text with spaces as U+2581 */
    uint64_t marked_capacity;
    struct ot_error *err;
};

static int add_id(struct work *w, uint32_t id) {
    if (w->n_ids == w->capacity) {
        size_t capacity = w->capacity + w->capacity / 2 + 64;
        uint32_t *grown = mem_realloc(w->ids, capacity * sizeof *grown);
        if (grown == NULL) {
            return error_memory(w->err, capacity * sizeof *grown);
        }
        w->ids = grown;
        w->capacity = capacity;
    }
    w->ids[w->n_ids++] = id;
    return 0;
}

/* Hands out what merge_run left. A piece without a token becomes byte tokens, where the vocabulary
 * has them, else the unknown token, else nothing. */
static int add_pieces(struct work *w, const char *text, uint32_t bytes,
                      const uint32_t byte_ids[256]) {
    const struct piece *pieces = w->merge.pieces;
    int rc = 0;
    for (uint32_t i = w->merge.n_pieces == 0 ? PIECE_NONE : 0; rc == 0 && i != PIECE_NONE;
         i = pieces[i].next) {
        if (pieces[i].id != PIECE_NONE) {
            rc = add_id(w, pieces[i].id);
            continue;
        }
        uint32_t end = pieces[i].next == PIECE_NONE ? bytes : pieces[pieces[i].next].start;
        bool all = true;
        for (uint32_t b = pieces[i].start; b < end; b++) {
            all = all && byte_ids[(uint8_t)text[b]] != WORD_NONE;
        }
        if (!all && w->vocab->unk >= 0) {
            rc = add_id(w, (uint32_t)w->vocab->unk);
            continue;
        }
        for (uint32_t b = pieces[i].start; rc == 0 && b < end; b++) {
            uint32_t id = byte_ids[(uint8_t)text[b]];
            rc = id == WORD_NONE ? 0 : add_id(w, id);
        }
    }
    return rc;
}

static int add_word(void *arg, const char *word, uint64_t bytes) {
    struct work *w = arg;
    const struct bpe *bpe = &w->vocab->bpe;
    if (w->vocab->rules.whole_words) {
        uint32_t id;
        if (!bpe_whole(bpe, word, bytes, &id)) {
            return error_memory(w->err, bytes);
        }
        if (id != WORD_NONE && (w->vocab->kinds[id] & SPECIAL_PARSED) == 0) {
            return add_id(w, id);
        }
    }
    if (!bpe_encode(bpe, &w->merge, word, bytes)) {
        return error_memory(w->err, bytes);
    }
    return add_pieces(w, word, (uint32_t)bytes, bpe->byte_ids);
}

/* Where the next stretch of marked text ends that can be encoded by itself: before a space mark
 * that follows another character, if no token reaches across such a place. */
static uint64_t stretch_end(const struct spm *spm, const char *text, uint64_t from,
                            uint64_t bytes) {
    if (!spm->words_end_at_spaces) {
        return bytes;
    }
    uint64_t i = from;
    while (bytes - i >= 3 && memcmp(text + i, SPACE_MARK, 3) == 0) {
        i += 3;
    }
    while (i < bytes) {
        const char *next = memchr(text + i, (uint8_t)SPACE_MARK[0], bytes - i);
        if (next == NULL) {
            return bytes;
        }
        i = (uint64_t)(next - text);
        if (bytes - i >= 3 && memcmp(next, SPACE_MARK, 3) == 0) {
            return i;
        }
        i++;
    }
    return bytes;
}

static int mark_spaces(struct work *w, const char *text, uint64_t bytes, bool prefix,
                       uint64_t *marked_bytes) {
    uint64_t need = prefix ? 3 : 0;
    for (uint64_t i = 0; i < bytes; i++) {
        need += text[i] == ' ' ? 3 : 1;
    }
    if (w->marked_capacity < need) {
        char *grown = mem_realloc(w->marked, need);
        if (grown == NULL) {
            return error_memory(w->err, need);
        }
        w->marked = grown;
        w->marked_capacity = need;
    }
    char *out = w->marked;
    if (prefix) {
        memcpy(out, SPACE_MARK, 3);
        out += 3;
    }
    for (uint64_t i = 0; i < bytes; i++) {
        if (text[i] == ' ') {
            memcpy(out, SPACE_MARK, 3);
            out += 3;
        } else {
            *out++ = text[i];
        }
    }
    *marked_bytes = need;
    return 0;
}

static int add_by_score(struct work *w, const char *text, uint64_t bytes, bool prefix) {
    const struct spm *spm = &w->vocab->spm;
    uint64_t marked_bytes = 0;
    int rc = mark_spaces(w, text, bytes, prefix, &marked_bytes);
    for (uint64_t from = 0; rc == 0 && from < marked_bytes;) {
        uint64_t end = stretch_end(spm, w->marked, from, marked_bytes);
        uint32_t n = (uint32_t)(end - from);
        if (!spm_encode(spm, &w->merge, w->marked + from, n)) {
            return error_memory(w->err, n);
        }
        rc = add_pieces(w, w->marked + from, n, spm->byte_ids);
        from = end;
    }
    return rc;
}

/* Text without special tokens: it begins the whole text, or a special token is before it. */
static int add_plain(struct work *w, const char *text, uint64_t bytes, bool strip) {
    while (strip && bytes > 0 && (*text == ' ' || (*text >= '\t' && *text <= '\r'))) {
        text++;
        bytes--;
    }
    if (bytes == 0) {
        return 0;
    }
    if (w->vocab->by_score) {
        return add_by_score(w, text, bytes, w->vocab->add_space_prefix);
    }
    return split_run(w->vocab->splitter, text, bytes, add_word, w, w->err);
}

static bool strips_after(const struct vocab *v, uint32_t id) {
    if (!v->strip_after_special) {
        return false;
    }
    static const char *const kept[] = {"<unk>", "<s>", "<|endoftext|>"};
    uint32_t bytes;
    const char *text = words_text(&v->words, id, &bytes);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        if (bytes == strlen(kept[i]) && memcmp(text, kept[i], bytes) == 0) {
            return false;
        }
    }
    return true;
}

static int add_text(struct work *w, const char *text, uint64_t bytes,
                    const struct special_wish *wish) {
    const struct vocab *v = w->vocab;
    struct special_hit *hits = NULL;
    uint32_t n_hits = 0;
    int rc = special_find(&v->special, text, bytes, wish, &hits, &n_hits, w->err);
    uint64_t from = 0;
    bool strip = false;
    for (uint32_t i = 0; rc == 0 && i < n_hits; i++) {
        uint32_t hit_bytes;
        words_text(&v->words, hits[i].id, &hit_bytes);
        rc = add_plain(w, text + from, hits[i].at - from, strip);
        rc = rc != 0 ? rc : add_id(w, hits[i].id);
        strip = strips_after(v, hits[i].id);
        from = hits[i].at + hit_bytes;
    }
    mem_free(hits);
    return rc != 0 ? rc : add_plain(w, text + from, bytes - from, strip);
}

static int tokenize(const struct vocab *vocab, const char *text, size_t text_bytes,
                    const struct special_wish *wish, bool bos, bool eos, uint32_t **ids,
                    size_t *n_ids, struct ot_error *err) {
    if (text_bytes > TEXT_BYTES_MAX) {
        return error_set(err, OT_ERR_ARGUMENT, "text", "%llu bytes, at most 1 GiB can be tokenised",
                         (unsigned long long)text_bytes);
    }
    struct work w = {.vocab = vocab, .err = err};
    int rc = bos && vocab->bos >= 0 ? add_id(&w, (uint32_t)vocab->bos) : 0;
    if (rc == 0) {
        rc = add_text(&w, text, text_bytes, wish);
    }
    if (rc == 0 && eos) {
        rc = add_id(&w, (uint32_t)vocab->eos);
    }
    if (rc == 0 && w.ids == NULL) {
        w.ids = mem_calloc(1, sizeof *w.ids); /* no tokens: still something to free */
        rc = w.ids == NULL ? error_memory(err, sizeof *w.ids) : 0;
    }
    merge_deinit(&w.merge);
    mem_free(w.marked);
    if (rc != 0) {
        mem_free(w.ids);
        return rc;
    }
    *ids = w.ids;
    *n_ids = w.n_ids;
    return 0;
}

int vocab_tokenize(const struct vocab *vocab, const char *text, size_t text_bytes, uint32_t flags,
                   uint32_t **ids, size_t *n_ids, struct ot_error *err) {
    bool add = (flags & OT_TOK_ADD_SPECIAL) != 0;
    struct special_wish wish = {.parse = (flags & OT_TOK_PARSE_SPECIAL) != 0};
    return tokenize(vocab, text, text_bytes, &wish, add && vocab->add_bos, add && vocab->add_eos,
                    ids, n_ids, err);
}

int vocab_tokenize_quoting(const struct vocab *vocab, const char *text, size_t text_bytes, bool bos,
                           const struct vocab_span *quoted, uint32_t n_quoted, uint32_t **ids,
                           size_t *n_ids, struct ot_error *err) {
    struct special_wish wish = {.parse = true, .quoted = quoted, .n_quoted = n_quoted};
    return tokenize(vocab, text, text_bytes, &wish, bos || vocab->add_bos, false, ids, n_ids, err);
}

/* ---- tokens to text ----------------------------------------------------------------------- */

/* Output of limited room that counts what would have been written. */
struct sink {
    char *buf;
    size_t room, bytes;
};

static void put(struct sink *s, const char *data, size_t bytes) {
    if (s->bytes < s->room) {
        size_t n = s->room - s->bytes;
        memcpy(s->buf + s->bytes, data, n < bytes ? n : bytes);
    }
    s->bytes += bytes;
}

static void put_bpe(struct sink *s, const char *text, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes;) {
        /* Tokens were checked, but their bytes are those of a file that others may write to. */
        uint32_t n = utf8_char_bytes(text + i, bytes - i);
        int32_t byte = n == 0 ? -1 : bpe_byte_of_char(utf8_decode(text + i, n));
        n = n == 0 ? 1 : n;
        char c = (char)byte;
        put(s, byte >= 0 ? &c : text + i, byte >= 0 ? 1 : n);
        i += n;
    }
}

static void put_spm(struct sink *s, const char *text, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes;) {
        if (bytes - i >= 3 && memcmp(text + i, SPACE_MARK, 3) == 0) {
            put(s, " ", 1);
            i += 3;
        } else {
            put(s, text + i++, 1);
        }
    }
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The byte of "<0x41>"; -1: the text is something else. */
static int byte_of_name(const char *text, uint32_t bytes) {
    if (bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') {
        return -1;
    }
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

size_t vocab_token_bytes(const struct vocab *vocab, uint32_t token, bool special, char *buf,
                         size_t buf_bytes) {
    if (token >= vocab->words.n) {
        return 0;
    }
    struct sink sink = {buf, buf_bytes, 0};
    uint32_t bytes, type = kind_type(vocab->kinds[token]);
    const char *text = words_text(&vocab->words, token, &bytes);
    int byte = type == VOCAB_BYTE ? byte_of_name(text, bytes) : -1;
    char c = (char)byte;
    if (type == VOCAB_CONTROL || type == VOCAB_UNKNOWN) {
        put(&sink, text, special ? bytes : 0);
    } else if (byte >= 0) {
        put(&sink, &c, 1);
    } else if (type == VOCAB_USER) {
        put(&sink, text, bytes);
    } else if (vocab->by_score) {
        put_spm(&sink, text, bytes);
    } else {
        put_bpe(&sink, text, bytes);
    }
    return sink.bytes;
}

static bool is_special(const struct vocab *v, uint32_t id) {
    return id >= v->words.n || (v->kinds[id] & (SPECIAL_ALWAYS | SPECIAL_PARSED)) != 0;
}

/* Whether vocab_tokenize put the space before this token's text: it does so at the beginning and
 * after special tokens. */
static bool space_was_added(const struct vocab *v, const uint32_t *ids, size_t i) {
    return v->add_space_prefix && !is_special(v, ids[i]) && (i == 0 || is_special(v, ids[i - 1]));
}

int vocab_detokenize(const struct vocab *vocab, const uint32_t *ids, size_t n_ids, bool special,
                     char **text, size_t *text_bytes, struct ot_error *err) {
    uint64_t total = 0;
    for (size_t i = 0; i < n_ids; i++) {
        total += vocab_token_bytes(vocab, ids[i], special, NULL, 0);
    }
    char *out = mem_calloc(total + 1, 1);
    if (out == NULL) {
        return error_memory(err, total + 1);
    }
    size_t used = 0;
    for (size_t i = 0; i < n_ids; i++) {
        size_t room = total - used;
        size_t n = vocab_token_bytes(vocab, ids[i], special, out + used, room);
        n = n < room ? n : room; /* more where the file was rewritten since they were counted */
        if (n > 0 && out[used] == ' ' && space_was_added(vocab, ids, i)) {
            memmove(out + used, out + used + 1, n - 1);
            n--;
        }
        used += n;
    }
    out[used] = '\0';
    *text = out;
    *text_bytes = used;
    return 0;
}
