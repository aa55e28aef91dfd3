/* watchdog.cpp — a kernel that crashes or never ends must cost its test a message and nothing more.
 *
 * A fatal signal inside a fiber becomes a Crash diagnostic, and the handler leaves for the scheduler by switching stacks; a
 * kernel owns nothing that could leak.  A thread that runs past the time limit gets a signal: at the first ones it may leave
 * by itself at its next access or switch, later the handler takes it away from wherever it spins.
 */
#include "core.h"
#include <csignal>
#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace simt {

static const int kFatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static struct sigaction previous[64];

static const void *program_counter(void *context) {
#if defined(__x86_64__)
    return (const void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (const void *)((ucontext_t *)context)->uc_mcontext.pc;
#else
    (void)context;
    return nullptr;
#endif
}

static void on_fatal(int signal, siginfo_t *info, void *context) {
    if (!in_kernel()) { /* not ours: as if we had never been here */
        sigaction(signal, &previous[signal], nullptr);
        raise(signal);
        return;
    }
    Fiber &f = self();
    const char *fault = (const char *)info->si_addr, *pc = (const char *)program_counter(context) + 1;
    bool overflow = signal == SIGSEGV && fault < f.stack && fault >= f.stack - 65536;
    if (overflow)
        report(Check::Crash, pc, nullptr, "stack overflow: a thread has %zu bytes for its locals", kStackBytes);
    else
        report(Check::Crash, pc, signal == SIGSEGV || signal == SIGBUS ? fault : nullptr, "signal %d (%s)", signal,
               signal == SIGSEGV ? "invalid address" : signal == SIGFPE ? "integer division" : "invalid instruction or access");
    abandon();
}

static const int kInterrupt = SIGURG; /* ignored by default, so a stray one hurts nobody */

static void on_interrupt(int, siginfo_t *, void *context) {
    if (!in_kernel()) return;
    Worker &w = *tl_worker;
    if (++w.interrupts < 4) return;
    report(Check::Hang, (const char *)program_counter(context) + 1, nullptr, "thread does not end (%.0f s allowed)",
           w.launch->options.timeout_s);
    abandon();
}

void interrupt(Worker &w, unsigned long os_thread) {
    w.mode.fetch_or(kModeStop);
    pthread_kill((pthread_t)os_thread, kInterrupt);
}

void install_signal_handlers() {
    /* every OS thread needs a stack of its own for handlers: the fiber's may be what overflowed */
    static thread_local bool have_stack = false;
    if (!have_stack) {
        stack_t s{};
        s.ss_size = 64 * 1024;
        s.ss_sp = mmap(nullptr, s.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* lives as long as we do */
        if (s.ss_sp != MAP_FAILED && sigaltstack(&s, nullptr) == 0) have_stack = true;
    }
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction a {};
        a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER; /* NODEFER: the handler does not return */
        a.sa_sigaction = on_fatal;
        for (int s : kFatal) sigaction(s, &a, &previous[s]);
        a.sa_sigaction = on_interrupt;
        a.sa_flags |= SA_RESTART;
        sigaction(kInterrupt, &a, nullptr);
    });
}

} // namespace simt
