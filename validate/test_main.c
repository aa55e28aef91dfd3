/* test_main.c: runs the CUnit suites, once for each backend and variant this machine has.
 *
 * A library decides once in a process which instruction set it uses, so each
 * variant of the CPU backend (FOURBIT_CPU=avx2 ...) is tested in a child process. */
#include "backend.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_SKIPPED = 77 };

static const suite *const suites[] = {&suite_check,      &suite_formats,    &suite_quantize, &suite_dequantize,
                                      &suite_double_quant, &suite_blockwise8, &suite_normalize, &suite_gemm,
                                      &suite_gemm_dx,    &suite_lora,       &suite_adamw,      &suite_api,      &suite_theory,
                                      &suite_golden,     &suite_large};
enum { SUITE_COUNT = sizeof suites / sizeof *suites };

/* test_fourbit_simt is this program linked with the CUDA backend's executor: it tests that and nothing else. */
const fb_ops *fb_simt_ops(char *why) __attribute__((weak));

/* What can be asked of the CPU backend; "" is its own choice. */
static const char *const cpu_variants[] = {"portable", "avx2", "avx512", "avx512bf16", "amx", ""};

static void print_help(const char *program)
{
    printf("usage: %s [--backend NAME] [--filter TEXT] [--list] [--update-golden] [--help]\n\n"
           "  --backend NAME    test one backend in this process: reference, cpu, cuda, plugin. Without it: reference,\n"
           "                    then cpu in each variant this machine can run, each in a process of its own\n"
           "  --filter TEXT     only tests whose \"suite.test\" contains TEXT\n"
           "  --list            print the tests and run nothing\n"
           "  --update-golden   rewrite validate/golden from the reference (look at the diff before committing it)\n\n"
           "Run it in the repository's root (golden vectors are read from validate/golden; FOURBIT_GOLDEN overrides).\n"
           "FOURBIT_TEST_SCALE=0.25 does a quarter of the long tests' work; that is the default under sanitizers.\n"
           "test_fourbit_simt is the same program for the CUDA kernels, in the SIMT executor (SIMT_SEED and so on apply);\n"
           "it ends with the products of a Hopper GPU, unless FOURBIT_CUDA_ARCH=sm80, sm90 or sm100 says which one to test.\n"
           "FOURBIT_PLUGIN=my.so --backend plugin tests a kernel of your own (kernels/fourbit_plugin.h).\n"
           "FOURBIT_CPU=avx2 chooses the CPU backend's variant. The exit status is 0 only if every test passed.\n",
           program);
}

typedef struct options {
    const char *backend, *filter;
    bool list;
} options;

/* Plain C takes minutes over 2^31 elements, the executor hours. */
static bool too_slow_for_large(void)
{
    /* The reference does what a plugin leaves out; a plugin that does it all may ask. */
    if (suite_backend == FB_BACKEND_PLUGIN) return !getenv("FOURBIT_TEST_LARGE");
    const char *variant = fb_backend_variant(suite_backend);
    return suite_backend == FB_BACKEND_REFERENCE || strcmp(variant, "portable") == 0 || strcmp(variant, "simt") == 0;
}

static bool named(const options *o, const suite *s, const suite_test *t)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", s->name, t->name);
    return !o->filter || strstr(name, o->filter);
}

static bool applies(const suite *s)
{
    if (s == &suite_large) return !too_slow_for_large();
    return s->per_backend || suite_backend == FB_BACKEND_REFERENCE;
}

static int list_tests(const options *o)
{
    for (int i = 0; i < SUITE_COUNT; i++) {
        printf("%s: %s%s\n", suites[i]->name, suites[i]->about, suites[i]->per_backend ? " [each backend]" : "");
        for (const suite_test *t = suites[i]->tests; t->name; t++)
            if (named(o, suites[i], t)) printf("  %s.%s\n", suites[i]->name, t->name);
    }
    return 0;
}

/* Every test that was asked for and applies to this backend, in this process. */
static int run_here(const options *o)
{
    int matches = 0, selected = 0;
    if (CU_initialize_registry() != CUE_SUCCESS) return 2;
    for (int i = 0; i < SUITE_COUNT; i++) {
        CU_pSuite added = NULL;
        for (const suite_test *t = suites[i]->tests; t->name; t++) {
            if (!named(o, suites[i], t)) continue;
            matches++;
            if (!applies(suites[i])) continue;
            if (!added) added = CU_add_suite(suites[i]->name, NULL, NULL);
            if (!added || !CU_add_test(added, t->name, t->run)) {
                fprintf(stderr, "CUnit: %s\n", CU_get_error_msg());
                return 2;
            }
            selected++;
        }
    }
    if (matches == 0) {
        fprintf(stderr, "no test matches --filter %s (--list shows them)\n", o->filter ? o->filter : "");
        return 2;
    }
    if (selected == 0) {
        printf("none of these tests is for this backend\n");
        return EXIT_SKIPPED;
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    bool ran = CU_basic_run_tests() == CUE_SUCCESS;
    unsigned failed = CU_get_number_of_failures(), asserts = CU_get_number_of_asserts();
    CU_cleanup_registry();
    printf("\n");
    if (asserts == 0) fprintf(stderr, "nothing was asserted\n");
    return ran && failed == 0 && asserts > 0 ? 0 : 1;
}

static int run_backend(const options *o)
{
    int b = 0;
    while (b < FB_BACKEND_COUNT && strcmp(o->backend, fb_backend_name((fb_backend)b)) != 0) b++;
    if (b == FB_BACKEND_COUNT) {
        fprintf(stderr, "--backend %s: the backends are reference, cpu, cuda, plugin\n", o->backend);
        return 2;
    }
    suite_backend = (fb_backend)b;
    fb_context ctx = suite_context();
    if (fb_backend_available(&ctx) != FB_OK) {
        printf("== %s %s: skipped: %s\n", o->backend, getenv("FOURBIT_CPU") ? getenv("FOURBIT_CPU") : "", ctx.message);
        return EXIT_SKIPPED;
    }
    const char *arch = suite_backend == FB_BACKEND_CUDA ? getenv("FOURBIT_CUDA_ARCH") : NULL;
    printf("== backend %s (%s%s%s)%s\n", o->backend, fb_backend_variant(suite_backend), arch ? ", " : "", arch ? arch : "",
           too_slow_for_large() ? "; the suite \"large\" runs on vector backends only" : "");
    fflush(stdout);
    return run_here(o);
}

/* This program again with one backend and variant; its exit status. */
static int run_child(const options *o, const char *program, const char *backend, const char *variant)
{
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        return 2;
    }
    if (child == 0) {
        if (*variant) setenv("FOURBIT_CPU", variant, 1);
        setenv("OMP_WAIT_POLICY", "passive", 0); /* thousands of tiny calls: spinning threads stall a busy machine */
        execl("/proc/self/exe", program, "--backend", backend, o->filter ? "--filter" : (char *)NULL, o->filter,
              (char *)NULL);
        perror("exec");
        _exit(2);
    }
    int status;
    if (waitpid(child, &status, 0) != child) return 2;
    if (WIFSIGNALED(status)) printf("== %s %s: died of signal %d\n", backend, variant, WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* The CUDA kernels on this machine's CPU. Nothing is skipped: without the executor this program does not link. The products once more as a
 * Hopper GPU would choose them, a quarter of the long tests' work: their kernels have tests of their own. */
static int run_executor(const options *o, const char *program)
{
    options cuda = *o;
    cuda.backend = "cuda";
    setenv("FOURBIT_CUDA", "simt", 0);
    int verdict = run_backend(&cuda);
    if (!getenv("FOURBIT_CUDA_ARCH") && (!o->filter || strstr(o->filter, "gemm"))) {
        setenv("FOURBIT_CUDA_ARCH", "sm90", 1);
        setenv("FOURBIT_TEST_SCALE", "0.25", 0);
        if (!cuda.filter) cuda.filter = "gemm";
        const int hopper = run_child(&cuda, program, "cuda", "");
        if (hopper != EXIT_SKIPPED && verdict == 0) verdict = hopper;
    }
    printf("== verdict: %s (the CUDA kernels in the SIMT executor)\n", verdict == 0 ? "all passed" : "FAILED");
    return verdict;
}

static int run_all(const options *o, const char *program)
{
    if (fb_simt_ops) return run_executor(o, program);
    options reference = *o;
    reference.backend = "reference";
    int verdict = run_backend(&reference);
    if (suite_update_golden || verdict == 2) return verdict;
    bool ran_reference = verdict != EXIT_SKIPPED;
    if (!ran_reference) verdict = 0;

    const char *forced = getenv("FOURBIT_CPU");
    int ran = 0;
    for (size_t i = 0; i < sizeof cpu_variants / sizeof *cpu_variants; i++) {
        const char *variant = cpu_variants[i];
        if (forced && *variant) continue;          /* the caller chose: once */
        if (!forced && !*variant && ran) continue; /* its own choice is among those tried */
        int status = run_child(o, program, "cpu", variant);
        if (status == EXIT_SKIPPED) continue;
        ran++;
        if (status != 0) verdict = 1;
    }
    if (!ran && !ran_reference) verdict = 1;
    printf("== verdict: %s (%s%d variants of the cpu backend)\n", verdict == 0 ? "all passed" : "FAILED",
           ran_reference ? "the reference and " : "", ran);
    return verdict;
}

int main(int argc, char **argv)
{
    options o = {0};
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--help") == 0) {
            print_help(argv[0]);
            return 0;
        } else if (strcmp(argv[i], "--list") == 0) o.list = true;
        else if (strcmp(argv[i], "--update-golden") == 0) suite_update_golden = true;
        else if (strcmp(argv[i], "--backend") == 0 && more) o.backend = argv[++i];
        else if (strcmp(argv[i], "--filter") == 0 && more) o.filter = argv[++i];
        else {
            fprintf(stderr, "%s: bad argument %s (--help tells)\n", argv[0], argv[i]);
            return 2;
        }
    }
#if !defined(__SANITIZE_ADDRESS__)
    guard_report_faults();
#endif
    if (o.list) return list_tests(&o);
    return o.backend ? run_backend(&o) : run_all(&o, argv[0]);
}
