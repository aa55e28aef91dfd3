/* barrier.cpp — __syncthreads and its reducing forms, named barriers, the cluster barrier. */
#include "core.h"

namespace simt {

static bool same_site(Site a, Site b) {
    return a.line == b.line && (a.file == b.file || (a.file && b.file && !strcmp(a.file, b.file)));
}

static void flush_logs(Block &b) {
    Worker &w = *tl_worker;
    if (!w.counting()) return;
    for (Warp &v : b.warps) flush_warp(w, v);
}

/* Everyone who is still alive has arrived at barrier 0. */
static void complete_block_barrier(Block &b) {
    NamedBarrier &n = b.barriers[0];
    flush_logs(b);
    join_block(b);
    tl_worker->counters.barriers++;
    tl_worker->counters.thread_barriers += n.arrived;
    n.result = n.accumulated;
    n.arrived = 0;
    n.kind = -1;
    for (Fiber *f : n.waiting) wake(*f);
    n.waiting.clear();
}

static int block_barrier(int kind, int predicate, Site site) {
    Fiber &f = self();
    Block &b = *f.block;
    NamedBarrier &n = b.barriers[0];
    if (n.expected)
        report(Check::BarrierMismatch, site, nullptr, "barrier 0 is in use as a named barrier of %u threads", n.expected);
    if (!n.arrived) {
        n.site = site;
        n.kind = kind;
        n.accumulated = kind == 0;
    } else if (!same_site(n.site, site) || n.kind != kind)
        report(Check::BarrierMismatch, site, nullptr,
               "this thread is at the barrier in line %d while %u others wait at the one in line %d", site.line, n.arrived,
               n.site.line);
    if (kind == 0) n.accumulated &= predicate != 0;
    if (kind == 1) n.accumulated |= predicate != 0;
    if (kind == 2) n.accumulated += predicate != 0;
    if (++n.arrived == b.live) {
        count(Instr::BlockBarrier);
        complete_block_barrier(b);
    } else {
        n.waiting.push_back(&f);
        block_until_woken("__syncthreads", site);
    }
    return n.result;
}

void sync_threads(Site site) { block_barrier(3, 0, site); }
int sync_threads_reduce(int predicate, int kind, Site site) { return block_barrier(kind, predicate, site); }

/* bar.sync (wait) and bar.arrive: `threads` of the block, counted in whole warps. */
void named_barrier(unsigned id, unsigned threads, bool wait, Site site) {
    Fiber &f = self();
    Block &b = *f.block;
    if (id >= kNamedBarriers || !threads || threads % kWarp || threads > (b.threads + kWarp - 1) / kWarp * kWarp) {
        report(Check::BadInstruction, site, nullptr, "barrier %u for %u threads in a block of %u", id, threads, b.threads);
        abandon();
    }
    NamedBarrier &n = b.barriers[id];
    if (!n.arrived) {
        n.expected = threads;
        n.site = site;
    } else if (n.expected != threads) {
        report(Check::BarrierMismatch, site, nullptr, "barrier %u expects %u threads in line %d and %u in line %d", id,
               n.expected, n.site.line, threads, site.line);
        abandon();
    }
    release_to(n.history, f);
    count(Instr::NamedBarrier);
    if (wait) n.waiting.push_back(&f);
    bool last = ++n.arrived == n.expected;
    if (last) {
        for (Fiber *g : n.waiting) {
            acquire_from(n.history, *g);
            if (g != &f) wake(*g);
        }
        n.waiting.clear();
        n.history = nullptr;
        n.arrived = n.expected = 0;
        tl_worker->progress++;
    } else if (wait)
        block_until_woken("a named barrier (bar.sync)", site);
}

/* --- cluster --- */

static void complete_cluster_phase(Cluster &c) {
    c.released = c.arriving;
    c.arriving = nullptr;
    c.arrived = 0;
    c.phase++;
    c.worker->progress++;
}

void cluster_arrive(Site site) {
    Fiber &f = self();
    Cluster &c = *f.block->cluster;
    if (f.groups[3] & 1)
        report(Check::BarrierMismatch, site, nullptr, "barrier.cluster.arrive twice without a wait between");
    f.groups[3] = (unsigned)(c.phase << 1 | 1); /* remembers the phase it must see end */
    release_to(c.arriving, f);
    count(Instr::ClusterBarrier);
    if (++c.arrived == c.live) complete_cluster_phase(c);
}

static bool phase_over(void *fiber) {
    Fiber &f = *(Fiber *)fiber;
    return (unsigned)(f.block->cluster->phase << 1 | 1) != f.groups[3];
}

void cluster_wait(Site site) {
    Fiber &f = self();
    if (!(f.groups[3] & 1)) {
        report(Check::BarrierMismatch, site, nullptr, "barrier.cluster.wait without an arrive before it");
        abandon();
    }
    block_until("barrier.cluster.wait", site, phase_over, &f);
    acquire_from(f.block->cluster->released, f);
    f.groups[3] = 0;
}

/* A thread ended: barriers that only waited for it are complete now. */
void barriers_without(Fiber &f) {
    Block &b = *f.block;
    if (b.live && b.barriers[0].arrived == b.live && !b.barriers[0].expected) complete_block_barrier(b);
    Cluster &c = *b.cluster;
    if (c.live && c.arrived == c.live) complete_cluster_phase(c);
}

} // namespace simt
