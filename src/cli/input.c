/* input.c - texts and token ids from the command line, files and standard input. */
#include "cli/input.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/stop.h"

/* Finding the tokens of a text takes up to 36 bytes for each of its own. */
enum { LEAST_KIB = 64, MOST_MIB = 1024, BUDGET_SHARE = 64 };

size_t input_most_bytes(const struct settings *set) {
    uint64_t budget = set->ram.bytes != 0 ? set->ram.bytes : ot_memory_bytes();
    uint64_t least = (uint64_t)LEAST_KIB << 10, most = (uint64_t)MOST_MIB << 20;
    uint64_t share = budget / BUDGET_SHARE;
    return (size_t)(share < least ? least : share > most ? most : share);
}

int input_too_long(const char *name, size_t most) {
    complain("%s: longer than %.1f MB, a %dth of the memory budget", name, (double)most * 1e-6,
             (int)BUDGET_SHARE);
    return EXIT_FAILED;
}

static int fail(const char *name, int number) {
    if (number == EINTR && stop_flag != 0) {
        return EXIT_INTERRUPTED;
    }
    complain("%s: %s", name, strerror(number));
    return EXIT_FAILED;
}

static int read_all(int fd, const char *name, size_t most, char **text, size_t *bytes) {
    size_t used = 0, capacity = 1 << 16;
    char *data = malloc(capacity);
    while (data != NULL) {
        ssize_t n = read(fd, data + used, capacity - used - 1);
        if (n < 0 && errno == EINTR && stop_flag == 0) {
            continue;
        }
        if (n < 0) {
            int number = errno;
            free(data);
            return fail(name, number);
        }
        if (n == 0) {
            data[used] = '\0';
            *text = data;
            *bytes = used;
            return 0;
        }
        used += (size_t)n;
        if (used > most) {
            free(data);
            return input_too_long(name, most);
        }
        if (capacity - used < 2) {
            capacity *= 2;
            char *moved = realloc(data, capacity);
            if (moved == NULL) {
                free(data);
            }
            data = moved;
        }
    }
    return complain_memory();
}

int input_read(const struct settings *set, const char *prompt, const char *file, char **text,
               size_t *bytes) {
    size_t most = input_most_bytes(set);
    if (prompt != NULL && file != NULL) {
        complain("-p and -f were given: one of them");
        return EXIT_USAGE;
    }
    if (prompt != NULL) {
        *bytes = strlen(prompt);
        *text = strdup(prompt);
        return *text != NULL ? 0 : complain_memory();
    }
    if (stop_flag != 0) { /* it would wait all the same */
        return EXIT_INTERRUPTED;
    }
    if (file == NULL || strcmp(file, "-") == 0) {
        return read_all(STDIN_FILENO, "standard input", most, text, bytes);
    }
    if (file[0] == '\0') {
        complain("the name of the file to read is empty");
        return EXIT_USAGE;
    }
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fail(file, errno);
    }
    struct stat st;
    int rc;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        complain("%s: is a directory, expected a file", file);
        rc = EXIT_FAILED;
    } else {
        rc = read_all(fd, file, most, text, bytes);
    }
    close(fd);
    return rc;
}

/* The byte that an escape of two hexadecimal digits stands for, or -1. */
static int hex_byte(const char *digits) {
    if (!isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1])) {
        return -1;
    }
    const char pair[3] = {digits[0], digits[1], '\0'};
    return (int)strtol(pair, NULL, 16);
}

size_t input_unescape(char *text, size_t bytes) {
    static const char letters[] = "nrt'\"\\", values[] = "\n\r\t'\"\\";
    size_t out = 0;
    for (size_t i = 0; i < bytes; i++) {
        const char *known = text[i] == '\\' && i + 1 < bytes && text[i + 1] != '\0'
                                ? strchr(letters, text[i + 1])
                                : NULL;
        int hex =
            text[i] == '\\' && bytes - i > 3 && text[i + 1] == 'x' ? hex_byte(text + i + 2) : -1;
        if (known != NULL) {
            text[out++] = values[known - letters];
            i++;
        } else if (hex >= 0) {
            text[out++] = (char)hex;
            i += 3;
        } else if (text[i] == '\\' && i + 1 < bytes) {
            text[out++] = text[i++]; /* the next character is not the start of an escape */
            text[out++] = text[i];
        } else {
            text[out++] = text[i];
        }
    }
    text[out] = '\0';
    return out;
}

int input_read_prompt(const struct settings *set, char **text, size_t *bytes) {
    int rc = input_read(set, set->prompt, set->file, text, bytes);
    bool from_stdin = set->prompt == NULL && (set->file == NULL || strcmp(set->file, "-") == 0);
    if (rc == 0 && !from_stdin && !set->no_escape) {
        *bytes = input_unescape(*text, *bytes);
    }
    return rc;
}

static int bad_id(const char *name, size_t position, const char *found, uint32_t n_vocab) {
    complain("%s: entry %zu is %.40s, expected a token id from 0 to %u", name, position, found,
             n_vocab - 1);
    return EXIT_FAILED;
}

static int ids_of_json(const char *name, const json_t *array, uint32_t n_vocab, uint32_t *ids) {
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        json_int_t value = json_integer_value(item);
        if (!json_is_integer(item) || value < 0 || value >= (json_int_t)n_vocab) {
            char found[32] = "not a whole number";
            if (json_is_integer(item)) {
                snprintf(found, sizeof found, "%lld", (long long)value);
            }
            return bad_id(name, i, found, n_vocab);
        }
        ids[i] = (uint32_t)value;
    }
    return 0;
}

static int parse_json_ids(const char *name, const char *text, size_t bytes, uint32_t n_vocab,
                          uint32_t **out, size_t *n_out) {
    json_error_t fault;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &fault);
    if (root == NULL) {
        complain("%s: line %d: %s", name, fault.line, fault.text);
        return EXIT_FAILED;
    }
    int rc = EXIT_FAILED;
    uint32_t *ids = NULL;
    if (!json_is_array(root)) {
        complain("%s: not a JSON array of token ids", name);
    } else if ((ids = calloc(json_array_size(root) + 1, sizeof *ids)) == NULL) {
        rc = complain_memory();
    } else {
        rc = ids_of_json(name, root, n_vocab, ids);
    }
    if (rc == 0) {
        *out = ids;
        *n_out = json_array_size(root);
    } else {
        free(ids);
    }
    json_decref(root);
    return rc;
}

static bool is_space(char c) {
    return c == ',' || isspace((unsigned char)c);
}

static int parse_word_ids(const char *name, const char *text, size_t bytes, uint32_t n_vocab,
                          uint32_t **out, size_t *n_out) {
    uint32_t *ids = calloc(bytes / 2 + 2, sizeof *ids);
    if (ids == NULL) {
        return complain_memory();
    }
    size_t n = 0;
    for (size_t i = 0; i < bytes;) {
        if (is_space(text[i])) {
            i++;
            continue;
        }
        size_t start = i;
        uint64_t value = 0;
        for (; i < bytes && isdigit((unsigned char)text[i]) && value < n_vocab; i++) {
            value = 10 * value + (uint64_t)(text[i] - '0');
        }
        if (i == start || value >= n_vocab || (i < bytes && !is_space(text[i]))) {
            char found[48];
            size_t length = 0;
            while (start + length < bytes && length < 40 && !is_space(text[start + length])) {
                length++;
            }
            snprintf(found, sizeof found, "\"%.*s\"", (int)length, text + start);
            free(ids);
            return bad_id(name, n, found, n_vocab);
        }
        ids[n++] = (uint32_t)value;
    }
    *out = ids;
    *n_out = n;
    return 0;
}

int input_ids(const char *name, const char *text, size_t bytes, uint32_t n_vocab, bool words,
              uint32_t **ids, size_t *n_ids) {
    size_t first = 0;
    while (first < bytes && isspace((unsigned char)text[first])) {
        first++;
    }
    if (words && (first == bytes || text[first] != '[')) {
        return parse_word_ids(name, text, bytes, n_vocab, ids, n_ids);
    }
    return parse_json_ids(name, text, bytes, n_vocab, ids, n_ids);
}
