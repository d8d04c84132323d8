/* gguf_image.c - GGUF files from lists of keys and tensors, right or wrong. */
#include "support/gguf_image.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/dtype.h"

static void need(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "gguf_image: %s\n", what);
        abort();
    }
}

static void *grow(void *memory, size_t bytes) {
    void *moved = realloc(memory, bytes != 0 ? bytes : 1);
    need(moved != NULL, "out of memory");
    return moved;
}

static char *copy_text(const char *text) {
    size_t bytes = strlen(text) + 1;
    return memcpy(grow(NULL, bytes), text, bytes);
}

/* ---- bytes -------------------------------------------------------------------------------- */

void image_put(struct image_bytes *b, const void *data, size_t bytes) {
    if (b->capacity - b->bytes < bytes) {
        b->capacity = 2 * b->capacity + bytes + 64;
        b->data = grow(b->data, b->capacity);
    }
    if (bytes != 0) {
        memcpy(b->data + b->bytes, data, bytes);
    }
    b->bytes += bytes;
}

static void put_zeros(struct image_bytes *b, size_t bytes) {
    static const uint8_t zeros[4096];
    while (bytes != 0) {
        size_t part = bytes < sizeof zeros ? bytes : sizeof zeros;
        image_put(b, zeros, part);
        bytes -= part;
    }
}

static void put_padding(struct image_bytes *b, uint64_t alignment) {
    put_zeros(b, (size_t)((alignment - b->bytes % alignment) % alignment));
}

void image_put_u8(struct image_bytes *b, uint8_t value) {
    image_put(b, &value, 1);
}

void image_put_u32(struct image_bytes *b, uint32_t value) {
    for (int i = 0; i < 4; i++) {
        image_put_u8(b, (uint8_t)(value >> 8 * i));
    }
}

void image_put_u64(struct image_bytes *b, uint64_t value) {
    image_put_u32(b, (uint32_t)value);
    image_put_u32(b, (uint32_t)(value >> 32));
}

void image_put_f32(struct image_bytes *b, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    image_put_u32(b, bits);
}

void image_put_string(struct image_bytes *b, const char *data, size_t bytes) {
    image_put_u64(b, bytes);
    image_put(b, data, bytes);
}

void image_put_text(struct image_bytes *b, const char *text) {
    image_put_string(b, text, strlen(text));
}

void image_bytes_free(struct image_bytes *b) {
    free(b->data);
    *b = (struct image_bytes){0};
}

static struct image_bytes copy_bytes(const struct image_bytes *b) {
    struct image_bytes copy = {0};
    image_put(&copy, b->data, b->bytes);
    return copy;
}

/* ---- the image ---------------------------------------------------------------------------- */

void image_init(struct image *image) {
    *image = (struct image){.version = 3, .alignment = 32};
}

static void free_key(struct image_key *key) {
    free(key->name);
    image_bytes_free(&key->values);
}

static void free_tensor(struct image_tensor *tensor) {
    free(tensor->name);
    image_bytes_free(&tensor->data);
}

void image_deinit(struct image *image) {
    for (size_t i = 0; i < image->n_keys; i++) {
        free_key(&image->keys[i]);
    }
    for (size_t i = 0; i < image->n_tensors; i++) {
        free_tensor(&image->tensors[i]);
    }
    free(image->keys);
    free(image->tensors);
    image_init(image);
}

/* ---- keys --------------------------------------------------------------------------------- */

struct image_key *image_find_key(struct image *image, const char *name) {
    for (size_t i = 0; i < image->n_keys; i++) {
        if (strcmp(image->keys[i].name, name) == 0) {
            return &image->keys[i];
        }
    }
    return NULL;
}

static struct image_key *add_key(struct image *image, const char *name) {
    image->keys = grow(image->keys, (image->n_keys + 1) * sizeof *image->keys);
    struct image_key *key = &image->keys[image->n_keys++];
    *key = (struct image_key){.name = copy_text(name), .count = 1};
    return key;
}

/* The key of that name, emptied. */
static struct image_key *reset_key(struct image *image, const char *name, uint32_t type) {
    struct image_key *key = image_find_key(image, name);
    if (key == NULL) {
        key = add_key(image, name);
    }
    key->type = type;
    key->item_type = type;
    key->count = 1;
    key->values.bytes = 0;
    return key;
}

void image_set_u32(struct image *image, const char *name, uint32_t value) {
    image_put_u32(&reset_key(image, name, GGUF_U32)->values, value);
}

void image_set_i32(struct image *image, const char *name, int32_t value) {
    image_put_u32(&reset_key(image, name, GGUF_I32)->values, (uint32_t)value);
}

void image_set_u64(struct image *image, const char *name, uint64_t value) {
    image_put_u64(&reset_key(image, name, GGUF_U64)->values, value);
}

void image_set_f32(struct image *image, const char *name, float value) {
    image_put_f32(&reset_key(image, name, GGUF_F32)->values, value);
}

void image_set_bool(struct image *image, const char *name, bool value) {
    image_put_u8(&reset_key(image, name, GGUF_BOOL)->values, value);
}

void image_set_text(struct image *image, const char *name, const char *value) {
    image_put_text(&reset_key(image, name, GGUF_STRING)->values, value);
}

struct image_key *image_set_array(struct image *image, const char *name, uint32_t item_type) {
    struct image_key *key = reset_key(image, name, GGUF_ARRAY);
    key->item_type = item_type;
    key->count = 0;
    return key;
}

void image_add_text(struct image_key *array, const char *text) {
    image_add_bytes(array, text, strlen(text));
}

void image_add_bytes(struct image_key *array, const char *data, size_t bytes) {
    image_put_string(&array->values, data, bytes);
    array->count++;
}

void image_add_u32(struct image_key *array, uint32_t value) {
    image_put_u32(&array->values, value);
    array->count++;
}

void image_add_f32(struct image_key *array, float value) {
    image_put_f32(&array->values, value);
    array->count++;
}

static size_t key_position(struct image *image, const char *name) {
    struct image_key *key = image_find_key(image, name);
    need(key != NULL, name);
    return (size_t)(key - image->keys);
}

void image_remove_key(struct image *image, const char *name) {
    size_t at = key_position(image, name);
    free_key(&image->keys[at]);
    image->n_keys--;
    memmove(&image->keys[at], &image->keys[at + 1], (image->n_keys - at) * sizeof *image->keys);
}

void image_rename_key(struct image *image, const char *name, const char *new_name) {
    struct image_key *key = &image->keys[key_position(image, name)];
    free(key->name);
    key->name = copy_text(new_name);
}

void image_repeat_key(struct image *image, const char *name) {
    size_t at = key_position(image, name);
    struct image_key *copy = add_key(image, name);
    const struct image_key *key = &image->keys[at];
    copy->type = key->type;
    copy->item_type = key->item_type;
    copy->count = key->count;
    copy->values = copy_bytes(&key->values);
}

/* ---- tensors ------------------------------------------------------------------------------ */

struct image_tensor *image_find_tensor(struct image *image, const char *name) {
    for (size_t i = 0; i < image->n_tensors; i++) {
        if (strcmp(image->tensors[i].name, name) == 0) {
            return &image->tensors[i];
        }
    }
    return NULL;
}

static struct image_tensor *the_tensor(struct image *image, const char *name) {
    struct image_tensor *tensor = image_find_tensor(image, name);
    need(tensor != NULL, name);
    return tensor;
}

struct image_tensor *image_add_tensor(struct image *image, const char *name, uint32_t dtype,
                                      uint32_t n_dims, const uint64_t *dims,
                                      struct image_bytes data) {
    image->tensors = grow(image->tensors, (image->n_tensors + 1) * sizeof *image->tensors);
    struct image_tensor *t = &image->tensors[image->n_tensors++];
    *t = (struct image_tensor){
        .name = copy_text(name), .dtype = dtype, .n_dims = n_dims, .data = data};
    need(n_dims <= sizeof t->dims / sizeof *t->dims, "too many dimensions");
    memcpy(t->dims, dims, n_dims * sizeof *dims);
    return t;
}

void image_remove_tensor(struct image *image, const char *name) {
    struct image_tensor *t = the_tensor(image, name);
    size_t at = (size_t)(t - image->tensors);
    free_tensor(t);
    image->n_tensors--;
    memmove(t, t + 1, (image->n_tensors - at) * sizeof *t);
}

void image_rename_tensor(struct image *image, const char *name, const char *new_name) {
    struct image_tensor *t = the_tensor(image, name);
    free(t->name);
    t->name = copy_text(new_name);
}

void image_repeat_tensor(struct image *image, const char *name) {
    /* A copy: adding moves the list that holds the original. */
    const struct image_tensor t = *the_tensor(image, name);
    image_add_tensor(image, name, t.dtype, t.n_dims, t.dims, copy_bytes(&t.data));
}

/* Makes the data as long as type and dimensions ask for. */
static void resize_data(struct image_tensor *t) {
    uint64_t values = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        values *= t->dims[i];
    }
    uint64_t bytes = dtype_bytes(t->dtype, values);
    need(bytes <= 1u << 28, "a tensor of more than 256 MiB");
    if (bytes > t->data.bytes) {
        put_zeros(&t->data, (size_t)(bytes - t->data.bytes));
    }
    t->data.bytes = (size_t)bytes;
}

void image_reshape_tensor(struct image *image, const char *name, uint32_t n_dims,
                          const uint64_t *dims) {
    struct image_tensor *t = the_tensor(image, name);
    need(n_dims <= sizeof t->dims / sizeof *t->dims, "too many dimensions");
    t->n_dims = n_dims;
    memcpy(t->dims, dims, n_dims * sizeof *dims);
    resize_data(t);
}

void image_retype_tensor(struct image *image, const char *name, uint32_t dtype) {
    struct image_tensor *t = the_tensor(image, name);
    t->dtype = dtype;
    t->data.bytes = 0;
    resize_data(t);
}

void image_move_tensor(struct image *image, const char *name, uint64_t offset) {
    struct image_tensor *t = the_tensor(image, name);
    t->moved = true;
    t->offset = offset;
}

/* ---- writing ------------------------------------------------------------------------------ */

static void put_key(struct image_bytes *out, const struct image_key *key) {
    image_put_text(out, key->name);
    image_put_u32(out, key->type);
    if (key->type == GGUF_ARRAY) {
        image_put_u32(out, key->item_type);
        image_put_u64(out, key->count);
    }
    image_put(out, key->values.data, key->values.bytes);
}

struct image_bytes image_serialise(const struct image *image, size_t *header_bytes) {
    struct image_bytes out = {0};
    image_put(&out, "GGUF", 4);
    image_put_u32(&out, image->version);
    image_put_u64(&out, image->n_tensors);
    image_put_u64(&out, image->n_keys);
    for (size_t i = 0; i < image->n_keys; i++) {
        put_key(&out, &image->keys[i]);
    }
    uint64_t offset = 0;
    for (size_t i = 0; i < image->n_tensors; i++) {
        const struct image_tensor *t = &image->tensors[i];
        image_put_text(&out, t->name);
        image_put_u32(&out, t->n_dims);
        for (uint32_t j = 0; j < t->n_dims; j++) {
            image_put_u64(&out, t->dims[j]);
        }
        image_put_u32(&out, t->dtype);
        image_put_u64(&out, t->moved ? t->offset : offset);
        offset += t->data.bytes;
        offset += (image->alignment - offset % image->alignment) % image->alignment;
    }
    if (header_bytes != NULL) {
        *header_bytes = out.bytes;
    }
    for (size_t i = 0; i < image->n_tensors; i++) {
        put_padding(&out, image->alignment);
        image_put(&out, image->tensors[i].data.data, image->tensors[i].data.bytes);
    }
    return out;
}

void image_write_bytes(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    need(file != NULL && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0, path);
}

void image_write(const struct image *image, const char *path) {
    image_write_cut(image, path, SIZE_MAX);
}

void image_write_cut(const struct image *image, const char *path, size_t bytes) {
    struct image_bytes file = image_serialise(image, NULL);
    image_write_bytes(path, file.data, bytes < file.bytes ? bytes : file.bytes);
    image_bytes_free(&file);
}

static void set_u16(struct image *image, const char *name, uint32_t value) {
    struct image_key *key = reset_key(image, name, GGUF_U16);
    image_put_u8(&key->values, (uint8_t)value);
    image_put_u8(&key->values, (uint8_t)(value >> 8));
}

void image_write_split(const struct image *image, const char *path, uint32_t n_files) {
    for (uint32_t no = 0; no < n_files; no++) {
        struct image part;
        image_init(&part);
        part.version = image->version;
        part.alignment = image->alignment;
        for (size_t i = 0; i < image->n_keys; i++) {
            const struct image_key *key = &image->keys[i];
            if (no == 0 || strcmp(key->name, "general.alignment") == 0) {
                struct image_key *copy = reset_key(&part, key->name, key->type);
                copy->item_type = key->item_type;
                copy->count = key->count;
                copy->values = copy_bytes(&key->values);
            }
        }
        set_u16(&part, "split.no", no);
        set_u16(&part, "split.count", n_files);
        image_set_i32(&part, "split.tensors.count", (int32_t)image->n_tensors);
        size_t from = image->n_tensors * no / n_files, to = image->n_tensors * (no + 1) / n_files;
        for (size_t i = from; i < to; i++) {
            const struct image_tensor *t = &image->tensors[i];
            image_add_tensor(&part, t->name, t->dtype, t->n_dims, t->dims, copy_bytes(&t->data));
        }
        char *part_path = NULL;
        need(gguf_split_path(path, no, n_files, &part_path, NULL) == 0, path);
        image_write(&part, part_path);
        mem_free(part_path);
        image_deinit(&part);
    }
}

/* ---- directories -------------------------------------------------------------------------- */

void image_directory_make(char path[64]) {
    snprintf(path, 64, "/tmp/onetrip-test-XXXXXX");
    need(mkdtemp(path) != NULL, path);
}

void image_directory_remove(const char *path) {
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char file[512];
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
            if (unlink(file) != 0) {
                image_directory_remove(file);
            }
        }
    }
    closedir(directory);
    rmdir(path);
}
