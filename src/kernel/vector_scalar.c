/* vector_scalar.c - operations on rows of f32, plainly. */
#include <math.h>
#include <string.h>

#include "kernel/fill.h"
#include "kernel/half.h"

static void rms_norm(const float *x, const float *gain, uint32_t n, float eps, float *y) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    float factor = (float)(1.0 / sqrt(sum / n + (double)eps));
    for (uint32_t i = 0; i < n; i++) {
        y[i] = gain != NULL ? x[i] * factor * gain[i] : x[i] * factor;
    }
}

static void silu_mul(float *gate, const float *up, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}

/* 0.5 x (1 + tanh u) = x / (1 + exp(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3). */
static void gelu_mul(float *gate, const float *up, uint64_t n) {
    const float factor = 0.79788456080286535588f;
    for (uint64_t i = 0; i < n; i++) {
        float x = gate[i];
        float u = factor * x * (1.0f + 0.044715f * x * x);
        gate[i] = x / (1.0f + expf(-2.0f * u)) * up[i];
    }
}

static void add_scaled(float *y, const float *x, float factor, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        y[i] += x[i] * factor;
    }
}

static void rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, bool neox,
                 const float *cos, const float *sin) {
    uint32_t half = n_rot / 2, step = neox ? 1 : 2, apart = neox ? half : 1;
    for (uint32_t h = 0; h < n_heads; h++, x += head_dim) {
        for (uint32_t i = 0; i < half; i++) {
            float *a = x + (uint64_t)i * step, *b = a + apart;
            float rotated = *a * cos[i] - *b * sin[i];
            *b = *a * sin[i] + *b * cos[i];
            *a = rotated;
        }
    }
}

static void f32_to_f16(const float *x, uint64_t n, uint16_t *y) {
    for (uint64_t i = 0; i < n; i++) {
        y[i] = half_from_f32(x[i]);
    }
}

static void softcap(float *x, uint64_t n, float cap) {
    for (uint64_t i = 0; i < n; i++) {
        x[i] = cap * tanhf(x[i] / cap);
    }
}

static bool all_finite(const float *x, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return false;
        }
    }
    return true;
}

static uint64_t stream_read(const uint8_t *data, uint64_t bytes, uint64_t ahead) {
    (void)ahead; /* the compiler's own loop: the hardware prefetches */
    uint64_t sum[4] = {0};
    uint64_t at = 0;
    for (; at + 32 <= bytes; at += 32) {
        uint64_t words[4];
        memcpy(words, data + at, 32);
        for (int i = 0; i < 4; i++) {
            sum[i] += words[i];
        }
    }
    for (; at < bytes; at++) {
        sum[0] += data[at];
    }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

void vector_fill_scalar(struct kernels *k) {
    k->rms_norm = rms_norm;
    k->silu_mul = silu_mul;
    k->gelu_mul = gelu_mul;
    k->add_scaled = add_scaled;
    k->rope = rope;
    k->f32_to_f16 = f32_to_f16;
    k->softcap = softcap;
    k->all_finite = all_finite;
    k->stream_read = stream_read;
}
