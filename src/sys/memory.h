/* memory.h - large buffers, straight from the operating system, and what it says about them.
 *
 * Threads: any; a region is freed by one. */
#ifndef SYS_MEMORY_H
#define SYS_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

#define SYS_MEMORY_HUGE ((uint64_t)2 << 20)
/* Bytes that may be read behind each piece of memory. */
enum { SYS_MEMORY_TAIL = 64 };

/* Zeroed, page-aligned memory, followed by SYS_MEMORY_TAIL readable bytes; huge pages are refused, or
 * asked for where huge is set: the memory then begins at a multiple of SYS_MEMORY_HUGE, and counts as
 * resident in such units as it is touched, but for the rest after the last whole one. Not resident
 * until touched. NULL with err filled: MEMORY. Counted by sys_memory_live_bytes. */
void *sys_memory_take(uint64_t bytes, bool huge, struct ot_error *err);
void sys_memory_free(void *memory, uint64_t bytes);
/* Gives the whole pages of a range back, locked ones too; keeps the addresses. Returns their bytes. */
uint64_t sys_memory_drop(void *memory, uint64_t bytes);
uint64_t sys_memory_live_bytes(void);
/* For tests: the n-th sys_memory_take from now on fails (1: the next), once. 0: none. */
void sys_memory_fail_at(uint64_t n);

/* Locks memory, page by page as it is touched, as far as RLIMIT_MEMLOCK allows. Returns the bytes
 * really locked (0 on refusal). */
uint64_t sys_memory_lock(void *memory, uint64_t bytes);
/* Keeps the pages of the program and its libraries in memory, as they come in and as far as
 * RLIMIT_MEMLOCK allows, until the process ends: what else in it has locked some of them need not lose
 * that. The first call counts. */
void sys_program_lock(void);
/* Bytes of all these pages, in memory or not: the same in every process of the program. */
uint64_t sys_program_bytes(void);
/* Makes the range resident, content unchanged, as if each page had been written to. Both ends are
 * multiples of the page size, or the region's. False where the system does not know how (before
 * Linux 5.14) or has no memory: pages then come in when touched. */
bool sys_memory_touch(void *memory, uint64_t bytes);
/* Bytes of the range that are resident now (mincore). */
uint64_t sys_memory_resident(const void *memory, uint64_t bytes);

#endif
