/* measure.c - what the machine could do at best: the yardsticks beside the engine's own speed. */
#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "engine/context.h"
#include "sys/facts.h"
#include "sys/memory.h"

enum { CHUNK_BYTES = 1 << 20, PASSES = 6 };

struct stream_job {
    const struct kernels *kernels;
    const uint8_t *data;
    uint64_t ahead;
    uint64_t sink[POOL_MAX_THREADS]; /* one a worker, so that the reads are not optimised away */
};

static void stream_piece(void *arg, uint32_t piece, uint32_t worker) {
    struct stream_job *job = arg;
    job->sink[worker] ^= job->kernels->stream_read(job->data + (uint64_t)piece * CHUNK_BYTES,
                                                   CHUNK_BYTES, job->ahead);
}

static void fill_piece(void *arg, uint32_t piece, uint32_t worker) {
    (void)worker;
    struct stream_job *job = arg;
    uint64_t *words = (uint64_t *)(uintptr_t)(job->data + (uint64_t)piece * CHUNK_BYTES);
    for (uint64_t i = 0; i < CHUNK_BYTES / sizeof *words; i++) {
        words[i] = i * 0x9e3779b97f4a7c15u;
    }
}

int ot_measure_bandwidth(struct ot_context *ctx, uint32_t mib_per_thread, double *out,
                         struct ot_error *err) {
    uint32_t n_pieces;
    if (mib_per_thread == 0 ||
        __builtin_mul_overflow(mib_per_thread, pool_threads(ctx->pool), &n_pieces)) {
        return error_set(err, OT_ERR_ARGUMENT, "bandwidth", "%u MiB a thread", mib_per_thread);
    }
    uint64_t bytes = (uint64_t)n_pieces * CHUNK_BYTES;
    struct sys_limits limits;
    sys_limits_read(&limits);
    if (bytes > min_u64(limits.available_bytes, limits.cgroup_bytes)) {
        return error_set(err, OT_ERR_MEMORY, "bandwidth",
                         "%u MiB for each of %u threads are more than the memory that is free",
                         mib_per_thread, pool_threads(ctx->pool));
    }
    void *memory = sys_memory_take(bytes, true, err);
    if (memory == NULL) {
        return OT_ERR_MEMORY;
    }
    struct stream_job job = {.kernels = ctx->kernels, .data = memory};
    pool_run(ctx->pool, n_pieces, fill_piece, &job);
    double best = 0.0;
    for (uint32_t pass = 0; pass < PASSES; pass++) {
        job.ahead = kernel_stream_ahead[pass % KERNEL_STREAM_WAYS];
        uint64_t start_ns = clock_ns();
        pool_run(ctx->pool, n_pieces, stream_piece, &job);
        double rate = (double)bytes / clock_seconds(start_ns, clock_ns());
        best = rate > best ? rate : best;
    }
    sys_memory_free(memory, bytes);
    *out = best;
    return OT_OK;
}

int ot_measure_disk(struct ot_context *ctx, double *bytes_per_s, uint64_t *bytes,
                    struct ot_error *err) {
    return residency_measure_disk(ctx->residency, ctx->requested.stop, bytes_per_s, bytes, err);
}

uint64_t ot_memory_bytes(void) {
    struct sys_limits limits;
    sys_limits_read(&limits);
    return min_u64(limits.memory_bytes, limits.cgroup_bytes);
}
