/* words.h - the texts of the tokens: from id to bytes and from bytes to id.
 *
 * The bytes stay where the file's mapping has them. 8 bytes a token say where, 8 to 16 more (two to
 * four slots of a hash table) find them. The hash is seeded, so that a file cannot be made to
 * collide. Read-only after words_open. */
#ifndef TOKEN_WORDS_H
#define TOKEN_WORDS_H

#include <stdint.h>

#include "token/vocab.h"

#define WORD_NONE UINT32_MAX
#define WORD_BYTES_MAX 65535u

struct words {
    uintptr_t base;   /* lowest address of a text */
    uint64_t *places; /* owned [n]: distance from base << 16 | bytes */
    uint32_t *slots;  /* owned [slot_mask + 1]: 0, or tag << id_bits | (id + 1) */
    uint32_t n;
    uint32_t slot_mask;
    uint32_t id_bits;
    uint32_t max_bytes; /* of the longest text */
    uint64_t seed;
};

/* strings are borrowed for the life of *words, the array of them is not. Of equal texts the last id
 * is found. Empty texts are never found. Errors: FORMAT, MEMORY; *words is then empty. */
int words_open(struct words *words, const struct vocab_string *strings, uint32_t n,
               const char *path, struct ot_error *err);
void words_close(struct words *words);

static inline const char *words_text(const struct words *w, uint32_t id, uint32_t *bytes) {
    *bytes = (uint32_t)(w->places[id] & WORD_BYTES_MAX);
    return (const char *)(w->base + (uintptr_t)(w->places[id] >> 16));
}

/* The id of a text, or WORD_NONE. The two-step form lets a caller have the slot fetched early. */
uint32_t words_find(const struct words *words, const char *text, uint64_t bytes);
uint64_t words_hash(const struct words *words, const char *text, uint64_t bytes);
/* The same for tables of others, whose seed a file cannot know either. */
uint64_t words_hash_seeded(uint64_t seed, const char *text, uint64_t bytes);
uint32_t words_find_hashed(const struct words *words, const char *text, uint64_t bytes,
                           uint64_t hash);
static inline void words_prefetch(const struct words *w, uint64_t hash) {
    __builtin_prefetch(&w->slots[hash & w->slot_mask]);
}

/* Scrambles 64 bits. */
static inline uint64_t words_mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

#endif
