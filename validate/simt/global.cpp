/* global.cpp — checks on global memory: bounds, alignment, initialised, read-only, races within and between blocks.
 *
 * A byte's cell holds the last writer and the last reader as 64 bits: launch (8), atomic (1), block (23), thread (10),
 * clock (22). Whether a writer was an atomic stands in the same word as who it was, so that two atomics that meet on two
 * OS threads are never taken for a plain write and an atomic.
 * Blocks run in parallel on several OS threads, so cells are relaxed atomics; two blocks that race on a byte may also race
 * on its cell, and the later one still sees the other's stamp in nearly every schedule.
 */
#include "core.h"
#include <sys/mman.h>

namespace simt {

typedef std::atomic<uint64_t> Cell;
constexpr uint64_t kManyBlocks = kBlockField, kByAtomic = (uint64_t)1 << 55;

static uint64_t global_stamp(const Fiber &f) {
    const Block &b = *f.block;
    uint64_t clock = (uint64_t)b.era + f.clock;
    if (clock >= 1u << 22) clock = (1u << 22) - 1;
    uint64_t block = b.number % kBlockField;
    return (b.cluster->launch->id & 0xff) << 56 | block << 32 | (uint64_t)f.thread << 22 | clock;
}
static uint64_t block_of(uint64_t s) { return s >> 32 & kBlockField; }
static unsigned thread_of(uint64_t s) { return s >> 22 & 1023; }
static uint32_t clock_of(uint64_t s) { return s & ((1u << 22) - 1); }
static bool of_this_launch(uint64_t s, uint64_t mine) { return s && s >> 56 == mine >> 56; }

static bool ordered(uint64_t s, const Fiber &f) {
    const Block &b = *f.block;
    uint64_t block = block_of(s);
    uint32_t clock = clock_of(s);
    if (block == kManyBlocks) return false;
    for (const Block *o : b.cluster->blocks)
        if (o->number % kBlockField == block) {
            if (clock <= o->era) return true;
            clock -= o->era;
            if (clock >= kClockLimit) return true;
            return ordered_before(clock << kStampThreadBits | (o->rank * o->threads + thread_of(s)), f);
        }
    auto heard = b.foreign.find(block);
    return heard != b.foreign.end() && clock < heard->second;
}

static Cell *map_cells(size_t n) {
    void *p = mmap(nullptr, n * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : (Cell *)p;
}

static void need_cells(Launch &l, Buffer &b) {
    std::lock_guard<std::mutex> hold(l.lock);
    size_t n = (size_t)(b.end - b.begin);
    if (!b.reader) b.reader = map_cells(n);
    if (!b.writer) __atomic_store_n(&b.writer, map_cells(n), __ATOMIC_RELEASE);
}

static void race(Fiber &f, Where where, const void *p, uint64_t other, const char *kind, const char *did) {
    const Launch &l = *f.block->cluster->launch;
    const Config &c = l.what.config;
    uint64_t block = block_of(other);
    unsigned t = thread_of(other);
    if (block == kManyBlocks)
        report_for(&f, Check::GlobalRace, where, p, "%s: several other blocks of this launch %s it", kind, did);
    else if (block == f.block->number % kBlockField)
        report_for(&f, Check::GlobalRace, where, p, "%s: no barrier since thread (%u,%u,%u) of this block %s it", kind,
                   t % c.block.x, t / c.block.x % c.block.y, t / (c.block.x * c.block.y), did);
    else
        report_for(&f, Check::GlobalRace, where, p, "%s: thread (%u,%u,%u) of block (%u,%u,%u) %s it in the same launch", kind,
                   t % c.block.x, t / c.block.x % c.block.y, t / (c.block.x * c.block.y), (unsigned)(block % c.grid.x),
                   (unsigned)(block / c.grid.x % c.grid.y), (unsigned)(block / ((uint64_t)c.grid.x * c.grid.y)), did);
}

static void check_order(Fiber &f, Buffer &b, size_t at, size_t n, const void *p, Touch touch, Where where) {
    uint64_t me = global_stamp(f) | (touch == Touch::Atomic ? kByAtomic : 0), same_writer = 0, same_reader = 0;
    bool reported = false;
    for (size_t i = at; i < at + n; i++) {
        uint64_t w = b.writer[i].load(std::memory_order_relaxed);
        bool both_atomic = touch == Touch::Atomic && (w & kByAtomic);
        if (w != me && w != same_writer && of_this_launch(w, me) && !both_atomic) {
            if (!ordered(w, f)) {
                if (!reported) race(f, where, (const char *)p + (i - at), w, touch == Touch::Read ? "RAW" : "WAW", "wrote");
                reported = true;
            } else
                same_writer = w;
        }
        uint64_t r = b.reader[i].load(std::memory_order_relaxed);
        bool live_reader = r != me && of_this_launch(r, me);
        if (touch == Touch::Read) {
            if (r == me) continue;
            uint64_t now = me;
            if (live_reader && block_of(r) != block_of(me) && !ordered(r, f)) now = me | kManyBlocks << 32;
            b.reader[i].store(now, std::memory_order_relaxed);
        } else {
            if (live_reader && r != same_reader) {
                if (!ordered(r, f)) {
                    if (!reported) race(f, where, (const char *)p + (i - at), r, "WAR", "read");
                    reported = true;
                } else
                    same_reader = r;
            }
            b.writer[i].store(me, std::memory_order_relaxed);
            if (r) b.reader[i].store(0, std::memory_order_relaxed);
        }
    }
}

static bool all_written(const uint8_t *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!v[i]) return false;
    return true;
}

static void check_contents(Fiber &f, Launch &l, Buffer &b, size_t at, size_t n, const void *p, Touch touch, Where where) {
    if (b.initialised && touch != Touch::Write && !b.complete.load(std::memory_order_relaxed) &&
        !all_written(b.initialised + at, n))
        report_for(&f, Check::Uninitialised, where, p, "read of global memory that nobody wrote");
    if (b.read_only()) {
        if (touch == Touch::Read) return;
        report_for(&f, Check::ReadOnlyWrite, where, p, "write to a buffer %s",
                   b.flags & kReadOnly ? "that is registered read-only" : "that the kernel received as const");
        return;
    }
    if (!__atomic_load_n(&b.writer, __ATOMIC_ACQUIRE)) need_cells(l, b);
    if (b.writer && b.reader) check_order(f, b, at, n, p, touch, where);
    if (touch != Touch::Read && b.initialised) memset(b.initialised + at, 1, n);
}

static Buffer *lookup(Launch &l, const void *p) {
    size_t lo = 0, hi = l.buffers.size();
    while (lo < hi) { /* last buffer that begins at or before p */
        size_t mid = (lo + hi) / 2;
        if (l.buffers[mid]->begin <= (const char *)p)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo) return nullptr;
    Buffer *b = l.buffers[lo - 1];
    return (const char *)p < b->end ? b : nullptr;
}

Buffer *find_buffer(const void *p) { return lookup(*tl_worker->launch, p); }

extern "C" char __executable_start, _end;

static bool in_image(const void *p, size_t n) {
    return (const char *)p >= &__executable_start && (const char *)p + n <= &_end;
}
bool overlaps_image(const Buffer &b) { return b.end > &__executable_start && b.begin < &_end; }

/* Not device memory, yet harmless: constants and static tables of the program, and the launch's own arguments. */
static bool is_program(const Launch &l, const void *p, size_t n, Touch touch) {
    const char *c = (const char *)p, *a = (const char *)l.what.args;
    return (c >= a && c + n <= a + l.what.args_bytes) || (touch == Touch::Read && in_image(p, n));
}

void touch_global(Fiber &f, const void *p, size_t n, Touch touch, Where where, bool counted) {
    Worker &w = *tl_worker;
    Launch &l = *w.launch;
    if (touch == Touch::Read && !l.buffers_in_image && in_image(p, n)) return; /* constant memory: no need to search */
    BufferCache &c = w.cache[((uintptr_t)where.pc >> 2 ^ (uintptr_t)where.site.line) & 63];
    Buffer *b = c.buffer;
    if (!b || (const char *)p < b->begin || (const char *)p >= b->end) {
        b = lookup(l, p);
        if (b) c.buffer = b;
    }
    if (!b || (const char *)p + n > b->end) {
        if (is_program(l, p, n, touch)) return;
        report_for(&f, Check::OutOfBounds, where, p, b ? "%zu-byte %s runs past the end of the buffer"
                                                       : "%zu-byte %s outside every buffer",
                   n, touch == Touch::Read ? "read" : "write");
        if (w.current) abandon();
        return;
    }
    if (n <= 16 && (n & (n - 1)) == 0 && (uintptr_t)p % n) {
        report_for(&f, Check::Misaligned, where, p, "%zu-byte access to global memory", n);
        if (w.current) abandon();
        return;
    }
    if (counted && w.counting()) {
        const void *pc = where.pc ? where.pc : (const void *)((uintptr_t)where.site.file * 31 + (unsigned)where.site.line);
        log_access(f, pc, (uint64_t)(uintptr_t)p, n, touch != Touch::Read, false, b->id);
    }
    if (w.checking()) check_contents(f, l, *b, (size_t)((const char *)p - b->begin), n, p, touch, where);
}

} // namespace simt
