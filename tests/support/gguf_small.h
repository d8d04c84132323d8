/* gguf_small.h - a small GGUF file with a bit of everything, and a parsed file with its bytes. */
#ifndef TESTS_SUPPORT_GGUF_SMALL_H
#define TESTS_SUPPORT_GGUF_SMALL_H

#include "support/gguf_image.h"

/* Six keys (general.architecture, llama.block_count, llama.eps, flag, words, numbers) and three
 * tensors: a.weight Q4_0 [64, 3], b.weight F32 [5], c.weight F16 [2, 3, 4]. */
void gguf_small_image(struct image *image);

/* Keeps the bytes that a struct gguf points into. */
struct parsed {
    struct gguf g;
    struct image_bytes file;
};
/* The path that messages of such a file name. */
extern const char parsed_path[];
/* Aborts the test where the image is refused. */
void parsed_open(struct parsed *p, const struct image *image);
void parsed_close(struct parsed *p);

#endif
