/* spm.c - SentencePiece's encoding by score. */
#include "token/spm.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/utf8.h"
#include "token/kinds.h"

/* Integers that sort as the scores do, the highest first. */
static uint32_t priority_of(float score) {
    uint32_t bits;
    float positive_zero = score + 0.0f; /* -0 and 0 are the same score */
    memcpy(&bits, &positive_zero, sizeof bits);
    uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

/* Whether the text has a space mark after another character. */
static bool space_inside(const char *text, uint32_t bytes) {
    bool other = false;
    for (uint32_t i = 0; i < bytes;) {
        if (bytes - i >= 3 && memcmp(text + i, "\xE2\x96\x81", 3) == 0) {
            if (other) {
                return true;
            }
            i += 3;
        } else {
            other = true;
            const char *next = memchr(text + i + 1, 0xE2, bytes - i - 1);
            i = next == NULL ? bytes : (uint32_t)(next - text);
        }
    }
    return false;
}

int spm_open(struct spm *spm, const struct words *words, const uint8_t *kinds, const float *scores,
             const char *path, struct ot_error *err) {
    memset(spm, 0, sizeof *spm);
    struct spm s = {.words = words, .kinds = kinds, .words_end_at_spaces = true};
    s.priorities = mem_calloc(words->n, sizeof *s.priorities);
    if (s.priorities == NULL) {
        return error_memory(err, 4ull * words->n);
    }
    for (uint32_t i = 0; i < words->n; i++) {
        if (scores[i] != scores[i]) {
            spm_close(&s);
            return error_set(err, OT_ERR_FORMAT, path,
                             "tokenizer.ggml.scores: the score of token %u is not a number", i);
        }
        s.priorities[i] = priority_of(scores[i]);
        uint32_t bytes;
        const char *text = words_text(words, i, &bytes);
        s.words_end_at_spaces = s.words_end_at_spaces && !space_inside(text, bytes);
    }
    for (uint32_t i = 0; i < 256; i++) {
        char name[8], byte = (char)i;
        snprintf(name, sizeof name, "<0x%02X>", i);
        uint32_t id = words_find(words, name, 6);
        s.byte_ids[i] = id != WORD_NONE ? id : words_find(words, &byte, 1);
    }
    *spm = s;
    return 0;
}

void spm_close(struct spm *spm) {
    mem_free(spm->priorities);
    memset(spm, 0, sizeof *spm);
}

/* The token of a text, where text may become it. */
static uint32_t find_plain(const struct spm *spm, const char *text, uint32_t bytes) {
    uint32_t id = words_find(spm->words, text, bytes);
    return id != WORD_NONE && (spm->kinds[id] & SPECIAL_PARSED) == 0 ? id : WORD_NONE;
}

struct stretch {
    const struct spm *spm;
    const char *text;
    uint32_t bytes;
};

static bool look(const void *arg, const struct merge *m, uint32_t left, uint32_t right,
                 uint32_t *candidate, uint32_t *priority) {
    const struct stretch *s = arg;
    uint32_t next = m->pieces[right].next, start = m->pieces[left].start;
    uint32_t end = next == PIECE_NONE ? s->bytes : m->pieces[next].start;
    uint32_t id = find_plain(s->spm, s->text + start, end - start);
    if (id == WORD_NONE) {
        return false;
    }
    *candidate = id;
    *priority = s->spm->priorities[id];
    return true;
}

static uint32_t join(const void *arg, uint32_t candidate) {
    (void)arg;
    return candidate;
}

bool spm_encode(const struct spm *spm, struct merge *m, const char *text, uint32_t bytes) {
    merge_begin(m);
    for (uint32_t i = 0; i < bytes;) {
        uint32_t n = utf8_char_bytes(text + i, bytes - i);
        n = n == 0 ? 1 : n; /* a broken byte is a character of its own */
        if (!merge_add(m, i, find_plain(spm, text + i, n))) {
            return false;
        }
        i += n;
    }
    struct stretch stretch = {spm, text, bytes};
    return merge_run(m, look, join, &stretch);
}
