/* plugin.c: FB_BACKEND_PLUGIN: a table from a shared object laid over the reference's (fourbit_plugin.h).
 *
 * Loaded once, at the first call that finds FOURBIT_PLUGIN set, and never unloaded: kernels may be running in other
 * threads, and their OpenMP runtime does not survive it. */
#include "fourbit_plugin.h"

#include "backend.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;
static char failure[FB_MESSAGE_SIZE];
static fb_plugin plugin; /* a copy: slots that an older plugin does not know stay NULL */
static fb_ops table;

/* ---- calls that the plugin may decline ----------------------------------------------------------------- */

static bool has_slot(fb_op op)
{
    switch (op) {
    case FB_OP_QUANTIZE: return plugin.quantize;
    case FB_OP_DEQUANTIZE: return plugin.dequantize;
    case FB_OP_GEMM: return plugin.gemm;
    case FB_OP_GEMM_DX: return plugin.gemm_dx;
    case FB_OP_LORA_FORWARD:
    case FB_OP_LORA_BACKWARD: return plugin.lora_forward && plugin.lora_backward;
    case FB_OP_COUNT: break;
    }
    return false;
}

static bool is_lora(fb_op op) { return op == FB_OP_LORA_FORWARD || op == FB_OP_LORA_BACKWARD; }

static bool takes(fb_op op, const fb_matrix *w, int64_t m, fb_dtype t)
{
    return has_slot(op) && (is_lora(op) || !plugin.supports || plugin.supports(op, w, m, t));
}

static size_t workspace(const fb_context *ctx, fb_op op, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if (!takes(op, w, m, t)) return fb_reference_ops()->workspace(ctx, op, w, m, t);
    return plugin.workspace ? plugin.workspace(ctx, op, w, m, t) : 0;
}

static fb_status quantize(fb_context *ctx, const void *src, fb_dtype t, fb_matrix *dst)
{
    return (takes(FB_OP_QUANTIZE, dst, 0, t) ? plugin.quantize : fb_reference_ops()->quantize)(ctx, src, t, dst);
}

static fb_status dequantize(fb_context *ctx, const fb_matrix *w, void *dst, fb_dtype t)
{
    return (takes(FB_OP_DEQUANTIZE, w, 0, t) ? plugin.dequantize : fb_reference_ops()->dequantize)(ctx, w, dst, t);
}

static fb_weights gemm_weights(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if (!takes(FB_OP_GEMM, w, m, t)) return fb_reference_ops()->gemm_weights(ctx, w, m, t);
    return plugin.gemm_weights ? plugin.gemm_weights(ctx, w, m, t) : FB_WEIGHTS_ROUNDED;
}

static fb_weights gemm_dx_weights(const fb_context *ctx, const fb_matrix *w, int64_t m, fb_dtype t)
{
    if (!takes(FB_OP_GEMM_DX, w, m, t)) return fb_reference_ops()->gemm_dx_weights(ctx, w, m, t);
    return plugin.gemm_dx_weights ? plugin.gemm_dx_weights(ctx, w, m, t) : FB_WEIGHTS_ROUNDED;
}

static fb_status gemm(fb_context *ctx, const fb_matrix *w, int64_t m, const void *x, fb_dtype xt, const void *bias,
                      void *y, fb_dtype yt)
{
    return (takes(FB_OP_GEMM, w, m, xt) ? plugin.gemm : fb_reference_ops()->gemm)(ctx, w, m, x, xt, bias, y, yt);
}

static fb_status gemm_dx(fb_context *ctx, const fb_matrix *w, int64_t m, const void *dy, fb_dtype yt, void *dx,
                         fb_dtype xt, bool accumulate)
{
    return (takes(FB_OP_GEMM_DX, w, m, yt) ? plugin.gemm_dx : fb_reference_ops()->gemm_dx)(ctx, w, m, dy, yt, dx, xt,
                                                                                          accumulate);
}

static size_t lora_workspace(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    return plugin.lora_workspace ? plugin.lora_workspace(ctx, op, w, rank, m, t) : 0;
}

static fb_weights lora_weights(const fb_context *ctx, fb_op op, const fb_matrix *w, int32_t rank, int64_t m, fb_dtype t)
{
    return plugin.lora_weights ? plugin.lora_weights(ctx, op, w, rank, m, t) : FB_WEIGHTS_ROUNDED;
}

/* The table to call; how many slots are the plugin's. */
static int lay_over_reference(void)
{
    table = *fb_reference_ops();
    table.variant = plugin.name;
    table.workspace = workspace;
    table.quantize = quantize, table.dequantize = dequantize;
    table.gemm = gemm, table.gemm_dx = gemm_dx;
    table.gemm_weights = gemm_weights, table.gemm_dx_weights = gemm_dx_weights;
    int own = 0;
    for (int op = 0; op < FB_OP_COUNT; op++) own += has_slot((fb_op)op);
#define TAKE(slot) \
    if (plugin.slot) table.slot = plugin.slot, own++
    TAKE(double_quantize);
    TAKE(decode_absmax);
    TAKE(quantize8);
    TAKE(dequantize8);
    TAKE(normalize);
    TAKE(denormalize);
    TAKE(adamw32);
    TAKE(adamw8);
#undef TAKE
    if (has_slot(FB_OP_LORA_FORWARD)) {
        table.lora_workspace = lora_workspace, table.lora_weights = lora_weights;
        table.lora_forward = plugin.lora_forward, table.lora_backward = plugin.lora_backward;
    }
    return own;
}

/* ---- loading ------------------------------------------------------------------------------------------- */

#define REFUSE(...) return (void)snprintf(failure, sizeof failure, __VA_ARGS__), false

/* path: for messages. Reads no field before those that say how long the table is. */
static bool accept(const fb_plugin *given, const char *path)
{
    const size_t least = offsetof(fb_plugin, supports);
    if (!given) REFUSE("%.100s: fourbit_plugin() returned NULL", path);
    if (given->version != FB_PLUGIN_VERSION)
        REFUSE("%.100s: interface version %u, this library has %d: rebuild it with this library's fourbit_plugin.h", path,
               given->version, FB_PLUGIN_VERSION);
    if (given->size > sizeof plugin || given->size < least || given->size % sizeof(void *))
        REFUSE("%.100s: its table has %u bytes, this library's %zu: rebuild it with this library's fourbit_plugin.h", path,
               given->size, sizeof plugin);
    if (given->context_size != sizeof(fb_context) || given->matrix_size != sizeof(fb_matrix))
        REFUSE("%.100s: built with another fourbit.h (its fb_context has %u bytes, this library's %zu; fb_matrix %u, %zu)",
               path, given->context_size, sizeof(fb_context), given->matrix_size, sizeof(fb_matrix));
    if (!given->name || !*given->name) REFUSE("%.100s: it has no name", path);
    memcpy(&plugin, given, given->size);
    if (!lay_over_reference()) REFUSE("%.100s: plugin %.60s implements no operation", path, plugin.name);
    return true;
}

static void load(void)
{
    char path[4096];
    const char *given = secure_getenv("FOURBIT_PLUGIN");
    /* A name without a slash is a file here, not one of the system's libraries. */
    if (snprintf(path, sizeof path, "%s%s", strchr(given, '/') ? "" : "./", given) >= (int)sizeof path) {
        snprintf(failure, sizeof failure, "FOURBIT_PLUGIN is longer than a path can be");
        return;
    }
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object) {
        snprintf(failure, sizeof failure, "FOURBIT_PLUGIN cannot be loaded: %.200s", dlerror());
        return;
    }
    const fb_plugin *(*entry)(void) = (const fb_plugin *(*)(void))dlsym(object, "fourbit_plugin");
    if (!entry) snprintf(failure, sizeof failure, "%.100s: it has no function fourbit_plugin (fourbit_plugin.h shows one)", path);
    loaded = entry && accept(entry(), path);
    if (!loaded) dlclose(object);
}

const fb_ops *fb_plugin_ops(char *why)
{
    const char *path = secure_getenv("FOURBIT_PLUGIN"); /* NULL in a setuid program: no code from its caller's files */
    if (!path || !*path) {
        snprintf(why, FB_MESSAGE_SIZE, "FOURBIT_PLUGIN is not set; it names a shared object (fourbit_plugin.h)");
        return NULL;
    }
    pthread_once(&once, load);
    if (loaded) return &table;
    memcpy(why, failure, sizeof failure);
    return NULL;
}

bool fb_plugin_supports(fb_op op, const fb_matrix *w, int64_t m, fb_dtype dtype)
{
    char why[FB_MESSAGE_SIZE];
    return w && fb_plugin_ops(why) && takes(op, w, m, dtype);
}
