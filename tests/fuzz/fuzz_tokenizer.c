/* fuzz_tokenizer.c - any vocabulary and any text: opened, tokenised, and turned back.
 *
 * Input: one byte of choices; one byte that chooses a pre-tokenizer; strings of the vocabulary,
 * each a length byte (0: the end), a type byte and the bytes; then the text. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "token/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STRINGS_MAX = 400 };

static void need(bool holds) {
    if (!holds) {
        abort();
    }
}

static char byte_names[256][8];
static struct vocab_string tokens[STRINGS_MAX + 256], merges[STRINGS_MAX];
static int32_t types[STRINGS_MAX + 256];
static float scores[STRINGS_MAX + 256];

/* All bytes are tokens, so that every text comes back. */
static void add_bytes(struct vocab_source *s, bool spm) {
    unsigned other = 256;
    for (unsigned b = 0; b < 256; b++) {
        char *name = byte_names[b];
        memset(name, 0, sizeof byte_names[b]);
        if (spm) {
            memcpy(name, "<0x00>", 6);
            name[3] = "0123456789ABCDEF"[b >> 4];
            name[4] = "0123456789ABCDEF"[b & 15];
        } else {
            unsigned c = (b > 32 && b < 127) || (b > 160 && b != 173) ? b : other++;
            name[0] = (char)(c < 128 ? c : 0xC0 | c >> 6);
            name[1] = (char)(c < 128 ? 0 : 0x80 | (c & 0x3F));
        }
        tokens[s->n_tokens] = (struct vocab_string){name, strlen(name)};
        types[s->n_tokens] = spm ? VOCAB_BYTE : VOCAB_NORMAL;
        scores[s->n_tokens++] = 0.0f;
    }
}

/* Reads strings up to a length of zero; returns where the text begins. */
static size_t add_strings(struct vocab_source *s, const uint8_t *data, size_t size, size_t at,
                          bool bpe) {
    while (at + 2 < size && data[at] != 0 && s->n_tokens < STRINGS_MAX + 256 &&
           s->n_merges < STRINGS_MAX) {
        size_t bytes = data[at] & 0x3F;
        const char *text = (const char *)data + at + 2;
        bytes = bytes < size - at - 2 ? bytes : size - at - 2;
        if (bpe && (data[at] & 0x40) != 0) {
            merges[s->n_merges++] = (struct vocab_string){text, bytes};
        } else {
            tokens[s->n_tokens] = (struct vocab_string){text, bytes};
            types[s->n_tokens] = data[at + 1] % 7;
            scores[s->n_tokens++] = -(float)(data[at + 1] / 7);
        }
        at += 2 + bytes;
    }
    return at + 1 < size ? at + 1 : size;
}

static void try_text(const struct vocab *vocab, const char *text, size_t bytes, uint32_t flags) {
    uint32_t *ids = NULL;
    size_t n = 0, back_bytes = 0;
    char *back = NULL;
    struct ot_error err;
    need(vocab_tokenize(vocab, text, bytes, flags, &ids, &n, &err) == 0);
    for (size_t i = 0; i < n; i++) {
        need(ids[i] < vocab_size(vocab));
    }
    need(vocab_detokenize(vocab, ids, n, true, &back, &back_bytes, &err) == 0);
    need(back[back_bytes] == '\0' && ot_utf8_complete(back, back_bytes) <= back_bytes);
    ot_free(ids);
    ot_free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const pres[] = {"gpt-2",       "llama-bpe", "qwen2",        "qwen35",
                                       "smollm",      "falcon",    "deepseek-llm", "deepseek-coder",
                                       "deepseek-v3", "gpt-4o",    "tekken",       "default"};
    if (size < 3) {
        return 0;
    }
    bool spm = (data[0] & 1) != 0;
    struct vocab_source s = {.path = "fuzz",
                             .model = spm ? "llama" : "gpt2",
                             .tokens = tokens,
                             .types = types,
                             .scores = scores,
                             .merges = merges,
                             .bos = -1,
                             .eos = -1,
                             .unk = -1,
                             .eot = -1,
                             .eom = -1,
                             .fim_pad = -1,
                             .fim_rep = -1,
                             .fim_sep = -1,
                             .add_bos = -1,
                             .add_eos = -1,
                             .add_space_prefix = (data[0] & 2) != 0,
                             .strip_after_special = (data[0] & 4) != 0,
                             .pre = pres[data[1] % (sizeof pres / sizeof *pres)]};
    uint64_t live = mem_live_bytes();
    add_bytes(&s, spm);
    size_t at = add_strings(&s, data, size, 2, !spm);
    if ((data[0] & 8) != 0) {
        s.bos = s.eos = s.n_tokens - 1;
    }
    struct vocab *vocab = NULL;
    struct ot_error err;
    int rc = vocab_open(&s, &vocab, &err);
    if (rc != 0) {
        need(vocab == NULL && err.code == rc && err.message[0] != '\0');
    } else {
        for (uint32_t flags = 0; flags < 4; flags++) {
            try_text(vocab, (const char *)data + at, size - at, flags);
        }
        vocab_close(vocab);
    }
    need(mem_live_bytes() == live);
    return 0;
}
