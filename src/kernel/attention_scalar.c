/* attention_scalar.c - softmax(scale * q k^T) v of one kv head, plain: the oracle of the others.
 *
 * Online softmax over blocks of KERNEL_KEY_BLOCK keys: the best score so far, the sum of weights
 * and the weighted values are carried from block to block, so that scores live for one block only.
 */
#include <math.h>
#include <string.h>

#include "kernel/fill.h"
#include "kernel/half.h"

struct softmax {
    double best, sum;
};

static double score(const struct kernel_attention *a, const float *q, uint64_t key) {
    const uint16_t *k = a->k + kernel_key_offset(a, key);
    double dot = 0;
    for (uint32_t i = 0; i < a->head_dim; i++)
        dot += (double)q[i] * (double)half_to_f32(k[i]);
    dot *= (double)a->scale;
    if (a->softcap > 0)
        dot = (double)a->softcap * tanh(dot / (double)a->softcap);
    return dot;
}

/* Keys [first, end), all of one block, into the sums of row q. */
static void visit_block(const struct kernel_attention *a, const float *q, uint64_t first,
                        uint64_t end, struct softmax *s, double *sums) {
    double scores[KERNEL_KEY_BLOCK], best = s->best;
    for (uint64_t key = first; key < end; key++) {
        scores[key - first] = score(a, q, key);
        best = fmax(best, scores[key - first]);
    }
    const double keep = isinf(s->best) ? 0 : exp(s->best - best);
    s->best = best;
    s->sum *= keep;
    for (uint32_t i = 0; i < a->head_dim; i++)
        sums[i] *= keep;
    for (uint64_t key = first; key < end; key++) {
        const double weight = exp(scores[key - first] - best);
        const uint16_t *v = a->v + kernel_key_offset(a, key);
        s->sum += weight;
        for (uint32_t i = 0; i < a->head_dim; i++)
            sums[i] += weight * (double)half_to_f32(v[i]);
    }
}

static void attention(const struct kernel_attention *a, void *scratch) {
    double *sums = scratch;
    for (uint32_t row = 0; row < a->n_q; row++) {
        const uint64_t end = (uint64_t)a->pos[row] + 1;
        uint64_t key = a->window != 0 && end > a->window ? end - a->window : 0;
        struct softmax s = {-INFINITY, 0};
        memset(sums, 0, a->head_dim * sizeof *sums);
        while (key < end) {
            const uint64_t block_end = (key / KERNEL_KEY_BLOCK + 1) * KERNEL_KEY_BLOCK;
            const uint64_t stop = block_end < end ? block_end : end;
            visit_block(a, a->q[row], key, stop, &s, sums);
            key = stop;
        }
        for (uint32_t i = 0; i < a->head_dim; i++)
            a->out[row][i] = (float)(sums[i] / s.sum);
        if (a->totals != NULL)
            a->totals[row] = s.best + log(s.sum);
    }
}

static uint64_t scratch_bytes(uint32_t head_dim) {
    return (head_dim * sizeof(double) + KERNEL_ALIGN - 1) / KERNEL_ALIGN * KERNEL_ALIGN;
}

void attention_fill_scalar(struct kernels *k) {
    k->attention = attention;
    k->attention_prompt = attention;
    k->attention_scratch_bytes = scratch_bytes;
}
