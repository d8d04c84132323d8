/* kinds.c - one byte about each token. */
#include "token/kinds.h"

#include <string.h>

#include "base/error.h"
#include "token/chat_parts.h"

/* Tokens that end an answer, in whatever model has them. */
static const char *const ends[] = {"<|eot_id|>",
                                   "<|im_end|>",
                                   "<|end|>",
                                   "<|return|>",
                                   "<|call|>",
                                   "<|flush|>",
                                   "<|calls|>",
                                   "<end_of_turn>",
                                   "<|endoftext|>",
                                   "</s>",
                                   "<|eom_id|>",
                                   "<EOT>",
                                   "_<EOT>",
                                   "[EOT]",
                                   "[EOS]",
                                   "<|end_of_text|>",
                                   "<end_of_utterance>",
                                   "<eos>",
                                   "<turn|>",
                                   "<|tool_response>",
                                   DS_END,
                                   "[e~["};

/* Tokens of fill-in-the-middle prompts. Of each row, the first one that exists is a control token;
 * of the last three rows it also ends an answer. */
enum { FIM_ROWS = 6, FIM_NAMES = 8, FIM_FIRST_END = 3 };
static const char *const fim[FIM_ROWS][FIM_NAMES] = {
    {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>",
     "<\xEF\xBD\x9C"
     "fim\xE2\x96\x81"
     "begin\xEF\xBD\x9C>",
     "<PRE>", "\xE2\x96\x81<PRE>", "<|code_prefix|>", "<|prefix|>"},
    {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",
     "<\xEF\xBD\x9C"
     "fim\xE2\x96\x81hole\xEF\xBD\x9C>",
     "<SUF>", "\xE2\x96\x81<SUF>", "<|code_suffix|>", "<|suffix|>"},
    {"<|fim_middle|>", "<fim-middle>", "<fim_middle>",
     "<\xEF\xBD\x9C"
     "fim\xE2\x96\x81"
     "end\xEF\xBD\x9C>",
     "<MID>", "\xE2\x96\x81<MID>", "<|code_middle|>", "<|middle|>"},
    {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"},
    {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"},
    {"<|file_sep|>"}};

/* Parts of answers that are to be seen, whatever the file says. */
static const char *const shown[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};

static uint32_t find(const struct words *words, const char *text) {
    return words_find(words, text, strlen(text));
}

static void set_type(uint8_t *kind, uint32_t type) {
    uint8_t found = type == VOCAB_CONTROL || type == VOCAB_UNKNOWN ? SPECIAL_PARSED
                    : type == VOCAB_USER                           ? SPECIAL_ALWAYS
                                                                   : 0;
    *kind = (uint8_t)((*kind & KIND_ENDS) | type | found);
}

static int types_of_file(uint8_t *kinds, const struct words *words,
                         const struct vocab_source *source, struct ot_error *err) {
    for (uint32_t i = 0; i < words->n; i++) {
        /* 0 is "undefined" in some files. */
        int32_t type =
            source->types == NULL || source->types[i] == 0 ? VOCAB_NORMAL : source->types[i];
        if (type < VOCAB_NORMAL || type > VOCAB_BYTE) {
            return error_set(err, OT_ERR_FORMAT, source->path,
                             "tokenizer.ggml.token_type: token %u has type %d, expected 1 to 6", i,
                             (int)type);
        }
        kinds[i] = 0;
        set_type(&kinds[i], (uint32_t)type);
    }
    return 0;
}

static void end_at(uint8_t *kinds, int64_t id) {
    if (id >= 0) {
        kinds[id] |= KIND_ENDS;
    }
}

static bool ends_with(const uint8_t *kinds, const struct words *words, const char *text) {
    uint32_t id = find(words, text);
    return id != WORD_NONE && (kinds[id] & KIND_ENDS) != 0;
}

static void not_an_end(uint8_t *kinds, const struct words *words, const char *text, uint32_t type) {
    uint32_t id = find(words, text);
    if (id != WORD_NONE && (kinds[id] & KIND_ENDS) != 0) {
        kinds[id] = 0;
        set_type(&kinds[id], type);
    }
}

static void fim_of_texts(uint8_t *kinds, const struct words *words,
                         const struct vocab_source *source) {
    const int64_t given[FIM_ROWS] = {-1, -1, -1, source->fim_pad, source->fim_rep, source->fim_sep};
    for (uint32_t row = 0; row < FIM_ROWS; row++) {
        int64_t id = given[row];
        for (uint32_t i = 0; id < 0 && i < FIM_NAMES && fim[row][i] != NULL; i++) {
            uint32_t found = find(words, fim[row][i]);
            if (found != WORD_NONE) {
                set_type(&kinds[found], VOCAB_CONTROL);
                id = found;
            }
        }
        if (row >= FIM_FIRST_END) {
            end_at(kinds, id);
        }
    }
}

int kinds_fill(uint8_t *kinds, const struct words *words, const struct vocab_source *source,
               int64_t eos, struct ot_error *err) {
    int rc = types_of_file(kinds, words, source, err);
    if (rc != 0) {
        return rc;
    }
    fim_of_texts(kinds, words, source);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        uint32_t id = find(words, ends[i]);
        if (id != WORD_NONE) {
            set_type(&kinds[id], VOCAB_CONTROL);
            kinds[id] |= KIND_ENDS;
        }
    }
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        uint32_t id = find(words, shown[i]);
        if (id != WORD_NONE) {
            set_type(&kinds[id], VOCAB_USER);
        }
    }
    end_at(kinds, eos);
    end_at(kinds, source->eot);
    end_at(kinds, source->eom);
    /* Where other tokens end the whole answer, <|end|> ends a part of it. */
    if ((ends_with(kinds, words, "<|return|>") &&
         (ends_with(kinds, words, "<|call|>") || ends_with(kinds, words, "<|calls|>"))) ||
        (ends_with(kinds, words, "<|flush|>") &&
         (ends_with(kinds, words, "<|call|>") || ends_with(kinds, words, "<|calls|>")))) {
        not_an_end(kinds, words, "<|end|>", VOCAB_USER);
    }
    /* Where <|tool_response> exists, </s> is HTML. */
    if (ends_with(kinds, words, "<|tool_response>")) {
        not_an_end(kinds, words, "</s>", VOCAB_NORMAL);
    }
    return 0;
}
