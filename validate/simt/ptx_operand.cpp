/* ptx_operand.cpp — wgmma's matrices in shared memory: which byte an element of the described matrix is.
 *
 * PTX ISA 9.7.15; the picture is in kernels/cuda/ptx_wgmma.cuh.  T = 8 elements of two bytes, W = chunks.
 *
 *   K-major    row r, column k   (r % 8) W 16 + (r / 8) stride + (k / 8) (W == 1 ? leading : 16) + (k % 8) 2
 *   MN-major   W == 1            (r % 8) 2 + (r / 8) stride + (k % 8) 16 + (k / 8) leading
 *              W > 1             (r % 8W) 2 + (r / 8W) leading + (k % 8) W 16 + (k / 8) stride
 *
 * and then the swizzle, which permutes 16-byte pieces by the address itself. */
#include "ptx_impl.h"
#include <algorithm>

namespace simt {

MatrixOperand decode_descriptor(uint64_t d, bool mn_major, unsigned rows, const char *which, Site site) {
    MatrixOperand o;
    o.start = (uint32_t)(d & 0x3fff) << 4;
    o.leading = (uint32_t)(d >> 16 & 0x3fff) << 4;
    o.stride = (uint32_t)(d >> 32 & 0x3fff) << 4;
    unsigned mode = (unsigned)(d >> 62), base = (unsigned)(d >> 49 & 7);
    o.chunks = mode == 1 ? 8 : mode == 2 ? 4 : mode == 3 ? 2 : 1;
    o.mn_major = mn_major;
    o.rows = rows;
    const char *bad = nullptr;
    if (o.start < kSharedStart) bad = "its address is no shared memory";
    if (base) bad = "a base offset other than 0 is not modelled";
    /* With base offset 0 the pattern begins where the address bits that it permutes by are zero. */
    if (o.chunks > 1 && (o.start >> 7 & (o.chunks - 1)))
        bad = "it begins inside the swizzle pattern's rows (128 x swizzle / 16 bytes), but its base offset is 0";
    if ((d >> 14 & 3) || (d >> 30 & 3) || (d >> 46 & 7) || (d >> 52 & 0x3ff)) bad = "reserved bits are set";
    if (bad) {
        report(Check::BadInstruction, site, nullptr, "wgmma: descriptor of %s 0x%016llx: %s", which, (unsigned long long)d, bad);
        abandon();
    }
    return o;
}

uint32_t element_offset(const MatrixOperand &o, unsigned r, unsigned k) {
    uint32_t at = o.start, w = o.chunks;
    if (!o.mn_major)
        at += r % 8 * w * 16 + r / 8 * o.stride + k / 8 * (w == 1 ? o.leading : 16) + k % 8 * 2;
    else if (w == 1)
        at += r % 8 * 2 + r / 8 * o.stride + k % 8 * 16 + k / 8 * o.leading;
    else
        at += r % (8 * w) * 2 + r / (8 * w) * o.leading + k % 8 * w * 16 + k / 8 * o.stride;
    return swizzle(at, w);
}

std::vector<std::pair<uint32_t, uint32_t>> pieces(const MatrixOperand &o, unsigned first, unsigned n) {
    std::vector<uint32_t> chunk;
    for (unsigned r = first; r < first + n; r += o.mn_major ? 8 : 1)
        for (unsigned k = 0; k < 16; k += o.mn_major ? 1 : 8) chunk.push_back(element_offset(o, r, k));
    std::sort(chunk.begin(), chunk.end());
    std::vector<std::pair<uint32_t, uint32_t>> out;
    for (uint32_t c : chunk)
        if (!out.empty() && c == out.back().first + out.back().second)
            out.back().second += 16;
        else if (out.empty() || c >= out.back().first + out.back().second)
            out.push_back({c, 16});
    return out;
}

} // namespace simt
