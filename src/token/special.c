/* special.c - finds tokens that are written out in a text and cuts the text there. */
#include "token/special.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "token/kinds.h"

static bool bit_get(const uint8_t *bits, uint32_t i) {
    return (bits[i / 8] >> i % 8 & 1) != 0;
}
static void bit_set(uint8_t *bits, uint32_t i) {
    bits[i / 8] |= (uint8_t)(1u << i % 8);
}

static void add_start(struct special_starts *starts, const char *text, uint32_t bytes) {
    starts->any = true;
    uint32_t first = (uint8_t)text[0];
    if (bytes >= 2) {
        bit_set(starts->pairs, first << 8 | (uint8_t)text[1]);
        return;
    }
    for (uint32_t second = 0; second < 256; second++) {
        bit_set(starts->pairs, first << 8 | second);
    }
}

/* The tokens that are looked for, while they are sorted. */
struct entry {
    const char *text;
    uint32_t bytes, id;
};

static int compare_texts(const char *a, uint64_t a_bytes, const char *b, uint64_t b_bytes) {
    int order = memcmp(a, b, (size_t)(a_bytes < b_bytes ? a_bytes : b_bytes));
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int compare_entries(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return compare_texts(x->text, x->bytes, y->text, y->bytes);
}

static bool begins_with(const struct entry *e, const struct entry *prefix) {
    return prefix->bytes <= e->bytes && memcmp(e->text, prefix->text, prefix->bytes) == 0;
}

/* Whether a text of the vocabulary is looked for: of equal texts the last id alone. */
static bool is_special(const struct special *s, uint32_t id) {
    uint32_t bytes;
    const char *text = words_text(s->words, id, &bytes);
    return (s->kinds[id] & (SPECIAL_ALWAYS | SPECIAL_PARSED)) != 0 && bytes != 0 &&
           bytes <= SPECIAL_BYTES_MAX && words_find(s->words, text, bytes) == id;
}

/* Fills in the tokens [n of entries], in order, and the lengths that occur. */
static void take_entries(struct special *s, const struct entry *entries) {
    bool occurs[SPECIAL_BYTES_MAX + 1] = {false};
    for (uint32_t i = 0; i < s->n; i++) {
        /* What a token begins with has just been passed, or is what that one begins with. */
        uint32_t before = i == 0 ? WORD_NONE : i - 1;
        while (before != WORD_NONE && !begins_with(&entries[i], &entries[before])) {
            before = s->tokens[before].shorter;
        }
        s->tokens[i] = (struct special_token){entries[i].id, before};
        occurs[entries[i].bytes] = true;
        add_start(s->parsed, entries[i].text, entries[i].bytes);
        if ((s->kinds[entries[i].id] & SPECIAL_ALWAYS) != 0) {
            add_start(s->always, entries[i].text, entries[i].bytes);
        }
    }
    for (uint32_t bytes = SPECIAL_BYTES_MAX; bytes > 0; bytes--) {
        if (occurs[bytes]) {
            s->lengths[s->n_lengths++] = bytes;
        }
    }
}

int special_open(struct special *special, const struct words *words, const uint8_t *kinds,
                 struct ot_error *err) {
    memset(special, 0, sizeof *special);
    struct special s = {.words = words, .kinds = kinds};
    uint32_t n = 0;
    for (uint32_t id = 0; id < words->n; id++) {
        s.n += is_special(&s, id);
    }
    struct entry *entries = mem_calloc(s.n, sizeof *entries);
    s.tokens = mem_calloc(s.n, sizeof *s.tokens);
    s.lengths = mem_calloc(SPECIAL_BYTES_MAX, sizeof *s.lengths);
    s.always = mem_calloc(1, sizeof *s.always);
    s.parsed = mem_calloc(1, sizeof *s.parsed);
    if (entries == NULL || s.tokens == NULL || s.lengths == NULL || s.always == NULL ||
        s.parsed == NULL) {
        mem_free(entries);
        special_close(&s);
        return error_memory(err, s.n * sizeof *entries);
    }
    /* Where the file is rewritten meanwhile, there may be more of them than were counted, or less.
     */
    for (uint32_t id = 0; id < words->n && n < s.n; id++) {
        if (is_special(&s, id)) {
            entries[n].text = words_text(words, id, &entries[n].bytes);
            entries[n++].id = id;
        }
    }
    s.n = n;
    qsort(entries, n, sizeof *entries, compare_entries);
    take_entries(&s, entries);
    mem_free(entries);
    *special = s;
    return 0;
}

void special_close(struct special *special) {
    mem_free(special->tokens);
    mem_free(special->lengths);
    mem_free(special->always);
    mem_free(special->parsed);
    memset(special, 0, sizeof *special);
}

/* Where a token may begin, and the longest one that is there and was not tried yet. */
struct place {
    uint32_t at, token;
};

/* One call of special_find. */
struct search {
    const struct special *special;
    const struct special_wish *wish;
    const char *text;
    uint64_t bytes;
    struct place *open; /* owned [n_open of capacity], ascending: places that may begin a token */
    uint32_t n_open, capacity;
    uint8_t *taken;           /* owned: a bit for each byte that a token has */
    struct special_hit *hits; /* owned [n_hits], as they are found */
    uint32_t n_hits;
};

static uint32_t token_bytes(const struct special *s, uint32_t token) {
    uint32_t bytes;
    words_text(s->words, s->tokens[token].id, &bytes);
    return bytes;
}

/* The longest token that text begins with, as an index, or WORD_NONE: it is the last one that does
 * not come after text in their order, or one that this begins with. */
static uint32_t longest_at(const struct special *s, const char *text, uint64_t bytes) {
    uint32_t low = 0, high = s->n, length;
    bytes = bytes < SPECIAL_BYTES_MAX ? bytes : SPECIAL_BYTES_MAX;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const char *other = words_text(s->words, s->tokens[middle].id, &length);
        if (compare_texts(other, length, text, bytes) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return WORD_NONE;
    }
    uint32_t token = low - 1, same = 0;
    const char *nearest = words_text(s->words, s->tokens[token].id, &length);
    while (same < length && same < bytes && nearest[same] == text[same]) {
        same++;
    }
    while (token != WORD_NONE && token_bytes(s, token) > same) {
        token = s->tokens[token].shorter;
    }
    return token;
}

/* The token itself, or the longest one that it begins with, that is wanted in this call. */
static uint32_t wanted(const struct search *s, uint32_t token) {
    const struct special *special = s->special;
    while (token != WORD_NONE && !s->wish->parse &&
           (special->kinds[special->tokens[token].id] & SPECIAL_ALWAYS) == 0) {
        token = special->tokens[token].shorter;
    }
    return token;
}

static bool add_place(struct search *s, uint32_t at) {
    uint32_t token = wanted(s, longest_at(s->special, s->text + at, s->bytes - at));
    if (token == WORD_NONE) {
        return true;
    }
    if (s->n_open == s->capacity) {
        uint32_t capacity = s->capacity < 64 ? 64 : s->capacity + s->capacity / 2;
        struct place *grown = mem_realloc(s->open, (uint64_t)capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        s->open = grown;
        s->capacity = capacity;
    }
    s->open[s->n_open++] = (struct place){at, token};
    return true;
}

static bool gather(struct search *s, const struct special_starts *starts) {
    const uint8_t *p = (const uint8_t *)s->text;
    for (uint64_t i = 0; i < s->bytes; i++) {
        uint32_t second = i + 1 < s->bytes ? p[i + 1] : 0;
        if (bit_get(starts->pairs, (uint32_t)p[i] << 8 | second) && !add_place(s, (uint32_t)i)) {
            return false;
        }
    }
    return true;
}

/* Whether [from, to) touches a quoted span. */
static bool touches_quoted(const struct special_wish *wish, uint64_t from, uint64_t to) {
    uint32_t low = 0, high = wish->n_quoted; /* the first span that ends after from */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (wish->quoted[middle].to > from) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low < wish->n_quoted && wish->quoted[low].from < to;
}

/* Whether a token may stand at a place: one that is found on request does not touch what is quoted.
 */
static bool may_stand(const struct search *s, uint32_t id, uint32_t at, uint32_t bytes) {
    return (s->special->kinds[id] & SPECIAL_ALWAYS) != 0 ||
           !touches_quoted(s->wish, at, (uint64_t)at + bytes);
}

/* Gives the places tokens of one length, as far as their bytes are free. */
static void claim(struct search *s, uint32_t bytes) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->n_open; i++) {
        struct place place = s->open[i];
        if (bit_get(s->taken, place.at)) {
            continue;
        }
        if (token_bytes(s->special, place.token) == bytes) {
            uint32_t id = s->special->tokens[place.token].id;
            /* What is taken so far is at least as long, so it would cover one of the two ends. */
            if (!bit_get(s->taken, place.at + bytes - 1) && may_stand(s, id, place.at, bytes)) {
                for (uint32_t b = 0; b < bytes; b++) {
                    bit_set(s->taken, place.at + b);
                }
                s->hits[s->n_hits++] = (struct special_hit){place.at, id};
                continue;
            }
            place.token = wanted(s, s->special->tokens[place.token].shorter);
            if (place.token == WORD_NONE) {
                continue;
            }
        }
        s->open[kept++] = place;
    }
    s->n_open = kept;
}

static int compare_hits(const void *a, const void *b) {
    const struct special_hit *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

int special_find(const struct special *special, const char *text, uint64_t text_bytes,
                 const struct special_wish *wish, struct special_hit **hits, uint32_t *n_hits,
                 struct ot_error *err) {
    const struct special_starts *starts = wish->parse ? special->parsed : special->always;
    struct search s = {.special = special, .wish = wish, .text = text, .bytes = text_bytes};
    bool ok = !starts->any || gather(&s, starts);
    if (ok && s.n_open != 0) {
        s.hits = mem_calloc(s.n_open, sizeof *s.hits);
        s.taken = mem_calloc(text_bytes / 8 + 1, 1);
        ok = s.hits != NULL && s.taken != NULL;
    }
    for (uint32_t i = 0; ok && i < special->n_lengths && s.n_open != 0; i++) {
        claim(&s, special->lengths[i]);
    }
    mem_free(s.open);
    mem_free(s.taken);
    if (!ok) {
        mem_free(s.hits);
        return error_memory(err, text_bytes);
    }
    if (s.n_hits != 0) {
        qsort(s.hits, s.n_hits, sizeof *s.hits, compare_hits);
    }
    *hits = s.hits;
    *n_hits = s.n_hits;
    return 0;
}
