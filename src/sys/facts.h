/* facts.h - what this machine, this process and its limits are.
 *
 * Threads: any. */
#ifndef SYS_FACTS_H
#define SYS_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

struct sys_cpu {
    char name[64];           /* "AMD EPYC", from /proc/cpuinfo */
    uint32_t n_logical;      /* online */
    uint32_t n_default;      /* threads where none are asked for: sys_cpu_default_threads */
    uint32_t l2_bytes, l3_bytes; /* of one core / one cache; 0 unknown */
};
const struct sys_cpu *sys_cpu_facts(void); /* read once */
/* Threads to compute with, of the logical processors that are allowed, the distinct cores they
 * belong to and the CPU quota (UINT32_MAX: none): one a core, since a second one shares its pipes;
 * but two where two are allowed. A small virtual machine is often two hyperthreads of one core, and
 * there a second thread is worth more than it takes: it keeps more reads of memory under way. */
uint32_t sys_cpu_default_threads(uint32_t n_allowed, uint32_t n_cores, uint32_t quota);

struct sys_limits {
    uint64_t memory_bytes;    /* of the machine */
    uint64_t available_bytes; /* MemAvailable */
    uint64_t cgroup_bytes;    /* smallest limit on the way up the hierarchy, v1 or v2; UINT64_MAX: none */
    uint64_t cgroup_free_bytes; /* the least, over those groups, of the limit less what is used of it and is
                                   no page cache, which gives way; UINT64_MAX: no limit */
};
void sys_limits_read(struct sys_limits *limits);

/* The limits of memory that may fall below what the process has while it runs: memory.max and
 * memory.high of its groups of version 2. (Version 1 refuses that.) */
enum { SYS_LIMIT_FILES = 32 };
struct sys_limit_watch {
    int fd[SYS_LIMIT_FILES]; /* [n], open */
    uint32_t n;
};
/* Opens what there is; 0 files where nothing can be watched. Where there are some, the program's pages
 * stay in memory from now on (sys_program_lock), so that it can come to look at the limits. */
void sys_limit_watch_open(struct sys_limit_watch *watch);
void sys_limit_watch_close(struct sys_limit_watch *watch);
/* The smallest now, in bytes, as of the groups the process was in when the watch was opened; a few
 * microseconds. UINT64_MAX: none. */
uint64_t sys_limit_watch_read(const struct sys_limit_watch *watch);

struct sys_process {
    uint64_t rss_bytes, peak_rss_bytes; /* VmRSS, VmHWM */
    uint64_t anon_bytes;                /* of rss_bytes: of no file (RssAnon) */
    uint64_t read_bytes, rchar; /* /proc/self/io */
    uint64_t swap_bytes;
    bool io_known; /* /proc/self/io could be read */
};
void sys_process_read(struct sys_process *process);

/* What storage delivered so far, as the kernel counts it for the process (as read_bytes of
 * /proc/self/io), or for the calling thread; and how often a fault had to wait for it. A microsecond. */
struct sys_reads {
    uint64_t read_bytes, n_major_faults;
};
void sys_process_reads(struct sys_reads *reads);
void sys_thread_reads(struct sys_reads *reads);

/* Bytes of a page. */
uint32_t sys_page_bytes(void);

#endif
