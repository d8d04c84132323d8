/* make_tiny.c - writes one of the tests' tiny models to a file, for scripts and tools.
 *
 *     make_tiny OUT.gguf [FAMILY DTYPE [SEED [LAYERS WIDTH]]]   make_tiny tiny.gguf gemma3 Q4_K 7
 *
 * Without FAMILY and DTYPE: llama, Q4_0.
 * WIDTH makes it less tiny: n_embd, twice that for the FFN, heads of 32. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onetrip.h"
#include "support/tiny_model.h"

int main(int argc, char **argv) {
    if ((argc != 2 && argc < 4) || argv[1][0] == '-') { /* --help is no file to write */
        fprintf(stderr, "usage: make_tiny OUT.gguf [FAMILY DTYPE [SEED [LAYERS WIDTH]]]\n");
        return 2;
    }
    const char *wanted_family = argc > 2 ? argv[2] : "llama", *dtype = argc > 2 ? argv[3] : "Q4_0";
    uint64_t seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    for (uint32_t family = 0; family < TINY_FAMILY_COUNT; family++) {
        for (uint32_t i = 0; i < TINY_DTYPE_COUNT; i++) {
            if (strcmp(tiny_family_name((enum tiny_family)family), wanted_family) == 0 &&
                strcmp(ot_dtype_name(tiny_dtypes[i]), dtype) == 0) {
                struct tiny_model options;
                tiny_model_defaults(&options, (enum tiny_family)family, tiny_dtypes[i], seed);
                if (argc > 6) {
                    options.n_layers = (uint32_t)strtoul(argv[5], NULL, 10);
                    options.n_embd = (uint32_t)strtoul(argv[6], NULL, 10);
                    options.n_ff = 2 * options.n_embd;
                    options.head_dim = 32;
                    options.n_heads = options.n_embd / 32;
                    options.n_kv_heads = options.n_heads / 2;
                }
                tiny_model_write(&options, argv[1]);
                return 0;
            }
        }
    }
    fprintf(stderr, "make_tiny: no family %s or type %s\n", wanted_family, dtype);
    return 2;
}
