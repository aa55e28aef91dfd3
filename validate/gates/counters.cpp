/* counters.cpp: what the SIMT executor counts of each launch of the CUDA kernels (gates.h). The counts are the same for every
 * order of threads and every number of OS threads. */
#include "gates.h"

#include "validate/simt/host.h"

#include <string>

/* As names have no blanks. */
static std::string word(const std::string &text) {
    std::string out;
    for (char c : text)
        if (c != ' ') out += c;
    return out;
}

static FILE *output;
static std::string prefix;
static int launches, broken;

static void put(const char *key, uint64_t value) {
    if (value) fprintf(output, " %s=%llu", key, (unsigned long long)value);
}

/* By width, so that a lost vector access shows as two narrower ones. Counters of zero are left out. */
static void widths(const char *what, const uint64_t counts[5]) {
    for (int i = 0; i < 5; i++)
        if (counts[i]) fprintf(output, " %s%d=%llu", what, 1 << i, (unsigned long long)counts[i]);
}

static void launched(const simt::Report &r) {
    const simt::Counters &c = r.counters;
    fprintf(output, "%s:%d:%s", prefix.c_str(), ++launches, word(r.kernel).c_str());
    put("barriers", c.barriers);
    put("sectors", c.global_sectors);
    put("sectors_ideal", c.global_sectors_ideal);
    put("bank_conflicts", c.bank_conflicts());
    put("wavefronts", c.shared_wavefronts);
    widths("load", c.global_loads);
    widths("store", c.global_stores);
    widths("shared_load", c.shared_loads);
    widths("shared_store", c.shared_stores);
    for (int i = 0; i < (int)simt::Instr::Count; i++) put(word(simt::name((simt::Instr)i)).c_str(), c.instr[i]);
    fputc('\n', output);
    broken += !r.ok();
}

static int run(const gate_case &c) {
    gate_work w;
    char name[128], why[FB_MESSAGE_SIZE] = "";
    gate_name(&c, name, sizeof name);
    prefix = name, launches = 0;
    simt::after_launch = nullptr;
    bool ok = gate_open(&w, &c, FB_BACKEND_CUDA, why);
    simt::after_launch = launched;
    fb_status status = ok ? gate_call(&w) : FB_UNSUPPORTED;
    simt::after_launch = nullptr;
    if (ok && status == FB_UNSUPPORTED && launches == 0) fprintf(output, "%s unsupported=1\n", name);
    else if (!ok || status != FB_OK) fprintf(stderr, "%s: %s\n", name, ok ? w.ctx.message : why);
    gate_close(&w);
    return !(ok && (status == FB_OK || status == FB_UNSUPPORTED));
}

extern "C" int gate_counters(FILE *to) {
    int failed = 0;
    output = to, broken = 0;
    for (int op = GATE_QUANTIZE; op < GATE_OP_COUNT; op++) {
        bool matrix = op <= GATE_DEQUANTIZE || op >= GATE_GEMM, product = op >= GATE_GEMM;
        for (int f = 0; f < (matrix ? FB_FORMAT_COUNT : 1); f++)
            for (int dq = 0; dq < (matrix ? 2 : 1); dq++)
                for (int64_t m : {1, 16}) {
                    if (!product && m > 1) continue;
                    gate_case c = {};
                    c.op = (gate_op)op, c.format = f, c.block = matrix ? 64 : 256, c.dq = dq, c.dtype = FB_BF16;
                    c.rows = 64, c.cols = 512, c.m = product ? m : 0;
                    failed += run(c);
                }
    }
    return failed + broken;
}
