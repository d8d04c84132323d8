/* record.h - one line of a written ledger, as it is in the file. */
#ifndef REPORT_RECORD_H
#define REPORT_RECORD_H

#include <stdint.h>

struct record {
    const char *tensor; /* all strings are borrowed from whoever made the record */
    int32_t layer;      /* -1: none */
    const char *boundary, *cls, *cause, *known;
    uint64_t tensor_bytes, moved_bytes, needed_bytes, rounding_bytes, times;
};

#endif
