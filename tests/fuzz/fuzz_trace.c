/* fuzz_trace.c - the reader of residency traces, and every policy on what it accepts. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "onetrip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static FILE *out;
    if (out == NULL) {
        out = fopen("/dev/null", "w");
    }
    int fd = memfd_create("trace", MFD_CLOEXEC);
    if (out == NULL || fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct ot_error err;
    uint64_t budget = 0;
    for (size_t i = 0; i < 8 && i < size; i++) { /* any budget, the small ones more often */
        budget = budget << 8 | data[size - 1 - i];
    }
    int rc = ot_simulate(path, NULL, budget >> (size % 64), size % 2 == 0, out, &err);
    if (rc != 0 && rc != OT_ERR_FORMAT) {
        abort();
    }
    close(fd);
    return 0;
}
