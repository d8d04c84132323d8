/* model.h - struct ot_model: a GGUF file, opened and bound. Read-only after ot_model_open,
 * but for one flag. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdatomic.h>

#include "format/gguf.h"
#include "model/bind.h"
#include "model/hparams.h"
#include "onetrip.h"
#include "sys/facts.h"
#include "sys/file.h"
#include "token/vocab.h"

struct ot_model {
    char *path;                 /* owned */
    char *name, *chat_template; /* owned; chat_template may be NULL */
    const char *chat_format;    /* static; NULL: none recognised */
    uint32_t n_files;
    struct sys_file *files;      /* owned [n_files], open */
    struct sys_map *headers;     /* owned [n_files]: mappings that gguf and vocab point into */
    struct gguf *parts;          /* owned [n_files] */
    struct gguf_tensor *tensors; /* owned [n_tensors]: of all parts, with .file set */
    uint32_t n_tensors;
    char **tensor_names;    /* owned [n_tensors]: NUL-terminated, for messages and tables */
    char *tensor_name_text; /* owned: what tensor_names point into */
    struct vocab *vocab;    /* owned */
    bool vocab_only;        /* hparams and bind are unset */
    struct hparams hp;
    struct bind bind;
    uint64_t file_bytes, weight_bytes;
    uint64_t header_bytes;       /* of all parts */
    uint64_t header_disk_bytes;  /* of them, not in the page cache when opened */
    uint64_t opening_read_bytes;   /* that the process read from disk while the model was opened */
    atomic_bool *header_accounted; /* owned: one context has the header in its account */
};

#endif
