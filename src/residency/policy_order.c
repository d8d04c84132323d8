/* policy_order.c - the two orders that policies are built from: a list and a heap over item
 * numbers, in arrays taken once. */
#include "base/alloc.h"
#include "residency/policy_impl.h"

bool policy_list_open(struct policy_list *l, uint32_t n_items) {
    l->prev = mem_calloc(n_items, sizeof *l->prev);
    l->next = mem_calloc(n_items, sizeof *l->next);
    l->head = l->tail = POLICY_NONE;
    return l->prev != NULL && l->next != NULL;
}

void policy_list_close(struct policy_list *l) {
    mem_free(l->prev);
    mem_free(l->next);
}

void policy_list_push_head(struct policy_list *l, uint32_t item) {
    l->prev[item] = POLICY_NONE;
    l->next[item] = l->head;
    if (l->head != POLICY_NONE) {
        l->prev[l->head] = item;
    } else {
        l->tail = item;
    }
    l->head = item;
    l->n++;
}

void policy_list_remove(struct policy_list *l, uint32_t item) {
    uint32_t before = l->prev[item];
    uint32_t after = l->next[item];
    if (before != POLICY_NONE) {
        l->next[before] = after;
    } else {
        l->head = after;
    }
    if (after != POLICY_NONE) {
        l->prev[after] = before;
    } else {
        l->tail = before;
    }
    l->n--;
}

bool policy_list_check(const struct policy_list *l, uint32_t n_items) {
    uint32_t n = 0;
    uint32_t before = POLICY_NONE;
    for (uint32_t item = l->head; item != POLICY_NONE; item = l->next[item]) {
        if (item >= n_items || l->prev[item] != before || n == n_items) {
            return false;
        }
        before = item;
        n++;
    }
    return before == l->tail && n == l->n;
}

bool policy_heap_open(struct policy_heap *h, uint32_t n_items) {
    h->items = mem_calloc(n_items, sizeof *h->items);
    h->place = mem_calloc(n_items, sizeof *h->place);
    h->key = mem_calloc(n_items, sizeof *h->key);
    if (h->items == NULL || h->place == NULL || h->key == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < n_items; i++) {
        h->place[i] = POLICY_NONE;
    }
    return true;
}

void policy_heap_close(struct policy_heap *h) {
    mem_free(h->items);
    mem_free(h->place);
    mem_free(h->key);
}

static void put(struct policy_heap *h, uint32_t place, uint32_t item) {
    h->items[place] = item;
    h->place[item] = place;
}

/* The item's place is free to be any on the way up from `place`. */
static void sift_up(struct policy_heap *h, uint32_t place, uint32_t item) {
    while (place > 0) {
        uint32_t parent = (place - 1) / 2;
        if (h->key[h->items[parent]] <= h->key[item]) {
            break;
        }
        put(h, place, h->items[parent]);
        place = parent;
    }
    put(h, place, item);
}

static void sift_down(struct policy_heap *h, uint32_t place, uint32_t item) {
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child >= h->n) {
            break;
        }
        if (child + 1 < h->n && h->key[h->items[child + 1]] < h->key[h->items[child]]) {
            child++;
        }
        if (h->key[h->items[child]] >= h->key[item]) {
            break;
        }
        put(h, place, h->items[child]);
        place = child;
    }
    put(h, place, item);
}

static void sift(struct policy_heap *h, uint32_t place, uint32_t item) {
    if (place > 0 && h->key[h->items[(place - 1) / 2]] > h->key[item]) {
        sift_up(h, place, item);
    } else {
        sift_down(h, place, item);
    }
}

void policy_heap_push(struct policy_heap *h, uint32_t item) {
    h->n++;
    sift_up(h, h->n - 1, item);
}

void policy_heap_remove(struct policy_heap *h, uint32_t item) {
    uint32_t place = h->place[item];
    uint32_t last = h->items[h->n - 1];
    h->n--;
    h->place[item] = POLICY_NONE;
    if (last != item) {
        sift(h, place, last);
    }
}

void policy_heap_set_key(struct policy_heap *h, uint32_t item, uint64_t key) {
    h->key[item] = key;
    if (policy_heap_has(h, item)) {
        sift(h, h->place[item], item);
    }
}

bool policy_heap_check(const struct policy_heap *h, uint32_t n_items) {
    uint32_t n_placed = 0;
    for (uint32_t i = 0; i < n_items; i++) {
        n_placed += policy_heap_has(h, i);
    }
    if (n_placed != h->n) {
        return false;
    }
    for (uint32_t i = 0; i < h->n; i++) {
        uint32_t item = h->items[i];
        if (item >= n_items || h->place[item] != i ||
            (i > 0 && h->key[h->items[(i - 1) / 2]] > h->key[item])) {
            return false;
        }
    }
    return true;
}
