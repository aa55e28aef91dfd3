/* decode.cuh — from codes to values: the pieces that every kernel which reads 4-bit weights shares.  Layout: formats.h. */
#ifndef FB_DECODE_CUH
#define FB_DECODE_CUH

#include "launch.cuh"

/* Where a block's scale and zero point come from.  One of absmax and absmax_codes is NULL. */
struct fb_scales {
    const float *absmax;
    const uint8_t *absmax_codes;
    const float *nested_absmax, *nested_offset;
    const float *nested_codebook; /* NULL: the built-in map */
    const uint8_t *zero_points;   /* NULL: none */
};

static inline fb_scales fb_scales_of(const fb_matrix *w)
{
    fb_scales s = {};
    if (w->double_quant) {
        s.absmax_codes = w->absmax_codes;
        s.nested_absmax = w->nested_absmax;
        s.nested_offset = w->nested_offset;
        s.nested_codebook = w->nested_codebook;
    } else {
        s.absmax = w->absmax;
    }
    if (w->format == FB_INT4_AFFINE) s.zero_points = w->zero_points;
    return s;
}

/* The operands that fb_scales and the codes are, for fb_launch. */
enum { FB_WEIGHT_OPERANDS = 8 };
static inline void fb_weight_operands(const fb_matrix *w, fb_operand (&out)[FB_WEIGHT_OPERANDS])
{
    fb_matrix_sizes s;
    fb_matrix_get_sizes(w, &s);
    out[0] = {w->codes, s.codes, "codes", false};
    out[1] = {w->absmax, s.absmax, "absmax", false};
    out[2] = {w->absmax_codes, s.absmax_codes, "absmax_codes", false};
    out[3] = {w->nested_absmax, s.nested_absmax, "nested_absmax", false};
    out[4] = {w->nested_offset, s.nested_offset, "nested_offset", false};
    out[5] = {w->zero_points, s.zero_points, "zero_points", false};
    out[6] = {w->codebook, w->codebook ? sizeof(float) * FB_CODES : 0, "codebook", false};
    out[7] = {w->nested_codebook, w->nested_codebook ? sizeof(float) * FB_CODES8 : 0, "nested_codebook", false};
}

/* A warp meets few different blocks at a time, so the constant cache's one address per cycle is enough here. */
FB_CONSTANT(uint32_t, fb_nested_map, [FB_CODES8]) = {FB_DYNAMIC_SIGNED_BITS};
FB_CONSTANT(uint32_t, fb_codebooks, [(int)FB_FORMAT_COUNT * FB_CODES]) = {FB_NF4_BITS, FB_FP4_BITS, FB_INT4_BITS,
                                                                     FB_INT4_AFFINE_BITS};

/* absmax of a block; two roundings when it is doubly quantized, never one fma (formats.h). */
static __device__ __forceinline__ float fb_block_scale(const fb_scales &s, int64_t block)
{
    if (s.absmax) return s.absmax[block];
    unsigned code = s.absmax_codes[block];
    float value = s.nested_codebook ? s.nested_codebook[code] : __uint_as_float(fb_nested_map[code]);
    return __fadd_rn(__fmul_rn(value, s.nested_absmax[block / FB_NESTED_BLOCK]), s.nested_offset[0]);
}

static __device__ __forceinline__ float fb_block_zero(const fb_scales &s, int64_t block)
{
    return s.zero_points ? (float)s.zero_points[block] : 0.0f;
}

/* 16 values into shared memory.  A look-up by 32 lanes hits 16 different banks or the same word: never a conflict. */
static __device__ __forceinline__ void fb_load_codebook(float *table, const float *codebook, int format)
{
    if (threadIdx.x < FB_CODES)
        table[threadIdx.x] = codebook ? codebook[threadIdx.x]
                                      : __uint_as_float(fb_codebooks[format * FB_CODES + (int)threadIdx.x]);
}

#endif
