/* model_path.c - the model that a name means. */
#include "cli/model_path.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Short names of the models that `make model` fetches. */
static const struct {
    const char *name, *file;
} known[] = {
    {"smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"},
    {"gemma3", "gemma-3-270m-q4_k_m.gguf"},
};

const char *model_cache(char *buf, size_t n) {
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
