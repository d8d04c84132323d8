/* memory.c - large buffers from mmap, counted.
 *
 * Threads: any; a region is freed by one. */
#include "sys/memory.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "sys/facts.h"
#include "sys/hook.h"

static _Atomic uint64_t live_bytes, n_takes, fail_at;

void sys_memory_fail_at(uint64_t n) {
    atomic_store(&n_takes, 0);
    atomic_store(&fail_at, n);
}

static uint64_t room_of(uint64_t bytes) {
    return round_up(bytes + SYS_MEMORY_TAIL, sys_page_bytes());
}

void *sys_memory_take(uint64_t bytes, bool huge, struct ot_error *err) {
    if (bytes > SIZE_MAX / 4 || atomic_fetch_add(&n_takes, 1) + 1 == atomic_load(&fail_at)) {
        error_memory(err, bytes);
        return NULL;
    }
    uint64_t room = room_of(bytes);
    bool aligned = huge && room >= SYS_MEMORY_HUGE;
    uint64_t reserved = aligned ? room + SYS_MEMORY_HUGE : room;
    uint8_t *start = mmap(NULL, (size_t)reserved, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) {
        error_sys(err, OT_ERR_MEMORY, errno, "memory", "%llu bytes were refused",
                  (unsigned long long)bytes);
        return NULL;
    }
    uint8_t *memory = start;
    if (aligned) {
        memory = (uint8_t *)round_up((uintptr_t)start, SYS_MEMORY_HUGE);
        if (memory > start) {
            munmap(start, (size_t)(memory - start));
        }
        uint8_t *end = start + reserved;
        if (end > memory + room) {
            munmap(memory + room, (size_t)(end - (memory + room)));
        }
        madvise(memory, (size_t)room, MADV_HUGEPAGE);
    } else { /* where the system makes huge pages of all memory: what is not touched must not count */
        madvise(memory, (size_t)room, MADV_NOHUGEPAGE);
    }
    atomic_fetch_add(&live_bytes, room);
    return memory;
}

void sys_memory_free(void *memory, uint64_t bytes) {
    if (memory != NULL) {
        munmap(memory, (size_t)room_of(bytes));
        atomic_fetch_sub(&live_bytes, room_of(bytes));
    }
}

/* The whole pages inside a range. */
static uint64_t inner_pages(void *memory, uint64_t bytes, uint8_t **start) {
    uint64_t page = sys_page_bytes();
    uintptr_t first = (uintptr_t)round_up((uintptr_t)memory, page);
    uintptr_t end = ((uintptr_t)memory + bytes) / page * page;
    *start = (uint8_t *)first;
    return end > first ? end - first : 0;
}

/* A huge page of which a part goes is divided first, which is a side effect of calling the part
 * cold (Linux 5.4): else all of it stays charged to the control group until the kernel is short of
 * memory.
 */
static bool give_back(uint8_t *start, uint64_t bytes) {
    enum { ADVICE_COLD = 20 };
    madvise(start, (size_t)bytes, ADVICE_COLD);
    return madvise(start, (size_t)bytes, MADV_DONTNEED) == 0;
}

uint64_t sys_memory_drop(void *memory, uint64_t bytes) {
    uint8_t *start;
    uint64_t inner = inner_pages(memory, bytes, &start);
    if (inner > 0 && !give_back(start, inner)) {
        /* Locked pages are not given back. (The call itself: sanitizers make munlock() do nothing.)
         */
        syscall(SYS_munlock, start, (size_t)inner);
        give_back(start, inner);
    }
    return inner;
}

uint64_t sys_memory_live_bytes(void) {
    return atomic_load(&live_bytes);
}

uint64_t sys_memory_lock(void *memory, uint64_t bytes) {
    uint8_t *start;
    uint64_t left = inner_pages(memory, bytes, &start);
    if (left == 0) {
        return 0;
    }
    /* Pages are locked as they come in: locking must not read or clear anything ahead of use. */
    if (mlock2(start, (size_t)left, MLOCK_ONFAULT) == 0) {
        return left;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
        return 0;
    }
    /* What is locked already counts against the limit too: halve until it is taken. */
    uint64_t page = sys_page_bytes();
    for (left = min_u64(left, limit.rlim_cur) / page * page; left > 0;
         left = left / 2 / page * page) {
        if (mlock2(start, (size_t)left, MLOCK_ONFAULT) == 0) {
            return left;
        }
    }
    return 0;
}

bool sys_memory_touch(void *memory, uint64_t bytes) {
    enum { ADVICE_POPULATE_WRITE = 23 };
    size_t whole = (size_t)round_up(bytes, sys_page_bytes());
    uint32_t n_again = 0;
    int rc;
    do {
        rc = madvise(memory, whole, ADVICE_POPULATE_WRITE);
    } while (rc != 0 && (errno == EINTR || errno == EAGAIN) && n_again++ < SYS_AGAIN_MOST);
    return rc == 0;
}

uint64_t sys_memory_resident(const void *memory, uint64_t bytes) {
    uint64_t page = sys_page_bytes(), resident = 0;
    uintptr_t at = (uintptr_t)memory / page * page, end = (uintptr_t)memory + bytes;
    unsigned char present[4096];
    while (at < end) {
        uint64_t step = min_u64(round_up(end - at, page), sizeof present * page);
        if (mincore((void *)at, (size_t)step, present) != 0) {
            break;
        }
        for (uint64_t i = 0; i < step / page; i++) {
            resident += (present[i] & 1) * page;
        }
        at += step;
    }
    return min_u64(resident, bytes);
}
