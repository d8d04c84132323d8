/* program.c - the program's own pages, kept in memory.
 *
 * In a control group that is short of memory the kernel takes what it can, and where all weights
 * are locked that is the program: it would be read again page by page, each one held up by the
 * limit that it exceeds, and never come to give weights back.
 *
 * Threads: any. */
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "sys/facts.h"
#include "sys/memory.h"

/* What is mapped of one object's file: code, constants, data. */
static int lock_object(struct dl_phdr_info *object, size_t size, void *arg) {
    (void)size;
    (void)arg;
    const uint64_t page = sys_page_bytes();
    for (uint32_t i = 0; i < object->dlpi_phnum; i++) {
        if (object->dlpi_phdr[i].p_type == PT_LOAD) {
            uint64_t at = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
            uint64_t start = at / page * page;
            uint64_t end = round_up(at + object->dlpi_phdr[i].p_memsz, page);
            mlock2((const void *)start, (size_t)(end - start), MLOCK_ONFAULT);
        }
    }
    return 0;
}

static void lock_all(void) {
    dl_iterate_phdr(lock_object, NULL);
}

void sys_program_lock(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, lock_all);
}
