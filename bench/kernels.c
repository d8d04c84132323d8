/* kernels.c - onetrip-kernels: how fast every kernel variant is, beside the machine's own limit.
 *
 * gemv and the stream read run over matrices much larger than the caches, divided over the threads
 * in pieces as the engine does it; a second gemv column runs over a matrix that stays in the cache,
 * and shows whether memory or the kernel is the limit. Passes of gemv and of the stream read are
 * run in turn; the best of each counts. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/dtype.h"
#include "base/pool.h"
#include "kernel/half.h"
#include "kernel/kernel.h"
#include "kernel/tuning.h"
#include "sys/facts.h"
#include "sys/memory.h"

static const char usage[] =
    "usage: onetrip-kernels [options]\n"
    "\n"
    "Measures every kernel variant: best of several passes.\n"
    "\n"
    "  --isa NAME      scalar, avx2, avxvnni, avx512, avx512bf16, neon or i8mm (default: the one "
    "in use)\n"
    "  --type NAME     one data type, as Q4_0 (default: all)\n"
    "  --only PART     gemv, few (gemv of --tokens N; only where asked for), gemm, attention\n"
    "                  or vector (default: all)\n"
    "  --threads N     default: as for the program\n"
    "  --cols N        columns of the matrix (default 4096)\n"
    "  --rows N        rows of the large matrix (default: 128 MiB of weights)\n"
    "  --tokens N      tokens of a gemm (default 512)\n"
    "  --passes N      passes (default 20)\n"
    "  --way N         one of the engine's ways to prefetch, 0 to 3 (default: by the CPU)\n"
    "  --prefetch N    bytes that gemv prefetches ahead, else as the way does\n"
    "  --help\n";

struct options {
    const struct kernels *k;
    uint32_t dtype; /* OT_DTYPE_MAX: all */
    const char *only;
    uint32_t n_threads, n_cols, n_rows, n_tokens, n_passes;
};

/* What all measurements share. */
struct bench {
    struct options o;
    struct pool *pool;
    uint8_t *memory; /* weights, or what is read */
    uint64_t memory_bytes;
};

/* ---- one pass of something, in pieces ---- */

struct job {
    const struct bench *b;
    const struct kernel_type *type;
    uint64_t row_bytes, stream_ahead;
    uint32_t n_rows, n_cols, rows_a_piece;
    const void *act;
    uint64_t act_bytes;
    float *y;
    uint8_t *scratch; /* [n_threads], scratch_bytes apart */
    uint64_t scratch_bytes;
    uint64_t sums[256];
};

static double pass_seconds(struct bench *b, uint32_t n_pieces, pool_fn *fn, struct job *job) {
    uint64_t from = clock_ns();
    pool_run(b->pool, n_pieces, fn, job);
    return clock_seconds(from, clock_ns());
}

static double least(double a, double b) {
    return a < b ? a : b;
}

enum { STREAM_PIECE = 1 << 20, FEW_CACHED_BYTES = 128 << 10 };

static void stream_piece(void *arg, uint32_t piece, uint32_t worker) {
    struct job *job = arg;
    job->sums[worker % 256] += job->b->o.k->stream_read(
        job->b->memory + (uint64_t)piece * STREAM_PIECE, STREAM_PIECE, job->stream_ahead);
}

static double stream_pass_seconds(struct bench *b, uint32_t pass) {
    struct job job = {.b = b, .stream_ahead = kernel_stream_ahead[pass % KERNEL_STREAM_WAYS]};
    return pass_seconds(b, (uint32_t)(b->memory_bytes / STREAM_PIECE), stream_piece, &job);
}

static double measure_stream(struct bench *b) {
    double best = 1e9;
    for (uint32_t i = 0; i < b->o.n_passes; i++) {
        best = least(best, stream_pass_seconds(b, i));
    }
    return (double)(b->memory_bytes / STREAM_PIECE * STREAM_PIECE) / best;
}

static void gemv_piece(void *arg, uint32_t piece, uint32_t worker) {
    (void)worker;
    struct job *job = arg;
    uint32_t row = piece * job->rows_a_piece;
    uint32_t n = job->n_rows - row < job->rows_a_piece ? job->n_rows - row : job->rows_a_piece;
    job->type->gemv(job->b->memory + row * job->row_bytes, job->row_bytes, n, job->n_cols, job->act,
                    job->y + row);
}

static uint32_t rows_in(const struct job *job, uint64_t bytes) {
    return bytes > job->row_bytes ? (uint32_t)(bytes / job->row_bytes) : 1;
}

/* As in model/matmul.c: rows that stay in the cache for all tokens, KERNEL_FEW tokens at a time. */
static void few_piece(void *arg, uint32_t piece, uint32_t worker) {
    (void)worker;
    struct job *job = arg;
    uint32_t first = piece * job->rows_a_piece, n_tokens = job->b->o.n_tokens;
    uint32_t end =
        job->n_rows - first < job->rows_a_piece ? job->n_rows : first + job->rows_a_piece;
    uint32_t step = rows_in(job, FEW_CACHED_BYTES);
    uint32_t groups = job->type->few != NULL ? (n_tokens + KERNEL_FEW - 1) / KERNEL_FEW : n_tokens;
    for (uint32_t row = first; row < end; row += step) {
        const uint8_t *w = job->b->memory + row * job->row_bytes;
        uint32_t n = end - row < step ? end - row : step;
        for (uint32_t g = 0, t = 0; g < groups; g++) {
            const void *x[KERNEL_FEW];
            uint32_t count = (n_tokens - t) / (groups - g);
            for (uint32_t i = 0; i < count; i++) {
                x[i] = (const uint8_t *)job->act + (t + i) * job->act_bytes;
            }
            float *y = job->y + (uint64_t)t * job->n_rows + row;
            if (count == 1) {
                job->type->gemv(w, job->row_bytes, n, job->n_cols, x[0], y);
            } else {
                job->type->few(w, job->row_bytes, n, job->n_cols, x, count, y, job->n_rows);
            }
            t += count;
        }
    }
}

static void gemm_piece(void *arg, uint32_t piece, uint32_t worker) {
    struct job *job = arg;
    uint32_t row = piece * job->rows_a_piece;
    uint32_t n = job->n_rows - row < job->rows_a_piece ? job->n_rows - row : job->rows_a_piece;
    job->type->gemm(job->b->memory + row * job->row_bytes, job->row_bytes, n, job->n_rows - row - n,
                    job->n_cols, job->act, job->act_bytes, NULL, job->b->o.n_tokens, job->y + row, job->n_rows,
                    job->scratch + worker * job->scratch_bytes);
}

/* ---- what is multiplied ---- */

/* Bytes that look like weights of most types: random codes, and no number that is not finite. */
static void fill_weights(uint8_t *w, uint64_t bytes) {
    uint32_t state = 1;
    for (uint64_t i = 0; i + 4 <= bytes; i += 4) {
        state = state * 1664525u + 1013904223u;
        uint32_t word = state & 0x3f3f3f3fu;
        memcpy(w + i, &word, 4);
    }
}

/* MXFP4's scales are powers of two by a byte: those of real weights, none that makes denormals. */
static void fill_exponents(uint8_t *w, uint64_t bytes) {
    for (uint64_t i = 0; i < bytes; i += 17) {
        w[i] = (uint8_t)(116 + i % 8);
    }
}

/* Prepared rows, owned by the caller; NULL: no memory. */
static uint8_t *prepare_rows(const struct bench *b, uint8_t layout, uint32_t n, uint64_t *bytes) {
    const struct kernels *k = b->o.k;
    float *x = mem_calloc(b->o.n_cols, sizeof *x);
    *bytes = k->layout_bytes(layout, b->o.n_cols);
    uint8_t *rows = x != NULL ? sys_memory_take(*bytes * n, false, NULL) : NULL;
    for (uint32_t t = 0; rows != NULL && t < n; t++) {
        for (uint32_t c = 0; c < b->o.n_cols; c++) {
            x[c] = (float)((c * 37 + t * 11) % 101) - 50.0f;
        }
        k->prepare(layout, x, b->o.n_cols, rows + t * *bytes);
    }
    mem_free(x);
    return rows;
}

/* Of a gemv: what a thread takes at most, as in model/matmul.c; and what stays in the cache. */
enum { GEMV_PIECE_BYTES = 1 << 20, GEMV_CACHED_BYTES = 256 << 10 };

static void measure_few(struct bench *b, uint32_t dtype) {
    struct job job = {.b = b, .type = &b->o.k->type[dtype], .n_cols = b->o.n_cols};
    uint32_t n_tokens = b->o.n_tokens;
    job.row_bytes = dtype_bytes(dtype, b->o.n_cols);
    uint8_t *act = prepare_rows(b, job.type->layout_gemv, n_tokens, &job.act_bytes);
    uint64_t whole = b->o.n_rows != 0 ? b->o.n_rows * job.row_bytes : b->memory_bytes;
    job.act = act;
    job.n_rows = rows_in(&job, whole);
    job.y = mem_calloc((uint64_t)job.n_rows * n_tokens, sizeof *job.y);
    if (act == NULL || job.y == NULL) {
        fprintf(stderr, "onetrip-kernels: out of memory\n");
        exit(1);
    }
    uint32_t all_rows = job.n_rows;
    job.rows_a_piece = rows_in(&job, GEMV_PIECE_BYTES);
    uint32_t n_pieces = (job.n_rows + job.rows_a_piece - 1) / job.rows_a_piece;
    double seconds = 1e9, one = 1e9;
    for (uint32_t i = 0; i < b->o.n_passes; i++) {
        seconds = least(seconds, pass_seconds(b, n_pieces, few_piece, &job));
        one = least(one, pass_seconds(b, n_pieces, gemv_piece, &job));
    }
    job.n_rows = job.rows_a_piece = rows_in(&job, FEW_CACHED_BYTES);
    double cached = 1e9, cached_one = 1e9;
    for (uint32_t i = 0; i < 400; i++) {
        uint64_t from = clock_ns();
        few_piece(&job, 0, 0);
        cached = least(cached, clock_seconds(from, clock_ns()));
        from = clock_ns();
        gemv_piece(&job, 0, 0);
        cached_one = least(cached_one, clock_seconds(from, clock_ns()));
    }
    double bytes = (double)all_rows * (double)job.row_bytes;
    printf("few  %-8s %2u tokens %8.2f GB/s  %5.2f x one (%6.2f GB/s)   from cache, 1 thread %7.2f "
           "GB/s, %5.2f x one\n",
           ot_dtype_name(dtype), n_tokens, bytes / seconds * 1e-9, seconds / one,
           bytes / one * 1e-9, (double)job.n_rows * (double)job.row_bytes / cached * 1e-9,
           cached / cached_one);
    fflush(stdout);
    mem_free(job.y);
    sys_memory_free(act, job.act_bytes * n_tokens);
}

static void measure_gemv(struct bench *b, uint32_t dtype) {
    struct job job = {.b = b, .type = &b->o.k->type[dtype], .n_cols = b->o.n_cols};
    job.row_bytes = dtype_bytes(dtype, b->o.n_cols);
    uint64_t act_bytes;
    uint8_t *act = prepare_rows(b, job.type->layout_gemv, 1, &act_bytes);
    uint64_t whole = b->o.n_rows != 0 ? b->o.n_rows * job.row_bytes : b->memory_bytes;
    job.act = act;
    job.y = mem_calloc(whole / job.row_bytes + 1, sizeof *job.y);
    if (act == NULL || job.y == NULL) {
        fprintf(stderr, "onetrip-kernels: out of memory\n");
        exit(1);
    }
    job.n_rows = rows_in(&job, whole);
    job.rows_a_piece = rows_in(&job, GEMV_PIECE_BYTES);
    uint32_t n_pieces = (job.n_rows + job.rows_a_piece - 1) / job.rows_a_piece;
    double seconds = 1e9, stream = 1e9;
    for (uint32_t i = 0; i < b->o.n_passes; i++) { /* in turn, so that both see the same machine */
        seconds = least(seconds, pass_seconds(b, n_pieces, gemv_piece, &job));
        stream = least(stream, stream_pass_seconds(b, i));
    }
    double speed = (double)job.n_rows * (double)job.row_bytes / seconds;
    double peak = (double)(b->memory_bytes / STREAM_PIECE * STREAM_PIECE) / stream;

    /* From the cache, on one thread: the same rows again and again. */
    job.n_rows = job.rows_a_piece = rows_in(&job, GEMV_CACHED_BYTES);
    double cached = 1e9;
    for (uint32_t i = 0; i < 400; i++) {
        uint64_t from = clock_ns();
        gemv_piece(&job, 0, 0);
        cached = least(cached, clock_seconds(from, clock_ns()));
    }
    printf("gemv %-8s %8.2f GB/s  %5.1f %% of %6.2f   from cache, 1 thread %7.2f GB/s\n",
           ot_dtype_name(dtype), speed * 1e-9, speed / peak * 100, peak * 1e-9,
           (double)job.n_rows * (double)job.row_bytes / cached * 1e-9);
    fflush(stdout);
    mem_free(job.y);
    sys_memory_free(act, act_bytes);
}

static void measure_gemm(struct bench *b, uint32_t dtype) {
    struct job job = {.b = b, .type = &b->o.k->type[dtype], .n_cols = b->o.n_cols};
    job.row_bytes = dtype_bytes(dtype, b->o.n_cols);
    uint8_t *act = prepare_rows(b, job.type->layout_gemm, b->o.n_tokens, &job.act_bytes);
    job.act = act;
    uint32_t n_rows = b->o.n_rows != 0 ? b->o.n_rows : rows_in(&job, 8u << 20);
    job.n_rows = n_rows / KERNEL_TILE_ROWS * KERNEL_TILE_ROWS;
    if (b->o.k == kernels_find("scalar")) {
        job.n_rows = KERNEL_TILE_ROWS;
    }
    job.rows_a_piece = KERNEL_TILE_ROWS;
    job.y = mem_calloc((uint64_t)job.n_rows * b->o.n_tokens, sizeof *job.y);
    uint64_t scratch = b->o.k->gemm_scratch_bytes(b->o.n_cols);
    job.scratch_bytes = (scratch + 4095) / 4096 * 4096;
    job.scratch = sys_memory_take(job.scratch_bytes * b->o.n_threads, false, NULL);
    if (act == NULL || job.y == NULL || job.scratch == NULL || job.n_rows == 0) {
        fprintf(stderr, "onetrip-kernels: out of memory\n");
        exit(1);
    }
    double seconds = 1e9;
    for (uint32_t i = 0; i < (b->o.n_passes + 3) / 4; i++) {
        seconds = least(seconds, pass_seconds(b, job.n_rows / KERNEL_TILE_ROWS, gemm_piece, &job));
    }
    double macs = (double)job.n_rows * b->o.n_cols * b->o.n_tokens;
    printf("gemm %-8s %8.1f GMAC/s  (%u rows, %u columns, %u tokens)\n", ot_dtype_name(dtype),
           macs / seconds * 1e-9, job.n_rows, b->o.n_cols, b->o.n_tokens);
    fflush(stdout);
    mem_free(job.y);
    sys_memory_free(act, job.act_bytes * b->o.n_tokens);
    sys_memory_free(job.scratch, job.scratch_bytes * b->o.n_threads);
}

/* ---- attention: one kv head, a group of query heads, one thread ---- */

static void measure_attention(struct bench *b, uint32_t n_q, uint32_t n_ctx, uint32_t head_dim) {
    const struct kernels *k = b->o.k;
    uint64_t kv_bytes = (uint64_t)n_ctx * head_dim * 2;
    uint16_t *kv = sys_memory_take(2 * kv_bytes, false, NULL);
    float *rows = mem_calloc((uint64_t)2 * n_q * head_dim, sizeof *rows);
    uint64_t scratch_bytes = k->attention_scratch_bytes(head_dim);
    void *scratch = sys_memory_take(scratch_bytes, false, NULL);
    uint32_t n_blocks = (n_ctx + KERNEL_KEY_BLOCK - 1) / KERNEL_KEY_BLOCK;
    uint32_t *blocks = mem_calloc(n_blocks, sizeof *blocks);
    if (kv == NULL || rows == NULL || scratch == NULL || blocks == NULL) {
        fprintf(stderr, "onetrip-kernels: out of memory\n");
        exit(1);
    }
    for (uint64_t i = 0; i < kv_bytes; i++) { /* kv_bytes values in k and v together */
        kv[i] = half_from_f32((float)(i * 37 % 101) / 101.0f - 0.5f);
    }
    for (uint32_t i = 0; i < n_blocks; i++) {
        blocks[i] = i;
    }
    const float *q[KERNEL_MAX_Q];
    float *out[KERNEL_MAX_Q];
    uint32_t pos[KERNEL_MAX_Q];
    for (uint32_t i = 0; i < n_q; i++) {
        float *row = rows + (uint64_t)i * head_dim;
        for (uint32_t c = 0; c < head_dim; c++) {
            row[c] = (float)((c + i) % 13) / 13.0f - 0.5f;
        }
        q[i] = row;
        out[i] = row + (uint64_t)n_q * head_dim;
        pos[i] = n_ctx - 1;
    }
    struct kernel_attention args = {.q = q,
                                    .out = out,
                                    .pos = pos,
                                    .n_q = n_q,
                                    .head_dim = head_dim,
                                    .k = kv,
                                    .v = kv + kv_bytes / 2,
                                    .blocks = blocks,
                                    .scale = 0.1f};
    double best = 1e9;
    for (uint32_t i = 0; i < 4 * b->o.n_passes; i++) {
        uint64_t from = clock_ns();
        (n_q > 4 ? k->attention_prompt : k->attention)(&args, scratch);
        best = least(best, clock_seconds(from, clock_ns()));
    }
    printf("attention %2u rows, %u keys, head %u: %7.2f GB/s of KV, %7.1f GMAC/s, 1 thread\n", n_q,
           n_ctx, head_dim, 2.0 * (double)kv_bytes / best * 1e-9,
           2.0 * n_q * n_ctx * head_dim / best * 1e-9);
    fflush(stdout);
    sys_memory_free(scratch, scratch_bytes);
    mem_free(blocks);
    mem_free(rows);
    sys_memory_free(kv, 2 * kv_bytes);
}

/* ---- operations on rows: one thread, rows that stay in the cache ---- */

enum { VECTOR_N = 4096, VECTOR_REPEATS = 200 };
static float vector_x[VECTOR_N], vector_y[VECTOR_N];
static uint16_t vector_h[VECTOR_N];
static uint8_t vector_act[VECTOR_N * 8] __attribute__((aligned(64)));

static void run_rms_norm(const struct kernels *k) {
    k->rms_norm(vector_x, vector_y, VECTOR_N, 1e-5f, vector_x);
}
static void run_silu_mul(const struct kernels *k) {
    k->silu_mul(vector_x, vector_y, VECTOR_N);
}
static void run_gelu_mul(const struct kernels *k) {
    k->gelu_mul(vector_x, vector_y, VECTOR_N);
}
static void run_add_scaled(const struct kernels *k) {
    k->add_scaled(vector_x, vector_y, 0.5f, VECTOR_N);
}
static void run_rope(const struct kernels *k) {
    k->rope(vector_x, VECTOR_N / 128, 128, 128, false, vector_y, vector_y + 64);
}
static void run_rope_neox(const struct kernels *k) {
    k->rope(vector_x, VECTOR_N / 128, 128, 128, true, vector_y, vector_y + 64);
}
static void run_f32_to_f16(const struct kernels *k) {
    k->f32_to_f16(vector_x, VECTOR_N, vector_h);
}
static void run_softcap(const struct kernels *k) {
    k->softcap(vector_x, VECTOR_N, 30.0f);
}
static void run_all_finite(const struct kernels *k) {
    vector_h[0] = (uint16_t)k->all_finite(vector_x, VECTOR_N);
}
static void run_prepare(const struct kernels *k) {
    k->prepare(k->type[OT_Q4_0].layout_gemv, vector_x, VECTOR_N, vector_act);
}
static void run_prepare_k(const struct kernels *k) {
    k->prepare(k->type[OT_Q4_K].layout_gemv, vector_x, VECTOR_N, vector_act);
}

static void measure_vectors(const struct kernels *k) {
    static const struct {
        const char *name;
        void (*run)(const struct kernels *k);
    } parts[] = {
        {"rms_norm", run_rms_norm},
        {"silu_mul", run_silu_mul},
        {"gelu_mul", run_gelu_mul},
        {"add_scaled", run_add_scaled},
        {"rope", run_rope},
        {"rope neox", run_rope_neox},
        {"f32_to_f16", run_f32_to_f16},
        {"softcap", run_softcap},
        {"all_finite", run_all_finite},
        {"prepare Q4_0", run_prepare},
        {"prepare Q4_K", run_prepare_k},
    };
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        double best = 1e9;
        for (uint32_t i = 0; i < VECTOR_REPEATS; i++) {
            for (uint32_t c = 0; c < VECTOR_N; c++) {
                vector_x[c] = (float)(c * 37 % 101) / 50.0f - 1.0f;
                vector_y[c] = 0.5f;
            }
            uint64_t from = clock_ns();
            parts[p].run(k);
            best = least(best, clock_seconds(from, clock_ns()));
        }
        printf("%-12s %8.3f values/ns  %7.2f us for %d\n", parts[p].name, VECTOR_N / best * 1e-9,
               best * 1e6, VECTOR_N);
    }
}

/* ---- the command line ---- */

static void die(const char *what, const char *value) {
    fprintf(stderr, "onetrip-kernels: %s: %s\n", what, value);
    exit(2);
}

static uint32_t number(const char *text, uint32_t least, uint32_t most) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || *end != 0 || text[0] < '0' || text[0] > '9' || value < least ||
        value > most) {
        die("not a number in range", text);
    }
    return (uint32_t)value;
}

static uint32_t type_by_name(const char *name) {
    for (uint32_t d = 0; d < OT_DTYPE_MAX; d++) {
        if (dtype_known(d) && strcmp(ot_dtype_name(d), name) == 0) {
            return d;
        }
    }
    die("unknown type", name);
    return 0;
}

static const char *part_by_name(const char *name) {
    static const char *const parts[] = {"gemv", "few", "gemm", "attention", "vector"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strcmp(parts[i], name) == 0) {
            return parts[i];
        }
    }
    die("no such part", name);
    return NULL;
}

static void parse(int argc, char **argv, struct options *o) {
    static const struct option names[] = {
        {"isa", 1, 0, 'i'},  {"type", 1, 0, 't'},     {"only", 1, 0, 'o'},   {"threads", 1, 0, 'n'},
        {"cols", 1, 0, 'c'}, {"rows", 1, 0, 'r'},     {"tokens", 1, 0, 'k'}, {"passes", 1, 0, 'p'},
        {"way", 1, 0, 'w'},  {"prefetch", 1, 0, 'f'}, {"help", 0, 0, 'h'},   {0, 0, 0, 0},
    };
    int c;
    while ((c = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        switch (c) {
        case 'i':
            o->k = kernels_find(optarg);
            if (o->k == NULL) {
                die("no such instruction set here", optarg);
            }
            break;
        case 't': o->dtype = type_by_name(optarg); break;
        case 'o': o->only = part_by_name(optarg); break;
        case 'n': o->n_threads = number(optarg, 1, 256); break;
        case 'c': o->n_cols = number(optarg, 32, 1 << 20); break;
        case 'r': o->n_rows = number(optarg, 32, 1 << 24); break;
        case 'k': o->n_tokens = number(optarg, 1, 1 << 16); break;
        case 'p': o->n_passes = number(optarg, 1, 1000); break;
        case 'w': kernels_use_prefetch_way(number(optarg, 0, KERNEL_PREFETCH_WAYS - 1)); break;
        case 'f':
            kernel_tuning.prefetch_bytes = number(optarg, 0, 1 << 20);
            kernel_tuning.prefetch_light_bytes = kernel_tuning.prefetch_bytes;
            break;
        case 'h': fputs(usage, stdout); exit(0);
        default: fputs(usage, stderr); exit(2);
        }
    }
    if (optind != argc) {
        die("unexpected argument", argv[optind]);
    }
}

static bool wanted(const struct bench *b, const char *part) {
    return b->o.only == NULL || strcmp(b->o.only, part) == 0;
}

static void measure_types(struct bench *b) {
    for (uint32_t d = 0; d < OT_DTYPE_MAX; d++) {
        if (!dtype_known(d) || (b->o.dtype != OT_DTYPE_MAX && d != b->o.dtype)) {
            continue;
        }
        if (b->o.n_cols % dtype_get(d)->block_values != 0) {
            printf("     %-8s needs columns in multiples of %u\n", ot_dtype_name(d),
                   dtype_get(d)->block_values);
            continue;
        }
        if (d == OT_MXFP4) { /* the last type: it spoils the weights for others */
            fill_exponents(b->memory, b->memory_bytes);
        }
        if (wanted(b, "gemv")) {
            measure_gemv(b, d);
        }
        if (b->o.only != NULL && wanted(b, "few")) {
            measure_few(b, d);
        }
        if (wanted(b, "gemm")) {
            measure_gemm(b, d);
        }
    }
}

int main(int argc, char **argv) {
    struct bench b = {.memory_bytes = 128u << 20};
    b.o = (struct options){.k = kernels_get(),
                           .dtype = OT_DTYPE_MAX,
                           .n_cols = 4096,
                           .n_tokens = 512,
                           .n_passes = 20,
                           .n_threads = sys_cpu_facts()->n_default};
    parse(argc, argv, &b.o);
    if (b.o.n_rows != 0) { /* enough for the widest type */
        uint64_t needed = (uint64_t)b.o.n_rows * b.o.n_cols * 4;
        b.memory_bytes = needed > b.memory_bytes ? needed : b.memory_bytes;
    }
    b.pool = pool_open(b.o.n_threads);
    b.memory = sys_memory_take(b.memory_bytes, true, NULL);
    if (b.pool == NULL || b.memory == NULL) {
        die("out of memory", "threads or matrix");
    }
    fill_weights(b.memory, b.memory_bytes);
    printf("%s, kernels %s, %u threads, %u columns, prefetch %llu bytes ahead\n",
           sys_cpu_facts()->name, b.o.k->isa, b.o.n_threads, b.o.n_cols,
           (unsigned long long)kernel_tuning.prefetch_bytes);
    printf("stream read   %8.2f GB/s\n", measure_stream(&b) * 1e-9);
    if (wanted(&b, "gemv") || wanted(&b, "few") || wanted(&b, "gemm")) {
        measure_types(&b);
    }
    if (wanted(&b, "attention")) {
        measure_attention(&b, 1, 4096, 128);
        measure_attention(&b, 4, 4096, 128);
        measure_attention(&b, 64, 4096, 128);
    }
    if (wanted(&b, "vector")) {
        measure_vectors(b.o.k);
    }
    printf("stream read   %8.2f GB/s (again, after)\n", measure_stream(&b) * 1e-9);
    sys_memory_free(b.memory, b.memory_bytes);
    pool_close(b.pool);
    return 0;
}
