/* rope.c - the angles of every position, computed in double precision. */
#include "model/rope.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

static const double pi = 3.14159265358979323846;

/* YaRN: below which dimension a frequency is kept, above which it is interpolated. */
static double yarn_dimension(const struct hparams *hp, double base, double rotations) {
    return hp->n_rot * log(hp->rope_orig_ctx / (rotations * 2.0 * pi)) / (2.0 * log(base));
}

static double yarn_keep(double low, double high, double dimension) {
    double y = (dimension - low) / fmax(0.001, high - low);
    return 1.0 - fmin(1.0, fmax(0.0, y));
}

int rope_open(struct rope *rope, const struct hparams *hp, bool local, const float *factors,
              struct ot_error *err) {
    *rope = (struct rope){.n_half = hp->n_rot / 2, .magnitude = 1.0f};
    rope->inv_freq = mem_calloc(rope->n_half, sizeof *rope->inv_freq);
    if (rope->inv_freq == NULL) {
        return error_memory(err, rope->n_half * sizeof *rope->inv_freq);
    }
    double base = local ? hp->rope_base_local : hp->rope_base;
    double stretch = local && hp->local_rope_unscaled ? 1.0 : hp->rope_factor;
    bool yarn = hp->rope_scaling == ROPE_YARN && !(local && hp->local_rope_unscaled);
    double low = 0.0, high = 0.0;
    if (yarn) {
        low = fmax(0.0, floor(yarn_dimension(hp, base, 32.0)));
        high = fmin(hp->n_rot - 1.0, ceil(yarn_dimension(hp, base, 1.0)));
        rope->magnitude = (float)(1.0 + 0.1 * log(fmax(1.0, stretch)));
    }
    rope->magnitude *= hp->rope_attn_factor;
    for (uint32_t i = 0; i < rope->n_half; i++) {
        double f = pow(base, -2.0 * i / hp->n_rot);
        if (factors != NULL) {
            f /= factors[i];
        }
        double keep = yarn ? yarn_keep(low, high, i) : 0.0;
        rope->inv_freq[i] = f * keep + f / stretch * (1.0 - keep);
    }
    return OT_OK;
}

void rope_close(struct rope *rope) {
    mem_free(rope->inv_freq);
    memset(rope, 0, sizeof *rope);
}

void rope_angles(const struct rope *rope, uint32_t position, float *cosines, float *sines) {
    for (uint32_t i = 0; i < rope->n_half; i++) {
        double angle = position * rope->inv_freq[i];
        cosines[i] = (float)cos(angle) * rope->magnitude;
        sines[i] = (float)sin(angle) * rope->magnitude;
    }
}
