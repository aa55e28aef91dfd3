/* main.c: fourbit-gates prints one gate's figures; scripts/gates.sh compares them with validate/gates/baselines. */
#include "gates.h"

#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "fourbit-gates hashes BACKEND     hashes of quantize, dequantize, 8-bit, normalise and AdamW: the same on every backend\n"
    "fourbit-gates products BACKEND   hashes of products: each backend's own\n"
    "fourbit-gates instructions       one counted call a line; run under callgrind by scripts/gates.sh\n"
    "fourbit-gates counters           the SIMT executor's counters per launch of the CUDA kernels\n"
    "fourbit-gates variant BACKEND    what runs behind a backend here (avx2 ...)\n"
    "fourbit-gates compiler           what this program was compiled by\n"
    "BACKEND: reference, cpu, cuda. FOURBIT_CPU=portable|avx2|avx512 ... chooses the CPU backend's instructions,\n"
    "FOURBIT_CUDA=simt the executor. Exit status: 0, 1 an operation failed, 2 usage, 77 not in this build or machine.\n";

enum { USAGE = 2, NOT_HERE = 77 };

static int backend_of(const char *name)
{
    for (int b = 0; b < FB_BACKEND_COUNT; b++)
        if (strcmp(name, fb_backend_name((fb_backend)b)) == 0) return b;
    return -1;
}

static int with_backend(const char *what, const char *name)
{
    int b = backend_of(name);
    fb_context ctx;
    if (b < 0) {
        fprintf(stderr, "fourbit-gates: %s is no backend (see --help)\n", name);
        return USAGE;
    }
    fb_context_init(&ctx, (fb_backend)b);
    if (fb_backend_available(&ctx) != FB_OK) {
        fprintf(stderr, "%s\n", ctx.message);
        return NOT_HERE;
    }
    if (strcmp(what, "variant") == 0) return printf("%s\n", fb_backend_variant((fb_backend)b)) < 0;
    if (strcmp(what, "hashes") == 0) return gate_hashes((fb_backend)b, stdout) != 0;
    int failed = gate_products((fb_backend)b, stdout);
    return failed < 0 ? NOT_HERE : failed > 0;
}

int main(int argc, char **argv)
{
#ifdef PLANT /* the tests' program */
    bool plant(const char *bug);
    if (!getenv("GATES_PLANT") || !plant(getenv("GATES_PLANT"))) return USAGE;
#endif
    const char *what = argc > 1 ? argv[1] : "";
    if (argc == 3 && (strcmp(what, "hashes") == 0 || strcmp(what, "products") == 0 || strcmp(what, "variant") == 0))
        return with_backend(what, argv[2]);
    if (argc == 2 && strcmp(what, "instructions") == 0) return gate_instructions(stdout) != 0;
    if (argc == 2 && strcmp(what, "counters") == 0) {
        setenv("FOURBIT_CUDA", "simt", 1);
        return gate_counters(stdout) != 0;
    }
    if (argc == 2 && strcmp(what, "compiler") == 0) {
#ifdef __clang__
        return printf("clang-%d.%d.%d\n", __clang_major__, __clang_minor__, __clang_patchlevel__) < 0;
#else
        return printf("gcc-%d.%d.%d\n", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__) < 0;
#endif
    }
    bool help = argc == 2 && (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0);
    fputs(usage, help ? stdout : stderr);
    return help ? 0 : USAGE;
}
