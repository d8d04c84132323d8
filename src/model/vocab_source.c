/* vocab_source.c - from a GGUF file's tokenizer keys to a vocabulary. */
#include "model/vocab_source.h"

#include <ctype.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

#define KEY(name) "tokenizer.ggml." name

/* The arrays that struct vocab_source borrows; all owned, until vocab_open has returned. */
struct arrays {
    char *model, *pre;
    struct vocab_string *tokens, *merges;
    int32_t *types;
    float *scores;
};

struct reader {
    const struct gguf *g;
    const char *path;
    struct ot_error *err;
};

/* An array of items for which ok says yes; *out NULL where the key is absent. */
static int find_array(const struct reader *r, const char *key, bool (*ok)(enum gguf_type),
                      const char *expected, const struct gguf_kv **out) {
    *out = gguf_find(r->g, key);
    if (*out == NULL) {
        return 0;
    }
    if ((*out)->type != GGUF_ARRAY || !ok((*out)->item_type)) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "key \"%s\": not an array of %s", key,
                         expected);
    }
    if ((*out)->count > UINT32_MAX) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "key \"%s\": %llu items are too many", key,
                         (unsigned long long)(*out)->count);
    }
    return 0;
}

static bool is_string(enum gguf_type type) {
    return type == GGUF_STRING;
}

static bool is_integer(enum gguf_type type) {
    return type != GGUF_STRING && type != GGUF_ARRAY && type != GGUF_F32 && type != GGUF_F64 &&
           type != GGUF_BOOL;
}

static bool is_number(enum gguf_type type) {
    return is_integer(type) || type == GGUF_F32 || type == GGUF_F64;
}

static int read_strings(const struct reader *r, const char *key, struct vocab_string **out,
                        uint32_t *n) {
    const struct gguf_kv *kv;
    struct gguf_strings it;
    struct gguf_string s;
    int rc = find_array(r, key, is_string, "strings", &kv);
    if (rc != 0 || kv == NULL) {
        return rc;
    }
    *out = mem_calloc(kv->count, sizeof **out);
    if (*out == NULL) {
        return error_memory(r->err, kv->count * sizeof **out);
    }
    gguf_strings_init(&it, kv);
    while (gguf_strings_next(&it, &s)) {
        (*out)[(*n)++] = (struct vocab_string){s.data, s.bytes};
    }
    return 0;
}

static int check_length(const struct reader *r, const char *key, const struct gguf_kv *kv,
                        uint32_t n_tokens) {
    if (kv == NULL || kv->count == n_tokens) {
        return 0;
    }
    return error_set(r->err, OT_ERR_FORMAT, r->path,
                     "key \"%s\": %llu items, expected %u, one a token", key,
                     (unsigned long long)kv->count, n_tokens);
}

static int read_types(const struct reader *r, uint32_t n_tokens, int32_t **out) {
    const struct gguf_kv *kv;
    int rc = find_array(r, KEY("token_type"), is_integer, "integers", &kv);
    rc = rc != 0 ? rc : check_length(r, KEY("token_type"), kv, n_tokens);
    if (rc != 0 || kv == NULL) {
        return rc;
    }
    *out = mem_calloc(n_tokens, sizeof **out);
    if (*out == NULL) {
        return error_memory(r->err, n_tokens * sizeof **out);
    }
    for (uint32_t i = 0; i < n_tokens; i++) {
        uint64_t type = gguf_item_u64(kv, i);
        (*out)[i] = type <= INT32_MAX ? (int32_t)type : INT32_MAX; /* vocab_open refuses it */
    }
    return 0;
}

static int read_scores(const struct reader *r, uint32_t n_tokens, float **out) {
    const struct gguf_kv *kv;
    int rc = find_array(r, KEY("scores"), is_number, "numbers", &kv);
    rc = rc != 0 ? rc : check_length(r, KEY("scores"), kv, n_tokens);
    if (rc != 0 || kv == NULL) {
        return rc;
    }
    *out = mem_calloc(n_tokens, sizeof **out);
    if (*out == NULL) {
        return error_memory(r->err, n_tokens * sizeof **out);
    }
    for (uint32_t i = 0; i < n_tokens; i++) {
        (*out)[i] = gguf_item_f32(kv, i);
    }
    return 0;
}

/* *out stays NULL where the key is absent. */
static int read_name(const struct reader *r, const char *key, char **out) {
    struct gguf_string s;
    int rc = gguf_get_string(r->g, r->path, key, NULL, &s, r->err);
    if (rc != 0 || s.data == NULL) {
        return rc;
    }
    if (s.bytes == 0 || memchr(s.data, '\0', s.bytes) != NULL) {
        return error_set(r->err, OT_ERR_FORMAT, r->path, "key \"%s\": not a name", key);
    }
    *out = mem_strndup(s.data, s.bytes);
    return *out != NULL ? 0 : error_memory(r->err, s.bytes);
}

static int read_ids(const struct reader *r, struct vocab_source *s) {
    const struct {
        const char *key;
        int64_t *out;
    } ids[] = {{KEY("bos_token_id"), &s->bos},         {KEY("eos_token_id"), &s->eos},
               {KEY("unknown_token_id"), &s->unk},     {KEY("eot_token_id"), &s->eot},
               {KEY("eom_token_id"), &s->eom},         {KEY("fim_pad_token_id"), &s->fim_pad},
               {KEY("fim_rep_token_id"), &s->fim_rep}, {KEY("fim_sep_token_id"), &s->fim_sep}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        *ids[i].out = -1;
        uint32_t id;
        int rc = gguf_get_u32(r->g, r->path, ids[i].key, 0, 0, s->n_tokens - 1, &id, r->err);
        if (rc != 0) {
            return rc;
        }
        if (gguf_find(r->g, ids[i].key) != NULL) {
            *ids[i].out = id;
        }
    }
    return 0;
}

/* Also ids that nothing here uses (padding, separators) are those of tokens. */
static int check_ids(const struct reader *r, uint32_t n_tokens) {
    static const char prefix[] = KEY(""), suffix[] = "_token_id";
    uint64_t prefix_bytes = sizeof prefix - 1, suffix_bytes = sizeof suffix - 1;
    for (uint64_t i = 0; i < r->g->n_kv; i++) {
        struct gguf_string key = r->g->kv[i].key;
        char name[GGUF_MAX_NAME_BYTES + 1];
        if (key.bytes < prefix_bytes + suffix_bytes ||
            memcmp(key.data, prefix, prefix_bytes) != 0 ||
            memcmp(key.data + key.bytes - suffix_bytes, suffix, suffix_bytes) != 0) {
            continue;
        }
        memcpy(name, key.data, key.bytes);
        name[key.bytes] = '\0';
        uint32_t id;
        int rc = gguf_get_u32(r->g, r->path, name, 0, 0, n_tokens - 1, &id, r->err);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int read_flags(const struct reader *r, struct vocab_source *s) {
    const struct {
        const char *key;
        int *out;
    } flags[] = {{KEY("add_bos_token"), &s->add_bos},
                 {KEY("add_eos_token"), &s->add_eos},
                 {KEY("add_space_prefix"), &s->add_space_prefix}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool value;
        int rc = gguf_get_bool(r->g, r->path, flags[i].key, false, &value, r->err);
        if (rc != 0) {
            return rc;
        }
        *flags[i].out = gguf_find(r->g, flags[i].key) != NULL ? value : -1;
    }
    return 0;
}

/* Phi-3's tokenizer drops white space after special tokens. Files do not say so: the model's name
 * is what there is to tell it by. */
static int read_habit(const struct reader *r, struct vocab_source *s) {
    struct gguf_string name;
    int rc = gguf_get_string(r->g, r->path, "general.name", "", &name, r->err);
    for (uint64_t i = 0; rc == 0 && i + 4 <= name.bytes; i++) {
        const char *p = name.data + i;
        if (tolower((unsigned char)p[0]) == 'p' && tolower((unsigned char)p[1]) == 'h' &&
            tolower((unsigned char)p[2]) == 'i' &&
            (p[3] == '3' || (p[3] == '-' && i + 5 <= name.bytes && p[4] == '3'))) {
            s->strip_after_special = true;
        }
    }
    return rc;
}

static int read_all(const struct reader *r, struct arrays *a, struct vocab_source *s) {
    int rc;
    if ((rc = read_name(r, KEY("model"), &a->model)) != 0 ||
        (rc = read_name(r, KEY("pre"), &a->pre)) != 0 ||
        (rc = read_strings(r, KEY("tokens"), &a->tokens, &s->n_tokens)) != 0 ||
        (rc = read_strings(r, KEY("merges"), &a->merges, &s->n_merges)) != 0) {
        return rc;
    }
    if (a->model == NULL || s->n_tokens == 0) {
        return error_set(r->err, OT_ERR_FORMAT, r->path,
                         "key \"%s\": not found or empty, the file has no tokenizer",
                         a->model == NULL ? KEY("model") : KEY("tokens"));
    }
    if ((rc = read_types(r, s->n_tokens, &a->types)) != 0 ||
        (rc = read_scores(r, s->n_tokens, &a->scores)) != 0 ||
        (rc = check_ids(r, s->n_tokens)) != 0 || (rc = read_ids(r, s)) != 0 ||
        (rc = read_flags(r, s)) != 0 || (rc = read_habit(r, s)) != 0) {
        return rc;
    }
    s->path = r->path;
    s->model = a->model;
    s->pre = a->pre;
    s->tokens = a->tokens;
    s->merges = a->merges;
    s->types = a->types;
    s->scores = a->scores;
    return 0;
}

int model_vocab_open(const struct gguf *g, const char *path, struct vocab **out,
                     struct ot_error *err) {
    struct reader r = {g, path, err};
    struct arrays a = {0};
    struct vocab_source source = {0};
    int rc = read_all(&r, &a, &source);
    if (rc == 0) {
        rc = vocab_open(&source, out, err);
    }
    mem_free(a.model);
    mem_free(a.pre);
    mem_free(a.tokens);
    mem_free(a.merges);
    mem_free(a.types);
    mem_free(a.scores);
    return rc;
}
