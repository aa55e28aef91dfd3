/* ptx_wgmma.cuh — wgmma: four warps multiply 64 x 16 by 16 x N, asynchronously.  Included by ptx.cuh; do not include alone.
 *
 * The operands stay in shared memory behind 64-bit descriptors (A may come from registers), so nothing passes through
 * registers but the accumulators, of which a thread holds N / 2 floats.  9.7.15
 *
 * The asm statement must spell every register, so the lists below grow by four a row, once for the text and once for the
 * operands; 32 widths x 2 types x 2 places of A are then instantiated from one row each.
 */
namespace ptx {

/* 9.7.15, matrix descriptor: what a descriptor says about a matrix in shared memory.
 *
 *     63 62      51..49       45 .. 32        29 .. 16        13 .. 0
 *   +--------+--+---------+--+-------------+--+-------------+--+---------------+
 *   |swizzle |  |base off.|  | stride / 16 |  | leading / 16|  | address / 16  |
 *   +--------+--+---------+--+-------------+--+-------------+--+---------------+
 *
 *   T = 8 elements of 16 bits (16 bytes); W = 1, 2, 4, 8 for swizzle none, 32, 64, 128 bytes; "row" is an index of M or N
 *   K-major    8 rows of W x 16 bytes each, adjacent; stride: from 8 rows to the next 8;
 *              leading: between the two 16-byte halves of K = 16, without swizzle only
 *   MN-major   W x T rows of one k adjacent, 8 values of k form one atom; swizzled: leading: to the next W x T rows,
 *              stride: to the next 8 values of k; without swizzle the two change places
 */
enum class Swizzle : unsigned { None = 0, B128 = 1, B64 = 2, B32 = 3 };
FB_PTX uint64_t matrix_descriptor(uint32_t address, uint32_t leading_bytes, uint32_t stride_bytes, Swizzle swizzle) {
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)((leading_bytes & 0x3ffff) >> 4) << 16 |
           (uint64_t)((stride_bytes & 0x3ffff) >> 4) << 32 | (uint64_t)swizzle << 62;
}
enum class Major { K = 0, MN = 1 };

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Orders register accesses before the products: before the first wgmma, and whenever accumulators or A were touched.  9.7.15 */
FB_PTX void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FB_PTX void wgmma_commit_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until then neither the accumulators nor the operands may be touched.  9.7.15 */
template <int N> FB_PTX void wgmma_wait_group() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
/* Keeps the compiler, which knows nothing of the above, from moving uses of an accumulator across the fences. */
FB_PTX void wgmma_fence_operand(float &r) { asm volatile("" : "+f"(r)::"memory"); }
FB_PTX void wgmma_fence_operand(uint32_t &r) { asm volatile("" : "+r"(r)::"memory"); }

#define FB_T8 "%0,%1,%2,%3"
#define FB_T16 FB_T8 ",%4,%5,%6,%7"
#define FB_T24 FB_T16 ",%8,%9,%10,%11"
#define FB_T32 FB_T24 ",%12,%13,%14,%15"
#define FB_T40 FB_T32 ",%16,%17,%18,%19"
#define FB_T48 FB_T40 ",%20,%21,%22,%23"
#define FB_T56 FB_T48 ",%24,%25,%26,%27"
#define FB_T64 FB_T56 ",%28,%29,%30,%31"
#define FB_T72 FB_T64 ",%32,%33,%34,%35"
#define FB_T80 FB_T72 ",%36,%37,%38,%39"
#define FB_T88 FB_T80 ",%40,%41,%42,%43"
#define FB_T96 FB_T88 ",%44,%45,%46,%47"
#define FB_T104 FB_T96 ",%48,%49,%50,%51"
#define FB_T112 FB_T104 ",%52,%53,%54,%55"
#define FB_T120 FB_T112 ",%56,%57,%58,%59"
#define FB_T128 FB_T120 ",%60,%61,%62,%63"
#define FB_T136 FB_T128 ",%64,%65,%66,%67"
#define FB_T144 FB_T136 ",%68,%69,%70,%71"
#define FB_T152 FB_T144 ",%72,%73,%74,%75"
#define FB_T160 FB_T152 ",%76,%77,%78,%79"
#define FB_T168 FB_T160 ",%80,%81,%82,%83"
#define FB_T176 FB_T168 ",%84,%85,%86,%87"
#define FB_T184 FB_T176 ",%88,%89,%90,%91"
#define FB_T192 FB_T184 ",%92,%93,%94,%95"
#define FB_T200 FB_T192 ",%96,%97,%98,%99"
#define FB_T208 FB_T200 ",%100,%101,%102,%103"
#define FB_T216 FB_T208 ",%104,%105,%106,%107"
#define FB_T224 FB_T216 ",%108,%109,%110,%111"
#define FB_T232 FB_T224 ",%112,%113,%114,%115"
#define FB_T240 FB_T232 ",%116,%117,%118,%119"
#define FB_T248 FB_T240 ",%120,%121,%122,%123"
#define FB_T256 FB_T248 ",%124,%125,%126,%127"

#define FB_D8 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define FB_D16 FB_D8, "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define FB_D24 FB_D16, "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11])
#define FB_D32 FB_D24, "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define FB_D40 FB_D32, "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19])
#define FB_D48 FB_D40, "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23])
#define FB_D56 FB_D48, "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27])
#define FB_D64 FB_D56, "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define FB_D72 FB_D64, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])
#define FB_D80 FB_D72, "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
#define FB_D88 FB_D80, "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43])
#define FB_D96 FB_D88, "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
#define FB_D104 FB_D96, "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51])
#define FB_D112 FB_D104, "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55])
#define FB_D120 FB_D112, "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59])
#define FB_D128 FB_D120, "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define FB_D136 FB_D128, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67])
#define FB_D144 FB_D136, "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71])
#define FB_D152 FB_D144, "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75])
#define FB_D160 FB_D152, "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79])
#define FB_D168 FB_D160, "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83])
#define FB_D176 FB_D168, "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87])
#define FB_D184 FB_D176, "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91])
#define FB_D192 FB_D184, "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])
#define FB_D200 FB_D192, "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99])
#define FB_D208 FB_D200, "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103])
#define FB_D216 FB_D208, "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107])
#define FB_D224 FB_D216, "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111])
#define FB_D232 FB_D224, "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115])
#define FB_D240 FB_D232, "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119])
#define FB_D248 FB_D240, "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123])
#define FB_D256 FB_D248, "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])

template <int N> struct WgmmaWidth; /* N = 8, 16 ... 256 */

/* One width, and the numbers of the operands that follow its accumulators. */
#define FB_WGMMA(N, I0, I1, I2, I3, I4, I5, I6)                                                                         \
    template <> struct WgmmaWidth<N> {                                                                                  \
        FB_WGMMA_SS(bf16, "bf16", N, I0, I1, I2, I3, I4)                                                                \
        FB_WGMMA_SS(f16, "f16", N, I0, I1, I2, I3, I4)                                                                  \
        FB_WGMMA_RS(bf16, "bf16", N, I0, I1, I2, I3, I4, I5, I6)                                                        \
        FB_WGMMA_RS(f16, "f16", N, I0, I1, I2, I3, I4, I5, I6)                                                          \
    };
#define FB_WGMMA_SS(NAME, TYPE, N, I0, I1, I2, I3, I4)                                                                  \
    template <int TA, int TB>                                                                                           \
    static __device__ __forceinline__ void NAME##_ss(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {       \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #I2 ", 0;\n"                                                  \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" FB_T##N "}, %" #I0 ", %" #I1  \
                     ", p, 1, 1, %" #I3 ", %" #I4 ";\n}"                                                                \
                     : FB_D##N : "l"(a), "l"(b), "r"(accumulate), "n"(TA), "n"(TB));                                    \
    }
#define FB_WGMMA_RS(NAME, TYPE, N, I0, I1, I2, I3, I4, I5, I6)                                                          \
    template <int TB>                                                                                                   \
    static __device__ __forceinline__ void NAME##_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate) {\
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #I5 ", 0;\n"                                                  \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" FB_T##N "}, {%" #I0 ",%" #I1  \
                     ",%" #I2 ",%" #I3 "}, %" #I4 ", p, 1, 1, %" #I6 ";\n}"                                             \
                     : FB_D##N : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(TB));         \
    }

FB_WGMMA(8, 4, 5, 6, 7, 8, 9, 10)
FB_WGMMA(16, 8, 9, 10, 11, 12, 13, 14)
FB_WGMMA(24, 12, 13, 14, 15, 16, 17, 18)
FB_WGMMA(32, 16, 17, 18, 19, 20, 21, 22)
FB_WGMMA(40, 20, 21, 22, 23, 24, 25, 26)
FB_WGMMA(48, 24, 25, 26, 27, 28, 29, 30)
FB_WGMMA(56, 28, 29, 30, 31, 32, 33, 34)
FB_WGMMA(64, 32, 33, 34, 35, 36, 37, 38)
FB_WGMMA(72, 36, 37, 38, 39, 40, 41, 42)
FB_WGMMA(80, 40, 41, 42, 43, 44, 45, 46)
FB_WGMMA(88, 44, 45, 46, 47, 48, 49, 50)
FB_WGMMA(96, 48, 49, 50, 51, 52, 53, 54)
FB_WGMMA(104, 52, 53, 54, 55, 56, 57, 58)
FB_WGMMA(112, 56, 57, 58, 59, 60, 61, 62)
FB_WGMMA(120, 60, 61, 62, 63, 64, 65, 66)
FB_WGMMA(128, 64, 65, 66, 67, 68, 69, 70)
FB_WGMMA(136, 68, 69, 70, 71, 72, 73, 74)
FB_WGMMA(144, 72, 73, 74, 75, 76, 77, 78)
FB_WGMMA(152, 76, 77, 78, 79, 80, 81, 82)
FB_WGMMA(160, 80, 81, 82, 83, 84, 85, 86)
FB_WGMMA(168, 84, 85, 86, 87, 88, 89, 90)
FB_WGMMA(176, 88, 89, 90, 91, 92, 93, 94)
FB_WGMMA(184, 92, 93, 94, 95, 96, 97, 98)
FB_WGMMA(192, 96, 97, 98, 99, 100, 101, 102)
FB_WGMMA(200, 100, 101, 102, 103, 104, 105, 106)
FB_WGMMA(208, 104, 105, 106, 107, 108, 109, 110)
FB_WGMMA(216, 108, 109, 110, 111, 112, 113, 114)
FB_WGMMA(224, 112, 113, 114, 115, 116, 117, 118)
FB_WGMMA(232, 116, 117, 118, 119, 120, 121, 122)
FB_WGMMA(240, 120, 121, 122, 123, 124, 125, 126)
FB_WGMMA(248, 124, 125, 126, 127, 128, 129, 130)
FB_WGMMA(256, 128, 129, 130, 131, 132, 133, 134)

#undef FB_WGMMA
#undef FB_WGMMA_SS
#undef FB_WGMMA_RS

/* D = A B (+ D if accumulate), both operands in shared memory. */
template <int N, Major A = Major::K, Major B = Major::K>
FB_PTX void wgmma_bf16(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {
    WgmmaWidth<N>::template bf16_ss<(int)A, (int)B>(d, a, b, accumulate);
}
template <int N, Major A = Major::K, Major B = Major::K>
FB_PTX void wgmma_f16(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {
    WgmmaWidth<N>::template f16_ss<(int)A, (int)B>(d, a, b, accumulate);
}
/* A from registers: weights that were just decoded need no trip through shared memory. */
template <int N, Major B = Major::K>
FB_PTX void wgmma_bf16_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate) {
    WgmmaWidth<N>::template bf16_rs<(int)B>(d, a, b, accumulate);
}
template <int N, Major B = Major::K>
FB_PTX void wgmma_f16_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate) {
    WgmmaWidth<N>::template f16_rs<(int)B>(d, a, b, accumulate);
}
#endif

} // namespace ptx
