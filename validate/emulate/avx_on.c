/* avx_on.c: let user programs use AVX and AVX-512 on a kernel that declined.
 *
 * Bochs 2.7 reports an XSAVE area size that Linux 6.1 finds inconsistent, so the kernel
 * switches XSAVE off, and with it every AVX instruction. This module sets
 * CR4.OSXSAVE and enables x87, SSE, AVX, and the AVX-512 state in XCR0. The kernel
 * then saves only the lower 128 bits of a register when it switches tasks: sound as
 * long as a single thread uses the upper ones, which is how run.sh runs programs. */
#include <linux/module.h>

static int __init avx_on(void)
{
    unsigned long cr4;
    asm volatile("mov %%cr4, %0" : "=r"(cr4));
    asm volatile("mov %0, %%cr4" ::"r"(cr4 | 1ul << 18) : "memory");
    asm volatile("xsetbv" ::"c"(0), "a"(0xe7), "d"(0));
    return 0;
}

module_init(avx_on);
MODULE_DESCRIPTION("turn AVX-512 on under an emulator");
MODULE_LICENSE("Dual MIT/GPL");
