/* record.h - one line of a written ledger, as it is in the file. */
#ifndef REPORT_RECORD_H
#define REPORT_RECORD_H

#include <stdbool.h>
#include <stdint.h>

struct record {
    const char *tensor; /* all strings are borrowed from whoever made the record */
    int32_t layer;      /* -1: none */
    const char *boundary, *cls, *cause, *known;
    uint64_t tensor_bytes, moved_bytes, needed_bytes, rounding_bytes, times;
};

/* Reads a line of JSON, a flat object of strings and whole numbers; keys that are not known are
 * passed over. The strings of *r lie in the line, which is written over. Takes no memory. False
 * where it is no such object, or misses a key that a table needs. */
bool record_parse(char *line, uint64_t bytes, struct record *r);

#endif
