/* bench.c - `onetrip bench`: speed as llama-bench measures it, and how near the bus it is.
 *
 *   ppN   a prompt of N tokens, as one call        tgN   N tokens, one by one
 *   tgNxS   N tokens of each of S sequences, a token of each in every call
 *   @dM     after M tokens, each sequence's own; @sM: which all sequences have in common
 *
 * Each test runs once without being counted and then a number of times from the same state. GB/s is
 * the bytes that the tokens needed (ram>cache) times tokens a second; its share is of the plain
 * read bandwidth of the same threads. Where weights are streamed the disk is the limit instead: the
 * streamed bytes of a sweep are read without computing, and the share is of the sweeps a second
 * that this allows. Both limits are measured before and after each repetition, because they change
 * within seconds on shared machines; a share is the median of the repetitions' own. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"
#include "cli/session.h"

enum { MAX_TESTS = 256, BANDWIDTH_MIB = 128, REPETITIONS = 5 };

/* What is measured where the command line has no lists. */
static const struct list_setting pp = {{512}, 1}, tg = {{128}, 1}, zero = {{0}, 1}, one = {{1}, 1};

struct measured {
    struct ot_bench_result result;
    double seconds;                          /* of all counted repetitions */
    double phases[OT_PHASE_COUNT], sampling; /* of seconds */
    bool streamed;                           /* the disk is the limit, not the memory */
    double limit;                            /* bytes/s without computing, mean; 0: not measured */
    double of_limit;                         /* the share of it that was reached, median */
};

struct bench {
    struct session session;
    const struct settings *set;
    uint32_t repetitions;
    struct measured tests[MAX_TESTS];
    size_t n_tests;
    double bandwidth;           /* of memory, the last that was measured; 0: not measured */
    struct ot_input *inputs;    /* owned [most tokens of a test] */
    float *logits;              /* owned [most sequences, n_vocab] */
    struct ot_sampler *sampler; /* greedy; what it picks is not used, only timed */
    double sampling_s;
    uint64_t state; /* of the generator of tokens */
};

static const struct list_setting *list_or(const struct list_setting *given,
                                          const struct list_setting *fallback) {
    return given->n != 0 ? given : fallback;
}

/* Tokens that are not all the same, and the same in every run. */
static uint32_t next_token(struct bench *b) {
    b->state = b->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((b->state >> 33) % b->session.info.n_vocab);
}

static int decode(struct bench *b, uint32_t seq, uint32_t n, bool want_logits) {
    struct ot_error err;
    for (uint32_t i = 0; i < n; i++) {
        b->inputs[i] = (struct ot_input){
            .token = next_token(b), .seq = seq, .want_logits = want_logits && i + 1 == n};
    }
    int rc = ot_decode(b->session.ctx, b->inputs, n, b->logits, &err);
    progress_clear();
    if (rc != 0) {
        return complain_error(&err);
    }
    return 0;
}

/* A token of each of n_seq sequences. */
static int decode_next(struct bench *b, uint32_t n_seq) {
    struct ot_error err;
    for (uint32_t i = 0; i < n_seq; i++) {
        b->inputs[i] = (struct ot_input){.token = next_token(b), .seq = i, .want_logits = true};
    }
    int rc = ot_decode(b->session.ctx, b->inputs, n_seq, b->logits, &err);
    progress_clear();
    return rc != 0 ? complain_error(&err) : 0;
}

static int run_tokens(struct bench *b, bool prompt, uint32_t n, uint32_t n_seq) {
    if (prompt) {
        return decode(b, 0, n, true);
    }
    int rc = 0;
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        rc = decode_next(b, n_seq);
        double start = now_s();
        for (uint32_t s = 0; s < n_seq && rc == 0; s++) {
            ot_sampler_pick(b->sampler, b->logits + (uint64_t)s * b->session.info.n_vocab);
        }
        b->sampling_s += now_s() - start;
    }
    return rc;
}

static uint64_t needed_now(const struct bench *b) {
    uint64_t moved, needed;
    ot_ledger_total(b->session.ctx, OT_RAM_CACHE, OT_CLASS_COUNT, &moved, &needed);
    return needed;
}

static void sum_up(struct measured *m, const double *rates, uint32_t n_rates, uint64_t needed,
                   uint64_t n_tokens) {
    double sum = 0.0, squares = 0.0;
    for (uint32_t i = 0; i < n_rates; i++) {
        sum += rates[i];
    }
    double mean = sum / n_rates;
    for (uint32_t i = 0; i < n_rates; i++) {
        squares += (rates[i] - mean) * (rates[i] - mean);
    }
    m->result.tokens_per_s = mean;
    m->result.stddev = n_rates > 1 ? sqrt(squares / (n_rates - 1)) : 0.0;
    m->result.needed_bytes_per_token = (double)needed / (double)n_tokens;
}

static int ascending(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *values, uint32_t n) {
    qsort(values, n, sizeof *values, ascending);
    return (values[n / 2] + values[(n - 1) / 2]) / 2.0;
}

/* Whether the budget has room for what measuring the memory takes, beside the model. */
static bool room_to_measure(const struct bench *b) {
    const struct ot_context_info *c = &b->session.context;
    return b->session.info.weight_bytes + c->kv_bytes + c->activation_bytes + c->table_bytes +
               ((uint64_t)c->n_threads * BANDWIDTH_MIB << 20) <=
           c->budget_bytes;
}

/* Bytes a second without computing: of the streamed bytes of a sweep, else of memory. 0: no room.
 */
static int measure_limit(struct bench *b, bool streamed, double *out) {
    struct ot_error err;
    uint64_t bytes;
    int rc = 0;
    *out = 0.0;
    if (streamed) {
        rc = ot_measure_disk(b->session.ctx, out, &bytes, &err);
    } else if (room_to_measure(b)) {
        rc = ot_measure_bandwidth(b->session.ctx, BANDWIDTH_MIB, out, &err);
        b->bandwidth = *out;
    }
    return rc == 0 ? 0 : complain_error(&err);
}

/* What one test does. */
struct test {
    bool prompt;
    uint32_t n, n_seq, depth;
    bool shared; /* sequences have the first depth tokens in common */
};

/* depth tokens in each sequence, and no others. */
static int fill_depth(struct bench *b, const struct test *t) {
    int rc = 0;
    for (uint32_t s = 0; s < b->session.context.n_seq; s++) {
        ot_seq_truncate(b->session.ctx, s, 0);
    }
    for (uint32_t s = 0; s < t->n_seq && rc == 0; s++) {
        if (t->depth != 0 && (s == 0 || !t->shared)) {
            rc = decode(b, s, t->depth, false);
        }
    }
    return rc;
}

/* Back to them. */
static int to_depth(struct bench *b, const struct test *t) {
    struct ot_error err;
    ot_seq_truncate(b->session.ctx, 0, t->depth);
    for (uint32_t s = 1; s < t->n_seq; s++) {
        if (!t->shared) {
            ot_seq_truncate(b->session.ctx, s, t->depth);
        } else if (ot_seq_copy(b->session.ctx, s, 0, t->depth, &err) != 0) {
            return complain_error(&err);
        }
    }
    return 0;
}

static int run_repetitions(struct bench *b, const struct test *t, struct measured *m, double *rates,
                           double *shares) {
    uint32_t repetitions = b->repetitions;
    uint64_t streamed = b->session.context.streamed_bytes_per_sweep;
    double before = 0.0, after;
    m->streamed = streamed > 0;
    int rc = t->prompt ? 0 : measure_limit(b, m->streamed, &before);
    for (uint32_t i = 0; i < repetitions && rc == 0; i++) {
        if ((rc = to_depth(b, t)) != 0) {
            break;
        }
        uint64_t needed = needed_now(b);
        double start = now_s();
        rc = run_tokens(b, t->prompt, t->n, t->n_seq);
        double took = now_s() - start;
        m->seconds += took;
        rates[i] = (double)t->n * t->n_seq / took;
        double bytes = (double)(m->streamed ? streamed * t->n : needed_now(b) - needed);
        if (rc == 0 && before > 0.0 && (rc = measure_limit(b, m->streamed, &after)) == 0) {
            double limit = (before + after) / 2.0;
            shares[i] = bytes / took / limit;
            m->limit += limit / repetitions;
            before = after;
        }
    }
    if (rc == 0 && before > 0.0) {
        m->of_limit = median(shares, repetitions);
    }
    return rc;
}

/* "pp512", "tg64", "tg64x4@d100", "tg64x4@s100" */
static void name_test(char *name, size_t size, const struct test *t) {
    char seqs[16] = "", depth[16] = "";
    if (t->n_seq > 1) {
        snprintf(seqs, sizeof seqs, "x%" PRIu32, t->n_seq);
    }
    if (t->depth != 0) {
        snprintf(depth, sizeof depth, "@%c%" PRIu32, t->shared ? 's' : 'd', t->depth);
    }
    snprintf(name, size, "%s%" PRIu32 "%s%s", t->prompt ? "pp" : "tg", t->n, seqs, depth);
}

static int run_test(struct bench *b, const struct test *t) {
    struct session *s = &b->session;
    uint32_t repetitions = b->repetitions;
    struct measured *m = &b->tests[b->n_tests];
    *m = (struct measured){.result.n_threads = s->context.n_threads};
    name_test(m->result.test, sizeof m->result.test, t);
    double *rates = calloc(2 * (size_t)repetitions, sizeof *rates);
    if (rates == NULL) {
        return complain_memory();
    }
    int rc = fill_depth(b, t);
    if (rc == 0 && (rc = to_depth(b, t)) == 0) {
        rc = run_tokens(b, t->prompt, t->prompt || t->n < 8 ? t->n : 8, t->n_seq);
    }
    struct ot_context_info before, after;
    ot_context_get_info(s->ctx, &before);
    uint64_t needed = needed_now(b);
    b->sampling_s = 0.0;
    if (rc == 0) {
        rc = run_repetitions(b, t, m, rates, rates + repetitions);
    }
    if (rc == 0) {
        ot_context_get_info(s->ctx, &after);
        for (int p = 0; p < OT_PHASE_COUNT; p++) {
            m->phases[p] = after.compute_s[p] - before.compute_s[p];
        }
        m->sampling = b->sampling_s;
        sum_up(m, rates, repetitions, needed_now(b) - needed,
               (uint64_t)t->n * t->n_seq * repetitions);
        b->n_tests++;
    }
    free(rates);
    return rc;
}

/* ---- printing ---- */

static void print_heading(const struct bench *b) {
    const struct ot_model_info *m = &b->session.info;
    char bytes[24];
    printf("%s %s, %s; %s; kernels %s\n", m->architecture, m->quantisation,
           human_bytes(bytes, (double)m->weight_bytes), b->session.context.residency, ot_kernels());
    printf("%-16s %7s %11s %9s %8s  %s\n", "test", "threads", "tokens/s", "+-", "GB/s", "of limit");
}

static double other_seconds(const struct measured *m) {
    double known = m->sampling;
    for (int p = 0; p < OT_PHASE_COUNT; p++) {
        known += p != OT_PHASE_OTHER ? m->phases[p] : 0.0;
    }
    return fmax(m->seconds - known, 0.0);
}

/* Where the time went: what took a thousandth of it at least. Other is all that no other name has.
 */
static void print_parts(const struct measured *m) {
    const struct {
        const char *name;
        double seconds;
    } parts[] = {
        {"weights", m->phases[OT_PHASE_WEIGHTS]},
        {"attention", m->phases[OT_PHASE_ATTENTION]},
        {"sampling", m->sampling},
        {"barriers", m->phases[OT_PHASE_BARRIERS]},
        {"waiting", m->phases[OT_PHASE_WAIT]},
        {"other", other_seconds(m)},
    };
    const char *before = "  time, %: ";
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
        if (parts[p].seconds >= 0.001 * m->seconds) {
            printf("%s%s %.1f", before, parts[p].name, 100.0 * parts[p].seconds / m->seconds);
            before = ", ";
        }
    }
    printf("\n");
}

static void print_test(const struct bench *b, const struct measured *m) {
    double rate = m->result.needed_bytes_per_token * m->result.tokens_per_s;
    char share[16] = "-", limit[24];
    if (m->limit > 0.0) {
        snprintf(share, sizeof share, "%.0f %% %s", 100.0 * m->of_limit,
                 m->streamed ? "disk" : "bus");
    }
    printf("%-16s %7" PRIu32 " %11.2f %9.2f %8.2f  %s\n", m->result.test, m->result.n_threads,
           m->result.tokens_per_s, m->result.stddev, rate * 1e-9, share);
    if (!b->set->quiet) {
        print_parts(m);
    }
    human_bytes(limit, m->limit);
    if (m->limit > 0.0 && m->streamed) {
        char streamed[24];
        printf("  streamed: %s a token; read without computing at %s/s\n",
               human_bytes(streamed, (double)b->session.context.streamed_bytes_per_sweep), limit);
    } else if (m->limit > 0.0) {
        printf("  memory read without computing at %s/s\n", limit);
    }
}

/* What was not measured is null: 0 would be a figure. */
static json_t *limit_json(const struct measured *m, double value) {
    return m->limit > 0.0 ? json_real(value) : json_null();
}

static int print_json(const struct bench *b) {
    json_t *results = json_array();
    bool failed = false;
    for (size_t i = 0; i < b->n_tests; i++) {
        const struct measured *m = &b->tests[i];
        double rate = m->result.needed_bytes_per_token * m->result.tokens_per_s;
        json_t *test = json_pack(
            "{s:s, s:i, s:f, s:f, s:f, s:f, s:s, s:o, s:o, s:{s:f, s:f, s:f, s:f, s:f, s:f}}",
            "test", m->result.test, "threads", (int)m->result.n_threads, "tokens_per_s",
            m->result.tokens_per_s, "stddev", m->result.stddev, "needed_bytes_per_token",
            m->result.needed_bytes_per_token, "bytes_per_s", rate, "limit",
            m->streamed ? "disk" : "memory", "limit_bytes_per_s", limit_json(m, m->limit),
            "of_limit", limit_json(m, m->of_limit), "seconds", "weights",
            m->phases[OT_PHASE_WEIGHTS], "attention", m->phases[OT_PHASE_ATTENTION], "sampling",
            m->sampling, "barriers", m->phases[OT_PHASE_BARRIERS], "other", other_seconds(m),
            "waiting", m->phases[OT_PHASE_WAIT]);
        failed |= json_array_append_new(results, test) != 0;
    }
    json_t *root = json_pack("{s:o, s:s}", "results", results, "kernels", ot_kernels());
    if (failed) {
        json_decref(root);
        return complain_memory();
    }
    return output_json(root);
}

/* ---- the whole ---- */

static int run_list(struct bench *b, bool prompt, const struct list_setting *lengths,
                    uint32_t n_seq, uint32_t depth) {
    for (uint32_t i = 0; i < lengths->n; i++) {
        if (lengths->items[i] == 0) {
            continue;
        }
        if (stop_flag != 0) {
            return EXIT_INTERRUPTED;
        }
        struct test test = {prompt, lengths->items[i], n_seq, depth,
                            b->set->share_depth && n_seq > 1 && depth > 0};
        int rc = run_test(b, &test);
        /* Where nobody reads there is nothing more to measure. */
        if (rc == 0 && b->set->json) {
            rc = output_wanted();
        } else if (rc == 0) {
            print_test(b, &b->tests[b->n_tests - 1]);
            rc = output_flush();
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static uint64_t longest(const struct list_setting *list) {
    uint64_t most = 0;
    for (uint32_t i = 0; i < list->n; i++) {
        most = list->items[i] > most ? list->items[i] : most;
    }
    return most;
}

static int measure_disk(struct bench *b) {
    struct ot_error err;
    double rate;
    uint64_t bytes;
    char a[24], c[24];
    if (ot_measure_disk(b->session.ctx, &rate, &bytes, &err) != 0) {
        return complain_error(&err);
    }
    if (b->set->json) {
        printf("{\"disk_bytes\": %" PRIu64 ", \"disk_bytes_per_s\": %.0f, \"io\": \"%s\"}\n", bytes,
               rate, b->session.context.io);
    } else {
        printf("disk: %s of one sweep at %s/s (%s)\n", human_bytes(a, (double)bytes),
               human_bytes(c, rate), b->session.context.io);
    }
    struct ot_run run = {.n_results = 0};
    return session_report(&b->session, &run, false);
}

/* Of all tests that were made, also where the next one failed or was stopped (rc). */
static int give_results(struct bench *b, int rc) {
    struct ot_bench_result results[MAX_TESTS];
    for (size_t i = 0; i < b->n_tests; i++) {
        results[i] = b->tests[i].result;
    }
    struct ot_run run = {
        .results = results, .n_results = b->n_tests, .bandwidth_bytes_per_s = b->bandwidth};
    int printed = b->set->json && rc != EXIT_PIPE ? print_json(b) : 0;
    int reported = session_report(&b->session, &run, false);
    return printed != 0 ? printed : reported;
}

static int run_tests(struct bench *b, bool last) {
    const struct list_setting *prompts = list_or(&b->set->prompts, &pp);
    const struct list_setting *generates = list_or(&b->set->generates, &tg);
    const struct list_setting *depths = list_or(&b->set->depths, &zero);
    const struct list_setting *parallels = list_or(&b->set->parallels, &one);
    int rc = 0;
    if (!b->set->json) {
        print_heading(b);
        rc = output_flush();
    }
    for (uint32_t i = 0; i < depths->n && rc == 0; i++) {
        rc = run_list(b, true, prompts, 1, depths->items[i]);
        for (uint32_t k = 0; k < parallels->n && rc == 0; k++) {
            rc = run_list(b, false, generates, parallels->items[k], depths->items[i]);
        }
    }
    if (rc == 0 ? last : b->n_tests > 0) {
        int given = give_results(b, rc);
        rc = rc != 0 ? rc : given;
    }
    return rc;
}

static uint64_t count_wanted(const struct list_setting *lengths) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < lengths->n; i++) {
        n += lengths->items[i] != 0;
    }
    return n;
}

/* As run_threads and run_tests go through the lists. */
static uint64_t count_tests(const struct settings *set) {
    uint64_t prompts = count_wanted(list_or(&set->prompts, &pp));
    uint64_t generates = count_wanted(list_or(&set->generates, &tg));
    uint64_t n_parallel = list_or(&set->parallels, &one)->n;
    return (prompts + generates * n_parallel) * list_or(&set->depths, &zero)->n *
           list_or(&set->threads, &zero)->n;
}

/* Whether there is something to measure, and it is one thing: of the disk there are no tests. */
static int check_tests(const struct settings *set) {
    bool tests = longest(&set->prompts) != 0 || longest(&set->generates) != 0 ||
                 longest(&set->depths) != 0 || set->parallels.n != 0 || set->share_depth ||
                 set->repetitions != 0;
    if (set->disk && (tests || set->threads.n > 1)) {
        complain("bench: --disk measures the disk alone, once: -p, -n, -d, -npl, -r and a list of "
                 "-t do not go with it");
        return EXIT_USAGE;
    }
    if (set->share_depth && (longest(&set->depths) == 0 || longest(&set->parallels) < 2)) {
        complain(
            "bench: --share-depth needs tokens to share (-d) and sequences to share them (-npl "
            "2 or more)");
        return EXIT_USAGE;
    }
    uint64_t prompt = longest(list_or(&set->prompts, &pp));
    uint64_t generated = longest(list_or(&set->generates, &tg));
    if (prompt == 0 && generated == 0 && !set->disk) {
        complain("bench: -p 0 and -n 0 leave nothing to measure (--disk measures the disk alone)");
        return EXIT_USAGE;
    }
    uint64_t n_tests = count_tests(set);
    if (n_tests > MAX_TESTS) {
        complain("bench: -p, -n, -npl, -d and -t ask for %" PRIu64
                 " tests, at most %d are possible",
                 n_tests, (int)MAX_TESTS);
        return EXIT_USAGE;
    }
    uint64_t n_ctx = (prompt > generated ? prompt : generated) + longest(&set->depths);
    if (n_ctx > INT32_MAX) {
        complain("bench: -p, -n and -d ask for a context of %" PRIu64 " tokens, at most %" PRId32
                 " are possible",
                 n_ctx, INT32_MAX);
        return EXIT_USAGE;
    }
    return 0;
}

/* Positions of n_seq sequences that begin with the same `depth` ones, which may end within a block:
 * each has that block for itself, too. */
static uint64_t shared_positions(uint64_t depth, uint64_t n_seq, uint64_t own) {
    return depth + n_seq * (own + 2 * OT_KV_BLOCK);
}

static int run_threads(struct bench *b, uint32_t n_threads, bool last) {
    uint64_t most = longest(list_or(&b->set->prompts, &pp));
    uint64_t generated = longest(list_or(&b->set->generates, &tg));
    uint64_t depth = longest(&b->set->depths);
    uint64_t n_ctx = (most > generated ? most : generated) + depth;
    n_ctx += n_ctx == 0; /* --disk with -p 0 and -n 0 */
    uint64_t n_seq = longest(list_or(&b->set->parallels, &one));
    b->session.n_seq = b->session.n_logits = b->session.n_logits_least = (uint32_t)n_seq;
    if (b->set->share_depth) {
        uint64_t n_kv = shared_positions(depth, n_seq, generated);
        n_kv = n_kv > n_ctx ? n_kv : n_ctx;
        b->session.n_kv = n_kv < UINT32_MAX ? (uint32_t)n_kv : 0;
    }
    int rc = session_open_context(&b->session, (uint32_t)n_ctx, n_threads);
    if (rc != 0) {
        return rc;
    }
    most = most > depth ? most : depth;
    struct ot_sampler_params greedy;
    struct ot_error err;
    ot_sampler_default_params(&greedy);
    greedy.temperature = 0.0f;
    b->inputs = calloc(most + n_seq, sizeof *b->inputs);
    b->logits = calloc(n_seq * b->session.info.n_vocab, sizeof *b->logits);
    if (b->inputs == NULL || b->logits == NULL) {
        rc = complain_memory();
    } else if (ot_sampler_open(b->session.info.n_vocab, &greedy, &b->sampler, &err) != 0) {
        rc = complain_error(&err);
    } else {
        rc = b->set->disk ? measure_disk(b) : run_tests(b, last);
    }
    free(b->inputs);
    free(b->logits);
    ot_sampler_close(b->sampler);
    b->sampler = NULL;
    ot_context_close(b->session.ctx);
    b->session.ctx = NULL;
    return rc;
}

int command_bench(const struct settings *set) {
    const struct list_setting *threads = list_or(&set->threads, &zero);
    int rc = check_tests(set);
    if (rc != 0) {
        return rc;
    }
    struct bench *b = calloc(1, sizeof *b);
    if (b == NULL) {
        return complain_memory();
    }
    b->set = set;
    b->state = 1;
    b->repetitions = set->repetitions != 0 ? (uint32_t)set->repetitions : REPETITIONS;
    stop_watch();
    rc = session_open_model(&b->session, set, false);
    for (uint32_t i = 0; i < threads->n && rc == 0; i++) {
        rc = run_threads(b, threads->items[i], i + 1 == threads->n);
    }
    session_close(&b->session);
    free(b);
    return rc;
}
