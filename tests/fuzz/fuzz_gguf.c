/* fuzz_gguf.c - any bytes as a GGUF file: parsed, then read through every accessor. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "format/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Keeps what was read from being optimised away. */
static volatile uint64_t sink;

static void need(bool holds) {
    if (!holds) {
        abort();
    }
}

static void read_typed(const struct gguf *g, const char *key) {
    struct ot_error err;
    uint32_t n = 0;
    float x = 0.0f;
    bool flag = false;
    struct gguf_string text = {0};
    if (gguf_get_u32(g, "fuzz", key, 1, 2, 1000, &n, &err) == 0) {
        need(n == 1 || (n >= 2 && n <= 1000));
    }
    if (gguf_get_f32(g, "fuzz", key, 0.5f, 0.0f, 1.0f, &x, &err) == 0) {
        need(x >= 0.0f && x <= 1.0f);
    }
    if (gguf_get_bool(g, "fuzz", key, true, &flag, &err) == 0) {
        sink += flag;
    }
    if (gguf_get_string(g, "fuzz", key, NULL, &text, &err) == 0 && text.bytes != 0) {
        sink += (uint8_t)text.data[text.bytes - 1];
    }
}

static void read_key(const struct gguf *g, const struct gguf_kv *kv) {
    struct gguf_strings it;
    struct gguf_string text;
    char *key = mem_strndup(kv->key.data, kv->key.bytes), quoted[96];
    need(key != NULL && gguf_find(g, key) == kv);
    read_typed(g, key);
    mem_free(key);
    sink += strlen(gguf_quote(quoted, kv->key));
    if (gguf_strings_init(&it, kv)) {
        uint64_t n = 0;
        while (gguf_strings_next(&it, &text)) {
            sink += text.bytes != 0 ? (uint8_t)text.data[text.bytes - 1] : 0;
            n++;
        }
        need(n == kv->count && it.at == kv->data + kv->data_bytes);
        return;
    }
    for (uint64_t i = 0; i < kv->count; i++) {
        sink += gguf_item_u64(kv, i) + (gguf_item_f32(kv, i) > 0.0f);
    }
}

static void read_tensor(const struct gguf *g, const struct gguf_tensor *t, uint64_t file_bytes) {
    char *name = mem_strndup(t->name.data, t->name.bytes);
    need(name != NULL && gguf_find_tensor(g, name) == t);
    mem_free(name);
    need(t->offset >= g->data_offset && t->offset % g->alignment == 0);
    need(t->bytes > 0 && t->bytes <= file_bytes && t->offset <= file_bytes - t->bytes);
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *other = &g->tensors[i];
        need(other == t || other->offset + other->bytes <= t->offset ||
             t->offset + t->bytes <= other->offset);
    }
}

static void parse(const uint8_t *data, size_t size, uint64_t file_bytes) {
    struct gguf g;
    struct ot_error err = {0};
    uint32_t no = 0, count = 1;
    if (gguf_parse(&g, data, size, file_bytes, "fuzz", &err) != 0) {
        need(err.code < 0 && err.message[0] != '\0' && strcmp(err.at, "fuzz") == 0);
        need(mem_live_bytes() == 0);
        return;
    }
    for (uint64_t i = 0; i < g.n_kv; i++) {
        read_key(&g, &g.kv[i]);
    }
    for (uint64_t i = 0; i < g.n_tensors; i++) {
        read_tensor(&g, &g.tensors[i], file_bytes);
    }
    if (gguf_split(&g, "fuzz", &no, &count, &err) == 0) {
        need(no < count);
        char *path = NULL;
        int rc = gguf_split_path("m-00001-of-00002.gguf", no, count, &path, &err);
        need((rc == 0) == (count == 2) && (path != NULL) == (count == 2));
        mem_free(path);
    }
    gguf_deinit(&g);
    need(mem_live_bytes() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    parse(data, size, size);
    /* The beginning of a longer file: tensors may lie beyond what is given. */
    parse(data, size, size + (UINT64_C(1) << 40));
    return 0;
}
