/* cmocka.h - as much of cmocka as the kernels' tests use, for machines that have a compiler but not
 * the library: tests/kernel_aarch64.sh. A failed assertion ends the program. */
#ifndef TESTS_AARCH64_CMOCKA_H
#define TESTS_AARCH64_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

#define cmocka_unit_test(function)                                                                 \
    { #function, function }
#define fail_at(what)                                                                              \
    (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, what), (void)exit(1))
#define assert_true(x) ((x) ? (void)0 : fail_at(#x))
#define assert_false(x) assert_true(!(x))
#define assert_non_null(x) assert_true((x) != NULL)
#define assert_null(x) assert_true((x) == NULL)
#define assert_int_equal(a, b) assert_true((long long)(a) == (long long)(b))
#define assert_int_not_equal(a, b) assert_true((long long)(a) != (long long)(b))
#define assert_memory_equal(a, b, bytes) assert_true(memcmp(a, b, bytes) == 0)
#define fail_msg(...) (fprintf(stderr, __VA_ARGS__), fail_at(""))
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    run_tests(tests, sizeof(tests) / sizeof(tests)[0])

static inline int run_tests(const struct CMUnitTest *tests, size_t n) {
    for (size_t i = 0; i < n; i++) {
        tests[i].run(NULL);
        printf("ok %s\n", tests[i].name);
    }
    return 0;
}

#endif
