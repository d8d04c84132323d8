/* simulate.c - `onetrip simulate`: a trace against residency policies. */
#include "cli/output.h"

int command_simulate(const struct settings *set) {
    struct ot_error err;
    if (set->budget.bytes == 0) {
        complain("simulate: --budget SIZE is missing");
        return EXIT_USAGE;
    }
    struct collected text;
    if (collected_open(&text) == NULL) {
        return EXIT_FAILED;
    }
    int rc = ot_simulate(set->operand, set->policy, set->budget.bytes, set->json, text.file, &err);
    int written = collected_close(&text, rc == 0);
    return rc != 0 ? complain_error(&err) : written;
}
