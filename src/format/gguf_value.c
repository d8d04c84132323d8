/* gguf_value.c - values of a parsed GGUF file, read with the type and the range the caller needs.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "format/bytes.h"
#include "format/gguf.h"

const char *gguf_type_name(uint32_t type) {
    static const char *const names[GGUF_TYPE_COUNT] = {
        [GGUF_U8] = "u8",         [GGUF_I8] = "i8",       [GGUF_U16] = "u16", [GGUF_I16] = "i16",
        [GGUF_U32] = "u32",       [GGUF_I32] = "i32",     [GGUF_F32] = "f32", [GGUF_BOOL] = "bool",
        [GGUF_STRING] = "string", [GGUF_ARRAY] = "array", [GGUF_U64] = "u64", [GGUF_I64] = "i64",
        [GGUF_F64] = "f64",
    };
    return type < GGUF_TYPE_COUNT ? names[type] : "unknown type";
}

const char *gguf_quote(char buf[96], struct gguf_string string) {
    size_t used = 0;
    buf[used++] = '"';
    for (uint64_t i = 0; i < string.bytes; i++) {
        /* Room for one escaped byte, the dots, the closing quote and the NUL. */
        if (used + 4 + 3 + 2 > 96) {
            memcpy(buf + used, "...", 3);
            used += 3;
            break;
        }
        unsigned char c = (unsigned char)string.data[i];
        if (c < 0x20 || c > 0x7e) {
            used += (size_t)snprintf(buf + used, 96 - used, "\\x%02x", c);
        } else {
            buf[used++] = (char)c;
        }
    }
    buf[used++] = '"';
    buf[used] = '\0';
    return buf;
}

/* ---- items -------------------------------------------------------------------------------- */

static bool is_signed(enum gguf_type type) {
    return type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
}

static bool is_integer(enum gguf_type type) {
    return is_signed(type) || type == GGUF_U8 || type == GGUF_U16 || type == GGUF_U32 ||
           type == GGUF_U64;
}

static bool is_float(enum gguf_type type) {
    return type == GGUF_F32 || type == GGUF_F64;
}

uint64_t gguf_item_u64(const struct gguf_kv *kv, uint64_t index) {
    const uint8_t *p = kv->data;
    switch (kv->item_type) {
    case GGUF_U8:
    case GGUF_BOOL: return p[index];
    case GGUF_I8: return (uint64_t)(int64_t)(int8_t)p[index];
    case GGUF_U16: return bytes_u16(p + 2 * index);
    case GGUF_I16: return (uint64_t)(int64_t)(int16_t)bytes_u16(p + 2 * index);
    case GGUF_U32: return bytes_u32(p + 4 * index);
    case GGUF_I32: return (uint64_t)(int64_t)(int32_t)bytes_u32(p + 4 * index);
    case GGUF_U64:
    case GGUF_I64: return bytes_u64(p + 8 * index);
    default: return 0;
    }
}

static double item_f64(const struct gguf_kv *kv, uint64_t index) {
    if (kv->item_type == GGUF_F32) {
        return (double)bytes_f32(kv->data + 4 * index);
    }
    if (kv->item_type == GGUF_F64) {
        return bytes_f64(kv->data + 8 * index);
    }
    uint64_t bits = gguf_item_u64(kv, index);
    return is_signed(kv->item_type) ? (double)(int64_t)bits : (double)bits;
}

float gguf_item_f32(const struct gguf_kv *kv, uint64_t index) {
    return (float)item_f64(kv, index);
}

bool gguf_strings_init(struct gguf_strings *it, const struct gguf_kv *kv) {
    if (kv->item_type != GGUF_STRING) {
        return false;
    }
    *it = (struct gguf_strings){kv->data, kv->data + kv->data_bytes, kv->count};
    return true;
}

bool gguf_strings_next(struct gguf_strings *it, struct gguf_string *out) {
    if (it->left == 0 || (uint64_t)(it->end - it->at) < 8) {
        return false;
    }
    uint64_t bytes = bytes_u64(it->at);
    if (bytes > (uint64_t)(it->end - it->at) - 8) {
        return false;
    }
    out->bytes = bytes;
    out->data = (const char *)it->at + 8;
    it->at += 8 + out->bytes;
    it->left--;
    return true;
}

/* ---- messages ----------------------------------------------------------------------------- */

/* "u32 7", "string \"x\"", "an array of 3 f32": what was found, for a message. */
static const char *describe(char buf[128], const struct gguf_kv *kv) {
    char quoted[96];
    if (kv->type == GGUF_ARRAY) {
        snprintf(buf, 128, "an array of %" PRIu64 " %s", kv->count, gguf_type_name(kv->item_type));
    } else if (kv->type == GGUF_STRING) {
        struct gguf_string value = {(const char *)kv->data + 8, kv->data_bytes - 8};
        snprintf(buf, 128, "string %s", gguf_quote(quoted, value));
    } else if (is_float(kv->type)) {
        snprintf(buf, 128, "%s %.9g", gguf_type_name(kv->type), item_f64(kv, 0));
    } else if (is_signed(kv->type)) {
        snprintf(buf, 128, "%s %" PRId64, gguf_type_name(kv->type), (int64_t)gguf_item_u64(kv, 0));
    } else {
        snprintf(buf, 128, "%s %" PRIu64, gguf_type_name(kv->type), gguf_item_u64(kv, 0));
    }
    return buf;
}

static int fail_value(const struct gguf_kv *kv, const char *path, const char *key,
                      const char *expected, struct ot_error *err) {
    char found[128];
    return error_set(err, OT_ERR_FORMAT, path, "key \"%s\": %s, expected %s", key,
                     describe(found, kv), expected);
}

/* ---- typed reads -------------------------------------------------------------------------- */

int gguf_get_u32(const struct gguf *g, const char *path, const char *key, uint32_t fallback,
                 uint32_t min, uint32_t max, uint32_t *out, struct ot_error *err) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL) {
        *out = fallback;
        return 0;
    }
    char expected[64];
    snprintf(expected, sizeof expected, "an integer from %u to %u", min, max);
    if (!is_integer(kv->type)) {
        return fail_value(kv, path, key, expected, err);
    }
    uint64_t value = gguf_item_u64(kv, 0);
    bool negative = is_signed(kv->type) && (int64_t)value < 0;
    if (negative || value < min || value > max) {
        return fail_value(kv, path, key, expected, err);
    }
    *out = (uint32_t)value;
    return 0;
}

int gguf_get_f32(const struct gguf *g, const char *path, const char *key, float fallback, float min,
                 float max, float *out, struct ot_error *err) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL) {
        *out = fallback;
        return 0;
    }
    char expected[64];
    snprintf(expected, sizeof expected, "a number from %g to %g", (double)min, (double)max);
    if (!is_float(kv->type) && !is_integer(kv->type)) {
        return fail_value(kv, path, key, expected, err);
    }
    double value = item_f64(kv, 0);
    if (!isfinite(value) || value < (double)min || value > (double)max) {
        return fail_value(kv, path, key, expected, err);
    }
    *out = (float)value;
    return 0;
}

int gguf_get_bool(const struct gguf *g, const char *path, const char *key, bool fallback, bool *out,
                  struct ot_error *err) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL) {
        *out = fallback;
        return 0;
    }
    if ((kv->type != GGUF_BOOL && !is_integer(kv->type)) || gguf_item_u64(kv, 0) > 1) {
        return fail_value(kv, path, key, "a boolean", err);
    }
    *out = gguf_item_u64(kv, 0) != 0;
    return 0;
}

int gguf_get_string(const struct gguf *g, const char *path, const char *key, const char *fallback,
                    struct gguf_string *out, struct ot_error *err) {
    const struct gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL) {
        *out = (struct gguf_string){fallback, fallback != NULL ? strlen(fallback) : 0};
        return 0;
    }
    if (kv->type != GGUF_STRING) {
        return fail_value(kv, path, key, "a string", err);
    }
    *out = (struct gguf_string){(const char *)kv->data + 8, kv->data_bytes - 8};
    return 0;
}

/* ---- split files -------------------------------------------------------------------------- */

int gguf_split(const struct gguf *g, const char *path, uint32_t *no, uint32_t *count,
               struct ot_error *err) {
    uint32_t part = 0, parts = 1;
    int rc = gguf_get_u32(g, path, "split.count", 1, 1, UINT16_MAX, &parts, err);
    if (rc != 0) {
        return rc;
    }
    rc = gguf_get_u32(g, path, "split.no", 0, 0, parts - 1, &part, err);
    if (rc != 0) {
        return rc;
    }
    if (parts > 1 && gguf_find(g, "split.no") == NULL) {
        return error_set(err, OT_ERR_FORMAT, path,
                         "key \"split.no\": not found, expected the number of this part of %u",
                         parts);
    }
    *no = part;
    *count = parts;
    return 0;
}

int gguf_split_path(const char *path, uint32_t no, uint32_t count, char **out,
                    struct ot_error *err) {
    char ending[64];
    int ending_bytes = snprintf(ending, sizeof ending, "-00001-of-%05u.gguf", count);
    size_t bytes = strlen(path);
    if (bytes < (size_t)ending_bytes || strcmp(path + bytes - (size_t)ending_bytes, ending) != 0) {
        return error_set(err, OT_ERR_FORMAT, path,
                         "the first part of a model in %u files, expected a name that ends in %s",
                         count, ending);
    }
    size_t stem_bytes = bytes - (size_t)ending_bytes;
    char *other = mem_calloc(stem_bytes + sizeof ending, 1);
    if (other == NULL) {
        return error_memory(err, stem_bytes + sizeof ending);
    }
    memcpy(other, path, stem_bytes);
    snprintf(other + stem_bytes, sizeof ending, "-%05u-of-%05u.gguf", no + 1, count);
    *out = other;
    return 0;
}
