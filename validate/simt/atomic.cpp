/* atomic.cpp — atomics and fences.  Blocks run on several OS threads, so these are real atomics; a loop that polls with one
 * lets the others run. An atomic by a thread that executed __threadfence() publishes what its block has ordered before it. */
#include "core.h"

namespace simt {

void fence(int scope) {
    if (!in_kernel()) return;
    count(Instr::Fence);
    if (scope >= 1) self().fenced = true;
}

static size_t size_of(Num t) { return t == Num::U16 ? 2 : t == Num::U64 || t == Num::F64 ? 8 : 4; }

template <class I, class V> static V apply(V old, V value, V compare, Atom op) {
    switch (op) {
    case Atom::Add: return (V)(old + value);
    case Atom::Sub: return (V)(old - value);
    case Atom::Min: return old < value ? old : value;
    case Atom::Max: return old > value ? old : value;
    case Atom::And: return (V)((I)old & (I)value);
    case Atom::Or: return (V)((I)old | (I)value);
    case Atom::Xor: return (V)((I)old ^ (I)value);
    case Atom::Exch: case Atom::Store: return value;
    case Atom::Cas: return old == compare ? value : old;
    case Atom::Inc: return old >= value ? (V)0 : (V)(old + 1);
    case Atom::Dec: return old == 0 || old > value ? value : (V)(old - 1);
    case Atom::Load: return old;
    }
    return old;
}

/* I: the integer of the same size that the exchange works on. */
template <class I, class V> static uint64_t run(void *p, Atom op, uint64_t value, uint64_t compare) {
    V v, c, old;
    memcpy(&v, &value, sizeof v);
    memcpy(&c, &compare, sizeof c);
    I seen = __atomic_load_n((I *)p, __ATOMIC_SEQ_CST), next;
    do {
        memcpy(&old, &seen, sizeof old);
        V now = apply<I, V>(old, v, c, op);
        memcpy(&next, &now, sizeof next);
        if (op == Atom::Load) break;
    } while (!__atomic_compare_exchange_n((I *)p, &seen, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return (uint64_t)seen;
}

/* What blocks hand each other through one location: for each block, the clock below which everything is visible. */
static void hand_over(Fiber &f, void *p, bool writes) {
    Launch &l = *f.block->cluster->launch;
    if (l.blocks_total == 1) return;
    Block &b = *f.block;
    std::lock_guard<std::mutex> hold(l.lock);
    auto &place = l.published[p];
    for (auto &[block, clock] : place) {
        uint32_t &mine = b.foreign[block];
        if (mine < clock) mine = clock;
    }
    if (!writes || !f.fenced) return;
    for (auto &[block, clock] : b.foreign) {
        uint32_t &theirs = place[block];
        if (theirs < clock) theirs = clock;
    }
    uint32_t &own = place[b.number % kBlockField];
    uint32_t upto = b.era + f.clock + 1; /* generous to lanes of the same interval that did not pass a barrier */
    if (own < upto) own = upto;
    tick(f);
}

uint64_t atomic(void *p, Atom op, Num type, uint64_t value, uint64_t compare, const void *pc) {
    if (!pc) pc = __builtin_return_address(0);
    if (in_kernel()) {
        access(p, size_of(type), op == Atom::Load ? Touch::Read : Touch::Atomic, pc);
        count(Instr::Atomic);
        hand_over(self(), p, op != Atom::Load); /* before: a later reader must find what this one publishes */
    }
    uint64_t old = 0;
    switch (type) {
    case Num::U16: old = run<uint16_t, uint16_t>(p, op, value, compare); break;
    case Num::U32: old = run<uint32_t, uint32_t>(p, op, value, compare); break;
    case Num::S32: old = run<uint32_t, int32_t>(p, op, value, compare); break;
    case Num::U64: old = run<uint64_t, uint64_t>(p, op, value, compare); break;
    case Num::F32: old = run<uint32_t, float>(p, op, value, compare); break;
    case Num::F64: old = run<uint64_t, double>(p, op, value, compare); break;
    }
    if (!in_kernel()) return old;
    Fiber &f = self();
    hand_over(f, p, false); /* after: what those before it published */
    if (op == Atom::Cas || op == Atom::Load || op == Atom::Exch) spin_pause();
    return old;
}

} // namespace simt
