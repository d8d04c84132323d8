/* kernel.c - which table of kernels this process computes with: the one place that asks about the
 * CPU. */
#include "kernel/kernel.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/fill.h"
#include "kernel/tuning.h"

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif

void kernels_fill_scalar(struct kernels *k) {
    k->isa = "scalar";
    vector_fill_scalar(k);
    layout_fill_scalar(k);
    dequant_fill_scalar(k);
    gemv_fill_scalar(k);
    gemm_fill_scalar(k);
    attention_fill_scalar(k);
}

#if defined(__x86_64__)

void kernels_fill_avx2(struct kernels *k) {
    k->isa = "avx2";
    k->few_most = 4;
    vector_fill_avx2(k);
    layout_fill_avx2(k);
    gemv_fill_avx2(k);
    gemm_fill_avx2(k);
    attention_fill_avx2(k);
}

void kernels_fill_avxvnni(struct kernels *k) {
    k->isa = "avx-vnni";
    gemm_fill_avxvnni(k);
}

void kernels_fill_avx512(struct kernels *k) {
    k->isa = "avx512-vnni";
    k->few_most = 8;
    vector_fill_avx512(k);
    layout_fill_avx512(k);
    gemv_fill_avx512(k);
    gemm_fill_avx512(k);
    attention_fill_avx512(k);
}

void kernels_fill_avx512bf16(struct kernels *k) {
    k->isa = "avx512-bf16";
    gemm_float_fill_avx512bf16(k);
    attention_fill_avx512bf16(k);
}

static bool cpu_has_avx2(void) {
    /* Every processor with AVX2 has F16C, for which clang 14's builtin has no name. */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* Of a name that compilers do not all know. */
static bool cpu_has_avxvnni(void) {
    unsigned a, b, c, d;
    return cpu_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
}

static bool cpu_has_avx512(void) {
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni") &&
           __builtin_cpu_supports("bmi2");
}

static bool cpu_has_bf16(void) {
    return cpu_has_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* Intel's server cores multiply as many values of f32 a cycle as of bf16. */
static bool bf16_is_faster(void) {
    return __builtin_cpu_is("amd");
}

/* Measured (docs/performance-decode.md): the first choice of an Intel Emerald Rapids, that of an
 * AMD Zen 4, and that of a Zen 5, for which compilers of Debian 12 have no name yet. */
static uint32_t first_prefetch_way(void) {
    if (!__builtin_cpu_is("amd")) {
        return 1;
    }
    return __builtin_cpu_is("amdfam17h") || __builtin_cpu_is("amdfam19h") ? 2 : 3;
}

#elif defined(__aarch64__)

void kernels_fill_neon(struct kernels *k) {
    k->isa = "neon-dotprod";
    vector_fill_neon(k);
    layout_fill_neon(k);
    gemv_fill_neon(k);
    gemm_fill_neon(k);
    attention_fill_neon(k);
}

void kernels_fill_i8mm(struct kernels *k) {
    k->isa = "neon-i8mm";
    gemm_fill_i8mm(k);
}

static bool cpu_has_neon(void) {
    const unsigned long needed = HWCAP_ASIMDDP | HWCAP_FPHP | HWCAP_ASIMDHP;
    return (getauxval(AT_HWCAP) & needed) == needed;
}

static bool cpu_has_i8mm(void) {
    return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
}

static uint32_t first_prefetch_way(void) {
    return 0;
}

#else

static uint32_t first_prefetch_way(void) {
    return 0;
}

#endif

/* From the plainest to the best; each starts as a copy of the last one before it that can be used.
 */
struct variant {
    const char *name;
    void (*fill)(struct kernels *k);
    bool (*usable)(void);
    bool (*wanted)(void); /* where it is usable; NULL: always */
};

static bool always(void) {
    return true;
}

static const struct variant variants[] = {
    {"scalar", kernels_fill_scalar, always, NULL},
#if defined(__x86_64__)
    {"avx2", kernels_fill_avx2, cpu_has_avx2, NULL},
    {"avxvnni", kernels_fill_avxvnni, cpu_has_avxvnni, NULL},
    {"avx512", kernels_fill_avx512, cpu_has_avx512, NULL},
    {"avx512bf16", kernels_fill_avx512bf16, cpu_has_bf16, bf16_is_faster},
#elif defined(__aarch64__)
    {"neon", kernels_fill_neon, cpu_has_neon, NULL},
    {"i8mm", kernels_fill_i8mm, cpu_has_i8mm, NULL},
#endif
};

enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

static struct kernels tables[N_VARIANTS]; /* [n_tables] of the variants that can be used */
static const struct variant *variant_of[N_VARIANTS];
static uint32_t n_tables;
struct kernel_tuning kernel_tuning;
static const struct kernels *chosen;
static pthread_once_t once = PTHREAD_ONCE_INIT;

const uint64_t kernel_stream_ahead[KERNEL_STREAM_WAYS] = {0, 1024, 4096};

static const struct {
    uint64_t bytes, light_bytes;
    bool into_l1, pages, two_in_step, large_l1;
} prefetch_ways[KERNEL_PREFETCH_WAYS] = {{0, 0, false, true, false, false},
                                         {4096, 4096, false, true, false, false},
                                         {12288, 1024, false, true, false, false},
                                         {8192, 8192, true, false, true, true}};
static _Atomic uint32_t prefetch_way;

uint32_t kernels_prefetch_way(void) {
    return prefetch_way;
}

void kernels_use_prefetch_way(uint32_t way) {
    prefetch_way = way;
    kernel_tuning.prefetch_bytes = prefetch_ways[way].bytes;
    kernel_tuning.prefetch_light_bytes = prefetch_ways[way].light_bytes;
    kernel_tuning.prefetch_into_l1 = prefetch_ways[way].into_l1;
    kernel_tuning.prefetch_pages = prefetch_ways[way].pages;
    kernel_tuning.two_in_step = prefetch_ways[way].two_in_step;
    kernel_tuning.large_l1 = prefetch_ways[way].large_l1;
}

uint64_t kernels_prefetch_bytes(void) {
    return kernel_tuning.prefetch_bytes;
}

/* Its place among those that can be used, by either of its names; n_tables: none. */
static uint32_t find_table(const char *name) {
    uint32_t i = 0;
    while (i < n_tables && strcmp(name, variant_of[i]->name) != 0 &&
           strcmp(name, tables[i].isa) != 0) {
        i++;
    }
    return i;
}

static void build_tables(void) {
    kernels_use_prefetch_way(first_prefetch_way());
    for (uint32_t i = 0; i < N_VARIANTS; i++) {
        if (!variants[i].usable()) {
            continue;
        }
        if (n_tables > 0) {
            tables[n_tables] = tables[n_tables - 1];
        }
        variants[i].fill(&tables[n_tables]);
        variant_of[n_tables++] = &variants[i];
    }
    const char *wanted = getenv("ONETRIP_ISA");
    uint32_t best = n_tables - 1;
    while (variant_of[best]->wanted != NULL && !variant_of[best]->wanted()) {
        best--;
    }
    uint32_t named = wanted != NULL ? find_table(wanted) : n_tables;
    chosen = &tables[named < n_tables ? named : best];
}

const struct kernels *kernels_get(void) {
    pthread_once(&once, build_tables);
    return chosen;
}

const struct kernels *kernels_find(const char *isa) {
    pthread_once(&once, build_tables);
    uint32_t i = find_table(isa);
    return i < n_tables ? &tables[i] : NULL;
}

bool ot_kernels_named(const char *name, char *names, size_t names_bytes) {
    pthread_once(&once, build_tables);
    size_t used = 0;
    for (uint32_t i = 0; i < n_tables && used < names_bytes; i++) {
        used += (size_t)snprintf(names + used, names_bytes - used, "%s%s", i > 0 ? ", " : "",
                                 variant_of[i]->name);
    }
    return find_table(name) < n_tables;
}

const char *ot_kernels(void) {
    return kernels_get()->isa;
}
