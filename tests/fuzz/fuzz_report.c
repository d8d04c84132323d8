/* fuzz_report.c - the reader of written ledgers: JSON lines and SQLite, by every grouping. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "onetrip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const by[] = {"boundary", "class", "tensor", "cause", "layer"};
    static FILE *out;
    if (out == NULL) {
        out = fopen("/dev/null", "w");
    }
    int fd = memfd_create("ledger", MFD_CLOEXEC);
    if (out == NULL || fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct ot_error err;
    for (size_t i = 0; i < sizeof by / sizeof *by; i++) {
        ot_ledger_print(path, by[i], (uint32_t)(size & 3), out, &err);
    }
    close(fd);
    return 0;
}
