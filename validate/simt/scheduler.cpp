/* scheduler.cpp — runs one cluster's threads until all are done, and says why when they cannot be. */
#include "fiber.h"
#include <algorithm>
#include <sys/mman.h>

namespace simt {

__thread Worker *tl_worker;

static std::vector<IdleHook> &idle_hooks() {
    static std::vector<IdleHook> v;
    return v;
}
static std::vector<ExitHook> &exit_hooks() {
    static std::vector<ExitHook> v;
    return v;
}
void add_idle_hook(IdleHook h) { idle_hooks().push_back(h); }
void add_exit_hook(ExitHook h) { exit_hooks().push_back(h); }

/* --- what a running fiber may ask for --- */

void yield() {
    self().state = State::Ready;
    tl_worker->progress++;
    switch_back(*tl_worker);
}

void spin_pause() {
    if (!in_kernel()) return;
    self().state = State::Spinning;
    switch_back(*tl_worker);
    self().state = State::Ready;
}

static void wait_as(const char *what, Site site, Check stuck_as) {
    Fiber &f = self();
    f.waiting_for = what;
    f.waiting_at = site;
    f.stuck_as = stuck_as;
    f.state = State::Blocked;
    switch_back(*tl_worker);
    f.waiting_for = nullptr;
}

void block_until(const char *what, Site site, bool (*ready)(void *), void *context, Check stuck_as) {
    if (ready(context)) return;
    self().ready = ready;
    self().ready_context = context;
    wait_as(what, site, stuck_as);
    self().ready = nullptr;
}

void block_until_woken(const char *what, Site site) { wait_as(what, site, Check::Deadlock); }

void wake(Fiber &f) {
    f.state = State::Ready;
    tl_worker->progress++;
    tl_worker->ready.push_back(&f);
}

void abandon() {
    Worker &w = *tl_worker;
    w.launch->stop = true;
    w.current->fatal = true;
    for (;;) switch_back(w); /* the scheduler does not come back to a launch that stopped */
}

/* --- life of a fiber --- */

static void fiber_entry() {
    Worker &w = *tl_worker;
    w.launch->what.entry(w.launch->what.args);
    Fiber &f = self();
    for (ExitHook h : exit_hooks()) h(f);
    if (!f.pending.empty())
        report(Check::UnwaitedCopy, f.pending.front()->site, nullptr, "thread ends and nobody waited for its %s",
               f.pending.front()->describe().c_str());
    f.state = State::Done;
    f.warp->live &= ~(1u << f.lane);
    f.block->live--;
    w.cluster.live--;
    w.progress++;
    finish_exited_lane(f);
    switch_back(w);
    __builtin_trap();
}

static uint3 unflatten(uint64_t i, dim3 d) {
    return uint3{(unsigned)(i % d.x), (unsigned)(i / d.x % d.y), (unsigned)(i / ((uint64_t)d.x * d.y))};
}

/* Clusters tile the grid; blocks of one are neighbours in x, then y, then z. */
static uint3 block_position(const Config &c, uint64_t cluster, unsigned rank) {
    dim3 grid_of_clusters(c.grid.x / c.cluster.x, c.grid.y / c.cluster.y, c.grid.z / c.cluster.z);
    uint3 k = unflatten(cluster, grid_of_clusters), r = unflatten(rank, c.cluster);
    return uint3{k.x * c.cluster.x + r.x, k.y * c.cluster.y + r.y, k.z * c.cluster.z + r.z};
}

static void set_up_block(Worker &w, Block &b, unsigned rank, uint64_t cluster) {
    Launch &l = *w.launch;
    const Config &c = l.what.config;
    b.cluster = &w.cluster;
    b.rank = rank;
    b.index = block_position(c, cluster, rank);
    b.number = b.index.x + (uint64_t)c.grid.x * (b.index.y + (uint64_t)c.grid.y * b.index.z);
    b.threads = b.live = l.threads;
    b.top = b.base = 1;
    b.era = 0;
    b.fine_order = false;
    b.base_heard = nullptr;
    b.foreign.clear();
    b.statics.clear();
    b.objects.clear();
    for (NamedBarrier &n : b.barriers) {
        n.expected = n.arrived = 0;
        n.waiting.clear();
        n.history = nullptr;
        n.kind = -1;
    }
    b.shared = w.shared_arena + rank * kSharedSlot;
    reset_shared(b, c.shared_bytes);
    if (b.fibers.size() != b.threads) b.fibers = std::vector<Fiber>(b.threads);
    b.warps.resize((b.threads + kWarp - 1) / kWarp);
    b.warpgroups.assign((b.threads + kWarpgroup - 1) / kWarpgroup, WarpgroupGathering());
    for (unsigned i = 0; i < b.warps.size(); i++) {
        Warp &v = b.warps[i];
        v.block = &b;
        v.first = i * kWarp;
        unsigned n = std::min(kWarp, b.threads - v.first);
        v.exists = v.live = n == kWarp ? ~0u : (1u << n) - 1;
        v.open = 0;
        for (Gathering &g : v.gatherings) g.open = false;
    }
    for (unsigned i = 0; i < b.threads; i++) {
        Fiber &f = b.fibers[i];
        f.state = State::Ready;
        f.fatal = false;
        f.thread = (uint16_t)i;
        f.global = (uint16_t)(rank * b.threads + i);
        f.lane = (uint8_t)(i % kWarp);
        f.index = unflatten(i, c.block);
        f.block = &b;
        f.warp = &b.warps[i / kWarp];
        f.ready = nullptr;
        f.waiting_for = nullptr;
        f.clock = 1;
        memset(f.lanes, 0, sizeof f.lanes);
        f.heard = nullptr;
        f.proxy_clock = 0;
        f.fenced = false;
        f.registers_in_flight = false;
        f.pending.clear();
        memset(f.groups, 0, sizeof f.groups);
        f.log.clear();
        f.stack = fiber_stack(w, f.global);
        prepare_fiber(f, fiber_entry);
        w.ready.push_back(&f);
    }
}

/* --- order --- */

static uint64_t next_random(uint64_t &s) { /* xorshift64* */
    s ^= s >> 12;
    s ^= s << 25;
    s ^= s >> 27;
    return s * 0x2545f4914f6cdd1dull;
}

static void shuffle(Worker &w, Fiber **v, size_t n) {
    for (size_t i = n; i > 1; i--) std::swap(v[i - 1], v[(next_random(w.random) >> 32) * i >> 32]);
}

static void run_fibers(Worker &w, Fiber *const *v, size_t n) {
    for (size_t i = 0; i < n && !w.launch->stop.load(std::memory_order_relaxed); i++) {
        Fiber *f = v[i];
        w.current = f;
        switch_to(w, *f);
        w.current = nullptr;
        w.counters.switches++;
        if (f->state == State::Ready || f->state == State::Spinning)
            w.ready.push_back(f);
        else if (f->state == State::Blocked && f->ready)
            w.polled.push_back(f);
    }
}

/* Warps in random order, a warp's lanes in random order; and a warp whose lanes woke each other goes on for a random while
 * before the next has its turn.  That lets warps drift apart as they do on a GPU, and keeps 32 stacks in the first-level
 * cache: a lane's __syncwarp takes 71 ns in place of 110 with all threads shuffled at every step. */
static void run_by_warp(Worker &w) {
    Launch &l = *w.launch;
    unsigned per_block = (l.threads + kWarp - 1) / kWarp;
    if (w.by_warp.size() < per_block * l.blocks_per_cluster) w.by_warp.resize(per_block * l.blocks_per_cluster);
    w.warps_present.clear();
    for (Fiber *f : w.running) {
        unsigned id = f->block->rank * per_block + f->thread / kWarp;
        if (w.by_warp[id].empty()) w.warps_present.push_back(id);
        w.by_warp[id].push_back(f);
    }
    for (size_t i = w.warps_present.size(); i; i--) {
        std::swap(w.warps_present[i - 1], w.warps_present[(next_random(w.random) >> 32) * i >> 32]);
        std::vector<Fiber *> &turn = w.by_warp[w.warps_present[i - 1]];
        const Warp *warp = turn[0]->warp;
        for (unsigned left = (unsigned)(next_random(w.random) >> 59);; left--) {
            size_t others = w.ready.size();
            uint64_t before = w.progress;
            shuffle(w, turn.data(), turn.size());
            run_fibers(w, turn.data(), turn.size());
            turn.clear();
            if (!left || w.progress == before) break;
            if (!std::all_of(w.ready.begin() + (long)others, w.ready.end(), [&](Fiber *f) { return f->warp == warp; })) break;
            turn.assign(w.ready.begin() + (long)others, w.ready.end());
            w.ready.resize(others);
            if (turn.empty()) break;
        }
    }
}

/* Every fourth seed shuffles all threads of the cluster at every step instead: the finest interleaving there is. */
static void run_round(Worker &w, uint64_t round) {
    std::vector<Fiber *> &v = w.running;
    auto by_number = [](const Fiber *a, const Fiber *b) { return a->global < b->global; };
    switch (w.launch->options.order) {
    case Order::Seeded:
        if (w.launch->options.seed % 4) return run_by_warp(w);
        shuffle(w, v.data(), v.size());
        break;
    case Order::Reverse:
        std::sort(v.begin(), v.end(), [&](const Fiber *a, const Fiber *b) { return by_number(b, a); });
        break;
    case Order::Forward:
    case Order::RoundRobin:
        if (!std::is_sorted(v.begin(), v.end(), by_number)) std::sort(v.begin(), v.end(), by_number);
        if (w.launch->options.order == Order::RoundRobin && !v.empty())
            std::rotate(v.begin(), v.begin() + (long)(round % v.size()), v.end());
        break;
    }
    run_fibers(w, v.data(), v.size());
}

/* --- nobody can run --- */

static bool poll(Worker &w) {
    size_t kept = 0;
    for (Fiber *f : w.polled) {
        if (f->ready(f->ready_context)) {
            f->state = State::Ready;
            w.progress++;
            w.ready.push_back(f);
        } else
            w.polled[kept++] = f;
    }
    bool any = kept != w.polled.size();
    w.polled.resize(kept);
    return any;
}

static bool land_one(Cluster &c) {
    if (c.in_flight.empty()) return false;
    size_t i = 0;
    if (c.launch->options.order == Order::Seeded) i = next_random(c.worker->random) % c.in_flight.size();
    std::unique_ptr<Deferred> d = std::move(c.in_flight[i]);
    c.in_flight.erase(c.in_flight.begin() + (long)i);
    d->land();
    return true;
}

static bool idle_work(Cluster &c) {
    if (land_one(c)) return true;
    for (IdleHook h : idle_hooks())
        if (h(c)) return true;
    return false;
}

/* "threads 0-31,64 wait at __syncthreads (k.cu:12); ..." for one block, and the first of the stuck. */
static std::string describe_stuck(Block &b, Fiber **first) {
    std::string out;
    std::vector<bool> told(b.threads, false);
    for (unsigned i = 0; i < b.threads; i++) {
        Fiber &f = b.fibers[i];
        if (told[i] || f.state == State::Done) continue;
        if (!*first || ((*first)->stuck_as == Check::Deadlock && f.stuck_as != Check::Deadlock)) *first = &f;
        const char *what = f.state == State::Blocked ? f.waiting_for : "a loop that only polls";
        auto same = [&](const Fiber &g) {
            return g.state == f.state &&
                   (f.state != State::Blocked || (g.waiting_for == f.waiting_for && g.waiting_at.line == f.waiting_at.line));
        };
        std::string who;
        for (unsigned j = i; j < b.threads; j++) {
            if (told[j] || !same(b.fibers[j])) continue;
            unsigned end = j;
            while (end + 1 < b.threads && !told[end + 1] && same(b.fibers[end + 1])) end++;
            for (unsigned k = j; k <= end; k++) told[k] = true;
            who += (who.empty() ? "" : ",") + std::to_string(j) + (end > j ? "-" + std::to_string(end) : "");
            j = end;
        }
        out += (out.empty() ? "" : "; ") + std::string("threads ") + who + " wait at " + what;
        if (f.waiting_at.file) out += std::string(" (") + f.waiting_at.file + ":" + std::to_string(f.waiting_at.line) + ")";
    }
    return out;
}

static void declare_stuck(Worker &w) {
    for (Block *b : w.cluster.blocks) {
        if (!b->live) continue;
        describe_stuck_collectives(*b);
        Fiber *first = nullptr;
        std::string all = describe_stuck(*b, &first);
        report_for(first, first->stuck_as, first->waiting_at, nullptr, "nothing can run: %s%s", all.c_str(),
                   b->live < b->threads ? "; the other threads have ended" : "");
    }
    w.launch->stop = true;
}

/* --- one cluster from first to last instruction --- */

static void set_up_cluster(Worker &w, uint64_t number) {
    Launch &l = *w.launch;
    if (!w.shared_arena)
        w.shared_arena = (char *)mmap(nullptr, kSharedSlot * kMaxCluster, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    w.ready.clear();
    w.polled.clear();
    for (auto &v : w.by_warp) v.clear(); /* a stopped launch leaves some behind */
    w.random = (l.options.seed * 0x9e3779b97f4a7c15ull) ^ ((number + 1) * 0xd1b54a32d192ed03ull);
    if (!w.random) w.random = 1;
    Cluster &c = w.cluster;
    c.launch = &l;
    c.worker = &w;
    c.in_flight.clear();
    c.arrived = 0;
    c.phase = 0;
    c.arriving = c.released = nullptr;
    c.live = l.threads * l.blocks_per_cluster;
    c.blocks.clear();
    while (w.blocks.size() < l.blocks_per_cluster) w.blocks.emplace_back();
    w.shared_extent = kSharedSlot * l.blocks_per_cluster;
    w.memo_a = w.memo_b = w.memo_union = nullptr;
    for (unsigned r = 0; r < l.blocks_per_cluster; r++) c.blocks.push_back(&w.blocks[r]);
    for (unsigned r = 0; r < l.blocks_per_cluster; r++) set_up_block(w, *c.blocks[r], r, number);
}

void run_cluster(Worker &w, uint64_t number) {
    set_up_cluster(w, number);
    Launch &l = *w.launch;
    Cluster &c = w.cluster;
    uint64_t quiet_rounds = 0;
    for (uint64_t round = 0; c.live && !l.stop.load(std::memory_order_relaxed); round++) {
        std::swap(w.ready, w.running);
        w.ready.clear();
        uint64_t before = w.progress;
        run_round(w, round);
        if (!w.polled.empty()) poll(w);
        if (!c.live || l.stop) break;
        if (w.ready.empty() || w.progress == before) {
            if (idle_work(c)) {
                poll(w);
                quiet_rounds = 0;
                if (w.ready.empty()) continue;
            } else if (w.ready.empty())
                declare_stuck(w);
            else if (l.active.load() == 1 && ++quiet_rounds > 2000) /* polling threads, and no other block to wait for */
                declare_stuck(w);
        } else
            quiet_rounds = 0;
    }
    if (!l.stop) {
        for (auto &d : c.in_flight)
            report_for(d->owner, Check::UnwaitedCopy, d->site, nullptr, "the block ends and nobody waited for its %s",
                       d->describe().c_str());
        if (w.counting())
            for (Block *b : c.blocks)
                for (Warp &v : b->warps) flush_warp(w, v);
    }
    c.in_flight.clear();
    for (Block *b : c.blocks) b->objects.clear();
}

/* --- built-in variables --- */

extern "C" {
uint3 simt_thread_idx(void) { return self().index; }
uint3 simt_block_idx(void) { return self().block->index; }
static uint3 plain(dim3 d) { return uint3{d.x, d.y, d.z}; }
uint3 simt_block_dim(void) { return plain(tl_worker->launch->what.config.block); }
uint3 simt_grid_dim(void) { return plain(tl_worker->launch->what.config.grid); }
uint3 simt_cluster_dim(void) { return plain(tl_worker->launch->what.config.cluster); }
uint3 simt_cluster_rank(void) { return unflatten(self().block->rank, tl_worker->launch->what.config.cluster); }
}

} // namespace simt
