/* exhaust.c - a shared object that a test preloads into the program: one allocation of the whole
 * process, those of the libraries it uses included, finds no memory.
 *
 *   EXHAUST_AT=N        the one that fails, counted from 1; 0 or nothing: none
 *   EXHAUST_COUNT=FILE  where to write, at the end, how many there were
 *
 * Source: glibc's manual, "Replacing malloc"; __libc_malloc and its like are what they replace. */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t item_bytes);
void *__libc_realloc(void *memory, size_t bytes);

static _Atomic unsigned long n_allocations, fail_at;
static const char *count_path;

__attribute__((constructor)) static void begin(void) {
    const char *at = getenv("EXHAUST_AT");
    count_path = getenv("EXHAUST_COUNT");
    atomic_store(&n_allocations, 0);
    atomic_store(&fail_at, at != NULL ? strtoul(at, NULL, 10) : 0);
}

__attribute__((destructor)) static void end(void) {
    unsigned long n = atomic_load(&n_allocations);
    FILE *out = count_path != NULL ? fopen(count_path, "w") : NULL;
    if (out != NULL) {
        fprintf(out, "%lu\n", n);
        fclose(out);
    }
}

static bool must_fail(void) {
    if (atomic_fetch_add(&n_allocations, 1) + 1 != atomic_load(&fail_at)) {
        return false;
    }
    errno = ENOMEM;
    return true;
}

void *malloc(size_t bytes) {
    return must_fail() ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t item_bytes) {
    return must_fail() ? NULL : __libc_calloc(count, item_bytes);
}

void *realloc(void *memory, size_t bytes) {
    return must_fail() ? NULL : __libc_realloc(memory, bytes);
}
