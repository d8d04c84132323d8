/* map.c - read-only mappings that outlive a file that shrinks.
 *
 * Reading a page of a mapping that the file no longer has raises SIGBUS. The handler here looks the
 * address up in a table of guarded mappings, puts a page of zeros there, and marks the mapping
 * damaged; any other SIGBUS goes to whoever handled it before.
 *
 * Who puts a handler over ours may hand on to ours for ever after, also when no mapping is left:
 * ours is then in the chain twice once a mapping is opened again, over that handler and below it.
 *
 * Invariants:
 *   a slot's start is non-zero exactly while its mapping exists
 *   the handler is installed while any slot is in use
 *
 * Threads: the table is read by a signal handler on any thread, so its fields are atomic; changes
 * are under a lock. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "sys/facts.h"
#include "sys/file.h"
#include "sys/hook.h"

enum { MAX_MAPS = 4096 };

static struct {
    _Atomic uintptr_t start;
    _Atomic uintptr_t end;
    atomic_bool damaged;
} table[MAX_MAPS];

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t n_maps;          /* under table_lock */
static _Atomic uint32_t n_slots; /* slots from here on were never used */
static struct sigaction previous; /* what ours was put over last */
static struct sigaction first;    /* what it was put over when it came into the chain */
static bool in_chain;             /* under table_lock: others may hand on to ours */

/* The fault that this thread is handing on. It is no more than an address to compare with: who
 * jumps out of his handler leaves it behind. Not taken from the heap at its first use. */
static _Thread_local const void *handing_on __attribute__((tls_model("initial-exec")));

static void pass_on(int sig, siginfo_t *info, void *context) {
    /* a fault that comes back was handed on by the handler that ours lies over */
    const void *before = handing_on;
    const struct sigaction *next = before == context ? &first : &previous;
    handing_on = context;
    if ((next->sa_flags & SA_SIGINFO) != 0 && next->sa_sigaction != NULL) {
        next->sa_sigaction(sig, info, context);
    } else if (next->sa_handler != SIG_DFL && next->sa_handler != SIG_IGN) {
        next->sa_handler(sig);
    } else if (next->sa_handler != SIG_IGN || info->si_code > 0) {
        /* The access is repeated on return, and then ends the process as it would have. */
        struct sigaction fallback = {.sa_handler = SIG_DFL};
        sigaction(sig, &fallback, NULL);
        if (info->si_code <= 0) {
            raise(sig);
        }
    }
    handing_on = before;
}

static void on_bus_error(int sig, siginfo_t *info, void *context) {
    int saved_errno = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    uint32_t n = atomic_load(&n_slots);
    for (uint32_t i = 0; info->si_code > 0 && i < n; i++) {
        uintptr_t start = atomic_load(&table[i].start), end = atomic_load(&table[i].end);
        if (start == 0 || address < start || address >= end) {
            continue;
        }
        atomic_store(&table[i].damaged, true);
        uintptr_t page = address & ~(uintptr_t)(sys_page_bytes() - 1);
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
        void *zeros = mmap((void *)page, sys_page_bytes(), PROT_READ, flags, -1, 0);
        if (zeros == MAP_FAILED) { /* too many mappings: give up the rest of this one at once */
            zeros = mmap((void *)page, end - page, PROT_READ, flags, -1, 0);
        }
        if (zeros != MAP_FAILED) {
            errno = saved_errno;
            return;
        }
        break;
    }
    pass_on(sig, info, context);
    errno = saved_errno;
}

static bool is_ours(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) != 0 && action->sa_sigaction == on_bus_error;
}

/* Puts the handler over what is there, unless it is ours. Under table_lock. */
static void install(void) {
    struct sigaction now, action = {.sa_sigaction = on_bus_error,
                                    .sa_flags =
                                        SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER};
    sigaction(SIGBUS, NULL, &now);
    if (is_ours(&now)) { /* who was over it has put it back */
        return;
    }
    previous = now;
    if (!in_chain) {
        first = now;
    }
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

/* Takes the handler away, unless another is over it, which may hand on to it. Under table_lock. */
static void uninstall(void) {
    struct sigaction now;
    sigaction(SIGBUS, NULL, &now);
    if (is_ours(&now)) {
        sigaction(SIGBUS, &previous, NULL);
    } else {
        in_chain = true;
    }
}

/* Enters a mapping in the table; its slot, or -1 where the table is full. */
static int guard(uintptr_t start, uintptr_t end) {
    pthread_mutex_lock(&table_lock);
    uint32_t slot = 0, n = atomic_load(&n_slots);
    while (slot < n && atomic_load(&table[slot].start) != 0) {
        slot++;
    }
    if (slot == MAX_MAPS) {
        pthread_mutex_unlock(&table_lock);
        return -1;
    }
    if (n_maps++ == 0) {
        sys_page_bytes(); /* the handler must not be the first to ask */
        install();
    }
    atomic_store(&table[slot].damaged, false);
    atomic_store(&table[slot].end, end);
    atomic_store(&table[slot].start, start);
    if (slot == n) {
        atomic_store(&n_slots, n + 1);
    }
    pthread_mutex_unlock(&table_lock);
    return (int)slot;
}

static void unguard(int slot) {
    pthread_mutex_lock(&table_lock);
    atomic_store(&table[slot].start, 0);
    if (--n_maps == 0) {
        uninstall();
    }
    pthread_mutex_unlock(&table_lock);
}

/* Readable zeros at a multiple of SYS_MAP_WINDOW. NULL with errno set. */
static uint8_t *reserve(uint64_t room) {
    uint8_t *start = mmap(NULL, (size_t)(room + SYS_MAP_WINDOW), PROT_READ,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) {
        return NULL;
    }
    uint8_t *data = (uint8_t *)round_up((uintptr_t)start, SYS_MAP_WINDOW);
    uint8_t *end = data + round_up(room, sys_page_bytes());
    if (data > start) {
        munmap(start, (size_t)(data - start));
    }
    munmap(end, (size_t)(start + room + SYS_MAP_WINDOW - end));
    return data;
}

int sys_map_open(struct sys_map *map, const struct sys_file *file, struct ot_error *err) {
    uint64_t file_room, room;
    if (!checked_round_up(file->bytes, sys_page_bytes(), &file_room) ||
        !checked_add(file_room, SYS_MAP_TAIL, &room) || room > SIZE_MAX / 4) {
        return error_set(err, OT_ERR_FORMAT, file->path, "is too large to be mapped (%llu bytes)",
                         (unsigned long long)file->bytes);
    }
    /* The tail comes first, as anonymous memory; the file is then laid over its beginning, where
     * large pages of the file are large pages of memory too. */
    uint8_t *data = reserve(room);
    if (data == NULL) {
        return error_sys(err, OT_ERR_MEMORY, errno, file->path, "cannot be mapped");
    }
    if (file->bytes > 0 && mmap(data, (size_t)file->bytes, PROT_READ, MAP_SHARED | MAP_FIXED,
                                file->fd, 0) == MAP_FAILED) {
        int error = errno;
        munmap(data, (size_t)room);
        return error_sys(err, OT_ERR_IO, error, file->path, "cannot be mapped");
    }
    int slot = guard((uintptr_t)data, (uintptr_t)data + file_room);
    if (slot < 0) {
        munmap(data, (size_t)room);
        return error_set(err, OT_ERR_MEMORY, file->path, "is one mapped file too many (%d)",
                         MAX_MAPS);
    }
    *map = (struct sys_map){.data = data, .bytes = file->bytes, .slot = slot};
    return 0;
}

void sys_map_close(struct sys_map *map) {
    if (map->data == NULL) {
        return;
    }
    unguard(map->slot);
    munmap((void *)(uintptr_t)map->data,
           (size_t)(round_up(map->bytes, sys_page_bytes()) + SYS_MAP_TAIL));
    *map = (struct sys_map){0};
}

bool sys_map_damaged(const struct sys_map *map) {
    return atomic_load(&table[map->slot].damaged);
}

int sys_map_fault(const struct sys_file *file, struct ot_error *err) {
    int code = sys_file_check(file, err);
    return code != 0 ? code
                     : error_sys(err, OT_ERR_IO, EIO, file->path, "cannot be read in places");
}

void sys_map_random(const struct sys_map *map) {
    madvise((void *)(uintptr_t)map->data, (size_t)map->bytes, MADV_RANDOM);
}

bool sys_map_large(const struct sys_map *map, uint64_t offset, uint64_t bytes) {
    return sys_page_bytes() == 4096 &&
           madvise((void *)(uintptr_t)(map->data + offset), (size_t)bytes, MADV_HUGEPAGE) == 0;
}

int sys_map_repair(struct sys_map *map, const struct sys_file *file, struct ot_error *err) {
    void *data = (void *)(uintptr_t)map->data;
    atomic_store(&table[map->slot].damaged, false);
    if (map->bytes > 0 && mmap(data, (size_t)map->bytes, PROT_READ, MAP_SHARED | MAP_FIXED,
                               file->fd, 0) == MAP_FAILED) {
        int error = errno;
        atomic_store(&table[map->slot].damaged, true);
        return error_sys(err, OT_ERR_IO, error, file->path, "cannot be mapped again");
    }
    return 0;
}

/* Kernels before 5.14 do not know the call, and filters of system calls may refuse it: touching
 * each page does the same, a page at a time. */
static void touch_pages(const uint8_t *at, uint64_t bytes) {
    const volatile uint8_t *byte = at;
    for (uint64_t i = 0; i < bytes; i += sys_page_bytes()) {
        (void)byte[i];
    }
}

bool sys_map_populate(const struct sys_map *map, uint64_t offset, uint64_t bytes) {
    enum { ADVICE_POPULATE_READ = 22 };
    int error = 0;
    switch (sys_hook_read(&error)) {
    case SYS_HOOK_ERROR: errno = error; return false;
    case SYS_HOOK_ENDS: errno = EIO; return false;
    default: break;
    }
    uint64_t page = sys_page_bytes();
    uint64_t start = offset / page * page;
    uint64_t end = round_up(offset + bytes, page);
    uint8_t *at = (uint8_t *)(uintptr_t)map->data + start;
    for (uint32_t n_again = 0; madvise(at, (size_t)(end - start), ADVICE_POPULATE_READ) != 0;) {
        if (errno == EINVAL || errno == EPERM || errno == ENOSYS) {
            touch_pages(at, end - start);
            return !sys_map_damaged(map);
        }
        if ((errno != EINTR && errno != EAGAIN) || n_again++ == SYS_AGAIN_MOST) {
            errno = errno == EFAULT ? EIO : errno; /* what would have been SIGBUS */
            return false;
        }
    }
    return true;
}
