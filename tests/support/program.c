/* program.c - see program.h. Output goes to unnamed temporary files, so that no pipe can fill. */
#include "support/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_S = 120 };

static void must(int ok, const char *what) {
    if (!ok) {
        perror(what);
        abort();
    }
}

static char *read_back(FILE *file, size_t *bytes) {
    must(fseek(file, 0, SEEK_END) == 0, "fseek");
    long end = ftell(file);
    must(end >= 0, "ftell");
    rewind(file);
    char *text = malloc((size_t)end + 1);
    must(text != NULL && fread(text, 1, (size_t)end, file) == (size_t)end, "read back");
    text[end] = '\0';
    *bytes = (size_t)end;
    fclose(file);
    return text;
}

struct outcome program_run(const char *const *args, const char *input, size_t input_bytes) {
    FILE *in = tmpfile(), *out = tmpfile(), *err = tmpfile();
    must(in != NULL && out != NULL && err != NULL, "tmpfile");
    must(input == NULL || fwrite(input, 1, input_bytes, in) == input_bytes, "standard input");
    must(fflush(in) == 0 && lseek(fileno(in), 0, SEEK_SET) == 0, "standard input");
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
        dup2(fileno(in), 0);
        dup2(fileno(out), 1);
        dup2(fileno(err), 2);
        alarm(LIMIT_S); /* lives on through exec */
        execv(args[0], (char *const *)args);
        perror(args[0]);
        _exit(127);
    }
    fclose(in);
    int status = 0;
    must(waitpid(child, &status, 0) == child, "waitpid");
    size_t err_bytes;
    struct outcome o = {
        .exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
        .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
    };
    o.out = read_back(out, &o.out_bytes);
    o.err = read_back(err, &err_bytes);
    return o;
}

void outcome_free(struct outcome *o) {
    free(o->out);
    free(o->err);
    memset(o, 0, sizeof *o);
}
