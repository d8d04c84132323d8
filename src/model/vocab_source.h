/* vocab_source.h - from a GGUF file's tokenizer keys to a vocabulary. */
#ifndef MODEL_VOCAB_SOURCE_H
#define MODEL_VOCAB_SOURCE_H

#include "format/gguf.h"
#include "onetrip.h"
#include "token/vocab.h"

/* Reads "tokenizer.ggml.*". The vocabulary points into the bytes that g was parsed from, which must
 * outlive it; g itself may go. Errors: FORMAT (a key is missing, of the wrong type, or does not fit
 * the others), UNSUPPORTED (tokenizer or pre-tokenizer unknown), MEMORY. */
int model_vocab_open(const struct gguf *g, const char *path, struct vocab **out,
                     struct ot_error *err);

#endif
