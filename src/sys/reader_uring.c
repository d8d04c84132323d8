/* reader_uring.c - reads through io_uring.
 *
 * The submission queue has ENTRIES_MOST places; an op that finds it full waits in `backlog` until
 * the kernel has taken the others. The completion queue has a place for every op.
 *
 * A filter of system calls may refuse the ring in mid-run, or the kernel have no memory for more
 * requests: what it has begun is then waited for, and threads read the rest, from now on.
 *
 * Invariants:
 *   queued holds the ops in the submission queue, in its order; n_running counts those that the
 *   kernel has taken and not given back
 *
 * Source: io_uring_enter(2), io_uring_setup(2). Threads: one at a time calls. */
#include <errno.h>
#include <liburing.h>
#include <time.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "sys/reader_impl.h"

enum { BUSY_WAIT_NS = 200000, BUSY_MOST = 5000, ENTRIES_MOST = 32 };

struct uring {
    struct io_uring ring;
    struct op_list queued;  /* in the submission queue */
    struct op_list backlog; /* begun, but without a place there */
    uint32_t n_running;
    uint32_t n_busy; /* times that the kernel was too busy to take an op, since it took the last */
};

/* Puts an op into the submission queue, or hands it back finished where a test spoils it. False,
 * and the op is as before, where the queue is full. */
static bool queue(struct sys_reader *r, uint32_t i) {
    struct uring *u = r->ring;
    struct op *op = &r->ops[i];
    if (io_uring_sq_space_left(&u->ring) == 0) {
        return false;
    }
    int64_t result = 0;
    while (op_spoiled(op, &result)) {
        if (op_result(op, result)) {
            op_push(r, &r->done, i);
            return true;
        }
    }
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    int fd = op->read.direct ? op->read.file->direct_fd : op->read.file->fd;
    io_uring_prep_read(sqe, fd, (uint8_t *)op->read.buf + op->got_bytes,
                       (unsigned)min_u64(op->ask_bytes, 1u << 30), op->read.offset + op->got_bytes);
    io_uring_sqe_set_data64(sqe, i);
    op_push(r, &u->queued, i);
    return true;
}

static void begin(struct sys_reader *r, uint32_t i) {
    struct uring *u = r->ring;
    if (u->backlog.first != OP_NONE || !queue(r, i)) {
        op_push(r, &u->backlog, i);
    }
}

/* Takes in one op that the kernel has finished; false where there is none. */
static bool take(struct sys_reader *r) {
    struct uring *u = r->ring;
    struct io_uring_cqe *cqe;
    if (io_uring_peek_cqe(&u->ring, &cqe) != 0) {
        return false;
    }
    uint32_t i = (uint32_t)io_uring_cqe_get_data64(cqe);
    int64_t result = cqe->res;
    io_uring_cqe_seen(&u->ring, cqe);
    u->n_running--;
    if (op_result(&r->ops[i], result)) {
        op_push(r, &r->done, i);
    } else {
        begin(r, i);
    }
    return true;
}

static void wait_a_little(void) {
    nanosleep(&(struct timespec){.tv_nsec = BUSY_WAIT_NS}, NULL);
}

static void uring_close(struct sys_reader *r) {
    struct uring *u = r->ring;
    io_uring_queue_exit(&u->ring);
    mem_free(u);
    r->ring = NULL;
}

/* Threads take over: the ring is refused. */
static void hand_over(struct sys_reader *r) {
    struct uring *u = r->ring;
    while (u->n_running > 0) { /* they write to memory that is not ours */
        if (!take(r)) {
            wait_a_little();
        }
    }
    struct op_list lists[] = {u->queued, u->backlog};
    uring_close(r);
    threads_begin(r);
    for (uint32_t l = 0, i; l < 2; l++) {
        while ((i = op_pop(r, &lists[l])) != OP_NONE) {
            r->way->begin(r, i);
        }
    }
    r->way->start(r);
}

/* Hands the kernel what is queued, and waits for a completion where asked to. */
static void submit(struct sys_reader *r, bool wait) {
    struct uring *u = r->ring;
    int n;
    do {
        while (u->backlog.first != OP_NONE && io_uring_sq_space_left(&u->ring) > 0) {
            queue(r, op_pop(r, &u->backlog));
        }
        bool sleep = wait && r->done.first == OP_NONE && u->backlog.first == OP_NONE;
        n = sleep ? io_uring_submit_and_wait(&u->ring, 1) : io_uring_submit(&u->ring);
        for (int i = 0; i < n; i++) {
            op_pop(r, &u->queued);
            u->n_running++;
            u->n_busy = 0;
        }
    } while (n > 0 && u->backlog.first != OP_NONE);
    /* EAGAIN, EBUSY: the kernel is short of memory or completions; the entries stay queued. */
    bool busy = n == -EAGAIN || n == -EBUSY;
    if ((n < 0 && n != -EINTR && !busy) || u->n_busy == BUSY_MOST) {
        hand_over(r);
    } else if (wait && busy) {
        u->n_busy += u->n_running == 0;
        wait_a_little();
    }
}

static void start(struct sys_reader *r) {
    submit(r, false);
}

static void collect(struct sys_reader *r, bool wait) {
    submit(r, false);
    while (r->uring) {
        while (take(r)) {
        }
        if (!wait || r->done.first != OP_NONE) {
            return;
        }
        submit(r, true); /* interrupted: the loop waits again */
    }
    r->way->collect(r, wait && r->done.first == OP_NONE);
}

static const struct reader_way uring_way = {begin, start, collect, uring_close};

/* Sends a request that does nothing there and back: a filter of system calls may refuse to enter a
 * ring that it let be set up, which would be noticed only when nothing ever completes. 0 or errno.
 */
static int try_ring(struct io_uring *ring) {
    io_uring_prep_nop(io_uring_get_sqe(ring));
    int n;
    do {
        n = io_uring_submit(ring);
    } while (n == -EINTR);
    if (n != 1) {
        return n < 0 ? -n : EIO;
    }
    struct io_uring_cqe *cqe;
    while ((n = io_uring_wait_cqe(ring, &cqe)) == -EINTR) {
    }
    if (n == 0) {
        io_uring_cqe_seen(ring, cqe);
    }
    return -n;
}

int uring_open(struct sys_reader *r) {
    struct uring *u = mem_calloc(1, sizeof *u);
    if (u == NULL) {
        return ENOMEM;
    }
    u->queued = u->backlog = (struct op_list){OP_NONE, OP_NONE};
    /* Completions are taken in when the caller asks, not by interrupting what it computes. */
    unsigned entries = min_u32(r->depth, ENTRIES_MOST);
    const unsigned size = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    struct io_uring_params params = {.flags = IORING_SETUP_COOP_TASKRUN |
                                              IORING_SETUP_TASKRUN_FLAG | size,
                                     .cq_entries = r->depth};
    int error = -io_uring_queue_init_params(entries, &u->ring, &params);
    if (error == EINVAL) { /* kernels before 5.19 */
        params = (struct io_uring_params){.flags = size, .cq_entries = r->depth};
        error = -io_uring_queue_init_params(entries, &u->ring, &params);
    }
    if (error == 0) {
        struct io_uring_probe *probe = io_uring_get_probe_ring(&u->ring);
        if (probe == NULL || !io_uring_opcode_supported(probe, IORING_OP_READ)) {
            error = ENOSYS;
        }
        io_uring_free_probe(probe);
        error = error == 0 ? try_ring(&u->ring) : error;
        if (error != 0) {
            io_uring_queue_exit(&u->ring);
        }
    }
    if (error != 0) {
        mem_free(u);
        return error;
    }
    r->ring = u;
    r->way = &uring_way;
    return 0;
}
