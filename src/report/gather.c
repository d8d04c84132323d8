/* gather.c - collects a report from a context, and judges it: closures, warnings. */
#include "report/report.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/text.h"
#include "engine/engine.h"

enum { MAX_ROWS = OT_BOUNDARY_COUNT * OT_CLASS_COUNT * OT_CAUSE_COUNT };

/* Less than this is noise of the process itself: its own code pages, /proc. */
static const uint64_t noise_bytes = 1u << 20;
static const double residual_limit = 0.01;

static uint64_t extents_moved(const struct ledger *l, const struct report_movement *m) {
    uint64_t bytes = 0;
    for (uint32_t id = 0; id < ledger_n_extents(l); id++) {
        const struct ledger_extent *extent = ledger_get_extent(l, id);
        if (extent->cls == m->cls && ledger_get(l, id, m->boundary, m->cause)->times != 0) {
            bytes += extent->bytes;
        }
    }
    return bytes;
}

static void gather_movements(const struct ledger *l, struct report *r) {
    for (int b = 0; b < OT_BOUNDARY_COUNT; b++) {
        for (int c = 0; c < OT_CLASS_COUNT; c++) {
            for (int k = 0; k < OT_CAUSE_COUNT; k++) {
                struct ledger_counter sum =
                    ledger_sum(l, (enum ot_boundary)b, (enum ot_class)c, (enum ot_cause)k);
                if (sum.times == 0) {
                    continue;
                }
                struct report_movement *m = &r->movements[r->n_movements++];
                *m = (struct report_movement){
                    .boundary = (enum ot_boundary)b,
                    .cls = (enum ot_class)c,
                    .cause = (enum ot_cause)k,
                    .known = ledger_known((enum ot_boundary)b),
                    .moved_bytes = sum.moved_bytes,
                    .needed_bytes = sum.needed_bytes,
                    .rounding_bytes = sum.rounding_bytes,
                };
                m->extent_bytes = extents_moved(l, m);
            }
        }
    }
}

/* In mode cache, of the weight extents that compute read: the bytes that no disk read of this run
 * brought. Of experts at most those: a part that was used twice counts twice, up to the extent. */
static uint64_t found_in_memory(const struct ledger *l) {
    uint64_t found = 0;
    for (uint32_t id = 0; id < ledger_n_extents(l); id++) {
        const struct ledger_extent *extent = ledger_get_extent(l, id);
        if (extent->cls != OT_CLASS_WEIGHT) {
            continue;
        }
        uint64_t used = ledger_get(l, id, OT_RAM_CACHE, OT_CAUSE_COMPUTE)->moved_bytes;
        uint64_t brought = 0;
        for (int k = 0; k < OT_CAUSE_COUNT; k++) {
            brought += ledger_get(l, id, OT_DISK_RAM, (enum ot_cause)k)->moved_bytes;
        }
        used = min_u64(used, extent->bytes);
        found += used > brought ? used - brought : 0;
    }
    return found;
}

static void warn(struct report *r, const char *fmt, ...) OT_PRINTF(2, 3);

static void warn(struct report *r, const char *fmt, ...) {
    if (r->n_warnings == REPORT_WARNINGS) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->warnings[r->n_warnings++], sizeof r->warnings[0], fmt, args);
    va_end(args);
}

static void close_boundary(struct report *r, enum ot_boundary boundary, uint64_t ledger_bytes,
                           uint64_t system_bytes, const char *source) {
    uint64_t difference =
        ledger_bytes > system_bytes ? ledger_bytes - system_bytes : system_bytes - ledger_bytes;
    uint64_t whole = max_u64(max_u64(ledger_bytes, system_bytes), r->model.sweep_bytes);
    struct report_closure *c = &r->closures[r->n_closures++];
    *c = (struct report_closure){
        .boundary = boundary,
        .ledger_bytes = ledger_bytes,
        .system_bytes = system_bytes,
        .source = source,
        .residual = whole != 0 ? (double)difference / (double)whole : 0.0,
    };
    if (c->residual > residual_limit && difference > noise_bytes) {
        char a[24], b[24];
        warn(r, "%s is not closed: the ledger says %s, %s says %s", ot_boundary_name(boundary),
             text_bytes(a, (double)ledger_bytes), source, text_bytes(b, (double)system_bytes));
    }
}

static void judge_settings(struct report *r) {
    char a[24], b[24];
    uint64_t budget = r->context.budget_bytes;
    if (budget != 0 && budget != UINT64_MAX && r->now.peak_rss_bytes > budget) {
        warn(r, "the budget did not hold: %s allowed, the process peaked at %s",
             text_bytes(a, (double)budget), text_bytes(b, (double)r->now.peak_rss_bytes));
    }
    if (r->context.withheld_most_bytes != 0) {
        warn(r, "a control group's limit was lowered: %s of the budget were given back",
             text_bytes(a, (double)r->context.withheld_most_bytes));
    }
    const struct residency_info *info = &r->residency;
    if (info->n_reads_direct < info->n_reads) {
        warn(r, "%llu of %llu reads went through the page cache instead of directly",
             (unsigned long long)(info->n_reads - info->n_reads_direct),
             (unsigned long long)info->n_reads);
    }
    if (info->mode != NULL && strcmp(info->mode, "cache") != 0 &&
        info->resident_bytes + info->unread_bytes + noise_bytes < info->wired_bytes) {
        warn(r, "wired memory is not all there: %s wired, %s resident (swapped or reclaimed)",
             text_bytes(a, (double)info->wired_bytes), text_bytes(b, (double)info->resident_bytes));
    }
    if (r->now.swap_bytes > r->start.swap_bytes + noise_bytes) {
        warn(r, "%s of the process were swapped out",
             text_bytes(a, (double)(r->now.swap_bytes - r->start.swap_bytes)));
    }
}

static void judge_movements(struct report *r) {
    char a[24];
    uint64_t transformed = 0, wasted = 0;
    for (uint32_t i = 0; i < r->n_movements; i++) {
        const struct report_movement *m = &r->movements[i];
        if (m->boundary == OT_RAM_RAM &&
            (m->cls == OT_CLASS_WEIGHT || m->cls == OT_CLASS_TRANSFORM)) {
            transformed += m->moved_bytes;
        }
        if (m->cause == OT_CAUSE_PREFETCH_WASTED) {
            wasted += m->moved_bytes;
        }
    }
    if (transformed != 0) {
        warn(r, "%s of weights were copied or transformed inside memory",
             text_bytes(a, (double)transformed));
    }
    if (wasted > noise_bytes) {
        warn(r, "%s were read ahead and never used, or read to measure the disk",
             text_bytes(a, (double)wasted));
    }
}

void report_judge(struct report *r) {
    uint64_t disk_bytes = 0;
    r->n_closures = r->n_warnings = 0;
    r->disk_weight_bytes = r->min_bytes = 0;
    for (uint32_t i = 0; i < r->n_movements; i++) {
        const struct report_movement *m = &r->movements[i];
        if (m->boundary == OT_DISK_RAM) {
            disk_bytes += m->moved_bytes;
            r->disk_weight_bytes += m->cls == OT_CLASS_WEIGHT ? m->moved_bytes : 0;
            r->min_bytes += m->cls == OT_CLASS_WEIGHT ? m->needed_bytes : 0;
        }
    }
    if (r->start.io_known && r->now.io_known) {
        uint64_t read = r->now.read_bytes - r->start.read_bytes;
        const bool alone = r->others_read_bytes == 0;
        close_boundary(r, OT_DISK_RAM, disk_bytes, read - min_u64(r->others_read_bytes, read),
                       r->residency.cache_unknown
                           ? "/proc/self/io read_bytes (the ledger's source here, too)"
                       : alone ? "/proc/self/io read_bytes"
                               : "/proc/self/io read_bytes, less what other contexts read");
        /* Reads by pread also pass rchar; reads by io_uring and by mapping, as of headers, do not.
         * What is not read directly is copied from the page cache, wherever it was before. */
        if (alone && r->residency.io != NULL && strncmp(r->residency.io, "threads", 7) == 0) {
            bool direct = r->residency.n_reads_direct == r->residency.n_reads;
            close_boundary(r, direct ? OT_DISK_RAM : OT_RAM_RAM, r->residency.brought_bytes,
                           r->now.rchar - r->start.rchar, "/proc/self/io rchar");
        }
    }
    double all_s = 0.0;
    for (int p = 0; p < OT_PHASE_COUNT; p++) {
        all_s += r->context.compute_s[p];
    }
    r->stall_share = all_s > 0.0 ? r->context.wait_disk_s / all_s : 0.0;
    judge_settings(r);
    judge_movements(r);
}

int report_gather(struct ot_context *ctx, const struct ot_run *run, struct report *r,
                  struct ot_error *err) {
    static const struct ot_run none = {0};
    memset(r, 0, sizeof *r);
    r->movements = mem_calloc(MAX_ROWS, sizeof *r->movements);
    if (r->movements == NULL) {
        return error_memory(err, MAX_ROWS * sizeof *r->movements);
    }
    r->run = run != NULL ? run : &none;
    ot_model_get_info(engine_model(ctx), &r->model);
    ot_context_get_info(ctx, &r->context);
    residency_get_info(engine_residency(ctx), &r->residency);
    sys_limits_read(&r->limits);
    r->start = *engine_process_at_start(ctx);
    sys_process_read(&r->now);
    r->others_read_bytes = engine_others_read_bytes(ctx);
    r->min_unknown = !residency_settle_needs(engine_residency(ctx));
    gather_movements(engine_ledger(ctx), r);
    if (strcmp(r->residency.mode, "cache") == 0) { /* else every byte comes by a read */
        r->found_bytes = found_in_memory(engine_ledger(ctx));
    }
    report_judge(r);
    return 0;
}

uint64_t report_decoded(const struct report *r) {
    return r->context.n_sweeps_decode + r->run->n_accepted;
}

void report_deinit(struct report *r) {
    mem_free(r->movements);
    memset(r, 0, sizeof *r);
}

void ot_ledger_total(const struct ot_context *ctx, enum ot_boundary boundary, enum ot_class cls,
                     uint64_t *moved_bytes, uint64_t *needed_bytes) {
    struct ledger_counter sum = {0};
    if ((unsigned)boundary < OT_BOUNDARY_COUNT) {
        sum = ledger_sum(engine_ledger(ctx), boundary, cls, OT_CAUSE_COUNT);
    }
    *moved_bytes = sum.moved_bytes;
    *needed_bytes = sum.needed_bytes;
}
