/* fuzz_chat.c - any template and any messages: recognised, rendered in every format, tokenised.
 *
 * Input: the template up to a byte 0xFF; then messages, each a role byte ('s', 'u', 'a') and its
 * text up to the next 0xFF. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "token/chat.h"
#include "token/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool holds) {
    if (!holds) {
        abort();
    }
}

/* Bytes as tokens, and two control tokens that no message may produce. */
static struct vocab *open_vocab(void) {
    static char names[256][8];
    static struct vocab_string tokens[259];
    static int32_t types[259];
    static float scores[259];
    for (unsigned b = 0; b < 256; b++) {
        memcpy(names[b], "<0x00>", 7);
        names[b][3] = "0123456789ABCDEF"[b >> 4];
        names[b][4] = "0123456789ABCDEF"[b & 15];
        tokens[b] = (struct vocab_string){names[b], 6};
        types[b] = VOCAB_BYTE;
    }
    tokens[256] = (struct vocab_string){"<|im_end|>", 10};
    tokens[257] = (struct vocab_string){"</s>", 4};
    types[256] = types[257] = VOCAB_CONTROL;
    tokens[258] = (struct vocab_string){"\xE2\x96\x81", 3};
    types[258] = VOCAB_NORMAL;
    struct vocab_source s = {.path = "fuzz",
                             .model = "llama",
                             .tokens = tokens,
                             .types = types,
                             .scores = scores,
                             .n_tokens = 259,
                             .bos = -1,
                             .eos = 257,
                             .unk = -1,
                             .eot = -1,
                             .eom = -1,
                             .fim_pad = -1,
                             .fim_rep = -1,
                             .fim_sep = -1,
                             .add_bos = -1,
                             .add_eos = -1,
                             .add_space_prefix = 0};
    struct vocab *vocab = NULL;
    struct ot_error err;
    need(vocab_open(&s, &vocab, &err) == 0);
    return vocab;
}

static void try_format(const struct vocab *vocab, const char *format, const char *template_text,
                       const struct ot_message *messages, size_t n) {
    char *text = NULL, *back = NULL;
    uint32_t *ids = NULL;
    size_t bytes = 0, n_ids = 0, back_bytes = 0;
    struct ot_error err;
    int rc = chat_render(format, template_text, vocab, messages, n, &text, &bytes, &err);
    need(rc == (n == 0 ? OT_ERR_ARGUMENT : 0));
    if (rc != 0) {
        return;
    }
    need(text[bytes] == '\0');
    need(chat_tokenize(vocab, format, template_text, messages, n, &ids, &n_ids, &err) == 0);
    need(vocab_detokenize(vocab, ids, n_ids, true, &back, &back_bytes, &err) == 0);
    /* A space mark in the text is a space to this vocabulary: such text does not come back. */
    need(memmem(text, bytes, "\xE2\x96\x81", 3) != NULL ||
         (back_bytes == bytes && memcmp(back, text, bytes) == 0));
    ot_free(text);
    ot_free(ids);
    ot_free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const formats[] = {"chatml", "llama2", "llama3",   "mistral",
                                          "gemma",  "phi3",   "deepseek", "zephyr"};
    static struct vocab *vocab;
    if (vocab == NULL) {
        vocab = open_vocab();
    }
    uint64_t live = mem_live_bytes();
    const uint8_t *end = size == 0 ? NULL : memchr(data, 0xFF, size);
    size_t at = end == NULL ? size : (size_t)(end - data);
    char *template_text = mem_strndup((const char *)data, at);
    need(template_text != NULL);
    struct ot_message messages[16];
    size_t n = 0;
    while (at + 1 < size && n < 16) {
        uint8_t role = data[at + 1];
        const char *text = (const char *)data + at + 2;
        size_t left = size - at - 2;
        const char *stop = left == 0 ? NULL : memchr(text, 0xFF, left);
        messages[n++] = (struct ot_message){role == 's'   ? OT_ROLE_SYSTEM
                                            : role == 'a' ? OT_ROLE_ASSISTANT
                                                          : OT_ROLE_USER,
                                            text, stop == NULL ? left : (size_t)(stop - text)};
        at += 2 + messages[n - 1].text_bytes;
    }
    const char *known = chat_recognise(template_text);
    if (known != NULL) {
        try_format(vocab, known, template_text, messages, n);
    }
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        try_format(vocab, formats[i], i % 2 == 0 ? NULL : template_text, messages, n);
    }
    mem_free(template_text);
    need(mem_live_bytes() == live);
    return 0;
}
