/* Attention of one kv head: every instruction set against a softmax written out in double, and what
 * kernel.h promises about rows, windows and blocks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "kernel/half.h"
#include "kernel/kernel.h"

/* Every function there is: that of a table, and that for prompts where it is another one. */
static const struct way {
    const char *isa;
    bool prompt;
    bool rounds; /* q, k, v and weights to bf16 */
} ways[] = {
    {"scalar", false, false}, {"avx2", false, false},       {"avx512", false, false},
    {"neon", false, false},   {"avx512bf16", false, false}, {"avx512bf16", true, true},
};
enum { N_WAYS = sizeof ways / sizeof ways[0] };

static bool present(uint32_t way) {
    return kernels_find(ways[way].isa) != NULL;
}

static uint64_t random_state;

static uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

static float random_float(void) {
    return (float)(random_bits() >> 8) / 8388608.0f - 1.0f;
}

enum { MAX_BLOCKS = 320 };

/* A page after each of K and V may not be touched: both end where they end. Blocks lie in any
 * order, but for the last one, which is not whole. */
struct problem {
    uint32_t n_ctx, head_dim, n_q;
    uint64_t mapped_bytes;
    uint8_t *mapping[2];
    uint16_t *k, *v;
    uint32_t blocks[MAX_BLOCKS];
    float *q; /* [n_q, head_dim] */
    const float *q_rows[KERNEL_MAX_Q];
    uint32_t pos[KERNEL_MAX_Q];
    uint32_t window;
    float scale, softcap;
};

static uint16_t *guarded_halves(struct problem *p, uint32_t which, float size) {
    const uint64_t bytes = (uint64_t)p->n_ctx * p->head_dim * 2;
    p->mapped_bytes = (bytes + 4095) / 4096 * 4096 + 4096;
    uint8_t *m =
        mmap(NULL, p->mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(m != MAP_FAILED);
    assert_int_equal(mprotect(m + p->mapped_bytes - 4096, 4096, PROT_NONE), 0);
    p->mapping[which] = m;
    uint16_t *halves = (uint16_t *)(void *)(m + p->mapped_bytes - 4096 - bytes);
    for (uint64_t i = 0; i < bytes / 2; i++)
        halves[i] = half_from_f32(random_float() * size);
    return halves;
}

/* Rows look at positions from first_pos on, step apart. */
static void problem_init(struct problem *p, uint32_t n_ctx, uint32_t head_dim, uint32_t n_q,
                         uint32_t first_pos, uint32_t step) {
    memset(p, 0, sizeof *p);
    p->n_ctx = n_ctx;
    p->head_dim = head_dim;
    p->n_q = n_q;
    const uint32_t n_blocks = (n_ctx + KERNEL_KEY_BLOCK - 1) / KERNEL_KEY_BLOCK;
    assert_true(n_blocks <= MAX_BLOCKS);
    for (uint32_t i = 0; i < n_blocks; i++) {
        const uint32_t other = i + 1 < n_blocks ? random_bits() % (i + 1) : i;
        p->blocks[i] = p->blocks[other];
        p->blocks[other] = i;
    }
    p->k = guarded_halves(p, 0, 3.0f);
    p->v = guarded_halves(p, 1, 2.0f);
    p->q = mem_calloc((uint64_t)n_q * head_dim, sizeof *p->q);
    assert_non_null(p->q);
    for (uint32_t i = 0; i < n_q * head_dim; i++)
        p->q[i] = random_float() * 4;
    for (uint32_t i = 0; i < n_q; i++) {
        p->q_rows[i] = p->q + (uint64_t)i * head_dim;
        p->pos[i] = first_pos + i * step < n_ctx ? first_pos + i * step : n_ctx - 1;
    }
    p->scale = 1.0f / sqrtf((float)head_dim);
}

/* Where a position lies in k and v. */
static uint64_t offset(const struct problem *p, uint64_t position) {
    const uint64_t block = p->blocks[position / KERNEL_KEY_BLOCK];
    return (block * KERNEL_KEY_BLOCK + position % KERNEL_KEY_BLOCK) * p->head_dim;
}

static void problem_deinit(struct problem *p) {
    munmap(p->mapping[0], p->mapped_bytes);
    munmap(p->mapping[1], p->mapped_bytes);
    mem_free(p->q);
}

/* Rows [first, end) of the problem into out [n_q, head_dim]. */
static void run(uint32_t way, const struct problem *p, uint32_t first, uint32_t end, float *out) {
    const struct kernels *k = kernels_find(ways[way].isa);
    float *rows[KERNEL_MAX_Q];
    for (uint32_t i = 0; i < p->n_q; i++)
        rows[i] = out + (uint64_t)i * p->head_dim;
    const uint64_t scratch_bytes = k->attention_scratch_bytes(p->head_dim);
    void *scratch = aligned_alloc(KERNEL_ALIGN, (scratch_bytes + 63) / 64 * 64);
    assert_non_null(scratch);
    memset(scratch, 0xff, scratch_bytes);
    const struct kernel_attention args = {
        .q = p->q_rows + first,
        .out = rows + first,
        .pos = p->pos + first,
        .n_q = end - first,
        .head_dim = p->head_dim,
        .k = p->k,
        .v = p->v,
        .blocks = p->blocks,
        .window = p->window,
        .scale = p->scale,
        .softcap = p->softcap,
    };
    (ways[way].prompt ? k->attention_prompt : k->attention)(&args, scratch);
    free(scratch);
}

/* x, or x rounded to bf16 (to nearest and even). */
static double operand(float x, bool rounds) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (rounds) {
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        memcpy(&x, &bits, sizeof bits);
    }
    return (double)x;
}

/* All scores at once, then their softmax, then the mean of the values. rounds: of rounded q, k and
 * v. */
static void expected_row(const struct problem *p, uint32_t row, bool rounds, double *out) {
    const uint64_t end = (uint64_t)p->pos[row] + 1;
    const uint64_t begin = p->window != 0 && end > p->window ? end - p->window : 0;
    const float scale = p->softcap > 0 ? p->scale : p->scale * 0x1.715476p+0f;
    const double unscaled = p->softcap > 0 ? 1 : M_LN2;
    double *scores = mem_calloc(end, sizeof *scores), best = -INFINITY, sum = 0;
    assert_non_null(scores);
    for (uint64_t j = begin; j < end; j++) {
        for (uint32_t d = 0; d < p->head_dim; d++) {
            const float key = half_to_f32(p->k[offset(p, j) + d]);
            scores[j] +=
                rounds ? operand(p->q_rows[row][d] * scale, true) * unscaled * operand(key, true)
                       : (double)p->q_rows[row][d] * (double)p->scale * (double)key;
        }
        if (p->softcap > 0)
            scores[j] = (double)p->softcap * tanh(scores[j] / (double)p->softcap);
        best = fmax(best, scores[j]);
    }
    memset(out, 0, p->head_dim * sizeof *out);
    for (uint64_t j = begin; j < end; j++) {
        const double weight = exp(scores[j] - best);
        sum += weight;
        for (uint32_t d = 0; d < p->head_dim; d++)
            out[d] += weight * operand(half_to_f32(p->v[offset(p, j) + d]), rounds);
    }
    for (uint32_t d = 0; d < p->head_dim; d++)
        out[d] /= sum;
    mem_free(scores);
}

/* Values are below 2, so errors are absolute. In f32 the bound is what rounding of scores may come
 * to; rounding a weight to bf16 changes it by up to 2^-9, hence a mean of values by up to twice
 * that times the distance between two of them. */
static double error_bound(bool rounds) {
    return rounds ? 0x1p-9 * 2 * 4 : 2e-5;
}

/* Every function against the definition. */
static void check(const struct problem *p) {
    double expected[2][512];
    float *out = mem_calloc((uint64_t)N_WAYS * p->n_q * p->head_dim, sizeof *out);
    assert_non_null(out);
    for (uint32_t i = 0; i < N_WAYS; i++)
        if (present(i))
            run(i, p, 0, p->n_q, out + (uint64_t)i * p->n_q * p->head_dim);
    for (uint32_t row = 0; row < p->n_q; row++) {
        expected_row(p, row, false, expected[0]);
        expected_row(p, row, true, expected[1]);
        for (uint32_t i = 0; i < N_WAYS; i++)
            for (uint32_t d = 0; present(i) && d < p->head_dim; d++) {
                const float y = out[((uint64_t)i * p->n_q + row) * p->head_dim + d];
                const double want = expected[ways[i].rounds][d];
                if (!(fabs((double)y - want) <= error_bound(ways[i].rounds)))
                    fail_msg("%s head_dim %u n_q %u: row %u at %u, dim %u: %.8g, not %.8g",
                             ways[i].isa, p->head_dim, p->n_q, row, p->pos[row], d, (double)y,
                             want);
            }
    }
    mem_free(out);
}

static void test_every_head_size_and_number_of_rows_is_right(void **state) {
    (void)state;
    static const uint32_t dims[] = {1, 7, 16, 31, 33, 64, 72, 80, 96, 112, 128, 192, 256, 511, 512};
    for (uint32_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        for (uint32_t n_q = 1; n_q <= KERNEL_MAX_Q; n_q += n_q < 9 ? 1 : 11) {
            struct problem p;
            random_state = i * 100 + n_q;
            problem_init(&p, 150, dims[i], n_q, i * 9, 1 + n_q % 3);
            check(&p);
            problem_deinit(&p);
        }
}

static void test_a_context_may_end_anywhere_in_a_block(void **state) {
    (void)state;
    for (uint32_t n_ctx = 1; n_ctx <= 130; n_ctx++) {
        struct problem p;
        random_state = n_ctx;
        problem_init(&p, n_ctx, 64, 1 + n_ctx % 14, 0, 1 + n_ctx / 10);
        check(&p);
        problem_deinit(&p);
    }
}

static void test_a_window_hides_what_is_older(void **state) {
    (void)state;
    static const uint32_t windows[] = {1, 2, 63, 64, 65, 100, 299, 1000, UINT32_MAX};
    for (uint32_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        struct problem p;
        random_state = i;
        problem_init(&p, 300, 80, 19, 3, 15);
        p.window = windows[i];
        check(&p);
        problem_deinit(&p);
    }
}

/* Rows of several sequences' heads: the same positions again and again, gaps, any order. */
static void test_positions_may_repeat_jump_and_descend(void **state) {
    (void)state;
    struct problem p;
    random_state = 1;
    problem_init(&p, 1000, 128, 12, 0, 1);
    static const uint32_t pos[12] = {999, 0, 63, 64, 999, 500, 127, 128, 65, 1, 1, 700};
    memcpy(p.pos, pos, sizeof pos);
    check(&p);
    p.window = 70;
    check(&p);
    problem_deinit(&p);
}

static void test_a_softcap_bends_scores(void **state) {
    (void)state;
    static const float caps[] = {0.5f, 5, 50};
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t n_q = 1; n_q < 20; n_q += 6) {
            struct problem p;
            random_state = i;
            problem_init(&p, 200, 256, n_q, 180, 1);
            p.softcap = caps[i];
            p.scale *= 3;
            check(&p);
            problem_deinit(&p);
        }
}

static void test_a_long_context_loses_nothing(void **state) {
    (void)state;
    struct problem p;
    random_state = 3;
    problem_init(&p, 20000, 64, 4, 19990, 3);
    p.scale = 0.001f; /* all keys count */
    check(&p);
    p.scale = 8; /* one key counts: the best, wherever it is */
    check(&p);
    problem_deinit(&p);
}

/* The last key is better than all before by more than an exponent can say, or worse. */
static void test_scores_far_apart_do_not_overflow(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct problem p;
        random_state = 5;
        problem_init(&p, 129, 64, 3, 126, 1);
        for (uint32_t d = 0; d < 64; d++)
            p.k[offset(&p, 128) + d] =
                half_from_f32(p.q[2 * 64 + d] * (i == 0 ? 8000.0f : -8000.0f));
        check(&p);
        problem_deinit(&p);
    }
}

static void test_a_row_does_not_depend_on_its_neighbours(void **state) {
    (void)state;
    for (uint32_t i = 0; i < N_WAYS; i++)
        for (uint32_t d = 0; present(i) && d < 4; d++) {
            static const uint32_t dims[] = {40, 64, 128, 200};
            struct problem p;
            random_state = i * 10 + d;
            problem_init(&p, 400, dims[d], 61, 20, 6);
            p.window = d == 1 ? 90 : 0;
            p.softcap = d == 2 ? 20 : 0;
            const uint64_t n = (uint64_t)61 * dims[d];
            float *whole = mem_calloc(n, sizeof *whole), *parts = mem_calloc(n, sizeof *parts);
            assert_true(whole != NULL && parts != NULL);
            run(i, &p, 0, 61, whole);
            for (uint32_t first = 0, step = 1; first < 61; first += step, step = step % 7 + 1)
                run(i, &p, first, first + step < 61 ? first + step : 61, parts);
            for (uint64_t j = 0; j < n; j++)
                if (half_to_bits(whole[j]) != half_to_bits(parts[j]))
                    fail_msg("%s: row %u is %.9g or %.9g", ways[i].isa, (uint32_t)(j / dims[d]),
                             (double)whole[j], (double)parts[j]);
            mem_free(whole);
            mem_free(parts);
            problem_deinit(&p);
        }
}

/* Keys [first, end) of row 0 into out; returns ln of the sum of e^score. */
static double run_part(uint32_t way, const struct problem *p, uint32_t first, uint32_t end,
                       float *out) {
    const struct kernels *k = kernels_find(ways[way].isa);
    void *scratch =
        aligned_alloc(KERNEL_ALIGN, (k->attention_scratch_bytes(p->head_dim) + 63) / 64 * 64);
    assert_non_null(scratch);
    double total = NAN;
    uint32_t pos = end - 1;
    const struct kernel_attention args = {
        .q = p->q_rows,
        .out = &out,
        .totals = &total,
        .pos = &pos,
        .n_q = 1,
        .head_dim = p->head_dim,
        .k = p->k,
        .v = p->v,
        .blocks = p->blocks,
        .window = end - first,
        .scale = p->scale,
        .softcap = p->softcap,
    };
    (ways[way].prompt ? k->attention_prompt : k->attention)(&args, scratch);
    free(scratch);
    return total;
}

static void test_parts_of_the_keys_join_to_the_whole(void **state) {
    (void)state;
    static const uint32_t ends[] = {0, 64, 256, 301};
    for (uint32_t capped = 0; capped < 2; capped++) {
        struct problem p;
        double expected[2][72];
        problem_init(&p, 301, 72, 1, 300, 1);
        p.softcap = capped != 0 ? 5.0f : 0.0f;
        expected_row(&p, 0, false, expected[0]);
        expected_row(&p, 0, true, expected[1]);
        for (uint32_t i = 0; i < N_WAYS; i++) {
            float out[3][72];
            double total[3], sum[72] = {0}, weights = 0;
            for (uint32_t part = 0; present(i) && part < 3; part++) {
                total[part] = run_part(i, &p, ends[part], ends[part + 1], out[part]);
                weights += exp(total[part] - total[0]);
                for (uint32_t d = 0; d < p.head_dim; d++)
                    sum[d] += exp(total[part] - total[0]) * (double)out[part][d];
            }
            for (uint32_t d = 0; present(i) && d < p.head_dim; d++)
                assert_true(fabs(sum[d] / weights - expected[ways[i].rounds][d]) <
                            error_bound(ways[i].rounds));
        }
        problem_deinit(&p);
    }
}

static void test_what_is_not_finite_shows_in_rows_that_see_it(void **state) {
    (void)state;
    static const uint16_t bad[] = {0x7e00, 0x7c00, 0xfc00};
    for (uint32_t i = 0; i < N_WAYS; i++)
        for (uint32_t b = 0; present(i) && b < 3; b++) {
            struct problem p;
            random_state = 9;
            problem_init(&p, 100, 64, 8, 92, 1);
            p.v[offset(&p, 50) + 3] = bad[b];
            float out[8 * 64];
            run(i, &p, 0, 8, out);
            for (uint32_t row = 0; row < 8; row++)
                assert_true(!isfinite(out[row * 64 + 3]));
            p.k[offset(&p, 70) + 3] = 0x7e00;
            run(i, &p, 0, 8, out);
            for (uint32_t j = 0; j < 8 * 64; j++)
                assert_true(!isfinite(out[j]));
            problem_deinit(&p);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_head_size_and_number_of_rows_is_right),
        cmocka_unit_test(test_a_context_may_end_anywhere_in_a_block),
        cmocka_unit_test(test_a_window_hides_what_is_older),
        cmocka_unit_test(test_positions_may_repeat_jump_and_descend),
        cmocka_unit_test(test_a_softcap_bends_scores),
        cmocka_unit_test(test_a_long_context_loses_nothing),
        cmocka_unit_test(test_scores_far_apart_do_not_overflow),
        cmocka_unit_test(test_a_row_does_not_depend_on_its_neighbours),
        cmocka_unit_test(test_parts_of_the_keys_join_to_the_whole),
        cmocka_unit_test(test_what_is_not_finite_shows_in_rows_that_see_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
