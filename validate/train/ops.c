/* ops.c: which table a backend has. The CUDA kernels are compiled twice, as the library's are: by nvcc (FB_WITH_CUDA) and for
 * the SIMT executor, which is there only in programs that link it. */
#include "ops.h"

#include "product_cublas.h"

#include <stdio.h>
#include <stdlib.h>

const lm_ops *lm_cuda_ops(void) __attribute__((weak));
const lm_ops *lm_simt_ops(void) __attribute__((weak));

const lm_ops *lm_backend_ops(fb_backend backend, char why[FB_MESSAGE_SIZE])
{
    fb_context ctx;
    fb_context_init(&ctx, backend);
    if (fb_backend_available(&ctx) != FB_OK) {
        memcpy(why, ctx.message, FB_MESSAGE_SIZE);
        return NULL;
    }
    if (backend == FB_BACKEND_REFERENCE) return lm_reference_ops();
    if (backend == FB_BACKEND_CPU) return lm_cpu_ops();
    const char *choice = getenv("FOURBIT_CUDA");
    bool simt = choice && strcmp(choice, "simt") == 0;
    if (backend == FB_BACKEND_CUDA && simt && lm_simt_ops) return lm_simt_ops();
    if (backend == FB_BACKEND_CUDA && !simt && lm_cuda_ops) return lm_with_cublas(lm_cuda_ops());
    snprintf(why, FB_MESSAGE_SIZE, "the training loop has no kernels for backend %s%s in this program", fb_backend_name(backend),
             simt ? " in the executor" : "");
    return NULL;
}
