/* clock.cpp — who has heard of whom.  See the note on order in core.h. */
#include "core.h"

namespace simt {

static Fiber *fiber_of(Cluster &c, unsigned global) {
    unsigned per_block = c.launch->threads;
    return &c.blocks[global / per_block]->fibers[global % per_block];
}

static size_t cluster_threads(const Fiber &f) {
    const Launch &l = *f.block->cluster->launch;
    return (size_t)l.threads * l.blocks_per_cluster;
}

static void raise(uint32_t *into, const uint32_t *from, size_t n) {
    for (size_t i = 0; i < n; i++) into[i] = into[i] < from[i] ? from[i] : into[i];
}

static History union_of(const History &a, const History &b) {
    if (!a || a == b) return b;
    if (!b) return a;
    Worker &w = *tl_worker;
    if (w.memo_a == a && w.memo_b == b) return w.memo_union;
    auto row = std::make_shared<HistoryRow>(*a);
    raise(row->data(), b->data(), row->size());
    w.memo_a = a;
    w.memo_b = b;
    w.memo_union = row;
    return row;
}

/* A clock that reached its end stays there, and what carries it counts as ordered: checks are lost, none is invented. */
constexpr uint32_t kLastClock = kClockLimit - 2;

void tick(Fiber &f) {
    Block &b = *f.block;
    if (f.clock < kLastClock) f.clock++;
    if (f.clock > b.top) b.top = f.clock;
}

bool ordered_before(Stamp earlier, const Fiber &now) {
    unsigned who = earlier & ((1u << kStampThreadBits) - 1);
    uint32_t when = earlier >> kStampThreadBits;
    if (who == now.global || when >= kLastClock) return true;
    const Block &b = *now.block;
    unsigned first = b.rank * b.threads;
    if (who - first < b.threads) {
        if (when < b.base) return true;
        unsigned lane = who - first - now.warp->first;
        if (lane < kWarp && when < now.lanes[lane]) return true;
    }
    if (now.heard && when < (*now.heard)[who]) return true;
    return b.base_heard && when < (*b.base_heard)[who];
}

void release_to(History &object, Fiber &f) {
    Block &b = *f.block;
    b.fine_order = true;
    std::shared_ptr<HistoryRow> row;
    if (object && object.use_count() == 1)
        row = std::const_pointer_cast<HistoryRow>(object);
    else
        row = object ? std::make_shared<HistoryRow>(*object) : std::make_shared<HistoryRow>(cluster_threads(f), 0);
    uint32_t *r = row->data();
    if (f.heard) raise(r, f.heard->data(), row->size());
    if (b.base_heard) raise(r, b.base_heard->data(), row->size());
    if (b.cluster->blocks.size() > 1) /* the own block knows its base without being told */
        for (unsigned i = 0, first = b.rank * b.threads; i < b.threads; i++)
            if (r[first + i] < b.base) r[first + i] = b.base;
    unsigned first = b.rank * b.threads + f.warp->first;
    for (unsigned i = 0; i < kWarp && f.warp->first + i < b.threads; i++)
        if (r[first + i] < f.lanes[i]) r[first + i] = f.lanes[i];
    r[f.global] = f.clock + 1;
    tick(f);
    object = row;
}

void acquire_from(const History &object, Fiber &f) {
    if (object) f.heard = union_of(f.heard, object);
}

void join_warp(Fiber *const *fibers, uint32_t present) {
    uint32_t all[kWarp] = {};
    History heard;
    for (unsigned i = 0; i < kWarp; i++)
        if (present >> i & 1) {
            raise(all, fibers[i]->lanes, kWarp);
            heard = union_of(heard, fibers[i]->heard);
        }
    for (unsigned i = 0; i < kWarp; i++)
        if (present >> i & 1) all[i] = fibers[i]->clock + 1;
    for (unsigned i = 0; i < kWarp; i++)
        if (present >> i & 1) {
            memcpy(fibers[i]->lanes, all, sizeof all);
            if (heard) fibers[i]->heard = heard;
            fibers[i]->block->fine_order = true;
            tick(*fibers[i]);
        }
}

void join_block(Block &b) {
    b.base = b.top = b.top + 1;
    for (Fiber &f : b.fibers) {
        if (f.heard) {
            b.base_heard = union_of(b.base_heard, f.heard);
            f.heard = nullptr;
        }
        f.clock = b.base;
    }
    if (b.base < kClockLimit - 4096) return;
    /* Clocks ran out: forget who did what before this barrier.  Everything in the block is ordered here anyway; only a
     * cluster's other blocks lose something, and then only the chance of a report. */
    for (Block *other : b.cluster->blocks) {
        auto &s = other->shadow;
        std::fill(s.writer.begin(), s.writer.end(), 0);
        std::fill(s.reader.begin(), s.reader.end(), 0);
        std::fill(s.reader2.begin(), s.reader2.end(), 0);
    }
    b.era += b.base;
    b.base = b.top = 1;
    b.base_heard = nullptr;
    for (Fiber &f : b.fibers) {
        f.clock = 1;
        memset(f.lanes, 0, sizeof f.lanes);
    }
}

Fiber *fiber_of_stamp(Cluster &c, Stamp s) { return fiber_of(c, s & ((1u << kStampThreadBits) - 1)); }

} // namespace simt
