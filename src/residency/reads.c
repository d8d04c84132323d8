/* reads.c - issuing the reads of own memory, and taking in what comes: each is posted to the ledger
 * here, exactly once, when its bytes have arrived.
 *
 * Whether direct reads are direct is not believed but looked at: from time to time the page cache
 * is asked about the range before and after.
 *
 * Threads: the engine thread only. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "residency/mover.h"
#include "residency/plant.h"
#include "sys/facts.h"
#include "sys/hook.h"
#include "sys/memory.h"

enum { SAMPLE_FIRST = 8, SAMPLE_EVERY = 64, SAMPLES_LEAST = 4 };
/* Buffered reads under way are in the page cache, too, which the budget has no part for. */
enum { BUFFERED_BYTES_MOST = 4 << 20 };

static enum residency_plant planted;

void residency_plant(enum residency_plant fault) {
    planted = fault;
}
enum residency_plant residency_planted(void) {
    return planted;
}

/* Whether another buffered read under way brings the page of the file that begins at `at`. */
static bool page_under_way(const struct mover *m, const struct flight *f, uint64_t at) {
    const uint64_t page = sys_page_bytes();
    const uint32_t file = m->r->extents[f->extent].file;
    for (uint32_t i = 0; i < m->n_flights; i++) {
        const struct flight *other = &m->flights[i];
        if (other->kind != FLIGHT_NONE && other != f && !other->direct &&
            m->r->extents[other->extent].file == file && other->offset < at + page &&
            at < other->offset + other->bytes) {
            return true;
        }
    }
    return false;
}

/* The pages of a read, but for those at its ends that another one under way brings as well: two
 * reads have no more than that in common. */
static void own_pages(const struct mover *m, const struct flight *f, uint64_t *start,
                      uint64_t *end) {
    const uint64_t page = sys_page_bytes();
    *start = f->offset / page * page;
    *end = round_up(f->offset + f->bytes, page);
    if (page_under_way(m, f, *start)) {
        *start += page;
    }
    if (*end > *start && page_under_way(m, f, *end - page)) {
        *end -= page;
    }
}

/* Bytes of a read that the page cache has, or will have by another one. */
static uint64_t cached_bytes(const struct mover *m, const struct flight *f) {
    const struct sys_file *file = &m->r->files[m->r->extents[f->extent].file];
    if (f->direct) {
        return sys_file_cached_range(file, f->offset, f->bytes);
    }
    uint64_t start, end;
    own_pages(m, f, &start, &end);
    uint64_t shared = f->bytes - min_u64(f->bytes, end - start);
    return shared + sys_file_cached_range(file, start, end - start);
}

/* What a read left in the page cache goes, but for what another one under way is to find there. */
static void drop_pages(const struct mover *m, const struct flight *f) {
    uint64_t start, end;
    own_pages(m, f, &start, &end);
    if (end > start) { /* no bytes would be all of the file */
        sys_file_drop(&m->r->files[m->r->extents[f->extent].file], start, end - start);
    }
}

bool reads_issue(struct mover *m, enum flight_kind kind, uint32_t index, uint32_t extent,
                 uint64_t offset, uint64_t payload_bytes, void *buf) {
    if (m->n_free_flights == 0) {
        return false;
    }
    const struct sys_file *file = &m->r->files[m->r->extents[extent].file];
    uint32_t align = file->direct_align;
    const bool direct = file->direct_fd >= 0;
    const uint64_t bytes = sectors_bytes(offset, payload_bytes, align);
    if (!direct && m->buffered_bytes > 0 && m->buffered_bytes + bytes > BUFFERED_BYTES_MOST) {
        return false;
    }
    uint32_t tag = m->free_flights[--m->n_free_flights];
    struct flight *f = &m->flights[tag];
    *f = (struct flight){
        .kind = kind,
        .index = index,
        .extent = extent,
        .offset = sectors_start(offset, align),
        .bytes = bytes,
        .payload_bytes = payload_bytes,
        .buf = buf,
        .direct = direct,
    };
    f->need_bytes = offset + payload_bytes - f->offset;
    f->sampled = f->direct && !file->cache_unknown &&
                 (m->n_reads < SAMPLE_FIRST || m->n_reads % SAMPLE_EVERY == 0);
    if (!direct && file->cache_unknown && m->n_free_flights + 1 == m->n_flights) {
        residency_claim_anew(m->r);
    }
    if (f->sampled || !f->direct) {
        f->cached_before = cached_bytes(m, f);
    }
    m->n_reads++;
    if (planted == RESIDENCY_PLANT_TWICE) {
        sys_file_pread(file, f->direct, f->offset, buf, f->bytes);
    }
    struct sys_read read = {
        .file = file,
        .offset = f->offset + (planted == RESIDENCY_PLANT_SHIFT ? align : 0),
        .buf = buf,
        .bytes = f->bytes,
        .need_bytes = f->need_bytes,
        .direct = f->direct && planted != RESIDENCY_PLANT_BUFFERED,
        .tag = tag,
    };
    if (!sys_reader_add(m->reader, &read)) {
        f->kind = FLIGHT_NONE;
        m->free_flights[m->n_free_flights++] = tag;
        m->n_reads--;
        return false;
    }
    m->buffered_bytes += direct ? 0 : bytes;
    residency_account(m->r, f->bytes - (direct ? 0 : min_u64(f->cached_before, f->bytes)));
    return true;
}

/* Sees to it that a read that went through the page cache leaves nothing there, and notices one
 * that should not have. One sample proves nothing, since others may read the same file: most must
 * agree. */
static void look_for_cache(struct mover *m, const struct flight *f) {
    const struct sys_file *file = &m->r->files[m->r->extents[f->extent].file];
    if (f->sampled) {
        bool grown = sys_file_cached_range(file, f->offset, f->bytes) > f->cached_before;
        m->n_samples++;
        m->n_samples_grown += grown;
        m->buffered_found = m->n_samples >= SAMPLES_LEAST && m->n_samples_grown * 2 > m->n_samples;
        if (grown) {
            drop_pages(m, f);
        }
        if (m->buffered_found) {
            m->n_reads_direct -= m->n_reads_doubted;
            m->n_reads_doubted = 0;
        } else {
            m->n_reads_doubted += grown;
        }
    }
    if (!f->direct || m->buffered_found) {
        drop_pages(m, f);
    } else {
        m->n_reads_direct++;
    }
}

/* True for the first trip of these bytes; remembers it. */
static bool first_trip(struct mover *m, const struct flight *f) {
    switch (f->kind) {
    case FLIGHT_SLOT:
        if (m->slots[f->index].block == NO_BLOCK) {
            return experts_first_trip(m, f);
        }
        bool first = !m->block_seen[m->slots[f->index].block];
        m->block_seen[m->slots[f->index].block] = true;
        return first;
    case FLIGHT_UNIT: return experts_first_trip(m, f);
    case FLIGHT_ROW: return rows_first_trip(m, f);
    case FLIGHT_PIECE: return !m->pieces[f->index].seen;
    default: return true;
    }
}

uint64_t reads_needed_bytes(const struct mover *m, uint64_t payload_bytes) {
    uint64_t sweep = m->layout.sweep_bytes;
    uint64_t bound = sweep - min_u64(sweep, m->r->budget_bytes);
    return (uint64_t)((unsigned __int128)payload_bytes * bound /
                      max_u64(m->layout.streamed_bytes, 1));
}

/* Posts what has come. A first trip is a load, and needed; a streamed block's later ones are the
 * plan's, and needed as far as the budget is smaller than what a sweep uses; so are those of a lent
 * piece, whose memory the budget does not have meanwhile. An expert's part that was evicted, a
 * piece that comes back from a loan, or a row that was asked for before, is a reload. What is read
 * to measure the disk is of no use. */
static void post(struct mover *m, const struct flight *f) {
    enum ot_cause cause = OT_CAUSE_LOAD;
    uint64_t needed = f->payload_bytes;
    const bool block = f->kind == FLIGHT_SLOT && m->slots[f->index].block != NO_BLOCK;
    bool part = f->kind == FLIGHT_UNIT || (f->kind == FLIGHT_SLOT && !block);
    const bool lent =
        f->kind == FLIGHT_PIECE && m->pieces[f->index].lent && m->pieces[f->index].seen;
    if ((block || lent) && m->r->measuring) {
        cause = OT_CAUSE_PREFETCH_WASTED;
        needed = 0;
    } else if (lent) {
        cause = OT_CAUSE_STREAM;
    } else if (!first_trip(m, f)) {
        cause = block ? OT_CAUSE_STREAM : OT_CAUSE_RELOAD;
        needed = block  ? reads_needed_bytes(m, f->payload_bytes)
                 : part ? experts_needed_again(m, f->payload_bytes)
                        : 0;
    }
    struct residency_read read = {
        .extent = f->extent,
        .cause = cause,
        .direct = f->direct,
        .asked_bytes = f->bytes,
        .got_bytes = f->got_bytes,
        .payload_bytes = f->payload_bytes,
        .cached_bytes = f->cached_before,
        .needed_bytes = needed,
    };
    residency_post_read(m->r, &read);
    if (f->kind == FLIGHT_SLOT) {
        struct slot *s = &m->slots[f->index];
        s->cause = cause;
        s->moved_bytes = read.moved_bytes;
        s->needed_bytes = read.needed_bytes;
        s->rounding_bytes = read.rounding_bytes;
    }
}

/* The bytes of a read once more, the same way. Returns how many came, or -errno. */
static int64_t read_again(const struct sys_file *file, const struct flight *f, uint8_t *buf) {
    uint64_t done = 0;
    /* not beyond the end of the file: where a direct read must not begin */
    for (uint32_t n_again = 0; done < min_u64(f->bytes, file->bytes - f->offset);) {
        int64_t n = sys_file_pread(file, f->direct, f->offset + done, buf + done, f->bytes - done);
        if ((n == -EINTR || n == -EAGAIN) && n_again++ < SYS_AGAIN_MOST) {
            continue;
        }
        if (n < 0) {
            return n;
        }
        if (n == 0) {
            break;
        }
        done += (uint64_t)n;
    }
    return (int64_t)done;
}

/* For the test build and ONETRIP_VERIFY=1: the bytes are those of the file at the right place. They
 * are read a second time for that, which is posted like any trip. */
static bool same_as_file(struct mover *m, const struct flight *f) {
    if (!m->verify) {
        return true;
    }
    const struct sys_file *file = &m->r->files[m->r->extents[f->extent].file];
    uint8_t *again = sys_memory_take(f->bytes, false, &m->failure);
    if (again == NULL) {
        return false;
    }
    uint64_t bytes = min_u64(f->got_bytes, file->bytes - f->offset), cached = 0;
    if (!f->direct && !file->cache_unknown) { /* others may keep it in the page cache */
        cached = min_u64(cached_bytes(m, f), f->bytes);
    }
    residency_account(m->r, f->bytes - cached);
    int64_t n = read_again(file, f, again);
    if (n < 0) {
        error_sys(&m->failure, OT_ERR_IO, (int)-n, file->path,
                  "reading %llu bytes at %llu again failed", (unsigned long long)f->bytes,
                  (unsigned long long)f->offset);
    } else {
        uint64_t moved = (uint64_t)n - min_u64(cached, (uint64_t)n);
        residency_post(m->r, f->extent, OT_CAUSE_RELOAD, moved, 0, 0);
        if (!f->direct) {
            residency_post_copy(m->r, f->extent, (uint64_t)n, moved);
            drop_pages(m, f);
        }
    }
    bool same = n >= 0 && (uint64_t)n >= bytes && memcmp(again, f->buf, (size_t)bytes) == 0;
    if (n >= 0 && !same) {
        error_set(&m->failure, OT_ERR_IO, file->path,
                  "%llu bytes at %llu are in memory with other values than in the file",
                  (unsigned long long)bytes, (unsigned long long)f->offset);
    }
    sys_memory_free(again, f->bytes);
    return same;
}

static bool arrived(struct mover *m, struct flight *f, const struct sys_read_done *done) {
    const struct sys_file *file = &m->r->files[m->r->extents[f->extent].file];
    if (done->error != 0) {
        m->n_reads_failed++;
        error_sys(&m->failure, OT_ERR_IO, done->error, file->path,
                  "reading %llu bytes at %llu failed", (unsigned long long)f->bytes,
                  (unsigned long long)f->offset);
        return false;
    }
    f->got_bytes = done->got_bytes;
    if (f->got_bytes < f->need_bytes) { /* the reader goes on until they are there */
        m->n_reads_failed++;
        error_set(&m->failure, OT_ERR_CHANGED, file->path,
                  "ends at byte %llu now, had %llu when it was opened",
                  (unsigned long long)(f->offset + f->got_bytes), (unsigned long long)file->bytes);
        return false;
    }
    look_for_cache(m, f);
    post(m, f);
    return same_as_file(m, f);
}

bool reads_take(struct mover *m, bool wait) {
    struct sys_read_done done;
    uint64_t start_ns = wait ? clock_ns() : 0;
    bool there = sys_reader_next(m->reader, wait, &done);
    if (wait) {
        m->r->wait_ns += clock_ns() - start_ns;
    }
    if (!there) {
        return false;
    }
    struct flight f = m->flights[done.tag];
    m->flights[done.tag].kind = FLIGHT_NONE;
    m->free_flights[m->n_free_flights++] = done.tag;
    m->buffered_bytes -= f.direct ? 0 : f.bytes;
    bool ok = arrived(m, &f, &done);
    switch (f.kind) {
    case FLIGHT_PIECE:
    case FLIGHT_SLOT: mover_landed(m, &f, ok); break;
    case FLIGHT_UNIT: experts_landed(m, &f, ok); break;
    case FLIGHT_ROW: rows_landed(m, &f, ok); break;
    case FLIGHT_NONE: break;
    }
    return true;
}

const char *reads_name(const struct mover *m) {
    bool direct = true, some = false;
    for (uint32_t i = 0; i < m->r->n_files; i++) {
        bool is = m->r->files[i].direct_fd >= 0;
        direct = direct && is;
        some = some || is;
    }
    bool uring = sys_reader_uring(m->reader);
    if (m->buffered_found) {
        return uring ? "io_uring buffered, though O_DIRECT was granted"
                     : "threads buffered, though O_DIRECT was granted";
    }
    if (direct) {
        return uring ? "io_uring direct" : "threads direct";
    }
    if (some) {
        return uring ? "io_uring, some files direct" : "threads, some files direct";
    }
    return uring ? "io_uring buffered, page cache dropped behind"
                 : "threads buffered, page cache dropped behind";
}

int reads_failure(const struct mover *m, struct ot_error *err) {
    if (err != NULL) {
        *err = m->failure;
    }
    return m->failure.code;
}

bool reads_failure_may_pass(const struct mover *m) {
    return m->failure.sys_errno != 0;
}
