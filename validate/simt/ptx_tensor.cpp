/* ptx_tensor.cpp — tensor maps, and copies of a box of a matrix by them.
 *
 * A map here holds plain fields behind a mark; on a GPU it is opaque. The rules are those of cuTensorMapEncodeTiled for two
 * dimensions, element strides of one, no interleave, zero fill. */
#include "ptx_impl.h"

namespace simt {

struct TensorMap {
    uint64_t mark;
    const char *base;
    uint64_t columns, rows, row_bytes;
    uint32_t element_bytes, box_columns, box_rows, chunks;
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap), "fits where NVIDIA's does");
constexpr uint64_t kTensorMark = 0x70616d726f736e74ull;

const char *encode_tensor_map(CUtensorMap *map, const void *base, unsigned element_bytes, uint64_t columns, uint64_t rows,
                              uint64_t row_bytes, uint32_t box_columns, uint32_t box_rows, unsigned swizzle_bytes) {
    uint64_t box_bytes = (uint64_t)box_columns * element_bytes;
    if (element_bytes != 1 && element_bytes != 2 && element_bytes != 4) return "elements have 1, 2 or 4 bytes";
    if (!base || (uintptr_t)base % 16) return "the matrix must be 16-byte aligned";
    if (row_bytes % 16 || row_bytes >= 1ull << 40) return "the row pitch must be a multiple of 16 bytes, below 2^40";
    if (!columns || !rows || columns > 1ull << 32 || rows > 1ull << 32) return "columns and rows are 1 ... 2^32";
    if (!box_columns || !box_rows || box_columns > 256 || box_rows > 256) return "a box has 1 ... 256 columns and rows";
    if (box_bytes % 16) return "a row of the box must be a multiple of 16 bytes";
    if (swizzle_bytes != 0 && swizzle_bytes != 32 && swizzle_bytes != 64 && swizzle_bytes != 128)
        return "the swizzle is 0, 32, 64 or 128 bytes";
    if (swizzle_bytes && box_bytes > swizzle_bytes) return "a row of the box must fit into the swizzle";
    TensorMap t{kTensorMark, (const char *)base, columns, rows, row_bytes, element_bytes, box_columns, box_rows,
                swizzle_bytes ? swizzle_bytes / 16 : 1};
    memset(map, 0, sizeof *map);
    memcpy(map, &t, sizeof t);
    return nullptr;
}

static TensorMap read_map(const CUtensorMap *map, const char *what, Site site) {
    TensorMap t;
    memcpy(&t, map, sizeof t);
    if (t.mark != kTensorMark || (uintptr_t)map % 64) {
        report(Check::BadInstruction, site, map, "%s: %s", what,
               t.mark != kTensorMark ? "no tensor map here" : "the tensor map must be 64-byte aligned");
        abandon();
    }
    return t;
}

/* The part of one box row that lies inside the matrix. */
struct Span {
    const char *global; /* of the first element inside */
    uint32_t from, bytes; /* in the box's row */
};
static Span span_of(const TensorMap &t, int x, int64_t y) {
    int64_t first = x < 0 ? 0 : x, last = (int64_t)x + t.box_columns;
    if (last > (int64_t)t.columns) last = (int64_t)t.columns;
    if (y < 0 || y >= (int64_t)t.rows || first >= last) return Span{nullptr, 0, 0};
    return Span{t.base + (uint64_t)y * t.row_bytes + (uint64_t)first * t.element_bytes,
                (uint32_t)(first - x) * t.element_bytes, (uint32_t)(last - first) * t.element_bytes};
}

static uint32_t box_bytes(const TensorMap &t) { return t.box_columns * t.element_bytes * t.box_rows; }

/* Linear box <-> swizzled shared memory, 16 bytes at a time. */
template <class F> static void for_chunks(const TensorMap &t, char *window, uint32_t offset, F f) {
    for (uint32_t i = 0; i < box_bytes(t); i += 16) f(window + swizzle(offset + i, t.chunks), i);
}

struct TensorLoad : Deferred {
    TensorMap map;
    int x = 0, y = 0;
    uint32_t offset = 0, bar_offset = 0;
    std::vector<Block *> targets;
    Stamp writer = 0;
    History order;
    void land() override {
        uint32_t row_bytes = map.box_columns * map.element_bytes;
        std::vector<char> box(box_bytes(map), 0);
        for (uint32_t r = 0; r < map.box_rows; r++) {
            Span s = span_of(map, x, (int64_t)y + r);
            if (s.bytes) memcpy(box.data() + (size_t)r * row_bytes + s.from, s.global, s.bytes);
        }
        for (Block *b : targets) {
            end_landing(b->shared + offset, box.size(), writer);
            for_chunks(map, b->shared, offset, [&](char *p, uint32_t i) { memcpy(p, box.data() + i, 16); });
            complete_tx(*owner, *b, bar_offset, (uint32_t)box.size(), order, site);
        }
    }
    std::string describe() const override {
        return "tensor copy of " + std::to_string(map.box_rows) + " x " + std::to_string(map.box_columns) + " elements";
    }
};

/* The swizzle permutes by address bits, so a box may begin anywhere a line begins. Whoever describes it to wgmma with base
 * offset 0 needs the pattern's own alignment, and is told so there. */
constexpr size_t kBoxAlignment = 128;

void tensor_load(uint32_t dst, const CUtensorMap *map, int x, int y, uint32_t bar, int mask, Site site) {
    Fiber &f = self();
    Cluster &c = *f.block->cluster;
    const char *what = "cp.async.bulk.tensor";
    TensorMap t = read_map(map, what, site);
    SharedPlace d = shared_place(dst, box_bytes(t), kBoxAlignment, what, site), b = shared_place(bar, 8, 8, what, site);
    count(Instr::CpAsyncBulkTensor);
    for (uint32_t r = 0; r < t.box_rows; r++) {
        Span s = span_of(t, x, (int64_t)y + r);
        if (!s.bytes) continue;
        access_for(f, s.global, s.bytes, Touch::Read, site);
        count_traffic(s.global, s.bytes, false);
    }
    auto load = std::make_unique<TensorLoad>();
    for (unsigned rank = 0; rank < c.blocks.size(); rank++) {
        Block *to = c.blocks[rank];
        if (mask < 0 ? to != d.block : !(mask >> rank & 1)) continue;
        SharedPlace its{to, b.offset, to->shared + b.offset};
        require_visible(find_mbarrier(its, what, site), its, what, site);
        access_for(f, its.p, 8, Touch::Atomic, site);
        access_for(f, to->shared + d.offset, box_bytes(t), Touch::Write, site);
        begin_landing(to->shared + d.offset, box_bytes(t));
        load->targets.push_back(to);
    }
    if (mask >= 0 && (load->targets.empty() || mask >> c.blocks.size())) {
        report(Check::BadInstruction, site, nullptr, "%s: multicast mask 0x%x in a cluster of %zu blocks", what, (unsigned)mask,
               c.blocks.size());
        abandon();
    }
    load->owner = &f;
    load->site = site;
    load->map = t;
    load->x = x;
    load->y = y;
    load->offset = d.offset;
    load->bar_offset = b.offset;
    load->writer = stamp_of(f);
    release_to(load->order, f);
    c.in_flight.push_back(std::move(load));
}

struct TensorStore : Pending {
    TensorMap map;
    int x = 0, y = 0;
    uint32_t offset = 0;
    TensorStore() : Pending(kBulk) {}
    void land() override {
        char *window = owner->block->shared;
        uint32_t row_bytes = map.box_columns * map.element_bytes;
        end_operand(window + offset, box_bytes(map));
        access_for(*owner, window + offset, box_bytes(map), Touch::Read, site);
        std::vector<char> box(box_bytes(map));
        for_chunks(map, window, offset, [&](char *p, uint32_t i) { memcpy(box.data() + i, p, 16); });
        for (uint32_t r = 0; r < map.box_rows; r++) {
            Span s = span_of(map, x, (int64_t)y + r);
            if (s.bytes) memcpy((char *)s.global, box.data() + (size_t)r * row_bytes + s.from, s.bytes);
        }
    }
    std::string describe() const override {
        return "tensor store of " + std::to_string(map.box_rows) + " x " + std::to_string(map.box_columns) + " elements";
    }
};

void tensor_store(const CUtensorMap *map, int x, int y, uint32_t src, Site site) {
    Fiber &f = self();
    const char *what = "cp.async.bulk.tensor (store)";
    TensorMap t = read_map(map, what, site);
    SharedPlace s = shared_place(src, box_bytes(t), kBoxAlignment, what, site);
    count(Instr::CpAsyncBulkTensor);
    access_for(f, s.p, box_bytes(t), Touch::Read, site);
    require_fenced(f, s.p, box_bytes(t), what, site);
    for (uint32_t r = 0; r < t.box_rows; r++) {
        Span g = span_of(t, x, (int64_t)y + r);
        if (!g.bytes) continue;
        access_for(f, g.global, g.bytes, Touch::Write, site);
        count_traffic(g.global, g.bytes, true);
    }
    begin_operand(s.p, box_bytes(t));
    auto store = std::make_unique<TensorStore>();
    store->owner = &f;
    store->site = site;
    store->group = f.groups[kBulk];
    store->map = t;
    store->x = x;
    store->y = y;
    store->offset = s.offset;
    f.pending.push_back(std::move(store));
}

} // namespace simt
