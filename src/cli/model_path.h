/* model_path.h - the model that a name means. */
#ifndef CLI_MODEL_PATH_H
#define CLI_MODEL_PATH_H

#include <stdbool.h>
#include <stddef.h>

/* The file that the user means by MODEL: a path, or a name in the cache; owned by the caller. NULL:
 * no memory. */
char *model_path(const char *name);
/* Whether that is a file. */
bool model_is_there(const char *name);
/* Of a name that is no file's: one line on standard error, which says what there is instead; the exit
 * code. 0, and nothing was said, where it is a path, about which there is no more to say. */
int model_complain_absent(const char *name);

#endif
