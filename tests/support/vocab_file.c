/* vocab_file.c - vocabularies for tests: from files, and small ones made by hand. */
#include "support/vocab_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format/gguf.h"
#include "model/vocab_source.h"
#include "onetrip.h"

char *file_read(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        return NULL;
    }
    char *data = NULL;
    size_t used = 0, room = 0, n;
    do {
        if (room - used < 65536) {
            room = room * 2 + 65537;
            data = realloc(data, room);
            if (data == NULL) {
                abort();
            }
        }
        n = fread(data + used, 1, room - used - 1, f);
        used += n;
    } while (n != 0);
    fclose(f);
    data[used] = '\0';
    *bytes = used;
    return data;
}

struct vocab_file vocab_file_open(const char *directory, const char *name, const char *pre) {
    char path[4096], other[64];
    size_t bytes = 0;
    struct gguf g;
    struct ot_error err;
    struct vocab_file file = {0};
    snprintf(path, sizeof path, "%s/%s.gguf", directory, name);
    file.bytes = file_read(path, &bytes);
    if (file.bytes == NULL) {
        fail_msg("%s cannot be read", path);
    }
    if (gguf_parse(&g, (const uint8_t *)file.bytes, bytes, bytes, path, &err) != 0) {
        fail_msg("%s: %s", err.at, err.message);
    }
    struct gguf_kv *kv = (struct gguf_kv *)(uintptr_t)gguf_find(&g, "tokenizer.ggml.pre");
    if (pre != NULL && kv != NULL) {
        uint64_t length = strlen(pre);
        memcpy(other, &length, sizeof length);
        memcpy(other + sizeof length, pre, length);
        kv->data = (const uint8_t *)other;
        kv->data_bytes = sizeof length + length;
    }
    if (model_vocab_open(&g, path, &file.vocab, &err) != 0) {
        fail_msg("%s: %s", err.at, err.message);
    }
    gguf_deinit(&g);
    return file;
}

void vocab_file_close(struct vocab_file *file) {
    vocab_close(file->vocab);
    free(file->bytes);
}

static void small_begin(struct small_vocab *v, const char *model) {
    memset(v, 0, sizeof *v);
    v->source = (struct vocab_source){.path = "small",
                                      .model = model,
                                      .tokens = v->tokens,
                                      .types = v->types,
                                      .scores = v->scores,
                                      .merges = v->merges,
                                      .bos = -1,
                                      .eos = -1,
                                      .unk = -1,
                                      .eot = -1,
                                      .eom = -1,
                                      .fim_pad = -1,
                                      .fim_rep = -1,
                                      .fim_sep = -1,
                                      .add_bos = -1,
                                      .add_eos = -1,
                                      .add_space_prefix = -1};
}

uint32_t small_add(struct small_vocab *v, const char *text, int32_t type, float score) {
    uint32_t id = v->source.n_tokens++;
    v->tokens[id] = (struct vocab_string){text, strlen(text)};
    v->types[id] = type;
    v->scores[id] = score;
    return id;
}

void small_bpe(struct small_vocab *v) {
    static char chars[256][3];
    small_begin(v, "gpt2");
    unsigned other = 256;
    for (unsigned b = 0; b < 256; b++) {
        unsigned c = (b > 32 && b < 127) || (b > 160 && b != 173) ? b : other++;
        if (c < 128) {
            chars[b][0] = (char)c;
        } else {
            chars[b][0] = (char)(0xC0 | c >> 6);
            chars[b][1] = (char)(0x80 | (c & 0x3F));
        }
        small_add(v, chars[b], VOCAB_NORMAL, 0.0f);
    }
}

void small_spm(struct small_vocab *v) {
    static char names[256][8];
    small_begin(v, "llama");
    small_add(v, "<unk>", VOCAB_UNKNOWN, 0.0f);
    v->source.bos = small_add(v, "<s>", VOCAB_CONTROL, 0.0f);
    v->source.eos = small_add(v, "</s>", VOCAB_CONTROL, 0.0f);
    v->source.unk = 0;
    for (unsigned b = 0; b < 256; b++) {
        snprintf(names[b], sizeof names[b], "<0x%02X>", b);
        small_add(v, names[b], VOCAB_BYTE, 0.0f);
    }
}

void small_merge(struct small_vocab *v, const char *left, const char *right) {
    static char text[1024][64];
    static unsigned used;
    char *merge = text[used++ % 1024], *joined = text[used++ % 1024];
    snprintf(merge, 64, "%s %s", left, right);
    snprintf(joined, 64, "%s%s", left, right);
    v->merges[v->source.n_merges++] = (struct vocab_string){merge, strlen(merge)};
    small_add(v, joined, VOCAB_NORMAL, 0.0f);
}

struct vocab *small_open(const struct small_vocab *v) {
    struct vocab *vocab = NULL;
    struct ot_error err;
    if (vocab_open(&v->source, &vocab, &err) != 0) {
        fail_msg("%s: %s", err.at, err.message);
    }
    return vocab;
}

const char *ids_of(const struct vocab *vocab, const char *text, size_t bytes, uint32_t flags) {
    static char line[1 << 16];
    uint32_t *ids = NULL;
    size_t n = 0, used = 0;
    struct ot_error err;
    if (vocab_tokenize(vocab, text, bytes, flags, &ids, &n, &err) != 0) {
        fail_msg("%s: %s", err.at, err.message);
    }
    line[0] = '\0';
    for (size_t i = 0; i < n && used < sizeof line - 16; i++) {
        used += (size_t)snprintf(line + used, 16, i == 0 ? "%u" : " %u", ids[i]);
    }
    ot_free(ids);
    return line;
}
