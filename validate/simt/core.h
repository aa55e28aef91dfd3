/* core.h — the executor's own state.  Kernels never see this; ptx_*.cpp and the executor's parts do.
 *
 *   Launch   one kernel launch: configuration, buffer table, diagnostics, totals          launch.cpp
 *   Worker   one OS thread: runs one cluster after another, owns stacks and shared memory  scheduler.cpp
 *   Cluster  the blocks that are resident together (one, without clusters)                 scheduler.cpp
 *   Block    threads, barriers, shared window                                              scheduler.cpp
 *   Warp     pending collectives, access logs for the counters                             collective.cpp, counters.cpp
 *   Fiber    one CUDA thread                                                               fiber.cpp
 *
 * A cluster and everything in it belongs to exactly one OS thread, so nothing here is locked except the Launch.
 *
 * Order (clock.cpp).  Every fiber has a clock that moves on when it synchronises.  A shadow cell remembers who touched a
 * byte last and at which clock; two touches are ordered when the later fiber has *heard of* the earlier clock: through a
 * block barrier (Block::base), its own warp (Fiber::lanes) or a History handed over by a named barrier, a cluster barrier or an
 * mbarrier; blocks hear of other blocks through atomics (Block::foreign).  A shuffle is no barrier and must not move any of these.
 */
#ifndef SIMT_CORE_H
#define SIMT_CORE_H

#include "simt.h"
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace simt {

constexpr unsigned kWarp = 32, kWarpgroup = 128, kMaxThreads = 1024, kMaxCluster = 16, kNamedBarriers = 16;
constexpr size_t kSharedSlot = 256 * 1024; /* address space of one block; descriptors reach 18 bits */
constexpr size_t kSharedStart = 1024;      /* first usable byte: address 0 stays invalid, as on sm_90 */
constexpr size_t kSharedLimit = 227 * 1024; /* what one block may ask for */
constexpr size_t kStackBytes = 64 * 1024;
constexpr uint64_t kBlockField = (1u << 23) - 1; /* blocks are told apart modulo this (global.cpp) */

struct Fiber;
struct Warp;
struct Block;
struct Cluster;
struct Worker;
struct Launch;

/* --- order between threads (clock.cpp) --------------------------------------------------------------------- */

typedef uint32_t Stamp; /* 14 bits thread of the cluster, 18 bits clock; 0: nobody */
constexpr unsigned kStampThreadBits = 14;
constexpr uint32_t kClockLimit = 1u << (32 - kStampThreadBits);

/* What a fiber knows of others: heard[u] > c means everything u did up to clock c is ordered before. Shared, immutable once
 * handed out (hear() and release() copy when needed). */
typedef std::vector<uint32_t> HistoryRow;
typedef std::shared_ptr<const HistoryRow> History;

void release_to(History &object, Fiber &); /* object learns all that f did and knows; f's clock moves on */
void acquire_from(const History &object, Fiber &);
void join_warp(Fiber *const *fibers, uint32_t present); /* __syncwarp over these lanes */
void join_block(Block &);                               /* a barrier over all live threads */
bool ordered_before(Stamp earlier, const Fiber &now);
Fiber *fiber_of_stamp(Cluster &, Stamp);
void tick(Fiber &); /* f's later accesses are told apart from its earlier ones */

/* --- fibers ------------------------------------------------------------------------------------------------- */

enum class State : uint8_t { Ready, Blocked, Spinning, Done };

/* Asynchronous work that a thread or block started and somebody must wait for.  land() makes it happen: copies, lifts the
 * poison, records the accesses.  It runs as late as the rules allow. */
struct Deferred {
    virtual ~Deferred() {}
    virtual void land() = 0;
    virtual std::string describe() const = 0; /* "cp.async of 16 bytes to ..." */
    Fiber *owner = nullptr;
    Site site{nullptr, 0};
    unsigned group = 0;
};

struct LoggedAccess { /* one lane's part of a warp request; matched across lanes in counters.cpp */
    const void *pc;
    uint64_t address; /* bit 63: store, bit 62: shared */
    uint32_t bytes, buffer;
};

struct Fiber {
    void *sp = nullptr;
    char *stack = nullptr; /* lowest usable byte */
    State state = State::Done;
    bool fatal = false;
    uint16_t thread = 0; /* in its block */
    uint16_t global = 0; /* in its cluster: what a Stamp holds */
    uint8_t lane = 0;
    uint3 index{0, 0, 0};
    Block *block = nullptr;
    Warp *warp = nullptr;

    /* Blocked: until ready(context) is true, or, with ready == nullptr, until wake(). */
    const char *waiting_for = nullptr;
    Site waiting_at{nullptr, 0};
    Check stuck_as = Check::Deadlock; /* what to call it if this wait never ends */
    bool (*ready)(void *) = nullptr;
    void *ready_context = nullptr;

    uint32_t clock = 1;
    uint32_t lanes[kWarp] = {}; /* heard of the own warp's lanes */
    History heard;          /* heard of the whole cluster; null: nothing beyond base and lanes */
    uint32_t proxy_clock = 0; /* clock at the last fence.proxy.async: earlier generic writes are visible to the async proxy */
    bool fenced = false;      /* a device-scope fence was executed: its atomics now publish */
    bool registers_in_flight = false; /* wgmma accumulators on its stack that nobody may touch: touch_registers() */

    std::deque<std::unique_ptr<Deferred>> pending; /* per-thread groups: cp.async, bulk stores, wgmma */
    unsigned groups[4] = {};                       /* committed groups per mechanism, for the PTX layer */
    std::vector<LoggedAccess> log;
};

/* A set of threads that execute one operation together.  Each publishes its argument; the last to arrive executes. */
typedef void (*CollectiveOp)(void **args, uint32_t present, Fiber *const *fibers, void *context);

struct Gathering {
    bool open = false;
    CollectiveOp op = nullptr;
    const char *what = nullptr;
    uint32_t mask = 0, arrived = 0;
    Site site{nullptr, 0};
    void *context = nullptr;
    void *args[kWarp];
};

struct Warp {
    Block *block = nullptr;
    unsigned first = 0;            /* thread number of lane 0 */
    uint32_t exists = 0, live = 0; /* lanes */
    uint8_t open = 0;
    Gathering gatherings[8]; /* several at once when lanes diverge */
};

struct WarpgroupGathering { /* 128 threads; the PTX layer's wgmma */
    CollectiveOp op = nullptr;
    const char *what = nullptr;
    unsigned arrived = 0;
    Site site{nullptr, 0};
    void *args[kWarpgroup];
    Fiber *fibers[kWarpgroup];
};

struct NamedBarrier {
    unsigned expected = 0, arrived = 0;
    Site site{nullptr, 0};
    std::vector<Fiber *> waiting;
    History history;                /* what the arrived have done; barrier 0 uses Block::base instead */
    int kind = -1, accumulated = 0; /* __syncthreads_and/_or/_count */
    int result = 0;
};

/* --- shadow of shared memory: one cell per byte (shadow.cpp) ------------------------------------------------- */

enum : uint16_t {
    kInit = 1,        /* written since the block began */
    kLanding = 2,     /* destination of a copy in flight: nobody may touch it */
    kOperandStep = 4, /* bits 2..12: asynchronous readers in flight: nobody may write it */
    kOperandMask = 0x1ffc,
    kAsyncWritten = 0x2000, /* the last writer was the async proxy: its own later reads need no fence */
    kAtomic = 0x4000, /* the last writer was an atomic */
    kGap = 0x8000,    /* between two arrays: out of bounds */
};
struct SharedShadow {
    std::vector<Stamp> writer, reader, reader2; /* the last reader and one concurrent with it */
    std::vector<uint16_t> flags;
};

struct Block {
    Cluster *cluster = nullptr;
    unsigned rank = 0; /* in the cluster */
    uint3 index{0, 0, 0};
    uint64_t number = 0; /* linear in the grid */
    unsigned threads = 0, live = 0;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<WarpgroupGathering> warpgroups;
    NamedBarrier barriers[kNamedBarriers];
    uint32_t top = 1;  /* the highest clock of any thread */
    bool fine_order = false; /* something finer than a block barrier ordered threads: summarised readers get the benefit */
    uint32_t era = 0;  /* added to clocks in global stamps: what clocks were set back by */
    uint32_t base = 1; /* accesses of this block's threads below this clock are ordered before everyone in it */
    History base_heard; /* what block barriers spread: threads' foreign history */
    std::map<uint64_t, uint32_t> foreign; /* other blocks whose accesses below this clock an atomic handed over */

    char *shared = nullptr; /* slot; usable from kSharedStart to shared_end */
    size_t dynamic_at = 0, dynamic_bytes = 0, shared_end = 0;
    std::map<const StaticShared *, size_t> statics;
    SharedShadow shadow;
    std::map<uint32_t, std::shared_ptr<void>> objects; /* by shared offset: the PTX layer's mbarriers */
};

struct Cluster {
    Launch *launch = nullptr;
    Worker *worker = nullptr;
    std::vector<Block *> blocks; /* by rank */
    unsigned live = 0;
    unsigned arrived = 0; /* at the cluster barrier */
    uint64_t phase = 0;
    History arriving, released; /* of this phase, of the last */
    std::deque<std::unique_ptr<Deferred>> in_flight; /* bulk copies; landed when nobody can run, or when due */
    Block *block_of(const void *shared_address) const;
};

/* --- buffers (buffers.cpp) ------------------------------------------------------------------------------------ */

struct Buffer {
    char *begin = nullptr, *end = nullptr;
    std::string name;
    unsigned flags = 0;
    unsigned id = 0;                  /* index in the launch's table */
    std::atomic<bool> complete{false}; /* every byte initialised */
    bool owned = false, const_arg = false, written_arg = false;
    void *mapping = nullptr;
    size_t mapping_bytes = 0;
    uint8_t *initialised = nullptr;    /* per byte, lazily mapped */
    std::atomic<uint64_t> *writer = nullptr, *reader = nullptr; /* GlobalStamp per byte, lazily mapped */
    bool read_only() const { return (flags & kReadOnly) || (const_arg && !written_arg); }
};

struct RawDiagnostic { /* names are resolved after the launch, outside of any fiber */
    Check check;
    uint3 block{0, 0, 0}, thread{0, 0, 0};
    const void *pc = nullptr;
    Site site{nullptr, 0};
    const void *address = nullptr;
    std::string detail, buffer;
    uint64_t repeats = 1, order = 0;
};

struct Launch {
    Invocation what;
    uint64_t id = 0;
    Options options;
    std::vector<Buffer *> buffers; /* sorted by address */
    std::vector<Buffer *> own_buffers; /* of this launch only */
    bool buffers_in_image = false;     /* a static array of the program is registered */
    uint64_t blocks_total = 0, clusters_total = 0;
    unsigned blocks_per_cluster = 1, threads = 0;
    std::atomic<uint64_t> next_cluster{0}, done_clusters{0};
    std::atomic<bool> stop{false}; /* a fatal error: workers leave at the next switch */
    std::mutex lock;               /* diagnostics, totals, cross-block history */
    std::vector<RawDiagnostic> found;
    std::unordered_map<const void *, std::map<uint64_t, uint32_t>> published; /* atomic location -> block -> clock */
    std::atomic<unsigned> active{0}; /* workers inside a cluster */
    Counters totals;
    explicit Launch(const Invocation &i) : what(i) {}
};

/* --- one OS thread ------------------------------------------------------------------------------------------- */

struct BufferCache {
    const void *pc;
    Buffer *buffer;
};

enum : uint8_t { kModeChecks = 1, kModeCount = 2, kModeStop = 4 };

struct Worker {
    Launch *launch = nullptr;
    Cluster cluster;
    Fiber *current = nullptr; /* null: the scheduler itself runs */
    std::atomic<uint8_t> mode{0}; /* what the hooks have to do; 0: return at once */
    void *scheduler_sp = nullptr;
    char *shared_arena = nullptr;
    size_t shared_extent = 0; /* kSharedSlot * blocks of the cluster */
    std::deque<Block> blocks; /* reused from cluster to cluster */
    std::vector<char *> stacks;
    std::vector<Fiber *> ready, running, polled;
    std::vector<std::vector<Fiber *>> by_warp; /* a round's fibers, for seeded orders */
    std::vector<unsigned> warps_present;
    uint64_t random = 1;
    uint64_t progress = 0; /* events other than spinning; the livelock detector looks at it */
    Counters counters;
    std::vector<BufferTraffic> traffic; /* by buffer id */
    BufferCache cache[64] = {};
    History memo_a, memo_b, memo_union; /* 128 threads that wait for one mbarrier all ask for the same union */
    std::atomic<int> interrupts{0};
    bool busy = false;
    bool checking() const { return mode.load(std::memory_order_relaxed) & kModeChecks; }
    bool counting() const { return mode.load(std::memory_order_relaxed) & kModeCount; }
};
extern __thread Worker *tl_worker;

inline Fiber &self() { return *tl_worker->current; }
inline bool in_kernel() { return tl_worker && tl_worker->current; }

/* --- blocking and scheduling (scheduler.cpp) ------------------------------------------------------------------ */

void yield();                                                     /* stay ready, let others run */
/* Polled by the scheduler. stuck_as: what to report if nothing in the cluster can run any more. */
void block_until(const char *what, Site, bool (*ready)(void *), void *context, Check stuck_as = Check::Deadlock);
void block_until_woken(const char *what, Site);
void wake(Fiber &);
[[noreturn]] void abandon(); /* ends the launch after a fatal diagnostic */

/* The calling lane takes part in `op` with `mask`; args[i] is lane i's argument.  32 lanes, or 128 threads of the warpgroup
 * (which must all be live and execute the same op).  Returns after op has run.  op runs once, on the last lane's stack. */
void warp_collective(const char *what, uint32_t mask, CollectiveOp op, void *arg, Site, void *context = nullptr);
void warpgroup_collective(const char *what, CollectiveOp op, void *arg, Site);

/* Called when no fiber of the cluster can run, in this order, until one returns true ("something changed"); then deadlock is
 * declared.  The core lands Cluster::in_flight, oldest or a seeded choice first; the PTX layer may add its own. */
typedef bool (*IdleHook)(Cluster &);
void add_idle_hook(IdleHook);
/* At a fiber's end and at a block's end: report what nobody waited for.  The core reports Fiber::pending itself. */
typedef void (*ExitHook)(Fiber &);
void add_exit_hook(ExitHook);

/* --- memory checks (shadow.cpp, buffers.cpp) ------------------------------------------------------------------- */

enum class Touch : uint8_t { Read, Write, Atomic };
/* The one way in for every access: bounds, alignment, initialised, race, hazard, counters.  pc or site says where. */
struct Where {
    const void *pc = nullptr;
    Site site{nullptr, 0};
    Where(const void *p) : pc(p) {}
    Where(Site s) : site(s) {}
};
void access(const void *p, size_t bytes, Touch, Where);
/* The same on behalf of the fiber `f`: an asynchronous copy landing, a collective's operand.  counted: it joins f's part of
 * a warp request (ldmatrix); otherwise the counters do not see it. */
void access_for(Fiber &f, const void *p, size_t bytes, Touch, Where, bool counted = false);

bool is_shared(const void *p); /* in the shared window of any block of this cluster */
/* Copies in flight.  begin_landing poisons the bytes (0xFF) and makes every touch an AsyncHazard until end_landing. */
void begin_landing(void *p, size_t bytes);
/* The bytes count as written: by nobody (order is then passed by a History), or by the async proxy in the name of `writer`. */
void end_landing(void *p, size_t bytes, Stamp writer = 0);
void begin_operand(const void *p, size_t bytes); /* an asynchronous reader: writes are AsyncHazards until end_operand */
void end_operand(const void *p, size_t bytes);
/* Last writer per byte of shared memory, for fence checks; 0 when none. */
Stamp last_writer(const void *p);
Stamp stamp_of(const Fiber &); /* its accesses now */
/* Generic-proxy writes to [p, p+bytes) that no fence.proxy.async of their writer followed and that f cannot see: count. */
size_t unfenced_writes(const void *p, size_t bytes, const Fiber &f);

void touch_registers(Fiber &f, const void *p, size_t bytes, Touch, Where); /* ptx_wgmma.cpp: an access to f's own stack */

Buffer *find_buffer(const void *p); /* of the running launch; null: none */

/* --- between the core's own parts ---------------------------------------------------------------------------------- */

void run_cluster(Worker &, uint64_t number);                   /* scheduler.cpp */
void finish_exited_lane(Fiber &);                              /* collective.cpp: collectives that waited for it */
void describe_stuck_collectives(Block &);                      /* collective.cpp: at a deadlock */
void reset_shared(Block &, size_t dynamic_bytes);              /* shadow.cpp */
void touch_shared(Fiber &, const void *p, size_t bytes, Touch, Where, bool counted); /* shadow.cpp */
void touch_global(Fiber &, const void *p, size_t bytes, Touch, Where, bool counted); /* global.cpp */
void log_access(Fiber &, const void *pc, uint64_t address, size_t bytes, bool store, bool shared, unsigned buffer);
void flush_warp(Worker &, Warp &);                             /* counters.cpp: match what the lanes logged */
void merge_counters(Launch &, Worker &);
Diagnostic resolve(const Launch &, const RawDiagnostic &);     /* report.cpp */
void install_signal_handlers();                                /* watchdog.cpp */
void interrupt(Worker &, unsigned long os_thread);             /* watchdog.cpp */
void take_buffers(Launch &);                                   /* buffers.cpp */
void drop_buffers(Launch &);
bool overlaps_image(const Buffer &);                           /* global.cpp */

/* --- counters and diagnostics ----------------------------------------------------------------------------------- */

void count(Instr);
void report(Check, Where, const void *address, const char *format, ...) __attribute__((format(printf, 4, 5)));
void report_for(Fiber *, Check, Where, const void *address, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
std::string describe_address(const Launch &, const Cluster *, const void *); /* "buffer w+0x10 of 4096" */

} // namespace simt
#endif
