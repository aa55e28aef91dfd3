/* test_large.c: more than 2^31 elements (2^32 with FOURBIT_TEST_LARGE=1), in a few megabytes.
 *
 * One chunk of memory is mapped again and again, end to end, so that a tensor of gigabytes
 * repeats itself; its last rows have memory and contents of their own. An index cut to 32
 * bits lands in the repeated part or outside the mapping: then the last rows are wrong, or
 * still poison, or it is a fault. */
#include "model.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { COLS = 4096, CHUNK_ROWS = 128, TAIL_ROWS = 5, BLOCK = 4096, CHUNK = CHUNK_ROWS * COLS, TAIL = TAIL_ROWS * COLS };

static int64_t chunk_count(void)
{
    const char *large = getenv("FOURBIT_TEST_LARGE");
    int64_t elements = large && *large == '1' ? (int64_t)1 << 32 : (int64_t)1 << 31;
    return elements / CHUNK;
}
static int64_t row_count(void) { return chunk_count() * CHUNK_ROWS + TAIL_ROWS; }

/* chunk_bytes repeated, then tail_bytes. */
typedef struct repeated {
    uint8_t *data, *tail;
    size_t bytes, chunk_bytes;
} repeated;

static repeated repeated_new(size_t chunk_bytes, size_t tail_bytes)
{
    int64_t chunks = chunk_count();
    size_t page = (size_t)sysconf(_SC_PAGESIZE), tail_pages = (tail_bytes + page - 1) / page * page;
    repeated r = {.bytes = chunk_bytes * (size_t)chunks + tail_pages, .chunk_bytes = chunk_bytes};
    int fd = memfd_create("fourbit-large", 0);
    bool good = fd >= 0 && ftruncate(fd, (off_t)chunk_bytes) == 0;
    void *all = good ? mmap(NULL, r.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
    good = all != MAP_FAILED;
    r.data = all;
    for (int64_t i = 0; good && i < chunks; i++)
        good = mmap(r.data + (size_t)i * chunk_bytes, chunk_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
    r.tail = r.data + chunk_bytes * (size_t)chunks;
    good = good && mmap(r.tail, tail_pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
    if (!good) {
        fprintf(stderr, "test_large: cannot map %zu bytes of address space\n", r.bytes);
        exit(2);
    }
    close(fd);
    memset(r.data, 0xff, chunk_bytes);
    memset(r.tail, 0xff, tail_pages);
    return r;
}

static void repeated_free(repeated *r) { munmap(r->data, r->bytes); }

/* The repeated chunk and the tail as two small matrices: what the reference makes of them. */
typedef struct parts {
    guarded_matrix chunk, tail;
    guard chunk_dense, tail_dense;
} parts;

static parts parts_new(void)
{
    parts p;
    gm_new(&p.chunk, FB_NF4, CHUNK_ROWS, COLS, BLOCK, false);
    gm_new(&p.tail, FB_NF4, TAIL_ROWS, COLS, BLOCK, false);
    p.chunk_dense = suite_buffer("chunk", FB_BF16, CHUNK);
    p.tail_dense = suite_buffer("tail", FB_BF16, TAIL);
    input_fill(INPUT_BELL, 101, BLOCK, p.chunk_dense.data, FB_BF16, CHUNK);
    input_fill(INPUT_BELL, 102, BLOCK, p.tail_dense.data, FB_BF16, TAIL);
    suite_reference_quantize(p.chunk_dense.data, FB_BF16, &p.chunk);
    suite_reference_quantize(p.tail_dense.data, FB_BF16, &p.tail);
    return p;
}

static void parts_free(parts *p)
{
    gm_free(&p->chunk);
    gm_free(&p->tail);
    guard_free(&p->chunk_dense);
    guard_free(&p->tail_dense);
}

/* A big matrix whose codes repeat p's and whose absmax follows. */
static fb_matrix big_matrix(const parts *p, repeated *codes, guard *absmax, bool filled)
{
    fb_matrix w;
    fb_matrix_init(&w, FB_NF4, row_count(), COLS, BLOCK, false);
    *codes = repeated_new(CHUNK / 2, TAIL / 2);
    *absmax = suite_buffer("absmax", FB_F32, row_count());
    w.codes = codes->data;
    w.absmax = (float *)absmax->data;
    if (!filled) return w;
    memcpy(codes->data, p->chunk.m.codes, CHUNK / 2);
    memcpy(codes->tail, p->tail.m.codes, TAIL / 2);
    for (int64_t i = 0; i < row_count(); i++)
        w.absmax[i] = i < row_count() - TAIL_ROWS ? p->chunk.m.absmax[i % CHUNK_ROWS] : p->tail.m.absmax[i - (row_count() - TAIL_ROWS)];
    return w;
}

static void quantize(void)
{
    parts p = parts_new();
    repeated codes, dense = repeated_new(CHUNK * 2, TAIL * 2);
    guard absmax;
    fb_matrix w = big_matrix(&p, &codes, &absmax, false);
    memcpy(dense.data, p.chunk_dense.data, p.chunk_dense.bytes);
    memcpy(dense.tail, p.tail_dense.data, p.tail_dense.bytes);
    fb_context ctx = suite_context();
    REQUIRE(fb_quantize(&ctx, dense.data, FB_BF16, &w) == FB_OK, "%s", ctx.message);
    EXPECT(check_nibbles((check_place){"last rows", COLS, BLOCK}, codes.tail, p.tail.m.codes, TAIL));
    EXPECT(check_nibbles((check_place){"repeated rows", COLS, BLOCK}, codes.data, p.chunk.m.codes, CHUNK));
    int64_t wrong = 0;
    for (int64_t i = 0; i < row_count(); i++) {
        int64_t tail = i - (row_count() - TAIL_ROWS);
        wrong += !(w.absmax[i] == (tail < 0 ? p.chunk.m.absmax[i % CHUNK_ROWS] : p.tail.m.absmax[tail]));
    }
    REQUIRE(wrong == 0, "%lld of %lld absmax are wrong", (long long)wrong, (long long)row_count());
    EXPECT(guard_check(&absmax));

    /* and an Inf beyond 2^31 is found and named */
    fb_store(dense.tail, FB_BF16, TAIL - 2, INFINITY);
    fb_status status = fb_quantize(&ctx, dense.data, FB_BF16, &w);
    (void)suite_expect_nonfinite(&ctx, status, "src", row_count() * COLS - 2);
    guard_free(&absmax);
    repeated_free(&codes);
    repeated_free(&dense);
    parts_free(&p);
}

static void dequantize(void)
{
    parts p = parts_new();
    repeated codes, dense = repeated_new(CHUNK * 2, TAIL * 2);
    guard absmax, chunk = suite_buffer("want", FB_BF16, CHUNK), tail = suite_buffer("want", FB_BF16, TAIL);
    fb_matrix w = big_matrix(&p, &codes, &absmax, true);
    model_dequantize(&p.chunk.m, chunk.data, FB_BF16);
    model_dequantize(&p.tail.m, tail.data, FB_BF16);
    fb_context ctx = suite_context();
    REQUIRE(fb_dequantize(&ctx, &w, dense.data, FB_BF16) == FB_OK, "%s", ctx.message);
    EXPECT(check_same((check_place){"last rows", COLS, BLOCK}, dense.tail, tail.data, FB_BF16, TAIL));
    EXPECT(check_same((check_place){"repeated rows", COLS, BLOCK}, dense.data, chunk.data, FB_BF16, CHUNK));
    guard_free(&absmax);
    guard_free(&chunk);
    guard_free(&tail);
    repeated_free(&codes);
    repeated_free(&dense);
    parts_free(&p);
}

/* Y = X W^T over all rows: each repeated row gives the same dot product, to the bit. */
static void gemm(void)
{
    parts p = parts_new();
    repeated codes;
    guard absmax, x = suite_buffer("x", FB_BF16, COLS), y = suite_buffer("y", FB_F32, row_count());
    fb_matrix w = big_matrix(&p, &codes, &absmax, true);
    input_fill(INPUT_GAUSSIAN, 103, BLOCK, x.data, FB_BF16, COLS);
    fb_context ctx = suite_context();
    guard workspace = suite_workspace(&ctx, FB_OP_GEMM, &w, 1, FB_BF16);
    REQUIRE(fb_gemm(&ctx, &w, 1, x.data, FB_BF16, NULL, y.data, FB_F32) == FB_OK, "%s", ctx.message);

    double *weights = malloc(sizeof(double) * (CHUNK + TAIL));
    if (!weights) exit(2);
    fb_weights declared = fb_gemm_weights(&ctx, &w, 1, FB_BF16);
    check_weights(&p.chunk.m, declared, FB_BF16, weights);
    check_weights(&p.tail.m, declared, FB_BF16, weights + CHUNK);
    float *out = (float *)y.data;
    check_product first = {.what = "first rows", .m = 1, .p = CHUNK_ROWS, .l = COLS, .a = x.data, .a_dtype = FB_BF16,
                           .weights = weights, .out = out, .out_dtype = FB_F32, .gaussian = true};
    check_product last = first;
    last.what = "last rows";
    last.p = TAIL_ROWS;
    last.weights = weights + CHUNK;
    last.out = out + row_count() - TAIL_ROWS;
    EXPECT(check_level2(&first));
    EXPECT(check_level2(&last));
    int64_t wrong = 0;
    for (int64_t i = CHUNK_ROWS; i < row_count() - TAIL_ROWS; i++) wrong += !(out[i] == out[i % CHUNK_ROWS]);
    REQUIRE(wrong == 0, "%lld of the repeated rows differ from the first", (long long)wrong);
    EXPECT(guard_check(&y));
    free(weights);
    guard_free(&x);
    guard_free(&y);
    guard_free(&workspace);
    guard_free(&absmax);
    repeated_free(&codes);
    parts_free(&p);
}

static const suite_test tests[] = {{"quantize", quantize}, {"dequantize", dequantize}, {"gemm", gemm}, {NULL, NULL}};
const suite suite_large = {"large", "more than 2^31 elements", true, tests};
