/* facts.c - what this machine and this process are: processor and process counters. Memory limits
 * and control groups are in limits.c.
 *
 * Threads: any; the processor's facts are read once. */
#include "sys/facts.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/checked.h"
#include "sys/limits.h"

enum { MAX_CPUS = 4096 };

uint32_t sys_page_bytes(void) {
    static _Atomic uint32_t page_bytes;
    if (page_bytes == 0) {
        page_bytes = (uint32_t)sysconf(_SC_PAGESIZE);
    }
    return page_bytes;
}

static void read_name(struct sys_cpu *cpu) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[512];
    while (f != NULL && cpu->name[0] == '\0' && fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':');
        if (colon != NULL &&
            (strncmp(line, "model name", 10) == 0 || strncmp(line, "Processor", 9) == 0)) {
            colon += 1 + strspn(colon + 1, " \t");
            colon[strcspn(colon, "\n")] = '\0';
            snprintf(cpu->name, sizeof cpu->name, "%.63s", colon);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    if (cpu->name[0] == '\0') {
        snprintf(cpu->name, sizeof cpu->name, "unknown");
    }
}

/* One number of /sys/devices/system/cpu/cpuN/...; -1 where it is absent. */
static long topology(uint32_t cpu, const char *what) {
    char path[128], text[32];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/%s", cpu, what);
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return -1;
    }
    long value = fgets(text, sizeof text, f) != NULL ? strtol(text, NULL, 10) : -1;
    fclose(f);
    return value;
}

struct core {
    long package, core;
};

static int compare_cores(const void *a, const void *b) {
    const struct core *x = a, *y = b;
    return x->package != y->package ? (x->package < y->package ? -1 : 1)
                                    : (x->core > y->core) - (x->core < y->core);
}

/* Logical processors that the affinity mask allows, and the distinct cores they belong to. */
static void count_cores(uint32_t *n_allowed, uint32_t *n_cores) {
    cpu_set_t *set = CPU_ALLOC(MAX_CPUS);
    struct core *cores = calloc(MAX_CPUS, sizeof *cores);
    uint32_t n = 0, distinct = 0;
    if (set != NULL && cores != NULL && sched_getaffinity(0, CPU_ALLOC_SIZE(MAX_CPUS), set) == 0) {
        for (uint32_t i = 0; i < MAX_CPUS; i++) {
            if (CPU_ISSET_S(i, CPU_ALLOC_SIZE(MAX_CPUS), set)) {
                struct core c = {topology(i, "physical_package_id"), topology(i, "core_id")};
                /* Unknown cores count one each. */
                cores[n++] = c.core < 0 ? (struct core){-2, (long)i} : c;
            }
        }
        qsort(cores, n, sizeof *cores, compare_cores);
        for (uint32_t i = 0; i < n; i++) {
            distinct += i == 0 || compare_cores(&cores[i - 1], &cores[i]) != 0;
        }
    }
    free(cores);
    if (set != NULL) {
        CPU_FREE(set);
    }
    *n_allowed = max_u32(n, 1);
    *n_cores = max_u32(distinct, 1);
}

/* Bytes of the data or unified cache of a level that the first processor sees. */
static uint32_t cache_bytes(long level) {
    for (uint32_t i = 0; i < 8; i++) {
        char path[128], text[32];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%u/level", i);
        FILE *f = fopen(path, "re");
        if (f == NULL) {
            break;
        }
        long found = fgets(text, sizeof text, f) != NULL ? strtol(text, NULL, 10) : 0;
        fclose(f);
        if (found != level) {
            continue;
        }
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%u/size", i);
        f = fopen(path, "re");
        if (f == NULL) {
            break;
        }
        char *unit = text;
        unsigned long size = fgets(text, sizeof text, f) != NULL ? strtoul(text, &unit, 10) : 0;
        fclose(f);
        size <<= *unit == 'K' ? 10 : *unit == 'M' ? 20 : 0;
        return (uint32_t)min_u64(size, UINT32_MAX);
    }
    long size = sysconf(level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
    return size > 0 ? (uint32_t)min_u64((uint64_t)size, UINT32_MAX) : 0;
}

static struct sys_cpu cpu_facts;
static pthread_once_t cpu_once = PTHREAD_ONCE_INIT;

uint32_t sys_cpu_default_threads(uint32_t n_allowed, uint32_t n_cores, uint32_t quota) {
    uint32_t n = max_u32(n_cores, 2);
    return max_u32(min_u32(min_u32(n, n_allowed), quota), 1);
}

static void read_cpu(void) {
    struct sys_cpu *cpu = &cpu_facts;
    read_name(cpu);
    cpu->l2_bytes = cache_bytes(2);
    cpu->l3_bytes = cache_bytes(3);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    cpu->n_logical = online > 0 ? (uint32_t)online : 1;
    uint32_t n_allowed, n_cores;
    count_cores(&n_allowed, &n_cores);
    uint32_t quota = sys_cpu_quota("");
    cpu->n_default = sys_cpu_default_threads(n_allowed, n_cores, quota);
}

const struct sys_cpu *sys_cpu_facts(void) {
    pthread_once(&cpu_once, read_cpu);
    return &cpu_facts;
}

static bool field(const char *line, const char *name, uint64_t unit, uint64_t *out) {
    size_t n = strlen(name);
    if (strncmp(line, name, n) != 0 || line[n] != ':') {
        return false;
    }
    *out = strtoull(line + n + 1, NULL, 10) * unit;
    return true;
}

static void read_status(struct sys_process *p) {
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        (void)(field(line, "VmRSS", 1024, &p->rss_bytes) ||
               field(line, "VmHWM", 1024, &p->peak_rss_bytes) ||
               field(line, "RssAnon", 1024, &p->anon_bytes) ||
               field(line, "VmSwap", 1024, &p->swap_bytes));
    }
    if (f != NULL) {
        fclose(f);
        return;
    }
    struct rusage usage; /* without /proc: the most so far, whatever it is of */
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        p->rss_bytes = p->peak_rss_bytes = p->anon_bytes = (uint64_t)usage.ru_maxrss * 1024;
    }
}

static void read_io(struct sys_process *p) {
    FILE *f = fopen("/proc/self/io", "re");
    char line[256];
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (field(line, "read_bytes", 1, &p->read_bytes)) {
            p->io_known = true;
        }
        field(line, "rchar", 1, &p->rchar);
    }
    if (f != NULL) {
        fclose(f);
    }
}

void sys_process_read(struct sys_process *process) {
    *process = (struct sys_process){0};
    read_status(process);
    read_io(process);
}

static void read_usage(int who, struct sys_reads *reads) {
    struct rusage usage;
    *reads = (struct sys_reads){0};
    if (getrusage(who, &usage) == 0) {
        *reads = (struct sys_reads){
            .read_bytes = (uint64_t)usage.ru_inblock * 512,
            .n_major_faults = (uint64_t)usage.ru_majflt,
        };
    }
}

void sys_process_reads(struct sys_reads *reads) {
    read_usage(RUSAGE_SELF, reads);
}

void sys_thread_reads(struct sys_reads *reads) {
    read_usage(RUSAGE_THREAD, reads);
}
