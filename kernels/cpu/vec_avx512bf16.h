/* vec_avx512bf16.h: vec_avx512.h's vocabulary, and a product of pairs of bf16 (AVX512-BF16).
 *
 * A pair lies in 32 bits and travels as a float does, so the microkernel and the transposition of fp32
 * serve it as they are: only their multiply-add is another instruction. vdpbf16ps adds both products of
 * a pair to an fp32 sum; a subnormal operand or sum counts as zero, whatever MXCSR says (FB_WEIGHTS_FLUSHED). */
#ifndef FOURBIT_VEC_BF16_H
#define FOURBIT_VEC_BF16_H

#include "vec_avx512.h"

#undef ISA
#define ISA(name) name##_avx512bf16

static inline vf dot_pairs(vf a, vf b, vf sum) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
#define MULTIPLY_ADD dot_pairs

#include "microkernel.h"

#define pairs_product product
static inline void tiles_begin(void) {} /* registers need no preparation */
static inline void tiles_end(void) {}

#endif
