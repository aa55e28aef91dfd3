/* buffers.cpp — the registry of device memory.  Bounds are exact: an allocation's end is the byte after the last. */
#include "core.h"
#include <algorithm>
#include <sys/mman.h>

namespace simt {

static std::mutex registry_lock;
static std::map<const char *, Buffer *> &registry() { /* by first byte */
    static std::map<const char *, Buffer *> m;
    return m;
}

static Buffer *containing(const void *p) {
    auto it = registry().upper_bound((const char *)p);
    if (it == registry().begin()) return nullptr;
    Buffer *b = (--it)->second;
    return (const char *)p < b->end ? b : nullptr;
}

static uint8_t *map_bytes(size_t n) {
    void *p = mmap(nullptr, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return (uint8_t *)p;
}

static void release(Buffer *b) {
    size_t n = (size_t)(b->end - b->begin);
    if (b->initialised) munmap(b->initialised, n ? n : 1);
    if (b->writer) munmap((void *)b->writer, n * sizeof *b->writer);
    if (b->reader) munmap((void *)b->reader, n * sizeof *b->reader);
    if (b->mapping) munmap(b->mapping, b->mapping_bytes);
    delete b;
}

/* 256-byte alignment as cudaMalloc gives, a page nobody may touch on both sides, 0xff in every byte. */
void *alloc(size_t bytes, const char *name) {
    constexpr size_t kPage = 4096;
    size_t body = (bytes + kPage - 1) / kPage * kPage + kPage;
    Buffer *b = new Buffer;
    b->mapping_bytes = body + 2 * kPage;
    b->mapping = map_bytes(b->mapping_bytes);
    char *start = (char *)b->mapping;
    mprotect(start, kPage, PROT_NONE);
    mprotect(start + kPage + body, kPage, PROT_NONE);
    b->begin = start + kPage;
    b->end = b->begin + bytes;
    b->name = name ? name : "?";
    b->owned = true;
    b->initialised = map_bytes(bytes);
    memset(b->begin, 0xff, bytes);
    std::lock_guard<std::mutex> hold(registry_lock);
    registry()[b->begin] = b;
    return b->begin;
}

static void drop(void *p, bool owned) {
    std::lock_guard<std::mutex> hold(registry_lock);
    auto it = registry().find((const char *)p);
    if (it == registry().end() || it->second->owned != owned) return;
    release(it->second);
    registry().erase(it);
}

void free(void *p) { drop(p, true); }
void forget(void *p) { drop(p, false); }

void adopt(void *p, size_t bytes, const char *name, unsigned flags) {
    forget(p);
    Buffer *b = new Buffer;
    b->begin = (char *)p;
    b->end = b->begin + bytes;
    b->name = name ? name : "?";
    b->flags = flags;
    if (flags & kUninitialised)
        b->initialised = map_bytes(bytes);
    else
        b->complete = true;
    std::lock_guard<std::mutex> hold(registry_lock);
    registry()[b->begin] = b;
}

bool known(const void *p) {
    std::lock_guard<std::mutex> hold(registry_lock);
    return containing(p) != nullptr;
}

static void mark_written(void *p, size_t bytes) {
    std::lock_guard<std::mutex> hold(registry_lock);
    Buffer *b = containing(p);
    if (!b || !b->initialised || !bytes) return;
    size_t at = (size_t)((char *)p - b->begin);
    memset(b->initialised + at, 1, std::min(bytes, (size_t)(b->end - (char *)p)));
    if (bytes >= (size_t)(b->end - b->begin)) b->complete = true;
}

void copy_in(void *device, const void *host, size_t bytes) {
    memcpy(device, host, bytes);
    mark_written(device, bytes);
}
void copy_out(void *host, const void *device, size_t bytes) { memcpy(host, device, bytes); }
void fill(void *device, int byte, size_t bytes) {
    memset(device, byte, bytes);
    mark_written(device, bytes);
}

/* Operands that no registered buffer contains live as long as the launch. */
static void add_operands(Launch &l) {
    for (size_t i = 0; i < l.what.n_operands; i++) {
        const Operand &o = l.what.operands[i];
        Buffer *known_buffer = o.p ? containing(o.p) : nullptr;
        if (known_buffer) known_buffer->written_arg |= o.written;
        if (!o.p || known_buffer) continue;
        Buffer *b = new Buffer;
        b->begin = (char *)const_cast<void *>(o.p);
        b->end = b->begin + o.bytes;
        b->name = o.name;
        b->flags = o.written ? 0u : (unsigned)kReadOnly;
        b->complete = true;
        l.own_buffers.push_back(b);
        l.buffers.push_back(b);
    }
}

void drop_buffers(Launch &l) {
    for (Buffer *b : l.own_buffers) release(b);
    l.own_buffers.clear();
}

/* The launch's table, with what its parameters' types say: a buffer that only const pointers reach is read-only. */
void take_buffers(Launch &l) {
    std::lock_guard<std::mutex> hold(registry_lock);
    bool wrapped = (l.id & 0xff) == 0; /* stamps of 256 launches ago would look like this one's */
    for (auto &entry : registry()) {
        Buffer *b = entry.second;
        b->const_arg = b->written_arg = false;
        if (wrapped) {
            size_t n = (size_t)(b->end - b->begin) * sizeof(uint64_t);
            if (b->writer) madvise((void *)b->writer, n, MADV_DONTNEED);
            if (b->reader) madvise((void *)b->reader, n, MADV_DONTNEED);
        }
        l.buffers.push_back(b);
    }
    for (size_t i = 0; i < l.what.n_pointers; i++) {
        Buffer *b = containing(l.what.pointers[i].p);
        if (b) (l.what.pointers[i].is_const ? b->const_arg : b->written_arg) = true;
    }
    add_operands(l);
    std::sort(l.buffers.begin(), l.buffers.end(), [](const Buffer *a, const Buffer *b) { return a->begin < b->begin; });
    for (size_t i = 0; i < l.buffers.size(); i++) {
        l.buffers[i]->id = (unsigned)i;
        l.buffers_in_image |= overlaps_image(*l.buffers[i]);
    }
}

} // namespace simt
