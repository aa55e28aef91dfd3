/* gpu_peer_server.c: the program fourbit-gpu-peer: loads bitsandbytes' CUDA library and runs it when asked
 * (peer_protocol.h). A process of its own because that library ends its process on a CUDA error.
 *
 * Symbols of libbitsandbytes_cuda<version>.so 0.50 (T: fp32, bf16, fp16; q: nf4, fp4):
 *
 *   cquantize_blockwise_<T>[_q](code, A, absmax, out, blocksize, n)                             default stream
 *   cdequantize_blockwise_<T>[_q](code, codes, absmax, out, blocksize, n, stream)
 *   cgemm_4bit_<T>(A, B, absmax, absmax8, code, offset, out, bias, M, N, K, blocksize, qtype, stream)
 *   cadam32bit_grad_<T>(g, p, s1, s2, unorm, max_unorm, param_norm, b1, b2, b3, alpha, eps, wd, step, lr, gnorm_scale, skip_zeros, n)
 *   cadam_8bit_blockwise_grad_<T>(p, g, s1, s2, b1, b2, b3, alpha, eps, step, lr, q1, q2, absmax1, absmax2, wd, gnorm_scale, skip_zeros, n)
 *
 * Doubly quantized weights are dequantized as its Python does: absmax by its 8-bit dequantizer, plus the offset (PyTorch's
 * addition there, a kernel of ours here), then the 4-bit one.
 *
 * The benchmark starts it with descriptor 3 as the socket. `fourbit-gpu-peer --probe FOLDER` says which library it would take.
 */
#include "bench/gpu_peers.h"
#include "bench/peer_protocol.h"
#include "kernels/backend.h"

#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef void quantize_fn(float *, void *, float *, uint8_t *, int, int);
typedef void dequantize_fn(float *, uint8_t *, float *, void *, int, int, void *);
typedef void gemm_fn(const void *, const uint8_t *, const float *, const uint8_t *, const float *, const float *, void *, const void *, int, int,
                     int, int, int, void *);
typedef void adam32_fn(void *, void *, float *, float *, float *, float, float, float, float, float, float, float, float, int, float, float, bool,
                       int);
typedef void adam8_fn(void *, void *, uint8_t *, uint8_t *, float, float, float, float, float, int, float, float *, float *, float *, float *, float,
                      float, bool, int);

static struct {
    void *library;
    device *streams[2]; /* default stream; one of its own */
    gpu_job job;
    gpu_runner r;
    float *maps;    /* on the device: signed, unsigned */
    float *decoded; /* absmax of a doubly quantized matrix */
    union {
        quantize_fn *quantize;
        dequantize_fn *dequantize;
        gemm_fn *gemm;
        adam32_fn *adam32;
        adam8_fn *adam8;
    } f;
    dequantize_fn *dequantize8;
} peer;

/* This program calls no kernel of ours: without this the linker would bring all of them in. */
const fb_ops *fb_cuda_ops(char *why)
{
    snprintf(why, FB_MESSAGE_SIZE, "fourbit-gpu-peer has no kernels");
    return NULL;
}

/* ---- the library ----------------------------------------------------------------------------------------------------------- */

static int version_of(const char *file)
{
    static const char stem[] = "libbitsandbytes_cuda";
    const char *digits = file + sizeof stem - 1;
    if (strncmp(file, stem, sizeof stem - 1) != 0 || !isdigit((unsigned char)*digits)) return 0;
    return atoi(digits);
}

static int newest_first(const void *a, const void *b) { return *(const int *)b - *(const int *)a; }

/* What the wheel's library of that version links, of this machine's. */
static void load_runtime(int major)
{
    char name[64];
    snprintf(name, sizeof name, major == 11 ? "libcudart.so.11.0" : "libcudart.so.%d", major);
    (void)cuda_library(name);
    const char *const stems[] = {"libcublasLt.so", "libcublas.so", "libcusparse.so"};
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s.%d", stems[i], major);
        (void)cuda_library(name);
    }
}

/* The newest that loads, of those that are no newer than the driver (13000 for CUDA 13.0; 0: not known). */
static void *load_library(const char *folder, int driver, char name[DEVICE_TEXT], char *why)
{
    int versions[32], count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && count < 32 && (e = readdir(dir));)
        if ((versions[count] = version_of(e->d_name)) > 0) count++;
    if (dir) closedir(dir);
    qsort(versions, (size_t)count, sizeof *versions, newest_first);
    snprintf(why, TIMING_WHY, "no libbitsandbytes_cuda*.so in %.200s (make peers fetches them)", folder);
    for (int i = 0; i < count; i++) {
        char path[4096];
        if (driver && versions[i] > driver / 1000 * 10 + driver % 1000 / 10) continue;
        load_runtime(versions[i] / 10);
        snprintf(path, sizeof path, "%s/libbitsandbytes_cuda%d.so", folder, versions[i]);
        snprintf(name, DEVICE_TEXT, "libbitsandbytes_cuda%d.so", versions[i]);
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library) return library;
        const char *error = dlerror();
        snprintf(why, TIMING_WHY, "%.380s", error ? error : "dlopen failed");
    }
    return NULL;
}

static void *symbol(const char *stem, const char *t, const char *q)
{
    char name[96];
    snprintf(name, sizeof name, "%s_%s%s%s", stem, t, *q ? "_" : "", q);
    return dlsym(peer.library, name);
}

static const char *find_function(const gpu_case *c)
{
    static const char *const stems[GPU_OP_COUNT] = {"cquantize_blockwise", "cdequantize_blockwise", "cquantize_blockwise", "cdequantize_blockwise",
                                                    "cadam32bit_grad", "cadam_8bit_blockwise_grad", "cgemm_4bit", NULL};
    bool by_format = c->op == GPU_QUANTIZE || c->op == GPU_DEQUANTIZE;
    void *found = stems[c->op] ? symbol(stems[c->op], fb_dtype_name(c->dtype), by_format ? fb_format_name(c->format) : "") : NULL;
    memcpy(&peer.f, &found, sizeof found);
    void *eight = symbol("cdequantize_blockwise", "fp32", "");
    memcpy(&peer.dequantize8, &eight, sizeof eight);
    return found && (eight || !c->double_quant) ? NULL : "the library has no such function";
}

/* ---- calls -------------------------------------------------------------------------------------------------------------------- */

static bool call(void *self, void *const p[JOB_ROLES], char why[TIMING_WHY])
{
    (void)self, (void)why;
    const gpu_case *c = &peer.job.c;
    const fb_adamw *h = &gpu_adamw_hyper;
    int n = (int)(c->rows * c->cols), blocks = c->block_size ? (int)fb_ceil_div(n, c->block_size) : 0;
    float *absmax = p[JOB_ABSMAX], *signed_map = peer.maps, *unsigned_map = peer.maps + FB_CODES8;
    device *d = peer.r.sets.d;
    switch (c->op) {
    case GPU_QUANTIZE: peer.f.quantize(NULL, p[JOB_DENSE], absmax, p[JOB_CODES], c->block_size, n); break;
    case GPU_QUANTIZE8: peer.f.quantize(signed_map, p[JOB_DENSE], absmax, p[JOB_CODES], c->block_size, n); break;
    case GPU_DEQUANTIZE8: peer.f.dequantize(signed_map, p[JOB_CODES], absmax, p[JOB_OUT], c->block_size, n, d->stream); break;
    case GPU_DEQUANTIZE:
        if (c->double_quant) {
            absmax = peer.decoded;
            peer.dequantize8(signed_map, p[JOB_ABSMAX_CODES], p[JOB_NESTED], absmax, FB_NESTED_BLOCK, blocks, d->stream);
            if (!device_cuda_add(d, absmax, p[JOB_OFFSET], blocks)) return snprintf(why, TIMING_WHY, "%s", d->why), false;
        }
        peer.f.dequantize(NULL, p[JOB_CODES], absmax, p[JOB_OUT], c->block_size, n, d->stream);
        break;
    case GPU_ADAMW32:
        peer.f.adam32(p[JOB_GRADS], p[JOB_DENSE], p[JOB_M], p[JOB_V], NULL, 0, 0, h->beta1, h->beta2, 0, 0, h->eps, h->weight_decay, (int)h->step,
                      h->lr, h->grad_scale, false, n);
        break;
    case GPU_ADAMW8:
        peer.f.adam8(p[JOB_DENSE], p[JOB_GRADS], p[JOB_M], p[JOB_V], h->beta1, h->beta2, 0, 0, h->eps, (int)h->step, h->lr, signed_map, unsigned_map,
                     p[JOB_M_ABSMAX], p[JOB_V_ABSMAX], h->weight_decay, h->grad_scale, false, n);
        break;
    case GPU_GEMM:
        peer.f.gemm(p[JOB_A], p[JOB_CODES], c->double_quant ? p[JOB_NESTED] : absmax, p[JOB_ABSMAX_CODES], c->double_quant ? signed_map : NULL,
                    p[JOB_OFFSET], p[JOB_OUT], NULL, (int)c->m, (int)c->rows, (int)c->cols, c->block_size, c->format == FB_FP4 ? 1 : 2, d->stream);
        break;
    default: return snprintf(why, TIMING_WHY, "no such operation"), false;
    }
    return true;
}

static bool receive(void *data, size_t bytes)
{
    for (char *at = data; bytes > 0;) {
        ssize_t n = read(PEER_FD, at, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n, bytes -= (size_t)n;
    }
    return true;
}

static void forget(void)
{
    device *d = peer.r.sets.d;
    if (d && peer.decoded) d->release(d, peer.decoded);
    if (d && peer.maps) d->release(d, peer.maps);
    gpu_runner_free(&peer.r);
    job_free(&peer.job);
    peer.maps = peer.decoded = NULL;
}

/* The payload must be read whatever happens after: without it there is nothing to answer. */
static void receive_job(const peer_request *request, char *why)
{
    if (!job_layout(&peer.job, &request->g, why)) _exit(1);
    uint64_t left = request->payload;
    for (int r = 0; r < JOB_ROLES; r++) {
        job_buffer *b = &peer.job.b[r];
        if (!(gpu_peer_roles(&peer.job) & JOB_BIT(r)) || !b->read) continue;
        if (b->bytes > left || !(b->initial = job_own(&peer.job, b->bytes)) || !receive(b->initial, b->bytes)) _exit(1);
        left -= b->bytes;
    }
    if (left) _exit(1);
}

static bool set_up(const peer_request *request, char *why)
{
    forget();
    receive_job(request, why);
    const gpu_case *c = &peer.job.c;
    const char *missing = find_function(c);
    device *d = peer.streams[gpu_peer_has_stream(c->op)];
    if (missing) return snprintf(why, TIMING_WHY, "%s", missing), false;
    peer.r = (gpu_runner){.call = call, .recorded = request->cold && d->records};
    if (!gpu_sets_make(&peer.r.sets, d, &peer.job, gpu_peer_roles(&peer.job), why)) return false;
    size_t map = FB_CODES8 * sizeof(float), blocks = c->double_quant ? (size_t)fb_ceil_div(c->rows * c->cols, c->block_size) : 0;
    peer.maps = d->alloc(d, 2 * map), peer.decoded = d->alloc(d, blocks * sizeof(float));
    if (!peer.maps || !peer.decoded || !d->upload(d, peer.maps, fb_dynamic_bits[FB_MAP_SIGNED], map) ||
        !d->upload(d, peer.maps + FB_CODES8, fb_dynamic_bits[FB_MAP_UNSIGNED], map))
        return snprintf(why, TIMING_WHY, "%s", d->why), false;
    snprintf(why, TIMING_WHY, "%s%s", c->op == GPU_GEMM ? "its cgemm_4bit" : c->double_quant ? "8-bit dequantize, add, 4-bit dequantize: three launches" : "its kernel",
             peer.r.recorded ? ", replayed" : ", launched one by one");
    return true;
}

/* Set 0 once more from its initial contents, as the check wants it. */
static bool reply_result(peer_reply *reply)
{
    void *got[JOB_ROLES];
    reply->ok = peer.r.sets.d && gpu_run_once(&peer.r, got, reply->text);
    if (!reply->ok) return peer_write(PEER_FD, reply, sizeof *reply);
    for (int r = 0; r < JOB_ROLES; r++) reply->payload += got[r] ? peer.job.b[r].bytes : 0;
    bool sent = peer_write(PEER_FD, reply, sizeof *reply);
    for (int r = 0; r < JOB_ROLES && sent; r++)
        if (got[r]) sent = peer_write(PEER_FD, got[r], peer.job.b[r].bytes);
    gpu_release(got);
    return sent;
}

static int probe(const char *folder)
{
    char name[DEVICE_TEXT] = "", why[TIMING_WHY] = "";
    int runtime = 0, driver = 0;
    device_cuda_versions(&runtime, &driver);
    void *library = load_library(folder, driver, name, why);
    printf("%s\n", library ? name : why);
    return library ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--probe") == 0) return probe(argv[2]);
    if (argc != 2 || strcmp(argv[1], "--help") == 0) {
        fprintf(stderr, "fourbit-gpu-peer FOLDER: runs bitsandbytes' CUDA library for fourbit-gpu, which starts it\n"
                        "fourbit-gpu-peer --probe FOLDER: which of the libraries there loads on this machine\n");
        return argc == 2 ? 0 : 2;
    }
    peer_reply hello = {.ok = true};
    char name[DEVICE_TEXT] = "";
    int runtime = 0, driver = 0;
    device_cuda_versions(&runtime, &driver);
    peer.streams[0] = device_cuda(false, hello.text);
    peer.streams[1] = peer.streams[0] ? device_cuda(true, hello.text) : NULL;
    if (peer.streams[1]) peer.library = load_library(argv[1], driver, name, hello.text);
    hello.ok = peer.library != NULL;
    if (hello.ok) snprintf(hello.text, sizeof hello.text, "%s", name);
    if (!peer_write(PEER_FD, &hello, sizeof hello)) return 1;
    for (peer_request request; receive(&request, sizeof request);) {
        peer_reply reply = {.ok = true};
        if (request.verb == PEER_RESULT) {
            if (!reply_result(&reply)) return 1;
            continue;
        }
        if (request.verb == PEER_SETUP) reply.ok = set_up(&request, reply.text), reply.fused = true;
        else if (!peer.r.sets.d) reply.ok = false, snprintf(reply.text, sizeof reply.text, "asked to run before it was set up");
        else reply.ok = gpu_run(&peer.r, request.calls, request.cold, &reply.span, reply.text);
        if (!peer_write(PEER_FD, &reply, sizeof reply)) return 1;
    }
    return 0;
}
