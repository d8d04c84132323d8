/* json.c - the report as JSON, the fields that other programs rely on. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/json_text.h"
#include "report/report.h"
#include "sys/file.h"

static json_t *text(const char *value) {
    return json_text(value != NULL ? value : "");
}
static json_t *count(uint64_t value) {
    return json_integer((json_int_t)value);
}
/* What the caller of the library says may be anything; JSON has no word for what is not finite. */
static json_t *real(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* A limit that is not there is null, not a huge number. */
static json_t *limit(uint64_t value) {
    return value == UINT64_MAX ? json_null() : count(value);
}

/* Takes the value's reference; a NULL value (no memory) marks the object as failed. */
static void put(json_t *object, const char *key, json_t *value, bool *failed) {
    if (json_object_set_new(object, key, value) != 0) {
        *failed = true;
    }
}

static json_t *add_object(json_t *root, const char *key, bool *failed) {
    json_t *object = json_object();
    put(root, key, object, failed);
    return object;
}

static json_t *add_array(json_t *root, const char *key, bool *failed) {
    json_t *array = json_array();
    put(root, key, array, failed);
    return array;
}

static json_t *append_object(json_t *array, bool *failed) {
    json_t *object = json_object();
    if (json_array_append_new(array, object) != 0) {
        *failed = true;
        return NULL;
    }
    return object;
}

static void put_identity(const struct report *r, json_t *root, bool *failed) {
    json_t *program = add_object(root, "program", failed);
    put(program, "version", text(ot_version()), failed);
    put(program, "commit", text(ot_commit()), failed);
    const struct ot_model_info *m = &r->model;
    json_t *model = add_object(root, "model", failed);
    put(model, "path", text(m->path), failed);
    put(model, "name", text(m->name), failed);
    put(model, "architecture", text(m->architecture), failed);
    put(model, "quantisation", text(m->quantisation), failed);
    put(model, "file_bytes", count(m->file_bytes), failed);
    put(model, "weight_bytes", count(m->weight_bytes), failed);
    put(model, "sweep_bytes", count(m->sweep_bytes), failed);
    json_t *machine = add_object(root, "machine", failed);
    put(machine, "cpu", text(sys_cpu_facts()->name), failed);
    put(machine, "isa", text(ot_kernels()), failed);
    put(machine, "threads", count(r->context.n_threads), failed);
    put(machine, "memory_bytes", count(r->limits.memory_bytes), failed);
    put(machine, "limit_bytes", limit(r->limits.cgroup_bytes), failed);
    put(machine, "available_bytes", count(r->limits.available_bytes), failed);
    if (r->run->bandwidth_bytes_per_s > 0.0) {
        put(machine, "read_bytes_per_s", real(r->run->bandwidth_bytes_per_s), failed);
    }
}

/* A setting as it was typed: whole numbers become numbers. */
static json_t *setting(const char *value) {
    size_t bytes = strlen(value);
    if (bytes != 0 && bytes <= 18 && strspn(value, "0123456789") == bytes) {
        return json_integer(strtoll(value, NULL, 10));
    }
    return text(value);
}

static void put_settings(const struct report *r, json_t *root, bool *failed) {
    const struct ot_context_info *c = &r->context;
    json_t *requested = add_object(root, "requested", failed);
    for (size_t i = 0; i < r->run->n_requested; i++) {
        put(requested, r->run->requested[2 * i], setting(r->run->requested[2 * i + 1]), failed);
    }
    json_t *effective = add_object(root, "effective", failed);
    put(effective, "ram", count(c->budget_bytes), failed);
    put(effective, "ram_source", text(c->budget_source), failed);
    put(effective, "ram_least", count(c->least_budget_bytes), failed);
    put(effective, "residency", text(c->residency), failed);
    put(effective, "residency_why", text(c->residency_why), failed);
    put(effective, "io", text(c->io), failed);
    put(effective, "reads", count(r->residency.n_reads), failed);
    put(effective, "reads_direct", count(r->residency.n_reads_direct), failed);
    put(effective, "threads", count(c->n_threads), failed);
    put(effective, "kernels", text(ot_kernels()), failed);
    put(effective, "prefetch_bytes", count(c->prefetch_bytes), failed);
    put(effective, "ctx", count(c->n_ctx), failed);
    put(effective, "sequences", count(c->n_seq), failed);
    put(effective, "kv_positions", count(c->n_kv), failed);
    put(effective, "batch", count(c->n_batch), failed);
    put(effective, "draft", count(c->n_draft), failed);
    put(effective, "wired_resident_bytes", count(r->residency.resident_bytes), failed);
    put(effective, "wired_locked_bytes", count(r->residency.locked_bytes), failed);
}

static json_t *ids(const uint32_t *tokens, size_t n, bool *failed) {
    json_t *array = json_array();
    for (size_t i = 0; i < n && array != NULL; i++) {
        if (json_array_append_new(array, count(tokens[i])) != 0) {
            *failed = true;
            break;
        }
    }
    return array;
}

static void put_run(const struct report *r, json_t *root, bool *failed) {
    const struct ot_run *run = r->run;
    const struct ot_context_info *c = &r->context;
    json_t *tokens = add_object(root, "tokens", failed);
    put(tokens, "prompt", ids(run->prompt, run->n_prompt, failed), failed);
    put(tokens, "generated", ids(run->generated, run->n_generated, failed), failed);
    json_t *sweeps = add_object(root, "sweeps", failed);
    put(sweeps, "prompt", count(c->n_sweeps_prompt), failed);
    put(sweeps, "decode", count(c->n_sweeps_decode), failed);
    json_t *draft = add_object(root, "draft", failed);
    put(draft, "guessed", count(run->n_drafted), failed);
    put(draft, "accepted", count(run->n_accepted), failed);
    json_t *timing = add_object(root, "timing", failed);
    put(timing, "load_s", real(run->load_s), failed);
    put(timing, "first_token_s", real(run->first_token_s), failed);
    put(timing, "prompt_s", real(run->prompt_s), failed);
    put(timing, "decode_s", real(run->decode_s), failed);
    put(timing, "prompt_tokens_per_s",
        real(run->prompt_s > 0.0 ? (double)run->n_prompt / run->prompt_s : 0.0), failed);
    put(timing, "decode_tokens_per_s",
        real(run->decode_s > 0.0 ? (double)report_decoded(r) / run->decode_s : 0.0), failed);
    put(timing, "weights_s", real(c->compute_s[OT_PHASE_WEIGHTS]), failed);
    put(timing, "attention_s", real(c->compute_s[OT_PHASE_ATTENTION]), failed);
    put(timing, "barriers_s", real(c->compute_s[OT_PHASE_BARRIERS]), failed);
    put(timing, "other_s", real(c->compute_s[OT_PHASE_OTHER]), failed);
    put(timing, "wait_disk_s", real(c->wait_disk_s), failed);
    put(timing, "stall_share", real(r->stall_share), failed);
}

static void put_residency(const struct report *r, json_t *root, bool *failed) {
    const struct residency_info *info = &r->residency;
    json_t *residency = add_object(root, "residency", failed);
    put(residency, "budget_bytes", count(r->context.budget_bytes), failed);
    put(residency, "least_budget_bytes", count(r->context.least_budget_bytes), failed);
    put(residency, "mode", text(info->mode), failed);
    put(residency, "wired_bytes", count(info->wired_bytes), failed);
    put(residency, "locked_bytes", count(info->locked_bytes), failed);
    put(residency, "resident_bytes", count(info->resident_bytes), failed);
    put(residency, "unread_bytes", count(info->unread_bytes), failed);
    put(residency, "withheld_bytes", count(r->context.withheld_bytes), failed);
    put(residency, "withheld_most_bytes", count(r->context.withheld_most_bytes), failed);
    put(residency, "slot_bytes", count(info->slot_bytes), failed);
    put(residency, "streamed_bytes_per_sweep", count(info->streamed_bytes_per_sweep), failed);
    put(residency, "min_bytes", r->min_unknown ? json_null() : count(r->min_bytes), failed);
    put(residency, "excess_over_min_bytes",
        r->min_unknown ? json_null()
                       : json_integer((json_int_t)r->disk_weight_bytes - (json_int_t)r->min_bytes),
        failed);
    put(residency, "found_in_memory_bytes", count(r->found_bytes), failed);
    put(residency, "kv_bytes", count(r->context.kv_bytes), failed);
    put(residency, "activation_bytes", count(r->context.activation_bytes), failed);
    put(residency, "table_bytes", count(r->context.table_bytes), failed);
    put(residency, "program_bytes", count(r->context.program_bytes), failed);
    put(residency, "reserve_bytes", count(r->context.reserve_bytes), failed);
    put(residency, "peak_rss_bytes", count(r->now.peak_rss_bytes), failed);
}

static void put_movements(const struct report *r, json_t *root, bool *failed) {
    json_t *movements = add_array(root, "movements", failed);
    for (uint32_t i = 0; i < r->n_movements && !*failed; i++) {
        const struct report_movement *m = &r->movements[i];
        json_t *row = append_object(movements, failed);
        put(row, "boundary", text(ot_boundary_name(m->boundary)), failed);
        put(row, "class", text(ot_class_name(m->cls)), failed);
        put(row, "cause", text(ot_cause_name(m->cause)), failed);
        put(row, "known", text(ledger_known_name(m->known)), failed);
        put(row, "moved_bytes", count(m->moved_bytes), failed);
        put(row, "needed_bytes", count(m->needed_bytes), failed);
        put(row, "rounding_bytes", count(m->rounding_bytes), failed);
        put(row, "extent_bytes", count(m->extent_bytes), failed);
    }
    json_t *closure = add_array(root, "closure", failed);
    for (uint32_t i = 0; i < r->n_closures && !*failed; i++) {
        const struct report_closure *c = &r->closures[i];
        json_t *row = append_object(closure, failed);
        put(row, "boundary", text(ot_boundary_name(c->boundary)), failed);
        put(row, "ledger_bytes", count(c->ledger_bytes), failed);
        put(row, "system_bytes", count(c->system_bytes), failed);
        put(row, "source", text(c->source), failed);
        put(row, "residual", real(c->residual), failed);
    }
    json_t *warnings = add_array(root, "warnings", failed);
    for (uint32_t i = 0; i < r->n_warnings && !*failed; i++) {
        *failed |= json_array_append_new(warnings, text(r->warnings[i])) != 0;
    }
}

static void put_results(const struct report *r, json_t *root, bool *failed) {
    if (r->run->results == NULL) {
        return;
    }
    json_t *results = add_array(root, "results", failed);
    for (size_t i = 0; i < r->run->n_results && !*failed; i++) {
        const struct ot_bench_result *b = &r->run->results[i];
        json_t *row = append_object(results, failed);
        put(row, "test", text(b->test), failed);
        put(row, "threads", json_integer(b->n_threads), failed);
        put(row, "tokens_per_s", real(b->tokens_per_s), failed);
        put(row, "stddev", real(b->stddev), failed);
        put(row, "needed_bytes_per_token", real(b->needed_bytes_per_token), failed);
    }
}

json_t *report_json(const struct report *r) {
    json_t *root = json_object();
    bool failed = root == NULL;
    put_identity(r, root, &failed);
    put_settings(r, root, &failed);
    put_run(r, root, &failed);
    put_residency(r, root, &failed);
    put_movements(r, root, &failed);
    put_results(r, root, &failed);
    if (failed) {
        json_decref(root);
        return NULL;
    }
    return root;
}

int ot_report_write(struct ot_context *ctx, const struct ot_run *run, const char *path,
                    struct ot_error *err) {
    struct report report;
    int rc = report_gather(ctx, run, &report, err);
    if (rc != 0) {
        return rc;
    }
    json_t *root = report_json(&report);
    report_deinit(&report);
    size_t bytes = 0;
    char *dump =
        root != NULL ? json_whole(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12), &bytes) : NULL;
    json_decref(root);
    if (dump == NULL) {
        return error_set(err, OT_ERR_MEMORY, path, "no memory for the report");
    }
    dump[bytes] = '\n'; /* in the place of the terminator: a text file ends in a newline */
    rc = sys_file_write(path, dump, bytes + 1, err);
    mem_free(dump);
    return rc;
}
