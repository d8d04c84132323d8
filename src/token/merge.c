/* merge.c - joins neighbouring pieces of a text, the best pair first. */
#include "token/merge.h"

#include <string.h>

#include "base/alloc.h"

enum { HEAP_WAYS = 4 }; /* four children share a cache line: half the misses of a binary heap */

void merge_begin(struct merge *m) {
    m->n_pieces = 0;
}

bool merge_add(struct merge *m, uint32_t start, uint32_t id) {
    if (m->n_pieces == m->capacity) {
        uint32_t capacity = m->capacity < 64 ? 64 : m->capacity * 2u;
        struct piece *grown = capacity > m->capacity
                                  ? mem_realloc(m->pieces, (uint64_t)capacity * sizeof *grown)
                                  : NULL;
        if (grown == NULL) {
            return false;
        }
        m->pieces = grown;
        m->capacity = capacity;
    }
    uint32_t i = m->n_pieces++;
    m->pieces[i] =
        (struct piece){start, id, i == 0 ? PIECE_NONE : i - 1, PIECE_NONE, PIECE_NONE, 0};
    if (i != 0) {
        m->pieces[i - 1].next = i;
    }
    return true;
}

static void sift_down(uint64_t *heap, uint64_t size, uint64_t i) {
    uint64_t entry = heap[i];
    for (;;) {
        uint64_t first = i * HEAP_WAYS + 1, best = first;
        if (first >= size) {
            break;
        }
        uint64_t end = first + HEAP_WAYS < size ? first + HEAP_WAYS : size;
        for (uint64_t c = first + 1; c < end; c++) {
            best = heap[c] < heap[best] ? c : best;
        }
        if (heap[best] >= entry) {
            break;
        }
        heap[i] = heap[best];
        i = best;
    }
    heap[i] = entry;
}

static void push(struct merge *m, uint64_t entry) {
    uint64_t i = m->heap_size++;
    while (i > 0 && m->heap[(i - 1) / HEAP_WAYS] > entry) {
        m->heap[i] = m->heap[(i - 1) / HEAP_WAYS];
        i = (i - 1) / HEAP_WAYS;
    }
    m->heap[i] = entry;
}

static uint64_t pop(struct merge *m) {
    uint64_t top = m->heap[0];
    m->heap[0] = m->heap[--m->heap_size];
    if (m->heap_size > 1) {
        sift_down(m->heap, m->heap_size, 0);
    }
    return top;
}

static uint64_t entry_of(const struct merge *m, uint32_t left) {
    return (uint64_t)m->pieces[left].priority << 32 | left;
}

/* Looks at the pair that left begins; true where it has a candidate. */
static bool consider(struct merge *m, uint32_t left, merge_look *look, const void *arg) {
    struct piece *p = &m->pieces[left];
    p->candidate = PIECE_NONE;
    return p->next != PIECE_NONE && look(arg, m, left, p->next, &p->candidate, &p->priority);
}

static bool heap_reserve(struct merge *m) {
    /* Each join takes at least one entry out and puts at most two in. */
    uint64_t need = 2ull * m->n_pieces + 2;
    if (m->heap_capacity >= need) {
        return true;
    }
    uint64_t *grown = mem_realloc(m->heap, need * sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    m->heap = grown;
    m->heap_capacity = need;
    return true;
}

bool merge_run(struct merge *m, merge_look *look, merge_join *join, const void *arg) {
    if (m->n_pieces < 2) {
        return true;
    }
    if (!heap_reserve(m)) {
        return false;
    }
    m->heap_size = 0;
    for (uint32_t i = 0; i + 1 < m->n_pieces; i++) {
        if (consider(m, i, look, arg)) {
            m->heap[m->heap_size++] = entry_of(m, i);
        }
    }
    for (uint64_t i = m->heap_size / HEAP_WAYS + 1; i-- > 0;) {
        if (i < m->heap_size) {
            sift_down(m->heap, m->heap_size, i);
        }
    }
    while (m->heap_size != 0) {
        uint64_t entry = pop(m);
        uint32_t left = (uint32_t)entry;
        struct piece *l = &m->pieces[left];
        if (l->candidate == PIECE_NONE || l->priority != (uint32_t)(entry >> 32)) {
            continue;
        }
        struct piece *r = &m->pieces[l->next];
        l->id = join(arg, l->candidate);
        r->candidate = PIECE_NONE; /* gone: its entries in the heap are stale */
        l->next = r->next;
        if (l->next != PIECE_NONE) {
            m->pieces[l->next].prev = left;
        }
        if (l->prev != PIECE_NONE && consider(m, l->prev, look, arg)) {
            push(m, entry_of(m, l->prev));
        }
        if (consider(m, left, look, arg)) {
            push(m, entry_of(m, left));
        }
    }
    return true;
}

void merge_deinit(struct merge *m) {
    mem_free(m->pieces);
    mem_free(m->heap);
    memset(m, 0, sizeof *m);
}
