/* cases.cuh — small kernels that a GPU and the executor both run, on inputs that both make themselves: only the results
 * travel. Included by capture.cu (nvcc) and by test_simt_ptx_golden.cpp, after ptx.cuh.
 *
 * Each case has two kinds of input: "integers", whose sums are exact in any order, so that only layouts can differ; and
 * "reals" over many exponents, which show how the tensor cores add up.
 */
#ifndef SIMT_GOLDEN_CASES_CUH
#define SIMT_GOLDEN_CASES_CUH

struct GoldenCase {
    const char *name;
    int kind;      /* k_golden's switch */
    bool reals, f16;
    bool needs_sm90;
    int threads, words_in, words_out; /* 32-bit words a thread */
    int operand_words;                /* shared memory image */
};

constexpr int kGoldenRounds = 8; /* inputs differ by round */

static const GoldenCase golden_cases[] = {
    {"mma.m16n8k16.bf16 integers", 0, false, false, false, 32, 10, 4, 0},
    {"mma.m16n8k16.bf16 reals", 0, true, false, false, 32, 10, 4, 0},
    {"mma.m16n8k16.f16 integers", 1, false, true, false, 32, 10, 4, 0},
    {"mma.m16n8k16.f16 reals", 1, true, true, false, 32, 10, 4, 0},
    {"mma.m16n8k8.bf16 integers", 2, false, false, false, 32, 10, 4, 0},
    {"mma.m16n8k8.f16 integers", 3, false, true, false, 32, 10, 4, 0},
    {"ldmatrix.x4", 4, false, false, false, 32, 0, 4, 128},
    {"ldmatrix.x4.trans", 5, false, false, false, 32, 0, 4, 128},
    {"stmatrix.x4", 6, false, false, true, 32, 4, 4, 0},
    {"stmatrix.x4.trans", 7, false, false, true, 32, 4, 4, 0},
    {"wgmma.m64n32k16.bf16 K-major, no swizzle, integers", 8, false, false, true, 128, 16, 16, 4096},
    {"wgmma.m64n32k16.bf16 K-major, 32 bytes, integers", 9, false, false, true, 128, 16, 16, 4096},
    {"wgmma.m64n32k16.bf16 K-major, 64 bytes, integers", 10, false, false, true, 128, 16, 16, 4096},
    {"wgmma.m64n32k16.bf16 K-major, 128 bytes, integers", 11, false, false, true, 128, 16, 16, 4096},
    {"wgmma.m64n64k16.bf16 B MN-major, no swizzle, integers", 12, false, false, true, 128, 32, 32, 4096},
    {"wgmma.m64n64k16.bf16 A and B MN-major, 128 bytes, integers", 13, false, false, true, 128, 32, 32, 4096},
    {"wgmma.m64n64k16.f16 A in registers, B MN-major 64 bytes, integers", 14, false, true, true, 128, 36, 32, 4096},
    {"wgmma.m64n32k16.bf16 K-major, 128 bytes, reals", 11, true, false, true, 128, 16, 16, 4096},
};

static inline uint32_t golden_hash(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}
/* A 16-bit operand by its bits: -7 ... 7, or any sign and significand with exponents -8 ... 7. */
static inline uint16_t golden_half(uint32_t seed, bool reals, bool f16) {
    uint32_t h = golden_hash(seed);
    if (reals) {
        uint32_t exponent = (h >> 16) % 16 + (f16 ? 7 : 119);
        return (uint16_t)((h & 0x8000) | (f16 ? exponent << 10 | (h & 0x3ff) : exponent << 7 | (h & 0x7f)));
    }
    static const uint16_t bf16[8] = {0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
    static const uint16_t fp16[8] = {0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700};
    return (uint16_t)((f16 ? fp16 : bf16)[h & 7] | ((h & 7) ? h & 0x8000 : 0));
}
static inline uint32_t golden_pair(uint32_t seed, const GoldenCase &c) {
    return (uint32_t)golden_half(2 * seed + 1, c.reals, c.f16) << 16 | golden_half(2 * seed, c.reals, c.f16);
}
static inline uint32_t golden_float(uint32_t seed, const GoldenCase &c) {
    uint32_t h = golden_hash(seed ^ 0x5bd1e995u);
    if (c.reals) return (h & 0x80000000u) | ((h >> 16) % 16 + 119) << 23 | (h & 0x7fffff);
    static const uint32_t integers[4] = {0, 0x3f800000u, 0x40400000u, 0xc0a00000u};
    return integers[h & 3];
}
/* Accumulators come first, operands in registers after them. */
static inline void golden_inputs(const GoldenCase &c, int round, uint32_t *in, uint32_t *image) {
    uint32_t seed = (uint32_t)(&c - golden_cases) * 1000003u + (uint32_t)round * 65537u;
    int floats = c.kind <= 3 ? 4 : c.kind >= 8 ? c.words_out : 0;
    for (int t = 0; t < c.threads; t++)
        for (int i = 0; i < c.words_in; i++, seed++)
            in[t * c.words_in + i] = i < floats ? golden_float(seed, c) : golden_pair(seed, c);
    for (int i = 0; i < c.operand_words; i++, seed++) image[i] = golden_pair(seed, c);
}

/* Kernels: `kind` is the case's, the same for all threads. */
static __global__ void k_golden_warp(int kind, const uint32_t *in, const uint32_t *image, uint32_t *out) {
    FB_SHARED_ALIGNED(uint4, s, [32], 128);
    unsigned t = threadIdx.x;
    uint32_t r[4] = {}, v[4];
    if (kind <= 3) {
        const uint32_t *mine = in + t * 10;
        float d[4];
        uint32_t a[4], b[2];
        for (int i = 0; i < 4; i++) d[i] = __uint_as_float(mine[i]);
        for (int i = 0; i < 4; i++) a[i] = mine[4 + i];
        for (int i = 0; i < 2; i++) b[i] = mine[8 + i];
        uint32_t a2[2] = {a[0], a[1]}, b1[1] = {b[0]};
        if (kind == 0) ptx::mma_m16n8k16_bf16(d, a, b);
        if (kind == 1) ptx::mma_m16n8k16_f16(d, a, b);
        if (kind == 2) ptx::mma_m16n8k8_bf16(d, a2, b1);
        if (kind == 3) ptx::mma_m16n8k8_f16(d, a2, b1);
        for (int i = 0; i < 4; i++) r[i] = __float_as_uint(d[i]);
    } else if (kind <= 5) {
        s[t] = make_uint4(image[4 * t], image[4 * t + 1], image[4 * t + 2], image[4 * t + 3]);
        __syncwarp();
        if (kind == 4) ptx::ldmatrix_x4(r, ptx::shared_address(&s[t]));
        if (kind == 5) ptx::ldmatrix_x4_trans(r, ptx::shared_address(&s[t]));
    }
#ifdef FB_PTX_SM90
    if (kind == 6 || kind == 7) {
        for (int i = 0; i < 4; i++) v[i] = in[t * 4 + (unsigned)i];
        if (kind == 6)
            ptx::stmatrix_x4(ptx::shared_address(&s[t]), v);
        else
            ptx::stmatrix_x4_trans(ptx::shared_address(&s[t]), v);
        __syncwarp();
        uint4 q = s[t];
        r[0] = q.x;
        r[1] = q.y;
        r[2] = q.z;
        r[3] = q.w;
    }
#endif
    (void)v;
    for (unsigned i = 0; i < 4; i++) out[t * 4 + i] = r[i];
}

#if defined(FB_SIMT) || !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <int N, bool RS, class F> static __device__ void golden_product(const uint32_t *in, uint32_t *out, F multiply) {
    unsigned t = threadIdx.x, words = N / 2 + (RS ? 4 : 0);
    float d[N / 2];
    uint32_t a[4] = {};
    for (unsigned i = 0; i < N / 2; i++) d[i] = __uint_as_float(in[t * words + i]);
    for (unsigned i = 0; RS && i < 4; i++) a[i] = in[t * words + N / 2 + i];
    ptx::wgmma_fence();
    multiply(d, a);
    ptx::wgmma_commit_group();
    ptx::wgmma_wait_group<0>();
    for (int i = 0; i < N / 2; i++) ptx::wgmma_fence_operand(d[i]);
    for (unsigned i = 0; i < N / 2; i++) out[t * (N / 2) + i] = __float_as_uint(d[i]);
}

static __global__ void __launch_bounds__(128) k_golden_wgmma(int kind, const uint32_t *in, const uint32_t *image, uint32_t *out) {
    FB_SHARED_ALIGNED(uint32_t, s, [4096], 1024); /* A: first half, B: second */
    for (unsigned i = threadIdx.x; i < 4096; i += 128) s[i] = image[i];
    ptx::fence_proxy_async();
    __syncthreads();
    uint32_t sa = ptx::shared_address(s), sb = sa + 8192;
    using ptx::Major;
    using ptx::Swizzle;
    auto k_major = [&](uint32_t leading, uint32_t stride, Swizzle w) {
        golden_product<32, false>(in, out, [&](float (&d)[16], const uint32_t (&)[4]) {
            ptx::wgmma_bf16<32>(d, ptx::matrix_descriptor(sa, leading, stride, w), ptx::matrix_descriptor(sb, leading, stride, w), 1);
        });
    };
    if (kind == 8) k_major(1024, 128, Swizzle::None);
    if (kind == 9) k_major(16, 256, Swizzle::B32);
    if (kind == 10) k_major(16, 512, Swizzle::B64);
    if (kind == 11) k_major(16, 1024, Swizzle::B128);
    if (kind == 12)
        golden_product<64, false>(in, out, [&](float (&d)[32], const uint32_t (&)[4]) {
            ptx::wgmma_bf16<64, Major::K, Major::MN>(d, ptx::matrix_descriptor(sa, 1024, 128, Swizzle::None),
                                                    ptx::matrix_descriptor(sb, 1024, 128, Swizzle::None), 1);
        });
    if (kind == 13)
        golden_product<64, false>(in, out, [&](float (&d)[32], const uint32_t (&)[4]) {
            ptx::wgmma_bf16<64, Major::MN, Major::MN>(d, ptx::matrix_descriptor(sa, 2048, 1024, Swizzle::B128),
                                                     ptx::matrix_descriptor(sb, 2048, 1024, Swizzle::B128), 1);
        });
    if (kind == 14)
        golden_product<64, true>(in, out, [&](float (&d)[32], const uint32_t (&a)[4]) {
            ptx::wgmma_f16_rs<64, Major::MN>(d, a, ptx::matrix_descriptor(sb, 1024, 512, Swizzle::B64), 1);
        });
}
#else
static __global__ void k_golden_wgmma(int, const uint32_t *, const uint32_t *, uint32_t *) {}
#endif

#endif
