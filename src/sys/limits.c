/* limits.c - memory limits and CPU quotas: control groups of version 1 and 2, and the machine's
 * own.
 *
 * A limit holds if any group on the way up to the mount point sets it, so every level is asked and
 * the smallest wins. Where the process sits in a group that is mounted elsewhere (containers), the
 * mount's own root is taken off its path.
 *
 * Sources: Linux Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst, proc(5).
 * Threads: any. */
#include "sys/limits.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "sys/memory.h"

enum { PATH_BYTES = 1024, LINE_BYTES = 4096 };

/* Version 1 writes "no limit" as a number near 2^63, rounded down to pages. */
#define NO_LIMIT_FROM ((uint64_t)1 << 60)

struct group {
    char directory[PATH_BYTES]; /* of this process, in the file system */
    size_t mount_bytes;         /* of directory: the mount point; levels above it are not ours */
    int version;                /* 0: not found */
};

static FILE *open_under(const char *root, const char *path) {
    char full[PATH_BYTES * 2];
    snprintf(full, sizeof full, "%s%s", root, path);
    return fopen(full, "re");
}

/* True where the comma-separated list holds the word. */
static bool listed(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *at = list; at != NULL && *at != '\0';) {
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0' || at[n] == '\n')) {
            return true;
        }
        at = strchr(at, ',');
        at = at != NULL ? at + 1 : NULL;
    }
    return false;
}

/* The path of this process in the hierarchy of a controller; version 2's line names none. */
static bool own_path(const char *root, const char *controller, char path[PATH_BYTES]) {
    FILE *f = open_under(root, "/proc/self/cgroup");
    char line[LINE_BYTES];
    bool found = false;
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        char *list = strchr(line, ':');
        char *at = list != NULL ? strchr(list + 1, ':') : NULL;
        if (at == NULL) {
            continue;
        }
        *at++ = '\0';
        at[strcspn(at, "\n")] = '\0';
        found = controller != NULL ? listed(list + 1, controller) : list[1] == '\0';
        if (found) {
            snprintf(path, PATH_BYTES, "%.*s", PATH_BYTES - 1, at);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return found;
}

/* Where that hierarchy is mounted, and which of its groups the mount shows as its root. */
static bool own_mount(const char *root, const char *controller, char mount[PATH_BYTES],
                      char mount_root[PATH_BYTES]) {
    FILE *f = open_under(root, "/proc/self/mountinfo");
    char line[LINE_BYTES];
    bool found = false;
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        char group_root[PATH_BYTES], point[PATH_BYTES], type[64], options[PATH_BYTES];
        char *rest = strstr(line, " - ");
        if (rest == NULL || sscanf(line, "%*s %*s %*s %1023s %1023s", group_root, point) != 2 ||
            sscanf(rest + 3, "%63s %*s %1023s", type, options) != 2) {
            continue;
        }
        found = controller != NULL ? strcmp(type, "cgroup") == 0 && listed(options, controller)
                                   : strcmp(type, "cgroup2") == 0;
        if (found) {
            snprintf(mount, PATH_BYTES, "%s", point);
            snprintf(mount_root, PATH_BYTES, "%s", group_root);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return found;
}

static bool locate(const char *root, const char *controller, struct group *group) {
    char path[PATH_BYTES], mount[PATH_BYTES], mount_root[PATH_BYTES];
    if (!own_path(root, controller, path) || !own_mount(root, controller, mount, mount_root)) {
        return false;
    }
    const char *below = path;
    size_t n = strlen(mount_root);
    if (strcmp(mount_root, "/") != 0) {
        below = strncmp(path, mount_root, n) == 0 && (path[n] == '/' || path[n] == '\0') ? path + n
                                                                                         : "";
    }
    if (strncmp(below, "/..", 3) == 0 || strcmp(below, "/") == 0) {
        below = ""; /* outside of what is mounted here, or its root */
    }
    int length = snprintf(group->directory, PATH_BYTES, "%s%s%s", root, mount, below);
    group->mount_bytes = strlen(root) + strlen(mount);
    group->version = controller != NULL ? 1 : 2;
    return length > 0 && length < PATH_BYTES;
}

/* Goes to the parent group; false at the mount point. */
static bool go_up(struct group *group) {
    char *slash = strrchr(group->directory, '/');
    if (slash == NULL || (size_t)(slash - group->directory) < group->mount_bytes) {
        return false;
    }
    *slash = '\0';
    return true;
}

/* First line of a file in a group; false where there is none. */
static bool group_line(const struct group *group, const char *name, char line[128]) {
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", group->directory, name);
    FILE *f = fopen(path, "re");
    bool there = f != NULL && fgets(line, 128, f) != NULL;
    if (f != NULL) {
        fclose(f);
    }
    return there;
}

/* A limit in bytes; UINT64_MAX for "max" and what is no number. */
static uint64_t limit_of(const char *line) {
    char *end;
    uint64_t value = strtoull(line, &end, 10);
    return end == line || value >= NO_LIMIT_FROM ? UINT64_MAX : value;
}

/* The same of a file; UINT64_MAX where there is none. */
static uint64_t group_limit(const struct group *group, const char *name) {
    char line[128];
    return group_line(group, name, line) ? limit_of(line) : UINT64_MAX;
}

static uint64_t group_value(const struct group *group, const char *name) {
    uint64_t value = group_limit(group, name);
    return value == UINT64_MAX ? 0 : value;
}

/* Page cache of a group and those below it: what it gives back when asked for memory. */
static uint64_t group_file_bytes(const struct group *group) {
    char path[PATH_BYTES + 64], line[256];
    snprintf(path, sizeof path, "%s/memory.stat", group->directory);
    FILE *f = fopen(path, "re");
    const char *prefix = group->version == 1 ? "total_" : "";
    uint64_t sum = 0;
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char name[64];
        unsigned long long value;
        size_t skip = strlen(prefix);
        if (sscanf(line, "%63s %llu", name, &value) == 2 && strncmp(name, prefix, skip) == 0 &&
            (strcmp(name + skip, "inactive_file") == 0 ||
             strcmp(name + skip, "active_file") == 0)) {
            sum += value;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return sum;
}

static void read_memory_groups(struct group group, struct sys_limits *limits) {
    bool v1 = group.version == 1;
    do {
        uint64_t limit = group_limit(&group, v1 ? "memory.limit_in_bytes" : "memory.max");
        if (!v1) { /* above memory.high a process is slowed down until it is useless */
            limit = min_u64(limit, group_limit(&group, "memory.high"));
        }
        if (limit == UINT64_MAX) {
            continue;
        }
        uint64_t used = group_value(&group, v1 ? "memory.usage_in_bytes" : "memory.current");
        used -= min_u64(used, group_file_bytes(&group));
        limits->cgroup_bytes = min_u64(limits->cgroup_bytes, limit);
        limits->cgroup_free_bytes =
            min_u64(limits->cgroup_free_bytes, limit - min_u64(limit, used));
    } while (go_up(&group));
}

static void read_machine(const char *root, struct sys_limits *limits) {
    FILE *f = open_under(root, "/proc/meminfo");
    char line[256];
    unsigned long long value;
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "MemTotal: %llu kB", &value) == 1) {
            limits->memory_bytes = value * 1024;
        } else if (sscanf(line, "MemAvailable: %llu kB", &value) == 1) {
            limits->available_bytes = value * 1024;
        }
    }
    if (f != NULL) {
        fclose(f);
    } else if (root[0] == '\0') { /* no /proc here: what the C library knows */
        uint64_t page = sys_page_bytes();
        limits->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * page;
        limits->available_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * page;
    }
}

void sys_limits_read_under(const char *root, struct sys_limits *limits) {
    *limits = (struct sys_limits){.cgroup_bytes = UINT64_MAX, .cgroup_free_bytes = UINT64_MAX};
    read_machine(root, limits);
    struct group group;
    if (locate(root, "memory", &group)) {
        read_memory_groups(group, limits);
    }
    if (locate(root, NULL, &group)) {
        read_memory_groups(group, limits);
    }
}

void sys_limits_read(struct sys_limits *limits) {
    sys_limits_read_under("", limits);
}

void sys_limit_watch_open_under(const char *root, struct sys_limit_watch *watch) {
    static const char *const names[] = {"memory.max", "memory.high"};
    *watch = (struct sys_limit_watch){0};
    struct group group;
    if (!locate(root, NULL, &group)) {
        return;
    }
    do {
        for (uint32_t i = 0; i < 2 && watch->n < SYS_LIMIT_FILES; i++) {
            char path[PATH_BYTES + 64];
            snprintf(path, sizeof path, "%s/%s", group.directory, names[i]);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd >= 0) {
                watch->fd[watch->n++] = fd;
            }
        }
    } while (go_up(&group));
}

void sys_limit_watch_open(struct sys_limit_watch *watch) {
    sys_limit_watch_open_under("", watch);
    if (watch->n > 0) {
        sys_program_lock();
    }
}

void sys_limit_watch_close(struct sys_limit_watch *watch) {
    while (watch->n > 0) {
        close(watch->fd[--watch->n]);
    }
}

uint64_t sys_limit_watch_read(const struct sys_limit_watch *watch) {
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < watch->n; i++) {
        char line[64];
        ssize_t got = pread(watch->fd[i], line, sizeof line - 1, 0);
        if (got > 0) {
            line[got] = '\0';
            least = min_u64(least, limit_of(line));
        }
    }
    return least;
}

static uint32_t quota_of(const struct group *group) {
    char line[128];
    long long quota = -1, period = 0;
    if (group->version == 2) {
        if (!group_line(group, "cpu.max", line) ||
            sscanf(line, "%lld %lld", &quota, &period) != 2) {
            return UINT32_MAX; /* "max 100000", or no such controller */
        }
    } else if (group_line(group, "cpu.cfs_quota_us", line)) {
        quota = strtoll(line, NULL, 10);
        period = group_line(group, "cpu.cfs_period_us", line) ? strtoll(line, NULL, 10) : 0;
    }
    if (quota <= 0 || period <= 0) {
        return UINT32_MAX;
    }
    return (uint32_t)min_u64((uint64_t)((quota - 1) / period + 1), UINT32_MAX);
}

uint32_t sys_cpu_quota(const char *root) {
    uint32_t least = UINT32_MAX;
    for (int version = 1; version <= 2; version++) {
        struct group group;
        if (locate(root, version == 1 ? "cpu" : NULL, &group)) {
            do {
                least = min_u32(least, quota_of(&group));
            } while (go_up(&group));
        }
    }
    return least;
}
