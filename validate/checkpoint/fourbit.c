/* fourbit: 4-bit checkpoints from the command line. This file reads the command line;
 * the commands are in cmd_*.c. */
#include "tool.h"

#include "atomic_file.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage_all[] =
    "fourbit quantize IN OUT     quantize the matrices of a safetensors file to 4 bits\n"
    "fourbit dequantize IN OUT   and back\n"
    "fourbit error [FILE]        table of the quantization error for each format and block size\n"
    "fourbit info FILE           what is in a safetensors file\n"
    "\n"
    "`fourbit COMMAND --help` lists a command's options.\n"
    "Exit status: 0 done; 1 failed, with one line that says why (nothing is written then); 2 wrong usage.\n";

#define SELECT_HELP                                                                              \
    "  --include REGEX      only tensors whose name matches (POSIX extended, anywhere in it)\n"  \
    "  --exclude REGEX      not these; default: embeddings, norms and heads; '' for none\n"
#define BACKEND_HELP                                                                             \
    "  --backend NAME       cpu (default) or reference\n"                                        \
    "  --threads N          at most N threads; default: one for each core\n"

static const char usage_quantize[] =
    "fourbit quantize [options] IN.safetensors OUT.safetensors\n"
    "\n"
    "Quantizes the 2-D F32, BF16 and F16 tensors of IN; everything else is copied as it is.\n"
    "  --format NAME        nf4 (default), fp4, int4, int4-affine\n"
    "  --block-size N       32, 64 (default), 128 ... 4096 elements that share a scale\n"
    "  --double-quant       the scales in 8 bits as well\n"
    "  --normalize          to zero mean and unit variance first; mean and deviation are kept in OUT\n"
    SELECT_HELP BACKEND_HELP
    "\n"
    "OUT appears whole, or not at all. nf4 and fp4 without --normalize are Hugging Face bnb-4bit checkpoints;\n"
    "transformers also wants this in config.json:\n"
    "  \"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true,\n"
    "    \"bnb_4bit_quant_type\": \"nf4\", \"bnb_4bit_use_double_quant\": true (with --double-quant)}\n"
    "bitsandbytes does not read int4, int4-affine or normalised tensors, and says so.\n";

static const char usage_dequantize[] =
    "fourbit dequantize [options] IN.safetensors OUT.safetensors\n"
    "\n"
    "Turns the 4-bit weights of IN back into matrices; everything else is copied as it is.\n"
    "  --dtype NAME         fp32, bf16, fp16; default: what each weight was before it was quantized\n"
    BACKEND_HELP;

static const char usage_error[] =
    "fourbit error [options] [FILE.safetensors]\n"
    "\n"
    "Quantizes every selected matrix of FILE in every format and block size, with and without double quantization,\n"
    "and prints the error, per tensor and in total. Without a FILE: Gaussian, Student-t (5 degrees of freedom) and\n"
    "uniform data.\n"
    "  --csv FILE           the same as CSV\n"
    "  --formats LIST       nf4,fp4,int4,int4-affine (default: all)\n"
    "  --block-sizes LIST   32,64,128,256,512,1024,2048,4096 (default: all)\n"
    "  --samples N          elements of each synthetic tensor; default 4194304\n"
    "  --normalize          to zero mean and unit variance first, undone after\n"
    "  --plots              draw the CSV with plots/plot.sh, into its folder (needs --csv)\n"
    SELECT_HELP BACKEND_HELP
    "\n"
    "mse, mae and max_abs are in the tensor's units; sqnr_db is the power of the tensor over that of the error.\n"
    "mse_expected and mae_expected are what theory gives for Gaussian data of the tensor's mean square; they are\n"
    "empty for data known to be otherwise, with double quantization, and where there is no closed form.\n";

static const char usage_info[] =
    "fourbit info FILE.safetensors\n"
    "\n"
    "Lists the tensors, the 4-bit weights among them and what would not be quantized.\n";

/* ---- options: one table, and for each command the letters it takes ------------------------- */

typedef struct command {
    const char *name, *usage, *letters;
    int least, most; /* file names */
    int (*run)(const options *);
} command;

static const command commands[] = {
    {"quantize", usage_quantize, "fbdniexth", 2, 2, cmd_quantize},
    {"dequantize", usage_dequantize, "yxth", 2, 2, cmd_dequantize},
    {"error", usage_error, "cFBspniexth", 0, 1, cmd_error},
    {"info", usage_info, "h", 1, 1, cmd_info}};

static const struct option table[] = {
    {"format", required_argument, NULL, 'f'},      {"block-size", required_argument, NULL, 'b'},
    {"double-quant", no_argument, NULL, 'd'},      {"normalize", no_argument, NULL, 'n'},
    {"include", required_argument, NULL, 'i'},     {"exclude", required_argument, NULL, 'e'},
    {"backend", required_argument, NULL, 'x'},     {"threads", required_argument, NULL, 't'},
    {"dtype", required_argument, NULL, 'y'},       {"csv", required_argument, NULL, 'c'},
    {"formats", required_argument, NULL, 'F'},     {"block-sizes", required_argument, NULL, 'B'},
    {"samples", required_argument, NULL, 's'},     {"plots", no_argument, NULL, 'p'},
    {"help", no_argument, NULL, 'h'},              {NULL, 0, NULL, 0}};

static int wrong(const command *c, const char *format, const char *what)
{
    fprintf(stderr, "fourbit %s: ", c->name);
    fprintf(stderr, format, what);
    fprintf(stderr, "; `fourbit %s --help` lists the options\n", c->name);
    return EXIT_USAGE;
}

static bool number(const char *text, long long least, long long most, long long *out)
{
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *text && !*end && errno == 0 && *out >= least && *out <= most;
}

static bool named_format(const char *name, size_t length, fb_format *out)
{
    for (int f = 0; f < FB_FORMAT_COUNT; f++) {
        const char *known = fb_format_name((fb_format)f);
        if (strlen(known) == length && memcmp(known, name, length) == 0) {
            *out = (fb_format)f;
            return true;
        }
    }
    return false;
}

static bool named_block_size(const char *text, size_t length, int *index)
{
    char digits[8];
    long long n;
    if (length >= sizeof digits) return false;
    snprintf(digits, sizeof digits, "%.*s", (int)length, text);
    if (!number(digits, FB_BLOCK_MIN, FB_BLOCK_MAX, &n) || !fb_block_size_valid(n)) return false;
    for (*index = 0; FB_BLOCK_MIN << *index < n;) ++*index;
    return true;
}

/* A comma-separated list of formats or of block sizes. */
static bool list(const char *text, bool formats, options *o)
{
    memset(formats ? o->formats : o->block_sizes, 0, formats ? sizeof o->formats : sizeof o->block_sizes);
    for (;;) {
        size_t length = strcspn(text, ",");
        fb_format f;
        int index;
        if (formats ? !named_format(text, length, &f) : !named_block_size(text, length, &index)) return false;
        *(formats ? &o->formats[f] : &o->block_sizes[index]) = true;
        if (!text[length]) return true;
        text += length + 1;
    }
}

static bool named_backend(const char *name, options *o)
{
    o->backend_given = true;
    for (int b = FB_BACKEND_REFERENCE; b <= FB_BACKEND_CPU; b++)
        if (strcmp(name, fb_backend_name((fb_backend)b)) == 0) {
            o->backend = (fb_backend)b;
            return true;
        }
    return false;
}

static bool named_dtype(const char *name, options *o)
{
    o->dtype_given = true;
    for (int t = 0; t < FB_DTYPE_COUNT; t++)
        if (strcmp(name, fb_dtype_name((fb_dtype)t)) == 0) {
            o->dtype = (fb_dtype)t;
            return true;
        }
    return false;
}

static bool take(int letter, const char *value, options *o)
{
    long long n = 0;
    int index;
    switch (letter) {
    case 'f': return named_format(value, strlen(value), &o->format);
    case 'b':
        if (!named_block_size(value, strlen(value), &index)) return false;
        o->block_size = FB_BLOCK_MIN << index;
        return true;
    case 'd': return o->double_quant = true;
    case 'n': return o->normalize = true;
    case 'p': return o->plots = true;
    case 'i': return (o->include = value) != NULL;
    case 'e': return (o->exclude = value) != NULL;
    case 'c': return (o->csv = value) != NULL;
    case 'x': return named_backend(value, o);
    case 'y': return named_dtype(value, o);
    case 'F': return list(value, true, o);
    case 'B': return list(value, false, o);
    case 't':
        if (!number(value, 1, 4096, &n)) return false;
        o->threads = (int)n;
        return true;
    case 's':
        if (!number(value, 1, 1LL << 34, &n)) return false;
        o->samples = n;
        return true;
    }
    return false;
}

/* The exit status, unless standard output could not take what was said. */
static int finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    fprintf(stderr, "fourbit: cannot write to standard output: %s\n", strerror(errno));
    return EXIT_FAILED;
}

static int run_command(const command *c, int argc, char **argv, options *o)
{
    opterr = 0;
    for (int letter, index = -1; (letter = getopt_long(argc, argv, "h", table, &index)) != -1; index = -1) {
        if (letter == '?') return wrong(c, "\"%s\" is not an option, or lacks its value", argv[optind - 1]);
        if (letter == 'h') {
            fputs(c->usage, stdout);
            return finish(EXIT_OK);
        }
        if (!strchr(c->letters, letter)) return wrong(c, "--%s is not for this command", table[index].name);
        if (!take(letter, optarg, o)) return wrong(c, "--%s: not a value it takes", table[index].name);
    }
    int files = argc - optind;
    if (files < c->least) return wrong(c, "%s", c->most == 2 ? "IN and OUT are needed" : "a FILE is needed");
    if (files > c->most) return wrong(c, "\"%s\" is one file name too many", argv[optind + c->most]);
    if (o->plots && !o->csv) return wrong(c, "%s", "--plots needs --csv FILE");
    o->in = files > 0 ? argv[optind] : NULL;
    o->out = files > 1 ? argv[optind + 1] : NULL;
    af_cleanup_on_signals();
    return finish(c->run(o));
}

int main(int argc, char **argv)
{
    options o = {.format = FB_NF4, .block_size = 64, .samples = 1 << 22, .program = argv[0]};
    memset(o.formats, true, sizeof o.formats);
    memset(o.block_sizes, true, sizeof o.block_sizes);
    if (argc < 2) {
        fputs(usage_all, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        fputs(usage_all, stdout);
        return finish(EXIT_OK);
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("fourbit " FB_VERSION);
        return finish(EXIT_OK);
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return run_command(&commands[i], argc - 1, argv + 1, &o);
    fprintf(stderr, "fourbit: \"%s\" is not a command\n\n%s", argv[1], usage_all);
    return EXIT_USAGE;
}
