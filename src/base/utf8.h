/* utf8.h - where characters begin and end. Well-formed as Unicode defines it: no surrogates, no
 * overlong forms, nothing above U+10FFFF. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes (1 to 4) of the character that text begins with; 0 where its bytes form none. */
uint32_t utf8_char_bytes(const char *text, uint64_t bytes);
bool utf8_valid(const char *text, uint64_t bytes);
/* Decodes a well-formed character of n bytes. */
uint32_t utf8_decode(const char *text, uint32_t n);

#endif
