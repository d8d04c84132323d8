/* measure.c - how fast the disk delivers what a sweep reads, without computing. */
#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "residency/internal.h"
#include "sys/memory.h"
#include "sys/reader.h"

enum { READ_BYTES = 1 << 20, DEPTH = 8, MEASURE_BYTES_MOST = 1 << 30, SWEEPS_MOST = 64 };
/* A disk that others share changes its speed within milliseconds. */
static const uint64_t measure_ns_least = 250000000;

static int stopped(volatile const int *stop, struct ot_error *err) {
    return stop != NULL && *stop != 0
               ? error_set(err, OT_ERR_INTERRUPTED, "", "stopped by the caller")
               : 0;
}

/* A sweep that uses nothing of what it reads: the streamed blocks, through their slots. */
static int sweep_blocks(struct residency *r, volatile const int *stop, struct ot_error *err) {
    int code = residency_sweep_begin(r, r->n_extents - 1, err);
    for (uint32_t i = 0; code == 0 && i < r->n_extents; i++) {
        const struct residency_extent *e = &r->extents[i];
        for (uint32_t row = 0; code == 0 && e->contract == RESIDENCY_SWEEP && row < e->n_rows;) {
            struct residency_view view;
            code = residency_acquire(r, i, 0, row, &view, err);
            if (code == 0) {
                row += view.n_rows;
                residency_release(r, &view);
                code = stopped(stop, err);
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
    struct reading {
        struct sys_read read;
        uint32_t extent;
        uint64_t payload_bytes;
        uint64_t cached_bytes;   /* not direct: in the page cache before */
    } readings[DEPTH];           /* into each buffer */
    uint32_t extent;             /* to be read next */
    uint64_t at;                 /* of it */
    uint64_t asked_bytes, bytes; /* have come */
};

static bool add_next(struct pass *p, uint32_t buffer) {
    struct residency *r = p->r;
    while (p->extent < r->n_extents && (r->extents[p->extent].contract != RESIDENCY_SWEEP ||
                                        p->at >= extent_bytes(&r->extents[p->extent]))) {
        p->extent++;
        p->at = 0;
    }
    if (p->extent == r->n_extents || p->asked_bytes >= MEASURE_BYTES_MOST) {
        return false;
    }
    const struct residency_extent *e = &r->extents[p->extent];
    const struct sys_file *file = &r->files[e->file];
    uint32_t align = file->direct_align;
    uint64_t offset = e->offset + p->at, payload = min_u64(READ_BYTES, extent_bytes(e) - p->at);
    uint64_t start = offset / align * align;
    struct reading *reading = &p->readings[buffer];
    *reading = (struct reading){
        .read = {.file = file,
                 .offset = start,
                 .buf = p->memory + buffer * p->stride,
                 .bytes = round_up(offset + payload, align) - start,
                 .need_bytes = offset + payload - start,
                 .direct = file->direct_fd >= 0,
                 .tag = buffer},
        .extent = p->extent,
        .payload_bytes = payload,
    };
    if (!reading->read.direct) {
        reading->cached_bytes = sys_file_cached_range(file, start, reading->read.bytes);
    }
    residency_account(r, reading->read.bytes - min_u64(reading->cached_bytes, reading->read.bytes));
    p->at += payload;
    p->asked_bytes += payload;
    return sys_reader_add(p->reader, &reading->read);
}

static int take_in(struct pass *p, const struct sys_read_done *done, struct ot_error *err) {
    const struct reading *reading = &p->readings[done->tag];
    const struct sys_read *read = &reading->read;
    if (done->error != 0) {
        return error_sys(err, OT_ERR_IO, done->error, read->file->path,
                         "reading %llu bytes at %llu failed", (unsigned long long)read->bytes,
                         (unsigned long long)read->offset);
    }
    if (done->got_bytes < read->need_bytes) {
        return error_set(err, OT_ERR_CHANGED, read->file->path,
                         "ends at byte %llu now, had %llu when it was opened",
                         (unsigned long long)(read->offset + done->got_bytes),
                         (unsigned long long)read->file->bytes);
    }
    if (!read->direct) {
        sys_file_drop(read->file, read->offset, read->bytes);
    }
    p->bytes += done->got_bytes;
    residency_post_read(p->r, &(struct residency_read){
                                  .extent = reading->extent,
                                  .cause = OT_CAUSE_PREFETCH_WASTED,
                                  .direct = read->direct,
                                  .asked_bytes = read->bytes,
                                  .got_bytes = done->got_bytes,
                                  .payload_bytes = reading->payload_bytes,
                                  .cached_bytes = reading->cached_bytes,
                              });
    return 0;
}

static int read_extents(struct residency *r, volatile const int *stop, uint64_t *bytes,
                        struct ot_error *err) {
    struct pass p = {.r = r, .stride = READ_BYTES + (128 << 10)};
    int code = sys_reader_open(r->io, DEPTH, 0, &p.reader, err);
    if (code != 0) {
        return code;
    }
    p.memory = sys_memory_take(DEPTH * p.stride, true, err);
    if (p.memory == NULL) {
        sys_reader_close(p.reader);
        return OT_ERR_MEMORY;
    }
    residency_claim_anew(r);
    for (uint32_t i = 0; i < DEPTH; i++) {
        add_next(&p, i);
    }
    struct sys_read_done done;
    while (sys_reader_next(p.reader, true, &done)) {
        struct ot_error *first = code == 0 ? err : NULL;
        int failed = take_in(&p, &done, first);
        code = code != 0 ? code : failed != 0 ? failed : stopped(stop, err);
        if (code == 0) {
            add_next(&p, done.tag);
        }
    }
    sys_reader_close(p.reader);
    sys_memory_free(p.memory, DEPTH * p.stride);
    *bytes = p.bytes;
    return code;
}

/* Sweeps for long enough, after one that fills what is missing of wired memory. They are no part of
 * the run: neither of its trace nor of its waiting, and their bytes are of no use to it. */
static int read_sweeps(struct residency *r, uint64_t unread_bytes, volatile const int *stop,
                       uint64_t *start_ns, uint64_t *moved, uint32_t *n_sweeps,
                       struct ot_error *err) {
    const uint64_t wait_ns = r->wait_ns;
    r->measuring = true;
    int code = unread_bytes > 0 ? sweep_blocks(r, stop, err) : 0;
    uint64_t before = r->brought_bytes;
    *start_ns = clock_ns();
    while (code == 0 && *n_sweeps < SWEEPS_MOST && clock_ns() - *start_ns < measure_ns_least) {
        code = sweep_blocks(r, stop, err);
        (*n_sweeps)++;
    }
    *moved = r->brought_bytes - before;
    mover_forget_ahead(r->mover);
    r->measuring = false;
    r->wait_ns = wait_ns;
    return code;
}

int residency_measure_disk(struct residency *r, volatile const int *stop, double *bytes_per_s,
                           uint64_t *bytes, struct ot_error *err) {
    uint64_t moved = 0, start_ns = clock_ns();
    uint32_t n_sweeps = 0;
    struct residency_info info;
    residency_get_info(r, &info);
    int code;
    if (info.streamed_bytes_per_sweep > 0) {
        code = read_sweeps(r, info.unread_bytes, stop, &start_ns, &moved, &n_sweeps, err);
    } else {
        code = read_extents(r, stop, &moved, err);
    }
    if (code == 0) {
        *bytes = moved / (n_sweeps > 0 ? n_sweeps : 1);
        *bytes_per_s = (double)moved / clock_seconds(start_ns, clock_ns());
    }
    return code;
}
