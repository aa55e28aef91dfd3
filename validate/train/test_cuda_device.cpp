/* test_cuda_device.cpp: the executor's memory as a device (test_cuda_device.h). */
#include "test_cuda_device.h"

#include "validate/simt/simt.h"

#include <cstdio>
#include <sys/mman.h>

static constexpr size_t kArena = (size_t)64 << 20;

namespace {

/* Of all devices, so that one call opens and closes it. Given out from the front, and again once nothing is held. */
char *const arena = (char *)mmap(nullptr, kArena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
size_t given, held;
int devices; /* open ones */
long launches;

struct Open { /* while it lives the memory may be touched */
    Open() { mprotect(arena, kArena, PROT_READ | PROT_WRITE); }
    ~Open() { mprotect(arena, kArena, PROT_NONE); }
};

void *take(device *d, size_t bytes)
{
    const size_t room = (bytes + 2 * 256 - 1) / 256 * 256; /* a gap behind each */
    if (!held) given = 0;
    if (arena == MAP_FAILED || room > kArena - given) {
        snprintf(d->why, sizeof d->why, "the test's device memory is full");
        return nullptr;
    }
    char *p = arena + given;
    given += room, held++;
    simt::adopt(p, bytes, "device memory", simt::kUninitialised);
    return p;
}
void release(device *, void *p)
{
    simt::forget(p);
    held--;
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
    devices--;
    delete d;
}

} // namespace

/* Every launch comes through here. */
extern "C" int __real__ZN4simt7executeERKNS_10InvocationE(const simt::Invocation &);
extern "C" int __wrap__ZN4simt7executeERKNS_10InvocationE(const simt::Invocation &what)
{
    launches++;
    if (!devices) return __real__ZN4simt7executeERKNS_10InvocationE(what);
    Open now;
    return __real__ZN4simt7executeERKNS_10InvocationE(what);
}

extern "C" bool test_cuda_executes(void) { return true; }
extern "C" device *test_cuda_device(void)
{
    device *d = new device();
    d->kind = "cuda", d->caveat = "in the executor";
    d->alloc = take, d->release = release, d->upload = upload, d->download = download, d->fill = fill, d->copy = copy, d->wait = wait;
    d->close = close;
    devices++;
    simt::options().counters = false; /* nobody looks at them */
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
