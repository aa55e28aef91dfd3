/* peer_server.c: the program fourbit-peer: loads bitsandbytes' CPU library and runs it when asked (peer_protocol.h).
 *
 * Symbols of libbitsandbytes_cpu.so 0.50 (T: fp32, bf16, fp16; q: nf4, fp4):
 *
 *   cdequantize_blockwise_cpu_<q>_<T>(codes, absmax, out, blocksize, rows, cols)
 *   cdequantize_blockwise_cpu_fp32(code, codes, absmax, out, blocksize, n)          8-bit: nested absmax
 *   gemv_4bit_inference_cpu_<q>_bf16(M, N, K, x, packed, absmax, out, blocksize, x_stride, out_stride)
 *   has_avx512bf16_cpu()
 *
 * Products as its Python does them: with AVX512-BF16 (and N % 32 == 0) forward
 * calls the gemv, for every M, on weights that the module has repacked once and
 * scales rounded to bf16; on any other CPU, and backward on all of them, it
 * dequantizes and calls PyTorch's linear. OpenBLAS' fp32 stands for the latter.
 * Started by the benchmark: descriptor 3 is the socket.
 */
#include "bench/peer_protocol.h"
#include "bench/peers.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef void dequantize4_fn(const uint8_t *, const float *, void *, long long, long long, long long);
typedef void dequantize8_fn(const float *, const uint8_t *, const float *, float *, long long, long long);
typedef void gemv_fn(int64_t, int64_t, int64_t, const uint16_t *, const uint8_t *, const uint16_t *, uint16_t *, int64_t,
                     int64_t, int64_t);

static struct {
    void *library;
    fb_case c;
    int threads;
    uint8_t *codes, *absmax_codes;
    float *absmax;      /* decoded here, when it came nested */
    float *nested_absmax, *activations;
    float nested_offset, map[FB_CODES8];
    dequantize4_fn *dequantize4;
    dequantize8_fn *dequantize8;
    gemv_fn *gemv; /* NULL: dequantize and multiply */
    uint8_t *packed;
    uint16_t *absmax_bf16, *x_bf16, *y_bf16;
    float *weights; /* fp32, written at every call of an unfused product */
    void *out;
    size_t out_bytes;
} peer;

static void *symbol(const char *format, const char *q, const char *t)
{
    char name[96];
    snprintf(name, sizeof name, format, q, t);
    return dlsym(peer.library, name);
}

/* A pointer to a function from dlsym's pointer to an object, as POSIX means it. */
#define FUNCTION(target, object)              \
    do {                                      \
        void *found = (object);               \
        memcpy(&(target), &found, sizeof found); \
    } while (0)

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
    free(peer.codes), free(peer.absmax_codes), free(peer.absmax), free(peer.nested_absmax), free(peer.activations);
    free(peer.packed), free(peer.absmax_bf16), free(peer.x_bf16), free(peer.y_bf16), free(peer.weights), free(peer.out);
    void *library = peer.library;
    memset(&peer, 0, sizeof peer);
    peer.library = library;
}

static void *block(size_t bytes)
{
    size_t huge = (size_t)2 << 20, align = bytes >= huge ? huge : 64;
    void *p = aligned_alloc(align, (bytes + align) / align * align);
    if (p) memset(p, 0xff, bytes);
    return p;
}

/* ---- setup ------------------------------------------------------------------------------------- */

/* Its layout for the gemv: rows in groups of 32; for each pair of k, 64 values (32
 * rows x 2), the first 32 in the low nibbles, the others in the high ones. */
static void pack(int64_t n, int64_t k)
{
    for (int64_t group = 0; group < n / 32; group++)
        for (int64_t pair = 0; pair < k / 2; pair++)
            for (int64_t j = 0; j < 32; j++) {
                int64_t low = (group * 32 + j / 2) * k + 2 * pair + j % 2, high = low + 16 * k;
                peer.packed[(group * (k / 2) + pair) * 32 + j] =
                    (uint8_t)(fb_nibble(peer.codes, high) << 4 | fb_nibble(peer.codes, low));
            }
}

static void decode_absmax(int64_t blocks)
{
    if (!peer.absmax_codes) return;
    peer.dequantize8(peer.map, peer.absmax_codes, peer.nested_absmax, peer.absmax, FB_NESTED_BLOCK, blocks);
    for (int64_t i = 0; i < blocks; i++) peer.absmax[i] += peer.nested_offset;
}

/* Its fused path, where there is one. */
static bool make_fused(int64_t blocks)
{
    const fb_case *c = &peer.c;
    int (*has_bf16)(void) = NULL;
    FUNCTION(has_bf16, dlsym(peer.library, "has_avx512bf16_cpu"));
    if (c->op != FB_OP_GEMM || !has_bf16 || !(has_bf16() & 1) || c->dtype != FB_BF16 || c->rows % 32 ||
        c->cols % c->block_size)
        return false;
    FUNCTION(peer.gemv, symbol("gemv_4bit_inference_cpu_%s_bf16%s", fb_format_name(c->format), ""));
    if (!peer.gemv) return false;
    int64_t per_row = c->cols / c->block_size;
    peer.packed = block((size_t)(c->rows * c->cols / 2));
    peer.absmax_bf16 = block((size_t)blocks * 2);
    peer.x_bf16 = block((size_t)(c->m * c->cols) * 2);
    peer.y_bf16 = block((size_t)(c->m * c->rows) * 2);
    if (!peer.packed || !peer.absmax_bf16 || !peer.x_bf16 || !peer.y_bf16) return peer.gemv = NULL, false;
    pack(c->rows, c->cols);
    decode_absmax(blocks);
    for (int64_t row = 0; row < c->rows; row++)
        for (int64_t b = 0; b < per_row; b++)
            peer.absmax_bf16[b * c->rows + row] = fb_float_to_bf16(peer.absmax[row * per_row + b]);
    for (int64_t i = 0; i < c->m * c->cols; i++) peer.x_bf16[i] = fb_float_to_bf16(peer.activations[i]);
    return true;
}

static const char *find_symbols(void)
{
    const char *q = fb_format_name(peer.c.format);
    const char *t = fb_dtype_name(peer.c.op == FB_OP_DEQUANTIZE ? peer.c.dtype : FB_F32);
    FUNCTION(peer.dequantize4, symbol("cdequantize_blockwise_cpu_%s_%s", q, t));
    FUNCTION(peer.dequantize8, symbol("cdequantize_blockwise_cpu_fp32%s%s", "", ""));
    if (!peer.dequantize4) return "the library has no dequantizer of this format and type";
    if (peer.absmax_codes && !peer.dequantize8) return "the library has no 8-bit dequantizer";
    return NULL;
}

/* The next part of the payload. Without it there is nothing to answer: the other end reads why in the exit status. */
static void *take(size_t bytes)
{
    void *part = block(bytes);
    if (!part || !receive(part, bytes)) _exit(1);
    return part;
}

static void receive_data(uint64_t payload)
{
    fb_matrix w;
    fb_matrix_sizes s;
    const fb_case *c = &peer.c;
    fb_matrix_init(&w, c->format, c->rows, c->cols, c->block_size, c->double_quant);
    fb_matrix_get_sizes(&w, &s);
    size_t na = c->op == FB_OP_DEQUANTIZE ? 0 : (size_t)(c->m * (c->op == FB_OP_GEMM ? c->cols : c->rows)) * sizeof(float);
    if (payload != s.total + na) _exit(1);
    peer.codes = take(s.codes);
    if (c->double_quant) {
        peer.absmax = block((size_t)s.blocks * sizeof(float));
        peer.absmax_codes = take(s.absmax_codes);
        peer.nested_absmax = take(s.nested_absmax);
        if (!peer.absmax || !receive(&peer.nested_offset, sizeof(float))) _exit(1);
    } else {
        peer.absmax = take(s.absmax);
    }
    peer.activations = take(na);
}

static void set_up(const peer_request *request, peer_reply *reply)
{
    forget();
    peer.c = request->c, peer.threads = request->threads;
    memcpy(peer.map, fb_dynamic_bits[FB_MAP_SIGNED], sizeof peer.map);
    receive_data(request->payload);
    openblas_set_threads(peer.threads);
    const char *missing = find_symbols();
    if (missing) {
        reply->ok = false;
        snprintf(reply->text, sizeof reply->text, "%s", missing);
        return;
    }
    const fb_case *c = &peer.c;
    int64_t blocks = fb_block_count(c->rows * c->cols, c->block_size);
    bool product = c->op != FB_OP_DEQUANTIZE;
    reply->fused = make_fused(blocks);
    peer.out_bytes = product ? (size_t)(c->m * (c->op == FB_OP_GEMM ? c->rows : c->cols)) * sizeof(float)
                             : (size_t)(c->rows * c->cols) * fb_dtype_size(c->dtype);
    peer.out = block(peer.out_bytes);
    if (product && !peer.gemv) peer.weights = block((size_t)(c->rows * c->cols) * sizeof(float));
    if (!peer.out || (product && !peer.gemv && !peer.weights)) _exit(1);
    snprintf(reply->text, sizeof reply->text, "%s",
             !product         ? "its dequantizer"
             : peer.gemv      ? "its fused gemv on its packed layout, scales in bf16"
             : c->op == FB_OP_GEMM
                 ? "its dequantizer, then OpenBLAS in fp32 (its fused gemv needs AVX512-BF16, bf16 and N % 32 = 0)"
                 : "its dequantizer, then OpenBLAS in fp32 (it has no fused backward)");
}

/* ---- running ------------------------------------------------------------------------------------------ */

static void one_call(void)
{
    const fb_case *c = &peer.c;
    if (peer.gemv) {
        peer.gemv(c->m, c->rows, c->cols, peer.x_bf16, peer.packed, peer.absmax_bf16, peer.y_bf16, c->block_size, c->cols, c->rows);
        return;
    }
    decode_absmax(fb_block_count(c->rows * c->cols, c->block_size));
    bool product = c->op != FB_OP_DEQUANTIZE;
    peer.dequantize4(peer.codes, peer.absmax, product ? (void *)peer.weights : peer.out, c->block_size, c->rows, c->cols);
    if (product) dense_product(c, peer.activations, peer.weights, peer.out);
}

static void run(const peer_request *request, peer_reply *reply)
{
    if (!peer.out || (request->cold && !timing_evict(peer.threads))) {
        reply->ok = false;
        snprintf(reply->text, sizeof reply->text, "%s", peer.out ? "no memory to empty the caches with" : "asked to run before it was set up");
        return;
    }
    double wall = timing_now(), cpu = timing_cpu_now();
    for (int i = 0; i < request->calls; i++) one_call();
    reply->span = (timing_span){timing_now() - wall, timing_cpu_now() - cpu};
}

int main(int argc, char **argv)
{
    if (argc != 2 || strcmp(argv[1], "--help") == 0) {
        fprintf(stderr, "fourbit-peer LIBRARY: runs bitsandbytes' CPU library for fourbit-bench, which starts it\n");
        return argc == 2 ? 0 : 2;
    }
    peer_reply hello = {.ok = true};
    peer.library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!peer.library) {
        const char *error = dlerror();
        hello.ok = false;
        snprintf(hello.text, sizeof hello.text, "%s", error ? error : "dlopen failed");
    }
    if (!peer_write(PEER_FD, &hello, sizeof hello)) return 1;
    for (peer_request request; receive(&request, sizeof request);) {
        peer_reply reply = {.ok = true};
        if (request.verb == PEER_SETUP) set_up(&request, &reply);
        else if (request.verb == PEER_RUN) run(&request, &reply);
        if (request.verb == PEER_RESULT) {
            for (int64_t i = 0; peer.gemv && i < peer.c.m * peer.c.rows; i++)
                ((float *)peer.out)[i] = fb_bf16_to_float(peer.y_bf16[i]);
            reply.payload = peer.out_bytes;
        }
        if (!peer_write(PEER_FD, &reply, sizeof reply)) return 1;
        if (reply.payload && !peer_write(PEER_FD, peer.out, peer.out_bytes)) return 1;
    }
    return 0;
}
