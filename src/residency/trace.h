/* trace.h - writes the residency trace of a run: which extent each sweep used, in order. The format
 * is described in docs/simulate.md; plan/trace.h reads it.
 *
 * Order of calls: open, extent (once for each, ids count up from 0), use (in order, sweeps count up
 * from 0), flush (at any time), close. Lines are gathered in a buffer that is taken at open. The
 * first error is kept: later calls do nothing and return it, close too.
 *
 * Threads: one at a time. */
#ifndef RESIDENCY_TRACE_H
#define RESIDENCY_TRACE_H

#include <stdint.h>

#include "onetrip.h"

struct residency_trace;

/* Errors: IO, MEMORY. */
int residency_trace_open(const char *path, struct residency_trace **out, struct ot_error *err);
/* Declares the next extent; bytes > 0. Characters of the name that would break the line are written
 * as '?'; the name is cut at 255 bytes. *id is its number. Errors: IO. */
int residency_trace_extent(struct residency_trace *t, const char *name, uint64_t bytes,
                           uint32_t *id, struct ot_error *err);
/* The extent was used by the sweep, once. Errors: IO. */
int residency_trace_use(struct residency_trace *t, uint64_t sweep, uint32_t id,
                        struct ot_error *err);
/* Writes what is gathered. Errors: IO. */
int residency_trace_flush(struct residency_trace *t, struct ot_error *err);
/* Writes what is left and closes; t may be NULL. Errors: IO (of any call on t); freed anyway. */
int residency_trace_close(struct residency_trace *t, struct ot_error *err);

#endif
