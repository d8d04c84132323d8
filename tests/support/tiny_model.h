/* tiny_model.h - complete GGUF models of a few hundred kilobytes, the same bytes for the same
 * options.
 *
 * Weights are random, scaled so that activations keep their size through the layers; what such a
 * model writes means nothing, but every number of it is finite and takes part.
 *
 *     struct tiny_model options;
 *     tiny_model_defaults(&options, TINY_LLAMA, OT_Q4_0, 1);
 *     options.n_layers = 4;
 *     tiny_model_write(&options, path);
 *
 * Models to be damaged come as a struct image, see gguf_image.h. */
#ifndef TESTS_SUPPORT_TINY_MODEL_H
#define TESTS_SUPPORT_TINY_MODEL_H

#include "support/gguf_image.h"

enum tiny_family {
    TINY_LLAMA,
    TINY_LLAMA3,  /* llama with the tensor rope_freqs.weight */
    TINY_MIXTRAL, /* llama with experts */
    TINY_QWEN2,   /* biases of q, k, v */
    TINY_QWEN3,   /* norms of q and k */
    TINY_QWEN3MOE,
    TINY_GEMMA2, /* norms after blocks, soft caps, every other layer a window */
    TINY_GEMMA3, /* norms of q, k and after blocks, five windows of six layers */
    TINY_PHI3,   /* q, k, v in one tensor, gate and up in one */
    TINY_FAMILY_COUNT
};

enum { TINY_BIAS_GATE = 1, TINY_BIAS_UP = 2, TINY_BIAS_DOWN = 4, TINY_BIAS_ALL = 7 };

struct tiny_model {
    enum tiny_family family;
    uint32_t dtype;        /* of all matrices but the router's and the next two */
    uint32_t embd_dtype;   /* of token_embd */
    uint32_t output_dtype; /* of output, where it is not tied */
    uint64_t seed;
    bool spm;       /* SentencePiece vocabulary with byte tokens; else byte-level BPE */
    bool tied;      /* no output.weight */
    bool long_rope; /* phi3: tensors rope_factors_long and _short, and their keys */
    uint32_t ffn_biases; /* of a dense FFN, not fused: bits of TINY_BIAS_... */
    /* Widths in numbers; rows must be whole blocks: n_embd, n_ff and n_heads * head_dim. */
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim;
    uint32_t n_experts, n_experts_used; /* 0: dense */
    uint32_t n_ctx;                     /* context length in the file */
    uint32_t window;                    /* sliding window; 0: no such key */
    uint32_t n_vocab; /* filled up with tokens "w0", "w1", ...; 0: as many as the vocabulary has */
    float rope_base;
    uint32_t n_files; /* more than 1: split, path must end in "-00001-of-0000N.gguf" */
};

/* 64 wide for types in blocks of at most 32, 256 wide for the others; 2 layers (gemma2 3, gemma3 7,
 * so that both kinds of layers are there); vocabulary and tying as real models of the family. */
void tiny_model_defaults(struct tiny_model *options, enum tiny_family family, uint32_t dtype,
                         uint64_t seed);
/* Aborts the test where the file cannot be written. */
void tiny_model_write(const struct tiny_model *options, const char *path);
void tiny_model_image(const struct tiny_model *options, struct image *image);
/* "llama", "llama3", "mixtral", ...: for messages and file names. */
const char *tiny_family_name(enum tiny_family family);
/* general.architecture of the family. */
const char *tiny_architecture(enum tiny_family family);

/* The 16 types, for loops over all of them. */
enum { TINY_DTYPE_COUNT = 16 };
extern const uint32_t tiny_dtypes[TINY_DTYPE_COUNT];

/* n_values random numbers of standard deviation `deviation`, as blocks of dtype; n_values must be
 * whole blocks. The same bytes for the same arguments. */
struct image_bytes tiny_weights(uint32_t dtype, uint64_t n_values, float deviation, uint64_t seed);

#endif
