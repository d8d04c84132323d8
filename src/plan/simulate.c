/* simulate.c - residency policies on a recorded trace: what each would have read.
 *
 * Runs the policy objects that the engine runs. Figures and formulas: docs/simulate.md. */
#include "plan/simulate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/json_text.h"
#include "base/text.h"

int plan_next_uses(const struct plan_trace *trace, uint32_t **out, struct ot_error *err) {
    uint32_t *next_use = mem_calloc(trace->n_uses, sizeof *next_use);
    if (next_use == NULL) {
        return error_memory(err, (uint64_t)trace->n_uses * sizeof *next_use);
    }
    int rc = policy_next_uses(trace->uses, trace->n_uses, trace->n_extents, next_use, err);
    if (rc != 0) {
        mem_free(next_use);
        return rc;
    }
    *out = next_use;
    return 0;
}

int plan_simulate(const struct plan_trace *trace, const uint32_t *next_use, enum policy_kind kind,
                  uint64_t budget_bytes, struct plan_result *out, struct ot_error *err) {
    struct policy_params params = {.kind = kind,
                                   .n_items = trace->n_extents,
                                   .item_bytes = trace->extent_bytes,
                                   .capacity_bytes = budget_bytes,
                                   .parts = true};
    struct policy *policy;
    int rc = policy_open(&params, &policy, err);
    if (rc != 0) {
        return rc;
    }
    struct plan_result result = {0};
    uint64_t first_bytes = 0;
    for (uint32_t i = 0; i < trace->n_uses; i++) {
        uint64_t next = next_use[i] == UINT32_MAX ? POLICY_NEVER : next_use[i];
        uint64_t missing = policy_access(policy, trace->uses[i], next);
        result.hits += missing == 0;
        result.misses += missing != 0;
        result.read_bytes += missing;
        if (i < trace->first_sweep_uses) {
            first_bytes += missing;
        }
    }
    result.steady_bytes = trace->n_sweeps > 1 ? result.read_bytes - first_bytes : first_bytes;
    policy_close(policy);
    *out = result;
    return 0;
}

static int most_first(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x < y) - (x > y);
}

static int hottest_tenth(const struct plan_trace *trace, double *out, struct ot_error *err) {
    uint32_t *counts = mem_calloc(trace->n_extents, sizeof *counts);
    if (counts == NULL) {
        return error_memory(err, (uint64_t)trace->n_extents * sizeof *counts);
    }
    for (uint32_t i = 0; i < trace->n_uses; i++) {
        counts[trace->uses[i]]++;
    }
    qsort(counts, trace->n_extents, sizeof *counts, most_first);
    uint32_t n_used = 0;
    while (n_used < trace->n_extents && counts[n_used] > 0) {
        n_used++;
    }
    uint64_t sum = 0;
    for (uint32_t i = 0; i < (n_used + 9) / 10; i++) {
        sum += counts[i];
    }
    mem_free(counts);
    *out = (double)sum / trace->n_uses;
    return 0;
}

/* ---- printing ----------------------------------------------------------------------------- */

struct report {
    const char *path;
    const struct plan_trace *trace;
    uint64_t budget_bytes;
    double hottest_tenth;
    bool wanted[POLICY_KIND_COUNT];
    struct plan_result results[POLICY_KIND_COUNT]; /* of the wanted ones and min */
};

/* Over the optimum; 1 where both read nothing. */
static double over_min(const struct report *r, enum policy_kind kind) {
    uint64_t least = r->results[POLICY_MIN].read_bytes;
    return least > 0 ? (double)r->results[kind].read_bytes / (double)least : 1.0;
}

static uint64_t steady_per_sweep(const struct report *r, enum policy_kind kind) {
    uint64_t n = r->trace->n_sweeps;
    return r->results[kind].steady_bytes / (n > 1 ? n - 1 : 1);
}

static double hit_share(const struct report *r, enum policy_kind kind) {
    return 1.0 - (double)r->results[kind].read_bytes / (double)r->trace->used_bytes;
}

static void print_text(const struct report *r, FILE *out) {
    char a[24], b[24], c[24];
    const struct plan_trace *t = r->trace;
    for (const char *path = r->path; *path != '\0';) {
        char part[256];
        path += ot_text_printable(path, part, sizeof part);
        fputs(part, out);
    }
    fprintf(out,
            ": %u extents, %u uses in %" PRIu64 " sweeps;\n%s used, %s compulsory; budget %s\n",
            t->n_extents, t->n_uses, t->n_sweeps, text_bytes(a, (double)t->used_bytes),
            text_bytes(b, (double)t->compulsory_bytes), text_bytes(c, (double)r->budget_bytes));
    fprintf(out, "%-6s %9s %9s %7s %9s %9s %8s %15s\n", "policy", "hits", "misses", "read",
            "hit bytes", "per sweep", "/ MIN", "over compulsory");
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        if (!r->wanted[k]) {
            continue;
        }
        const struct plan_result *p = &r->results[k];
        fprintf(out, "%-6s %9" PRIu64 " %9" PRIu64 " %7s %7.2f %% %9s %8.3f %15s\n",
                policy_kind_name(k), p->hits, p->misses, text_bytes(a, (double)p->read_bytes),
                100 * hit_share(r, k), text_bytes(b, (double)steady_per_sweep(r, k)),
                over_min(r, k), text_bytes(c, (double)(p->read_bytes - t->compulsory_bytes)));
    }
    fprintf(out, "the most used tenth of the extents takes %.1f %% of the uses\n",
            100 * r->hottest_tenth);
}

static int print_json(const struct report *r, FILE *out, struct ot_error *err) {
    const struct plan_trace *t = r->trace;
    json_t *policies = json_array();
    bool failed = false;
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        if (!r->wanted[k]) {
            continue;
        }
        const struct plan_result *p = &r->results[k];
        failed |=
            json_array_append_new(
                policies,
                json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:I}", "policy", policy_kind_name(k),
                          "hits", (json_int_t)p->hits, "misses", (json_int_t)p->misses,
                          "read_bytes", (json_int_t)p->read_bytes, "steady_bytes_per_sweep",
                          (json_int_t)steady_per_sweep(r, k), "hit_bytes_share", hit_share(r, k),
                          "over_min", over_min(r, k), "over_compulsory_bytes",
                          (json_int_t)(p->read_bytes - t->compulsory_bytes))) != 0;
    }
    json_t *root = json_pack(
        "{s:{s:o, s:I, s:I, s:I, s:I, s:I, s:f}, s:I, s:o}", "trace", "path", json_text(r->path),
        "extents", (json_int_t)t->n_extents, "uses", (json_int_t)t->n_uses, "sweeps",
        (json_int_t)t->n_sweeps, "used_bytes", (json_int_t)t->used_bytes, "compulsory_bytes",
        (json_int_t)t->compulsory_bytes, "hottest_tenth", r->hottest_tenth, "budget_bytes",
        (json_int_t)min_u64(r->budget_bytes, INT64_MAX), "policies", policies);
    size_t bytes = 0;
    char *whole = root != NULL && !failed ? json_whole(root, JSON_INDENT(2), &bytes) : NULL;
    json_decref(root);
    if (whole == NULL) {
        return error_memory(err, bytes);
    }
    fprintf(out, "%s\n", whole);
    mem_free(whole);
    return 0;
}

/* ---- the public function ------------------------------------------------------------------ */

static int choose(const char *policy, bool wanted[POLICY_KIND_COUNT], struct ot_error *err) {
    enum policy_kind kind = POLICY_MIN;
    if (policy != NULL && !policy_kind_from_name(policy, &kind)) {
        return error_set(err, OT_ERR_ARGUMENT, policy,
                         "no such policy; known are fixed, lru, clock, sieve, lfu, min");
    }
    for (uint32_t k = 0; k < POLICY_KIND_COUNT; k++) {
        wanted[k] = policy == NULL || k == kind;
    }
    return 0;
}

static int simulate_all(struct report *r, struct ot_error *err) {
    uint32_t *next_use = NULL;
    int rc = plan_next_uses(r->trace, &next_use, err);
    for (uint32_t k = 0; rc == 0 && k < POLICY_KIND_COUNT; k++) {
        if (r->wanted[k] || k == POLICY_MIN) {
            rc = plan_simulate(r->trace, next_use, k, r->budget_bytes, &r->results[k], err);
        }
    }
    if (rc == 0) {
        rc = hottest_tenth(r->trace, &r->hottest_tenth, err);
    }
    mem_free(next_use);
    return rc;
}

int ot_simulate(const char *trace_path, const char *policy, uint64_t budget_bytes, bool json,
                FILE *out, struct ot_error *err) {
    struct plan_trace trace;
    struct report report = {.path = trace_path, .trace = &trace, .budget_bytes = budget_bytes};
    int rc = choose(policy, report.wanted, err);
    if (rc != 0) {
        return rc;
    }
    rc = plan_trace_open(trace_path, &trace, err);
    if (rc != 0) {
        return rc;
    }
    rc = simulate_all(&report, err);
    if (rc == 0 && json) {
        rc = print_json(&report, out, err);
    } else if (rc == 0) {
        print_text(&report, out);
    }
    errno = 0;
    if (rc == 0 && (fflush(out) != 0 || ferror(out) != 0)) {
        rc = error_sys(err, OT_ERR_IO, errno != 0 ? errno : EIO, "output", "cannot be written");
    }
    plan_trace_close(&trace);
    return rc;
}
