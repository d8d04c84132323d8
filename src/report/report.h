/* report.h - what a report holds, gathered once from a context and printed in several ways.
 *
 * gather.c fills struct report; print.c writes it as text, json.c as JSON. export.c writes the
 * ledger record by record, import.c reads such a file back. Nothing here moves bytes; gathering waits for
 * reads under way, and has what they needed written to the ledger.
 *
 * Threads: the thread that owns the context. */
#ifndef REPORT_REPORT_H
#define REPORT_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "ledger/ledger.h"
#include "onetrip.h"
#include "residency/residency.h"
#include "sys/facts.h"

struct report_movement {
    enum ot_boundary boundary;
    enum ot_class cls;
    enum ot_cause cause;
    enum ot_known known;
    uint64_t moved_bytes, needed_bytes, rounding_bytes;
    uint64_t extent_bytes; /* sizes of the extents that moved so, each once; 0: not fixed */
};

struct report_closure {
    enum ot_boundary boundary;
    uint64_t ledger_bytes, system_bytes;
    const char *source; /* where system_bytes comes from */
    double residual;    /* |ledger - system| as a share of the largest of both and one sweep */
};

enum { REPORT_CLOSURES = 2, REPORT_WARNINGS = 8 };

struct report {
    const struct ot_run *run; /* borrowed */
    struct ot_model_info model;
    struct ot_context_info context;
    struct residency_info residency;
    struct sys_limits limits;
    struct sys_process start, now;
    uint64_t others_read_bytes; /* from disk, meanwhile, by other contexts of the process */
    struct report_movement *movements; /* owned [n_movements], by boundary, class, cause */
    uint32_t n_movements;
    struct report_closure closures[REPORT_CLOSURES];
    uint32_t n_closures;
    uint64_t found_bytes;       /* weight bytes that compute used and no disk read brought; experts'
                                 * at most those */
    uint64_t disk_weight_bytes; /* disk>ram of weights */
    uint64_t min_bytes;         /* the least that the disk had to deliver of weights (MIN) */
    bool min_unknown;           /* the trace of experts' uses was too long for it */
    double stall_share;         /* time compute waited for the disk / time of all sweeps */
    char warnings[REPORT_WARNINGS][256];
    uint32_t n_warnings;
};

/* run may be NULL. On failure *report needs no report_deinit. Errors: MEMORY. */
int report_gather(struct ot_context *ctx, const struct ot_run *run, struct report *report,
                  struct ot_error *err);
void report_deinit(struct report *report);

/* Tokens that decode sweeps gave: one each, and the guessed ones that were right. */
uint64_t report_decoded(const struct report *report);

/* The judgements, apart from the gathering so that tests can feed them: fills closures,
 * disk_weight_bytes, min_bytes, stall_share and warnings from the other fields. */
void report_judge(struct report *report);

void report_print(const struct report *report, FILE *out);
/* NULL where there is no memory. The caller owns the reference. */
json_t *report_json(const struct report *report);

#endif
