/* test_golden.c: outputs that must never change.
 *
 *   golden/outputs.txt           hashes of each operation's outputs on fixed inputs. Made of integer
 *                                and correctly rounded arithmetic, so the same on every machine.
 *                                --update-golden rewrites it from the reference.
 *   golden/bitsandbytes_cpu.txt  inputs and outputs of a real peer (golden/capture_bitsandbytes.py). */
#include "suite.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *golden_path(const char *file, char *path, size_t size)
{
    const char *folder = getenv("FOURBIT_GOLDEN");
    snprintf(path, size, "%s/%s", folder ? folder : "validate/golden", file);
    return path;
}

/* ---- hashes ---------------------------------------------------------------------------------- */

enum { LINES_MAX = 400 };

typedef struct entry {
    char name[96];
    uint64_t hash;
} entry;

typedef struct record {
    entry lines[LINES_MAX];
    int count;
} record;

static uint64_t fnv1a(uint64_t h, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static void add(record *r, const char *name, uint64_t hash)
{
    if (r->count == LINES_MAX) {
        REQUIRE(false, "more than %d golden hashes", LINES_MAX);
        return;
    }
    snprintf(r->lines[r->count].name, sizeof r->lines[0].name, "%s", name);
    r->lines[r->count++].hash = hash;
}

static uint64_t hash_matrix(const guarded_matrix *w)
{
    const guard *parts[] = {&w->codes, &w->absmax, &w->absmax_codes, &w->nested_absmax, &w->nested_offset, &w->zero_points};
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) h = fnv1a(h, parts[i]->data, parts[i]->bytes);
    return h;
}

static uint64_t hash_guard(const guard *g) { return fnv1a(0xcbf29ce484222325u, g->data, g->bytes); }

/* Quantize from each type, dequantize into each type. */
static void record_four_bits(record *r, fb_format f, int32_t block, bool dq, input_kind kind)
{
    const int64_t rows = 37, cols = 259, n = rows * cols;
    for (int t = 0; t < FB_DTYPE_COUNT; t++) {
        char name[96];
        fb_context ctx = suite_context();
        guarded_matrix w;
        gm_new(&w, f, rows, cols, block, dq);
        guard src = suite_buffer("src", (fb_dtype)t, n), dst = suite_buffer("dst", (fb_dtype)t, n);
        input_fill(kind, 91, block, src.data, (fb_dtype)t, n);
        guard workspace = suite_workspace(&ctx, FB_OP_QUANTIZE, &w.m, 0, (fb_dtype)t);
        REQUIRE(fb_quantize(&ctx, src.data, (fb_dtype)t, &w.m) == FB_OK, "%s", ctx.message);
        REQUIRE(fb_dequantize(&ctx, &w.m, dst.data, (fb_dtype)t) == FB_OK, "%s", ctx.message);
        snprintf(name, sizeof name, "quantize/%s/b%d%s/%s/%s", fb_format_name(f), block, dq ? "+dq" : "", fb_dtype_name((fb_dtype)t),
                 input_name(kind));
        add(r, name, hash_matrix(&w));
        add(r, name + 0, hash_guard(&dst));
        memcpy(r->lines[r->count - 1].name, "dequant.", 8);
        guard_free(&workspace);
        guard_free(&src);
        guard_free(&dst);
        gm_free(&w);
    }
}

static void record_eight_bits(record *r, fb_map8 map, fb_dtype t)
{
    const int64_t n = 3001;
    char name[96];
    guard src = suite_buffer("src", t, n), absmax = suite_buffer("absmax", FB_F32, 12), dst = suite_buffer("dst", t, n);
    guard codes = guard_new("codes", (size_t)n, GUARD_END, 1);
    input_fill(INPUT_BELL, 92, 256, src.data, t, n);
    fb_context ctx = suite_context();
    REQUIRE(fb_quantize8(&ctx, map, src.data, t, n, 256, codes.data, (float *)absmax.data) == FB_OK, "%s", ctx.message);
    REQUIRE(fb_dequantize8(&ctx, map, codes.data, (float *)absmax.data, n, 256, dst.data, t) == FB_OK, "%s", ctx.message);
    snprintf(name, sizeof name, "quantize8/%s/b256/%s", map == FB_MAP_SIGNED ? "signed" : "unsigned", fb_dtype_name(t));
    add(r, name, fnv1a(hash_guard(&codes), absmax.data, absmax.bytes));
    add(r, name, hash_guard(&dst));
    memcpy(r->lines[r->count - 1].name, "dequant.", 8);
    REQUIRE(fb_normalize(&ctx, src.data, t, n, dst.data, t, (float *)absmax.data) == FB_OK, "%s", ctx.message);
    snprintf(name, sizeof name, "normalize/%s/%s", map == FB_MAP_SIGNED ? "once" : "again", fb_dtype_name(t));
    add(r, name, fnv1a(hash_guard(&dst), absmax.data, 2 * sizeof(float)));
    guard_free(&src);
    guard_free(&absmax);
    guard_free(&dst);
    guard_free(&codes);
}

/* Products are bit-defined in the reference only: double sums in ascending order. */
static void record_products(record *r, fb_format f, fb_dtype t)
{
    const int64_t rows = 33, cols = 130, m = 3;
    char name[96];
    guarded_matrix w;
    gm_new(&w, f, rows, cols, 64, true);
    guard dense = suite_buffer("dense", FB_F32, rows * cols), x = suite_buffer("x", t, m * cols), y = suite_buffer("y", t, m * cols);
    input_fill(INPUT_BELL, 93, 64, dense.data, FB_F32, rows * cols);
    input_fill(INPUT_BELL, 94, 64, x.data, t, m * cols);
    suite_reference_quantize(dense.data, FB_F32, &w);
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    REQUIRE(fb_gemm(&ctx, &w.m, m, x.data, t, x.data, y.data, t) == FB_OK, "%s", ctx.message); /* bias: the first row of x */
    snprintf(name, sizeof name, "gemm/reference/%s/%s", fb_format_name(f), fb_dtype_name(t));
    add(r, name, fnv1a(0xcbf29ce484222325u, y.data, (size_t)(m * rows) * fb_dtype_size(t)));
    REQUIRE(fb_gemm_dx(&ctx, &w.m, m, x.data, t, y.data, t, false) == FB_OK, "%s", ctx.message);
    snprintf(name, sizeof name, "gemm_dx/reference/%s/%s", fb_format_name(f), fb_dtype_name(t));
    add(r, name, hash_guard(&y));
    guard_free(&dense);
    guard_free(&x);
    guard_free(&y);
    gm_free(&w);
}

static void record_all(record *r)
{
    static const input_kind kinds[] = {INPUT_BELL, INPUT_OUTLIER, INPUT_THRESHOLD};
    r->count = 0;
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int k = 0; k < 3; k++)
            for (int i = 0; i < 4; i++) record_four_bits(r, (fb_format)f, 32 << (i * 2), i == k, kinds[k]);
    for (int map = 0; map < FB_MAP8_COUNT; map++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) record_eight_bits(r, (fb_map8)map, (fb_dtype)t);
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) record_products(r, (fb_format)f, (fb_dtype)t);
}

/* To a temporary file, then renamed: never half a file. */
static void write_hashes(const record *r)
{
    char path[512], temporary[520];
    golden_path("outputs.txt", path, sizeof path);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    FILE *file = fopen(temporary, "w");
    REQUIRE(file != NULL, "%s cannot be written", temporary);
    if (!file) return;
    bool good = fprintf(file, "# FNV-1a of outputs of the reference; rewritten by test_fourbit --update-golden\n") > 0;
    for (int i = 0; i < r->count; i++) good &= fprintf(file, "%016" PRIx64 " %s\n", r->lines[i].hash, r->lines[i].name) > 0;
    good &= fclose(file) == 0;
    REQUIRE(good && rename(temporary, path) == 0, "%s cannot be written", path);
    printf("%d hashes written to %s ", r->count, path);
}

static void output_hashes(void)
{
    static record r;
    char path[512], line[160], name[96];
    record_all(&r);
    if (suite_update_golden) {
        write_hashes(&r);
        return;
    }
    FILE *file = fopen(golden_path("outputs.txt", path, sizeof path), "r");
    REQUIRE(file != NULL, "%s cannot be read (run in the repository's root, or set FOURBIT_GOLDEN)", path);
    if (!file) return;
    int at = 0;
    while (fgets(line, sizeof line, file)) {
        uint64_t hash;
        if (line[0] == '#') continue;
        if (sscanf(line, "%16" SCNx64 " %95s", &hash, name) != 2 || at >= r.count) {
            REQUIRE(false, "%s: line \"%s\" belongs to no output", path, line);
            break;
        }
        REQUIRE(strcmp(name, r.lines[at].name) == 0, "%s has %s where the test has %s", path, name, r.lines[at].name);
        REQUIRE(hash == r.lines[at].hash, "%s: outputs hash to %016" PRIx64 ", recorded %016" PRIx64, name, r.lines[at].hash, hash);
        at++;
    }
    fclose(file);
    REQUIRE(at == r.count, "%s has %d hashes, the test %d", path, at, r.count);
}

/* ---- a peer's vectors -------------------------------------------------------------------------- */

typedef struct vector {
    char name[64];
    int width, count; /* bytes of an element; elements */
    uint8_t *data;    /* native byte order */
} vector;

enum { VECTORS_MAX = 64 };

static int hex_digit(int c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

/* One element's digits; false at anything else. */
static bool read_element(FILE *file, int width, uint8_t *to)
{
    uint32_t value = 0;
    for (int d = 0; d < 2 * width; d++) {
        int c = fgetc(file);
        while (c == '\n') c = fgetc(file);
        if (hex_digit(c) < 0) return false;
        value = value << 4 | (uint32_t)hex_digit(c);
    }
    if (width == 1) *to = (uint8_t)value;
    else if (width == 2) memcpy(to, &(uint16_t){(uint16_t)value}, 2);
    else memcpy(to, &value, 4);
    return true;
}

static int read_vectors(const char *file_name, vector vectors[VECTORS_MAX])
{
    char path[512], type[8];
    int count = 0, c;
    FILE *file = fopen(golden_path(file_name, path, sizeof path), "r");
    REQUIRE(file != NULL, "%s cannot be read (run in the repository's root, or set FOURBIT_GOLDEN)", path);
    if (!file) return 0;
    while ((c = fgetc(file)) == '#')
        while (c != '\n' && c != EOF) c = fgetc(file);
    ungetc(c, file);
    while (count < VECTORS_MAX) {
        vector *v = &vectors[count];
        int fields = fscanf(file, " array %63s %7s %d", v->name, type, &v->count);
        if (fields == EOF) break;
        v->width = type[1] == '8' ? 1 : type[1] == '1' ? 2 : 4;
        bool good = fields == 3 && v->count > 0 && v->count < 1 << 20;
        v->data = good ? malloc((size_t)(v->count * v->width)) : NULL;
        for (int i = 0; good && v->data && i < v->count; i++) good = read_element(file, v->width, v->data + i * v->width);
        REQUIRE(good && v->data, "%s: array %d is malformed", path, count);
        if (!good || !v->data) break;
        count++;
    }
    fclose(file);
    return count;
}

static const vector *find(const vector *vectors, int count, const char *stem, const char *suffix)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", stem, suffix);
    for (int i = 0; i < count; i++)
        if (strcmp(vectors[i].name, name) == 0) return &vectors[i];
    REQUIRE(false, "no array %s among the golden vectors", name);
    return NULL;
}

static void free_vectors(vector *vectors, int count)
{
    for (int i = 0; i < count; i++) free(vectors[i].data);
}

static void peer_dequantize(void)
{
    vector v[VECTORS_MAX] = {0};
    int count = read_vectors("bitsandbytes_cpu.txt", v);
    const vector *codes = find(v, count, "codes4", ""), *absmax = find(v, count, "absmax4", "");
    for (int f = FB_NF4; codes && absmax && f <= FB_FP4; f++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            const int64_t rows = 16, cols = 80, n = rows * cols;
            char suffix[32];
            snprintf(suffix, sizeof suffix, "_%s_%s", fb_format_name((fb_format)f), fb_dtype_name((fb_dtype)t));
            const vector *want = find(v, count, "dequantize", suffix);
            if (!want || want->count != n || codes->count != n / 2 || absmax->count != n / 64) {
                REQUIRE(false, "the arrays of dequantize%s have the wrong size", suffix);
                continue;
            }
            fb_matrix w;
            fb_matrix_init(&w, (fb_format)f, rows, cols, 64, false);
            w.codes = codes->data;
            w.absmax = (float *)absmax->data;
            guard got = suite_buffer("dst", (fb_dtype)t, n);
            fb_context ctx = suite_context();
            REQUIRE(fb_dequantize(&ctx, &w, got.data, (fb_dtype)t) == FB_OK, "%s", ctx.message);
            EXPECT(check_same((check_place){want->name, cols, 64}, got.data, want->data, (fb_dtype)t, n));
            guard_free(&got);
        }
    free_vectors(v, count);
}

/* The peer finds 8-bit codes through a table of 65536 bins over [-1, 1]: its code may be the
 * worse of two neighbours by what two bins' width makes up for, and it has no codes 124 ... 130.
 * absmax is exact, and so is decoding. */
static void compare_codes8(const vector *source, const vector *codes, const uint8_t *ours, const float *absmax, fb_dtype t)
{
    int different = 0;
    for (int i = 0; i < codes->count; i++) {
        double y = (double)fb_load(source->data, t, i) / (double)absmax[i / 256];
        double theirs = fabs((double)fb_bits_to_float(fb_dynamic_bits[FB_MAP_SIGNED][codes->data[i]]) - y);
        double mine = fabs((double)fb_bits_to_float(fb_dynamic_bits[FB_MAP_SIGNED][ours[i]]) - y);
        different += codes->data[i] != ours[i];
        if (!(theirs <= mine + 2 * 2.0 / 65536 && mine <= theirs + 1e-7))
            REQUIRE(false, "%s[%d]: code %d, the peer has %d for %g", codes->name, i, ours[i], codes->data[i], y);
    }
    REQUIRE(different <= codes->count / 50, "%s: %d of %d codes differ from the peer's", codes->name, different, codes->count);
}

static void peer_eight_bits(void)
{
    vector v[VECTORS_MAX] = {0};
    int count = read_vectors("bitsandbytes_cpu.txt", v);
    const vector *codes = find(v, count, "codes8", ""), *absmax = find(v, count, "absmax8", "");
    for (int t = 0; codes && absmax && t < FB_DTYPE_COUNT; t++) {
        const int64_t n = 1000;
        char suffix[16];
        snprintf(suffix, sizeof suffix, "_%s", fb_dtype_name((fb_dtype)t));
        const vector *want = find(v, count, "dequantize8", suffix), *source = find(v, count, "source8", suffix);
        const vector *found = find(v, count, "quantize8", suffix), *scale = find(v, count, "quantize8_absmax", suffix);
        if (!want || !source || !found || !scale || want->count != n || source->count != n || found->count != n || scale->count != 4 ||
            codes->count != n || absmax->count != 4) {
            REQUIRE(false, "the 8-bit arrays of %s have the wrong size", suffix + 1);
            continue;
        }
        guard got = suite_buffer("dst", (fb_dtype)t, n), ours = guard_new("codes", (size_t)n, GUARD_END, 1);
        guard largest = suite_buffer("absmax", FB_F32, 4);
        fb_context ctx = suite_context();
        fb_status status = fb_dequantize8(&ctx, FB_MAP_SIGNED, codes->data, (float *)absmax->data, n, 256, got.data, (fb_dtype)t);
        REQUIRE(status == FB_OK, "%s", ctx.message);
        EXPECT(check_same((check_place){want->name, 0, 0}, got.data, want->data, (fb_dtype)t, n));
        status = fb_quantize8(&ctx, FB_MAP_SIGNED, source->data, (fb_dtype)t, n, 256, ours.data, (float *)largest.data);
        REQUIRE(status == FB_OK, "%s", ctx.message);
        EXPECT(check_same((check_place){scale->name, 0, 0}, largest.data, scale->data, FB_F32, 4));
        compare_codes8(source, found, ours.data, (float *)largest.data, (fb_dtype)t);
        guard_free(&got);
        guard_free(&ours);
        guard_free(&largest);
    }
    free_vectors(v, count);
}

static const suite_test tests[] = {{"output_hashes", output_hashes},
                                   {"peer_dequantize", peer_dequantize},
                                   {"peer_eight_bits", peer_eight_bits},
                                   {NULL, NULL}};
const suite suite_golden = {"golden", "outputs that must never change, and a real peer's", true, tests};
