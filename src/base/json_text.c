/* json_text.c - strings of any bytes as JSON. */
#include "base/json_text.h"

#include "base/alloc.h"

json_t *json_text(const char *text) {
    json_t *value = json_string(text);
    if (value != NULL) {
        return value;
    }
    char *clean = mem_strdup(text);
    if (clean == NULL) {
        return NULL;
    }
    for (char *c = clean; *c != '\0'; c++) {
        *c = (unsigned char)*c >= 0x80 ? '?' : *c;
    }
    value = json_string(clean);
    mem_free(clean);
    return value;
}

char *json_whole(const json_t *root, size_t flags, size_t *bytes) {
    size_t needed = json_dumpb(root, NULL, 0, flags);
    char *whole = needed != 0 ? mem_calloc(needed + 1, 1) : NULL;
    if (whole == NULL || json_dumpb(root, whole, needed, flags) != needed) {
        mem_free(whole);
        return NULL;
    }
    *bytes = needed;
    return whole;
}
