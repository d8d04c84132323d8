/* rope.h - rotary position embedding: the angles of every position.
 *
 * Sources: RoFormer (arXiv 2104.09864); YaRN (arXiv 2309.00071) for the yarn scaling; LongRoPE
 * (arXiv 2402.13753) for long and short factors; per-frequency factors as Llama 3.1 publishes them.
 */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include <stdint.h>

#include "model/hparams.h"
#include "onetrip.h"

/* Inverse frequencies of one kind of layer (global or local). */
struct rope {
    uint32_t n_half;
    float magnitude;  /* multiplies cos and sin */
    double *inv_freq; /* owned [n_half] */
};

/* factors [n_rot / 2] divide the frequencies; NULL: none. Errors: MEMORY. */
int rope_open(struct rope *rope, const struct hparams *hp, bool local, const float *factors,
              struct ot_error *err);
void rope_close(struct rope *rope);
/* cos, sin [n_half] of one position. */
void rope_angles(const struct rope *rope, uint32_t position, float *cosines, float *sines);

#endif
