/* test_tiles.c: the AMX kernels on a model of its tiles. kernels/cpu/gemm_amx.c and gemm_dx_amx.c are compiled with
 * FOURBIT_TILES_MODEL into this program, where they take the place of the library's; everything else is the library.
 * The suites of products run as on any backend, after a few that hold the model itself to TDPBF16PS as Intel writes it.
 * What this cannot show: that the instructions do as the model, and how fast. No AMX hardware has run them yet. */
#include "../suite.h"

#include "model.h"

#include <unistd.h>

static uint16_t a[16][32], b[16][32];
static float sums[16][16];

static void run_dot(void)
{
    tiles_begin();
    tile_load(0, sums, sizeof sums[0]);
    tile_load(4, a, sizeof a[0]);
    tile_load(6, b, sizeof b[0]);
    tile_dot(0, 4, 6);
    tile_store(0, sums, sizeof sums[0]);
    tiles_end();
}

static void clear(void)
{
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    memset(sums, 0, sizeof sums);
}

/* Small integers: exact in any order, so which element meets which is all that shows. */
static void who_meets_whom(void)
{
    clear();
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 32; j++) {
            a[i][j] = fb_float_to_bf16((float)((i * 7 + j * 3) % 11 - 5));
            b[i][j] = fb_float_to_bf16((float)((i * 5 + j * 13) % 17 - 8));
        }
    for (int i = 0; i < 256; i++) sums[i / 16][i % 16] = (float)i;
    run_dot();
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float want = (float)(m * 16 + n);
            for (int l = 0; l < 32; l++) want += fb_bf16_to_float(a[m][l]) * fb_bf16_to_float(b[l / 2][2 * n + l % 2]);
            REQUIRE(sums[m][n] == want, "[%d][%d] is %g, want %g", m, n, (double)sums[m][n], (double)want);
        }
}

/* 2^24 + 1 + 1: even elements alone lose both ones; one odd element keeps its own until the end, where 2^24 + 1 ties to even. */
static void order_of_additions(void)
{
    for (int odd = 0; odd < 2; odd++) {
        clear();
        for (int l = 0; l < 6; l += 2) a[0][l] = fb_float_to_bf16(1), b[l / 2][0] = fb_float_to_bf16(l ? 1 : 0x1p24f);
        if (odd) a[0][1] = a[0][3] = fb_float_to_bf16(1), b[0][1] = b[1][1] = fb_float_to_bf16(1);
        run_dot();
        REQUIRE(sums[0][0] == (odd ? 0x1p24f + 2 : 0x1p24f), "%s: %a", odd ? "odd elements too" : "even elements", (double)sums[0][0]);
    }
}

static void subnormals_are_zero(void)
{
    static const struct { float x, w, old, want; } cases[] = {
        {0x1p-130f, 0x1p20f, 0, 0}, {0x1p20f, -0x1p-127f, 0, 0}, {0x1p-100f, 0x1p-30f, 0, 0}, {0, 0, 0x1p-127f, 0},
        {0x1p-126f, 1, 0, 0x1p-126f}, {1, 1, 0x1p-130f, 1}, {0x1p-100f, 0x1p-26f, -0x1.8p-126f, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        clear();
        a[3][0] = fb_float_to_bf16(cases[i].x);
        b[0][10] = fb_float_to_bf16(cases[i].w);
        sums[3][5] = cases[i].old;
        run_dot();
        REQUIRE(sums[3][5] == cases[i].want, "%a * %a + %a is %a", (double)cases[i].x, (double)cases[i].w, (double)cases[i].old, (double)sums[3][5]);
    }
}

static const suite_test tests[] = {{"who_meets_whom", who_meets_whom}, {"order_of_additions", order_of_additions},
                                   {"subnormals_are_zero", subnormals_are_zero}, {NULL, NULL}};
static const suite suite_model = {"model", "TDPBF16PS in plain C", false, tests};

int main(int argc, char **argv)
{
    (void)argc;
    if (!getenv("FOURBIT_CPU") || strcmp(getenv("FOURBIT_CPU"), "amx") != 0) {
        setenv("FOURBIT_CPU", "amx", 1);
        setenv("OMP_WAIT_POLICY", "passive", 0); /* read when the program is loaded */
        execv("/proc/self/exe", argv);
    }
    suite_backend = FB_BACKEND_CPU;
    fb_context ctx = suite_context();
    if (fb_backend_available(&ctx) != FB_OK) {
        printf("skipped: AMX's kernels need AVX512-BF16 beside their tiles, which this machine lacks\n");
        return 0;
    }
    static const suite *const suites[] = {&suite_model, &suite_gemm, &suite_gemm_dx, &suite_lora};
    if (CU_initialize_registry() != CUE_SUCCESS) return 2;
    for (size_t s = 0; s < sizeof suites / sizeof *suites; s++) {
        CU_pSuite added = CU_add_suite(suites[s]->name, NULL, NULL);
        for (const suite_test *t = suites[s]->tests; t->name; t++)
            if (!added || !CU_add_test(added, t->name, t->run)) return 2;
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    const bool ran = CU_basic_run_tests() == CUE_SUCCESS;
    const unsigned failed = CU_get_number_of_failures();
    CU_cleanup_registry();
    return ran && failed == 0 ? 0 : 1;
}
