/* counters.cpp — what a warp's lanes asked for together.
 *
 * Lanes run one after another, so a warp request does not exist until its parts are put together again: each lane logs its
 * accesses, and when all lanes of the warp stand at a common point (a block barrier, the end) the n-th execution of an
 * instruction by one lane is matched with the n-th by the others.  Lanes that took different paths match where they can.
 * The result depends on the program and its data, never on the thread order.
 */
#include "core.h"
#include <algorithm>

namespace simt {

constexpr uint64_t kStore = 1ull << 63, kShared = 1ull << 62, kAddress = kShared - 1;

static unsigned width_class(size_t bytes) { return bytes >= 16 ? 4 : bytes >= 8 ? 3 : bytes >= 4 ? 2 : bytes >= 2 ? 1 : 0; }

void log_access(Fiber &f, const void *pc, uint64_t address, size_t bytes, bool store, bool shared, unsigned buffer) {
    Counters &c = tl_worker->counters;
    unsigned k = width_class(bytes);
    (shared ? (store ? c.shared_stores : c.shared_loads) : (store ? c.global_stores : c.global_loads))[k]++;
    f.log.push_back(LoggedAccess{pc, (address & kAddress) | (store ? kStore : 0) | (shared ? kShared : 0), (uint32_t)bytes, buffer});
}

void count(Instr i) { tl_worker->counters.instr[(size_t)i]++; }

/* --- one request: up to 32 lanes' parts of one instruction --- */

struct Request {
    const LoggedAccess *lane[kWarp];
    unsigned n = 0;
};

static void count_global(Worker &w, const Request &r) {
    bool store = r.lane[0]->address & kStore;
    uint64_t sectors[kWarp * 2];
    size_t n = 0, bytes = 0;
    bool sorted = true;
    for (unsigned i = 0; i < r.n; i++) {
        uint64_t a = r.lane[i]->address & kAddress, last = (a + r.lane[i]->bytes - 1) / 32;
        bytes += r.lane[i]->bytes;
        unsigned k = 0;
        for (uint64_t s = a / 32; s <= last && k < 2; s++, k++)
            if (!n || sectors[n - 1] != s) {
                if (n && sectors[n - 1] > s) sorted = false;
                sectors[n++] = s;
            }
    }
    if (!sorted) {
        std::sort(sectors, sectors + n);
        n = (size_t)(std::unique(sectors, sectors + n) - sectors);
    }
    Counters &c = w.counters;
    c.global_requests++;
    c.global_sectors += n;
    c.global_sectors_ideal += std::min(n, (bytes + 31) / 32); /* lanes that share an address need less than their bytes */
    BufferTraffic &t = w.traffic[r.lane[0]->buffer];
    (store ? t.bytes_written : t.bytes_read) += bytes;
    (store ? t.sectors_written : t.sectors_read) += n;
}

/* 32 banks of 4 bytes.  8-byte accesses are served in two halves of the warp, 16-byte ones in four quarters; within a part
 * each bank delivers one word a wavefront, and lanes that want the same word share it. */
static void count_shared(Worker &w, const Request &r, const unsigned *lane_numbers) {
    unsigned bytes = r.lane[0]->bytes, parts = bytes <= 4 ? 1 : bytes <= 8 ? 2 : 4, wavefronts = 0, ideal = 0;
    for (unsigned part = 0; part < parts; part++) {
        uint64_t words[kWarp * 4], held[32];
        size_t n = 0;
        uint32_t used = 0;
        bool conflict = false;
        for (unsigned i = 0; i < r.n; i++) {
            if (lane_numbers[i] * parts / kWarp != part) continue;
            uint64_t a = r.lane[i]->address & kAddress;
            for (uint64_t x = a / 4; x <= (a + bytes - 1) / 4 && n < kWarp * 4; x++) {
                unsigned bank = x % 32;
                conflict |= (used >> bank & 1) && held[bank] != x;
                used |= 1u << bank;
                held[bank] = x;
                words[n++] = x;
            }
        }
        if (!n) continue;
        if (!conflict) { /* the usual case */
            wavefronts++;
            ideal++;
            continue;
        }
        std::sort(words, words + n);
        n = (size_t)(std::unique(words, words + n) - words);
        unsigned load[32] = {}, most = 0;
        for (size_t i = 0; i < n; i++) most = std::max(most, ++load[words[i] % 32]);
        wavefronts += most;
        ideal += (unsigned)((n + 31) / 32);
    }
    w.counters.shared_requests++;
    w.counters.shared_wavefronts += wavefronts;
    w.counters.shared_wavefronts_ideal += ideal;
}

static void count_request(Worker &w, const Request &r, const unsigned *lane_numbers) {
    if (r.lane[0]->address & kShared)
        count_shared(w, r, lane_numbers);
    else
        count_global(w, r);
}

/* --- matching --- */

static bool same_instruction(const LoggedAccess &a, const LoggedAccess &b) {
    return a.pc == b.pc && a.bytes == b.bytes && a.buffer == b.buffer && (a.address & ~kAddress) == (b.address & ~kAddress);
}

/* All lanes that logged anything logged the same instructions in the same order: no search needed. */
static bool flush_uniform(Worker &w, Fiber *const *lanes, const unsigned *numbers, unsigned n) {
    size_t length = lanes[0]->log.size();
    for (unsigned i = 1; i < n; i++) {
        if (lanes[i]->log.size() != length) return false;
        for (size_t k = 0; k < length; k++)
            if (!same_instruction(lanes[0]->log[k], lanes[i]->log[k])) return false;
    }
    for (size_t k = 0; k < length; k++) {
        Request r;
        for (unsigned i = 0; i < n; i++) r.lane[r.n++] = &lanes[i]->log[k];
        count_request(w, r, numbers);
    }
    return true;
}

struct Keyed {
    uintptr_t pc;
    uint32_t occurrence, kind; /* buffer, width, load or store */
    unsigned lane;
    const LoggedAccess *entry;
    bool operator<(const Keyed &o) const {
        if (pc != o.pc) return pc < o.pc;
        if (kind != o.kind) return kind < o.kind;
        if (occurrence != o.occurrence) return occurrence < o.occurrence;
        return lane < o.lane;
    }
    bool together(const Keyed &o) const { return pc == o.pc && kind == o.kind && occurrence == o.occurrence; }
};

static void flush_divergent(Worker &w, Fiber *const *lanes, const unsigned *numbers, unsigned n) {
    std::vector<Keyed> all;
    for (unsigned i = 0; i < n; i++) {
        std::map<std::pair<uintptr_t, uint32_t>, uint32_t> seen;
        for (const LoggedAccess &e : lanes[i]->log) {
            uint32_t kind = e.buffer << 8 | (uint32_t)(e.address >> 62) << 5 | width_class(e.bytes);
            all.push_back(Keyed{(uintptr_t)e.pc, seen[{(uintptr_t)e.pc, kind}]++, kind, numbers[i], &e});
        }
    }
    std::sort(all.begin(), all.end());
    for (size_t i = 0; i < all.size();) {
        Request r;
        unsigned who[kWarp];
        size_t j = i;
        do {
            who[r.n] = all[j].lane;
            r.lane[r.n++] = all[j].entry;
        } while (++j < all.size() && r.n < kWarp && all[j].together(all[i]));
        count_request(w, r, who);
        i = j;
    }
}

void flush_warp(Worker &w, Warp &v) {
    Fiber *lanes[kWarp];
    unsigned numbers[kWarp], n = 0;
    for (unsigned i = 0; i < kWarp; i++)
        if (v.exists >> i & 1) {
            Fiber &f = v.block->fibers[v.first + i];
            if (f.log.empty()) continue;
            numbers[n] = i;
            lanes[n++] = &f;
        }
    if (!n) return;
    if (!flush_uniform(w, lanes, numbers, n)) flush_divergent(w, lanes, numbers, n);
    for (unsigned i = 0; i < n; i++) lanes[i]->log.clear();
}

/* --- totals --- */

void merge_counters(Launch &l, Worker &w) {
    Counters &t = l.totals, &c = w.counters;
    for (size_t i = 0; i < (size_t)Instr::Count; i++) t.instr[i] += c.instr[i];
    for (int i = 0; i < 5; i++) {
        t.global_loads[i] += c.global_loads[i];
        t.global_stores[i] += c.global_stores[i];
        t.shared_loads[i] += c.shared_loads[i];
        t.shared_stores[i] += c.shared_stores[i];
    }
    t.global_requests += c.global_requests;
    t.global_sectors += c.global_sectors;
    t.global_sectors_ideal += c.global_sectors_ideal;
    t.shared_requests += c.shared_requests;
    t.shared_wavefronts += c.shared_wavefronts;
    t.shared_wavefronts_ideal += c.shared_wavefronts_ideal;
    t.barriers += c.barriers;
    t.thread_barriers += c.thread_barriers;
    t.switches += c.switches;
    t.buffers.resize(l.buffers.size());
    for (size_t i = 0; i < w.traffic.size(); i++) {
        t.buffers[i].bytes_read += w.traffic[i].bytes_read;
        t.buffers[i].bytes_written += w.traffic[i].bytes_written;
        t.buffers[i].sectors_read += w.traffic[i].sectors_read;
        t.buffers[i].sectors_written += w.traffic[i].sectors_written;
    }
}

const BufferTraffic *Counters::buffer(const char *name) const {
    for (const BufferTraffic &b : buffers)
        if (b.name == name) return &b;
    return nullptr;
}

} // namespace simt
