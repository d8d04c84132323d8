/* reader.c - many reads at once: what io_uring and threads have in common.
 *
 * Invariants:
 *   each op is in exactly one place: free, in flight, or done
 *   n_in_flight counts the ops that were added and not yet handed back
 *
 * Threads: one at a time calls. */
#include "sys/reader.h"

#include <errno.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "sys/hook.h"
#include "sys/reader_impl.h"

void op_push(struct sys_reader *r, struct op_list *list, uint32_t op) {
    r->ops[op].next = OP_NONE;
    if (list->first == OP_NONE) {
        list->first = op;
    } else {
        r->ops[list->last].next = op;
    }
    list->last = op;
}

uint32_t op_pop(struct sys_reader *r, struct op_list *list) {
    uint32_t op = list->first;
    if (op != OP_NONE) {
        list->first = r->ops[op].next;
    }
    return op;
}

bool op_result(struct op *op, int64_t result) {
    bool again = result == -EINTR || result == -EAGAIN || result == -ECANCELED;
    if (again && op->n_again < SYS_AGAIN_MOST) {
        op->n_again++;
        return false;
    }
    if (result < 0) {
        op->error = (int)-result;
        return true;
    }
    op->n_again = 0;
    op->got_bytes += (uint64_t)result;
    if (result == 0 || op->got_bytes >= op->read.need_bytes) {
        return true;
    }
    /* A direct read that ends inside a sector has met the end of the file. */
    return op->read.direct && op->got_bytes % op->read.file->direct_align != 0;
}

bool op_spoiled(struct op *op, int64_t *result) {
    int error = 0;
    op->ask_bytes = op->read.bytes - op->got_bytes;
    switch (sys_hook_read(&error)) {
    case SYS_HOOK_ERROR: *result = -error; return true;
    case SYS_HOOK_ENDS: *result = 0; return true;
    case SYS_HOOK_PARTIAL: {
        uint64_t unit = op->read.direct ? op->read.file->direct_align : 1;
        op->ask_bytes = max_u64(op->ask_bytes / 2 / unit * unit, unit);
        return false;
    }
    case SYS_HOOK_NONE: break;
    }
    return false;
}

int sys_reader_open(enum ot_io io, uint32_t depth, uint32_t n_threads, struct sys_reader **out,
                    struct ot_error *err) {
    struct sys_reader *r = mem_calloc(1, sizeof *r);
    if (r == NULL) {
        return error_memory(err, sizeof *r);
    }
    r->free = r->done = (struct op_list){OP_NONE, OP_NONE};
    r->ops = mem_calloc(depth, sizeof *r->ops);
    if (r->ops == NULL || !threads_take(r)) {
        mem_free(r->ops);
        mem_free(r);
        return error_memory(err, depth * sizeof *r->ops);
    }
    r->depth = depth;
    r->n_threads = n_threads;
    for (uint32_t i = 0; i < depth; i++) {
        op_push(r, &r->free, i);
    }
    const char *refused = getenv("ONETRIP_NO_URING");
    bool try_uring = io != OT_IO_THREADS && (refused == NULL || refused[0] != '1');
    r->uring = try_uring && uring_open(r) == 0;
    if (!r->uring) {
        threads_begin(r);
    }
    *out = r;
    return 0;
}

void sys_reader_close(struct sys_reader *r) {
    if (r == NULL) {
        return;
    }
    struct sys_read_done done;
    while (sys_reader_next(r, true, &done)) {
    }
    r->way->close(r);
    threads_free(r);
    mem_free(r->ops);
    mem_free(r);
}

bool sys_reader_uring(const struct sys_reader *r) {
    return r->uring;
}

bool sys_reader_add(struct sys_reader *r, const struct sys_read *read) {
    uint32_t i = op_pop(r, &r->free);
    if (i == OP_NONE) {
        return false;
    }
    r->ops[i] = (struct op){.read = *read};
    r->n_in_flight++;
    r->way->begin(r, i);
    return true;
}

void sys_reader_start(struct sys_reader *r) {
    r->way->start(r);
}

bool sys_reader_next(struct sys_reader *r, bool wait, struct sys_read_done *done) {
    if (r->n_in_flight == 0) {
        return false;
    }
    if (r->done.first == OP_NONE) {
        r->way->collect(r, wait);
    }
    uint32_t i = op_pop(r, &r->done);
    if (i == OP_NONE) {
        return false;
    }
    const struct op *op = &r->ops[i];
    *done = (struct sys_read_done){op->read.tag, op->error, op->got_bytes};
    op_push(r, &r->free, i);
    r->n_in_flight--;
    return true;
}
