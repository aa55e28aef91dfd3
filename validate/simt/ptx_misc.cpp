/* ptx_misc.cpp — what the PTX layer's files share, and the small instructions: clusters, elect, setmaxnreg. */
#include "ptx_impl.h"

namespace simt {

Pending *open_group(Fiber &f, Mechanism m) {
    for (auto it = f.pending.rbegin(); it != f.pending.rend(); ++it) {
        Pending *p = (Pending *)it->get();
        if (p->mechanism == m) return p->group == f.groups[m] ? p : nullptr;
    }
    return nullptr;
}

SharedPlace shared_place(uint32_t address, size_t bytes, size_t align, const char *what, Site site) {
    Fiber &f = self();
    Cluster &c = *f.block->cluster;
    unsigned rank = address >> 24 ? (address >> 24) - 1 : f.block->rank;
    uint32_t offset = address & 0xffffff;
    if (rank >= c.blocks.size() || offset < kSharedStart || offset + bytes > kSharedSlot) {
        report(Check::BadInstruction, site, nullptr, "%s: 0x%x is no shared memory address", what, address);
        abandon();
    }
    char *p = c.blocks[rank]->shared + offset;
    if (offset % align) {
        report(Check::Misaligned, site, p, "%s: address 0x%x is not a multiple of %zu", what, address, align);
        abandon();
    }
    return SharedPlace{c.blocks[rank], offset, p};
}

void merge_history(History &into, const History &from) {
    if (!from || into == from) return;
    if (!into) {
        into = from;
        return;
    }
    auto row = std::make_shared<HistoryRow>(*into);
    for (size_t i = 0; i < row->size(); i++)
        if ((*row)[i] < (*from)[i]) (*row)[i] = (*from)[i];
    into = row;
}

void count_traffic(const void *p, size_t bytes, bool store) {
    Worker &w = *tl_worker;
    if (!w.counting() || !bytes) return;
    Buffer *b = find_buffer(p);
    if (!b || b->id >= w.traffic.size()) return;
    BufferTraffic &t = w.traffic[b->id];
    uint64_t sectors = ((uintptr_t)p + bytes - 1) / 32 - (uintptr_t)p / 32 + 1;
    (store ? t.bytes_written : t.bytes_read) += bytes;
    (store ? t.sectors_written : t.sectors_read) += sectors;
}

void require_fenced(Fiber &f, const void *p, size_t bytes, const char *what, Site site) {
    if (!tl_worker->checking()) return;
    if (size_t n = unfenced_writes(p, bytes, f))
        report_for(&f, Check::MissingFence, site, p,
                   "%s reads through the async proxy %zu bytes that were stored without a fence.proxy.async after it", what, n);
}

/* --- clusters --- */

uint32_t cluster_rank() { return self().block->rank; }
uint32_t cluster_size() { return (uint32_t)self().block->cluster->blocks.size(); }

uint32_t map_address(uint32_t address, uint32_t rank, Site site) {
    if (rank >= cluster_size()) {
        report(Check::BadInstruction, site, nullptr, "mapa: rank %u in a cluster of %u blocks", rank, cluster_size());
        abandon();
    }
    return (rank + 1) << 24 | (address & 0xffffff);
}

void *map_pointer(const void *p, uint32_t rank, Site site) {
    return shared_pointer(map_address(shared_address(p), rank, site));
}

/* --- elect.sync: the lowest lane here; the hardware promises only that it is one --- */

bool elect(uint32_t mask, Site site) {
    bool chosen = false;
    warp_collective("elect.sync", mask, [](void **args, uint32_t present, Fiber *const *, void *) {
        *(bool *)args[__builtin_ctz(present)] = true;
    }, &chosen, site);
    return chosen;
}

/* --- setmaxnreg: nothing to do, much to get wrong --- */

struct RegisterPool {
    unsigned by_warpgroup[kMaxThreads / kWarpgroup] = {};
};
constexpr uint32_t kRegisterPool = 0xffffffff; /* in Block::objects, where no shared offset can be */

struct RegisterArg {
    unsigned registers;
    bool increase;
    Site site;
};

static void run_setmaxnreg(void **args, uint32_t, Fiber *const *fibers, void *) {
    const RegisterArg &a = *(RegisterArg *)args[0];
    for (unsigned i = 1; i < kWarpgroup; i++)
        if (((RegisterArg *)args[i])->registers != a.registers)
            report_for(fibers[i], Check::BadInstruction, a.site, nullptr, "setmaxnreg: %u registers here, %u in the first warp",
                       ((RegisterArg *)args[i])->registers, a.registers);
    if (a.registers < 24 || a.registers > 256 || a.registers % 8)
        report(Check::BadInstruction, a.site, nullptr, "setmaxnreg to %u: must be a multiple of 8 from 24 to 256", a.registers);
    Block &b = *fibers[0]->block;
    auto &slot = b.objects[kRegisterPool];
    if (!slot) slot = std::make_shared<RegisterPool>();
    RegisterPool &pool = *(RegisterPool *)slot.get();
    unsigned group = fibers[0]->thread / kWarpgroup, &now = pool.by_warpgroup[group];
    if (now && (a.increase ? a.registers < now : a.registers > now))
        report(Check::BadInstruction, a.site, nullptr, "setmaxnreg.%s from %u to %u", a.increase ? "inc" : "dec", now,
               a.registers);
    now = a.registers;
    unsigned total = 0; /* of those that have spoken; the others are not known here */
    for (unsigned r : pool.by_warpgroup) total += r * kWarpgroup;
    if (total > 65536)
        report(Check::BadInstruction, a.site, nullptr, "setmaxnreg: the block's warpgroups now want %u registers of 65536", total);
}

void set_max_registers(unsigned registers, bool increase, Site site) {
    RegisterArg a{registers, increase, site};
    warpgroup_collective(increase ? "setmaxnreg.inc" : "setmaxnreg.dec", run_setmaxnreg, &a, site);
}

} // namespace simt
