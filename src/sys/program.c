/* program.c - the program's own pages, kept in memory.
 *
 * In a control group that is short of memory the kernel takes what it can, and where all weights are
 * locked that is the program: it would be read again page by page, each one held up by the limit that it
 * exceeds, and never come to give weights back.
 *
 * Threads: any. */
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "sys/facts.h"
#include "sys/memory.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int32_t n_locks;

/* What is mapped of one object's file: code, constants, data. lock: a bool. */
static int each_object(struct dl_phdr_info *object, size_t size, void *lock) {
    (void)size;
    const bool *locks = lock;
    const uint64_t page = sys_page_bytes();
    for (uint32_t i = 0; i < object->dlpi_phnum; i++) {
        if (object->dlpi_phdr[i].p_type != PT_LOAD) {
            continue;
        }
        uint64_t at = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
        uint64_t start = at / page * page;
        size_t bytes = (size_t)(round_up(at + object->dlpi_phdr[i].p_memsz, page) - start);
        if (*locks) {
            mlock2((const void *)start, bytes, MLOCK_ONFAULT);
        } else {
            munlock((const void *)start, bytes);
        }
    }
    return 0;
}

static void change(int32_t more) {
    pthread_mutex_lock(&mutex);
    bool before = n_locks > 0, locks = (n_locks += more) > 0;
    if (locks != before) {
        dl_iterate_phdr(each_object, &locks);
    }
    pthread_mutex_unlock(&mutex);
}

void sys_program_lock(void) {
    change(1);
}

void sys_program_unlock(void) {
    change(-1);
}
