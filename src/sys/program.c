/* program.c - the program's own pages: how many there are, and how they are kept in memory.
 *
 * In a control group that is short of memory the kernel takes what it can, and where all weights
 * are locked that is the program: it would be read again page by page, each one held up by the
 * limit that it exceeds, and never come to give weights back.
 *
 * Threads: any. */
#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "sys/facts.h"
#include "sys/memory.h"

struct pages {
    bool lock;
    uint64_t bytes;
};

/* What is mapped of one object's file: code, constants, data. */
static int visit_object(struct dl_phdr_info *object, size_t size, void *arg) {
    (void)size;
    struct pages *pages = arg;
    const uint64_t page = sys_page_bytes();
    for (uint32_t i = 0; i < object->dlpi_phnum; i++) {
        if (object->dlpi_phdr[i].p_type == PT_LOAD) {
            uint64_t at = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
            uint64_t start = at / page * page;
            uint64_t end = round_up(at + object->dlpi_phdr[i].p_memsz, page);
            pages->bytes += end - start;
            if (pages->lock) {
                mlock2((const void *)start, (size_t)(end - start), MLOCK_ONFAULT);
            }
        }
    }
    return 0;
}

uint64_t sys_program_bytes(void) {
    struct pages pages = {.lock = false};
    dl_iterate_phdr(visit_object, &pages);
    return pages.bytes;
}

static void lock_all(void) {
    struct pages pages = {.lock = true};
    dl_iterate_phdr(visit_object, &pages);
}

void sys_program_lock(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, lock_all);
}
