/* refuse.h - a filter of system calls (seccomp), as containers and hardened services have one. */
#ifndef TESTS_SUPPORT_REFUSE_H
#define TESTS_SUPPORT_REFUSE_H

#include <stdbool.h>
#include <stdint.h>

/* From now on the calls [n], at most 8, fail with error for this thread and all that it starts.
 * There is no way back. False where no filter can be set up. */
bool refuse_calls(int error, const long *calls, uint32_t n);

#endif
