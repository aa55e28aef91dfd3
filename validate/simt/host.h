/* host.h — the executor as a host program sees it: buffers, options, what the last launch reported.
 *
 * Reading order of this folder: types.h, half.h, intrinsics.h, simt.h (what kernels include), host.h (what tests and the
 * backend include), core.h (the executor's own state), then one .cpp per part.
 */
#ifndef SIMT_HOST_H
#define SIMT_HOST_H

#include "types.h"
#include <string>
#include <vector>

namespace simt {

/* What a check can find.  Each has at least one planted-bug test in test_simt_checks.cpp or test_simt_async.cpp. */
enum class Check : uint8_t {
    SharedRace,        /* two threads, one byte of shared memory, at least one write, no barrier between */
    GlobalRace,        /* the same in global memory, between threads of a block or between blocks of one launch */
    OutOfBounds,       /* outside every registered buffer, or outside the block's shared memory */
    Misaligned,        /* a 2/4/8/16-byte access on an address that is no multiple of it */
    Uninitialised,     /* a read of bytes nobody wrote */
    ReadOnlyWrite,     /* a write to a buffer the kernel received as const, or that was registered read-only */
    BarrierMismatch,   /* threads of a block meet at different barriers */
    Deadlock,          /* nobody can run */
    BadCollective,     /* lanes missing, or mask wrong, or lanes in different operations */
    AsyncHazard,       /* a read or write that touches a copy in flight, or operands of a wgmma not waited for */
    UnwaitedCopy,      /* a thread or block ends with asynchronous work nobody waited for */
    BarrierPhase,      /* an mbarrier used wrongly: phase that never completes, uninitialised, overrun */
    MissingFence,      /* wgmma or a bulk copy without the fence it needs */
    BadInstruction,    /* operands an instruction does not accept: descriptor, shape, alignment, register count */
    Crash,             /* the kernel took a fatal signal or executed __trap() */
    Hang,              /* the launch ran past its time limit */
    BadLaunch,         /* a configuration no GPU accepts */
    Count
};
const char *name(Check);

/* Instruction kinds that are counted, once per warp instruction (warpgroup instruction for Wgmma). */
enum class Instr : uint8_t {
    Mma, Ldmatrix, Stmatrix, CpAsync, CpAsyncBulk, CpAsyncBulkTensor, Wgmma, Mbarrier, Fence,
    Shuffle, Vote, Reduce, Atomic, SyncWarp, BlockBarrier, NamedBarrier, ClusterBarrier, Count
};
const char *name(Instr);

struct Diagnostic {
    Check check;
    std::string kernel;     /* as written at the launch */
    dim3 block{0, 0, 0}, thread{0, 0, 0};
    std::string where;      /* file:line, with the lines it was inlined into */
    std::string buffer;     /* buffer's name and offset, or "shared memory +offset" */
    const void *address = nullptr;
    std::string detail;
    uint64_t repeats = 1;   /* times the same check failed at the same instruction */
    std::string text() const; /* everything above in one line */
};

struct BufferTraffic {
    std::string name;
    uint64_t bytes_read = 0, bytes_written = 0;     /* as the lanes asked */
    uint64_t sectors_read = 0, sectors_written = 0; /* 32-byte sectors, merged over a warp's lanes */
};

struct Counters {
    uint64_t instr[(size_t)Instr::Count] = {};
    uint64_t global_loads[5] = {}, global_stores[5] = {}; /* lane accesses of 1, 2, 4, 8, 16 bytes */
    uint64_t shared_loads[5] = {}, shared_stores[5] = {};
    uint64_t global_requests = 0, global_sectors = 0, global_sectors_ideal = 0;
    uint64_t shared_requests = 0, shared_wavefronts = 0, shared_wavefronts_ideal = 0;
    uint64_t barriers = 0;        /* block-wide barriers completed */
    uint64_t thread_barriers = 0; /* arrivals at them */
    uint64_t switches = 0;        /* fiber switches: the executor's own cost */
    std::vector<BufferTraffic> buffers;
    uint64_t bank_conflicts() const { return shared_wavefronts - shared_wavefronts_ideal; }
    uint64_t count(Instr i) const { return instr[(size_t)i]; }
    const BufferTraffic *buffer(const char *name) const; /* nullptr when the kernel did not touch it */
};

struct Report {
    std::string kernel;
    std::vector<Diagnostic> errors;
    Counters counters;
    double seconds = 0;
    bool ok() const { return errors.empty(); }
    uint64_t count(Check) const;
    std::string text() const;
};

enum class Order : uint8_t { Seeded, Forward, Reverse, RoundRobin };
enum class Accumulate : uint8_t { ExactOrder, Hopper }; /* how tensor cores add up */

/* Read at every launch.  Defaults come from the environment: SIMT_SEED, SIMT_ORDER (seeded|forward|reverse|roundrobin),
 * SIMT_CHECKS=0, SIMT_COUNTERS=0, SIMT_JOBS, SIMT_TIMEOUT (seconds), SIMT_ACCUMULATE=hopper. */
struct Options {
    uint64_t seed = 1;
    Order order = Order::Seeded;
    bool checks = true;
    bool counters = true;
    unsigned jobs = 0;           /* OS threads; 0: one per core */
    double timeout_s = 30;       /* per launch */
    bool quiet = false;          /* true: no diagnostics on stderr */
    unsigned max_errors = 16;    /* distinct ones kept per launch */
    Accumulate accumulate = Accumulate::ExactOrder;
};
Options &options();

/* Of this host thread's last launch. */
const Report &last_report();
/* Called with each launch's report, on its host thread: for operations of several launches. Set it before the first. */
extern void (*after_launch)(const Report &);

/* Device memory: exact bounds, uninitialised until written, guarded by unmapped pages when large. */
void *alloc(size_t bytes, const char *name);
void free(void *);
void copy_in(void *device, const void *host, size_t bytes); /* marks the bytes as written */
void copy_out(void *host, const void *device, size_t bytes);
void fill(void *device, int byte, size_t bytes);

/* Host memory that a kernel may touch directly, for callers that own their buffers.  Counts as initialised. */
enum : unsigned { kReadOnly = 1, kUninitialised = 2 };
void adopt(void *, size_t bytes, const char *name, unsigned flags = 0);
void forget(void *);
bool known(const void *); /* inside a registered buffer */

} // namespace simt
#endif
