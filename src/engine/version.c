/* version.c - what this build is. */
#include "commit.h"
#include "onetrip.h"

const char *ot_version(void) {
    return OT_VERSION;
}
const char *ot_commit(void) {
    return OT_COMMIT;
}
