/* alloc.h - where the library takes heap memory, so that tests can make it fail and a budget can count
 * it. Large weight, KV and activation buffers come from sys/memory.h instead.
 *
 * Threads: any. */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed memory for count items; NULL where there is none or the product overflows. bytes may be 0.
 */
void *mem_calloc(uint64_t count, uint64_t item_bytes);
void *mem_realloc(void *memory, uint64_t bytes);
char *mem_strdup(const char *text);
/* The first bytes of text, NUL-terminated. */
char *mem_strndup(const char *text, uint64_t bytes);
void mem_free(void *memory);

/* Bytes handed out and not yet freed. */
uint64_t mem_live_bytes(void);
/* The most there ever were; for tests, which bound what a hostile file makes a parser take. */
uint64_t mem_peak_bytes(void);

/* For tests: the n-th allocation from now on fails (1: the next), once. 0: none. */
void mem_fail_at(uint64_t n);
/* Allocations since mem_fail_at was last called. */
uint64_t mem_fail_count(void);

#endif
