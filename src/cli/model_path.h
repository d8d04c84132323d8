/* model_path.h - the model that a name means. */
#ifndef CLI_MODEL_PATH_H
#define CLI_MODEL_PATH_H

#include <stddef.h>

/* The file that the user means by MODEL: a path, or a name in the cache; owned by the caller. NULL:
 * no memory. */
char *model_path(const char *name);
/* Where models are kept, "" where there is no home; buf [n]. */
const char *model_cache(char *buf, size_t n);

#endif
