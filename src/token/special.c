/* special.c - finds tokens that are written out in a text and cuts the text there. */
#include "token/special.h"

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

int special_open(struct special *special, const struct words *words, const uint8_t *kinds,
                 struct ot_error *err) {
    memset(special, 0, sizeof *special);
    struct special s = {.words = words, .kinds = kinds};
    uint32_t max = words->max_bytes < SPECIAL_BYTES_MAX ? words->max_bytes : SPECIAL_BYTES_MAX;
    struct special_length *by_bytes = mem_calloc(max + 1u, sizeof *by_bytes);
    s.always = mem_calloc(1, sizeof *s.always);
    s.parsed = mem_calloc(1, sizeof *s.parsed);
    if (by_bytes == NULL || s.always == NULL || s.parsed == NULL) {
        mem_free(by_bytes);
        special_close(&s);
        return error_memory(err, (max + 1u) * sizeof *by_bytes);
    }
    for (uint32_t id = 0; id < words->n; id++) {
        if ((kinds[id] & (SPECIAL_ALWAYS | SPECIAL_PARSED)) == 0) {
            continue;
        }
        uint32_t bytes;
        const char *text = words_text(words, id, &bytes);
        if (bytes == 0 || bytes > max) {
            continue;
        }
        by_bytes[bytes].bytes = bytes;
        bit_set(by_bytes[bytes].first, (uint8_t)text[0]);
        add_start(s.parsed, text, bytes);
        if ((kinds[id] & SPECIAL_ALWAYS) != 0) {
            add_start(s.always, text, bytes);
        }
    }
    for (uint32_t bytes = 1; bytes <= max; bytes++) {
        s.n_lengths += by_bytes[bytes].bytes != 0;
    }
    s.lengths = mem_calloc(s.n_lengths, sizeof *s.lengths);
    if (s.lengths == NULL) {
        mem_free(by_bytes);
        special_close(&s);
        return error_memory(err, s.n_lengths * sizeof *s.lengths);
    }
    for (uint32_t bytes = max, n = 0; bytes > 0; bytes--) {
        if (by_bytes[bytes].bytes != 0) {
            s.lengths[n++] = by_bytes[bytes];
        }
    }
    mem_free(by_bytes);
    *special = s;
    return 0;
}

void special_close(struct special *special) {
    mem_free(special->lengths);
    mem_free(special->always);
    mem_free(special->parsed);
    memset(special, 0, sizeof *special);
}

/* Places where a token may begin. */
struct places {
    struct special_hit *hits; /* owned [n], ascending */
    uint32_t n, capacity;
};

static bool add_place(struct places *p, uint32_t at) {
    if (p->n == p->capacity) {
        uint32_t capacity = p->capacity < 64 ? 64 : p->capacity + p->capacity / 2;
        struct special_hit *grown = mem_realloc(p->hits, (uint64_t)capacity * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        p->hits = grown;
        p->capacity = capacity;
    }
    p->hits[p->n++] = (struct special_hit){at, WORD_NONE};
    return true;
}

static bool gather(const struct special_starts *starts, const char *text, uint64_t bytes,
                   struct places *places) {
    const uint8_t *p = (const uint8_t *)text;
    for (uint64_t i = 0; i < bytes; i++) {
        uint32_t second = i + 1 < bytes ? p[i + 1] : 0;
        if (bit_get(starts->pairs, (uint32_t)p[i] << 8 | second) &&
            !add_place(places, (uint32_t)i)) {
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

/* The token of that length that is at this place, wanted, and allowed there; or WORD_NONE. */
static uint32_t token_at(const struct special *s, const struct special_wish *wish, const char *text,
                         uint32_t at, uint32_t bytes) {
    uint32_t id = words_find(s->words, text + at, bytes);
    if (id == WORD_NONE || (s->kinds[id] & SPECIAL_ALWAYS) != 0) {
        return id;
    }
    bool wanted = (s->kinds[id] & SPECIAL_PARSED) != 0 && wish->parse;
    return wanted && !touches_quoted(wish, at, (uint64_t)at + bytes) ? id : WORD_NONE;
}

/* One call of special_find. */
struct search {
    const struct special *special;
    const struct special_wish *wish;
    const char *text;
    uint64_t bytes;
    struct places places;
    uint32_t *open; /* owned [n_open]: indices of places that may still begin a token */
    uint32_t n_open;
    uint8_t *taken; /* owned: a bit for each byte that a token has */
};

/* Gives the places tokens of one length, as far as their bytes are free. */
static void claim(struct search *s, const struct special_length *length) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->n_open; i++) {
        struct special_hit *hit = &s->places.hits[s->open[i]];
        if (bit_get(s->taken, hit->at)) {
            continue;
        }
        s->open[kept++] = s->open[i];
        /* What is taken so far is at least as long, so it would cover one of the two ends. */
        if (length->bytes > s->bytes - hit->at ||
            !bit_get(length->first, (uint8_t)s->text[hit->at]) ||
            bit_get(s->taken, hit->at + length->bytes - 1)) {
            continue;
        }
        hit->id = token_at(s->special, s->wish, s->text, hit->at, length->bytes);
        for (uint32_t b = 0; hit->id != WORD_NONE && b < length->bytes; b++) {
            bit_set(s->taken, hit->at + b);
        }
    }
    s->n_open = kept;
}

int special_find(const struct special *special, const char *text, uint64_t text_bytes,
                 const struct special_wish *wish, struct special_hit **hits, uint32_t *n_hits,
                 struct ot_error *err) {
    const struct special_starts *starts = wish->parse ? special->parsed : special->always;
    struct search s = {.special = special, .wish = wish, .text = text, .bytes = text_bytes};
    bool ok = !starts->any || gather(starts, text, text_bytes, &s.places);
    if (ok && s.places.n != 0) {
        s.open = mem_calloc(s.places.n, sizeof *s.open);
        s.taken = mem_calloc(text_bytes / 8 + 1, 1);
        ok = s.open != NULL && s.taken != NULL;
    }
    if (!ok) {
        mem_free(s.places.hits);
        mem_free(s.open);
        mem_free(s.taken);
        return error_memory(err, text_bytes);
    }
    s.n_open = s.places.n;
    for (uint32_t i = 0; i < s.n_open; i++) {
        s.open[i] = i;
    }
    for (uint32_t i = 0; i < special->n_lengths && s.n_open != 0; i++) {
        claim(&s, &special->lengths[i]);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < s.places.n; i++) {
        if (s.places.hits[i].id != WORD_NONE) {
            s.places.hits[n++] = s.places.hits[i];
        }
    }
    mem_free(s.open);
    mem_free(s.taken);
    *hits = s.places.hits;
    *n_hits = n;
    return 0;
}
