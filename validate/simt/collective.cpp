/* collective.cpp — operations of a whole warp or warpgroup: each lane publishes its arguments, the last to arrive executes
 * for all.  A gathering is known by its mask: lanes that diverged may hold several at once. */
#include "core.h"

namespace simt {

static bool same_name(const char *a, const char *b) { return a == b || !strcmp(a, b); }
static Fiber *lane(Warp &w, unsigned i) { return &w.block->fibers[w.first + i]; }

static void run_gathering(Warp &w, Gathering &g) {
    Fiber *fibers[kWarp];
    uint32_t present = g.arrived;
    for (unsigned i = 0; i < kWarp; i++) fibers[i] = present >> i & 1 ? lane(w, i) : nullptr;
    Gathering run = g; /* the slot is free again before anyone runs */
    g.open = false;
    w.open--;
    run.op(run.args, present, fibers, run.context);
    for (unsigned i = 0; i < kWarp; i++)
        if (fibers[i] && fibers[i]->state == State::Blocked) wake(*fibers[i]);
}

void warp_collective(const char *what, uint32_t mask, CollectiveOp op, void *arg, Site site, void *context) {
    Fiber &f = self();
    Warp &w = *f.warp;
    uint32_t me = 1u << f.lane;
    if (!(mask & me)) {
        report(Check::BadCollective, site, nullptr, "%s: lane %u calls with mask 0x%08x, which does not name it", what,
               f.lane, mask);
        abandon();
    }
    mask &= w.exists; /* a partial warp may say 0xffffffff */
    Gathering *g = nullptr, *empty = nullptr;
    for (Gathering &c : w.gatherings) {
        if (c.open && c.mask == mask) g = &c;
        if (!c.open && !empty) empty = &c;
    }
    if (!g) {
        if (!empty) {
            report(Check::BadCollective, site, nullptr, "%s: more than 8 collectives open in one warp", what);
            abandon();
        }
        g = empty;
        *g = Gathering();
        g->open = true;
        g->op = op;
        g->what = what;
        g->mask = mask;
        g->site = site;
        g->context = context;
        w.open++;
    } else if (g->op != op || !same_name(g->what, what)) {
        report(Check::BadCollective, site, nullptr, "lane %u is at %s while lanes 0x%08x of the same mask are at %s (line %d)",
               f.lane, what, g->arrived, g->what, g->site.line);
        abandon();
    }
    g->args[f.lane] = arg;
    g->arrived |= me;
    if ((g->arrived & w.live) == (g->mask & w.live))
        run_gathering(w, *g);
    else
        block_until_woken(what, site);
}

void warpgroup_collective(const char *what, CollectiveOp op, void *arg, Site site) {
    Fiber &f = self();
    Block &b = *f.block;
    unsigned group = f.thread / kWarpgroup;
    if ((group + 1) * kWarpgroup > b.threads) {
        report(Check::BadCollective, site, nullptr, "%s: the warpgroup has fewer than 128 threads", what);
        abandon();
    }
    WarpgroupGathering &g = b.warpgroups[group];
    if (!g.arrived) {
        g.op = op;
        g.what = what;
        g.site = site;
    } else if (g.op != op || !same_name(g.what, what)) {
        report(Check::BadCollective, site, nullptr, "this thread is at %s while %u of its warpgroup are at %s (line %d)", what,
               g.arrived, g.what, g.site.line);
        abandon();
    }
    unsigned i = f.thread % kWarpgroup;
    g.args[i] = arg;
    g.fibers[i] = &f;
    if (++g.arrived < kWarpgroup) return block_until_woken(what, site);
    g.arrived = 0;
    op(g.args, ~0u, g.fibers, nullptr);
    for (Fiber *o : g.fibers)
        if (o->state == State::Blocked) wake(*o);
}

void barriers_without(Fiber &); /* barrier.cpp */

/* CUDA excuses lanes that have ended: what waited only for this one may run. */
void finish_exited_lane(Fiber &f) {
    Warp &w = *f.warp;
    for (Gathering &g : w.gatherings)
        if (g.open && (g.mask >> f.lane & 1) && g.arrived && (g.arrived & w.live) == (g.mask & w.live)) run_gathering(w, g);
    barriers_without(f);
}

/* Lanes that wait in a collective for lanes that are elsewhere: the deadlock's cause, named as such. */
void describe_stuck_collectives(Block &b) {
    for (Warp &w : b.warps)
        for (Gathering &g : w.gatherings) {
            if (!g.open) continue;
            unsigned first = (unsigned)__builtin_ctz(g.arrived);
            uint32_t missing = g.mask & w.live & ~g.arrived;
            if (!missing) continue;
            Fiber *m = lane(w, (unsigned)__builtin_ctz(missing));
            report_for(lane(w, first), Check::BadCollective, g.site, nullptr,
                       "%s with mask 0x%08x: lanes 0x%08x never came; thread %u is at %s (line %d)", g.what, g.mask, missing,
                       m->thread, m->waiting_for ? m->waiting_for : "a loop", m->waiting_at.line);
        }
    for (WarpgroupGathering &g : b.warpgroups)
        if (g.arrived) {
            Fiber *first = nullptr;
            for (Fiber &f : b.fibers)
                if (f.state == State::Blocked && f.waiting_for == g.what && !first) first = &f;
            report_for(first, Check::BadCollective, g.site, nullptr, "%s: only %u of 128 threads of the warpgroup came", g.what,
                       g.arrived);
        }
}

/* --- __syncwarp, the only collective that orders memory --- */

void sync_warp(unsigned mask, Site site) {
    warp_collective("__syncwarp", mask, [](void **, uint32_t present, Fiber *const *fibers, void *) {
        count(Instr::SyncWarp);
        join_warp(fibers, present);
    }, nullptr, site);
}

/* --- shuffles --- */

struct ShuffleArg {
    uint64_t value, result;
    int arg, width;
    Shfl kind;
    Site site;
};

static int source_lane(const ShuffleArg &a, int lane) {
    int segment = lane & ~(a.width - 1), inside = lane & (a.width - 1), from = inside;
    switch (a.kind) {
    case Shfl::Idx: from = a.arg & (a.width - 1); break;
    case Shfl::Up: from = inside - a.arg; break;
    case Shfl::Down: from = inside + a.arg; break;
    case Shfl::Xor: from = inside ^ a.arg; break;
    }
    return from < 0 || from >= a.width ? lane : segment + from;
}

static void run_shuffle(void **args, uint32_t present, Fiber *const *fibers, void *) {
    count(Instr::Shuffle);
    for (int i = 0; i < (int)kWarp; i++) {
        if (!(present >> i & 1)) continue;
        ShuffleArg &a = *(ShuffleArg *)args[i];
        int from = source_lane(a, i);
        if (present >> from & 1)
            a.result = ((ShuffleArg *)args[from])->value;
        else {
            report_for(fibers[i], Check::BadCollective, a.site, nullptr, "shuffle: lane %d reads lane %d, which does not take part",
                       i, from);
            a.result = 0xdeaddeaddeaddeadull;
        }
    }
}

uint64_t shuffle(unsigned mask, uint64_t value, int arg, int width, Shfl kind, unsigned, Site site) {
    static const char *const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
    if (width < 1 || width > 32 || (width & (width - 1))) {
        report(Check::BadInstruction, site, nullptr, "shuffle width %d is no power of two up to 32", width);
        abandon();
    }
    ShuffleArg a{value, 0, arg, width, kind, site};
    warp_collective(names[(int)kind], mask, run_shuffle, &a, site);
    return a.result;
}

/* --- votes --- */

struct VoteArg {
    uint64_t value;
    unsigned result;
    Vote kind;
};

static void run_vote(void **args, uint32_t present, Fiber *const *, void *) {
    count(Instr::Vote);
    uint32_t ballot = 0;
    for (unsigned i = 0; i < kWarp; i++)
        if ((present >> i & 1) && ((VoteArg *)args[i])->value) ballot |= 1u << i;
    for (unsigned i = 0; i < kWarp; i++) {
        if (!(present >> i & 1)) continue;
        VoteArg &a = *(VoteArg *)args[i];
        switch (a.kind) {
        case Vote::All: a.result = ballot == present; break;
        case Vote::Any: a.result = ballot != 0; break;
        case Vote::Uni: a.result = ballot == present || !ballot; break;
        case Vote::Ballot: a.result = ballot; break;
        case Vote::Active: a.result = present; break;
        case Vote::MatchAny:
            a.result = 0;
            for (unsigned j = 0; j < kWarp; j++)
                if ((present >> j & 1) && ((VoteArg *)args[j])->value == a.value) a.result |= 1u << j;
        }
    }
}

unsigned vote(unsigned mask, uint64_t value, Vote kind, Site site) {
    static const char *const names[] = {"__all_sync", "__any_sync", "__ballot_sync", "__uni_sync", "__match_any_sync",
                                        "__activemask"};
    VoteArg a{value, 0, kind};
    warp_collective(names[(int)kind], mask, run_vote, &a, site);
    return a.result;
}

/* --- __reduce_*_sync --- */

struct ReduceArg {
    unsigned value, result;
    bool is_signed;
    Red kind;
};

static unsigned combine(const ReduceArg &a, unsigned x, unsigned y) {
    bool less = a.is_signed ? (int)x < (int)y : x < y;
    switch (a.kind) {
    case Red::Add: return x + y;
    case Red::Min: return less ? x : y;
    case Red::Max: return less ? y : x;
    case Red::And: return x & y;
    case Red::Or: return x | y;
    case Red::Xor: return x ^ y;
    }
    return 0;
}

static void run_reduce(void **args, uint32_t present, Fiber *const *, void *) {
    count(Instr::Reduce);
    bool first = true;
    unsigned all = 0;
    for (unsigned i = 0; i < kWarp; i++) {
        if (!(present >> i & 1)) continue;
        const ReduceArg &a = *(ReduceArg *)args[i];
        all = first ? a.value : combine(a, all, a.value);
        first = false;
    }
    for (unsigned i = 0; i < kWarp; i++)
        if (present >> i & 1) ((ReduceArg *)args[i])->result = all;
}

unsigned reduce(unsigned mask, unsigned value, bool is_signed, Red kind, Site site) {
    static const char *const names[] = {"__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync",
                                        "__reduce_and_sync", "__reduce_or_sync",  "__reduce_xor_sync"};
    ReduceArg a{value, 0, is_signed, kind};
    warp_collective(names[(int)kind], mask, run_reduce, &a, site);
    return a.result;
}

} // namespace simt
