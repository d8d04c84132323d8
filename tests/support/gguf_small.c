/* gguf_small.c - a small GGUF file with a bit of everything. */
#include "support/gguf_small.h"

#include <stdio.h>
#include <stdlib.h>

#include "support/tiny_model.h"

const char parsed_path[] = "some/model.gguf";

void gguf_small_image(struct image *image) {
    image_init(image);
    image_set_text(image, "general.architecture", "llama");
    image_set_u32(image, "llama.block_count", 2);
    image_set_f32(image, "llama.eps", 1e-5f);
    image_set_bool(image, "flag", true);
    struct image_key *words = image_set_array(image, "words", GGUF_STRING);
    image_add_text(words, "one");
    image_add_text(words, "");
    image_add_text(words, "three");
    struct image_key *numbers = image_set_array(image, "numbers", GGUF_U32);
    for (uint32_t i = 0; i < 5; i++) {
        image_add_u32(numbers, i * i);
    }
    image_add_tensor(image, "a.weight", OT_Q4_0, 2, (uint64_t[]){64, 3},
                     tiny_weights(OT_Q4_0, 192, 1.0f, 1));
    image_add_tensor(image, "b.weight", OT_F32, 1, (uint64_t[]){5},
                     tiny_weights(OT_F32, 5, 1.0f, 2));
    image_add_tensor(image, "c.weight", OT_F16, 3, (uint64_t[]){2, 3, 4},
                     tiny_weights(OT_F16, 24, 1.0f, 3));
}

void parsed_open(struct parsed *p, const struct image *image) {
    struct ot_error err = {0};
    p->file = image_serialise(image, NULL);
    if (gguf_parse(&p->g, p->file.data, p->file.bytes, p->file.bytes, parsed_path, &err) != 0) {
        fprintf(stderr, "gguf_small: refused: %s\n", err.message);
        abort();
    }
}

void parsed_close(struct parsed *p) {
    gguf_deinit(&p->g);
    image_bytes_free(&p->file);
}
