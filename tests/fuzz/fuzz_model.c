/* fuzz_model.c - any bytes as the header of a model: opened whole, so that hyperparameters,
 * tensors' shapes and vocabulary meet what a file claims of them.
 *
 * The file is longer than the input, by zeros that take no space, so that tensors have room. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "onetrip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROOM_BYTES = 1 << 20 };

static void need(bool holds) {
    if (!holds) {
        abort();
    }
}

static void use(const struct ot_model *model, bool vocab_only) {
    struct ot_model_info info;
    struct ot_error err;
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    ot_model_get_info(model, &info);
    for (uint32_t i = 0; i < info.n_tensors; i++) {
        struct ot_tensor_info tensor;
        ot_model_get_tensor(model, i, &tensor);
        need(tensor.name != NULL && tensor.bytes <= info.weight_bytes);
    }
    need(vocab_only || (info.n_layers > 0 && info.n_embd > 0 && info.n_vocab > 0));
    static const char text[] = "Hello <|im_end|>\n  \xc3\xa9\xff w\0rld 123";
    if (ot_tokenize(model, text, sizeof text - 1, OT_TOK_ADD_SPECIAL | OT_TOK_PARSE_SPECIAL, &ids,
                    &n_ids, &err) == 0) {
        char *back = NULL;
        size_t back_bytes = 0;
        for (size_t i = 0; i < n_ids; i++) {
            need(ids[i] < info.n_vocab);
        }
        need(ot_detokenize(model, ids, n_ids, true, &back, &back_bytes, &err) == 0);
        ot_free(back);
        ot_free(ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("model", MFD_CLOEXEC);
        need(fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    need(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size &&
         ftruncate(fd, (off_t)size + ROOM_BYTES) == 0);
    uint64_t before = mem_live_bytes();
    for (int vocab_only = 0; vocab_only < 2; vocab_only++) {
        struct ot_model_params params = {.vocab_only = vocab_only != 0};
        struct ot_model *model = NULL;
        struct ot_error err = {0};
        if (ot_model_open(path, &params, &model, &err) != 0) {
            need(err.code < 0 && err.message[0] != '\0' && err.at[0] != '\0' && model == NULL);
        } else {
            use(model, vocab_only != 0);
            ot_model_close(model);
        }
        need(mem_live_bytes() == before);
    }
    return 0;
}
