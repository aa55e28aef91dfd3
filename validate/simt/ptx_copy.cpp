/* ptx_copy.cpp — cp.async: recorded as a write when issued and again when waited for, and copied only then.
 *
 * One entry of Fiber::pending holds a whole group: a GEMM issues millions of 16-byte copies, and an allocation each would
 * take longer than the copies. */
#include "ptx_impl.h"

namespace simt {

struct CpAsyncPiece {
    char *dst;
    const void *src;
    uint16_t bytes, src_bytes;
    uint32_t clock; /* the owner's, when it issued this */
    Site site;
};

static void land_piece(Fiber &f, const CpAsyncPiece &c, bool as_issued) {
    end_landing(c.dst, c.bytes);
    memcpy(c.dst, c.src, c.src_bytes);
    memset(c.dst + c.src_bytes, 0, c.bytes - c.src_bytes);
    uint32_t now = f.clock;
    if (as_issued) f.clock = c.clock; /* the owner did not wait: only those who see the mbarrier flip hear of it */
    access_for(f, c.dst, c.bytes, Touch::Write, c.site);
    f.clock = now;
}

struct CpAsyncGroup : Pending {
    std::vector<CpAsyncPiece> pieces;
    CpAsyncGroup() : Pending(kCpAsync) {}
    void land() override {
        for (const CpAsyncPiece &c : pieces) land_piece(*owner, c, false);
    }
    std::string describe() const override {
        return "cp.async of " + std::to_string(pieces.size()) + (pieces.size() == 1 ? " piece" : " pieces");
    }
};

void cp_async(uint32_t dst, const void *src, uint32_t bytes, uint32_t src_bytes, Site site) {
    Fiber &f = self();
    SharedPlace d = shared_place(dst, bytes, bytes, "cp.async", site);
    if (src_bytes > bytes) {
        report(Check::BadInstruction, site, nullptr, "cp.async of %u bytes with a source size of %u", bytes, src_bytes);
        abandon();
    }
    if (src_bytes) {
        if ((uintptr_t)src % bytes || is_shared(src)) {
            report(is_shared(src) ? Check::BadInstruction : Check::Misaligned, site, src, "cp.async: source %s",
                   is_shared(src) ? "is no global memory" : "is not aligned to the copy's size");
            abandon();
        }
        access_for(f, src, src_bytes, Touch::Read, site, true);
    }
    access_for(f, d.p, bytes, Touch::Write, site, true);
    begin_landing(d.p, bytes);
    if (f.lane == (unsigned)__builtin_ctz(f.warp->live)) count(Instr::CpAsync);
    CpAsyncGroup *g = (CpAsyncGroup *)open_group(f, kCpAsync);
    if (!g) {
        g = new CpAsyncGroup;
        g->owner = &f;
        g->site = site;
        g->group = f.groups[kCpAsync];
        f.pending.emplace_back(g);
    }
    g->pieces.push_back(CpAsyncPiece{d.p, src, (uint16_t)bytes, (uint16_t)src_bytes, f.clock, site});
}

void cp_async_commit() { self().groups[kCpAsync]++; }

/* --- copies whose end an mbarrier reports --- */

struct CpAsyncArrive : Deferred {
    std::vector<CpAsyncPiece> pieces;
    Block *block;
    uint32_t offset;
    History order;
    void land() override {
        for (const CpAsyncPiece &c : pieces) land_piece(*owner, c, true);
        arrive_for(*owner, *block, offset, order, site);
    }
    std::string describe() const override { return "cp.async with an arrival at an mbarrier"; }
};

void cp_async_wait(unsigned leave, bool all) {
    Fiber &f = self();
    if (all) f.groups[kCpAsync]++; /* takes the open group with it */
    for (size_t i = 0; i < f.pending.size();) {
        Pending *p = (Pending *)f.pending[i].get();
        if (p->mechanism != kCpAsync || p->group + leave >= f.groups[kCpAsync]) {
            i++;
            continue;
        }
        std::unique_ptr<Deferred> d = std::move(f.pending[i]);
        f.pending.erase(f.pending.begin() + (long)i);
        d->land();
    }
    if (leave) return;
    auto &flight = f.block->cluster->in_flight; /* those handed to an mbarrier are this thread's copies all the same */
    for (size_t i = 0; i < flight.size();) {
        if (flight[i]->owner != &f || !dynamic_cast<CpAsyncArrive *>(flight[i].get())) {
            i++;
            continue;
        }
        std::unique_ptr<Deferred> d = std::move(flight[i]);
        flight.erase(flight.begin() + (long)i);
        d->land();
    }
}

void cp_async_arrive(uint32_t bar, Site site) {
    Fiber &f = self();
    SharedPlace place = shared_place(bar, 8, 8, "cp.async.mbarrier.arrive", site);
    find_mbarrier(place, "cp.async.mbarrier.arrive", site);
    access_for(f, place.p, 8, Touch::Atomic, site);
    auto d = std::make_unique<CpAsyncArrive>();
    d->owner = &f;
    d->site = site;
    d->block = place.block;
    d->offset = place.offset;
    for (size_t i = 0; i < f.pending.size();) {
        Pending *p = (Pending *)f.pending[i].get();
        if (p->mechanism != kCpAsync) {
            i++;
            continue;
        }
        auto &from = ((CpAsyncGroup *)p)->pieces;
        d->pieces.insert(d->pieces.end(), from.begin(), from.end());
        f.pending.erase(f.pending.begin() + (long)i);
    }
    release_to(d->order, f);
    f.block->cluster->in_flight.push_back(std::move(d));
}

} // namespace simt
