/* report.cpp — collects what the checks found and turns it into text: source lines through addr2line, buffer names. */
#include "core.h"
#include <cstdarg>
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

namespace simt {

const char *name(Check c) {
    static const char *const names[] = {
        "shared-memory race", "global-memory race", "out of bounds", "misaligned", "uninitialised read", "write to read-only",
        "barrier mismatch", "deadlock", "bad collective", "asynchronous hazard", "unwaited copy", "mbarrier phase",
        "missing fence", "bad instruction", "crash", "hang", "bad launch"};
    static_assert(sizeof names / sizeof *names == (size_t)Check::Count, "one name each");
    return c < Check::Count ? names[(size_t)c] : "?";
}

const char *name(Instr i) {
    static const char *const names[] = {"mma", "ldmatrix", "stmatrix", "cp.async", "cp.async.bulk", "cp.async.bulk.tensor",
                                        "wgmma", "mbarrier", "fence", "shuffle", "vote", "reduce", "atomic", "syncwarp",
                                        "barrier", "named barrier", "cluster barrier"};
    static_assert(sizeof names / sizeof *names == (size_t)Instr::Count, "one name each");
    return i < Instr::Count ? names[(size_t)i] : "?";
}

/* --- collecting --- */

std::string describe_address(const Launch &l, const Cluster *c, const void *p) {
    char out[256];
    const Worker *w = c ? c->worker : nullptr;
    if (w && (size_t)((const char *)p - w->shared_arena) < w->shared_extent) {
        size_t off = (size_t)((const char *)p - w->shared_arena), at = off % kSharedSlot;
        const Block &b = w->blocks[off / kSharedSlot];
        if (b.dynamic_at && at >= b.dynamic_at && at < b.dynamic_at + b.dynamic_bytes) {
            snprintf(out, sizeof out, "dynamic shared memory +%zu of %zu", at - b.dynamic_at, b.dynamic_bytes);
            return out;
        }
        for (auto &[site, start] : b.statics)
            if (at >= start && at < start + site->bytes) {
                snprintf(out, sizeof out, "shared array %s +%zu of %u", site->name, at - start, site->bytes);
                return out;
            }
        snprintf(out, sizeof out, "shared memory +%zu, in no array", at);
        return out;
    }
    const Buffer *below = nullptr;
    for (const Buffer *b : l.buffers)
        if (b->begin <= (const char *)p) below = b;
    if (!below) return "no buffer";
    size_t at = (size_t)((const char *)p - below->begin), size = (size_t)(below->end - below->begin);
    if (at < size)
        snprintf(out, sizeof out, "buffer %s +%zu of %zu", below->name.c_str(), at, size);
    else
        snprintf(out, sizeof out, "no buffer; %zu bytes after the end of buffer %s (%zu bytes)", at - size, below->name.c_str(), size);
    return out;
}

static void add(Fiber *f, Check check, Where where, const void *address, const char *format, va_list args) {
    Worker &w = *tl_worker;
    Launch &l = *w.launch;
    char text[512];
    vsnprintf(text, sizeof text, format, args);
    RawDiagnostic d;
    d.check = check;
    if (f) {
        d.block = f->block->index;
        d.thread = f->index;
        d.order = f->block->number << 10 | f->thread;
    }
    d.pc = where.pc;
    d.site = where.site;
    d.address = address;
    d.detail = text;
    w.progress++;
    std::lock_guard<std::mutex> hold(l.lock);
    for (RawDiagnostic &o : l.found)
        if (o.check == check && o.pc == d.pc && o.site.line == d.site.line && o.site.file == d.site.file) {
            o.repeats++;
            if (d.order >= o.order) return;
            uint64_t repeats = o.repeats; /* keep the lowest thread's, so that a report does not depend on the schedule */
            if (address) d.buffer = describe_address(l, &w.cluster, address);
            o = d;
            o.repeats = repeats;
            return;
        }
    if (l.found.size() >= l.options.max_errors) return;
    if (address) d.buffer = describe_address(l, &w.cluster, address);
    l.found.push_back(d);
}

void report_for(Fiber *f, Check check, Where where, const void *address, const char *format, ...) {
    va_list args;
    va_start(args, format);
    add(f, check, where, address, format, args);
    va_end(args);
}

void report(Check check, Where where, const void *address, const char *format, ...) {
    va_list args;
    va_start(args, format);
    add(tl_worker->current, check, where, address, format, args);
    va_end(args);
}

void trap(const char *why, Site site) {
    report(Check::Crash, site, nullptr, "%s", why);
    abandon();
}

/* --- source lines --- */

static std::string run_addr2line(const char *file, uintptr_t offset) {
    char command[4200];
    snprintf(command, sizeof command, "addr2line -s -i -e '%s' 0x%zx 2>/dev/null", file, (size_t)offset);
    FILE *p = popen(command, "r");
    if (!p) return "";
    std::string out;
    char line[1024];
    while (fgets(line, sizeof line, p)) {
        line[strcspn(line, "\n")] = 0;
        if (char *extra = strstr(line, " (discriminator")) *extra = 0;
        if (strstr(line, "??")) continue;
        out += (out.empty() ? "" : " in ") + std::string(line);
    }
    pclose(p);
    return out;
}

static std::string source_line(const void *return_address) {
    static std::mutex lock;
    static std::map<const void *, std::string> known;
    std::lock_guard<std::mutex> hold(lock);
    auto it = known.find(return_address);
    if (it != known.end()) return it->second;
    const char *pc = (const char *)return_address - 1; /* inside the call, not after it */
    Dl_info info{};
    std::string out;
    if (dladdr(pc, &info) && info.dli_fname) {
        bool fixed = ((const Elf64_Ehdr *)info.dli_fbase)->e_type == ET_EXEC;
        uintptr_t offset = fixed ? (uintptr_t)pc : (uintptr_t)(pc - (const char *)info.dli_fbase);
        char self[4096];
        const char *file = info.dli_fname;
        ssize_t n = ::access(file, R_OK) == 0 ? 0 : readlink("/proc/self/exe", self, sizeof self - 1);
        if (n > 0) self[n] = 0, file = self;
        out = run_addr2line(file, offset);
        if (out.empty()) {
            char text[64];
            snprintf(text, sizeof text, "+0x%zx", (size_t)offset);
            out = std::string(info.dli_fname) + text;
        }
    }
    if (out.empty()) out = "unknown line";
    return known[return_address] = out;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

Diagnostic resolve(const Launch &l, const RawDiagnostic &r) {
    Diagnostic d;
    d.check = r.check;
    d.kernel = l.what.name;
    d.block = r.block;
    d.thread = r.thread;
    d.where = r.site.file ? std::string(base_name(r.site.file)) + ":" + std::to_string(r.site.line)
              : r.pc      ? source_line(r.pc)
                          : "";
    d.buffer = r.buffer;
    d.address = r.address;
    d.detail = r.detail;
    d.repeats = r.repeats;
    return d;
}

/* --- text --- */

std::string Diagnostic::text() const {
    char head[512];
    snprintf(head, sizeof head, "%s: %s in kernel %s, block (%u,%u,%u) thread (%u,%u,%u)", where.empty() ? "launch" : where.c_str(),
             name(check), kernel.c_str(), block.x, block.y, block.z, thread.x, thread.y, thread.z);
    std::string out = head;
    out += ": " + detail;
    if (address) {
        char at[64];
        snprintf(at, sizeof at, " [%p, ", address);
        out += at + (buffer.empty() ? std::string("?") : buffer) + "]";
    }
    if (repeats > 1) out += " (" + std::to_string(repeats) + " times)";
    return out;
}

std::string Report::text() const {
    std::string out;
    for (const Diagnostic &d : errors) out += d.text() + "\n";
    return out;
}

uint64_t Report::count(Check c) const {
    uint64_t n = 0;
    for (const Diagnostic &d : errors)
        if (d.check == c) n += d.repeats;
    return n;
}

} // namespace simt
