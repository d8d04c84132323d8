/* tokenize.c - `onetrip tokenize`: text to ids, and with --decode ids to text. */
#include <stdlib.h>
#include <unistd.h>

#include "cli/input.h"
#include "cli/output.h"
#include "cli/session.h"

static int print_ids(const struct session *s, const char *text, size_t bytes) {
    const struct settings *set = s->settings;
    uint32_t flags =
        (set->no_bos ? 0u : OT_TOK_ADD_SPECIAL) | (set->no_special ? 0u : OT_TOK_PARSE_SPECIAL);
    uint32_t *ids = NULL;
    size_t n = 0;
    struct ot_error err;
    if (ot_tokenize(s->model, text, bytes, flags, &ids, &n, &err) != 0) {
        return complain_error(&err);
    }
    struct collected line;
    FILE *out = collected_open(&line);
    if (out == NULL) {
        ot_free(ids);
        return EXIT_FAILED;
    }
    const char *between = set->json ? ", " : " ";
    fprintf(out, "%s", set->json ? "[" : "");
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%s%u", i != 0 ? between : "", ids[i]);
    }
    fprintf(out, "%s\n", set->json ? "]" : "");
    ot_free(ids);
    return collected_close(&line, true);
}

/* A JSON string of any bytes: what is no character becomes U+FFFD. */
static int print_json_text(const char *text, size_t bytes) {
    struct collected string;
    FILE *out = collected_open(&string);
    if (out == NULL) {
        return EXIT_FAILED;
    }
    fputc('"', out);
    for (size_t i = 0; i < bytes;) {
        unsigned char c = (unsigned char)text[i];
        size_t n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
        bool whole = i + n <= bytes && ot_utf8_complete(text + i, n) == n;
        for (size_t k = 1; whole && k < n; k++) {
            whole =
                ((unsigned char)text[i + k] & 0xc0) == 0x80 && ot_utf8_complete(text + i, k) == 0;
        }
        if (n > 1 && !whole) {
            fprintf(out, "\\ufffd");
            i++;
        } else if (c == '"' || c == '\\') {
            fprintf(out, "\\%c", c);
            i++;
        } else if (c < 0x20) {
            fprintf(out, "\\u%04x", c);
            i++;
        } else {
            fwrite(text + i, 1, n, out);
            i += n;
        }
    }
    fprintf(out, "\"\n");
    return collected_close(&string, true);
}

static int print_text(const struct session *s, const char *text, size_t bytes) {
    uint32_t *ids = NULL;
    size_t n = 0, out_bytes = 0;
    char *out = NULL;
    int rc = input_ids("--decode", text, bytes, s->info.n_vocab, true, &ids, &n);
    if (rc != 0) {
        return rc;
    }
    struct ot_error err;
    if (ot_detokenize(s->model, ids, n, !s->settings->no_special, &out, &out_bytes, &err) != 0) {
        rc = complain_error(&err);
    } else if (s->settings->json) {
        rc = print_json_text(out, out_bytes);
    } else {
        rc = output_write(out, out_bytes);
        if (rc == 0 && isatty(STDOUT_FILENO)) {
            rc = output_write("\n", 1);
        }
    }
    ot_free(out);
    free(ids);
    return rc;
}

int command_tokenize(const struct settings *set) {
    struct session s;
    char *text = NULL;
    size_t bytes = 0;
    int rc = session_open_model(&s, set, true);
    if (rc == 0) {
        rc = set->decode ? input_read(set, set->prompt, set->file, &text, &bytes)
                         : input_read_prompt(set, &text, &bytes);
    }
    if (rc == 0) {
        rc = set->decode ? print_text(&s, text, bytes) : print_ids(&s, text, bytes);
    }
    free(text);
    session_close(&s);
    return rc;
}
