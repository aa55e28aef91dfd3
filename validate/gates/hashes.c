/* hashes.c: hashes of every operation's outputs, part by part, so that a change says where it is (gates.h). */
#include "gates.h"

#include <inttypes.h>
#include <string.h>

static uint64_t fnv1a(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint64_t element(const gate_part *p, size_t i)
{
    uint64_t v = 0;
    memcpy(&v, (const char *)p->data + i * (size_t)p->width, (size_t)p->width);
    return v;
}

/* Where a backend leaves the reference: what a hash cannot say. */
static void explain(const char *name, const gate_work *got, const gate_work *want)
{
    for (int i = 0; i < got->count; i++) {
        const gate_part *a = &got->parts[i], *b = &want->parts[i];
        size_t n = a->bytes / (size_t)a->width, first = n, different = 0;
        for (size_t j = 0; j < n; j++)
            if (element(a, j) != element(b, j)) different++, first = first == n ? j : first;
        if (different)
            fprintf(stderr, "%s: %s[%zu] is 0x%0*" PRIx64 ", the reference says 0x%0*" PRIx64 "; %zu of %zu differ\n", name, a->name, first,
                    2 * a->width, element(a, first), 2 * a->width, element(b, first), different, n);
    }
}

/* 1: failed. An operation that the backend has no kernel for is counted, not hashed. */
static int hash_case(const gate_case *c, fb_backend backend, bool contract, int *unsupported, FILE *to)
{
    gate_work got, want;
    char name[128], why[FB_MESSAGE_SIZE] = "";
    gate_name(c, name, sizeof name);
    bool ok = gate_open(&got, c, backend, why);
    fb_status status = ok ? gate_call(&got) : FB_OK;
    if (ok && status != FB_OK) memcpy(why, got.ctx.message, sizeof why);
    ok = ok && status == FB_OK;
    if (status == FB_UNSUPPORTED) {
        (*unsupported)++;
        fprintf(to, "%s unsupported=1\n", name);
    } else if (ok) {
        fprintf(to, "%s", name);
        for (int i = 0; i < got.count; i++)
            fprintf(to, " %s=%016" PRIx64, got.parts[i].name, fnv1a(got.parts[i].data, got.parts[i].bytes));
        fputc('\n', to);
    } else fprintf(stderr, "%s: %s\n", name, why);
    if (ok && contract && backend != FB_BACKEND_REFERENCE && gate_open(&want, c, FB_BACKEND_REFERENCE, why)) {
        gate_ops kept = gate_library; /* the reference is asked without what a test has planted */
        gate_library = (gate_ops){fb_quantize, fb_dequantize, fb_gemm, fb_gemm_dx};
        if (gate_call(&want) == FB_OK) explain(name, &got, &want);
        gate_library = kept;
        gate_close(&want);
    }
    gate_close(&got);
    return !ok && status != FB_UNSUPPORTED;
}

/* 37 rows of 259: no block fits a row, and the last block of every size is short. */
int gate_hashes(fb_backend backend, FILE *to)
{
    int failed = 0, unsupported = 0;
    gate_case c = {.rows = 37, .cols = 259};
    for (int op = GATE_QUANTIZE; op <= GATE_DEQUANTIZE; op++)
        for (int f = 0; f < FB_FORMAT_COUNT; f++)
            for (int32_t block = FB_BLOCK_MIN; block <= FB_BLOCK_MAX; block *= 2)
                for (int dq = 0; dq < 2; dq++)
                    for (int t = 0; t < FB_DTYPE_COUNT; t++) {
                        c.op = (gate_op)op, c.format = f, c.block = block, c.dq = dq, c.dtype = (fb_dtype)t;
                        failed += hash_case(&c, backend, true, &unsupported, to);
                    }
    for (int op = GATE_QUANTIZE8; op <= GATE_ADAMW8; op++)
        for (int map = 0; map < (op <= GATE_DEQUANTIZE8 ? FB_MAP8_COUNT : 1); map++)
            for (int32_t block = op <= GATE_DEQUANTIZE8 ? FB_BLOCK_MIN : 256; block <= (op <= GATE_DEQUANTIZE8 ? FB_BLOCK_MAX : 256); block *= 2)
                for (int t = 0; t < FB_DTYPE_COUNT; t++) {
                    c = (gate_case){.op = (gate_op)op, .format = map, .block = block, .dtype = (fb_dtype)t, .rows = 37, .cols = 259};
                    failed += hash_case(&c, backend, true, &unsupported, to);
                }
    return failed;
}

int gate_products(fb_backend backend, FILE *to)
{
    static const int64_t ms[] = {1, 3, 4, 17};
    int failed = 0, unsupported = 0, count = 0;
    for (int op = GATE_GEMM; op <= GATE_GEMM_DX; op++)
        for (int f = 0; f < FB_FORMAT_COUNT; f++)
            for (int t = 0; t < FB_DTYPE_COUNT; t++)
                for (int i = 0; i < 4; i++) {
                    gate_case c = {.op = (gate_op)op, .format = f, .block = 64, .dq = i % 2, .dtype = (fb_dtype)t, .rows = 33, .cols = 259, .m = ms[i]};
                    failed += hash_case(&c, backend, false, &unsupported, to), count++;
                }
    if (unsupported == count) fprintf(stderr, "this backend has no kernels for products yet\n");
    return unsupported == count ? -1 : failed;
}
