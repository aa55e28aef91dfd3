/* ptx_impl.h — what the files of the PTX layer share.
 *
 *   ptx_numerics.cpp  how a tensor core adds up, in two ways
 *   ptx_mma.cpp       mma.sync, ldmatrix, stmatrix
 *   ptx_copy.cpp      cp.async
 *   ptx_mbarrier.cpp  mbarriers and the fences around them
 *   ptx_bulk.cpp      bulk copies; ptx_tensor.cpp: tensor maps, and copies by them
 *   ptx_wgmma.cpp     wgmma; ptx_operand.cpp: descriptors
 *   ptx_misc.cpp      clusters, elect, setmaxnreg
 */
#ifndef SIMT_PTX_IMPL_H
#define SIMT_PTX_IMPL_H

#include "core.h"
#include "ptx.h"

namespace simt {

/* --- Fiber::pending holds these and nothing else; groups[] counts committed groups by kind --- */

enum Mechanism : unsigned { kCpAsync = 0, kBulk = 1, kWgmma = 2 };
struct Pending : Deferred {
    Mechanism mechanism;
    explicit Pending(Mechanism m) : mechanism(m) {}
};
/* The youngest entry of this mechanism that still belongs to the open group, or null. */
Pending *open_group(Fiber &, Mechanism);

/* --- shared memory by address --- */

struct SharedPlace {
    Block *block;
    uint32_t offset;
    char *p;
};
/* Ends the launch with a report if the address is no shared memory or not aligned. */
SharedPlace shared_place(uint32_t address, size_t bytes, size_t align, const char *what, Site);

/* --- order handed over by something that is not a thread --- */

void merge_history(History &into, const History &from);

/* --- mbarriers as copies see them --- */

struct Mbarrier;
Mbarrier &find_mbarrier(const SharedPlace &, const char *what, Site); /* reports and ends the launch if there is none */
void require_visible(Mbarrier &, const SharedPlace &, const char *what, Site); /* to the async proxy */
/* A copy's last act. `order`: what a thread that saw the phase end has heard of. */
void complete_tx(Fiber &owner, Block &, uint32_t offset, uint32_t bytes, const History &order, Site);
void arrive_for(Fiber &owner, Block &, uint32_t offset, const History &order, Site); /* cp.async's arrive-on */

/* --- traffic that no lane loads or stores --- */

void count_traffic(const void *global, size_t bytes, bool store);
void require_fenced(Fiber &, const void *p, size_t bytes, const char *what, Site); /* writes before an async proxy's read */

/* --- products --- */

/* c[m][n] += sum over k of a[m][k] * b[k][n], n a multiple of 8 and one instruction's k at a time. least_exponent: of the
 * operands' type, which the Hopper model aligns subnormals by. */
void multiply(const float *a, size_t a_stride, const float *b, size_t b_stride, float *c, size_t c_stride, unsigned m,
              unsigned n, unsigned k, int least_exponent);
inline int least_exponent(MmaType t) { return t == MmaType::F16 ? -14 : -126; }
inline float operand(uint32_t bits, MmaType t) {
    return t == MmaType::F16 ? fp16_to_float((uint16_t)bits) : bf16_to_float((uint16_t)bits);
}

/* --- wgmma's operands in shared memory (ptx_operand.cpp) --- */

struct MatrixOperand {
    uint32_t start, leading, stride;
    unsigned chunks; /* 16-byte pieces in a swizzled row: 1, 2, 4, 8 */
    bool mn_major;
    unsigned rows;   /* along M or N */
};
/* Ends the launch with a report if the descriptor is not one the hardware accepts. */
MatrixOperand decode_descriptor(uint64_t, bool mn_major, unsigned rows, const char *which, Site);
uint32_t element_offset(const MatrixOperand &, unsigned row, unsigned k); /* byte offset in the block's window */
/* Calls visit(offset, bytes) for the pieces that rows [first, first + n) occupy, adjacent ones joined. */
std::vector<std::pair<uint32_t, uint32_t>> pieces(const MatrixOperand &, unsigned first, unsigned n);

/* XOR of the address bits that the 32/64/128-byte swizzles make; shared by descriptors and tensor copies. */
inline uint32_t swizzle(uint32_t address, unsigned chunks) { return address ^ ((address >> 7 & (chunks - 1)) << 4); }

} // namespace simt
#endif
