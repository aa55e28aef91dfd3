/* launch.cpp — one kernel launch: checks its configuration, spreads its clusters over OS threads, collects the report. */
#include "core.h"
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <pthread.h>
#include <thread>
#include <unistd.h>

namespace simt {

/* --- options --- */

static Options from_environment() {
    Options o;
    if (const char *s = getenv("SIMT_SEED")) o.seed = strtoull(s, nullptr, 0);
    if (const char *s = getenv("SIMT_ORDER"))
        o.order = !strcmp(s, "forward")      ? Order::Forward
                  : !strcmp(s, "reverse")    ? Order::Reverse
                  : !strcmp(s, "roundrobin") ? Order::RoundRobin
                                             : Order::Seeded;
    if (const char *s = getenv("SIMT_CHECKS")) o.checks = atoi(s) != 0;
    if (const char *s = getenv("SIMT_COUNTERS")) o.counters = atoi(s) != 0;
    if (const char *s = getenv("SIMT_JOBS")) o.jobs = (unsigned)atoi(s);
    if (const char *s = getenv("SIMT_TIMEOUT")) o.timeout_s = atof(s);
    if (const char *s = getenv("SIMT_ACCUMULATE"))
        o.accumulate = !strcmp(s, "hopper") ? Accumulate::Hopper : Accumulate::ExactOrder;
    return o;
}

Options &options() {
    static Options o = from_environment();
    return o;
}

static thread_local Report the_report;
const Report &last_report() { return the_report; }
void (*after_launch)(const Report &) = nullptr;

/* --- worker threads: kept from launch to launch, each with its stacks and shared memory --- */

struct Pool {
    std::mutex lock;
    std::condition_variable start, finished;
    std::deque<Worker> workers;
    std::vector<pthread_t> threads;
    Launch *launch = nullptr;
    uint64_t generation = 0;
    unsigned wanted = 0, running = 0;
};
static std::mutex launch_lock; /* one launch at a time */

static Pool &pool() { /* a forked child has no threads: it gets a pool of its own */
    static Pool *p = nullptr;
    static pid_t owner = 0;
    if (!p || owner != getpid()) {
        p = new Pool;
        owner = getpid();
    }
    return *p;
}

static void begin_work(Worker &w, Launch &l) {
    w.launch = &l;
    w.counters = Counters();
    w.traffic.assign(l.buffers.size(), BufferTraffic());
    memset(w.cache, 0, sizeof w.cache);
    w.interrupts = 0;
    w.mode = (uint8_t)((l.options.checks ? kModeChecks : 0) | (l.options.counters ? kModeCount : 0));
}

static void work(Worker &w, Launch &l) {
    begin_work(w, l);
    tl_worker = &w;
    for (;;) {
        uint64_t n = l.next_cluster.fetch_add(1);
        if (n >= l.clusters_total || l.stop) break;
        l.active++;
        run_cluster(w, n);
        l.active--;
    }
    w.current = nullptr;
    std::lock_guard<std::mutex> hold(l.lock);
    merge_counters(l, w);
}

static void thread_main(Pool &p, unsigned id) {
    install_signal_handlers();
    uint64_t seen = 0;
    std::unique_lock<std::mutex> hold(p.lock);
    for (;;) {
        p.start.wait(hold, [&] { return p.generation != seen; });
        seen = p.generation;
        if (id >= p.wanted) continue;
        Worker &w = p.workers[id];
        Launch &l = *p.launch;
        hold.unlock();
        work(w, l);
        hold.lock();
        w.busy = false;
        if (--p.running == 0) p.finished.notify_all();
    }
}

static unsigned jobs_for(const Launch &l) {
    unsigned n = l.options.jobs ? l.options.jobs : std::max(1u, std::thread::hardware_concurrency());
    return (unsigned)std::min<uint64_t>(n, l.clusters_total);
}

static void out_of_time(Launch &l) {
    std::lock_guard<std::mutex> hold(l.lock);
    l.stop = true;
    RawDiagnostic d;
    d.check = Check::Hang;
    char text[128];
    snprintf(text, sizeof text, "the launch ran for more than %g s", l.options.timeout_s);
    d.detail = text;
    l.found.push_back(d);
}

static void run_on_pool(Launch &l) {
    Pool &p = pool();
    std::unique_lock<std::mutex> hold(p.lock);
    p.wanted = p.running = jobs_for(l);
    while (p.threads.size() < p.wanted) {
        unsigned id = (unsigned)p.threads.size();
        p.workers.emplace_back();
        pthread_t t{};
        std::thread made([&p, id] { thread_main(p, id); });
        t = made.native_handle();
        made.detach();
        p.threads.push_back(t);
    }
    for (unsigned i = 0; i < p.wanted; i++) p.workers[i].busy = true;
    p.launch = &l;
    p.generation++;
    p.start.notify_all();
    auto limit = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::nanoseconds>(
                                                       std::chrono::duration<double>(l.options.timeout_s));
    if (p.finished.wait_until(hold, limit, [&] { return p.running == 0; })) return;
    out_of_time(l);
    do
        for (unsigned i = 0; i < p.wanted; i++)
            if (p.workers[i].busy) interrupt(p.workers[i], (unsigned long)p.threads[i]);
    while (!p.finished.wait_for(hold, std::chrono::milliseconds(50), [&] { return p.running == 0; }));
}

/* --- the launch --- */

static const char *bad_configuration(const Config &c) {
    uint64_t threads = (uint64_t)c.block.x * c.block.y * c.block.z, blocks = (uint64_t)c.cluster.x * c.cluster.y * c.cluster.z;
    if (!threads || threads > kMaxThreads || c.block.z > 64) return "a block has 1 to 1024 threads, at most 64 in z";
    if (!c.grid.x || !c.grid.y || !c.grid.z) return "the grid is empty";
    if (c.grid.x > 0x7fffffffu || c.grid.y > 65535 || c.grid.z > 65535) return "the grid is at most 2^31-1 x 65535 x 65535";
    if (!blocks || blocks > kMaxCluster) return "a cluster has 1 to 16 blocks";
    if (c.grid.x % c.cluster.x || c.grid.y % c.cluster.y || c.grid.z % c.cluster.z) return "the grid is no multiple of the cluster";
    if (c.shared_bytes > kSharedLimit) return "a block has at most 227 KiB of shared memory";
    return nullptr;
}

static void finish(Launch &l, double seconds) {
    the_report = Report();
    the_report.kernel = l.what.name;
    the_report.seconds = seconds;
    std::stable_sort(l.found.begin(), l.found.end(),
                     [](const RawDiagnostic &a, const RawDiagnostic &b) { return a.order < b.order; });
    for (const RawDiagnostic &d : l.found) the_report.errors.push_back(resolve(l, d));
    l.totals.buffers.resize(l.buffers.size());
    for (size_t i = 0; i < l.buffers.size(); i++) l.totals.buffers[i].name = l.buffers[i]->name;
    auto &v = l.totals.buffers;
    v.erase(std::remove_if(v.begin(), v.end(),
                           [](const BufferTraffic &t) { return !(t.bytes_read | t.bytes_written); }), v.end());
    the_report.counters = std::move(l.totals);
    if (!l.options.quiet)
        for (const Diagnostic &d : the_report.errors) fprintf(stderr, "simt: %s\n", d.text().c_str());
}

int execute(const Invocation &what) {
    static uint64_t launches = 0;
    if (in_kernel()) return 1; /* no launches from kernels */
    std::lock_guard<std::mutex> hold(launch_lock);
    Launch l(what);
    l.id = ++launches;
    l.options = options();
    const Config &c = what.config;
    auto start = std::chrono::steady_clock::now();
    if (const char *why = bad_configuration(c)) {
        RawDiagnostic d;
        d.check = Check::BadLaunch;
        d.detail = why;
        l.found.push_back(d);
    } else {
        l.threads = c.block.x * c.block.y * c.block.z;
        l.blocks_per_cluster = c.cluster.x * c.cluster.y * c.cluster.z;
        l.blocks_total = (uint64_t)c.grid.x * c.grid.y * c.grid.z;
        l.clusters_total = l.blocks_total / l.blocks_per_cluster;
        take_buffers(l);
        run_on_pool(l);
    }
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    finish(l, seconds);
    drop_buffers(l);
    if (after_launch) after_launch(the_report);
    return (int)the_report.errors.size();
}

} // namespace simt
