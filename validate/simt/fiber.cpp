#include "fiber.h"
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#include <ucontext.h>
#define SIMT_USE_UCONTEXT 1
#endif

namespace simt {

char *fiber_stack(Worker &w, size_t i) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), stride = kStackBytes + page;
    while (w.stacks.size() <= i) {
        constexpr size_t kTogether = 64; /* one mapping, many stacks: the kernel limits the number of mappings */
        char *area = (char *)mmap(nullptr, stride * kTogether, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (area == MAP_FAILED) throw std::bad_alloc();
        for (size_t k = 0; k < kTogether; k++) {
            mprotect(area + k * stride, page, PROT_NONE);
            w.stacks.push_back(area + k * stride + page);
        }
    }
    return w.stacks[i];
}

#ifndef SIMT_USE_UCONTEXT

extern "C" void simt_switch(void **save, void *load);
asm(".text\n"
    ".p2align 4\n"
    ".globl simt_switch\n"
    ".hidden simt_switch\n"
    ".type simt_switch, @function\n"
    "simt_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size simt_switch, . - simt_switch\n");

void prepare_fiber(Fiber &f, void (*entry)(void)) {
    /* Stacks are a power of two (and a page) apart; without this shift the hot ends of all fibers share cache sets. */
    size_t shift = (size_t)(f.global % 32) * 192;
    void **top = (void **)(f.stack + kStackBytes - 64 - shift / 64 * 64);
    *--top = nullptr; /* return address of entry(): the stack is 16-byte aligned plus 8 at its first instruction */
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f.sp = top;
}

void switch_to(Worker &w, Fiber &f) { simt_switch(&w.scheduler_sp, f.sp); }
void switch_back(Worker &w) { simt_switch(&w.current->sp, w.scheduler_sp); }

#else

struct Context {
    ucontext_t u;
};

void prepare_fiber(Fiber &f, void (*entry)(void)) {
    Context *c = (Context *)f.stack; /* the low end of the stack holds its own context */
    getcontext(&c->u);
    c->u.uc_stack.ss_sp = f.stack + sizeof(Context);
    c->u.uc_stack.ss_size = kStackBytes - sizeof(Context);
    c->u.uc_link = nullptr;
    makecontext(&c->u, entry, 0);
    f.sp = c;
}

void switch_to(Worker &w, Fiber &f) {
    ucontext_t here;
    w.scheduler_sp = &here;
    swapcontext(&here, &((Context *)f.sp)->u);
}
void switch_back(Worker &w) { swapcontext(&((Context *)w.current->sp)->u, (ucontext_t *)w.scheduler_sp); }

#endif

} // namespace simt
