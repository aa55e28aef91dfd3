/* test_cuda_device.cpp: the executor's memory as a device (test_cuda_device.h). */
#include "test_cuda_device.h"

#include "validate/simt/simt.h"

#include <sys/mman.h>
#include <vector>

namespace {

struct Block {
    void *p;
    size_t bytes;
};
std::vector<Block> blocks;
bool guarded; /* a device is open */
long launches;

void allow(int access)
{
    constexpr size_t page = 4096;
    for (const Block &b : blocks) mprotect(b.p, (b.bytes + page - 1) / page * page + page, access); /* from a page on, by simt::alloc */
}

struct Open { /* while it lives the memory may be touched */
    Open() { allow(PROT_READ | PROT_WRITE); }
    ~Open() { allow(PROT_NONE); }
};

void *take(device *, size_t bytes)
{
    blocks.push_back(Block{simt::alloc(bytes, "device memory"), bytes});
    allow(PROT_NONE);
    return blocks.back().p;
}
void release(device *, void *p)
{
    for (size_t i = 0; i < blocks.size(); i++)
        if (blocks[i].p == p) {
            blocks.erase(blocks.begin() + (long)i);
            simt::free(p);
            return;
        }
}
bool upload(device *, void *to, const void *from, size_t bytes)
{
    Open now;
    simt::copy_in(to, from, bytes);
    return true;
}
bool download(device *, void *to, const void *from, size_t bytes)
{
    Open now;
    simt::copy_out(to, from, bytes);
    return true;
}
bool fill(device *, void *to, int byte, size_t bytes)
{
    Open now;
    simt::fill(to, byte, bytes);
    return true;
}
bool copy(device *, void *to, const void *from, size_t bytes)
{
    Open now;
    simt::copy_in(to, from, bytes);
    return true;
}
bool wait(device *) { return true; }
void close(device *d)
{
    guarded = false;
    delete d;
}

} // namespace

/* Every launch comes through here. */
extern "C" int __real__ZN4simt7executeERKNS_10InvocationE(const simt::Invocation &);
extern "C" int __wrap__ZN4simt7executeERKNS_10InvocationE(const simt::Invocation &what)
{
    launches++;
    if (!guarded) return __real__ZN4simt7executeERKNS_10InvocationE(what);
    Open now;
    return __real__ZN4simt7executeERKNS_10InvocationE(what);
}

extern "C" device *test_cuda_device(void)
{
    device *d = new device();
    d->kind = "cuda", d->caveat = "in the executor";
    d->alloc = take, d->release = release, d->upload = upload, d->download = download, d->fill = fill, d->copy = copy, d->wait = wait;
    d->close = close;
    guarded = true;
    return d;
}
extern "C" long test_cuda_launches(void) { return launches; }

extern "C" void test_cuda_order(unsigned order)
{
    static const simt::Order fixed[] = {simt::Order::Forward, simt::Order::Reverse, simt::Order::RoundRobin};
    simt::options().order = order < 3 ? fixed[order] : simt::Order::Seeded;
    simt::options().seed = order;
}
extern "C" void test_cuda_quiet(bool quiet) { simt::options().quiet = quiet; }
