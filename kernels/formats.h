/* formats.h: every constant and layout rule of the 4-bit formats, once.
 *
 * Plain data and static functions in the common subset of C11, C++11 and CUDA
 * C++. The reference, every backend, the tests and the tools include this file;
 * no codebook, threshold or nibble order stands anywhere else. Floating-point
 * constants are given by their fp32 bits, so that no compiler's decimal parser
 * takes part in the contract.
 *
 * A quantized matrix [rows, cols] (row-major, n = rows*cols elements, flattened
 * and cut into blocks of block_size elements; a block may straddle rows; the
 * last one may be short):
 *
 *   codes         one nibble an element, ceil(n/2) bytes
 *
 *                   byte i        7 6 5 4   3 2 1 0
 *                               +---------+---------+
 *                               | elem 2i | 2i + 1  |    n odd: the last low nibble
 *                               +---------+---------+    is the code of 0.0
 *
 *   absmax        one fp32 a block: what a code's value is multiplied by.
 *                 NF4, FP4: the block's largest |x|. INT4: largest |x| / 7.
 *                 INT4 affine: the scale (max - min) / 15.
 *   zero_points   INT4 affine only: one byte a block, 0 ... 15
 *
 *   value = codebook[code] * absmax[block]                    (fp32, one rounding)
 *   INT4 affine: value = (code - zero_point[block]) * absmax[block]
 *   then one round-to-nearest-even conversion to the output type.
 *
 * Double quantization stores absmax itself in 8 bits:
 *
 *   nested_offset   one fp32: the mean of absmax (order of summation: backend.h)
 *   absmax_codes    one byte a block: blockwise 8-bit code of absmax - nested_offset
 *   nested_absmax   one fp32 for each 256 blocks
 *
 *   absmax = fb_dynamic_signed[code] * nested_absmax[block / 256], rounded,
 *            + nested_offset, rounded again (never one fma)
 *
 *   bits per weight   4 + 32/B        double-quantized   4 + 8/B + 32/(256 B)
 *   (INT4 affine: + 8/B for the zero point)
 *
 *      codes   |4|4|4|4|4|4|4|4| ... |        B nibbles
 *      absmax  |      fp32     |              one a block,      or
 *              |  u8  |                       one a block, and
 *              |      fp32     |              one every 256 blocks
 *
 * Sources: NF4 and double quantization: Dettmers et al., QLoRA, 2023, sections 3
 * and appendix E. Dynamic map: Dettmers et al., 8-bit Optimizers via Block-wise
 * Quantization, 2021, section 2. The bits are those of bitsandbytes 0.50.
 */
#ifndef FOURBIT_FORMATS_H
#define FOURBIT_FORMATS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define FB_INLINE static __host__ __device__ __forceinline__
#elif defined(__cplusplus)
#define FB_INLINE static inline
#else
#define FB_INLINE static inline __attribute__((unused))
#endif

#ifdef __cplusplus
#define FB_STATIC_ASSERT static_assert
#else
#define FB_STATIC_ASSERT _Static_assert
#endif

/* ---- names -------------------------------------------------------------- */

typedef enum fb_format {
    FB_NF4 = 0,     /* 4-bit NormalFloat: quantiles of N(0,1), QLoRA */
    FB_FP4,         /* bitsandbytes' E2M1 variant: sign, 3 bits of magnitude */
    FB_INT4,        /* symmetric integers, -8 ... 7 */
    FB_INT4_AFFINE, /* 0 ... 15 with a zero point a block (GPTQ, AWQ) */
    FB_FORMAT_COUNT
} fb_format;

typedef enum fb_dtype {
    FB_F32 = 0,
    FB_BF16, /* uint16_t: the upper half of an fp32 */
    FB_F16,  /* uint16_t: IEEE binary16 */
    FB_DTYPE_COUNT
} fb_dtype;

/* The two 256-value 8-bit maps ("dynamic" quantization). */
typedef enum fb_map8 {
    FB_MAP_SIGNED = 0, /* -0.993 ... 1: nested absmax, Adam's first moment */
    FB_MAP_UNSIGNED,   /* 0 ... 1: Adam's second moment */
    FB_MAP8_COUNT
} fb_map8;

enum {
    FB_CODES = 16,              /* values of a 4-bit code */
    FB_CODES8 = 256,            /* values of an 8-bit code */
    FB_BLOCK_MIN = 32,          /* block sizes: powers of two, 32 ... 4096 */
    FB_BLOCK_MAX = 4096,
    FB_NESTED_BLOCK = 256,      /* absmax values that share one nested_absmax */
    FB_INT4_ZERO = 8            /* INT4's code of 0: nibble = q + 8 */
};

/* ---- codebooks: code 0 ... 15, fp32 bits --------------------------------- */

/* -1.0  -0.696  -0.525  -0.395  -0.284  -0.185  -0.091  0
 *  0.080 0.161   0.246   0.338   0.441   0.563   0.723  1.0 */
#define FB_NF4_BITS \
    0xbf800000u, 0xbf3239b1u, 0xbf066b30u, 0xbeca32a0u, 0xbe91a24du, 0xbe3d353fu, 0xbdba7871u, 0x00000000u, \
    0x3da2faffu, 0x3e24cae3u, 0x3e7c04ddu, 0x3ead033au, 0x3ee1a4b8u, 0x3f1007abu, 0x3f3913b3u, 0x3f800000u

/* 0  1/192  2/3  1  1/3  1/2  1/6  1/4, then their negatives (code 8 is -0.0) */
#define FB_FP4_BITS \
    0x00000000u, 0x3baaaaabu, 0x3f2aaaabu, 0x3f800000u, 0x3eaaaaabu, 0x3f000000u, 0x3e2aaaabu, 0x3e800000u, \
    0x80000000u, 0xbbaaaaabu, 0xbf2aaaabu, 0xbf800000u, 0xbeaaaaabu, 0xbf000000u, 0xbe2aaaabu, 0xbe800000u

/* -8 ... 7 */
#define FB_INT4_BITS \
    0xc1000000u, 0xc0e00000u, 0xc0c00000u, 0xc0a00000u, 0xc0800000u, 0xc0400000u, 0xc0000000u, 0xbf800000u, \
    0x00000000u, 0x3f800000u, 0x40000000u, 0x40400000u, 0x40800000u, 0x40a00000u, 0x40c00000u, 0x40e00000u

/* 0 ... 15; the block's zero point is subtracted before scaling */
#define FB_INT4_AFFINE_BITS \
    0x00000000u, 0x3f800000u, 0x40000000u, 0x40400000u, 0x40800000u, 0x40a00000u, 0x40c00000u, 0x40e00000u, \
    0x41000000u, 0x41100000u, 0x41200000u, 0x41300000u, 0x41400000u, 0x41500000u, 0x41600000u, 0x41700000u

/* ---- thresholds ----------------------------------------------------------- */

/* NF4: code = how many of these 15 are strictly below y = x / absmax, so a tie
 * takes the lower code and a NaN takes code 0. Four of them (0, 8, 12, 14) are
 * one ulp off the fp32 midpoint of their neighbours; the bits are the contract. */
#define FB_NF4_THRESHOLD_BITS \
    0xbf591cd9u, 0xbf1c5270u, 0xbeeb8480u, 0xbeadea76u, 0xbe703cecu, 0xbe0d38bcu, 0xbd3a7871u, 0x3d22faffu, \
    0x3df64863u, 0x3e5067e0u, 0x3e9582d4u, 0x3ec753f9u, 0x3f006d03u, 0x3f248dafu, 0x3f5c89d9u

/* FP4: rank = how many of these 7 are strictly below |y|; the code of a rank is
 * in FB_FP4_RANK_TO_CODE, and bit 3 is set for y < 0 (not for -0.0). */
#define FB_FP4_THRESHOLD_BITS \
    0x3b2aaab9u, 0x3db00000u, 0x3e555555u, 0x3e955555u, 0x3ed55556u, 0x3f155550u, 0x3f555555u
#define FB_FP4_RANK_TO_CODE 0, 1, 6, 7, 4, 5, 2, 3

/* ---- 8-bit dynamic maps, ascending, fp32 bits ------------------------------- */

/* 127 negatives, 0 at index 127, 128 positives */
#define FB_DYNAMIC_SIGNED_BITS \
    0xbf7e3333u, 0xbf7a999au, 0xbf770000u, 0xbf736666u, 0xbf6fcccdu, 0xbf6c3333u, 0xbf68999au, 0xbf650000u, \
    0xbf616666u, 0xbf5dcccdu, 0xbf5a3333u, 0xbf56999au, 0xbf530000u, 0xbf4f6666u, 0xbf4bcccdu, 0xbf483333u, \
    0xbf44999au, 0xbf410000u, 0xbf3d6666u, 0xbf39cccdu, 0xbf363334u, 0xbf32999au, 0xbf2f0000u, 0xbf2b6666u, \
    0xbf27cccdu, 0xbf243334u, 0xbf20999au, 0xbf1d0000u, 0xbf196666u, 0xbf15cccdu, 0xbf123334u, 0xbf0e999au, \
    0xbf0b0000u, 0xbf076666u, 0xbf03ccccu, 0xbf003333u, 0xbef93332u, 0xbef20000u, 0xbeeaccccu, 0xbee3999au, \
    0xbedc6666u, 0xbed53333u, 0xbece0000u, 0xbec6ccccu, 0xbebf999au, 0xbeb86666u, 0xbeb13333u, 0xbeaa0000u, \
    0xbea2ccccu, 0xbe9b999au, 0xbe946666u, 0xbe8d3334u, 0xbe860000u, 0xbe7d9999u, 0xbe6f3333u, 0xbe60cccdu, \
    0xbe526666u, 0xbe440000u, 0xbe35999au, 0xbe273333u, 0xbe18cccdu, 0xbe0a6666u, 0xbdf80000u, 0xbddb3334u, \
    0xbdc9eb85u, 0xbdc428f7u, 0xbdbe6667u, 0xbdb8a3d7u, 0xbdb2e148u, 0xbdad1eb8u, 0xbda75c2au, 0xbda1999au, \
    0xbd9bd70au, 0xbd96147bu, 0xbd9051ebu, 0xbd8a8f5du, 0xbd84cccdu, 0xbd7e147bu, 0xbd728f5du, 0xbd670a3du, \
    0xbd5b851fu, 0xbd500000u, 0xbd447ae1u, 0xbd38f5c3u, 0xbd2d70a3u, 0xbd21eb85u, 0xbd166667u, 0xbd0ae148u, \
    0xbcfeb852u, 0xbce7ae15u, 0xbcd0a3d7u, 0xbcb9999au, 0xbca28f5du, 0xbc8b851fu, 0xbc68f5c3u, 0xbc3ae148u, \
    0xbc1f3b64u, 0xbc160418u, 0xbc0ccccdu, 0xbc039581u, 0xbbf4bc6au, 0xbbe24dd3u, 0xbbcfdf3bu, 0xbbbd70a4u, \
    0xbbab020du, 0xbb989374u, 0xbb8624ddu, 0xbb676c8au, 0xbb428f5cu, 0xbb1db22du, 0xbaf1a9fcu, 0xbaa7ef9du, \
    0xba7765ffu, 0xba59e83eu, 0xba3c6a80u, 0xba1eecc1u, 0xba016f01u, 0xb9c7e283u, 0xb98ce705u, 0xb923d70bu, \
    0xb8ba1f4bu, 0xb88aefb3u, 0xb8378034u, 0xb7b24206u, 0xb70205ffu, 0xb65a1a94u, 0xb513a3b7u, 0x00000000u, \
    0x3513a3b7u, 0x365a1a94u, 0x370205ffu, 0x37b24206u, 0x38378034u, 0x388aefb3u, 0x38ba1f4bu, 0x3923d70bu, \
    0x398ce705u, 0x39c7e283u, 0x3a016f01u, 0x3a1eecc1u, 0x3a3c6a80u, 0x3a59e83eu, 0x3a7765ffu, 0x3aa7ef9du, \
    0x3af1a9fcu, 0x3b1db22du, 0x3b428f5cu, 0x3b676c8au, 0x3b8624ddu, 0x3b989374u, 0x3bab020du, 0x3bbd70a4u, \
    0x3bcfdf3bu, 0x3be24dd3u, 0x3bf4bc6au, 0x3c039581u, 0x3c0ccccdu, 0x3c160418u, 0x3c1f3b64u, 0x3c3ae148u, \
    0x3c68f5c3u, 0x3c8b851fu, 0x3ca28f5du, 0x3cb9999au, 0x3cd0a3d7u, 0x3ce7ae15u, 0x3cfeb852u, 0x3d0ae148u, \
    0x3d166667u, 0x3d21eb85u, 0x3d2d70a3u, 0x3d38f5c3u, 0x3d447ae1u, 0x3d500000u, 0x3d5b851fu, 0x3d670a3du, \
    0x3d728f5du, 0x3d7e147bu, 0x3d84cccdu, 0x3d8a8f5du, 0x3d9051ebu, 0x3d96147bu, 0x3d9bd70au, 0x3da1999au, \
    0x3da75c2au, 0x3dad1eb8u, 0x3db2e148u, 0x3db8a3d7u, 0x3dbe6667u, 0x3dc428f7u, 0x3dc9eb85u, 0x3ddb3334u, \
    0x3df80000u, 0x3e0a6666u, 0x3e18cccdu, 0x3e273333u, 0x3e35999au, 0x3e440000u, 0x3e526666u, 0x3e60cccdu, \
    0x3e6f3333u, 0x3e7d9999u, 0x3e860000u, 0x3e8d3334u, 0x3e946666u, 0x3e9b999au, 0x3ea2ccccu, 0x3eaa0000u, \
    0x3eb13333u, 0x3eb86666u, 0x3ebf999au, 0x3ec6ccccu, 0x3ece0000u, 0x3ed53333u, 0x3edc6666u, 0x3ee3999au, \
    0x3eeaccccu, 0x3ef20000u, 0x3ef93332u, 0x3f003333u, 0x3f03ccccu, 0x3f076666u, 0x3f0b0000u, 0x3f0e999au, \
    0x3f123334u, 0x3f15cccdu, 0x3f196666u, 0x3f1d0000u, 0x3f20999au, 0x3f243334u, 0x3f27cccdu, 0x3f2b6666u, \
    0x3f2f0000u, 0x3f32999au, 0x3f363334u, 0x3f39cccdu, 0x3f3d6666u, 0x3f410000u, 0x3f44999au, 0x3f483333u, \
    0x3f4bcccdu, 0x3f4f6666u, 0x3f530000u, 0x3f56999au, 0x3f5a3333u, 0x3f5dcccdu, 0x3f616666u, 0x3f650000u, \
    0x3f68999au, 0x3f6c3333u, 0x3f6fcccdu, 0x3f736666u, 0x3f770000u, 0x3f7a999au, 0x3f7e3333u, 0x3f800000u

/* 0, then 255 positives */
#define FB_DYNAMIC_UNSIGNED_BITS \
    0x00000000u, 0x34ae7baau, 0x35500998u, 0x360e9b38u, 0x3692ccf6u, 0x36de4c51u, 0x3714e5d5u, 0x3783126eu, \
    0x37e171a0u, 0x381fe868u, 0x384f1800u, 0x387e479au, 0x3896bb99u, 0x38ae5364u, 0x38c5eb31u, 0x3906594bu, \
    0x394154cau, 0x397c5049u, 0x399ba5e4u, 0x39b923a2u, 0x39d6a163u, 0x39f41f22u, 0x3a08ce71u, 0x3a178d50u, \
    0x3a264c30u, 0x3a350b10u, 0x3a43c9efu, 0x3a5288d0u, 0x3a6147afu, 0x3a70068eu, 0x3a7ec56eu, 0x3a958106u, \
    0x3aba5e35u, 0x3adf3b64u, 0x3b020c4au, 0x3b147ae1u, 0x3b26e978u, 0x3b395810u, 0x3b4bc6a7u, 0x3b5e3540u, \
    0x3b70a3d7u, 0x3b818937u, 0x3b8ac082u, 0x3b93f7cfu, 0x3b9d2f1au, 0x3ba66666u, 0x3baf9db2u, 0x3bb8d4fdu, \
    0x3bc20c4au, 0x3bcb4395u, 0x3bd47ae1u, 0x3bddb22eu, 0x3be6e978u, 0x3bf020c5u, 0x3bf9580fu, 0x3c0147aeu, \
    0x3c05e354u, 0x3c0a7ef9u, 0x3c0f1aa0u, 0x3c13b645u, 0x3c1851ebu, 0x3c1ced92u, 0x3c218937u, 0x3c2f5c2au, \
    0x3c466667u, 0x3c5d70a3u, 0x3c747ae2u, 0x3c85c28fu, 0x3c9147afu, 0x3c9ccccdu, 0x3ca851ebu, 0x3cb3d70bu, \
    0x3cbf5c29u, 0x3ccae147u, 0x3cd66667u, 0x3ce1eb87u, 0x3ced70a3u, 0x3cf8f5c3u, 0x3d023d70u, 0x3d080000u, \
    0x3d0dc28fu, 0x3d13851fu, 0x3d1947afu, 0x3d1f0a3du, 0x3d24cccdu, 0x3d2a8f5cu, 0x3d3051ebu, 0x3d36147bu, \
    0x3d3bd70au, 0x3d41999au, 0x3d475c28u, 0x3d4d1eb8u, 0x3d52e147u, 0x3d58a3d7u, 0x3d5e6667u, 0x3d6428f7u, \
    0x3d69eb87u, 0x3d6fae15u, 0x3d7570a3u, 0x3d7b3333u, 0x3d807ae2u, 0x3d835c2au, 0x3d863d71u, 0x3d891eb8u, \
    0x3d8c0000u, 0x3d8ee148u, 0x3d91c290u, 0x3d94a3d7u, 0x3d97851fu, 0x3d9a6667u, 0x3d9d47afu, 0x3da028f6u, \
    0x3da30a3eu, 0x3da5eb85u, 0x3da8cccdu, 0x3dabae15u, 0x3dae8f5cu, 0x3db170a4u, 0x3db451ebu, 0x3db73333u, \
    0x3dba147bu, 0x3dbcf5c3u, 0x3dbfd70bu, 0x3dc2b852u, 0x3dc5999au, 0x3dc87ae2u, 0x3dcb5c29u, 0x3dd40000u, \
    0x3de26666u, 0x3df0cccdu, 0x3dff3333u, 0x3e06ccccu, 0x3e0e0000u, 0x3e153334u, 0x3e1c6666u, 0x3e23999au, \
    0x3e2accccu, 0x3e320000u, 0x3e393334u, 0x3e406666u, 0x3e47999au, 0x3e4eccccu, 0x3e560000u, 0x3e5d3334u, \
    0x3e646666u, 0x3e6b999au, 0x3e72ccccu, 0x3e7a0000u, 0x3e809999u, 0x3e843333u, 0x3e87cccdu, 0x3e8b6666u, \
    0x3e8f0000u, 0x3e92999au, 0x3e963333u, 0x3e99ccccu, 0x3e9d6666u, 0x3ea10000u, 0x3ea4999au, 0x3ea83333u, \
    0x3eabccccu, 0x3eaf6666u, 0x3eb30000u, 0x3eb6999au, 0x3eba3333u, 0x3ebdccccu, 0x3ec16666u, 0x3ec50000u, \
    0x3ec8999au, 0x3ecc3333u, 0x3ecfccccu, 0x3ed36666u, 0x3ed70000u, 0x3eda999au, 0x3ede3333u, 0x3ee1ccccu, \
    0x3ee56666u, 0x3ee90000u, 0x3eec999au, 0x3ef03333u, 0x3ef3ccccu, 0x3ef76666u, 0x3efb0000u, 0x3efe9999u, \
    0x3f01199au, 0x3f02e666u, 0x3f04b333u, 0x3f068000u, 0x3f084cccu, 0x3f0a199au, 0x3f0be666u, 0x3f0db334u, \
    0x3f0f8000u, 0x3f114ccdu, 0x3f13199au, 0x3f14e666u, 0x3f16b334u, 0x3f188000u, 0x3f1a4ccdu, 0x3f1c199au, \
    0x3f1de666u, 0x3f1fb334u, 0x3f218000u, 0x3f234ccdu, 0x3f25199au, 0x3f26e666u, 0x3f28b334u, 0x3f2a8000u, \
    0x3f2c4ccdu, 0x3f2e199au, 0x3f2fe666u, 0x3f31b334u, 0x3f338000u, 0x3f354ccdu, 0x3f37199au, 0x3f38e666u, \
    0x3f3ab334u, 0x3f3c8000u, 0x3f3e4ccdu, 0x3f40199au, 0x3f41e666u, 0x3f43b334u, 0x3f458000u, 0x3f474cccu, \
    0x3f49199au, 0x3f4ae666u, 0x3f4cb334u, 0x3f4e8000u, 0x3f504cccu, 0x3f52199au, 0x3f53e666u, 0x3f55b334u, \
    0x3f578000u, 0x3f594cccu, 0x3f5b199au, 0x3f5ce666u, 0x3f5eb334u, 0x3f608000u, 0x3f624cccu, 0x3f64199au, \
    0x3f65e666u, 0x3f67b334u, 0x3f698000u, 0x3f6b4cccu, 0x3f6d199au, 0x3f6ee666u, 0x3f70b334u, 0x3f728000u, \
    0x3f744cccu, 0x3f76199au, 0x3f77e666u, 0x3f79b334u, 0x3f7b8000u, 0x3f7d4cccu, 0x3f7f199au, 0x3f800000u

/* ---- the tables as host arrays ---------------------------------------------
 * Device code puts the same macros into its own constant or shared memory. */

#define FB_TABLE static const __attribute__((unused))
FB_TABLE uint32_t fb_codebook_bits[FB_FORMAT_COUNT][FB_CODES] = {
    {FB_NF4_BITS}, {FB_FP4_BITS}, {FB_INT4_BITS}, {FB_INT4_AFFINE_BITS}};
FB_TABLE uint32_t fb_nf4_threshold_bits[FB_CODES - 1] = {FB_NF4_THRESHOLD_BITS};
FB_TABLE uint32_t fb_fp4_threshold_bits[FB_CODES / 2 - 1] = {FB_FP4_THRESHOLD_BITS};
FB_TABLE uint8_t fb_fp4_rank_to_code[FB_CODES / 2] = {FB_FP4_RANK_TO_CODE};
FB_TABLE uint32_t fb_dynamic_bits[FB_MAP8_COUNT][FB_CODES8] = {
    {FB_DYNAMIC_SIGNED_BITS}, {FB_DYNAMIC_UNSIGNED_BITS}};

FB_STATIC_ASSERT(sizeof(float) == 4, "fp32");
FB_STATIC_ASSERT(sizeof fb_codebook_bits == 4 * 16 * FB_FORMAT_COUNT, "16 codes a format");
FB_STATIC_ASSERT(sizeof fb_nf4_threshold_bits == 4 * 15, "a threshold between two neighbours");
FB_STATIC_ASSERT(sizeof fb_fp4_threshold_bits == 4 * 7, "a threshold between two neighbours");
FB_STATIC_ASSERT(sizeof fb_dynamic_bits == 4 * 256 * FB_MAP8_COUNT, "256 codes a map");
FB_STATIC_ASSERT((FB_BLOCK_MIN & (FB_BLOCK_MIN - 1)) == 0 && FB_BLOCK_MIN % 2 == 0, "a block is whole bytes");

/* A codebook in 16 bits, for products that take absmax out of a block's sum (FB_WEIGHTS_CODES):
 *
 *   codes16[code] = codebook[code] * factor, rounded to fp32, then to the 16-bit type;      weight = codes16[code] * absmax / factor
 *
 * FP4 times 192 and the integers are exact in either type. NF4's factors are those, of all with 24 bits in [1, 2), that leave
 * the least error for Gaussian weights in blocks of 64: 0.080 % in bf16 and 0.0081 % in fp16, where dequantized weights, rounded one
 * by one, are off by 0.16 % and 0.02 % (validate/test_theory.c). A custom codebook has none. */
FB_INLINE float fb_codes16_factor(fb_format format, fb_dtype t)
{
    if (format == FB_NF4) return t == FB_F16 ? 0x1.5dbeacp+0f : 0x1.6fcb58p+0f;
    return format == FB_FP4 ? 192.0f : 1.0f;
}

/* ---- layout arithmetic --------------------------------------------------------- */

FB_INLINE int fb_block_size_valid(int64_t block_size)
{
    return block_size >= FB_BLOCK_MIN && block_size <= FB_BLOCK_MAX && (block_size & (block_size - 1)) == 0;
}
FB_INLINE int64_t fb_ceil_div(int64_t n, int64_t d) { return n / d + (n % d != 0); }
FB_INLINE int64_t fb_block_count(int64_t n, int64_t block_size) { return fb_ceil_div(n, block_size); }
FB_INLINE int64_t fb_code_bytes(int64_t n) { return n / 2 + n % 2; }
FB_INLINE size_t fb_dtype_size(fb_dtype t) { return t == FB_F32 ? 4 : 2; }

/* Element i's nibble. */
FB_INLINE unsigned fb_nibble(const uint8_t *codes, int64_t i)
{
    return i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15u;
}
/* Byte of elements 2i (even) and 2i+1 (odd). */
FB_INLINE uint8_t fb_pack(unsigned even, unsigned odd) { return (uint8_t)(even << 4 | odd); }

/* ---- element types: exact conversions ---------------------------------------------- */

FB_INLINE float fb_bits_to_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}
FB_INLINE uint32_t fb_float_to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
FB_INLINE float fb_bf16_to_float(uint16_t h) { return fb_bits_to_float((uint32_t)h << 16); }

/* Round to nearest even; NaN becomes the quiet NaN of the same sign. */
FB_INLINE uint16_t fb_float_to_bf16(float f)
{
    uint32_t u = fb_float_to_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

FB_INLINE float fb_f16_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) return fb_bits_to_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest >= 0x0400u) return fb_bits_to_float(sign | ((rest << 13) + 0x38000000u));
    /* subnormal: rest * 2^-24, exact in fp32 */
    float f = (float)rest * fb_bits_to_float(0x33800000u);
    return fb_bits_to_float(sign | fb_float_to_bits(f));
}

/* Round to nearest even; overflow to infinity, gradual underflow. */
FB_INLINE uint16_t fb_float_to_f16(float f)
{
    uint32_t u = fb_float_to_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and up */
    if (a >= 0x38800000u) return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13));
    if (a < 0x33000000u) return (uint16_t)sign; /* below half the smallest subnormal */
    {
        uint32_t shift = 126u - (a >> 23), m = (a & 0x7fffffu) | 0x800000u;
        uint32_t q = m >> shift, r = m & ((1u << shift) - 1u), half = 1u << (shift - 1u);
        return (uint16_t)(sign | (q + (r > half || (r == half && (q & 1u)))));
    }
}

/* Element i of an array of type t, as fp32 (exact), and back (one rounding). */
FB_INLINE float fb_load(const void *p, fb_dtype t, int64_t i)
{
    if (t == FB_F32) return ((const float *)p)[i];
    return t == FB_BF16 ? fb_bf16_to_float(((const uint16_t *)p)[i]) : fb_f16_to_float(((const uint16_t *)p)[i]);
}
FB_INLINE void fb_store(void *p, fb_dtype t, int64_t i, float v)
{
    if (t == FB_F32) ((float *)p)[i] = v;
    else ((uint16_t *)p)[i] = t == FB_BF16 ? fb_float_to_bf16(v) : fb_float_to_f16(v);
}

/* ---- names in text -------------------------------------------------------------------- */

FB_INLINE const char *fb_format_name(fb_format f)
{
    return f == FB_NF4 ? "nf4" : f == FB_FP4 ? "fp4" : f == FB_INT4 ? "int4" : f == FB_INT4_AFFINE ? "int4-affine" : "?";
}
FB_INLINE const char *fb_dtype_name(fb_dtype t)
{
    return t == FB_F32 ? "fp32" : t == FB_BF16 ? "bf16" : t == FB_F16 ? "fp16" : "?";
}

#endif
