/* words.c - the texts of the tokens: from id to bytes and from bytes to id. */
#include "token/words.h"

#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/error.h"

static uint64_t load(const char *p, uint64_t bytes) {
    uint64_t v = 0;
    memcpy(&v, p, bytes);
    return v;
}

/* Up to 8 bytes in two overlapping reads: a memcpy of a length unknown at compile time is a call.
 */
static uint64_t load_short(const char *p, uint64_t bytes) {
    if (bytes >= 4) {
        return load(p, 4) | load(p + bytes - 4, 4) << 32;
    }
    if (bytes >= 2) {
        return load(p, 2) | load(p + bytes - 2, 2) << 16;
    }
    return bytes == 1 ? (uint8_t)p[0] : 0;
}

uint64_t words_hash_seeded(uint64_t seed, const char *text, uint64_t bytes) {
    uint64_t h = seed ^ bytes * 0xA0761D6478BD642Fu;
    while (bytes > 8) {
        h = words_mix(h ^ load(text, 8));
        text += 8;
        bytes -= 8;
    }
    return words_mix(words_mix(h ^ load_short(text, bytes)) ^ seed >> 7);
}

uint64_t words_hash(const struct words *words, const char *text, uint64_t bytes) {
    return words_hash_seeded(words->seed, text, bytes);
}

/* The part of a hash that a slot keeps beside the id. */
static uint32_t tag_of(const struct words *w, uint64_t hash) {
    return (uint32_t)(hash >> 32) >> w->id_bits << w->id_bits;
}

uint32_t words_find_hashed(const struct words *w, const char *text, uint64_t bytes, uint64_t hash) {
    if (bytes == 0 || bytes > w->max_bytes) {
        return WORD_NONE;
    }
    uint32_t id_mask = (1u << w->id_bits) - 1, tag = tag_of(w, hash);
    for (uint32_t s = (uint32_t)hash & w->slot_mask; w->slots[s] != 0; s = (s + 1) & w->slot_mask) {
        uint32_t slot = w->slots[s], found_bytes;
        if ((slot & ~id_mask) != tag) {
            continue;
        }
        uint32_t id = (slot & id_mask) - 1;
        const char *found = words_text(w, id, &found_bytes);
        if (found_bytes == bytes && memcmp(found, text, bytes) == 0) {
            return id;
        }
    }
    return WORD_NONE;
}

uint32_t words_find(const struct words *words, const char *text, uint64_t bytes) {
    if (bytes == 0 || bytes > words->max_bytes) {
        return WORD_NONE;
    }
    return words_find_hashed(words, text, bytes, words_hash(words, text, bytes));
}

static void insert(struct words *w, uint32_t id) {
    uint32_t bytes, other_bytes, id_mask = (1u << w->id_bits) - 1;
    const char *text = words_text(w, id, &bytes);
    if (bytes == 0) {
        return;
    }
    uint64_t hash = words_hash(w, text, bytes);
    uint32_t tag = tag_of(w, hash), s = (uint32_t)hash & w->slot_mask;
    for (; w->slots[s] != 0; s = (s + 1) & w->slot_mask) {
        if ((w->slots[s] & ~id_mask) == tag) {
            const char *other = words_text(w, (w->slots[s] & id_mask) - 1, &other_bytes);
            if (other_bytes == bytes && memcmp(other, text, bytes) == 0) {
                break;
            }
        }
    }
    w->slots[s] = tag | (id + 1);
}

static int place_all(struct words *w, const struct vocab_string *strings, const char *path,
                     struct ot_error *err) {
    w->base = UINTPTR_MAX;
    for (uint32_t i = 0; i < w->n; i++) {
        if (strings[i].bytes != 0 && (uintptr_t)strings[i].data < w->base) {
            w->base = (uintptr_t)strings[i].data;
        }
    }
    for (uint32_t i = 0; i < w->n; i++) {
        if (strings[i].bytes > WORD_BYTES_MAX) {
            return error_set(err, OT_ERR_FORMAT, path,
                             "token %u has %llu bytes, at most %u are allowed", i,
                             (unsigned long long)strings[i].bytes, WORD_BYTES_MAX);
        }
        uint64_t distance = strings[i].bytes == 0 ? 0 : (uintptr_t)strings[i].data - w->base;
        if (distance >> 48 != 0) {
            return error_set(err, OT_ERR_UNSUPPORTED, path, "tokens lie too far apart in memory");
        }
        w->places[i] = distance << 16 | strings[i].bytes;
        if (strings[i].bytes > w->max_bytes) {
            w->max_bytes = (uint32_t)strings[i].bytes;
        }
    }
    return 0;
}

int words_open(struct words *words, const struct vocab_string *strings, uint32_t n,
               const char *path, struct ot_error *err) {
    memset(words, 0, sizeof *words);
    struct words w = {.n = n, .seed = words_mix(clock_ns() ^ (uintptr_t)words)};
    uint32_t n_slots = 16;
    while (n_slots / 2 < n) {
        n_slots *= 2;
    }
    w.slot_mask = n_slots - 1;
    while (w.id_bits < 31 && (1u << w.id_bits) <= n) {
        w.id_bits++;
    }
    w.places = mem_calloc(n, sizeof *w.places);
    w.slots = mem_calloc(n_slots, sizeof *w.slots);
    int rc = w.places == NULL || w.slots == NULL ? error_memory(err, 8ull * n + 4ull * n_slots) : 0;
    if (rc == 0) {
        rc = place_all(&w, strings, path, err);
    }
    if (rc != 0) {
        words_close(&w);
        return rc;
    }
    for (uint32_t i = 0; i < n; i++) {
        insert(&w, i);
    }
    *words = w;
    return 0;
}

void words_close(struct words *words) {
    mem_free(words->places);
    mem_free(words->slots);
    memset(words, 0, sizeof *words);
}
