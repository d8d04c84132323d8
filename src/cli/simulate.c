/* simulate.c - `onetrip simulate`: a trace against residency policies. */
#include "cli/cli.h"

int command_simulate(const struct settings *set) {
    struct ot_error err;
    if (set->budget.bytes == 0) {
        complain("simulate: --budget SIZE is missing");
        return EXIT_USAGE;
    }
    int rc = ot_simulate(set->operand, set->policy, set->budget.bytes, set->json, stdout, &err);
    if (rc == 0) {
        return EXIT_OK;
    }
    if (!ferror(stdout)) { /* else it is said at the end of the program */
        complain_error(&err);
    }
    return EXIT_FAILED;
}
