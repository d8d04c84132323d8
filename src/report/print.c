/* print.c - the report as text: movements by boundary and class, settings, closure, warnings; in
 * lines of at most 80 columns where the figures are those of common sizes. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/text.h"
#include "report/report.h"

/* Several causes of one boundary and class, folded into a row. */
struct row {
    uint64_t moved, needed, rounding, extents;
    char causes[64];
    bool any;
};

static void fold(const struct report *r, enum ot_boundary boundary, enum ot_class cls,
                 struct row *row) {
    memset(row, 0, sizeof *row);
    for (uint32_t i = 0; i < r->n_movements; i++) {
        const struct report_movement *m = &r->movements[i];
        if (m->boundary != boundary || m->cls != cls) {
            continue;
        }
        row->moved += m->moved_bytes;
        row->needed += m->needed_bytes;
        row->rounding += m->rounding_bytes;
        row->extents = m->extent_bytes > row->extents ? m->extent_bytes : row->extents;
        size_t used = strlen(row->causes);
        snprintf(row->causes + used, sizeof row->causes - used, "%s%s", row->any ? "+" : "",
                 ot_cause_name(m->cause));
        row->any = true;
    }
}

/* "1.02x", or "+N extra" where nothing was needed. */
static const char *amplification(char buf[40], uint64_t moved, uint64_t needed) {
    char bytes[24];
    if (needed != 0) {
        snprintf(buf, 40, "%.2fx", (double)moved / (double)needed);
    } else if (moved != 0) {
        snprintf(buf, 40, "+%s extra", text_bytes(bytes, (double)moved));
    } else {
        snprintf(buf, 40, "none");
    }
    return buf;
}

/* Moved / size, with as many decimals as six characters hold. */
static const char *trips(char buf[24], uint64_t moved, uint64_t extents) {
    double n = extents != 0 ? (double)moved / (double)extents : 0.0;
    int decimals = n < 999.5 ? 2 : n < 9999.5 ? 1 : 0;
    snprintf(buf, 24, extents != 0 ? "%.*f" : "-", decimals, n);
    return buf;
}

static void print_row(FILE *out, const char *boundary, const char *cls, const struct row *row) {
    char moved[24], needed[24], rounding[24], amp[40], times[24];
    fprintf(out, "  %-9s %-9s %7s %7s %8s %7s %6s %s\n", boundary, cls,
            text_bytes(moved, (double)row->moved), text_bytes(needed, (double)row->needed),
            text_bytes(rounding, (double)row->rounding),
            amplification(amp, row->moved, row->needed), trips(times, row->moved, row->extents),
            row->causes);
}

static void print_movements(const struct report *r, FILE *out) {
    fprintf(out, "  %-9s %-9s %7s %7s %8s %7s %6s %s\n", "boundary", "class", "moved", "needed",
            "rounding", "amplif.", "trips", "cause");
    for (int b = 0; b < OT_BOUNDARY_COUNT; b++) {
        for (int c = 0; c < OT_CLASS_COUNT; c++) {
            struct row row;
            fold(r, (enum ot_boundary)b, (enum ot_class)c, &row);
            /* Weights that did not move where they could have are worth a row of zeros. */
            bool telling = c == OT_CLASS_WEIGHT && (b == OT_DISK_RAM || b == OT_RAM_RAM);
            if (!row.any && !telling) {
                continue;
            }
            if (!row.any) {
                snprintf(row.causes, sizeof row.causes, "-");
            }
            print_row(out, ot_boundary_name((enum ot_boundary)b), ot_class_name((enum ot_class)c),
                      &row);
        }
    }
}

static void print_per_token(const struct report *r, FILE *out) {
    uint64_t sweeps = r->context.n_sweeps_prompt + r->context.n_sweeps_decode;
    bool known_run = r->run->n_prompt + r->run->n_generated != 0;
    uint64_t tokens = known_run ? r->run->n_prompt + report_decoded(r) : r->context.n_tokens;
    if (sweeps == 0 || tokens == 0) {
        return;
    }
    for (int b = 0; b < OT_BOUNDARY_COUNT; b++) {
        uint64_t moved = 0;
        enum ot_known known = OT_COUNTED;
        for (uint32_t i = 0; i < r->n_movements; i++) {
            if (r->movements[i].boundary == (enum ot_boundary)b) {
                moved += r->movements[i].moved_bytes;
                known = r->movements[i].known;
            }
        }
        if (moved == 0 && b != OT_DISK_RAM) {
            continue;
        }
        char per_token[24], per_sweep[24];
        fprintf(out, "  %-9s %s a token, %s a sweep; %s\n", ot_boundary_name((enum ot_boundary)b),
                text_bytes(per_token, (double)moved / (double)tokens),
                text_bytes(per_sweep, (double)moved / (double)sweeps), ledger_known_name(known));
    }
}

static const char *asked(const struct report *r, const char *key) {
    for (size_t i = 0; i < r->run->n_requested; i++) {
        if (strcmp(r->run->requested[2 * i], key) == 0) {
            return r->run->requested[2 * i + 1];
        }
    }
    return "-";
}

static void print_setting(const struct report *r, FILE *out, const char *name, const char *fmt, ...)
    OT_PRINTF(4, 5);

/* The name, what was asked for, what came of it; a long value goes on in the lines below. */
static void print_setting(const struct report *r, FILE *out, const char *name, const char *fmt,
                          ...) {
    enum { WIDTH = 57 };
    char value[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(value, sizeof value, fmt, args);
    va_end(args);
    fprintf(out, "  %-9s %-10s ", name, asked(r, name));
    const char *at = value;
    while (strlen(at) > WIDTH) {
        size_t n = WIDTH;
        while (n > 0 && at[n] != ' ') {
            n--;
        }
        if (n == 0) {
            break;
        }
        fprintf(out, "%.*s\n%23s", (int)n, at, "");
        at += n + 1;
    }
    fprintf(out, "%s\n", at);
}

static void print_settings(const struct report *r, FILE *out) {
    const struct ot_context_info *c = &r->context;
    const struct residency_info *info = &r->residency;
    char a[24], b[24], d[24], reads[64] = "", right[64] = "";
    if (info->n_reads != 0) {
        snprintf(reads, sizeof reads, ", %" PRIu64 " of %" PRIu64 " reads direct",
                 info->n_reads_direct, info->n_reads);
    }
    if (r->run->n_drafted != 0) {
        snprintf(right, sizeof right, "; %" PRIu64 " of %" PRIu64 " were right", r->run->n_accepted,
                 r->run->n_drafted);
    }
    fprintf(out, "  %-9s %-10s %s\n", "setting", "requested", "effective");
    print_setting(r, out, "ram", "%s (%s); peak %s", text_bytes(a, (double)c->budget_bytes),
                  c->budget_source, text_bytes(b, (double)r->now.peak_rss_bytes));
    print_setting(r, out, "residency", "%s: %s", c->residency, c->residency_why);
    print_setting(r, out, "io", "%s%s", c->io, reads);
    print_setting(r, out, "threads", "%" PRIu32 ", kernels %s, prefetching %" PRIu64 " bytes ahead",
                  c->n_threads, ot_kernels(), c->prefetch_bytes);
    char sequences[64] = "";
    if (c->n_seq > 1) {
        snprintf(sequences, sizeof sequences,
                 " for each of %" PRIu32 " sequences, %" PRIu32 " in all", c->n_seq, c->n_kv);
    }
    print_setting(r, out, "ctx", "%" PRIu32 " position%s%s", c->n_ctx, c->n_ctx == 1 ? "" : "s",
                  sequences);
    print_setting(r, out, "batch", "%" PRIu32 " tokens a sweep at most", c->n_batch);
    print_setting(r, out, "draft", "%" PRIu32 " tokens guessed at most%s", c->n_draft, right);
    print_setting(r, out, "weights", "wired %s (resident %s, locked %s)",
                  text_bytes(a, (double)info->wired_bytes),
                  text_bytes(b, (double)info->resident_bytes),
                  text_bytes(d, (double)info->locked_bytes));
    print_setting(r, out, "slots", "%s, %s streamed a sweep",
                  text_bytes(a, (double)info->slot_bytes),
                  text_bytes(b, (double)info->streamed_bytes_per_sweep));
    print_setting(r, out, "buffers", "KV %s, activations %s, tables %s",
                  text_bytes(a, (double)c->kv_bytes), text_bytes(b, (double)c->activation_bytes),
                  text_bytes(d, (double)c->table_bytes));
    const uint64_t parts = info->wired_bytes + info->slot_bytes + c->kv_bytes +
                           c->activation_bytes + c->program_bytes + c->reserve_bytes;
    if (info->wired_bytes + info->slot_bytes > 0 && parts <= c->budget_bytes) {
        print_setting(r, out, "rest", "program %s, reserve %s, unused %s",
                      text_bytes(a, (double)c->program_bytes),
                      text_bytes(b, (double)c->reserve_bytes),
                      text_bytes(d, (double)(c->budget_bytes - parts)));
    }
}

static void print_closure(const struct report *r, FILE *out) {
    char a[24], b[24];
    for (uint32_t i = 0; i < r->n_closures; i++) {
        const struct report_closure *c = &r->closures[i];
        fprintf(out, "  %-9s ledger %s, %s %s: residual %.2f %%\n", ot_boundary_name(c->boundary),
                text_bytes(a, (double)c->ledger_bytes), c->source,
                text_bytes(b, (double)c->system_bytes), 100.0 * c->residual);
    }
    if (r->n_closures == 0) {
        fprintf(out, "  disk>ram  not closed: /proc/self/io cannot be read here\n");
    }
    if (r->found_bytes != 0) {
        fprintf(out, "  %s%s of the weights used were already in memory (page cache)\n",
                r->model.n_experts > 0 ? "at most " : "", text_bytes(a, (double)r->found_bytes));
    }
    if (r->residency.unread_bytes != 0) {
        fprintf(out, "  %s of the wired weights are not in memory: lent, or not used yet\n",
                text_bytes(a, (double)r->residency.unread_bytes));
    }
    if (r->min_unknown) {
        fprintf(out, "  MIN (the least possible from disk) is not known: the trace of the\n"
                     "  experts' uses outgrew its memory\n");
    } else if (r->disk_weight_bytes != 0 && r->min_bytes != 0) {
        double excess = (double)r->disk_weight_bytes - (double)r->min_bytes;
        fprintf(out, "  MIN (the least possible from disk) %s; excess %s%s (%.2f %%)\n",
                text_bytes(a, (double)r->min_bytes), excess < 0 ? "-" : "",
                text_bytes(b, excess < 0 ? -excess : excess),
                100.0 * excess / (double)r->min_bytes);
    }
    fprintf(out, "  waiting for the disk: %.3f s, %.1f %% of the sweeps' time\n",
            r->context.wait_disk_s, 100.0 * r->stall_share);
}

/* "  load 0.011 s, first token 0.020 s; tokens/s: prompt 1166, decode 254.5", without what is not
 * known. */
static void print_times(const struct report *r, FILE *out) {
    const struct ot_run *run = r->run;
    const bool decoded = run->decode_s > 0.0 && r->context.n_sweeps_decode != 0;
    const struct {
        const char *name;
        double value;
        bool is_rate;
    } items[] = {
        {"load", run->load_s, false},
        {"first token", run->first_token_s, false},
        {"prompt", run->prompt_s > 0.0 ? (double)run->n_prompt / run->prompt_s : 0.0, true},
        {"decode", decoded ? (double)report_decoded(r) / run->decode_s : 0.0, true},
    };
    bool any = false, any_rate = false;
    for (uint32_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        const double value = items[i].value;
        if (!(value > 0.0)) {
            continue;
        }
        bool first_rate = items[i].is_rate && !any_rate;
        fprintf(out, "%s%s%s %.*f%s",
                !any         ? "  "
                : first_rate ? "; "
                             : ", ",
                first_rate ? "tokens/s: " : "", items[i].name,
                !items[i].is_rate ? 3
                : value < 1000.0  ? 1
                                  : 0,
                value, items[i].is_rate ? "" : " s");
        any = true;
        any_rate |= items[i].is_rate;
    }
    if (any) {
        fprintf(out, "\n");
    }
}

static void print_heading(const struct report *r, FILE *out) {
    const struct ot_run *run = r->run;
    uint64_t decode = r->context.n_sweeps_decode;
    /* A sweep of a few tokens counts as decode, also where eval takes them from a text. */
    uint64_t prompt = r->context.n_sweeps_prompt + (run->n_generated == 0 ? decode : 0);
    /* of a caller that told nothing, all tokens */
    bool known = run->n_prompt + run->n_generated != 0;
    uint64_t tokens = known ? run->n_prompt : r->context.n_tokens;
    char bytes[24];
    fprintf(out, "ledger: %s %s, %s; %" PRIu64 "%s token%s in %" PRIu64 " sweep%s",
            r->model.architecture, r->model.quantisation,
            text_bytes(bytes, (double)r->model.weight_bytes), tokens, known ? " prompt" : "",
            tokens == 1 ? "" : "s", prompt, prompt == 1 ? "" : "s");
    if (run->n_generated != 0) {
        fprintf(out, ", %zu generated in %" PRIu64, run->n_generated, decode);
    }
    fprintf(out, "\n");
    print_times(r, out);
}

void report_print(const struct report *r, FILE *out) {
    print_heading(r, out);
    print_movements(r, out);
    print_per_token(r, out);
    print_settings(r, out);
    print_closure(r, out);
    for (uint32_t i = 0; i < r->n_warnings; i++) {
        fprintf(out, "  WARNING: %s\n", r->warnings[i]);
    }
}

int ot_report_print(struct ot_context *ctx, const struct ot_run *run, FILE *out,
                    struct ot_error *err) {
    struct report report;
    int rc = report_gather(ctx, run, &report, err);
    if (rc != 0) {
        return rc;
    }
    report_print(&report, out);
    report_deinit(&report);
    return 0;
}
