/* test_kv.c - tables of blocks: whatever sequences share, cut and append, each holds what it wrote,
 * and bytes are copied only where a block that others hold is appended to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/checked.h"
#include "kernel/kernel.h"
#include "kv/kv.h"

enum { N_SEQ = 5, N_CTX = 330, LAYERS = 2, HEADS = 3, DIM = 4, BLOCK = KERNEL_KEY_BLOCK };
static const uint64_t position_bytes = LAYERS * HEADS * DIM * 2 * sizeof(uint16_t);

struct plain { /* what sequences should hold */
    uint32_t length[N_SEQ];
    uint16_t value[N_SEQ][N_CTX];
};

static uint32_t random_state = 12345;
static uint32_t random_below(uint32_t n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

static struct ledger *ledger;

static void open_kv(struct kv *kv, uint32_t n_kv) {
    struct ot_error err;
    const struct kv_params params = {LAYERS, HEADS, DIM, N_SEQ, N_CTX, n_kv};
    assert_int_equal(ledger_open(1, &ledger, &err), 0);
    assert_int_equal(kv_open(kv, &params, ledger, &err), 0);
}

static void close_kv(struct kv *kv) {
    kv_close(kv);
    ledger_close(ledger);
}

static uint64_t copied_bytes(void) {
    return ledger_get(ledger, 0, OT_RAM_RAM, OT_CAUSE_COPY)->moved_bytes;
}

/* Every head of every layer gets values of its own. */
static void write_position(struct kv *kv, uint32_t seq, uint32_t position, uint16_t value) {
    for (uint32_t i = 0; i < LAYERS * HEADS; i++) {
        uint64_t at = kv_offset(kv, seq, position);
        for (uint32_t d = 0; d < DIM; d++) {
            kv_keys(kv, i / HEADS, i % HEADS)[at + d] = (uint16_t)(value + i + 10 * d);
            kv_values(kv, i / HEADS, i % HEADS)[at + d] = (uint16_t)(value - i - 10 * d);
        }
    }
}

static void append(struct kv *kv, struct plain *p, uint32_t seq, uint32_t n) {
    uint32_t added[N_SEQ] = {0};
    added[seq] = n;
    assert_true(kv_has_room(kv, p->length, added));
    kv_append(kv, seq, p->length[seq], n);
    for (uint32_t i = 0; i < n; i++) {
        uint16_t value = (uint16_t)random_below(65536);
        p->value[seq][p->length[seq]] = value;
        write_position(kv, seq, p->length[seq]++, value);
    }
}

static void share(struct kv *kv, struct plain *p, uint32_t dst, uint32_t src, uint32_t n) {
    kv_share(kv, dst, src, n);
    memcpy(p->value[dst], p->value[src], n * sizeof *p->value[src]);
    p->length[dst] = n;
}

static void check_contents(const struct kv *kv, const struct plain *p) {
    for (uint32_t seq = 0; seq < N_SEQ; seq++) {
        for (uint32_t at = 0; at < p->length[seq]; at++) {
            uint64_t offset = kv_offset(kv, seq, at);
            for (uint32_t i = 0; i < LAYERS * HEADS; i++) {
                uint16_t k = kv_keys(kv, i / HEADS, i % HEADS)[offset + DIM - 1];
                uint16_t v = kv_values(kv, i / HEADS, i % HEADS)[offset];
                assert_int_equal(k, (uint16_t)(p->value[seq][at] + i + 10 * (DIM - 1)));
                assert_int_equal(v, (uint16_t)(p->value[seq][at] - i));
            }
        }
    }
}

/* Each block's holders are the sequences whose tables have it. */
static void check_holders(const struct kv *kv) {
    uint32_t holders[N_SEQ * (N_CTX / BLOCK + 1)] = {0}, n_free = 0;
    for (uint32_t seq = 0; seq < N_SEQ; seq++) {
        for (uint32_t i = 0; i < kv->held[seq]; i++) {
            holders[kv_blocks(kv, seq)[i]]++;
        }
    }
    assert_memory_equal(holders, kv->holders, kv->n_blocks * sizeof *holders);
    for (uint32_t i = 0; i < kv->n_blocks; i++) {
        n_free += holders[i] == 0;
    }
    assert_int_equal(n_free, kv->n_free);
}

static void test_sequences_hold_what_they_wrote_whatever_is_shared(void **state) {
    (void)state;
    struct kv kv;
    static struct plain p;
    memset(&p, 0, sizeof p);
    open_kv(&kv, 0);
    for (uint32_t step = 0; step < 3000; step++) {
        uint32_t seq = random_below(N_SEQ), other = random_below(N_SEQ), n = random_below(100);
        switch (random_below(4)) {
        case 0:
            p.length[seq] = random_below(p.length[seq] + 1);
            kv_truncate(&kv, seq, p.length[seq]);
            break;
        case 1:
            if (seq != other) {
                share(&kv, &p, seq, other, random_below(p.length[other] + 1));
            }
            break;
        case 2: /* a sweep that failed: what was taken for it is used by the next one */
            kv_append(&kv, seq, p.length[seq], min_u32(n, N_CTX - p.length[seq]));
            break;
        default: append(&kv, &p, seq, min_u32(n, N_CTX - p.length[seq])); break;
        }
        check_holders(&kv);
        if (step % 16 == 0) {
            check_contents(&kv, &p);
        }
    }
    check_contents(&kv, &p);
    close_kv(&kv);
}

static void test_all_sequences_can_be_full_at_once(void **state) {
    (void)state;
    struct kv kv;
    static struct plain p;
    memset(&p, 0, sizeof p);
    open_kv(&kv, 0);
    append(&kv, &p, 3, N_CTX);
    for (uint32_t seq = 0; seq < N_SEQ; seq++) {
        if (seq != 3) {
            share(&kv, &p, seq, 3, 40 * seq);
            append(&kv, &p, seq, N_CTX - 40 * seq);
        }
    }
    check_holders(&kv);
    check_contents(&kv, &p);
    close_kv(&kv);
}

static void test_fewer_blocks_than_all_could_hold_run_out_and_come_back(void **state) {
    (void)state;
    struct kv kv;
    static struct plain p;
    memset(&p, 0, sizeof p);
    open_kv(&kv, 4 * BLOCK);
    append(&kv, &p, 0, 2 * BLOCK + 1);
    for (uint32_t seq = 1; seq < N_SEQ; seq++) {
        share(&kv, &p, seq, 0, 2 * BLOCK + 1);
    }
    assert_int_equal(kv.n_free, 1);
    append(&kv, &p, 4, 3); /* takes the last one, as its own */
    assert_false(kv_has_room(&kv, p.length, (uint32_t[N_SEQ]){0, 0, 0, 1, 0}));
    kv_truncate(&kv, 4, p.length[4] = 2 * BLOCK);
    assert_false(kv_has_room(&kv, p.length, (uint32_t[N_SEQ]){0, 0, 0, BLOCK, 0})); /* and a copy */
    assert_false(kv_has_room(&kv, p.length, (uint32_t[N_SEQ]){1, 1, 0, 0, 0}));     /* two copies */
    kv_truncate(&kv, 2, p.length[2] = 2 * BLOCK);
    kv_truncate(&kv, 3, p.length[3] = 2 * BLOCK);
    assert_true(kv_has_room(&kv, p.length, (uint32_t[N_SEQ]){1, 1, 0, 0, 0})); /* one: two holders */
    assert_false(kv_has_room(&kv, p.length, (uint32_t[N_SEQ]){1, 1, 0, 0, 1}));
    check_holders(&kv);
    check_contents(&kv, &p);
    append(&kv, &p, 1, BLOCK - 1);
    append(&kv, &p, 0, BLOCK - 1);
    check_contents(&kv, &p);
    close_kv(&kv);
}

static void test_only_what_is_begun_of_a_shared_block_is_copied_and_only_once(void **state) {
    (void)state;
    struct kv kv;
    static struct plain p;
    memset(&p, 0, sizeof p);
    open_kv(&kv, 0);
    append(&kv, &p, 0, 2 * BLOCK + 10);
    share(&kv, &p, 1, 0, 2 * BLOCK);
    append(&kv, &p, 1, 5); /* begins a block of its own */
    assert_int_equal(copied_bytes(), 0);
    share(&kv, &p, 2, 0, 2 * BLOCK + 10);
    assert_int_equal(copied_bytes(), 0);
    append(&kv, &p, 0, 1); /* the origin is the first to go on: it gets the copy */
    assert_int_equal(copied_bytes(), 10 * position_bytes);
    append(&kv, &p, 2, 1);
    append(&kv, &p, 0, 1);
    assert_int_equal(copied_bytes(), 10 * position_bytes);
    kv_truncate(&kv, 2, p.length[2] = 7); /* into what is shared */
    append(&kv, &p, 2, 3);
    assert_int_equal(copied_bytes(), 17 * position_bytes);
    check_contents(&kv, &p);
    close_kv(&kv);
}

static void test_positions_are_counted_once_whoever_reads_them(void **state) {
    (void)state;
    struct kv kv;
    static struct plain p;
    memset(&p, 0, sizeof p);
    open_kv(&kv, 0);
    append(&kv, &p, 0, 3 * BLOCK);
    share(&kv, &p, 1, 0, 2 * BLOCK);
    append(&kv, &p, 1, 20);
    kv_count_begin(&kv);
    assert_int_equal(kv_count(&kv, 0, 0, 3 * BLOCK), 3 * BLOCK);
    assert_int_equal(kv_count(&kv, 1, 0, 2 * BLOCK + 20), 20);
    assert_int_equal(kv_count(&kv, 1, 5, 2 * BLOCK), 0);
    kv_count_begin(&kv); /* windows: a later one first */
    assert_int_equal(kv_count(&kv, 1, BLOCK + 30, 2 * BLOCK + 20), BLOCK - 30 + 20);
    assert_int_equal(kv_count(&kv, 0, BLOCK + 10, 3 * BLOCK), 20 + BLOCK);
    assert_int_equal(kv_count(&kv, 0, 3 * BLOCK - 1, 3 * BLOCK), 0);
    kv_count_begin(&kv); /* of a prompt's runs each sees what those before it saw */
    assert_int_equal(kv_count(&kv, 0, 0, 16), 16);
    assert_int_equal(kv_count(&kv, 0, 0, 32), 16);
    close_kv(&kv);
}

static void test_what_cannot_be_addressed_is_refused(void **state) {
    (void)state;
    const struct kv_params blocks = {1, 1, 1, 4096, 1u << 26, 0};
    const struct kv_params values = {1u << 20, 4096, 512, 4096, 1u << 20, 0};
    const struct kv_params ours = {LAYERS, HEADS, DIM, N_SEQ, N_CTX, 0};
    const struct kv_params fewer = {LAYERS, HEADS, DIM, N_SEQ, N_CTX, N_CTX};
    assert_true(kv_need_bytes(&blocks) == UINT64_MAX);
    assert_true(kv_need_bytes(&values) == UINT64_MAX);
    assert_true(kv_need_bytes(&ours) < (N_CTX + BLOCK) * N_SEQ * (position_bytes + 1));
    assert_true(kv_need_bytes(&fewer) < (N_CTX + BLOCK) * (position_bytes + 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences_hold_what_they_wrote_whatever_is_shared),
        cmocka_unit_test(test_all_sequences_can_be_full_at_once),
        cmocka_unit_test(test_fewer_blocks_than_all_could_hold_run_out_and_come_back),
        cmocka_unit_test(test_only_what_is_begun_of_a_shared_block_is_copied_and_only_once),
        cmocka_unit_test(test_positions_are_counted_once_whoever_reads_them),
        cmocka_unit_test(test_what_cannot_be_addressed_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
