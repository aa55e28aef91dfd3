/* instructions.c: one call of each operation of the CPU backend, for callgrind to count (gates.h).
 *
 * scripts/gates.sh runs it under --toggle-collect=gate_counted --dump-after=gate_counted: one dump a case, in the
 * order of the lines printed here. One thread; each case is called once before, so that no first call (symbols bound,
 * threads made, pages touched) is counted. */
#include "gates.h"

#include <string.h>

/* noipa: neither inlined nor cloned, so that callgrind finds it by its name. clang has no such attribute. */
#ifdef __clang__
__attribute__((noinline)) fb_status gate_counted(gate_work *w);
#else
__attribute__((noipa)) fb_status gate_counted(gate_work *w);
#endif
fb_status gate_counted(gate_work *w) { return gate_call(w); }

static int run(const gate_case *c, FILE *to)
{
    gate_work w;
    char name[128], why[FB_MESSAGE_SIZE] = "";
    gate_name(c, name, sizeof name);
    bool ok = gate_open(&w, c, FB_BACKEND_CPU, why) && gate_call(&w) == FB_OK && gate_counted(&w) == FB_OK;
    if (ok) fprintf(to, "%s\n", name);
    else fprintf(stderr, "%s: %s\n", name, why[0] ? why : w.ctx.message);
    gate_close(&w);
    return !ok;
}

int gate_instructions(FILE *to)
{
    static const int32_t blocks[] = {32, 128, 4096};
    static const int64_t ms[] = {1, 2, 4, 16, 64};
    int failed = 0;
    for (int op = GATE_QUANTIZE; op <= GATE_DEQUANTIZE; op++) {
        gate_case c = {.op = (gate_op)op, .block = 64, .dtype = FB_BF16, .rows = 32, .cols = 512};
        for (c.format = 0; c.format < FB_FORMAT_COUNT; c.format++)
            for (int dq = 0; dq < 2; dq++) c.dq = dq, failed += run(&c, to);
        c.format = FB_NF4, c.dq = false;
        for (int i = 0; i < 3; i++) c.block = blocks[i], failed += run(&c, to);
        c.block = 64;
        c.dtype = FB_F32, failed += run(&c, to);
        c.dtype = FB_F16, failed += run(&c, to);
    }
    for (int op = GATE_QUANTIZE8; op <= GATE_ADAMW8; op++)
        for (int map = 0; map < (op <= GATE_DEQUANTIZE8 ? FB_MAP8_COUNT : 1); map++)
            failed += run(&(gate_case){.op = (gate_op)op, .format = map, .block = 256, .dtype = FB_BF16, .rows = 32, .cols = 512}, to);
    for (int op = GATE_GEMM; op <= GATE_GEMM_DX; op++) {
        gate_case c = {.op = (gate_op)op, .block = 64, .dtype = FB_BF16, .rows = 48, .cols = 256, .m = 1};
        for (c.format = 0; c.format < FB_FORMAT_COUNT; c.format++) failed += run(&c, to);
        c.format = FB_NF4, c.dq = true;
        for (int i = 0; i < 5; i++) c.m = ms[i], failed += run(&c, to);
    }
    return failed;
}
