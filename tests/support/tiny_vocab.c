/* tiny_vocab.c - two vocabularies of a few hundred tokens, built from one list of merges. */
#include "support/tiny_vocab.h"

#include <stdio.h>
#include <string.h>

/* Pairs that become one token, first ones first. */
static const char *const merges[][2] = {
    {" ", "t"},   {"h", "e"},    {" t", "he"},   {"i", "n"},       {" ", "a"},   {"e", "r"},
    {"o", "n"},   {"r", "e"},    {" ", "s"},     {"a", "t"},       {"e", "n"},   {"o", "r"},
    {" ", "w"},   {"i", "s"},    {"l", "l"},     {" ", "o"},       {"n", "d"},   {" a", "nd"},
    {" ", "b"},   {"e", "s"},    {"in", "g"},    {" ", "c"},       {"o", "u"},   {" ", "f"},
    {"a", "n"},   {" ", "p"},    {" o", "f"},    {"e", "d"},       {" ", "m"},   {"a", "r"},
    {" ", "d"},   {" ", "i"},    {" ", "h"},     {" t", "o"},      {" i", "n"},  {"l", "e"},
    {" ", " "},   {"  ", "  "},  {"\n", "\n"},   {"H", "e"},       {"He", "ll"}, {"Hell", "o"},
    {" w", "or"}, {" wor", "l"}, {" worl", "d"}, {"\xc3", "\xa9"}, {"1", "2"},   {"0", "0"},
};
enum { N_MERGES = sizeof merges / sizeof *merges };

static const char chatml[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ "
    "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' "
    "}}{% endif %}";

/* The three arrays that every vocabulary has; the keys move when one is added, so they are built
 * aside. */
struct arrays {
    struct image_bytes tokens, types, scores;
    uint32_t n;
};

static void add(struct arrays *a, const char *text, size_t bytes, int32_t type, float score) {
    image_put_string(&a->tokens, text, bytes);
    image_put_u32(&a->types, (uint32_t)type);
    image_put_f32(&a->scores, score);
    a->n++;
}

static void add_text(struct arrays *a, const char *text, int32_t type, float score) {
    add(a, text, strlen(text), type, score);
}

/* Byte-level BPE writes each byte as a visible character: itself, or one from U+0100 on. */
static size_t put_character(char *out, uint8_t byte) {
    uint32_t c = byte;
    bool visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    if (!visible) {
        c = 256;
        for (uint32_t before = 0; before < byte; before++) {
            c += !((before >= 33 && before <= 126) || (before >= 161 && before <= 172) ||
                   before >= 174);
        }
    }
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    return 2;
}

static size_t put_visible(char *out, const char *text) {
    size_t used = 0;
    for (; *text != '\0'; text++) {
        used += put_character(out + used, (uint8_t)*text);
    }
    out[used] = '\0';
    return used;
}

/* SentencePiece writes a space as U+2581. */
static size_t put_piece(char *out, const char *text) {
    size_t used = 0;
    for (; *text != '\0'; text++) {
        if (*text == ' ') {
            memcpy(out + used, "\xe2\x96\x81", 3);
            used += 3;
        } else {
            out[used++] = *text;
        }
    }
    out[used] = '\0';
    return used;
}

static void move_arrays(struct image *image, struct arrays *a, bool scores) {
    image_set_array(image, "tokenizer.ggml.tokens", GGUF_STRING);
    image_set_array(image, "tokenizer.ggml.token_type", GGUF_I32);
    struct {
        const char *name;
        struct image_bytes *values;
    } parts[3] = {{"tokenizer.ggml.tokens", &a->tokens},
                  {"tokenizer.ggml.token_type", &a->types},
                  {"tokenizer.ggml.scores", &a->scores}};
    if (scores) {
        image_set_array(image, "tokenizer.ggml.scores", GGUF_F32);
    }
    for (int i = 0; i < (scores ? 3 : 2); i++) {
        struct image_key *key = image_find_key(image, parts[i].name);
        key->count = a->n;
        image_put(&key->values, parts[i].values->data, parts[i].values->bytes);
    }
    image_bytes_free(&a->tokens);
    image_bytes_free(&a->types);
    image_bytes_free(&a->scores);
}

static void fill(struct arrays *a, uint32_t n_vocab, const char *space) {
    for (uint32_t i = 0; a->n < n_vocab; i++) {
        char text[32];
        snprintf(text, sizeof text, "%sw%u", space, i);
        add_text(a, text, 1, -1e6f);
    }
}

static uint32_t add_bpe(struct image *image, uint32_t n_vocab) {
    struct arrays a = {0};
    char left[64], right[64], both[160];
    for (int pass = 0; pass < 2; pass++) { /* visible bytes first, as GPT-2 orders them */
        for (uint32_t byte = 0; byte < 256; byte++) {
            size_t bytes = put_character(left, (uint8_t)byte);
            left[bytes] = '\0';
            bool moved = (uint8_t)left[0] == 0xc4 || (uint8_t)left[0] == 0xc5;
            if (moved == (pass == 1)) {
                add(&a, left, bytes, 1, 0.0f);
            }
        }
    }
    for (size_t i = 0; i < N_MERGES; i++) {
        size_t bytes = put_visible(both, merges[i][0]);
        bytes += put_visible(both + bytes, merges[i][1]);
        add(&a, both, bytes, 1, 0.0f);
    }
    uint32_t special = a.n;
    add_text(&a, "<|endoftext|>", 3, 0.0f);
    add_text(&a, "<|im_start|>", 3, 0.0f);
    add_text(&a, "<|im_end|>", 3, 0.0f);
    add_text(&a, "<tool>", 4, 0.0f);
    add_text(&a, "<|reserved|>", 5, 0.0f);
    fill(&a, n_vocab, "\xc4\xa0");
    uint32_t n = a.n;
    image_set_text(image, "tokenizer.ggml.model", "gpt2");
    image_set_text(image, "tokenizer.ggml.pre", "gpt-2");
    move_arrays(image, &a, false);
    struct image_key *list = image_set_array(image, "tokenizer.ggml.merges", GGUF_STRING);
    for (size_t i = 0; i < N_MERGES; i++) {
        put_visible(left, merges[i][0]);
        put_visible(right, merges[i][1]);
        snprintf(both, sizeof both, "%s %s", left, right);
        image_add_text(list, both);
    }
    image_set_u32(image, "tokenizer.ggml.bos_token_id", special);
    image_set_u32(image, "tokenizer.ggml.eos_token_id", special + 2);
    image_set_bool(image, "tokenizer.ggml.add_bos_token", false);
    image_set_text(image, "tokenizer.chat_template", chatml);
    return n;
}

static uint32_t add_spm(struct image *image, uint32_t n_vocab) {
    struct arrays a = {0};
    char text[64];
    add_text(&a, "<unk>", 2, 0.0f);
    add_text(&a, "<s>", 3, 0.0f);
    add_text(&a, "</s>", 3, 0.0f);
    for (uint32_t byte = 0; byte < 256; byte++) {
        snprintf(text, sizeof text, "<0x%02X>", byte);
        add_text(&a, text, 6, 0.0f);
    }
    add_text(&a, "<|endoftext|>", 3, 0.0f);
    add_text(&a, "<start_of_turn>", 3, 0.0f);
    add_text(&a, "<end_of_turn>", 3, 0.0f);
    add_text(&a, "<tool>", 4, 0.0f);
    for (size_t i = 0; i < N_MERGES; i++) {
        if (strchr(merges[i][0], '\n') != NULL || (uint8_t)merges[i][0][0] >= 0x80) {
            continue; /* newlines and parts of characters are byte tokens here */
        }
        size_t bytes = put_piece(text, merges[i][0]);
        bytes += put_piece(text + bytes, merges[i][1]);
        add(&a, text, bytes, 1, -(float)i);
    }
    for (char c = ' '; c < 0x7f; c++) {
        char one[2] = {c, '\0'};
        put_piece(text, one);
        add_text(&a, text, 1, -1000.0f - (float)c);
    }
    add_text(&a, "\xc3\xa9", 1, -2000.0f);
    fill(&a, n_vocab, "\xe2\x96\x81");
    uint32_t n = a.n;
    image_set_text(image, "tokenizer.ggml.model", "llama");
    image_set_text(image, "tokenizer.ggml.pre", "default");
    move_arrays(image, &a, true);
    image_set_u32(image, "tokenizer.ggml.bos_token_id", 1);
    image_set_u32(image, "tokenizer.ggml.eos_token_id", 2);
    image_set_u32(image, "tokenizer.ggml.unknown_token_id", 0);
    image_set_bool(image, "tokenizer.ggml.add_bos_token", true);
    image_set_bool(image, "tokenizer.ggml.add_eos_token", false);
    return n;
}

uint32_t tiny_vocab_add(struct image *image, bool spm, uint32_t n_vocab) {
    return spm ? add_spm(image, n_vocab) : add_bpe(image, n_vocab);
}
