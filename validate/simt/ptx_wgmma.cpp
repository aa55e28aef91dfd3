/* ptx_wgmma.cpp — wgmma: issued by a warpgroup together, carried out for each warp when that warp waits.
 *
 * Until then the operands are marked (a write to them is a hazard) and the accumulators hold a poison, on the threads' own
 * stacks: that is why the kernel's accumulator arrays must stay where they are, and why touching one is noticed
 * (touch_registers).  The true values live in a Tile; wgmmas that continue one tile chain on it without the fence.
 *
 *   accumulator i of lane 4g + t of warp w   row 16w + g + 8 (i / 2 % 2), column 8 (i / 4) + 2t + i % 2
 *   A in registers                           as mma.m16n8k16's A, rows 16w ...
 */
#include "ptx_impl.h"
#include <algorithm>

namespace simt {

constexpr uint32_t kPoison = 0x7fbad0acu; /* a signalling NaN that no arithmetic makes */
constexpr unsigned kWarps = kWarpgroup / kWarp;

struct Tile {
    float *d[kWarpgroup];
    unsigned n;
    std::vector<float> value; /* 64 x n */
    unsigned flying[kWarps] = {};
    bool known = false; /* value is what was last written back */
    float *row(unsigned r) { return value.data() + (size_t)r * n; }
};

struct Warpgroup {
    std::vector<std::unique_ptr<Tile>> tiles;
    bool fenced[kWarps] = {};
};

static Warpgroup &warpgroup_of(const Fiber &f) {
    auto &slot = f.block->objects[0xfffff000u + f.thread / kWarpgroup]; /* beyond any shared offset */
    if (!slot) slot = std::make_shared<Warpgroup>();
    return *(Warpgroup *)slot.get();
}

/* One instruction, shared by its four warps. */
struct Product {
    MmaType type;
    bool accumulate, a_in_registers;
    unsigned n, left = kWarps;
    MatrixOperand a, b;
    uint32_t a_registers[kWarpgroup][4];
    std::vector<float> b_values; /* [k][n], read when the first warp waits */
    Tile *tile;
    char *window;
    Site site;
};

static uint32_t half_at(const Product &p, const MatrixOperand &o, unsigned row, unsigned k) {
    uint16_t v;
    memcpy(&v, p.window + element_offset(o, row, k), 2);
    return v;
}

static void for_pieces(const Product &p, const MatrixOperand &o, unsigned first, unsigned n, void (*f)(char *, size_t, void *), void *x) {
    for (auto [at, bytes] : pieces(o, first, n)) f(p.window + at, bytes, x);
}

static void read_a(Product &p, unsigned warp, float (*a)[16]) {
    for (unsigned r = 0; r < 16; r++)
        for (unsigned k = 0; k < 16; k++) {
            uint32_t bits;
            if (p.a_in_registers) {
                unsigned lane = r % 8 * 4 + k % 8 / 2, word = r / 8 + k / 8 * 2;
                bits = p.a_registers[warp * kWarp + lane][word] >> (k % 2 * 16);
            } else
                bits = half_at(p, p.a, warp * 16 + r, k);
            a[r][k] = operand(bits, p.type);
        }
}

static void write_back(Tile &t, unsigned warp, Fiber *lane0, Site site) {
    bool touched = false;
    for (unsigned l = 0; l < kWarp; l++)
        for (unsigned i = 0; i < t.n / 2; i++) touched |= bits_of(t.d[warp * kWarp + l][i]) != kPoison;
    if (touched) /* and do not write: the array may be gone */
        report_for(lane0, Check::AsyncHazard, site, nullptr, "an accumulator was overwritten, or went out of scope, while wgmma wrote it");
    for (unsigned l = 0; !touched && l < kWarp; l++)
        for (unsigned i = 0; i < t.n / 2; i++)
            t.d[warp * kWarp + l][i] = t.row(warp * 16 + l / 4 + 8 * (i / 2 % 2))[8 * (i / 4) + 2 * (l % 4) + i % 2];
    t.known = true;
}

struct WarpProduct : Pending {
    std::shared_ptr<Product> product;
    unsigned warp = 0;
    WarpProduct() : Pending(kWgmma) {}
    void land() override {
        Product &p = *product;
        Fiber &f = *owner;
        auto note_read = [](char *q, size_t n, void *self) {
            WarpProduct &w = *(WarpProduct *)self;
            access_for(*w.owner, q, n, Touch::Read, w.site);
        };
        for_pieces(p, p.b, 0, p.n, note_read, this);
        if (!p.a_in_registers) for_pieces(p, p.a, warp * 16, 16, note_read, this);
        if (p.b_values.empty()) {
            p.b_values.resize((size_t)16 * p.n);
            for (unsigned c = 0; c < p.n; c++)
                for (unsigned k = 0; k < 16; k++) p.b_values[(size_t)k * p.n + c] = operand(half_at(p, p.b, c, k), p.type);
        }
        float a[16][16];
        read_a(p, warp, a);
        if (!p.accumulate) std::fill_n(p.tile->row(warp * 16), (size_t)16 * p.n, 0.0f);
        multiply(a[0], 16, p.b_values.data(), p.n, p.tile->row(warp * 16), p.n, 16, p.n, 16, least_exponent(p.type));
        if (!--p.left) {
            auto end = [](char *q, size_t n, void *) { end_operand(q, n); };
            for_pieces(p, p.b, 0, p.n, end, nullptr);
            if (!p.a_in_registers) for_pieces(p, p.a, 0, 64, end, nullptr);
        }
        Warpgroup &g = warpgroup_of(f);
        if (--p.tile->flying[warp]) return;
        write_back(*p.tile, warp, &f, site);
        g.fenced[warp] = false; /* registers are in the thread's hands again */
        bool any = false;
        for (auto &t : g.tiles) any |= t->flying[warp] != 0;
        Fiber *lanes = &f; /* owner is lane 0; the warp's fibers are adjacent */
        for (unsigned l = 0; l < kWarp; l++) lanes[l].registers_in_flight = any;
    }
    std::string describe() const override { return "wgmma m64n" + std::to_string(product->n) + "k16"; }
};

/* --- issue --- */

struct IssueArg {
    WgmmaCall call;
    Site site;
};

static bool same_registers(const Tile &t, void **args, unsigned n) {
    if (t.n != n) return false;
    for (unsigned i = 0; i < kWarpgroup; i++)
        if (t.d[i] != ((IssueArg *)args[i])->call.d) return false;
    return true;
}

static bool any_flying(const Tile &t) { return t.flying[0] | t.flying[1] | t.flying[2] | t.flying[3]; }

/* The tile of these accumulators: one in flight to chain on, or a new one whose registers the fence must have ordered. */
static Tile &take_tile(Warpgroup &g, void **args, unsigned n, Fiber *const *fibers, Site site) {
    Tile *t = nullptr;
    float *d0 = ((IssueArg *)args[0])->call.d;
    for (auto &c : g.tiles) {
        if (same_registers(*c, args, n))
            t = c.get();
        else if (any_flying(*c) && c->d[0] < d0 + n / 2 && d0 < c->d[0] + c->n / 2) {
            report(Check::BadInstruction, site, d0, "wgmma: its accumulators overlap those of one in flight, of another shape");
            abandon();
        }
    }
    if (!t) {
        if (g.tiles.size() > 16)
            g.tiles.erase(std::remove_if(g.tiles.begin(), g.tiles.end(), [](auto &c) { return !any_flying(*c); }), g.tiles.end());
        g.tiles.emplace_back(new Tile);
        t = g.tiles.back().get();
        t->n = n;
        t->value.resize((size_t)64 * n);
        for (unsigned i = 0; i < kWarpgroup; i++) t->d[i] = ((IssueArg *)args[i])->call.d;
    }
    for (unsigned w = 0; w < kWarps; w++) {
        if (t->flying[w]) continue;
        bool changed = !t->known;
        for (unsigned l = 0; l < kWarp; l++)
            for (unsigned i = 0; i < n / 2; i++) {
                float *mine = &t->d[w * kWarp + l][i], &kept = t->row(w * 16 + l / 4 + 8 * (i / 2 % 2))[8 * (i / 4) + 2 * (l % 4) + i % 2];
                changed |= bits_of(*mine) != bits_of(kept);
                kept = *mine;
                *mine = float_of(kPoison);
            }
        if (changed && !g.fenced[w])
            report_for(fibers[w * kWarp], Check::MissingFence, site, nullptr,
                       "wgmma: no wgmma.fence since its accumulators were last written by the threads");
        for (unsigned l = 0; l < kWarp; l++) fibers[w * kWarp + l]->registers_in_flight = true;
    }
    return *t;
}

static void check_operand(Product &p, const MatrixOperand &o, unsigned rows) {
    for (auto [at, bytes] : pieces(o, 0, rows)) {
        char *q = p.window + at;
        access_for(self(), q, bytes, Touch::Read, p.site);
        require_fenced(self(), q, bytes, "wgmma", p.site);
        begin_operand(q, bytes);
    }
}

static void run_wgmma(void **args, uint32_t, Fiber *const *fibers, void *) {
    const IssueArg &first = *(IssueArg *)args[0];
    const WgmmaCall &c = first.call;
    count(Instr::Wgmma);
    for (unsigned i = 1; i < kWarpgroup; i++) {
        const WgmmaCall &o = ((IssueArg *)args[i])->call;
        if (o.a != c.a || o.b != c.b || o.n != c.n || o.accumulate != c.accumulate) {
            report_for(fibers[i], Check::BadInstruction, first.site, nullptr, "wgmma: descriptors or flags differ from those of thread 0 of the warpgroup");
            abandon();
        }
    }
    auto p = std::make_shared<Product>();
    p->type = c.type;
    p->accumulate = c.accumulate;
    p->a_in_registers = c.a_registers != nullptr;
    p->n = c.n;
    p->window = fibers[0]->block->shared;
    p->site = first.site;
    p->b = decode_descriptor(c.b, c.b_mn, c.n, "B", first.site);
    if (p->a_in_registers)
        for (unsigned i = 0; i < kWarpgroup; i++) memcpy(p->a_registers[i], ((IssueArg *)args[i])->call.a_registers, 16);
    else
        p->a = decode_descriptor(c.a, c.a_mn, 64, "A", first.site);
    p->tile = &take_tile(warpgroup_of(*fibers[0]), args, c.n, fibers, first.site);
    check_operand(*p, p->b, c.n);
    if (!p->a_in_registers) check_operand(*p, p->a, 64);
    for (unsigned w = 0; w < kWarps; w++) {
        Fiber &f = *fibers[w * kWarp];
        auto part = std::make_unique<WarpProduct>();
        part->owner = &f;
        part->site = first.site;
        part->group = f.groups[kWgmma];
        part->product = p;
        part->warp = w;
        p->tile->flying[w]++;
        f.pending.push_back(std::move(part));
    }
}

void wgmma(const WgmmaCall &call, Site site) {
    IssueArg x{call, site};
    warpgroup_collective("wgmma.mma_async", run_wgmma, &x, site);
}

/* --- fence, commit, wait: of one warp, all of its lanes --- */

void wgmma_fence(Site site) {
    warp_collective("wgmma.fence", ~0u, [](void **, uint32_t, Fiber *const *fibers, void *) {
        count(Instr::Fence);
        warpgroup_of(*fibers[0]).fenced[fibers[0]->thread % kWarpgroup / kWarp] = true;
    }, nullptr, site);
}

void wgmma_commit(Site site) {
    warp_collective("wgmma.commit_group", ~0u, [](void **, uint32_t, Fiber *const *fibers, void *) {
        fibers[0]->groups[kWgmma]++;
    }, nullptr, site);
}

void wgmma_wait(unsigned leave, Site site) {
    warp_collective("wgmma.wait_group", ~0u, [](void **, uint32_t, Fiber *const *fibers, void *context) {
        Fiber &f = *fibers[0];
        for (size_t i = 0; i < f.pending.size();) {
            Pending *p = (Pending *)f.pending[i].get();
            if (p->mechanism != kWgmma || p->group + (unsigned)(uintptr_t)context >= f.groups[kWgmma]) {
                i++;
                continue;
            }
            std::unique_ptr<Deferred> d = std::move(f.pending[i]);
            f.pending.erase(f.pending.begin() + (long)i);
            d->land();
        }
    }, nullptr, site, (void *)(uintptr_t)leave);
}

/* --- a thread looks at its own stack while accumulators there are in flight --- */

void touch_registers(Fiber &f, const void *p, size_t n, Touch touch, Where where) {
    unsigned at = f.thread % kWarpgroup;
    for (auto &t : warpgroup_of(f).tiles) {
        if (!t->flying[at / kWarp]) continue;
        const char *d = (const char *)t->d[at], *q = (const char *)p;
        if (q + n <= d || q >= d + t->n / 2 * sizeof(float)) continue;
        report_for(&f, Check::AsyncHazard, where, p, "accumulator %zu of a wgmma that was not waited for is %s",
                   (size_t)(q - d) / sizeof(float), touch == Touch::Read ? "read" : "written");
        return;
    }
}

} // namespace simt
