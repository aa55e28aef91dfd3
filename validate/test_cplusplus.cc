// test_cplusplus.cc: fourbit.h compiles as C++ and links from C++; one round trip through every call
// that a C++ program would make first. Exit status 0 when the values come back.
#include "fourbit.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

static bool ok(const fb_context &ctx, fb_status status, const char *what)
{
    if (status != FB_OK) std::fprintf(stderr, "%s: %s: %s\n", what, fb_status_name(status), ctx.message);
    return status == FB_OK;
}

int main()
{
    constexpr int64_t rows = 8, cols = 64;
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);

    fb_matrix w;
    if (!ok(ctx, fb_matrix_init(&w, FB_NF4, rows, cols, 64, true), "init")) return 1;
    std::vector<float> storage(fb_matrix_bytes(&w) / sizeof(float) + 1);
    if (!ok(ctx, fb_matrix_bind(&w, storage.data(), fb_matrix_bytes(&w)), "bind")) return 1;

    std::size_t needed = 0;
    if (!ok(ctx, fb_workspace_size(&ctx, FB_OP_QUANTIZE, &w, 0, FB_F32, &needed), "workspace")) return 1;
    ctx.workspace = std::aligned_alloc(64, (needed + 63) / 64 * 64);
    ctx.workspace_bytes = needed;

    std::vector<float> dense(rows * cols), back(rows * cols, NAN), x(cols, 0.0f), y(rows, NAN);
    for (std::size_t i = 0; i < dense.size(); i++) dense[i] = std::sin(static_cast<float>(i));
    x[3] = 1.0f;
    if (!ok(ctx, fb_quantize(&ctx, dense.data(), FB_F32, &w), "quantize")) return 1;
    if (!ok(ctx, fb_dequantize(&ctx, &w, back.data(), FB_F32), "dequantize")) return 1;
    if (!ok(ctx, fb_gemm(&ctx, &w, 1, x.data(), FB_F32, nullptr, y.data(), FB_F32), "gemm")) return 1;
    std::free(ctx.workspace);

    int wrong = 0;
    for (std::size_t i = 0; i < dense.size(); i++) wrong += !(std::fabs(dense[i] - back[i]) <= 0.2f); // NF4's widest gap: 0.304
    for (int64_t r = 0; r < rows; r++) wrong += !(y[r] == back[r * cols + 3]);
    if (wrong) std::fprintf(stderr, "test_cplusplus: %d values are wrong\n", wrong);
    else std::printf("test_cplusplus: fourbit %s from C++, %lld weights there and back\n", FB_VERSION, (long long)(rows * cols));
    return wrong != 0;
}
