/* ptx_mbarrier.cpp — mbarriers: arrivals, bytes, phases, and what a waiter has heard of when it goes on.
 *
 * The state lives in Block::objects under the barrier's offset; the eight bytes in shared memory hold a mark, by which
 * a plain store over a barrier shows. */
#include "ptx_impl.h"
#include <algorithm>

namespace simt {

constexpr uint64_t kMark = 0x626172726965726dull;

struct Mbarrier {
    uint32_t expected = 0, pending = 0;
    int64_t bytes = 0; /* announced and not yet delivered; negative while copies are ahead of their announcement */
    uint64_t phase = 0;
    Stamp initialised = 0;
    bool visible = false; /* to the async proxy and the cluster */
    bool unseen = false;  /* bytes were delivered, and no wait has returned since */
    Site delivered{nullptr, 0};
    Site site{nullptr, 0};
    History arriving; /* everything any arrival ever handed over */
    History released; /* the same when the last phase ended */
};

static void bad(Check check, const SharedPlace &at, Site site, const char *what, const char *why) {
    report(check, site, at.p, "%s: %s", what, why);
    abandon();
}

static Mbarrier *look_up(Block &b, uint32_t offset) {
    auto it = b.objects.find(offset);
    return it == b.objects.end() ? nullptr : (Mbarrier *)it->second.get();
}

Mbarrier &find_mbarrier(const SharedPlace &at, const char *what, Site site) {
    Mbarrier *m = look_up(*at.block, at.offset);
    if (!m) bad(Check::BarrierPhase, at, site, what, "no mbarrier was initialised here");
    uint64_t mark;
    memcpy(&mark, at.p, 8);
    if (mark != (kMark ^ at.offset)) bad(Check::BarrierPhase, at, site, what, "the mbarrier's bytes were overwritten");
    return *m;
}

static void maybe_complete(Mbarrier &m) {
    if (m.pending || m.bytes) return;
    m.pending = m.expected;
    m.phase++;
    m.released = m.arriving;
    tl_worker->progress++;
}

static void arrive(Mbarrier &m, Fiber &f, const SharedPlace &at, Site site) {
    if (!m.pending) {
        report_for(&f, Check::BarrierPhase, site, at.p, "more arrivals than the %u this mbarrier was initialised for", m.expected);
        return;
    }
    m.pending--;
    maybe_complete(m);
}

void mbarrier_init(uint32_t bar, uint32_t arrivals, Site site) {
    Fiber &f = self();
    SharedPlace at = shared_place(bar, 8, 8, "mbarrier.init", site);
    count(Instr::Mbarrier);
    if (at.block != f.block) bad(Check::BadInstruction, at, site, "mbarrier.init", "of another block's barrier");
    if (!arrivals || arrivals >= 1u << 20) bad(Check::BadInstruction, at, site, "mbarrier.init", "count must be 1 ... 2^20 - 1");
    if (look_up(*at.block, at.offset)) bad(Check::BarrierPhase, at, site, "mbarrier.init", "initialised already; invalidate it first");
    access_for(f, at.p, 8, Touch::Write, site);
    uint64_t mark = kMark ^ at.offset;
    memcpy(at.p, &mark, 8);
    auto m = std::make_shared<Mbarrier>();
    m->expected = m->pending = arrivals;
    m->initialised = stamp_of(f);
    m->site = site;
    at.block->objects[at.offset] = m;
}

void mbarrier_inval(uint32_t bar, Site site) {
    Fiber &f = self();
    SharedPlace at = shared_place(bar, 8, 8, "mbarrier.inval", site);
    count(Instr::Mbarrier);
    find_mbarrier(at, "mbarrier.inval", site);
    access_for(f, at.p, 8, Touch::Write, site);
    at.block->objects.erase(at.offset);
}

static void expect(Mbarrier &m, uint32_t bytes, const SharedPlace &at, Site site) {
    m.bytes += bytes;
    if (m.bytes >= 1 << 20) bad(Check::BadInstruction, at, site, "mbarrier.expect_tx", "more than 2^20 - 1 bytes outstanding");
}

void mbarrier_arrive(uint32_t bar, uint32_t expect_bytes, bool remote, Site site) {
    Fiber &f = self();
    SharedPlace at = shared_place(bar, 8, 8, "mbarrier.arrive", site);
    count(Instr::Mbarrier);
    if (!remote && at.block != f.block)
        bad(Check::BadInstruction, at, site, "mbarrier.arrive.shared::cta", "on another block's barrier; arrive_cluster does that");
    Mbarrier &m = find_mbarrier(at, "mbarrier.arrive", site);
    access_for(f, at.p, 8, Touch::Atomic, site);
    expect(m, expect_bytes, at, site);
    release_to(m.arriving, f);
    arrive(m, f, at, site);
}

void mbarrier_expect(uint32_t bar, uint32_t bytes, Site site) {
    Fiber &f = self();
    SharedPlace at = shared_place(bar, 8, 8, "mbarrier.expect_tx", site);
    count(Instr::Mbarrier);
    Mbarrier &m = find_mbarrier(at, "mbarrier.expect_tx", site);
    access_for(f, at.p, 8, Touch::Atomic, site);
    expect(m, bytes, at, site);
}

/* --- what copies do to a barrier --- */

void require_visible(Mbarrier &m, const SharedPlace &at, const char *what, Site site) {
    if (m.visible || !tl_worker->checking()) return;
    report(Check::MissingFence, site, at.p,
           "%s: the mbarrier initialised in line %d was not made visible to the async proxy (fence.mbarrier_init)", what, m.site.line);
    m.visible = true; /* once is enough */
}

static Mbarrier *barrier_of_copy(Fiber &owner, Block &b, uint32_t offset, Site site) {
    Mbarrier *m = look_up(b, offset);
    if (!m)
        report_for(&owner, Check::BarrierPhase, site, b.shared + offset, "the copy's mbarrier was invalidated before the copy landed");
    return m;
}

void complete_tx(Fiber &owner, Block &b, uint32_t offset, uint32_t bytes, const History &order, Site site) {
    Mbarrier *m = barrier_of_copy(owner, b, offset, site);
    if (!m) return;
    merge_history(m->arriving, order);
    m->bytes -= bytes;
    m->unseen = true;
    m->delivered = site;
    maybe_complete(*m);
}

void arrive_for(Fiber &owner, Block &b, uint32_t offset, const History &order, Site site) {
    Mbarrier *m = barrier_of_copy(owner, b, offset, site);
    if (!m) return;
    merge_history(m->arriving, order);
    arrive(*m, owner, SharedPlace{&b, offset, b.shared + offset}, site);
}

/* --- waiting --- */

struct PhaseWait {
    std::shared_ptr<void> barrier; /* outlives an inval */
    uint32_t parity;
    SharedPlace at;
};

static bool over(void *context) {
    PhaseWait &w = *(PhaseWait *)context;
    return (((Mbarrier *)w.barrier.get())->phase & 1) != w.parity;
}

bool mbarrier_test(uint32_t bar, uint32_t parity, bool may_wait, Site site) {
    Fiber &f = self();
    SharedPlace at = shared_place(bar, 8, 8, "mbarrier wait", site);
    count(Instr::Mbarrier);
    if (at.block != f.block) bad(Check::BadInstruction, at, site, "mbarrier wait", "on another block's barrier");
    if (parity > 1) bad(Check::BadInstruction, at, site, "mbarrier wait", "parity is 0 or 1");
    find_mbarrier(at, "mbarrier wait", site);
    access_for(f, at.p, 8, Touch::Atomic, site);
    PhaseWait w{at.block->objects[at.offset], parity, at};
    if (!over(&w)) {
        if (may_wait)
            block_until("mbarrier.try_wait", site, over, &w, Check::BarrierPhase);
        else
            spin_pause();
    }
    if (!over(&w)) return false;
    Mbarrier &m = *(Mbarrier *)w.barrier.get();
    m.unseen = false;
    acquire_from(m.released, f);
    return true;
}

/* A copy that landed early is as unwaited for as one that still flies when the block ends; the core reports the latter. */
static void report_unseen(Fiber &f) {
    if (f.block->live > 1) return;
    for (auto &o : f.block->objects) {
        if (o.first >= kSharedSlot) continue;
        Mbarrier &m = *(Mbarrier *)o.second.get();
        if (m.unseen)
            report_for(&f, Check::UnwaitedCopy, m.delivered, f.block->shared + o.first,
                       "the block ends and nobody waited for the bytes that this copy delivered to an mbarrier");
    }
}
static const bool exit_hooked = (add_exit_hook(report_unseen), true);

/* Before a deadlock is declared: say what the barriers that are waited for still lack. */
static bool explain_waits(Cluster &c) {
    if (!c.worker->ready.empty() || !c.in_flight.empty()) return false;
    std::vector<void *> told;
    for (Block *b : c.blocks)
        for (Fiber &f : b->fibers) {
            if (f.state != State::Blocked || f.ready != over) continue;
            PhaseWait &w = *(PhaseWait *)f.ready_context;
            Mbarrier &m = *(Mbarrier *)w.barrier.get();
            if (over(&w)) return false;
            if (std::find(told.begin(), told.end(), &m) != told.end()) continue;
            told.push_back(&m);
            report_for(&f, Check::BarrierPhase, f.waiting_at, w.at.p,
                       "phase %llu (parity %u) of this mbarrier never ends: %u of %u arrivals and %lld bytes are missing",
                       (unsigned long long)m.phase, w.parity, m.pending, m.expected, (long long)m.bytes);
        }
    return false;
}
static const bool hooked = (add_idle_hook(explain_waits), true);

/* --- fences --- */

static void reveal_barriers(Fiber &f) {
    for (auto &o : f.block->objects)
        if (o.first < kSharedSlot) {
            Mbarrier &m = *(Mbarrier *)o.second.get();
            if (ordered_before(m.initialised, f)) m.visible = true;
        }
}

void fence_mbarrier(Site) {
    count(Instr::Fence);
    reveal_barriers(self());
}

void fence_proxy(Site) {
    Fiber &f = self();
    count(Instr::Fence);
    f.proxy_clock = f.clock + 1;
    tick(f);
    reveal_barriers(f);
}

} // namespace simt
