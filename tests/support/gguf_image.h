/* gguf_image.h - a GGUF file as tests want to see it: keys and tensors in lists that can be changed
 * into anything, also into what no reader may accept, and then written.
 *
 * Works with malloc, not with base/alloc.h, so that a test that makes allocations fail or counts
 * them sees the library's own only. Where memory or a file system fails, the test program aborts.
 *
 *     struct image image;
 *     tiny_model_image(&options, &image);
 *     image_set_u32(&image, "llama.block_count", 0);
 *     image_write(&image, path);
 *     image_deinit(&image); */
#ifndef TESTS_SUPPORT_GGUF_IMAGE_H
#define TESTS_SUPPORT_GGUF_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/gguf.h"

/* Bytes that grow. */
struct image_bytes {
    uint8_t *data;
    size_t bytes, capacity;
};
void image_put(struct image_bytes *b, const void *data, size_t bytes);
void image_put_u8(struct image_bytes *b, uint8_t value);
void image_put_u32(struct image_bytes *b, uint32_t value);
void image_put_u64(struct image_bytes *b, uint64_t value);
void image_put_f32(struct image_bytes *b, float value);
/* As the format writes it: length in 8 bytes, then the bytes. */
void image_put_string(struct image_bytes *b, const char *data, size_t bytes);
void image_put_text(struct image_bytes *b, const char *text);
void image_bytes_free(struct image_bytes *b);

struct image_key {
    char *name;
    uint32_t type, item_type;  /* item_type: of arrays */
    uint64_t count;            /* of arrays, as written */
    struct image_bytes values; /* as the file has them; of an array, without its type and count */
};

struct image_tensor {
    char *name;
    uint32_t dtype, n_dims;
    uint64_t dims[8]; /* fastest first */
    struct image_bytes data;
    bool moved; /* the offset below is written instead of the true one */
    uint64_t offset;
};

struct image {
    uint32_t version;
    uint64_t alignment; /* of the data; general.alignment is a key of its own */
    struct image_key *keys;
    size_t n_keys;
    struct image_tensor *tensors;
    size_t n_tensors;
};

void image_init(struct image *image); /* version 3, alignment 32, empty */
void image_deinit(struct image *image);

/* Keys. A setter replaces the key, whatever its type was, or adds it at the end. */
struct image_key *image_find_key(struct image *image, const char *name); /* NULL: none */
void image_set_u32(struct image *image, const char *name, uint32_t value);
void image_set_i32(struct image *image, const char *name, int32_t value);
void image_set_u64(struct image *image, const char *name, uint64_t value);
void image_set_f32(struct image *image, const char *name, float value);
void image_set_bool(struct image *image, const char *name, bool value);
void image_set_text(struct image *image, const char *name, const char *value);
/* An array of strings; the returned key's values and count can then be added to. */
struct image_key *image_set_array(struct image *image, const char *name, uint32_t item_type);
void image_add_text(struct image_key *array, const char *text);
void image_add_bytes(struct image_key *array, const char *data, size_t bytes);
void image_add_u32(struct image_key *array, uint32_t value);
void image_add_f32(struct image_key *array, float value);
/* These need the key to be there. */
void image_remove_key(struct image *image, const char *name);
void image_rename_key(struct image *image, const char *name, const char *new_name);
void image_repeat_key(struct image *image, const char *name);

/* Tensors. Pointers are valid until the next one is added or removed. */
struct image_tensor *image_find_tensor(struct image *image, const char *name); /* NULL: none */
/* Takes over data. dims_: n_dims of them, fastest first. */
struct image_tensor *image_add_tensor(struct image *image, const char *name, uint32_t dtype,
                                      uint32_t n_dims, const uint64_t *dims,
                                      struct image_bytes data);
void image_remove_tensor(struct image *image, const char *name);
void image_rename_tensor(struct image *image, const char *name, const char *new_name);
void image_repeat_tensor(struct image *image, const char *name);
/* Other dimensions, in F32 or the tensor's type, with zeros for data where more is needed. */
void image_reshape_tensor(struct image *image, const char *name, uint32_t n_dims,
                          const uint64_t *dims);
/* Another type for the same dimensions, all zeros. */
void image_retype_tensor(struct image *image, const char *name, uint32_t dtype);
/* The offset that is written for it, from the beginning of the tensor data. */
void image_move_tensor(struct image *image, const char *name, uint64_t offset);

/* The file's bytes, for image_bytes_free. header_bytes (may be NULL): where the tensor table ends.
 */
struct image_bytes image_serialise(const struct image *image, size_t *header_bytes);
void image_write(const struct image *image, const char *path);
/* The first bytes only. */
void image_write_cut(const struct image *image, const char *path, size_t bytes);
/* As n_files parts, as gguf-split does it: path must end in "-00001-of-0000N.gguf"; all keys and
 * the first share of the tensors are in the first part. */
void image_write_split(const struct image *image, const char *path, uint32_t n_files);
void image_write_bytes(const char *path, const void *data, size_t bytes);

/* A directory for a test's files, made by mkdtemp and named in path; removed with all that is in
 * it. */
void image_directory_make(char path[64]);
void image_directory_remove(const char *path);

#endif
