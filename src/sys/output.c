/* output.c - a file that is written piece by piece while a run goes on. */
#include "sys/output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "sys/file.h"

int sys_output_open(struct sys_output *output, const char *path, struct ot_error *err) {
    if (path[0] == '\0') {
        return error_set(err, OT_ERR_ARGUMENT, "the file's name", "it is empty");
    }
    char *copy = mem_strdup(path);
    if (copy == NULL) {
        return error_memory(err, strlen(path) + 1);
    }
    int own = sys_own_stream(path);
    int fd = own >= 0 ? fcntl(own, F_DUPFD_CLOEXEC, 0)
                      : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0) {
        int rc = error_sys(err, OT_ERR_IO, errno, path, "cannot be written");
        mem_free(copy);
        return rc;
    }
    *output = (struct sys_output){.path = copy, .fd = fd};
    return 0;
}

int sys_output_write(struct sys_output *output, const void *data, uint64_t bytes,
                     struct ot_error *err) {
    int error = sys_write_all(output->fd, data, bytes);
    return error == 0 ? 0 : error_sys(err, OT_ERR_IO, error, output->path, "cannot be written");
}

int sys_output_close(struct sys_output *output, struct ot_error *err) {
    int rc = 0;
    if (close(output->fd) != 0 && errno != EINTR) {
        rc = error_sys(err, OT_ERR_IO, errno, output->path, "cannot be written");
    }
    mem_free(output->path);
    *output = (struct sys_output){.path = NULL, .fd = -1};
    return rc;
}
