/* tiny_vocab.h - vocabularies for tiny models. */
#ifndef TESTS_SUPPORT_TINY_VOCAB_H
#define TESTS_SUPPORT_TINY_VOCAB_H

#include "support/gguf_image.h"

/* Adds the tokenizer's keys: byte-level BPE (256 byte tokens, merges, special tokens, a ChatML
 * template) or SentencePiece (with <0xNN> byte tokens and scores), filled up to n_vocab tokens.
 * Returns the number of tokens. */
uint32_t tiny_vocab_add(struct image *image, bool spm, uint32_t n_vocab);

#endif
