/* make_tiny_model.c - writes a tiny llama model for tests that are scripts: make_tiny_model PATH */
#include <stdio.h>

#include "support/tiny_model.h"

int main(int argc, char **argv) {
    struct tiny_model options;
    if (argc != 2) {
        fprintf(stderr, "usage: make_tiny_model PATH\n");
        return 2;
    }
    tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
    tiny_model_write(&options, argv[1]);
    return 0;
}
