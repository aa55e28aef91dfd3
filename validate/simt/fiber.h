/* fiber.h — stacks and the switch between them.  x86-64 uses 12 instructions; other machines use ucontext, which makes a
 * system call for the signal mask and costs about ten times as much. */
#ifndef SIMT_FIBER_H
#define SIMT_FIBER_H

#include "core.h"

namespace simt {

/* The i-th stack of this worker: kStackBytes with an unmapped page below. */
char *fiber_stack(Worker &, size_t i);
/* Set up `f` so that the first switch_to enters entry(), which must never return. */
void prepare_fiber(Fiber &f, void (*entry)(void));
void switch_to(Worker &, Fiber &); /* scheduler -> fiber; returns when the fiber gives up the processor */
void switch_back(Worker &);        /* running fiber -> scheduler */

} // namespace simt
#endif
