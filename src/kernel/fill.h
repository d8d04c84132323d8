/* fill.h - the parts of the kernel table, each in files of its own: part_isa.c defines
 * part_fill_isa(). kernels_fill_ISA() in kernel.c calls them in this order: vector (norms,
 * activations, rope, conversions), layout (prepare), dequant, gemv, gemm, attention. */
#ifndef KERNEL_FILL_H
#define KERNEL_FILL_H

#include "kernel/kernel.h"

void vector_fill_scalar(struct kernels *k);
void vector_fill_avx2(struct kernels *k);
void vector_fill_avx512(struct kernels *k);
void vector_fill_neon(struct kernels *k);

void layout_fill_scalar(struct kernels *k);
void layout_fill_avx2(struct kernels *k);
void layout_fill_avx512(struct kernels *k);
void layout_fill_neon(struct kernels *k);

void dequant_fill_scalar(struct kernels *k);

void gemv_fill_scalar(struct kernels *k);
void gemv_fill_avx2(struct kernels *k);
void gemv_fill_avx512(struct kernels *k);
void gemv_fill_neon(struct kernels *k);

void gemm_fill_scalar(struct kernels *k);
void gemm_fill_avx2(struct kernels *k);
void gemm_fill_avxvnni(struct kernels *k); /* after gemm_fill_avx2 */
void gemm_fill_avx512(struct kernels *k);
void gemm_float_fill_avx512bf16(struct kernels *k); /* after gemm_fill_avx512 */
void gemm_fill_neon(struct kernels *k);
void gemm_fill_i8mm(struct kernels *k); /* after gemm_fill_neon, where the CPU has SMMLA */

void attention_fill_scalar(struct kernels *k);
void attention_fill_avx2(struct kernels *k);
void attention_fill_avx512(struct kernels *k);
void attention_fill_avx512bf16(struct kernels *k); /* after attention_fill_avx512 */
void attention_fill_neon(struct kernels *k);

#endif
