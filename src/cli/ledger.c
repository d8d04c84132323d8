/* ledger.c - `onetrip ledger`: the records of an earlier run as a table. */
#include "cli/cli.h"

int command_ledger(const struct settings *set) {
    struct ot_error err;
    int rc = ot_ledger_print(set->operand, set->by, (uint32_t)set->top, stdout, &err);
    return rc == 0 ? EXIT_OK : complain_error(&err);
}
