/* gguf.c - reads the header of a GGUF file: where every key and every tensor lies.
 *
 *   OFFSET  SIZE  of the header
 *   0       4     magic "GGUF"
 *   4       4     version, 2 or 3
 *   8       8     number of tensors
 *   16      8     number of keys
 *   24            keys:    name (u64 length, bytes), u32 type, value
 *                 tensors: name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset
 *                 padding up to a multiple of general.alignment, then the tensors' data
 *
 * A cursor walks the bytes once; it knows which entry it is in, so that every message can name it.
 * Nothing is taken from the file before it was compared with the bytes that are left. */
#include "format/gguf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/dtype.h"
#include "base/error.h"
#include "format/bytes.h"

enum {
    DEFAULT_ALIGNMENT = 32,
    MIN_ALIGNMENT = 8,
    MAX_ALIGNMENT = 1 << 30,
    MIN_KV_BYTES = 8 + 1 + 4 + 1,             /* a name of one byte, a type, a value of one byte */
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* a name of one byte, one dimension */
};

struct cursor {
    const uint8_t *data;
    uint64_t at, end; /* end: what was given of the file */
    const char *path;
    struct ot_error *err;
    const char *kind;        /* "header", "key", "tensor" */
    uint64_t number;         /* of this entry, from 0 */
    struct gguf_string name; /* of this entry; data NULL while it is not known */
};

/* Fills the error with the entry that the cursor is in before the text. Returns code. */
static int fail(const struct cursor *c, int code, const char *fmt, ...) OT_PRINTF(3, 4);

static int fail(const struct cursor *c, int code, const char *fmt, ...) {
    char text[384], quoted[96];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (c->name.data != NULL) {
        return error_set(c->err, code, c->path, "%s %s: %s", c->kind, gguf_quote(quoted, c->name),
                         text);
    }
    if (strcmp(c->kind, "header") == 0) {
        return error_set(c->err, code, c->path, "header: %s", text);
    }
    return error_set(c->err, code, c->path, "%s number %llu: %s", c->kind,
                     (unsigned long long)c->number, text);
}

static uint64_t left(const struct cursor *c) {
    return c->end - c->at;
}

/* Hands out the next bytes; NULL, with the error filled, where the file ends first (the caller
 * returns OT_ERR_FORMAT). what names them in the message. */
static const uint8_t *take(struct cursor *c, uint64_t bytes, const char *what) {
    if (bytes > left(c)) {
        fail(c, OT_ERR_FORMAT,
             "the file ends inside its %s: %llu bytes are left at offset %llu, expected %llu", what,
             (unsigned long long)left(c), (unsigned long long)c->at, (unsigned long long)bytes);
        return NULL;
    }
    const uint8_t *p = c->data + c->at;
    c->at += bytes;
    return p;
}

static int take_u32(struct cursor *c, const char *what, uint32_t *out) {
    const uint8_t *p = take(c, 4, what);
    if (p == NULL) {
        return OT_ERR_FORMAT;
    }
    *out = bytes_u32(p);
    return 0;
}

static int take_u64(struct cursor *c, const char *what, uint64_t *out) {
    const uint8_t *p = take(c, 8, what);
    if (p == NULL) {
        return OT_ERR_FORMAT;
    }
    *out = bytes_u64(p);
    return 0;
}

/* Names go into messages, tables and C strings: printable ASCII only, as the format demands of
 * keys. */
static int take_name(struct cursor *c, struct gguf_string *out) {
    uint64_t bytes;
    int rc = take_u64(c, "name's length", &bytes);
    if (rc != 0) {
        return rc;
    }
    if (bytes == 0 || bytes > GGUF_MAX_NAME_BYTES) {
        return fail(c, OT_ERR_FORMAT, "its name has %llu bytes, expected 1 to %d",
                    (unsigned long long)bytes, GGUF_MAX_NAME_BYTES);
    }
    const uint8_t *p = take(c, bytes, "name");
    if (p == NULL) {
        return OT_ERR_FORMAT;
    }
    *out = (struct gguf_string){(const char *)p, bytes};
    c->name = *out;
    for (uint64_t i = 0; i < bytes; i++) {
        if (p[i] < 0x20 || p[i] > 0x7e) {
            return fail(c, OT_ERR_FORMAT,
                        "byte %llu of the name is 0x%02x, expected printable ASCII",
                        (unsigned long long)i, p[i]);
        }
    }
    return 0;
}

/* Bytes of one value; 0 for strings and arrays, which have no fixed size. */
static uint32_t type_bytes(uint32_t type) {
    static const uint8_t sizes[GGUF_TYPE_COUNT] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1,
        [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
    };
    return sizes[type];
}

static int take_type(struct cursor *c, const char *what, enum gguf_type *out) {
    uint32_t type;
    int rc = take_u32(c, what, &type);
    if (rc != 0) {
        return rc;
    }
    if (type >= GGUF_TYPE_COUNT) {
        return fail(c, OT_ERR_FORMAT, "unknown value type %u, expected 0 to %d", type,
                    GGUF_TYPE_COUNT - 1);
    }
    *out = (enum gguf_type)type;
    return 0;
}

/* Walks count strings, so that nobody needs to check their lengths again. */
static int skip_strings(struct cursor *c, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t bytes;
        if (left(c) < 8 || (bytes = bytes_u64(c->data + c->at)) > left(c) - 8) {
            return fail(
                c, OT_ERR_FORMAT,
                left(c) < 8 ? "the file ends inside string %llu of %llu, at offset %llu"
                            : "string %llu of %llu, at offset %llu, is longer than the file",
                (unsigned long long)i, (unsigned long long)count, (unsigned long long)c->at);
        }
        c->at += 8 + bytes;
    }
    return 0;
}

static int check_bools(const struct cursor *c, const uint8_t *values, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        if (values[i] > 1) {
            return fail(c, OT_ERR_FORMAT, "a boolean is %u, expected 0 or 1", values[i]);
        }
    }
    return 0;
}

/* Values of item_type: one, or all of an array. */
static int take_values(struct cursor *c, struct gguf_kv *kv) {
    uint64_t from = c->at, bytes;
    kv->data = c->data + from;
    if (kv->item_type == GGUF_STRING) {
        if (kv->count > left(c) / 8) {
            return fail(c, OT_ERR_FORMAT, "%llu strings do not fit in the %llu bytes that are left",
                        (unsigned long long)kv->count, (unsigned long long)left(c));
        }
        int rc = skip_strings(c, kv->count);
        kv->data_bytes = c->at - from;
        return rc;
    }
    if (!checked_mul(kv->count, type_bytes(kv->item_type), &bytes)) {
        return fail(c, OT_ERR_FORMAT, "an array of %llu values is larger than any file",
                    (unsigned long long)kv->count);
    }
    const uint8_t *p = take(c, bytes, "value");
    if (p == NULL) {
        return OT_ERR_FORMAT;
    }
    kv->data_bytes = bytes;
    return kv->item_type == GGUF_BOOL ? check_bools(c, p, kv->count) : 0;
}

static int take_kv(struct cursor *c, struct gguf_kv *kv) {
    int rc = take_name(c, &kv->key);
    if (rc != 0) {
        return rc;
    }
    rc = take_type(c, "type", &kv->type);
    if (rc != 0) {
        return rc;
    }
    kv->item_type = kv->type;
    kv->count = 1;
    if (kv->type == GGUF_ARRAY) {
        rc = take_type(c, "array's item type", &kv->item_type);
        if (rc != 0) {
            return rc;
        }
        if (kv->item_type == GGUF_ARRAY) {
            return fail(c, OT_ERR_FORMAT,
                        "an array of arrays, expected an array of numbers or strings");
        }
        rc = take_u64(c, "array's length", &kv->count);
        if (rc != 0) {
            return rc;
        }
    }
    return take_values(c, kv);
}

/* Types of the format that this build does not compute with, for the message. */
static const char *foreign_dtype_name(uint32_t dtype) {
    static const char *const names[] = {
        [4] = "Q4_2",    [5] = "Q4_3",      [9] = "Q8_1",      [15] = "Q8_K",     [16] = "IQ2_XXS",
        [17] = "IQ2_XS", [18] = "IQ3_XXS",  [19] = "IQ1_S",    [21] = "IQ3_S",    [22] = "IQ2_S",
        [24] = "I8",     [25] = "I16",      [26] = "I32",      [27] = "I64",      [28] = "F64",
        [29] = "IQ1_M",  [31] = "Q4_0_4_4", [32] = "Q4_0_4_8", [33] = "Q4_0_8_8", [34] = "TQ1_0",
        [35] = "TQ2_0",
    };
    return dtype < sizeof names / sizeof *names && names[dtype] != NULL ? names[dtype] : "unknown";
}

/* Sets t->bytes from type and dimensions. */
static int measure_tensor(const struct cursor *c, struct gguf_tensor *t) {
    const struct dtype_info *d = dtype_get(t->dtype);
    if (d->name == NULL) {
        return fail(c, OT_ERR_UNSUPPORTED,
                    "tensor type %u (%s), expected F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, "
                    "Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS or MXFP4",
                    t->dtype, foreign_dtype_name(t->dtype));
    }
    if (t->dims[0] % d->block_values != 0) {
        return fail(c, OT_ERR_FORMAT, "rows of %llu values, expected a multiple of %u for %s",
                    (unsigned long long)t->dims[0], d->block_values, d->name);
    }
    uint64_t bytes;
    bool fits = checked_mul(t->dims[0] / d->block_values, d->block_bytes, &bytes);
    for (uint32_t i = 1; fits && i < t->n_dims; i++) {
        fits = checked_mul(bytes, t->dims[i], &bytes);
    }
    /* The number of values must fit as well: types of less than a byte a value have more of them.
     */
    uint64_t values = t->dims[0];
    for (uint32_t i = 1; fits && i < t->n_dims; i++) {
        fits = checked_mul(values, t->dims[i], &values);
    }
    if (!fits || values > INT64_MAX || bytes > INT64_MAX) {
        return fail(c, OT_ERR_FORMAT,
                    "dimensions %llu x %llu x %llu x %llu overflow, expected less than 2^63 values",
                    (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
                    (unsigned long long)t->dims[2], (unsigned long long)t->dims[3]);
    }
    t->bytes = bytes;
    return 0;
}

/* The offset stays relative to the data's beginning until that is known. */
static int take_tensor(struct cursor *c, struct gguf_tensor *t) {
    int rc = take_name(c, &t->name);
    if (rc != 0) {
        return rc;
    }
    rc = take_u32(c, "number of dimensions", &t->n_dims);
    if (rc != 0) {
        return rc;
    }
    if (t->n_dims < 1 || t->n_dims > GGUF_MAX_DIMS) {
        return fail(c, OT_ERR_FORMAT, "%u dimensions, expected 1 to %d", t->n_dims, GGUF_MAX_DIMS);
    }
    for (uint32_t i = 0; i < GGUF_MAX_DIMS; i++) {
        t->dims[i] = 1;
    }
    for (uint32_t i = 0; i < t->n_dims; i++) {
        rc = take_u64(c, "dimensions", &t->dims[i]);
        if (rc != 0) {
            return rc;
        }
        if (t->dims[i] == 0) {
            return fail(c, OT_ERR_FORMAT, "dimension %u is 0, expected at least 1", i);
        }
    }
    rc = take_u32(c, "type", &t->dtype);
    if (rc != 0) {
        return rc;
    }
    rc = take_u64(c, "offset", &t->offset);
    if (rc != 0) {
        return rc;
    }
    return measure_tensor(c, t);
}

/* ---- sorting ------------------------------------------------------------------------------ */

typedef int compare_fn(const void *items, uint32_t a, uint32_t b);

static void sift_down(uint32_t *order, uint64_t root, uint64_t n, compare_fn *compare,
                      const void *items) {
    for (;;) {
        uint64_t child = 2 * root + 1;
        if (child >= n) {
            return;
        }
        if (child + 1 < n && compare(items, order[child], order[child + 1]) < 0) {
            child++;
        }
        if (compare(items, order[root], order[child]) >= 0) {
            return;
        }
        uint32_t swap = order[root];
        order[root] = order[child];
        order[child] = swap;
        root = child;
    }
}

/* The numbers 0 to n - 1 in the order of items, for mem_free; NULL where there is no memory. A heap
 * sort: no input makes it slow, and it takes no memory besides. */
static uint32_t *sorted(uint64_t n, compare_fn *compare, const void *items) {
    uint32_t *order = mem_calloc(n, sizeof *order);
    if (order == NULL) {
        return NULL;
    }
    for (uint64_t i = 0; i < n; i++) {
        order[i] = (uint32_t)i;
    }
    for (uint64_t i = n / 2; i-- > 0;) {
        sift_down(order, i, n, compare, items);
    }
    for (uint64_t i = n; i-- > 1;) {
        uint32_t swap = order[0];
        order[0] = order[i];
        order[i] = swap;
        sift_down(order, 0, i, compare, items);
    }
    return order;
}

static int compare_strings(struct gguf_string a, struct gguf_string b) {
    int order = memcmp(a.data, b.data, (size_t)min_u64(a.bytes, b.bytes));
    return order != 0 ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

static int compare_keys(const void *items, uint32_t a, uint32_t b) {
    const struct gguf_kv *kv = items;
    return compare_strings(kv[a].key, kv[b].key);
}

static int compare_names(const void *items, uint32_t a, uint32_t b) {
    const struct gguf_tensor *t = items;
    return compare_strings(t[a].name, t[b].name);
}

static int compare_offsets(const void *items, uint32_t a, uint32_t b) {
    const struct gguf_tensor *t = items;
    return (t[a].offset > t[b].offset) - (t[a].offset < t[b].offset);
}

/* ---- the parts of the file ---------------------------------------------------------------- */

static int check_count(const struct cursor *c, const char *what, uint64_t count,
                       uint64_t min_entry_bytes) {
    uint64_t fit = left(c) / min_entry_bytes;
    if (count > fit || count > GGUF_MAX_ENTRIES) {
        return fail(c, OT_ERR_FORMAT, "%llu %s, expected at most %llu (%s)",
                    (unsigned long long)count, what,
                    (unsigned long long)min_u64(fit, GGUF_MAX_ENTRIES),
                    fit <= GGUF_MAX_ENTRIES ? "as many as the file's bytes can hold"
                                            : "the limit of this build");
    }
    return 0;
}

static int take_preamble(struct cursor *c, struct gguf *g) {
    if (c->end == 0) {
        return error_set(c->err, OT_ERR_FORMAT, c->path, "the file is empty");
    }
    const uint8_t *magic = take(c, 4, "magic");
    if (magic == NULL) {
        return OT_ERR_FORMAT;
    }
    if (memcmp(magic, "GGUF", 4) != 0) {
        return fail(
            c, OT_ERR_FORMAT,
            "the file begins with bytes %02x %02x %02x %02x, expected \"GGUF\" (47 47 55 46)",
            magic[0], magic[1], magic[2], magic[3]);
    }
    int rc = take_u32(c, "version", &g->version);
    if (rc != 0) {
        return rc;
    }
    if (g->version != 0 && (g->version & 0xffff) == 0) {
        return fail(c, OT_ERR_UNSUPPORTED,
                    "the version reads %u, %u in the other byte order: a big-endian file, expected "
                    "little-endian",
                    g->version, __builtin_bswap32(g->version));
    }
    if (g->version < 2 || g->version > 3) {
        return fail(c, OT_ERR_UNSUPPORTED, "GGUF version %u, expected 2 or 3", g->version);
    }
    rc = take_u64(c, "number of tensors", &g->n_tensors);
    if (rc != 0) {
        return rc;
    }
    rc = take_u64(c, "number of keys", &g->n_kv);
    if (rc != 0) {
        return rc;
    }
    rc = check_count(c, "keys", g->n_kv, MIN_KV_BYTES);
    return rc != 0 ? rc : check_count(c, "tensors", g->n_tensors, MIN_TENSOR_BYTES);
}

/* Makes room for one more of n entries, doubling what there is: memory follows the entries that
 * were read, not the number that the header claims. *items stays valid on failure. */
static int make_room(void **items, uint64_t used, uint64_t n, uint64_t *capacity,
                     uint64_t item_bytes, struct ot_error *err) {
    if (used < *capacity) {
        return 0;
    }
    uint64_t grown = min_u64(n, max_u64(64, 2 * *capacity));
    void *moved = mem_realloc(*items, grown * item_bytes);
    if (moved == NULL) {
        return error_memory(err, grown * item_bytes);
    }
    memset((char *)moved + used * item_bytes, 0, (size_t)((grown - used) * item_bytes));
    *items = moved;
    *capacity = grown;
    return 0;
}

static int take_keys(struct cursor *c, struct gguf *g) {
    uint64_t capacity = 0;
    c->kind = "key";
    for (uint64_t i = 0; i < g->n_kv; i++) {
        void *items = g->kv;
        int rc = make_room(&items, i, g->n_kv, &capacity, sizeof *g->kv, c->err);
        g->kv = items;
        c->number = i;
        c->name.data = NULL;
        if (rc != 0 || (rc = take_kv(c, &g->kv[i])) != 0) {
            return rc;
        }
    }
    g->kv_by_name = sorted(g->n_kv, compare_keys, g->kv);
    if (g->kv_by_name == NULL) {
        return error_memory(c->err, g->n_kv * sizeof *g->kv_by_name);
    }
    for (uint64_t i = 1; i < g->n_kv; i++) {
        if (compare_keys(g->kv, g->kv_by_name[i - 1], g->kv_by_name[i]) == 0) {
            c->name = g->kv[g->kv_by_name[i]].key;
            return fail(c, OT_ERR_FORMAT, "found twice, as number %u and %u, expected once",
                        min_u32(g->kv_by_name[i - 1], g->kv_by_name[i]),
                        max_u32(g->kv_by_name[i - 1], g->kv_by_name[i]));
        }
    }
    return 0;
}

static int take_tensors(struct cursor *c, struct gguf *g) {
    uint64_t capacity = 0;
    c->kind = "tensor";
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        void *items = g->tensors;
        int rc = make_room(&items, i, g->n_tensors, &capacity, sizeof *g->tensors, c->err);
        g->tensors = items;
        c->number = i;
        c->name.data = NULL;
        if (rc != 0 || (rc = take_tensor(c, &g->tensors[i])) != 0) {
            return rc;
        }
    }
    g->tensor_by_name = sorted(g->n_tensors, compare_names, g->tensors);
    if (g->tensor_by_name == NULL) {
        return error_memory(c->err, g->n_tensors * sizeof *g->tensor_by_name);
    }
    for (uint64_t i = 1; i < g->n_tensors; i++) {
        if (compare_names(g->tensors, g->tensor_by_name[i - 1], g->tensor_by_name[i]) == 0) {
            c->name = g->tensors[g->tensor_by_name[i]].name;
            return fail(c, OT_ERR_FORMAT, "found twice, as number %u and %u, expected once",
                        min_u32(g->tensor_by_name[i - 1], g->tensor_by_name[i]),
                        max_u32(g->tensor_by_name[i - 1], g->tensor_by_name[i]));
        }
    }
    return 0;
}

static int read_alignment(struct gguf *g, const char *path, struct ot_error *err) {
    uint32_t alignment = DEFAULT_ALIGNMENT;
    int rc = gguf_get_u32(g, path, "general.alignment", DEFAULT_ALIGNMENT, MIN_ALIGNMENT,
                          MAX_ALIGNMENT, &alignment, err);
    if (rc != 0) {
        return rc;
    }
    if ((alignment & (alignment - 1)) != 0) {
        return error_set(err, OT_ERR_FORMAT, path,
                         "key \"general.alignment\": %u, expected a power of two", alignment);
    }
    g->alignment = alignment;
    return 0;
}

/* Turns relative offsets into offsets in the file: aligned, inside it, and no two overlapping. */
static int place_tensors(struct cursor *c, struct gguf *g, uint64_t file_bytes) {
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        c->name = t->name;
        if (t->offset % g->alignment != 0) {
            return fail(c, OT_ERR_FORMAT, "offset %llu, expected a multiple of the alignment %llu",
                        (unsigned long long)t->offset, (unsigned long long)g->alignment);
        }
        uint64_t from, end;
        if (!checked_add(g->data_offset, t->offset, &from) || !checked_add(from, t->bytes, &end) ||
            end > file_bytes) {
            return fail(c, OT_ERR_FORMAT,
                        "%llu bytes at offset %llu of the tensor data, which begins at %llu: "
                        "expected an end inside the file's %llu bytes (is it cut short?)",
                        (unsigned long long)t->bytes, (unsigned long long)t->offset,
                        (unsigned long long)g->data_offset, (unsigned long long)file_bytes);
        }
        t->offset = from;
    }
    uint32_t *order = sorted(g->n_tensors, compare_offsets, g->tensors);
    if (order == NULL) {
        return error_memory(c->err, g->n_tensors * sizeof *order);
    }
    int rc = 0;
    for (uint64_t i = 1; rc == 0 && i < g->n_tensors; i++) {
        const struct gguf_tensor *before = &g->tensors[order[i - 1]], *t = &g->tensors[order[i]];
        if (before->offset + before->bytes > t->offset) {
            char quoted[96];
            c->name = t->name;
            rc = fail(c, OT_ERR_FORMAT,
                      "begins at byte %llu of the file, inside tensor %s, expected %llu or more",
                      (unsigned long long)t->offset, gguf_quote(quoted, before->name),
                      (unsigned long long)(before->offset + before->bytes));
        }
    }
    mem_free(order);
    return rc;
}

static int parse(struct cursor *c, struct gguf *g, uint64_t file_bytes) {
    int rc = take_preamble(c, g);
    if (rc != 0) {
        return rc;
    }
    rc = take_keys(c, g);
    if (rc != 0) {
        return rc;
    }
    rc = take_tensors(c, g);
    if (rc != 0) {
        return rc;
    }
    rc = read_alignment(g, c->path, c->err);
    if (rc != 0) {
        return rc;
    }
    /* Cannot overflow: the header lies in memory, the alignment is at most 2^30. */
    g->data_offset = round_up(c->at, g->alignment);
    return place_tensors(c, g, file_bytes);
}

int gguf_parse(struct gguf *out, const uint8_t *data, uint64_t data_bytes, uint64_t file_bytes,
               const char *path, struct ot_error *err) {
    struct cursor c = {.data = data,
                       .end = min_u64(data_bytes, file_bytes),
                       .path = path,
                       .err = err,
                       .kind = "header"};
    struct gguf g = {0};
    int rc = parse(&c, &g, file_bytes);
    if (rc != 0) {
        gguf_deinit(&g);
        return rc;
    }
    *out = g;
    return 0;
}

void gguf_deinit(struct gguf *g) {
    mem_free(g->kv);
    mem_free(g->tensors);
    mem_free(g->kv_by_name);
    mem_free(g->tensor_by_name);
    memset(g, 0, sizeof *g);
}

/* The position of a name in a table in the order of names; n where it is not there. */
static uint64_t find_name(struct gguf_string (*name_at)(const struct gguf *g, uint64_t at),
                          const struct gguf *g, uint64_t n, const char *name) {
    struct gguf_string wanted = {name, strlen(name)};
    uint64_t from = 0, to = n;
    while (from < to) {
        uint64_t middle = from + (to - from) / 2;
        int order = compare_strings(name_at(g, middle), wanted);
        if (order == 0) {
            return middle;
        }
        if (order < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return n;
}

static struct gguf_string kv_name_at(const struct gguf *g, uint64_t at) {
    return g->kv[g->kv_by_name[at]].key;
}

static struct gguf_string tensor_name_at(const struct gguf *g, uint64_t at) {
    return g->tensors[g->tensor_by_name[at]].name;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key) {
    uint64_t at = find_name(kv_name_at, g, g->n_kv, key);
    return at < g->n_kv ? &g->kv[g->kv_by_name[at]] : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name) {
    uint64_t at = find_name(tensor_name_at, g, g->n_tensors, name);
    return at < g->n_tensors ? &g->tensors[g->tensor_by_name[at]] : NULL;
}
