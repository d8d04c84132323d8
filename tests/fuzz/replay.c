/* replay.c - runs a fuzz target on every file of its corpus, without a fuzzer.
 *
 *     replay DIRECTORY
 *
 * Exit status 0, or 1 where the corpus is missing, empty or cannot be read; a fault in the target
 * aborts. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int is_file(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

/* The input ends where its allocation ends, so that a sanitizer sees a read beyond it. */
static int run(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        return 1;
    }
    long bytes = ftell(file);
    rewind(file);
    uint8_t *data = malloc(bytes > 0 ? (size_t)bytes : 1);
    if (bytes < 0 || data == NULL || fread(data, 1, (size_t)bytes, file) != (size_t)bytes) {
        perror(path);
        fclose(file);
        free(data);
        return 1;
    }
    fclose(file);
    LLVMFuzzerTestOneInput(data, (size_t)bytes);
    free(data);
    return 0;
}

int main(int argc, char **argv) {
    struct dirent **entries;
    int failed = 0, n = argc == 2 ? scandir(argv[1], &entries, is_file, alphasort) : -1;
    if (n <= 0) {
        fprintf(stderr, "replay: no corpus in %s\n",
                argc == 2 ? argv[1] : "(one directory needed)");
        return 1;
    }
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", argv[1], entries[i]->d_name);
        failed |= run(path);
        free(entries[i]);
    }
    free(entries);
    printf("%d inputs\n", n);
    return failed;
}
