/* measure.c - how fast the disk delivers what a sweep reads, without computing. */
#include "base/alloc.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "residency/internal.h"
#include "sys/memory.h"
#include "sys/reader.h"

enum { READ_BYTES = 1 << 20, DEPTH = 8, MEASURE_BYTES_MOST = 1 << 30, SWEEPS_MOST = 64 };
/* A disk that others share changes its speed within milliseconds. */
static const uint64_t measure_ns_least = 250000000;

/* A sweep that uses nothing of what it reads: the streamed blocks, through their slots. */
static int sweep_blocks(struct residency *r, struct ot_error *err) {
    int code = residency_sweep_begin(r, r->n_extents - 1, err);
    for (uint32_t i = 0; code == 0 && i < r->n_extents; i++) {
        const struct residency_extent *e = &r->extents[i];
        for (uint32_t row = 0; code == 0 && e->contract == RESIDENCY_SWEEP && row < e->n_rows;) {
            struct residency_view view;
            code = residency_acquire(r, i, 0, row, &view, err);
            if (code == 0) {
                row += view.n_rows;
                residency_release(r, &view);
            }
        }
    }
    residency_sweep_end(r, code != 0);
    return code;
}

/* Reads swept extents in schedule order, past the page cache, into buffers that nobody looks at. */
struct pass {
    struct residency *r;
    struct sys_reader *reader;
    uint8_t *memory;
    uint64_t stride; /* between buffers */
    uint32_t extent;
    uint64_t at; /* of the extent */
    uint64_t bytes;
};

static bool add_next(struct pass *p, uint32_t buffer) {
    struct residency *r = p->r;
    while (p->extent < r->n_extents && (r->extents[p->extent].contract != RESIDENCY_SWEEP ||
                                        p->at >= extent_bytes(&r->extents[p->extent]))) {
        p->extent++;
        p->at = 0;
    }
    if (p->extent == r->n_extents || p->bytes >= MEASURE_BYTES_MOST) {
        return false;
    }
    const struct residency_extent *e = &r->extents[p->extent];
    const struct sys_file *file = &r->files[e->file];
    uint32_t align = file->direct_align;
    uint64_t offset = e->offset + p->at, payload = min_u64(READ_BYTES, extent_bytes(e) - p->at);
    uint64_t start = offset / align * align;
    struct sys_read read = {
        .file = file,
        .offset = start,
        .buf = p->memory + buffer * p->stride,
        .bytes = round_up(offset + payload, align) - start,
        .need_bytes = offset + payload - start,
        .direct = file->direct_fd >= 0,
        .tag = buffer,
    };
    p->at += payload;
    p->bytes += read.bytes;
    residency_post(r, p->extent, OT_CAUSE_PREFETCH_WASTED, read.bytes, 0, read.bytes - payload);
    return sys_reader_add(p->reader, &read);
}

static int read_extents(struct residency *r, uint64_t *bytes, struct ot_error *err) {
    struct pass p = {.r = r, .stride = READ_BYTES + (128 << 10)};
    int code = sys_reader_open(OT_IO_AUTO, DEPTH, 0, &p.reader, err);
    if (code != 0) {
        return code;
    }
    p.memory = sys_memory_take(DEPTH * p.stride, true, err);
    if (p.memory == NULL) {
        sys_reader_close(p.reader);
        return OT_ERR_MEMORY;
    }
    for (uint32_t i = 0; i < DEPTH; i++) {
        add_next(&p, i);
    }
    struct sys_read_done done;
    while (sys_reader_next(p.reader, true, &done)) {
        if (done.error != 0 && code == 0) {
            code = error_sys(err, OT_ERR_IO, done.error, "", "reading failed");
        }
        if (code == 0) {
            add_next(&p, done.tag);
        }
    }
    sys_reader_close(p.reader);
    sys_memory_free(p.memory, DEPTH * p.stride);
    *bytes = p.bytes;
    return code;
}

/* Sweeps for long enough, after one that fills what is missing of wired memory. */
static int read_sweeps(struct residency *r, uint64_t unread_bytes, uint64_t *start_ns,
                       uint64_t *moved, uint32_t *n_sweeps, struct ot_error *err) {
    int code = unread_bytes > 0 ? sweep_blocks(r, err) : 0;
    uint64_t before = r->moved_bytes;
    *start_ns = clock_ns();
    while (code == 0 && *n_sweeps < SWEEPS_MOST && clock_ns() - *start_ns < measure_ns_least) {
        code = sweep_blocks(r, err);
        (*n_sweeps)++;
    }
    *moved = r->moved_bytes - before;
    return code;
}

int residency_measure_disk(struct residency *r, double *bytes_per_s, uint64_t *bytes,
                           struct ot_error *err) {
    uint64_t moved = 0, start_ns = clock_ns();
    uint32_t n_sweeps = 0;
    struct residency_info info;
    residency_get_info(r, &info);
    int code;
    if (info.streamed_bytes_per_sweep > 0) {
        code = read_sweeps(r, info.unread_bytes, &start_ns, &moved, &n_sweeps, err);
    } else {
        code = read_extents(r, &moved, err);
    }
    if (code == 0) {
        *bytes = moved / (n_sweeps > 0 ? n_sweeps : 1);
        *bytes_per_s = (double)moved / clock_seconds(start_ns, clock_ns());
    }
    return code;
}
