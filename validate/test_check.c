/* test_check.c: the checker has to go red. Each test plants a bug that kernels really have
 * and requires the verdict that a person would want; and that sound results stay green. */
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS = 24, COLS = 160, N = ROWS * COLS, BLOCK = 64, M = 6 };

/* A quantized matrix, its dequantized values in bf16 and fp32, activations. */
typedef struct piece {
    guarded_matrix w;
    uint16_t half[N];
    float full[N], x[M * COLS], y[M * ROWS];
    double weights[N];
} piece;

static piece *piece_new(void)
{
    piece *p = calloc(1, sizeof *p);
    if (!p) exit(2);
    gm_new(&p->w, FB_NF4, ROWS, COLS, BLOCK, false);
    input_fill(INPUT_GAUSSIAN, 71, BLOCK, p->full, FB_F32, N);
    suite_reference_quantize(p->full, FB_F32, &p->w);
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    fb_dequantize(&ctx, &p->w.m, p->half, FB_BF16);
    fb_dequantize(&ctx, &p->w.m, p->full, FB_F32);
    input_fill(INPUT_GAUSSIAN, 72, BLOCK, p->x, FB_F32, M * COLS);
    check_weights(&p->w.m, FB_WEIGHTS_EXACT, FB_F32, p->weights);
    fb_gemm(&ctx, &p->w.m, M, p->x, FB_F32, NULL, p->y, FB_F32);
    return p;
}

static void piece_free(piece *p)
{
    gm_free(&p->w);
    free(p);
}

static const check_place here = {"planted", COLS, BLOCK};

static check_product product_of(const piece *p, const float *y)
{
    return (check_product){.what = "planted", .m = M, .p = ROWS, .l = COLS, .a = p->x, .a_dtype = FB_F32,
                           .weights = p->weights, .out = y, .out_dtype = FB_F32, .gaussian = true};
}

/* The product with a matrix that has a bug in it, as a kernel would compute it. */
static void product_with(const piece *p, const fb_matrix *wrong, float *y)
{
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    fb_gemm(&ctx, wrong, M, p->x, FB_F32, NULL, y, FB_F32);
}

#define EXPECT_RED(result, ...) expect_red((result), __LINE__, __VA_ARGS__)
static void expect_red(check_result r, int line, const char *needle)
{
    suite_require(!r.ok, __FILE__, line, "a planted bug passed: %s", r.text);
    suite_require(strstr(r.text, needle) != NULL, __FILE__, line, "the text lacks \"%s\": %s", needle, r.text);
}

static void sound_results_pass(void)
{
    piece *p = piece_new();
    check_product c = product_of(p, p->y);
    EXPECT(check_same(here, p->half, p->half, FB_BF16, N));
    EXPECT(check_nibbles(here, p->w.m.codes, p->w.m.codes, N));
    EXPECT(check_level2(&c));
    EXPECT(check_level3(&c));
    /* a sum in fp32 and in reverse order is right too */
    float y[M * ROWS];
    for (int i = 0; i < M * ROWS; i++) {
        y[i] = 0;
        for (int k = COLS - 1; k >= 0; k--) y[i] += p->x[i / ROWS * COLS + k] * p->full[i % ROWS * COLS + k];
    }
    c = product_of(p, y);
    EXPECT(check_level2(&c));
    piece_free(p);
}

static void nan_fails(void)
{
    piece *p = piece_new();
    float got[N];
    memcpy(got, p->full, sizeof got);
    got[777] = NAN;
    EXPECT_RED(check_same(here, got, p->full, FB_F32, N), "element 777 (row 4, block 12)");
    EXPECT_RED(check_same(here, got, got, FB_F32, N), "nan"); /* equal bits, and still no number */
    for (int level = 2; level <= 3; level++) {
        float y[M * ROWS];
        memcpy(y, p->y, sizeof y);
        y[100] = NAN;
        check_product c = product_of(p, y);
        EXPECT_RED(level == 2 ? check_level2(&c) : check_level3(&c), "element 100 (row 4, column 4)");
        y[100] = INFINITY;
        EXPECT_RED(level == 2 ? check_level2(&c) : check_level3(&c), "element 100");
        for (int i = 0; i < M * ROWS; i++) y[i] = NAN; /* a kernel that wrote nothing */
        EXPECT_RED(level == 2 ? check_level2(&c) : check_level3(&c), "WRONG");
    }
    piece_free(p);
}

static void swapped_nibbles(void)
{
    piece *p = piece_new();
    uint8_t swapped[N / 2];
    for (int i = 0; i < N / 2; i++) swapped[i] = (uint8_t)(p->w.m.codes[i] << 4 | p->w.m.codes[i] >> 4);
    EXPECT_RED(check_nibbles(here, swapped, p->w.m.codes, N), "differ");
    fb_matrix wrong = p->w.m;
    wrong.codes = swapped;
    float y[M * ROWS];
    product_with(p, &wrong, y);
    check_product c = product_of(p, y);
    EXPECT_RED(check_level2(&c), "WRONG");
    EXPECT_RED(check_level3(&c), "WRONG");
    /* one byte alone */
    memcpy(swapped, p->w.m.codes, sizeof swapped);
    int at = 500;
    while (swapped[at] >> 4 == (swapped[at] & 15)) at++;
    swapped[at] = (uint8_t)(swapped[at] << 4 | swapped[at] >> 4);
    product_with(p, &wrong, y);
    EXPECT_RED(check_level2(&c), "WRONG");
    /* and the nibble after an odd count */
    memcpy(swapped, p->w.m.codes, sizeof swapped);
    swapped[N / 2 - 1] ^= 1;
    EXPECT_RED(check_nibbles(here, swapped, p->w.m.codes, N - 1), "1 of 3839 differ, worst element 3839");
    piece_free(p);
}

static void scale_of_the_next_block(void)
{
    piece *p = piece_new();
    float shifted[N / BLOCK], y[M * ROWS];
    for (int b = 0; b < N / BLOCK; b++) shifted[b] = p->w.m.absmax[(b + 1) % (N / BLOCK)];
    fb_matrix wrong = p->w.m;
    wrong.absmax = shifted;
    product_with(p, &wrong, y);
    check_product c = product_of(p, y);
    EXPECT_RED(check_level2(&c), "WRONG");
    EXPECT_RED(check_level3(&c), "WRONG");
    /* one block alone takes its neighbour's */
    memcpy(shifted, p->w.m.absmax, sizeof shifted);
    shifted[7] = shifted[8];
    product_with(p, &wrong, y);
    EXPECT_RED(check_level2(&c), "WRONG");
    /* and scales that belong to rows, where blocks straddle them */
    for (int b = 0; b < N / BLOCK; b++) shifted[b] = p->w.m.absmax[b * BLOCK / COLS * COLS / BLOCK];
    product_with(p, &wrong, y);
    EXPECT_RED(check_level2(&c), "WRONG");
    piece_free(p);
}

/* Buffers are poisoned before a run, so what is not written is a NaN. */
static void one_unwritten_element(void)
{
    piece *p = piece_new();
    guard got = suite_buffer("dst", FB_BF16, N), y = suite_buffer("y", FB_F32, M * ROWS);
    memcpy(got.data, p->half, sizeof(uint16_t) * (N - 1));
    EXPECT_RED(check_same(here, got.data, p->half, FB_BF16, N), "1 of 3840 differ, worst element 3839 (row 23, block 59)");
    memcpy(y.data, p->y, sizeof(float) * (M * ROWS - 1));
    check_product c = product_of(p, (float *)y.data);
    EXPECT_RED(check_level2(&c), "1 of 144 outside");
    EXPECT_RED(check_level3(&c), "WRONG");
    guard_free(&got);
    guard_free(&y);
    piece_free(p);
}

/* The last, short piece of a row is computed from one element further on. */
static void shifted_tail(void)
{
    piece *p = piece_new();
    uint16_t got[N];
    memcpy(got, p->half, sizeof got);
    memmove(got + N - 9, got + N - 8, 8 * sizeof *got);
    EXPECT_RED(check_same(here, got, p->half, FB_BF16, N), "(row 23, block 59)");
    float y[M * ROWS];
    for (int i = 0; i < M * ROWS; i++) {
        double sum = 0;
        const float *x = p->x + i / ROWS * COLS, *w = p->full + i % ROWS * COLS;
        for (int k = 0; k < COLS; k++) sum += (double)x[k] * (double)w[k >= COLS - 7 && k < COLS - 1 ? k + 1 : k];
        y[i] = (float)sum;
    }
    check_product c = product_of(p, y);
    EXPECT_RED(check_level2(&c), "WRONG");
    /* a tail that is left out */
    for (int i = 0; i < M * ROWS; i++) y[i] = p->y[i] - p->x[i / ROWS * COLS + COLS - 1] * p->full[i % ROWS * COLS + COLS - 1];
    EXPECT_RED(check_level2(&c), "WRONG");
    piece_free(p);
}

static void wrong_rounding(void)
{
    piece *p = piece_new();
    uint16_t cut[N];
    int ties_up = 0;
    for (int i = 0; i < N; i++) cut[i] = (uint16_t)(fb_float_to_bits(p->full[i]) >> 16); /* truncated, not rounded */
    EXPECT_RED(check_same(here, cut, p->half, FB_BF16, N), "1 ulp");
    /* a product rounded to bf16 on its way to an fp32 output */
    float y[M * ROWS];
    for (int i = 0; i < M * ROWS; i++) y[i] = fb_bf16_to_float(fb_float_to_bf16(p->y[i]));
    check_product c = product_of(p, y);
    EXPECT_RED(check_level2(&c), "WRONG");
    /* a bf16 output truncated: every element is within an ulp, half of them on the wrong side */
    for (int i = 0; i < M * ROWS; i++) {
        cut[i] = (uint16_t)(fb_float_to_bits(p->y[i]) >> 16);
        ties_up += cut[i] != fb_float_to_bf16(p->y[i]);
    }
    c.out = cut;
    c.out_dtype = FB_BF16;
    check_result r = check_level2(&c);
    EXPECT_RED(r, "WRONG");
    REQUIRE(r.bad > 0 && r.bad <= ties_up, "%lld of %d truncated elements found", (long long)r.bad, ties_up);
    for (int i = 0; i < M * ROWS; i++) cut[i] = fb_float_to_bf16(p->y[i]);
    EXPECT(check_level2(&c));
    piece_free(p);
}

/* Weights rounded to bf16 by a path that declares them exact: per element it can hide in
 * bf16 outputs, not in fp32 ones, and never from the bound on the whole. */
static void wrong_declaration(void)
{
    piece *p = piece_new();
    float y[M * ROWS];
    for (int i = 0; i < M * ROWS; i++) {
        double sum = 0;
        for (int k = 0; k < COLS; k++)
            sum += (double)p->x[i / ROWS * COLS + k] * (double)fb_bf16_to_float(p->half[i % ROWS * COLS + k]);
        y[i] = (float)sum;
    }
    check_product c = product_of(p, y);
    EXPECT_RED(check_level2(&c), "WRONG");
    EXPECT(check_level3(&c)); /* which is what level 3 allows */
    piece_free(p);
}

static void lost_bias(void)
{
    piece *p = piece_new();
    float bias[ROWS];
    for (int i = 0; i < ROWS; i++) bias[i] = 0.01f;
    check_product c = product_of(p, p->y);
    c.bias = bias;
    EXPECT_RED(check_level2(&c), "WRONG");
    piece_free(p);
}

/* Each bound where it lies, worked out here from check.h's table: a little inside passes, a little outside does not, on
 * either side. A product of 1 and a term or a bias of 2^10 in it each, so that an ulp of the sum is small beside e. */
static void each_bound_at_its_edge(void)
{
    enum { L = 60, RANK = 3 };
    float a[L], b = 1024, y;
    double weights[L], terms[RANK], with[RANK];
    for (int kind = 0; kind < 3; kind++) {
        const double S = kind == 0 ? L : kind == 1 ? 1024 : RANK * 1024, sum = kind == 0 ? 0 : S;
        const int rounded = L + CHECK_EXTRA_ROUNDINGS + (kind == 2 ? RANK : 0);
        for (int k = 0; k < L; k++) a[k] = kind == 0, weights[k] = k % 2 ? 1 : -1; /* cancel each other */
        for (int r = 0; r < RANK; r++) terms[r] = 1024, with[r] = 1;
        check_product c = {.what = "edge", .m = 1, .p = 1, .l = L, .a = a, .a_dtype = FB_F32, .weights = weights,
                           .bias = kind == 1 ? &b : NULL, .rank = kind == 2 ? RANK : 0, .terms = terms, .with = with,
                           .out = &y, .out_dtype = FB_F32};
        for (int side = -1; side <= 1; side += 2) {
            y = (float)(sum + side * 0.95 * rounded * 0x1p-24 * S);
            EXPECT(check_level2(&c));
            y = (float)(sum + side * 1.05 * rounded * 0x1p-24 * S);
            EXPECT_RED(check_level2(&c), "1 of 1 outside");
        }
    }
}

/* Every element within its own bound, all of them off in the same direction: only the bound on the whole can tell. */
static void bounds_on_the_whole(void)
{
    piece *p = piece_new();
    float y[M * ROWS];
    check_product c = product_of(p, y);
    const double off[] = {0.9 * CHECK_FROBENIUS, 1.1 * CHECK_FROBENIUS, 3.95e-3, 3.99e-3}; /* 48 dB are 3.981e-3 */
    double squares = 0;
    for (int j = 0; j < M * ROWS; j++) squares += (double)p->y[j] * (double)p->y[j];
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < M * ROWS; j++) y[j] = (float)((double)p->y[j] + off[i] * sqrt(squares / (M * ROWS)));
        check_result r = i < 2 ? check_level2(&c) : check_level3(&c);
        if (i % 2 == 0) EXPECT(r);
        else EXPECT_RED(r, "0 of 144 outside");
    }
    piece_free(p);
}

static void guards(void)
{
    guard g = guard_new("planted", 100, GUARD_END, 4);
    EXPECT(guard_check(&g));
    g.data[-1] ^= 1;
    EXPECT_RED(guard_check(&g), "offset -1 of 100 bytes");
    guard_free(&g);
    g = guard_new("planted", 101, GUARD_END, 4); /* 3 bytes between its end and the page's */
    g.data[101] ^= 1;
    EXPECT_RED(guard_check(&g), "offset 101");
    guard_free(&g);
}

/* The first byte beyond is a fault, whether read or written, and the report names the buffer. */
static void faults(void)
{
    for (int i = 0; i < 3; i++) {
        int pipe_ends[2];
        REQUIRE(pipe(pipe_ends) == 0, "pipe");
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            dup2(pipe_ends[1], STDERR_FILENO);
            guard_report_faults();
            guard g = guard_new("the planted buffer", i == 2 ? 0 : 1000, i == 1 ? GUARD_START : GUARD_END, 1);
            volatile uint8_t *at = g.data + (i == 0 ? 1000 : i == 1 ? -1 : 0);
            if (i == 0) (void)*at;
            else *at = 1;
            _exit(0); /* it got away with it */
        }
        close(pipe_ends[1]);
        char text[512] = "";
        ssize_t length = read(pipe_ends[0], text, sizeof text - 1);
        close(pipe_ends[0]);
        int status = 0;
        waitpid(child, &status, 0);
        REQUIRE(length > 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0), "access %d outside a buffer went unnoticed", i);
        REQUIRE(strstr(text, "the planted buffer"), "the report does not name the buffer: %s", text);
    }
}

/* Units that take subnormals for zero: 2^-130 * 2^20 is lost, which is right of a backend that says so and of no other. */
static void flushed_subnormals(void)
{
    const float a[2] = {0x1p-130f, 0x1p-100f}, lost = 0x1p-100f, zero = 0;
    const double weights[2] = {0x1p20, 1};
    check_product c = {.what = "planted", .m = 1, .p = 1, .l = 2, .a = a, .a_dtype = FB_F32, .weights = weights, .out = &lost, .out_dtype = FB_F32};
    EXPECT_RED(check_level2(&c), "WRONG");
    c.flushed = true;
    EXPECT(check_level2(&c));
    c.out = &zero; /* the other product is no subnormal's */
    EXPECT_RED(check_level2(&c), "WRONG");
}

static const suite_test tests[] = {{"sound_results_pass", sound_results_pass},
                                   {"nan_fails", nan_fails},
                                   {"swapped_nibbles", swapped_nibbles},
                                   {"scale_of_the_next_block", scale_of_the_next_block},
                                   {"one_unwritten_element", one_unwritten_element},
                                   {"shifted_tail", shifted_tail},
                                   {"wrong_rounding", wrong_rounding},
                                   {"wrong_declaration", wrong_declaration},
                                   {"lost_bias", lost_bias},
                                   {"each_bound_at_its_edge", each_bound_at_its_edge},
                                   {"bounds_on_the_whole", bounds_on_the_whole},
                                   {"flushed_subnormals", flushed_subnormals},
                                   {"guards", guards},
                                   {"faults", faults},
                                   {NULL, NULL}};
const suite suite_check = {"check", "the checker goes red on planted bugs", false, tests};
