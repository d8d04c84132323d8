/* bpe.c - byte-level byte-pair encoding. */
#include "token/bpe.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

/* Bytes that are printable in Latin-1 stand for themselves; the other 68, in order, are U+0100 and
 * up: 0-32, 127-160, 173. */
static uint32_t char_of_byte(uint8_t byte) {
    if (byte <= 32) {
        return 256u + byte;
    }
    if (byte >= 127 && byte <= 160) {
        return 256u + 33u + (byte - 127u);
    }
    return byte == 173 ? 256u + 67u : byte;
}

int32_t bpe_byte_of_char(uint32_t c) {
    if (c >= 256 && c < 256 + 33) {
        return (int32_t)(c - 256);
    }
    if (c >= 256 + 33 && c < 256 + 67) {
        return (int32_t)(c - 256 - 33 + 127);
    }
    if (c == 256 + 67) {
        return 173;
    }
    return c < 256 && char_of_byte((uint8_t)c) == c ? (int32_t)c : -1;
}

/* Writes the character of a byte to out (2 bytes of room); returns its length. */
static uint32_t put_char(char *out, uint8_t byte) {
    uint32_t c = char_of_byte(byte);
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xC0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3F));
    return 2;
}

static uint64_t pair_hash(const struct bpe *b, uint32_t left, uint32_t right) {
    return words_mix(((uint64_t)left << 32 | right) ^ b->words->seed);
}

/* The rank of a pair, or PIECE_NONE. */
static uint32_t find_pair(const struct bpe *b, uint32_t left, uint32_t right) {
    uint64_t hash = pair_hash(b, left, right);
    uint32_t rank_mask = (1u << b->rank_bits) - 1;
    uint32_t tag = (uint32_t)(hash >> 32) & ~rank_mask;
    for (uint32_t s = (uint32_t)hash & b->slot_mask; b->slots[s] != 0; s = (s + 1) & b->slot_mask) {
        if ((b->slots[s] & ~rank_mask) != tag) {
            continue;
        }
        uint32_t rank = (b->slots[s] & rank_mask) - 1;
        if (b->merges[rank].left == left && b->merges[rank].right == right) {
            return rank;
        }
    }
    return PIECE_NONE;
}

/* Of equal pairs the first one counts. */
static void insert_pair(struct bpe *b, uint32_t rank) {
    uint32_t left = b->merges[rank].left, right = b->merges[rank].right;
    if (find_pair(b, left, right) != PIECE_NONE) {
        return;
    }
    uint64_t hash = pair_hash(b, left, right);
    uint32_t s = (uint32_t)hash & b->slot_mask, rank_mask = (1u << b->rank_bits) - 1;
    while (b->slots[s] != 0) {
        s = (s + 1) & b->slot_mask;
    }
    b->slots[s] = ((uint32_t)(hash >> 32) & ~rank_mask) | (rank + 1);
}

/* A merge's text, taken apart: hashes first, so that their slots are on the way while the other
 * merges of the group are taken apart. */
struct parts {
    const char *left, *right;
    uint64_t left_bytes, right_bytes;
    uint64_t left_hash, right_hash, joined_hash;
    char joined[256];
};

enum { GROUP = 32 };

static bool take_apart(const struct words *w, const struct vocab_string *merge, struct parts *p) {
    if (merge->bytes < 3 || merge->bytes > WORD_BYTES_MAX) {
        return false;
    }
    /* A half may itself begin with a space, so the first byte is never the separator. */
    const char *space = memchr(merge->data + 1, ' ', merge->bytes - 1);
    if (space == NULL) {
        return false;
    }
    p->left = merge->data;
    p->left_bytes = (uint64_t)(space - merge->data);
    p->right = space + 1;
    p->right_bytes = merge->bytes - p->left_bytes - 1;
    p->left_hash = words_hash(w, p->left, p->left_bytes);
    p->right_hash = words_hash(w, p->right, p->right_bytes);
    words_prefetch(w, p->left_hash);
    words_prefetch(w, p->right_hash);
    if (merge->bytes - 1 <= sizeof p->joined) {
        memcpy(p->joined, p->left, p->left_bytes);
        memcpy(p->joined + p->left_bytes, p->right, p->right_bytes);
        p->joined_hash = words_hash(w, p->joined, merge->bytes - 1);
        words_prefetch(w, p->joined_hash);
    }
    return true;
}

/* false: no memory. */
static bool find_joined(const struct words *w, const struct parts *p, uint32_t *id) {
    uint64_t bytes = p->left_bytes + p->right_bytes;
    if (bytes <= sizeof p->joined) {
        *id = words_find_hashed(w, p->joined, bytes, p->joined_hash);
        return true;
    }
    char *joined = mem_calloc(bytes, 1);
    if (joined == NULL) {
        return false;
    }
    memcpy(joined, p->left, p->left_bytes);
    memcpy(joined + p->left_bytes, p->right, p->right_bytes);
    *id = words_find(w, joined, bytes);
    mem_free(joined);
    return true;
}

static int refuse(const struct vocab_string *merge, uint32_t rank, const char *why,
                  const char *path, struct ot_error *err) {
    return error_set(err, OT_ERR_FORMAT, path, "tokenizer.ggml.merges: merge %u, \"%.*s\", %s",
                     rank, (int)(merge->bytes < 80 ? merge->bytes : 80), merge->data, why);
}

static int read_group(struct bpe *b, const struct vocab_string *merges, uint32_t first, uint32_t n,
                      const char *path, struct ot_error *err) {
    struct parts parts[GROUP];
    for (uint32_t i = 0; i < n; i++) {
        if (!take_apart(b->words, &merges[i], &parts[i])) {
            return refuse(&merges[i], first + i, "is not two tokens with a space between", path,
                          err);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        const struct parts *p = &parts[i];
        struct bpe_merge *m = &b->merges[first + i];
        m->left = words_find_hashed(b->words, p->left, p->left_bytes, p->left_hash);
        m->right = words_find_hashed(b->words, p->right, p->right_bytes, p->right_hash);
        if (!find_joined(b->words, p, &m->joined)) {
            return error_memory(err, p->left_bytes + p->right_bytes);
        }
        if (m->left == WORD_NONE || m->right == WORD_NONE || m->joined == WORD_NONE) {
            const char *what = m->left == WORD_NONE    ? "names a left half that is no token"
                               : m->right == WORD_NONE ? "names a right half that is no token"
                                                       : "makes a text that is no token";
            return refuse(&merges[i], first + i, what, path, err);
        }
    }
    return 0;
}

int bpe_open(struct bpe *bpe, const struct words *words, const struct vocab_string *merges,
             uint32_t n_merges, const char *path, struct ot_error *err) {
    memset(bpe, 0, sizeof *bpe);
    struct bpe b = {.words = words, .n_merges = n_merges};
    uint32_t n_slots = 16;
    while (n_slots / 2 < n_merges) {
        n_slots *= 2;
    }
    b.slot_mask = n_slots - 1;
    while (b.rank_bits < 31 && (1u << b.rank_bits) <= n_merges) {
        b.rank_bits++;
    }
    b.merges = mem_calloc(n_merges, sizeof *b.merges);
    b.slots = mem_calloc(n_slots, sizeof *b.slots);
    int rc = b.merges == NULL || b.slots == NULL
                 ? error_memory(err, 12ull * n_merges + 4ull * n_slots)
                 : 0;
    for (uint32_t i = 0; rc == 0 && i < n_merges; i += GROUP) {
        uint32_t n = n_merges - i < GROUP ? n_merges - i : GROUP;
        rc = read_group(&b, merges + i, i, n, path, err);
    }
    if (rc != 0) {
        bpe_close(&b);
        return rc;
    }
    for (uint32_t i = 0; i < n_merges; i++) {
        insert_pair(&b, i);
    }
    for (uint32_t i = 0; i < 256; i++) {
        char text[2];
        b.byte_ids[i] = words_find(words, text, put_char(text, (uint8_t)i));
    }
    *bpe = b;
    return 0;
}

void bpe_close(struct bpe *bpe) {
    mem_free(bpe->merges);
    mem_free(bpe->slots);
    memset(bpe, 0, sizeof *bpe);
}

bool bpe_whole(const struct bpe *bpe, const char *word, uint64_t bytes, uint32_t *id) {
    char small[512], *text = small;
    *id = WORD_NONE;
    if (bytes == 0 || bytes > bpe->words->max_bytes) {
        return true;
    }
    if (bytes > sizeof small / 2 && (text = mem_calloc(bytes, 2)) == NULL) {
        return false;
    }
    uint32_t n = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        n += put_char(text + n, (uint8_t)word[i]);
    }
    *id = words_find(bpe->words, text, n);
    if (text != small) {
        mem_free(text);
    }
    return true;
}

static bool look(const void *arg, const struct merge *m, uint32_t left, uint32_t right,
                 uint32_t *candidate, uint32_t *priority) {
    uint32_t rank = find_pair(arg, m->pieces[left].id, m->pieces[right].id);
    *candidate = rank;
    *priority = rank;
    return rank != PIECE_NONE;
}

static uint32_t join(const void *arg, uint32_t candidate) {
    return ((const struct bpe *)arg)->merges[candidate].joined;
}

bool bpe_encode(const struct bpe *bpe, struct merge *m, const char *word, uint64_t bytes) {
    merge_begin(m);
    for (uint64_t i = 0; i < bytes; i++) {
        if (!merge_add(m, (uint32_t)i, bpe->byte_ids[(uint8_t)word[i]])) {
            return false;
        }
    }
    return merge_run(m, look, join, bpe);
}
