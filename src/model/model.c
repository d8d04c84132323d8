/* model.c - opening a model: files, headers, vocabulary, hyperparameters, tensors bound to roles.
 */
#include "model/model.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "model/vocab_source.h"
#include "token/chat.h"

enum { MAX_PARTS = 1024, HEADER_STEP = 1 << 20, HEADER_STEPS_END = 16 << 20 };

/* The position in m->tensors of the tensor of that name in the first n_parts parts, or -1. Parts
 * are few, and each has its names in order. */
static int64_t find_in_parts(const struct ot_model *m, uint32_t n_parts, const char *name) {
    int64_t before = 0;
    for (uint32_t i = 0; i < n_parts; i++) {
        const struct gguf *part = &m->parts[i];
        const struct gguf_tensor *t = gguf_find_tensor(part, name);
        if (t != NULL) {
            return before + (t - part->tensors);
        }
        before += (int64_t)part->n_tensors;
    }
    return -1;
}

static int64_t find_tensor(const void *user, const char *name) {
    const struct ot_model *m = user;
    return find_in_parts(m, m->n_files, name);
}

/* Parses a header whose length is not known, bringing in twice as much at a time: a fault would
 * make the kernel read ahead as far as it pleases, 8 MB on some disks. */
static int parse_header(struct ot_model *m, uint32_t no, const char *path, struct ot_error *err) {
    const struct sys_map *map = &m->headers[no];
    uint64_t file_bytes = m->files[no].bytes, there = 0;
    for (uint64_t next = HEADER_STEP; next <= HEADER_STEPS_END && next < map->bytes; next *= 2) {
        sys_file_will_need(&m->files[no], there, next - there);
        there = next;
        int rc = gguf_parse(&m->parts[no], map->data, there, file_bytes, path, err);
        if (rc != OT_ERR_FORMAT) {
            return rc;
        }
    }
    return gguf_parse(&m->parts[no], map->data, map->bytes, file_bytes, path, err);
}

/* What grows by the bytes of a file that come into the page cache. */
static uint64_t brought_bytes(const struct sys_file *file) {
    struct sys_reads reads;
    if (!file->cache_unknown) {
        return sys_file_cached_bytes(file);
    }
    sys_thread_reads(&reads);
    return reads.read_bytes;
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
    uint64_t before = brought_bytes(&m->files[no]);
    rc = parse_header(m, no, path, err);
    if (sys_map_damaged(&m->headers[no])) {
        rc = sys_map_fault(&m->files[no], err);
    }
    if (rc == OT_OK) {
        /* What the vocabulary reads later is brought in now, where it is counted; then it does not
         * make the kernel read ahead once more, which may be 8 MB of weights. */
        sys_map_random(&m->headers[no]);
        sys_file_will_need(&m->files[no], 0, m->parts[no].data_offset);
        m->file_bytes += m->files[no].bytes;
        m->header_bytes += m->parts[no].data_offset;
        uint64_t now = brought_bytes(&m->files[no]);
        uint64_t read = now > before ? now - before : 0;
        residency_account(NULL, read);
        m->header_disk_bytes += read;
        m->files[no].ahead_offset = m->parts[no].data_offset;
        m->files[no].ahead_bytes = read - min_u64(read, m->parts[no].data_offset);
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
        return error_set(err, OT_ERR_FORMAT, m->path,
                         "key split.count: %u parts, expected at most %d", count, MAX_PARTS);
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

/* Parts of one model agree on the number of its tensors; a part of another model may carry the
 * right part number by chance. */
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

/* One table of the tensors of all parts. */
static int join_tensors(struct ot_model *m, struct ot_error *err) {
    uint64_t total = 0, bytes = 0;
    for (uint32_t i = 0; i < m->n_files; i++) {
        total += m->parts[i].n_tensors;
        for (uint64_t j = 0; j < m->parts[i].n_tensors; j++) {
            bytes += m->parts[i].tensors[j].name.bytes + 1;
        }
    }
    m->tensors = mem_calloc(total, sizeof *m->tensors);
    m->tensor_names = mem_calloc(total, sizeof *m->tensor_names);
    m->tensor_name_text = mem_calloc(bytes, 1);
    if (m->tensors == NULL || m->tensor_names == NULL || m->tensor_name_text == NULL) {
        return error_memory(err, total * (sizeof *m->tensors + sizeof *m->tensor_names) + bytes);
    }
    char *at = m->tensor_name_text;
    for (uint32_t i = 0; i < m->n_files; i++) {
        for (uint64_t j = 0; j < m->parts[i].n_tensors; j++) {
            struct gguf_tensor *t = &m->tensors[m->n_tensors];
            *t = m->parts[i].tensors[j];
            t->file = i;
            m->weight_bytes += t->bytes;
            m->tensor_names[m->n_tensors++] = memcpy(at, t->name.data, t->name.bytes);
            at += t->name.bytes + 1;
        }
    }
    return OT_OK;
}

/* Within a part, names are unique already. */
static int check_names_unique(const struct ot_model *m, struct ot_error *err) {
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        uint32_t part = m->tensors[i].file;
        int64_t other = find_in_parts(m, part, m->tensor_names[i]);
        if (other >= 0) {
            return error_set(err, OT_ERR_FORMAT, m->files[part].path,
                             "tensor %s is in part %u already, expected once", m->tensor_names[i],
                             m->tensors[other].file + 1);
        }
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
    if (chat.bytes > CHAT_TEMPLATE_BYTES_MAX) {
        return error_set(err, OT_ERR_FORMAT, m->path,
                         "key \"tokenizer.chat_template\": %llu bytes, at most %u are allowed",
                         (unsigned long long)chat.bytes, CHAT_TEMPLATE_BYTES_MAX);
    }
    m->name = mem_strndup(name.data, name.bytes);
    m->chat_template = chat.data != NULL ? mem_strndup(chat.data, chat.bytes) : NULL;
    if (m->name == NULL || (chat.data != NULL && m->chat_template == NULL)) {
        return error_memory(err, name.bytes + chat.bytes);
    }
    m->chat_format = m->chat_template != NULL ? chat_recognise(m->chat_template) : NULL;
    return OT_OK;
}

static int bind_weights(struct ot_model *m, struct ot_error *err) {
    if (m->n_tensors == 0) {
        return error_set(err, OT_ERR_FORMAT, m->path,
                         "the file holds a vocabulary and no weights; only `tokenize` takes it");
    }
    struct bind_source source = {.tensors = m->tensors,
                                 .n_tensors = m->n_tensors,
                                 .find = find_tensor,
                                 .user = m,
                                 .path = m->path};
    int rc = hparams_read(&m->hp, &m->parts[0], m->path, vocab_size(m->vocab), err);
    return rc != OT_OK ? rc : bind_model(&m->bind, &m->hp, &source, err);
}

static int open_all(struct ot_model *m, struct ot_error *err) {
    int rc;
    if ((rc = open_parts(m, err)) == OT_OK && (rc = join_tensors(m, err)) == OT_OK &&
        (rc = check_names_unique(m, err)) == OT_OK && (rc = check_split_tensors(m, err)) == OT_OK &&
        (rc = read_strings(m, err)) == OT_OK &&
        (rc = model_vocab_open(&m->parts[0], m->path, &m->vocab, err)) == OT_OK && !m->vocab_only) {
        rc = bind_weights(m, err);
    }
    /* Where a page was lost, whatever was found wrong after that is not the file's fault. */
    for (uint32_t i = 0; i < m->n_files; i++) {
        if (m->headers[i].data != NULL && sys_map_damaged(&m->headers[i])) {
            return sys_map_fault(&m->files[i], err);
        }
    }
    return rc;
}

int ot_model_open(const char *path, const struct ot_model_params *params, struct ot_model **out,
                  struct ot_error *err) {
    if (path == NULL || path[0] == '\0') {
        return error_set(err, OT_ERR_ARGUMENT, "model", "the path is empty");
    }
    struct ot_model *m = mem_calloc(1, sizeof *m);
    if (m == NULL) {
        return error_memory(err, sizeof *m);
    }
    struct sys_process before, after;
    sys_process_read(&before);
    const uint64_t accounted = residency_accounted();
    m->vocab_only = params != NULL && params->vocab_only;
    m->path = mem_strdup(path);
    m->header_accounted = mem_calloc(1, sizeof *m->header_accounted);
    int rc = m->path != NULL && m->header_accounted != NULL ? open_all(m, err)
                                                            : error_memory(err, strlen(path));
    if (rc != OT_OK) {
        ot_model_close(m);
        return rc;
    }
    sys_process_read(&after);
    const uint64_t read = after.read_bytes - before.read_bytes;
    const uint64_t others = residency_accounted() - accounted - m->header_disk_bytes;
    m->opening_read_bytes = read - min_u64(others, read);
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
    mem_free(m->files);
    mem_free(m->headers);
    mem_free(m->parts);
    mem_free(m->header_accounted);
    mem_free(m->chat_template);
    mem_free(m->name);
    mem_free(m->path);
    mem_free(m);
}
