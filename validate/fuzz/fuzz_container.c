/* fuzz_container.c: any bytes as a safetensors file with whatever 4-bit modules it claims.
 *
 * What st_open accepts must be readable to its last byte without another check, and
 * what bnb_open accepts must dequantize; the sanitizers watch. */
#include "fuzz.h"

#include "validate/checkpoint/bnb4bit.h"

#include <stdio.h>
#include <stdlib.h>

/* More would only slow the fuzzer: a claim of many elements needs as many bytes. */
enum { MOST_ELEMENTS = 1 << 16 };

static void decode(const bnb_module *m)
{
    static float decoded[MOST_ELEMENTS];
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    if (m->state.elements > MOST_ELEMENTS) return;
    fb_status status = fb_dequantize(&ctx, &m->w, decoded, FB_F32);
    if (status == FB_OK) return;
    fprintf(stderr, "a module was accepted that the library refuses: %s\n", ctx.message);
    abort();
}

static void open_modules(const st_file *f)
{
    bnb_index index;
    ck_error e;
    if (!bnb_scan(&index, f, &e)) return;
    for (size_t i = 0; i < index.count; i++) {
        bnb_module m;
        if (!bnb_open(&m, f, index.states[i], &e)) continue;
        decode(&m);
        bnb_close(&m);
    }
    bnb_index_free(&index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    st_file f;
    ck_error e = {0};
    if (!st_open_memory(&f, "fuzz", data, size, &e)) {
        if (strncmp(e.message, "fuzz: ", 6) != 0) abort(); /* a refusal names the file */
        return 0;
    }
    volatile uint8_t sum = 0;
    size_t bytes = f.data_start;
    for (size_t i = 0; i < f.count; i++) {
        const st_tensor *t = &f.tensors[i];
        for (size_t k = 0; k < t->bytes; k++) sum = (uint8_t)(sum + t->data[k]);
        if (st_find(&f, t->name) != t) abort();
        bytes += t->bytes;
    }
    if (bytes != size) abort(); /* the tensors tile the file */
    open_modules(&f);
    st_close(&f);
    return 0;
}
