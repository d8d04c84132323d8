/* inspect.c - `onetrip inspect`: what a model file holds, and what one token needs of it. */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "cli/output.h"
#include "cli/session.h"

static const char unused[] = "(unused)"; /* the role of a tensor that the schedule does not use */

/* Bytes of the tensors of one type. */
struct type_sum {
    uint32_t n_tensors;
    uint64_t bytes, bytes_per_token;
};

static uint64_t sum_types(const struct session *s, struct type_sum sums[OT_DTYPE_MAX]) {
    uint64_t per_token = 0;
    memset(sums, 0, OT_DTYPE_MAX * sizeof *sums);
    for (uint32_t i = 0; i < s->info.n_tensors; i++) {
        struct ot_tensor_info t;
        ot_model_get_tensor(s->model, i, &t);
        per_token += t.bytes_per_token;
        if (t.dtype < OT_DTYPE_MAX) {
            sums[t.dtype].n_tensors++;
            sums[t.dtype].bytes += t.bytes;
            sums[t.dtype].bytes_per_token += t.bytes_per_token;
        }
    }
    return per_token;
}

/* Tensors that the schedule uses for one thing. */
enum { MAX_ROLES = 64 };
struct role_sum {
    const char *role; /* of the library; "": none */
    uint32_t n_tensors;
    uint64_t bytes, bytes_per_token;
};

/* In the order of the file; how many there are. */
static size_t sum_roles(const struct session *s, struct role_sum roles[MAX_ROLES]) {
    size_t n_roles = 0;
    for (uint32_t i = 0; i < s->info.n_tensors; i++) {
        struct ot_tensor_info t;
        ot_model_get_tensor(s->model, i, &t);
        size_t r = 0;
        while (r < n_roles && strcmp(roles[r].role, t.role) != 0) {
            r++;
        }
        if (r == MAX_ROLES) {
            continue;
        }
        if (r == n_roles) {
            roles[n_roles++] = (struct role_sum){.role = t.role};
        }
        roles[r].n_tensors++;
        roles[r].bytes += t.bytes;
        roles[r].bytes_per_token += t.bytes_per_token;
    }
    return n_roles;
}

/* ---- text ---- */

static void print_model(const struct session *s, uint64_t per_token, FILE *out) {
    const struct ot_model_info *m = &s->info;
    char a[24], b[24];
    fprintf(out, "%-16s ", "file");
    print_safe(m->path, 0, out);
    fprintf(out, "\n%-16s ", "name");
    print_safe(m->name[0] != '\0' ? m->name : "-", 0, out);
    fputc('\n', out);
    fprintf(out, "%-16s %s, mostly %s\n", "architecture", m->architecture, m->quantisation);
    fprintf(out, "%-16s %s in %" PRIu32 " file%s; weights %s in %" PRIu32 " tensors\n", "size",
            human_bytes(a, (double)m->file_bytes), m->n_files, m->n_files == 1 ? "" : "s",
            human_bytes(b, (double)m->weight_bytes), m->n_tensors);
    bool billions = m->n_params >= 1000000000u;
    fprintf(out, "%-16s %.1f %s (%.2f bits each)\n", "parameters",
            (double)m->n_params * (billions ? 1e-9 : 1e-6), billions ? "billion" : "million",
            m->n_params != 0 ? 8.0 * (double)m->weight_bytes / (double)m->n_params : 0.0);
    fprintf(out, "%-16s %" PRIu32 " layers, width %" PRIu32 ", feed-forward %" PRIu32 "\n", "shape",
            m->n_layers, m->n_embd, m->n_ff);
    fprintf(out, "%-16s %" PRIu32 " heads of %" PRIu32 ", %" PRIu32 " for keys and values\n",
            "attention", m->n_heads, m->head_dim, m->n_kv_heads);
    if (m->n_experts != 0) {
        fprintf(out, "%-16s %" PRIu32 ", %" PRIu32 " used for a token\n", "experts", m->n_experts,
                m->n_experts_used);
    }
    fprintf(out, "%-16s %" PRIu32 " tokens; made for a context of %" PRIu32 "\n", "vocabulary",
            m->n_vocab, m->n_ctx_train);
    fprintf(out, "%-16s %s\n", "chat format",
            m->chat_format[0] != '\0' ? m->chat_format : "none known");
    fprintf(
        out,
        "%-16s %s of weights, %.1f %% of the file;\n%-16s and %s of KV for each token before it\n",
        "one token needs", human_bytes(a, (double)per_token),
        m->file_bytes != 0 ? 100.0 * (double)per_token / (double)m->file_bytes : 0.0, "",
        human_bytes(b, (double)m->kv_bytes_per_token));
}

static void print_types(const struct type_sum sums[OT_DTYPE_MAX], FILE *out) {
    fprintf(out, "\n%-28s %8s %12s %14s\n", "type", "tensors", "bytes", "bytes a token");
    for (uint32_t t = 0; t < OT_DTYPE_MAX; t++) {
        if (sums[t].n_tensors != 0) {
            char a[24], b[24];
            fprintf(out, "%-28s %8" PRIu32 " %12s %14s\n", ot_dtype_name(t), sums[t].n_tensors,
                    human_bytes(a, (double)sums[t].bytes),
                    human_bytes(b, (double)sums[t].bytes_per_token));
        }
    }
}

/* Where a token's bytes are: by what the schedule uses the tensors for. */
static void print_roles(const struct session *s, FILE *out) {
    struct role_sum roles[MAX_ROLES];
    size_t n_roles = sum_roles(s, roles);
    fprintf(out, "\n%-28s %8s %12s %14s\n", "role", "tensors", "bytes", "bytes a token");
    for (size_t r = 0; r < n_roles; r++) {
        char a[24], b[24];
        const char *role = roles[r].role[0] != '\0' ? roles[r].role : unused;
        const char *end = strstr(role, ".weight"); /* which nearly all have: left out */
        fprintf(out, "%-28.*s %8" PRIu32 " %12s %14s\n", (int)(end != NULL ? end - role : 28), role,
                roles[r].n_tensors, human_bytes(a, (double)roles[r].bytes),
                human_bytes(b, (double)roles[r].bytes_per_token));
    }
}

/* As wide as the longest name, within limits: a hostile file's may have 1024 bytes. */
static int name_width(const struct session *s) {
    size_t width = 24;
    for (uint32_t i = 0; i < s->info.n_tensors; i++) {
        struct ot_tensor_info t;
        ot_model_get_tensor(s->model, i, &t);
        size_t n = strlen(t.name);
        width = n > width && n <= 40 ? n : width;
    }
    return (int)width;
}

/* The role follows where the name does not say it. */
static void print_tensors(const struct session *s, FILE *out) {
    int width = name_width(s);
    fprintf(out, "\n%-*s %-6s %-14s %8s %13s\n", width, "tensor", "type", "shape", "bytes",
            "bytes a token");
    for (uint32_t i = 0; i < s->info.n_tensors; i++) {
        struct ot_tensor_info t;
        char shape[96] = "", a[24], b[24];
        ot_model_get_tensor(s->model, i, &t);
        for (uint32_t d = t.n_dims; d-- > 0;) {
            size_t used = strlen(shape);
            snprintf(shape + used, sizeof shape - used, "%s%" PRIu64, used != 0 ? " x " : "",
                     t.dims[d]);
        }
        print_safe(t.name, width, out);
        const char *role = t.role[0] == '\0'                ? unused
                           : strstr(t.name, t.role) == NULL ? t.role
                                                            : "";
        fprintf(out, " %-6s %-14s %8s %13s%s%s\n", ot_dtype_name(t.dtype), shape,
                human_bytes(a, (double)t.bytes), human_bytes(b, (double)t.bytes_per_token),
                role[0] != '\0' ? "  " : "", role);
    }
}

static int print_text(const struct session *s, uint64_t per_token,
                      const struct type_sum sums[OT_DTYPE_MAX]) {
    struct collected text;
    if (collected_open(&text) == NULL) {
        return EXIT_FAILED;
    }
    print_model(s, per_token, text.file);
    print_types(sums, text.file);
    print_roles(s, text.file);
    if (s->settings->tensors) {
        print_tensors(s, text.file);
    }
    return collected_close(&text, true);
}

/* ---- JSON ---- */

static json_t *text_value(const char *text) {
    json_t *value = json_string(text);
    if (value == NULL) {
        value = json_string(text); /* the first time it may have been memory */
    }
    return value != NULL ? value : json_string("(not UTF-8)");
}

static json_t *number(uint64_t value) {
    return json_integer((json_int_t)value);
}

static json_t *tensor_json(const struct ot_tensor_info *t) {
    json_t *shape = json_array();
    bool failed = false;
    for (uint32_t d = t->n_dims; d-- > 0;) {
        failed |= json_array_append_new(shape, number(t->dims[d])) != 0;
    }
    if (failed) {
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:s}", "name", text_value(t->name),
                     "type", ot_dtype_name(t->dtype), "shape", shape, "bytes", number(t->bytes),
                     "bytes_per_token", number(t->bytes_per_token), "file", number(t->file),
                     "offset", number(t->offset), "role", t->role);
}

static json_t *sum_json(const char *key, const char *name, uint32_t n_tensors, uint64_t bytes,
                        uint64_t bytes_per_token) {
    return json_pack("{s:s, s:o, s:o, s:o}", key, name, "tensors", number(n_tensors), "bytes",
                     number(bytes), "bytes_per_token", number(bytes_per_token));
}

static json_t *model_json(const struct session *s, uint64_t per_token,
                          const struct type_sum sums[OT_DTYPE_MAX]) {
    const struct ot_model_info *m = &s->info;
    json_t *root = json_pack("{s:o, s:o, s:o, s:s, s:s}", "path", text_value(m->path), "name",
                             text_value(m->name), "architecture", text_value(m->architecture),
                             "quantisation", m->quantisation, "chat_format", m->chat_format);
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"files", m->n_files},
        {"file_bytes", m->file_bytes},
        {"weight_bytes", m->weight_bytes},
        {"parameters", m->n_params},
        {"bytes_per_token", per_token},
        {"sweep_bytes", m->sweep_bytes},
        {"kv_bytes_per_token", m->kv_bytes_per_token},
        {"n_tensors", m->n_tensors},
        {"n_vocab", m->n_vocab},
        {"n_layers", m->n_layers},
        {"n_ctx_train", m->n_ctx_train},
        {"n_embd", m->n_embd},
        {"n_ff", m->n_ff},
        {"n_heads", m->n_heads},
        {"n_kv_heads", m->n_kv_heads},
        {"head_dim", m->head_dim},
        {"n_experts", m->n_experts},
        {"n_experts_used", m->n_experts_used},
    };
    bool failed = false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        failed |= json_object_set_new(root, numbers[i].key, number(numbers[i].value)) != 0;
    }
    json_t *types = json_array(), *roles = json_array();
    for (uint32_t t = 0; t < OT_DTYPE_MAX; t++) {
        if (sums[t].n_tensors != 0) {
            json_t *sum = sum_json("type", ot_dtype_name(t), sums[t].n_tensors, sums[t].bytes,
                                   sums[t].bytes_per_token);
            failed |= json_array_append_new(types, sum) != 0;
        }
    }
    failed |= json_object_set_new(root, "types", types) != 0;
    struct role_sum by_role[MAX_ROLES];
    size_t n_roles = sum_roles(s, by_role);
    for (size_t r = 0; r < n_roles; r++) {
        json_t *sum = sum_json("role", by_role[r].role, by_role[r].n_tensors, by_role[r].bytes,
                               by_role[r].bytes_per_token);
        failed |= json_array_append_new(roles, sum) != 0;
    }
    failed |= json_object_set_new(root, "roles", roles) != 0;
    if (failed) {
        json_decref(root);
        return NULL;
    }
    return root;
}

static int print_json(const struct session *s, uint64_t per_token,
                      const struct type_sum sums[OT_DTYPE_MAX]) {
    json_t *root = model_json(s, per_token, sums);
    if (s->settings->tensors) {
        json_t *tensors = json_array();
        bool failed = false;
        for (uint32_t i = 0; i < s->info.n_tensors; i++) {
            struct ot_tensor_info t;
            ot_model_get_tensor(s->model, i, &t);
            failed |= json_array_append_new(tensors, tensor_json(&t)) != 0;
        }
        failed |= json_object_set_new(root, "tensors", tensors) != 0;
        if (failed) {
            json_decref(root);
            return complain_memory();
        }
    }
    return output_json(root);
}

int command_inspect(const struct settings *set) {
    struct session s;
    struct type_sum sums[OT_DTYPE_MAX];
    int rc = session_open_model(&s, set, false);
    if (rc == 0) {
        uint64_t per_token = sum_types(&s, sums);
        rc = set->json ? print_json(&s, per_token, sums) : print_text(&s, per_token, sums);
    }
    session_close(&s);
    return rc;
}
