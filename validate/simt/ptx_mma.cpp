/* ptx_mma.cpp — mma.sync, ldmatrix and stmatrix: a warp's lanes hand in their fragments, the last to come computes.
 *
 * Layouts (PTX ISA 9.7.14, matrix fragments of mma and ldmatrix): with g = lane / 4 and t = lane % 4,
 *
 *   A 16 x 16   word i holds row g + 8 (i & 1), columns 2t + 8 (i >> 1) and the next      (16 x 8: the first two words)
 *   B 16 x 8    word i holds column g, rows 2t + 8 i and the next                         (8 x 8: the first word)
 *   C 16 x 8    float i is row g + 8 (i >> 1), column 2t + (i & 1)
 *   8 x 8       a lane's word holds row g, columns 2t and 2t + 1; with .trans column g, rows 2t and 2t + 1
 */
#include "ptx_impl.h"

namespace simt {

struct MmaArg {
    Quad d;
    uint32_t a[4], b[2];
    Site site;
};

static bool whole_warp(const char *what, uint32_t present, Fiber *const *fibers, Site site) {
    if (present == ~0u) return true;
    report_for(fibers[__builtin_ctz(present)], Check::BadCollective, site, nullptr,
               "%s: only lanes 0x%08x take part; all 32 must", what, present);
    return false;
}

template <unsigned K, MmaType T> static void run_mma(void **args, uint32_t present, Fiber *const *fibers, void *) {
    MmaArg *const *lane = (MmaArg *const *)args;
    count(Instr::Mma);
    if (!whole_warp("mma.sync", present, fibers, lane[__builtin_ctz(present)]->site)) return;
    float a[16][K], b[K][8], c[16][8];
    for (unsigned l = 0; l < kWarp; l++) {
        const MmaArg &x = *lane[l];
        unsigned g = l / 4, t = l % 4;
        for (unsigned i = 0; i < K / 4; i++) {
            float *to = &a[g + 8 * (i & 1)][2 * t + 8 * (i >> 1)];
            to[0] = operand(x.a[i], T);
            to[1] = operand(x.a[i] >> 16, T);
        }
        for (unsigned i = 0; i < K / 8; i++) {
            b[2 * t + 8 * i][g] = operand(x.b[i], T);
            b[2 * t + 8 * i + 1][g] = operand(x.b[i] >> 16, T);
        }
        for (unsigned i = 0; i < 4; i++) c[g + 8 * (i >> 1)][2 * t + (i & 1)] = x.d.d[i];
    }
    multiply(a[0], K, b[0], 8, c[0], 8, 16, 8, K, least_exponent(T));
    for (unsigned l = 0; l < kWarp; l++)
        for (unsigned i = 0; i < 4; i++) lane[l]->d.d[i] = c[l / 4 + 8 * (i >> 1)][2 * (l % 4) + (i & 1)];
}

Quad mma_k16(Quad d, Words<4> a, Words<2> b, MmaType type, Site site) {
    MmaArg x{d, {a.w[0], a.w[1], a.w[2], a.w[3]}, {b.w[0], b.w[1]}, site};
    if (type == MmaType::F16)
        warp_collective("mma.m16n8k16.f16", ~0u, run_mma<16, MmaType::F16>, &x, site);
    else
        warp_collective("mma.m16n8k16.bf16", ~0u, run_mma<16, MmaType::Bf16>, &x, site);
    return x.d;
}

Quad mma_k8(Quad d, Words<2> a, Words<1> b, MmaType type, Site site) {
    MmaArg x{d, {a.w[0], a.w[1], 0, 0}, {b.w[0], 0}, site};
    if (type == MmaType::F16)
        warp_collective("mma.m16n8k8.f16", ~0u, run_mma<8, MmaType::F16>, &x, site);
    else
        warp_collective("mma.m16n8k8.bf16", ~0u, run_mma<8, MmaType::Bf16>, &x, site);
    return x.d;
}

/* --- ldmatrix, stmatrix --- */

struct RowArg {
    uint32_t row;
    Words<4> values;
    Site site;
};
constexpr uintptr_t kTrans = 8; /* context: number of matrices, and this */

/* Lanes 8m ... 8m+7 name the rows of matrix m; the others' addresses are ignored. */
static char *row_of(RowArg &x, Fiber &f, const char *what, Touch touch) {
    Fiber *current = tl_worker->current;
    tl_worker->current = &f; /* a report names the lane that gave the address */
    SharedPlace place = shared_place(x.row, 16, 16, what, x.site);
    access_for(f, place.p, 16, touch, x.site, true);
    tl_worker->current = current;
    return place.p;
}

static void run_ldmatrix(void **args, uint32_t present, Fiber *const *fibers, void *context) {
    unsigned n = (unsigned)((uintptr_t)context & 7);
    bool trans = (uintptr_t)context & kTrans;
    RowArg *const *lane = (RowArg *const *)args;
    count(Instr::Ldmatrix);
    if (!whole_warp("ldmatrix", present, fibers, lane[__builtin_ctz(present)]->site)) return;
    for (unsigned m = 0; m < n; m++) {
        uint16_t rows[8][8];
        for (unsigned r = 0; r < 8; r++)
            memcpy(rows[r], row_of(*lane[8 * m + r], *fibers[8 * m + r], "ldmatrix", Touch::Read), 16);
        for (unsigned l = 0; l < kWarp; l++) {
            unsigned g = l / 4, t = l % 4;
            uint16_t lo = trans ? rows[2 * t][g] : rows[g][2 * t], hi = trans ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
            lane[l]->values.w[m] = (uint32_t)hi << 16 | lo;
        }
    }
}

static void run_stmatrix(void **args, uint32_t present, Fiber *const *fibers, void *context) {
    unsigned n = (unsigned)((uintptr_t)context & 7);
    bool trans = (uintptr_t)context & kTrans;
    RowArg *const *lane = (RowArg *const *)args;
    count(Instr::Stmatrix);
    if (!whole_warp("stmatrix", present, fibers, lane[__builtin_ctz(present)]->site)) return;
    for (unsigned m = 0; m < n; m++) {
        uint16_t rows[8][8];
        for (unsigned l = 0; l < kWarp; l++) {
            unsigned g = l / 4, t = l % 4;
            uint32_t v = lane[l]->values.w[m];
            (trans ? rows[2 * t][g] : rows[g][2 * t]) = (uint16_t)v;
            (trans ? rows[2 * t + 1][g] : rows[g][2 * t + 1]) = (uint16_t)(v >> 16);
        }
        for (unsigned r = 0; r < 8; r++)
            memcpy(row_of(*lane[8 * m + r], *fibers[8 * m + r], "stmatrix", Touch::Write), rows[r], 16);
    }
}

Words<4> ldmatrix(uint32_t row, int matrices, bool trans, Site site) {
    static const char *const names[] = {"ldmatrix.x1", "ldmatrix.x2", "ldmatrix.x4", "ldmatrix.x1.trans",
                                        "ldmatrix.x2.trans", "ldmatrix.x4.trans"};
    RowArg x{row, {}, site};
    warp_collective(names[matrices / 2 + 3 * trans], ~0u, run_ldmatrix, &x, site,
                    (void *)((uintptr_t)matrices | (trans ? kTrans : 0)));
    return x.values;
}

void stmatrix(uint32_t row, Words<4> values, int matrices, bool trans, Site site) {
    static const char *const names[] = {"stmatrix.x1", "stmatrix.x2", "stmatrix.x4", "stmatrix.x1.trans",
                                        "stmatrix.x2.trans", "stmatrix.x4.trans"};
    RowArg x{row, values, site};
    warp_collective(names[matrices / 2 + 3 * trans], ~0u, run_stmatrix, &x, site,
                    (void *)((uintptr_t)matrices | (trans ? kTrans : 0)));
}

} // namespace simt
