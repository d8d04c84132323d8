/* kv.c - keys and values of the tokens seen. */
#include "kv/kv.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "kernel/kernel.h"
#include "sys/memory.h"

enum { POSITIONS = KERNEL_KEY_BLOCK };

/* Attention reads huge pages a quarter faster, but a head's first token takes a whole one, and
 * clears it (15 ms for 134 MB of KV). So a short text in a very long context has small pages. */
static const uint64_t huge_most_bytes = 512u << 20;

static uint32_t blocks_of(uint32_t n_positions) {
    return n_positions / POSITIONS + (n_positions % POSITIONS != 0);
}

static uint32_t blocks_in_all(const struct kv_params *p) {
    uint64_t most = (uint64_t)p->n_seq * blocks_of(p->n_ctx);
    most = p->n_kv != 0 ? min_u64(most, blocks_of(p->n_kv)) : most;
    return (uint32_t)min_u64(most, UINT32_MAX);
}

/* Of k and of v, each. */
static uint64_t values_bytes(const struct kv_params *p) {
    uint64_t bytes = (uint64_t)blocks_in_all(p) * POSITIONS * sizeof(uint16_t);
    if (!checked_mul(bytes, p->head_dim, &bytes) || !checked_mul(bytes, p->n_kv_heads, &bytes) ||
        !checked_mul(bytes, p->n_layers, &bytes)) {
        return UINT64_MAX;
    }
    return bytes;
}

uint64_t kv_need_bytes(const struct kv_params *p) {
    const uint64_t block = sizeof(uint32_t) + sizeof(struct kv_counted);
    const uint64_t row = (blocks_of(p->n_ctx) + 1ull) * sizeof(uint32_t);
    const uint64_t tables = blocks_in_all(p) * block + p->n_seq * row;
    uint64_t bytes;
    if (blocks_in_all(p) == UINT32_MAX || !checked_mul(values_bytes(p), 2, &bytes) ||
        !checked_add(bytes, tables, &bytes)) {
        return UINT64_MAX;
    }
    return bytes;
}

static int open_tables(struct kv *kv, struct ot_error *err) {
    const uint64_t n_seq = kv->params.n_seq;
    kv->table = mem_calloc(n_seq * kv->n_row, sizeof *kv->table);
    kv->held = mem_calloc(n_seq, sizeof *kv->held);
    kv->holders = mem_calloc(kv->n_blocks, sizeof *kv->holders);
    kv->counted = mem_calloc(kv->n_blocks, sizeof *kv->counted);
    if (kv->table == NULL || kv->held == NULL || kv->holders == NULL || kv->counted == NULL) {
        return error_memory(err, kv->n_blocks * sizeof *kv->counted);
    }
    return OT_OK;
}

int kv_open(struct kv *kv, const struct kv_params *params, struct ledger *ledger,
            struct ot_error *err) {
    *kv = (struct kv){
        .params = *params,
        .n_blocks = blocks_in_all(params),
        .n_row = blocks_of(params->n_ctx),
        .bytes = values_bytes(params),
        .n_free = blocks_in_all(params),
        .ledger = ledger,
    };
    if (kv_need_bytes(params) == UINT64_MAX) {
        return error_set(err, OT_ERR_ARGUMENT, "context",
                         "KV of %u positions times %u sequences "
                         "is more than can be addressed",
                         params->n_ctx, params->n_seq);
    }
    int rc =
        ledger_add_extent(ledger, "kv", 2, 2 * kv->bytes, OT_CLASS_KV, -1, &kv->ledger_id, err);
    if (rc != OT_OK) {
        return rc;
    }
    if ((rc = open_tables(kv, err)) == OT_OK) {
        bool huge = 2 * kv->bytes <= huge_most_bytes;
        kv->k = sys_memory_take(kv->bytes, huge, err);
        kv->v = kv->k != NULL ? sys_memory_take(kv->bytes, huge, err) : NULL;
        rc = kv->v != NULL ? OT_OK : OT_ERR_MEMORY;
    }
    if (rc != OT_OK) {
        kv_close(kv);
    }
    return rc;
}

void kv_close(struct kv *kv) {
    if (kv->k != NULL) {
        sys_memory_free(kv->k, kv->bytes);
    }
    if (kv->v != NULL) {
        sys_memory_free(kv->v, kv->bytes);
    }
    mem_free(kv->counted);
    mem_free(kv->holders);
    mem_free(kv->held);
    mem_free(kv->table);
    memset(kv, 0, sizeof *kv);
}

/* ---- tables ---- */

static uint32_t *row_of(const struct kv *kv, uint32_t seq) {
    return kv->table + (uint64_t)seq * kv->n_row;
}

/* A block that nobody holds, for place i of a sequence's table: the one of its own place, or the
 * next that is free. There is one. */
static uint32_t take_block(struct kv *kv, uint32_t seq, uint32_t i) {
    uint32_t id = (kv->n_blocks / kv->params.n_seq * seq + i) % kv->n_blocks;
    while (kv->holders[id] != 0) {
        id = (id + 1) % kv->n_blocks;
    }
    kv->holders[id] = 1;
    kv->n_free--;
    return id;
}

static void release_blocks(struct kv *kv, uint32_t seq, uint32_t from) {
    for (uint32_t i = from; i < kv->held[seq]; i++) {
        kv->n_free += --kv->holders[row_of(kv, seq)[i]] == 0;
    }
    kv->held[seq] = min_u32(kv->held[seq], from);
}

static void copy_positions(struct kv *kv, uint32_t to, uint32_t from, uint32_t n) {
    const struct kv_params *p = &kv->params;
    uint64_t block = (uint64_t)POSITIONS * p->head_dim;
    uint64_t bytes = (uint64_t)n * p->head_dim * sizeof(uint16_t);
    for (uint32_t layer = 0; layer < p->n_layers; layer++) {
        for (uint32_t head = 0; head < p->n_kv_heads; head++) {
            uint16_t *k = kv_keys(kv, layer, head), *v = kv_values(kv, layer, head);
            memcpy(k + to * block, k + from * block, bytes);
            memcpy(v + to * block, v + from * block, bytes);
        }
    }
    ledger_post(kv->ledger, kv->ledger_id, OT_RAM_RAM, OT_CAUSE_COPY,
                2 * bytes * p->n_layers * p->n_kv_heads, 0);
}

bool kv_has_room(struct kv *kv, const uint32_t *lengths, const uint32_t *added) {
    uint64_t need = 0;
    kv_count_begin(kv);
    for (uint32_t s = 0; s < kv->params.n_seq; s++) {
        if (added[s] == 0) {
            continue;
        }
        uint32_t blocks = blocks_of(lengths[s] + added[s]);
        need += blocks - min_u32(blocks, kv->held[s]);
        if (lengths[s] % POSITIONS != 0) { /* of a block's holders the last needs no copy */
            uint32_t id = row_of(kv, s)[lengths[s] / POSITIONS];
            struct kv_counted *c = &kv->counted[id];
            *c = (struct kv_counted){kv->round, 0, c->round == kv->round ? c->high + 1 : 1};
            need += c->high < kv->holders[id];
        }
    }
    return need <= kv->n_free;
}

void kv_append(struct kv *kv, uint32_t seq, uint32_t length, uint32_t n) {
    uint32_t *row = row_of(kv, seq), last = length / POSITIONS, part = length % POSITIONS;
    if (part != 0 && kv->holders[row[last]] > 1) {
        uint32_t old = row[last];
        row[last] = take_block(kv, seq, last);
        copy_positions(kv, row[last], old, part);
        kv->holders[old]--;
    }
    for (; kv->held[seq] < blocks_of(length + n); kv->held[seq]++) {
        row[kv->held[seq]] = take_block(kv, seq, kv->held[seq]);
    }
}

void kv_truncate(struct kv *kv, uint32_t seq, uint32_t n) {
    release_blocks(kv, seq, blocks_of(n));
}

void kv_share(struct kv *kv, uint32_t dst, uint32_t src, uint32_t n) {
    release_blocks(kv, dst, 0);
    kv->held[dst] = blocks_of(n);
    memcpy(row_of(kv, dst), row_of(kv, src), kv->held[dst] * sizeof *kv->table);
    for (uint32_t i = 0; i < kv->held[dst]; i++) {
        kv->holders[row_of(kv, dst)[i]]++;
    }
}

/* ---- where positions are ---- */

static uint64_t head_offset(const struct kv *kv, uint32_t layer, uint32_t head) {
    uint64_t plane = (uint64_t)kv->n_blocks * POSITIONS * kv->params.head_dim;
    return ((uint64_t)layer * kv->params.n_kv_heads + head) * plane;
}

uint16_t *kv_keys(const struct kv *kv, uint32_t layer, uint32_t head) {
    return kv->k + head_offset(kv, layer, head);
}

uint16_t *kv_values(const struct kv *kv, uint32_t layer, uint32_t head) {
    return kv->v + head_offset(kv, layer, head);
}

const uint32_t *kv_blocks(const struct kv *kv, uint32_t seq) {
    return row_of(kv, seq);
}

uint64_t kv_offset(const struct kv *kv, uint32_t seq, uint32_t position) {
    uint64_t block = row_of(kv, seq)[position / POSITIONS];
    return (block * POSITIONS + position % POSITIONS) * kv->params.head_dim;
}

/* ---- counting ---- */

void kv_count_begin(struct kv *kv) {
    kv->round++;
}

uint64_t kv_count(struct kv *kv, uint32_t seq, uint64_t first, uint64_t end) {
    uint64_t n = 0;
    for (uint64_t i = first / POSITIONS; i * POSITIONS < end; i++) {
        struct kv_counted *c = &kv->counted[row_of(kv, seq)[i]];
        uint32_t low = (uint32_t)(max_u64(first, i * POSITIONS) - i * POSITIONS);
        uint32_t high = (uint32_t)(min_u64(end, (i + 1) * POSITIONS) - i * POSITIONS);
        if (c->round != kv->round) {
            *c = (struct kv_counted){kv->round, low, low};
        }
        uint32_t before = c->high - c->low;
        c->low = min_u32(c->low, low);
        c->high = max_u32(c->high, high);
        n += c->high - c->low - before;
    }
    return n;
}
