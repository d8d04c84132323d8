/* json_text.h - strings of any bytes as JSON, whose text is UTF-8. */
#ifndef BASE_JSON_TEXT_H
#define BASE_JSON_TEXT_H

#include <jansson.h>

/* The text; where it is not UTF-8, with '?' for every byte that is not ASCII. NULL: no memory. */
json_t *json_text(const char *text);

#endif
