/* model.c - opening a model: files, headers, vocabulary, hyperparameters, tensors bound to roles. */
#include "model/model.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/dtype.h"
#include "base/error.h"
#include "model/vocab_source.h"
#include "token/chat.h"

enum { MAX_PARTS = 1024 };

static uint32_t hash_name(const char *name, uint64_t bytes) {
    uint32_t h = 2166136261u;
    for (uint64_t i = 0; i < bytes; i++) {
        h = (h ^ (uint8_t)name[i]) * 16777619u;
    }
    return h;
}

static int64_t find_tensor(const void *user, const char *name) {
    const struct ot_model *m = user;
    uint64_t bytes = strlen(name);
    uint32_t mask = m->tensor_index_size - 1;
    for (uint32_t i = hash_name(name, bytes) & mask;; i = (i + 1) & mask) {
        uint32_t t = m->tensor_index[i];
        if (t == UINT32_MAX) {
            return -1;
        }
        if (m->tensors[t].name.bytes == bytes && memcmp(m->tensors[t].name.data, name, bytes) == 0) {
            return t;
        }
    }
}

/* Maps and parses part `no`, whose path is given. */
static int open_part(struct ot_model *m, uint32_t no, const char *path, struct ot_error *err) {
    int rc = sys_file_open(&m->files[no], path, err);
    if (rc != OT_OK) {
        return rc;
    }
    m->n_files = no + 1;
    if ((rc = sys_map_open(&m->headers[no], &m->files[no], err)) != OT_OK) {
        return rc;
    }
    uint64_t cached = sys_file_cached_bytes(&m->files[no]);
    rc = gguf_parse(&m->parts[no], m->headers[no].data, m->headers[no].bytes, m->files[no].bytes,
                    path, err);
    if (sys_map_damaged(&m->headers[no])) {
        rc = error_set(err, OT_ERR_CHANGED, path, "the file shrank while its header was read");
    }
    if (rc == OT_OK) {
        m->file_bytes += m->files[no].bytes;
        m->header_bytes += m->parts[no].data_offset;
        uint64_t now = sys_file_cached_bytes(&m->files[no]);
        m->header_disk_bytes += now > cached ? now - cached : 0;
    }
    return rc;
}

static int grow_parts(struct ot_model *m, uint32_t count, struct ot_error *err) {
    struct sys_file *files = mem_calloc(count, sizeof *files);
    struct sys_map *headers = mem_calloc(count, sizeof *headers);
    struct gguf *parts = mem_calloc(count, sizeof *parts);
    if (files == NULL || headers == NULL || parts == NULL) {
        mem_free(files);
        mem_free(headers);
        mem_free(parts);
        return error_memory(err, count * (sizeof *files + sizeof *headers + sizeof *parts));
    }
    if (m->n_files > 0) {
        files[0] = m->files[0];
        headers[0] = m->headers[0];
        parts[0] = m->parts[0];
    }
    mem_free(m->files);
    mem_free(m->headers);
    mem_free(m->parts);
    m->files = files;
    m->headers = headers;
    m->parts = parts;
    return OT_OK;
}

static int open_parts(struct ot_model *m, struct ot_error *err) {
    int rc = grow_parts(m, 1, err);
    if (rc != OT_OK || (rc = open_part(m, 0, m->path, err)) != OT_OK) {
        return rc;
    }
    uint32_t no, count;
    if ((rc = gguf_split(&m->parts[0], m->path, &no, &count, err)) != OT_OK) {
        return rc;
    }
    if (no != 0) {
        return error_set(err, OT_ERR_FORMAT, m->path,
                         "this is part %u of a split model; name the first part (…-00001-of-…)",
                         no + 1);
    }
    if (count > MAX_PARTS) {
        return error_set(err, OT_ERR_FORMAT, m->path, "key split.count: %u parts, expected at most %d",
                         count, MAX_PARTS);
    }
    if (count <= 1) {
        return OT_OK;
    }
    if ((rc = grow_parts(m, count, err)) != OT_OK) {
        return rc;
    }
    for (uint32_t i = 1; i < count && rc == OT_OK; i++) {
        char *path;
        if ((rc = gguf_split_path(m->path, i, count, &path, err)) != OT_OK) {
            return rc;
        }
        uint32_t part_no, part_count;
        rc = open_part(m, i, path, err);
        if (rc == OT_OK &&
            (rc = gguf_split(&m->parts[i], path, &part_no, &part_count, err)) == OT_OK &&
            (part_no != i || part_count != count)) {
            rc = error_set(err, OT_ERR_FORMAT, path, "part %u of %u, expected part %u of %u",
                           part_no + 1, part_count, i + 1, count);
        }
        mem_free(path);
    }
    return rc;
}

/* Parts of one model agree on the number of its tensors; a part of another model may carry the right
 * part number by chance. */
static int check_split_tensors(const struct ot_model *m, struct ot_error *err) {
    static const char key[] = "split.tensors.count";
    uint32_t wanted = m->n_tensors;
    for (uint32_t i = 0; m->n_files > 1 && i < m->n_files; i++) {
        uint32_t n = 0;
        int rc = gguf_get_u32(&m->parts[i], m->files[i].path, key, wanted, 0, UINT32_MAX, &n, err);
        if (rc != OT_OK) {
            return rc;
        }
        wanted = i == 0 ? n : wanted;
        if (n != wanted) {
            return error_set(err, OT_ERR_FORMAT, m->files[i].path,
                             "key %s: %u, expected %u as in the first part", key, n, wanted);
        }
    }
    if (wanted != m->n_tensors) {
        return error_set(err, OT_ERR_FORMAT, m->path,
                         "key %s: %u, but the %u parts hold %u tensors together", key, wanted,
                         m->n_files, m->n_tensors);
    }
    return OT_OK;
}

/* One table of the tensors of all parts; a name in two parts is an error. */
static int join_tensors(struct ot_model *m, struct ot_error *err) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < m->n_files; i++) {
        total += m->parts[i].n_tensors;
    }
    if (total > UINT32_MAX / 4) {
        return error_set(err, OT_ERR_FORMAT, m->path, "%llu tensors are too many",
                         (unsigned long long)total);
    }
    uint32_t size = 16;
    while (size < 2 * total) {
        size *= 2;
    }
    m->tensors = mem_calloc(total, sizeof *m->tensors);
    m->tensor_index = mem_calloc(size, sizeof *m->tensor_index);
    if (m->tensors == NULL || m->tensor_index == NULL) {
        return error_memory(err, total * sizeof *m->tensors);
    }
    m->tensor_index_size = size;
    memset(m->tensor_index, 0xff, size * sizeof *m->tensor_index);
    for (uint32_t i = 0; i < m->n_files; i++) {
        for (uint64_t j = 0; j < m->parts[i].n_tensors; j++) {
            struct gguf_tensor *t = &m->tensors[m->n_tensors];
            *t = m->parts[i].tensors[j];
            t->file = i;
            uint32_t mask = size - 1, at = hash_name(t->name.data, t->name.bytes) & mask;
            for (; m->tensor_index[at] != UINT32_MAX; at = (at + 1) & mask) {
                const struct gguf_tensor *other = &m->tensors[m->tensor_index[at]];
                if (other->name.bytes == t->name.bytes &&
                    memcmp(other->name.data, t->name.data, t->name.bytes) == 0) {
                    return error_set(err, OT_ERR_FORMAT, m->files[i].path,
                                     "tensor %.*s is in part %u already",
                                     (int)min_u64(t->name.bytes, 64), t->name.data, other->file + 1);
                }
            }
            m->tensor_index[at] = m->n_tensors++;
            m->weight_bytes += t->bytes;
        }
    }
    return check_split_tensors(m, err);
}

/* NUL-terminated copies of the names; control characters become '?'. */
static int name_tensors(struct ot_model *m, struct ot_error *err) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        bytes += m->tensors[i].name.bytes + 1;
    }
    m->tensor_names = mem_calloc(m->n_tensors, sizeof *m->tensor_names);
    m->tensor_name_text = mem_calloc(bytes, 1);
    if (m->tensor_names == NULL || m->tensor_name_text == NULL) {
        return error_memory(err, bytes);
    }
    char *at = m->tensor_name_text;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        m->tensor_names[i] = at;
        for (uint64_t j = 0; j < m->tensors[i].name.bytes; j++) {
            uint8_t c = (uint8_t)m->tensors[i].name.data[j];
            *at++ = (char)(c < 0x20 || c == 0x7f ? '?' : c);
        }
        *at++ = '\0';
    }
    return OT_OK;
}

static int read_strings(struct ot_model *m, struct ot_error *err) {
    struct gguf_string name, chat;
    const struct gguf *g = &m->parts[0];
    int rc;
    if ((rc = gguf_get_string(g, m->path, "general.name", "", &name, err)) != 0 ||
        (rc = gguf_get_string(g, m->path, "tokenizer.chat_template", NULL, &chat, err)) != 0) {
        return rc;
    }
    m->name = mem_strndup(name.data, name.bytes);
    m->chat_template = chat.data != NULL ? mem_strndup(chat.data, chat.bytes) : NULL;
    if (m->name == NULL || (chat.data != NULL && m->chat_template == NULL)) {
        return error_memory(err, name.bytes + chat.bytes);
    }
    m->chat_format = m->chat_template != NULL ? chat_recognise(m->chat_template) : NULL;
    return OT_OK;
}

static int open_all(struct ot_model *m, struct ot_error *err) {
    int rc;
    if ((rc = open_parts(m, err)) != OT_OK || (rc = join_tensors(m, err)) != OT_OK ||
        (rc = name_tensors(m, err)) != OT_OK || (rc = read_strings(m, err)) != OT_OK ||
        (rc = model_vocab_open(&m->parts[0], m->path, &m->vocab, err)) != OT_OK) {
        return rc;
    }
    if (!m->vocab_only) {
        if (m->n_tensors == 0) {
            return error_set(err, OT_ERR_FORMAT, m->path,
                             "the file holds a vocabulary and no weights; only `tokenize` takes it");
        }
        struct bind_source source = {
            .tensors = m->tensors, .n_tensors = m->n_tensors, .find = find_tensor, .user = m,
            .path = m->path};
        if ((rc = hparams_read(&m->hp, &m->parts[0], m->path, vocab_size(m->vocab), err)) != OT_OK ||
            (rc = bind_model(&m->bind, &m->hp, &source, err)) != OT_OK) {
            return rc;
        }
    }
    for (uint32_t i = 0; i < m->n_files; i++) {
        if (sys_map_damaged(&m->headers[i])) {
            return error_set(err, OT_ERR_CHANGED, m->files[i].path,
                             "the file shrank while its header was read");
        }
    }
    return OT_OK;
}

int ot_model_open(const char *path, const struct ot_model_params *params, struct ot_model **out,
                  struct ot_error *err) {
    uint64_t start_ns = clock_ns();
    if (path == NULL || path[0] == '\0') {
        return error_set(err, OT_ERR_ARGUMENT, "model", "the path is empty");
    }
    struct ot_model *m = mem_calloc(1, sizeof *m);
    if (m == NULL) {
        return error_memory(err, sizeof *m);
    }
    sys_process_read(&m->at_start);
    m->vocab_only = params != NULL && params->vocab_only;
    m->path = mem_strdup(path);
    int rc = m->path != NULL ? open_all(m, err) : error_memory(err, strlen(path));
    if (rc != OT_OK) {
        ot_model_close(m);
        return rc;
    }
    m->open_ns = clock_ns() - start_ns;
    *out = m;
    return OT_OK;
}

void ot_model_close(struct ot_model *m) {
    if (m == NULL) {
        return;
    }
    bind_deinit(&m->bind);
    vocab_close(m->vocab);
    for (uint32_t i = 0; i < m->n_files; i++) {
        gguf_deinit(&m->parts[i]);
        sys_map_close(&m->headers[i]);
        sys_file_close(&m->files[i]);
    }
    mem_free(m->tensors);
    mem_free(m->tensor_names);
    mem_free(m->tensor_name_text);
    mem_free(m->tensor_index);
    mem_free(m->files);
    mem_free(m->headers);
    mem_free(m->parts);
    mem_free(m->chat_template);
    mem_free(m->name);
    mem_free(m->path);
    mem_free(m);
}
