/* engine.h - what the report may read of a context. The engine itself is budget.c (dividing memory),
 * context.c (opening), decode.c (a batch through the schedule; sequences), sample.c, draft.c (guesses)
 * and measure.c (yardsticks). */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "ledger/ledger.h"
#include "onetrip.h"
#include "residency/residency.h"
#include "sys/facts.h"

const struct ot_model *engine_model(const struct ot_context *ctx);
const struct ledger *engine_ledger(const struct ot_context *ctx);
struct residency *engine_residency(const struct ot_context *ctx);
/* The process's counters as they were when the context was opened, before what the headers took of
 * the disk where they are in its ledger: closures compare with now. */
const struct sys_process *engine_process_at_start(const struct ot_context *ctx);
/* What other contexts and models of the process have read since then, by their own account. */
uint64_t engine_others_read_bytes(const struct ot_context *ctx);

#endif
