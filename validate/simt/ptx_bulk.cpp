/* ptx_bulk.cpp — bulk copies.  Loads fly in Cluster::in_flight until nobody else can run; then one lands, its mbarrier
 * counts the bytes, and whoever saw that phase end has heard of the copy.  Stores belong to their thread's bulk groups. */
#include "ptx_impl.h"

namespace simt {

/* --- loads --- */

struct BulkLoad : Deferred {
    struct Target {
        Block *block;
        char *dst;
    };
    std::vector<Target> targets;
    const void *src = nullptr;
    uint32_t bytes = 0, bar_offset = 0;
    Stamp writer = 0;
    History order;
    void land() override {
        for (const Target &t : targets) {
            end_landing(t.dst, bytes, writer);
            memcpy(t.dst, src, bytes);
            complete_tx(*owner, *t.block, bar_offset, bytes, order, site);
        }
    }
    std::string describe() const override { return "cp.async.bulk of " + std::to_string(bytes) + " bytes"; }
};

void bulk_load(uint32_t dst, const void *src, uint32_t bytes, uint32_t bar, int mask, Site site) {
    Fiber &f = self();
    Cluster &c = *f.block->cluster;
    const char *what = "cp.async.bulk";
    SharedPlace d = shared_place(dst, bytes, 16, what, site), b = shared_place(bar, 8, 8, what, site);
    count(Instr::CpAsyncBulk);
    if (!bytes || bytes % 16 || (uintptr_t)src % 16 || is_shared(src)) {
        report(Check::BadInstruction, site, src, "%s: %u bytes from %p; both must be multiples of 16, the source global", what, bytes, src);
        abandon();
    }
    access_for(f, src, bytes, Touch::Read, site);
    count_traffic(src, bytes, false);
    auto load = std::make_unique<BulkLoad>();
    for (unsigned rank = 0; rank < c.blocks.size(); rank++) {
        Block *to = c.blocks[rank];
        if (mask < 0 ? to != d.block : !(mask >> rank & 1)) continue;
        SharedPlace its{to, b.offset, to->shared + b.offset};
        require_visible(find_mbarrier(its, what, site), its, what, site);
        access_for(f, its.p, 8, Touch::Atomic, site);
        char *p = to->shared + d.offset;
        access_for(f, p, bytes, Touch::Write, site);
        begin_landing(p, bytes);
        load->targets.push_back({to, p});
    }
    if (mask >= 0 && (load->targets.empty() || mask >> c.blocks.size())) {
        report(Check::BadInstruction, site, nullptr, "%s: multicast mask 0x%x in a cluster of %zu blocks", what, (unsigned)mask, c.blocks.size());
        abandon();
    }
    load->owner = &f;
    load->site = site;
    load->src = src;
    load->bytes = bytes;
    load->bar_offset = b.offset;
    load->writer = stamp_of(f);
    release_to(load->order, f); /* also moves f's clock on: what it does from here is not what waiters hear of */
    c.in_flight.push_back(std::move(load));
}

/* --- stores --- */

struct BulkStore : Pending {
    char *dst = nullptr, *src = nullptr;
    uint32_t bytes = 0;
    bool read = false; /* the shared side is done with */
    BulkStore() : Pending(kBulk) {}
    void finish_reading() {
        if (read) return;
        read = true;
        end_operand(src, bytes);
        access_for(*owner, src, bytes, Touch::Read, site);
        memcpy(dst, src, bytes);
    }
    void land() override { finish_reading(); }
    std::string describe() const override { return "bulk store of " + std::to_string(bytes) + " bytes"; }
};

void bulk_store(void *dst, uint32_t src, uint32_t bytes, Site site) {
    Fiber &f = self();
    const char *what = "cp.async.bulk (store)";
    SharedPlace s = shared_place(src, bytes, 16, what, site);
    count(Instr::CpAsyncBulk);
    if (!bytes || bytes % 16 || (uintptr_t)dst % 16 || is_shared(dst)) {
        report(Check::BadInstruction, site, dst, "%s: %u bytes to %p; both must be multiples of 16, the destination global", what, bytes, dst);
        abandon();
    }
    access_for(f, s.p, bytes, Touch::Read, site);
    require_fenced(f, s.p, bytes, what, site);
    access_for(f, dst, bytes, Touch::Write, site);
    count_traffic(dst, bytes, true);
    begin_operand(s.p, bytes);
    auto store = std::make_unique<BulkStore>();
    store->owner = &f;
    store->site = site;
    store->group = f.groups[kBulk];
    store->dst = (char *)dst;
    store->src = s.p;
    store->bytes = bytes;
    f.pending.push_back(std::move(store));
}

void bulk_commit() { self().groups[kBulk]++; }

/* A wait for reads alone is enough before a thread ends, so both kinds retire the entry; the global bytes are written at
 * the same moment. What is lost: a read of them by the same thread that waited with .read only is not reported. */
void bulk_wait(unsigned leave, bool) {
    Fiber &f = self();
    for (size_t i = 0; i < f.pending.size();) {
        Pending *p = (Pending *)f.pending[i].get();
        if (p->mechanism != kBulk || p->group + leave >= f.groups[kBulk]) {
            i++;
            continue;
        }
        std::unique_ptr<Deferred> d = std::move(f.pending[i]);
        f.pending.erase(f.pending.begin() + (long)i);
        d->land();
    }
}

} // namespace simt
