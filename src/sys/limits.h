/* limits.h - control groups, readable from another root directory so that tests can lay out any
 * hierarchy. Private to sys/ and its tests.
 *
 * Threads: any. */
#ifndef SYS_LIMITS_H
#define SYS_LIMITS_H

#include "sys/facts.h"

/* sys_limits_read with root ("" for the machine's own) before /proc and before every mount point.
 */
void sys_limits_read_under(const char *root, struct sys_limits *limits);
/* The same for sys_limit_watch_open. */
void sys_limit_watch_open_under(const char *root, struct sys_limit_watch *watch);
/* Processors that the CPU quota allows, rounded up; UINT32_MAX where there is no quota. */
uint32_t sys_cpu_quota(const char *root);

#endif
