/* json_text.h - strings of any bytes as JSON, whose text is UTF-8. */
#ifndef BASE_JSON_TEXT_H
#define BASE_JSON_TEXT_H

#include <jansson.h>

/* The text; where it is not UTF-8, with '?' for every byte that is not ASCII. NULL: no memory. */
json_t *json_text(const char *text);

/* The whole as text [*bytes], NUL-terminated; free it with mem_free. NULL: no memory. (json_dumps
 * loses keys without a word where its buffer cannot grow.) */
char *json_whole(const json_t *root, size_t flags, size_t *bytes);

#endif
