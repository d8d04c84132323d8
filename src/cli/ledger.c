/* ledger.c - `onetrip ledger`: the records of an earlier run as a table. */
#include "cli/output.h"

int command_ledger(const struct settings *set) {
    struct ot_error err;
    struct collected text;
    if (collected_open(&text) == NULL) {
        return EXIT_FAILED;
    }
    int rc = ot_ledger_print(set->operand, set->by, (uint32_t)set->top, text.file, &err);
    int written = collected_close(&text, rc == 0);
    return rc != 0 ? complain_error(&err) : written;
}
