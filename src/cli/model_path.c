/* model_path.c - the model that a name means. */
#include "cli/model_path.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/options.h"

/* Short names of the models that `make model` fetches. */
static const struct {
    const char *name, *file;
} known[] = {
    {"smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"},
    {"gemma3", "gemma-3-270m-q4_k_m.gguf"},
};

/* Where models are kept, "" where there is no home; buf [n]. */
static const char *model_cache(char *buf, size_t n) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache != NULL && cache[0] == '/') {
        snprintf(buf, n, "%s/onetrip/models", cache);
    } else if (home != NULL && home[0] != '\0') {
        snprintf(buf, n, "%s/.cache/onetrip/models", home);
    } else {
        buf[0] = '\0';
    }
    return buf;
}

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

char *model_path(const char *name) {
    char cache[4096], path[8192];
    model_cache(cache, sizeof cache);
    if (strchr(name, '/') != NULL || is_file(name) || cache[0] == '\0' || strlen(name) > 1024) {
        return strdup(name);
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        snprintf(path, sizeof path, "%s/%s", cache, known[i].file);
        if (strcmp(name, known[i].name) == 0 && is_file(path)) {
            return strdup(path);
        }
    }
    static const char *const endings[] = {"", ".gguf"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        snprintf(path, sizeof path, "%s/%s%s", cache, name, endings[i]);
        if (is_file(path)) {
            return strdup(path);
        }
    }
    return strdup(name);
}

bool model_is_there(const char *name) {
    char *path = model_path(name);
    bool there = path != NULL && is_file(path);
    free(path);
    return there;
}

/* ---- what there is instead ---- */

enum { MODELS_MOST = 32, NAME_BYTES = 96 };

struct models {
    char names[MODELS_MOST][NAME_BYTES]; /* as they may be given, in order */
    size_t n;
};

static int by_name(const void *a, const void *b) {
    return strcmp(a, b);
}

/* Whether a file is another part of a split model than the first: "...-00002-of-00003.gguf". */
static bool is_later_part(const char *file) {
    enum { DIGITS = 5, TAIL = sizeof "-00002-of-00003.gguf" - 1 };
    size_t length = strlen(file);
    const char *tail = file + length - TAIL;
    return length > TAIL && tail[0] == '-' && strspn(tail + 1, "0123456789") == DIGITS &&
           strncmp(tail + 1 + DIGITS, "-of-", 4) == 0 && strncmp(tail + 1, "00001", DIGITS) != 0;
}

/* The short name, or that of the file without its ending; of a split model that of the first part.
 */
static void add_model(struct models *models, const char *file) {
    static const char ending[] = ".gguf";
    size_t length = strlen(file), end = sizeof ending - 1;
    if (models->n == MODELS_MOST || length <= end || length - end >= NAME_BYTES ||
        strcmp(file + length - end, ending) != 0 || is_later_part(file)) {
        return;
    }
    char *name = models->names[models->n++];
    snprintf(name, NAME_BYTES, "%.*s", (int)(length - end), file);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(file, known[i].file) == 0) {
            snprintf(name, NAME_BYTES, "%s", known[i].name);
        }
    }
}

static void list_models(const char *cache, struct models *models) {
    DIR *folder = opendir(cache);
    models->n = 0;
    if (folder != NULL) {
        for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
            add_model(models, entry->d_name);
        }
        closedir(folder);
        qsort(models->names, models->n, sizeof models->names[0], by_name);
    }
}

/* "https://...", "org/name:Q4_0": a path would begin in a folder that is there, or end as a file
 * does. */
static bool is_remote(const char *name) {
    char first[256];
    size_t n = strcspn(name, "/"), length = strlen(name);
    struct stat st;
    if (strstr(name, "://") != NULL) {
        return true;
    }
    if (n == 0 || n >= sizeof first || name[n] == '\0' || name[0] == '~' ||
        (length > 5 && strcmp(name + length - 5, ".gguf") == 0)) {
        return false;
    }
    snprintf(first, sizeof first, "%.*s", (int)n, name);
    return stat(first, &st) != 0;
}

int model_complain_absent(const char *name) {
    char cache[512], list[400] = "";
    struct models models;
    const char *words[MODELS_MOST + 1];
    model_cache(cache, sizeof cache);
    if (is_remote(name)) {
        complain(
            "%.200s: no such file, and nothing is downloaded: fetch the GGUF file, and give its "
            "path%s%s",
            name, cache[0] != '\0' ? ", or put it into " : "", cache);
        return EXIT_FAILED;
    }
    if (strchr(name, '/') != NULL) {
        return 0;
    }
    if (cache[0] == '\0') {
        complain(
            "%s: no such file here, and no folder for models: neither HOME nor XDG_CACHE_HOME is "
            "set",
            name);
        return EXIT_FAILED;
    }
    list_models(cache, &models);
    for (size_t i = 0; i < models.n; i++) {
        size_t used = strlen(list);
        bool fits = used + 2 + NAME_BYTES + 5 <= sizeof list; /* and ", ..." after it */
        if (fits || strcmp(list + used - 3, "...") != 0) {
            snprintf(list + used, sizeof list - used, "%s%s", i != 0 ? ", " : "",
                     fits ? models.names[i] : "...");
        }
        words[i] = models.names[i];
    }
    words[models.n] = NULL;
    const char *near = nearest_word(name, words);
    complain(
        "%.200s: no such file here, and no model of that name in %.300s, %s%s%s%s", name, cache,
        models.n != 0 ? "which has " : "where none is: put a GGUF file there, or give its path",
        list, near != NULL ? "; the nearest is " : "", near != NULL ? near : "");
    return EXIT_FAILED;
}
