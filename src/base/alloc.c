/* alloc.c - heap memory, counted and made to fail in one place. */
#include "base/alloc.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "onetrip.h"

static _Atomic uint64_t live_bytes, peak_bytes;
static _Atomic uint64_t fail_at, n_allocations;

static int must_fail(void) {
    uint64_t n = atomic_fetch_add(&n_allocations, 1) + 1;
    return n == atomic_load(&fail_at);
}

static void count_in(void *memory) {
    uint64_t now =
        atomic_fetch_add(&live_bytes, malloc_usable_size(memory)) + malloc_usable_size(memory);
    uint64_t peak = atomic_load(&peak_bytes);
    while (now > peak && !atomic_compare_exchange_weak(&peak_bytes, &peak, now)) {
    }
}

static void count_out(void *memory) {
    atomic_fetch_sub(&live_bytes, malloc_usable_size(memory));
}

void *mem_calloc(uint64_t count, uint64_t item_bytes) {
    uint64_t bytes;
    if (__builtin_mul_overflow(count, item_bytes, &bytes) || bytes > SIZE_MAX / 2 || must_fail()) {
        return NULL;
    }
    void *memory = calloc(1, bytes != 0 ? (size_t)bytes : 1);
    if (memory != NULL) {
        count_in(memory);
    }
    return memory;
}

void *mem_realloc(void *memory, uint64_t bytes) {
    if (bytes > SIZE_MAX / 2 || must_fail()) {
        return NULL;
    }
    size_t old_bytes = memory != NULL ? malloc_usable_size(memory) : 0;
    void *moved = realloc(memory, bytes != 0 ? (size_t)bytes : 1);
    if (moved != NULL) {
        atomic_fetch_sub(&live_bytes, old_bytes);
        count_in(moved);
    }
    return moved;
}

char *mem_strndup(const char *text, uint64_t bytes) {
    char *copy = mem_calloc(bytes + 1, 1);
    if (copy != NULL) {
        memcpy(copy, text, (size_t)bytes);
    }
    return copy;
}

char *mem_strdup(const char *text) {
    return mem_strndup(text, strlen(text));
}

void mem_free(void *memory) {
    if (memory != NULL) {
        count_out(memory);
        free(memory);
    }
}

void ot_free(void *memory) {
    mem_free(memory);
}

uint64_t mem_live_bytes(void) {
    return atomic_load(&live_bytes);
}
uint64_t mem_peak_bytes(void) {
    return atomic_load(&peak_bytes);
}

void mem_fail_at(uint64_t n) {
    atomic_store(&n_allocations, 0);
    atomic_store(&fail_at, n);
}

uint64_t mem_fail_count(void) {
    return atomic_load(&n_allocations);
}
