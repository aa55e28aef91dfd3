/* shadow.cpp — shared memory: layout, and a shadow cell for every byte.
 *
 * A cell holds the last writer, the last reader and one more reader that was concurrent with it, each as a Stamp.  More
 * concurrent readers than two are forgotten, so a write that races only with a forgotten one is missed; thread orders from
 * several seeds make that unlikely.  All cells of one access usually hold the same stamps, which one comparison settles.
 */
#include "core.h"

namespace simt {

Stamp stamp_of(const Fiber &f) { return f.clock << kStampThreadBits | f.global; }

static Block *block_at(Worker &w, const void *p) {
    return &w.blocks[(size_t)((const char *)p - w.shared_arena) / kSharedSlot];
}
Block *Cluster::block_of(const void *p) const { return is_shared(p) ? block_at(*worker, p) : nullptr; }

bool is_shared(const void *p) {
    return (size_t)((const char *)p - tl_worker->shared_arena) < tl_worker->shared_extent;
}

/* --- layout --- */

static void extend(Block &b, size_t end) { /* new bytes: poisoned, written by nobody */
    size_t old = b.shared_end;
    b.shared_end = end;
    memset(b.shared + old, 0xff, end - old);
    if (!b.cluster->worker->checking()) return;
    SharedShadow &s = b.shadow;
    if (s.flags.size() < end) {
        s.writer.resize(kSharedSlot);
        s.reader.resize(kSharedSlot);
        s.reader2.resize(kSharedSlot);
        s.flags.resize(kSharedSlot);
    }
    std::fill(s.writer.begin() + (long)old, s.writer.begin() + (long)end, 0);
    std::fill(s.reader.begin() + (long)old, s.reader.begin() + (long)end, 0);
    std::fill(s.reader2.begin() + (long)old, s.reader2.begin() + (long)end, 0);
    std::fill(s.flags.begin() + (long)old, s.flags.begin() + (long)end, 0);
}

static void mark_gap(Block &b, size_t from, size_t to) {
    if (b.cluster->worker->checking())
        for (size_t i = from; i < to; i++) b.shadow.flags[i] |= kGap;
}

void reset_shared(Block &b, size_t dynamic_bytes) {
    b.shared_end = kSharedStart;
    b.dynamic_at = 0;
    b.dynamic_bytes = dynamic_bytes;
}

/* The first thread to come places the array; a gap of 16 bytes or more keeps an overrun from reaching the next one. */
static size_t place(Block &b, size_t bytes, size_t align, bool exact) {
    if (align < 16) align = 16;
    size_t from = b.shared_end, at = (from + 16 + align - 1) / align * align;
    if (exact && at % (2 * align) == 0) at += align;
    if (at + bytes > kSharedSlot || at + bytes - kSharedStart > kSharedLimit + 8192) {
        report(Check::BadLaunch, nullptr, nullptr, "shared memory of this block grows past %zu bytes", kSharedLimit);
        abandon();
    }
    extend(b, at + bytes);
    mark_gap(b, from, at);
    return at;
}

void *static_shared(const StaticShared *site) {
    Block &b = *self().block;
    auto it = b.statics.find(site);
    if (it == b.statics.end()) it = b.statics.emplace(site, place(b, site->bytes, site->align, false)).first;
    return b.shared + it->second;
}

void *dynamic_shared(size_t align) {
    Block &b = *self().block;
    if (!b.dynamic_at) b.dynamic_at = place(b, b.dynamic_bytes, align, true);
    return b.shared + b.dynamic_at;
}

/* A plain 32-bit address is an offset in the own block's window; the PTX layer's mapa puts rank + 1 into the top byte. */
uint32_t shared_address(const void *p) {
    if (!is_shared(p)) {
        report(Check::BadInstruction, nullptr, p, "cvta.to.shared of an address that is not in shared memory");
        abandon();
    }
    Block *b = block_at(*tl_worker, p);
    uint32_t offset = (uint32_t)((const char *)p - b->shared);
    return b == self().block ? offset : (b->rank + 1) << 24 | offset;
}

void *shared_pointer(uint32_t a) {
    unsigned rank = a >> 24 ? (a >> 24) - 1 : self().block->rank;
    return tl_worker->shared_arena + rank * kSharedSlot + (a & 0xffffff);
}

/* --- the checks --- */

struct Cells {
    Block *block;
    size_t at;
    SharedShadow *s;
};

static void race(Fiber &f, Where where, const void *p, Stamp other, const char *kind) {
    Fiber *o = fiber_of_stamp(*f.block->cluster, other);
    if (o->block == f.block)
        report_for(&f, Check::SharedRace, where, p, "%s: no barrier since thread (%u,%u,%u) %s it", kind, o->index.x, o->index.y,
                   o->index.z, kind[0] == 'R' || !strcmp(kind, "WAW") ? "wrote" : "read");
    else
        report_for(&f, Check::SharedRace, where, p, "%s: no barrier since thread (%u,%u,%u) of the cluster's block %u %s it",
                   kind, o->index.x, o->index.y, o->index.z, o->block->rank,
                   kind[0] == 'R' || !strcmp(kind, "WAW") ? "wrote" : "read");
}

template <class T> static inline bool uniform(const T *v, size_t n) {
    T x = 0;
    for (size_t i = 1; i < n; i++) x = (T)(x | (v[i] ^ v[0]));
    return x == 0;
}

/* Checks one access against cells [0, n), which all hold the same stamps when n > 1. Returns false after a report. */
static inline __attribute__((always_inline)) bool check_cells(Fiber &f, Cells c, size_t i, const void *p, Touch touch, Where where) {
    SharedShadow &s = *c.s;
    size_t at = c.at + i;
    const char *q = (const char *)p + i;
    uint16_t flags = s.flags[at];
    if (flags & (kLanding | (touch == Touch::Read ? 0 : kOperandMask))) {
        report_for(&f, Check::AsyncHazard, where, q, "%s",
                   flags & kLanding ? (touch == Touch::Read ? "read of bytes an asynchronous copy still writes: wait for it first"
                                                            : "write to bytes an asynchronous copy still writes")
                                    : "write to bytes an asynchronous operation still reads: wait for it first");
        return false;
    }
    if (touch != Touch::Write && !(flags & kInit)) {
        report_for(&f, Check::Uninitialised, where, q, "read of shared memory that nobody wrote in this block");
        return false;
    }
    Stamp w = s.writer[at];
    if (w && !(touch == Touch::Atomic && (flags & kAtomic)) && !ordered_before(w, f)) {
        race(f, where, q, w, touch == Touch::Read ? "RAW" : "WAW");
        return false;
    }
    if (touch == Touch::Read) return true;
    for (Stamp r : {s.reader[at], s.reader2[at]})
        if (r && !ordered_before(r, f)) {
            race(f, where, q, r, "WAR");
            return false;
        }
    return true;
}

static inline __attribute__((always_inline)) void update_cells(Fiber &f, Cells c, size_t n, Touch touch) {
    SharedShadow &s = *c.s;
    Stamp me = stamp_of(f);
    Stamp *w = &s.writer[c.at], *r = &s.reader[c.at], *r2 = &s.reader2[c.at];
    uint16_t *flags = &s.flags[c.at];
    if (touch != Touch::Read) {
        uint16_t atomic = touch == Touch::Atomic ? kAtomic : 0;
        for (size_t i = 0; i < n; i++) w[i] = me;
        for (size_t i = 0; i < n; i++) r[i] = 0;
        for (size_t i = 0; i < n; i++) r2[i] = 0;
        for (size_t i = 0; i < n; i++) flags[i] = (uint16_t)((flags[i] & ~(kAtomic | kAsyncWritten)) | kInit | atomic);
        return;
    }
    if (uniform(r, n)) {
        if (r[0] == me) return;
        Stamp *slot = !r[0] || ordered_before(r[0], f) ? r : r2;
        for (size_t i = 0; i < n; i++) slot[i] = me;
        return;
    }
    for (size_t i = 0; i < n; i++) (!r[i] || ordered_before(r[i], f) ? r[i] : r2[i]) = me;
}

template <size_t N> static inline void shadow(Fiber &f, Cells c, const void *p, Touch touch, Where where, size_t n = N) {
    SharedShadow &s = *c.s;
    bool same = uniform(&s.writer[c.at], n) && uniform(&s.flags[c.at], n);
    if (same && touch != Touch::Read) same = uniform(&s.reader[c.at], n) && uniform(&s.reader2[c.at], n);
    bool good = true;
    if (same)
        good = check_cells(f, c, 0, p, touch, where);
    else
        for (size_t i = 0; i < n && good; i++) good = check_cells(f, c, i, p, touch, where);
    update_cells(f, c, n, touch);
    if (!good && touch == Touch::Read) /* an uninitialised read is reported once */
        for (size_t i = 0; i < n; i++) s.flags[c.at + i] |= kInit;
}

void touch_shared(Fiber &f, const void *p, size_t n, Touch touch, Where where, bool counted) {
    Worker &w = *tl_worker;
    Block *b = block_at(w, p);
    size_t at = (size_t)((const char *)p - b->shared);
    if (n <= 16 && (n & (n - 1)) == 0 && at % n) {
        report_for(&f, Check::Misaligned, where, p, "%zu-byte access to shared memory", n);
        if (w.current) abandon();
        return;
    }
    bool outside = at < kSharedStart || at + n > b->shared_end;
    if (!outside && w.checking()) outside = (b->shadow.flags[at] | b->shadow.flags[at + n - 1]) & kGap;
    if (outside || (b != f.block && !b->live)) {
        report_for(&f, Check::OutOfBounds, where, p, outside ? "%zu-byte access outside the block's shared arrays"
                                                             : "%zu-byte access to the shared memory of a block that has ended", n);
        if (w.current) abandon();
        return;
    }
    if (counted && w.counting()) {
        const void *pc = where.pc ? where.pc : (const void *)((uintptr_t)where.site.file * 31 + (unsigned)where.site.line);
        log_access(f, pc, at, n, touch != Touch::Read, true, 0);
    }
    if (!w.checking()) return;
    Cells c{b, at, &b->shadow};
    switch (n) {
    case 1: shadow<1>(f, c, p, touch, where); break;
    case 2: shadow<2>(f, c, p, touch, where); break;
    case 4: shadow<4>(f, c, p, touch, where); break;
    case 8: shadow<8>(f, c, p, touch, where); break;
    case 16: shadow<16>(f, c, p, touch, where); break;
    default: shadow<0>(f, c, p, touch, where, n);
    }
}

/* --- asynchronous work --- */

static uint16_t *flags_at(const void *p) {
    Worker &w = *tl_worker;
    if (!w.checking() || !is_shared(p)) return nullptr;
    Block *b = block_at(w, p);
    return &b->shadow.flags[(size_t)((const char *)p - b->shared)];
}

void begin_landing(void *p, size_t bytes) {
    memset(p, 0xff, bytes);
    if (uint16_t *f = flags_at(p))
        for (size_t i = 0; i < bytes; i++) f[i] |= kLanding;
}

void end_landing(void *p, size_t bytes, Stamp writer) {
    uint16_t *f = flags_at(p);
    if (!f) return;
    SharedShadow &s = block_at(*tl_worker, p)->shadow;
    size_t at = (size_t)(f - s.flags.data());
    for (size_t i = 0; i < bytes; i++) {
        f[i] = (uint16_t)((f[i] & ~(kLanding | kAtomic | kAsyncWritten)) | kInit | (writer ? kAsyncWritten : 0));
        s.writer[at + i] = writer;
        s.reader[at + i] = s.reader2[at + i] = 0;
    }
}

void begin_operand(const void *p, size_t bytes) {
    if (uint16_t *f = flags_at(p))
        for (size_t i = 0; i < bytes; i++) f[i] = (uint16_t)(f[i] + kOperandStep);
}

void end_operand(const void *p, size_t bytes) {
    if (uint16_t *f = flags_at(p))
        for (size_t i = 0; i < bytes; i++) f[i] = (uint16_t)(f[i] - kOperandStep);
}

Stamp last_writer(const void *p) {
    uint16_t *f = flags_at(p);
    if (!f) return 0;
    SharedShadow &s = block_at(*tl_worker, p)->shadow;
    return s.writer[(size_t)(f - s.flags.data())];
}

/* A generic write becomes visible to the async proxy when its writer, or somebody who heard of the write, executes
 * fence.proxy.async before handing over.  Both usual forms are accepted: every writer fences before the barrier, or f itself
 * fences after it. */
size_t unfenced_writes(const void *p, size_t bytes, const Fiber &f) {
    const uint16_t *flags = flags_at(p);
    if (!flags) return 0;
    SharedShadow &s = block_at(*tl_worker, p)->shadow;
    const Stamp *writer = &s.writer[(size_t)(flags - s.flags.data())];
    size_t n = 0;
    Stamp last = 0; /* neighbours mostly have one writer */
    bool last_bad = false;
    for (size_t i = 0; i < bytes; i++) {
        Stamp w = flags[i] & kAsyncWritten ? 0 : writer[i];
        if (w != last) {
            last = w;
            last_bad = false;
            if (w) {
                Fiber *o = fiber_of_stamp(*f.block->cluster, w);
                uint32_t when = w >> kStampThreadBits;
                last_bad = !(when < o->proxy_clock || (f.proxy_clock > when && f.block == o->block));
            }
        }
        n += last_bad;
    }
    return n;
}

} // namespace simt
