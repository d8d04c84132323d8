/* machine.c - what the machine offers, for callers who know the public header only. */
#include "base/checked.h"
#include "onetrip.h"
#include "sys/facts.h"

uint64_t ot_memory_bytes(void) {
    struct sys_limits limits;
    sys_limits_read(&limits);
    return min_u64(limits.memory_bytes, limits.cgroup_bytes);
}
