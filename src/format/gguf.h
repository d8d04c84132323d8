/* gguf.h - the GGUF container, versions 2 and 3: keys, tensors, and where their bytes lie.
 *
 * The parser takes bytes, not paths: a mapping of the file. Nothing is copied: names, strings and
 * arrays point into those bytes, which must outlive the struct gguf. Every number is untrusted and
 * checked here; what passes is consistent in itself (offsets inside the file, aligned, no overlap,
 * no duplicate keys or tensors, block sizes fit), though not yet a model. Keys and tensor names that
 * pass are printable ASCII, booleans are 0 or 1, dimensions are at least 1.
 *
 * Time and memory are bounded by the bytes that are there, never by what a count claims: parsing is
 * O(n log n) in the entries for any names (they are indexed by sorting, which no choice of names can
 * slow down), and a header takes at most about ten times its own size.
 *
 * Specification: docs/gguf.md of the ggml project. Threads: read-only after gguf_parse. */
#ifndef FORMAT_GGUF_H
#define FORMAT_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "onetrip.h"

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
    GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPE_COUNT
};

enum {
    GGUF_MAX_ENTRIES = 1 << 20, /* keys, and tensors, of one file */
    GGUF_MAX_NAME_BYTES = 1024, /* of a key or a tensor's name */
    GGUF_MAX_DIMS = 4,
};

struct gguf_string {
    const char *data; /* in the file's bytes; not NUL-terminated, may hold any byte */
    uint64_t bytes;
};

struct gguf_kv {
    struct gguf_string key;
    enum gguf_type type;
    enum gguf_type item_type; /* of an array */
    uint64_t count;           /* of an array; 1 otherwise */
    const uint8_t *data;      /* first value, unaligned, little-endian */
    uint64_t data_bytes;
};

struct gguf_tensor {
    struct gguf_string name;
    uint32_t dtype; /* known */
    uint32_t n_dims;
    uint64_t dims[4]; /* fastest first; unused ones are 1 */
    uint64_t bytes;   /* all blocks */
    uint64_t offset;  /* from the start of its file, aligned */
    uint32_t file;    /* part number, 0-based; 0 from gguf_parse */
};

struct gguf {
    uint32_t version;
    uint64_t alignment;
    uint64_t data_offset; /* where tensor data begins */
    uint64_t n_kv, n_tensors;
    struct gguf_kv *kv;          /* owned [n_kv], file order */
    struct gguf_tensor *tensors; /* owned [n_tensors], file order */
    uint32_t *kv_by_name;        /* owned [n_kv]: positions in kv, in the order of the keys */
    uint32_t *tensor_by_name;    /* owned [n_tensors]: the same for tensors */
};

/* Parses data [0, data_bytes) of a file that is file_bytes long (data may be all of it or its
 * beginning, up to the end of the tensor table at least; tensor data is never touched). path is for
 * messages. A file without tensors (a vocabulary) is valid. On failure *out needs no gguf_deinit.
 * Errors: FORMAT, UNSUPPORTED (version, byte order, tensor type), MEMORY. */
int gguf_parse(struct gguf *out, const uint8_t *data, uint64_t data_bytes, uint64_t file_bytes,
               const char *path, struct ot_error *err);
void gguf_deinit(struct gguf *g);

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/* "u32", "string", ...; "unknown type" for a number that is none. */
const char *gguf_type_name(uint32_t type);
/* The string in quotes for a message, cut to what a line can hold, with every byte that is not
 * printable ASCII written as \xNN. Returns buf. */
const char *gguf_quote(char buf[96], struct gguf_string string);

/* Typed reads. Each returns 0 and sets *out; or, when the key is absent, sets *out to the fallback
 * and returns 0. A wrong type or a value out of range is FORMAT, with the key and the value in the
 * message. Any integer type is taken for an integer. */
int gguf_get_u32(const struct gguf *g, const char *path, const char *key, uint32_t fallback,
                 uint32_t min, uint32_t max, uint32_t *out, struct ot_error *err);
int gguf_get_f32(const struct gguf *g, const char *path, const char *key, float fallback, float min,
                 float max, float *out, struct ot_error *err);
int gguf_get_bool(const struct gguf *g, const char *path, const char *key, bool fallback, bool *out,
                  struct ot_error *err);
/* fallback NULL gives {NULL, 0}. */
int gguf_get_string(const struct gguf *g, const char *path, const char *key, const char *fallback,
                    struct gguf_string *out, struct ot_error *err);
/* One item of an array of any integer or boolean type (negative numbers as two's complement), or of
 * numbers of any type; index < count. 0 where the items are neither. */
uint64_t gguf_item_u64(const struct gguf_kv *kv, uint64_t index);
float gguf_item_f32(const struct gguf_kv *kv, uint64_t index);

/* Walks an array of strings front to back. Every length was checked by gguf_parse; a file that is
 * rewritten after that gives other strings, or fewer, and none that lies outside the array. */
struct gguf_strings {
    const uint8_t *at, *end;
    uint64_t left;
};
bool gguf_strings_init(struct gguf_strings *it, const struct gguf_kv *kv); /* false: not strings */
bool gguf_strings_next(struct gguf_strings *it, struct gguf_string *out);

/* The split's numbers, "split.no" (0-based) and "split.count"; 0 and 1 where the file is not split. */
int gguf_split(const struct gguf *g, const char *path, uint32_t *no, uint32_t *count,
               struct ot_error *err);
/* The path of part no (< count, 0-based) of the split that path is the first part of, for mem_free:
 * replaces "-00001-of-00003.gguf". Errors: FORMAT (path does not end so, with this count), MEMORY. */
int gguf_split_path(const char *path, uint32_t no, uint32_t count, char **out,
                    struct ot_error *err);

#endif
