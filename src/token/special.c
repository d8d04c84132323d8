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

/* Gives the places tokens of one length, as far as their bytes are free, and drops places from open
 * [*n_open] (indices of places) that cannot begin a token any more. */
static void claim(const struct special *s, const struct special_length *length, const char *text,
                  uint64_t bytes, uint8_t wanted, struct places *places, uint32_t *open,
                  uint32_t *n_open, uint8_t *taken) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *n_open; i++) {
        struct special_hit *hit = &places->hits[open[i]];
        if (bit_get(taken, hit->at)) {
            continue;
        }
        open[kept++] = open[i];
        /* What is taken so far is at least as long, so it would cover one of the two ends. */
        if (length->bytes > bytes - hit->at || !bit_get(length->first, (uint8_t)text[hit->at]) ||
            bit_get(taken, hit->at + length->bytes - 1)) {
            continue;
        }
        uint32_t id = words_find(s->words, text + hit->at, length->bytes);
        if (id == WORD_NONE || (s->kinds[id] & wanted) == 0) {
            continue;
        }
        hit->id = id;
        for (uint32_t b = 0; b < length->bytes; b++) {
            bit_set(taken, hit->at + b);
        }
    }
    *n_open = kept;
}

int special_find(const struct special *special, const char *text, uint64_t text_bytes, bool parse,
                 struct special_hit **hits, uint32_t *n_hits, struct ot_error *err) {
    const struct special_starts *starts = parse ? special->parsed : special->always;
    uint8_t wanted = parse ? SPECIAL_ALWAYS | SPECIAL_PARSED : SPECIAL_ALWAYS;
    struct places places = {0};
    uint32_t *open = NULL;
    uint8_t *taken = NULL;
    bool ok = !starts->any || gather(starts, text, text_bytes, &places);
    if (ok && places.n != 0) {
        open = mem_calloc(places.n, sizeof *open);
        taken = mem_calloc(text_bytes / 8 + 1, 1);
        ok = open != NULL && taken != NULL;
    }
    if (!ok) {
        mem_free(places.hits);
        mem_free(open);
        mem_free(taken);
        return error_memory(err, text_bytes);
    }
    uint32_t n_open = places.n;
    for (uint32_t i = 0; i < n_open; i++) {
        open[i] = i;
    }
    for (uint32_t i = 0; i < special->n_lengths && n_open != 0; i++) {
        claim(special, &special->lengths[i], text, text_bytes, wanted, &places, open, &n_open,
              taken);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < places.n; i++) {
        if (places.hits[i].id != WORD_NONE) {
            places.hits[n++] = places.hits[i];
        }
    }
    mem_free(open);
    mem_free(taken);
    *hits = places.hits;
    *n_hits = n;
    return 0;
}
