/* test_bnb.c: the quant_state text, and modules written, read back and damaged. */
#include "bnb4bit.h"
#include "test_files.h"

#include <stdio.h>
#include <stdlib.h>

#define START "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [37, 53]"
#define NESTED ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": "

/* ---- the text ------------------------------------------------------------------------- */

static void text_is_bitsandbytes_own(void)
{
    /* offsets and their shortest decimals, as Python's json.dumps prints a float32 */
    static const struct { uint32_t bits; const char *text; } offsets[] = {
        {0x3d57a9a3u, "0.052652012556791306"}, {0x3f800000u, "1.0"}, {0x00000000u, "0.0"}, {0xbf000000u, "-0.5"},
        {0x3727c5acu, "9.999999747378752e-06"}, {0x38d1b717u, "9.999999747378752e-05"},
        {0x47c35000u, "100000.0"}, {0x5a0e1bcau, "1.0000000272564224e+16"}, {0x7f7fffffu, "3.4028234663852886e+38"},
        {0x00000001u, "1.401298464324817e-45"}, {0x3dcccccdu, "0.10000000149011612"}};
    bnb_state s = {.format = FB_NF4, .block_size = 64, .dtype = FB_BF16, .rank = 2, .shape = {37, 53}, .elements = 37 * 53};
    char *text = bnb_format_state(&s);
    CU_ASSERT_STRING_EQUAL(text, START "}");
    free(text);
    s.nested = true;
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        char want[400];
        bnb_state back;
        ck_error e = {0};
        s.nested_offset = fb_bits_to_float(offsets[i].bits);
        snprintf(want, sizeof want, START NESTED "%s}", offsets[i].text);
        text = bnb_format_state(&s);
        REQUIRE(strcmp(text, want) == 0, "got %s, not %s", text, want);
        if (REQUIRE(bnb_parse_state(&back, text, strlen(text), "f", "k", &e), "%s", e.message))
            REQUIRE(fb_float_to_bits(back.nested_offset) == offsets[i].bits && back.nested && back.format == FB_NF4 &&
                        back.block_size == 64 && back.dtype == FB_BF16 && back.rank == 2 && back.shape[0] == 37 &&
                        back.shape[1] == 53 && back.elements == 37 * 53, "%s does not come back", text);
        free(text);
    }
}

static void text_is_checked(void)
{
    static const struct { const char *text, *says; } cases[] = {
        {"", "byte 0 of its text: '[' or '{' expected"},
        {"[]", "the text is not a JSON object"},
        {START, "of its text: "},
        {START "} x", "end of file expected"},
        {"{\"quant_type\": \"\xff\"}", "unable to decode byte 0xff"},
        {"{\"quant_type\": \"nf4\", \"quant_type\": \"nf4\"}", "duplicate object key"},
        {"{}", "\"quant_type\" is missing"},
        {"{\"quant_type\": 4}", "\"quant_type\" is not a string"},
        {"{\"quant_type\": \"nf5\"}", "quant_type \"nf5\" is none of nf4, fp4"},
        {"{\"quant_type\": \"nf4\"}", "\"blocksize\" is missing"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64.0}", "\"blocksize\" is not an integer"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 65, \"dtype\": \"float16\", \"shape\": [1]}", "blocksize is 65"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 4294967360, \"dtype\": \"float16\", \"shape\": [1]}",
         "blocksize is 4294967360"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": -64, \"dtype\": \"float16\", \"shape\": [1]}", "blocksize is -64"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64}", "\"dtype\" is missing"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"int8\"}", "dtype \"int8\" is none of"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\"}", "\"shape\" is missing"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": null}", "not an array"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [-1]}", "shape[0] is not"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [1,\"2\"]}", "shape[1] is not"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [1,1,1,1,1,1,1,1,1]}",
         "shape has 9 dimensions"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [4294967296,4294967296]}",
         "overflows 63 bits"},
        {START ", \"surprise\": 1}", "\"surprise\" is not a key"},
        {START ", \"nested_offset\": 0.5}", "\"nested_blocksize\" is missing"},
        {START ", \"nested_blocksize\": 256}", "\"nested_dtype\" is missing"},
        {START ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\"}", "\"nested_offset\" is missing"},
        {START ", \"nested_blocksize\": 128, \"nested_dtype\": \"float32\", \"nested_offset\": 1}",
         "nested_blocksize is 128"},
        {START ", \"nested_blocksize\": 256, \"nested_dtype\": \"float16\", \"nested_offset\": 1}", "nested_dtype is"},
        {START NESTED "\"1\"}", "\"nested_offset\" is not a number"},
        {START NESTED "1e39}", "beyond the range of fp32"},
        {START NESTED "1e999}", "real number overflow"},
        {START NESTED "NaN}", "invalid token"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bnb_state s;
        ck_error e = {0};
        if (REQUIRE(!bnb_parse_state(&s, cases[i].text, strlen(cases[i].text), "f", "w.state", &e), "accepted: %s",
                    cases[i].text))
            REQUIRE_MESSAGE(&e, "f: key 'w.state': ", cases[i].says, cases[i].text);
    }
    char *huge = calloc(1, 70000);
    bnb_state s;
    ck_error e = {0};
    CU_ASSERT(!bnb_parse_state(&s, huge, 70000, "f", "k", &e));
    REQUIRE_MESSAGE(&e, "f: key 'k': ", "the text has 70000 bytes", "a huge text");
    free(huge);
}

/* ---- modules ------------------------------------------------------------------------------ */

enum { ROWS = 37, COLS = 53, N = ROWS * COLS };

/* A weight, quantized by the reference, in storage that fits it. */
typedef struct weight {
    bnb_state state;
    fb_matrix w;
    _Alignas(256) uint8_t storage[16384];
    uint16_t decoded[2 * N];
    float moments[2];
} weight;

static void make_weight(weight *x, fb_format format, int block_size, bool nested, fb_dtype dtype)
{
    static float data[N];
    static _Alignas(64) uint8_t workspace[4096];
    uint32_t seed = 12345;
    for (int i = 0; i < N; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = ((float)(seed >> 8) / 0x1p23f - 1.0f) * (i % 97 == 0 ? 3.0f : 0.25f);
    }
    memset(x, 0, sizeof *x);
    x->state = (bnb_state){.format = format, .block_size = block_size, .dtype = dtype, .rank = 2,
                           .shape = {ROWS, COLS}, .elements = N, .nested = nested};
    x->moments[0] = 0.5f;
    x->moments[1] = 2.0f;
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    ctx.workspace = workspace;
    ctx.workspace_bytes = sizeof workspace;
    bool made = fb_matrix_init(&x->w, format, ROWS, COLS, block_size, nested) == FB_OK &&
                fb_matrix_bind(&x->w, x->storage, sizeof x->storage) == FB_OK &&
                fb_quantize(&ctx, data, FB_F32, &x->w) == FB_OK &&
                fb_dequantize(&ctx, &x->w, x->decoded, dtype) == FB_OK;
    REQUIRE(made, "the test's own weight: %s", ctx.message);
    if (nested) x->state.nested_offset = x->w.nested_offset[0];
}

static bytes write_weight(const weight *x, bool normalized)
{
    const char *path = test_path("module");
    ck_error e = {0};
    size_t other;
    bnb_slots slots;
    st_writer *w = st_writer_new(path);
    bool good = bnb_plan(w, "up.weight", &x->state, normalized, &slots, &e) &&
                st_writer_add(w, "norm", ST_U8, 1, (int64_t[]){3}, &other, &e) && st_writer_start(w, &e) &&
                bnb_put(w, &slots, &x->state, &x->w, normalized ? x->moments : NULL, &e) &&
                st_writer_put(w, other, 0, "abc", 3, &e) && st_writer_commit(w, &e);
    st_writer_free(w);
    REQUIRE(good, "%s", e.message);
    return test_read(path);
}

/* The file opens, holds one module, and decodes to the same bits. */
static void expect_weight(const bytes *b, const weight *x, bool normalized, const char *about)
{
    st_file f;
    bnb_index index;
    bnb_module m;
    ck_error e = {0};
    if (!REQUIRE(st_open_memory(&f, about, b->p, b->size, &e), "%s", e.message)) return;
    if (!REQUIRE(bnb_scan(&index, &f, &e) && index.count == 1, "%s: %s", about, e.message)) return;
    size_t parts = 0;
    for (size_t i = 0; i < f.count; i++) parts += index.is_part[i];
    REQUIRE(parts == f.count - 1 && !index.is_part[st_find(&f, "norm") - f.tensors], "%s: %zu parts", about, parts);
    if (REQUIRE(bnb_open(&m, &f, index.states[0], &e), "%s", e.message)) {
        uint16_t decoded[2 * N];
        fb_context ctx;
        fb_context_init(&ctx, FB_BACKEND_REFERENCE);
        memset(decoded, 0xff, sizeof decoded);
        fb_status status = fb_dequantize(&ctx, &m.w, decoded, m.state.dtype);
        REQUIRE(status == FB_OK, "%s: %s", about, ctx.message);
        REQUIRE(memcmp(decoded, x->decoded, N * fb_dtype_size(m.state.dtype)) == 0, "%s: decodes otherwise", about);
        REQUIRE(strcmp(m.name, "up.weight") == 0 && m.normalized == normalized &&
                    (!normalized || memcmp(m.moments, x->moments, sizeof m.moments) == 0), "%s: name or moments", about);
        REQUIRE(m.w.codebook != NULL && !!m.w.nested_codebook == x->state.nested, "%s: not the file's own maps", about);
        bnb_close(&m);
    }
    bnb_index_free(&index);
    st_close(&f);
}

/* The same container with `by` more spaces after its header: data of any alignment. */
static bytes shifted(const bytes *b, size_t by)
{
    size_t header = b->p[0] | (size_t)b->p[1] << 8 | (size_t)b->p[2] << 16;
    bytes s = {.size = b->size + by};
    s.p = malloc(s.size);
    memcpy(s.p, b->p, 8 + header);
    memset(s.p + 8 + header, ' ', by);
    memcpy(s.p + 8 + header + by, b->p + 8 + header, b->size - 8 - header);
    header += by;
    for (int i = 0; i < 3; i++) s.p[i] = (uint8_t)(header >> 8 * i);
    return s;
}

static void modules_round_trip(void)
{
    static const int blocks[] = {32, 64, 4096};
    static weight x;
    for (int f = 0; f < FB_FORMAT_COUNT; f++)
        for (int i = 0; i < 3 * 2 * FB_DTYPE_COUNT; i++) {
            bool nested = i / 3 % 2, normalized = i % 4 == 3;
            make_weight(&x, (fb_format)f, blocks[i % 3], nested, (fb_dtype)(i / 6));
            bytes b = write_weight(&x, normalized);
            for (size_t by = 0; by < 4; by++) {
                char about[96];
                bytes s = shifted(&b, by);
                snprintf(about, sizeof about, "%s/b%d%s/%s shifted by %zu", fb_format_name((fb_format)f), blocks[i % 3],
                         nested ? "+dq" : "", fb_dtype_name((fb_dtype)(i / 6)), by);
                expect_weight(&s, &x, normalized, about);
                free(s.p);
            }
            free(b.p);
        }
}

/* NF4 and FP4 have bitsandbytes' key; what it cannot read has ours. */
static void keys_say_who_reads_them(void)
{
    static weight x;
    static const struct { fb_format format; bool normalized; const char *key; } cases[] = {
        {FB_NF4, false, "\"up.weight.quant_state.bitsandbytes__nf4\""},
        {FB_FP4, false, "\"up.weight.quant_state.bitsandbytes__fp4\""},
        {FB_NF4, true, "\"up.weight.quant_state.fourbit__nf4\""},
        {FB_INT4, false, "\"up.weight.quant_state.fourbit__int4\""},
        {FB_INT4_AFFINE, false, "\"up.weight.quant_state.fourbit__int4-affine\""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_weight(&x, cases[i].format, 64, true, FB_BF16);
        bytes b = write_weight(&x, cases[i].normalized);
        REQUIRE(memmem(b.p, b.size, cases[i].key, strlen(cases[i].key)) != NULL, "no key %s", cases[i].key);
        free(b.p);
    }
}

/* Damage to one place of a good file, and the words for it. */
static const struct { fb_format format; bool nested; const char *from, *to, *says; } damages[] = {
    {FB_NF4, false, "\"up.weight\"", "\"up.WEIGHT\"", "key 'up.weight': is missing"},
    {FB_NF4, false, "up.weight.absmax", "up.weight.ABSMAX", "key 'up.weight.absmax': is missing"},
    {FB_NF4, false, "up.weight.quant_map", "up.weight.quant_MAP", "key 'up.weight.quant_map': is missing"},
    {FB_NF4, true, "up.weight.nested_absmax", "up.weight.nested_ABSMAX", "key 'up.weight.nested_absmax': is missing"},
    {FB_NF4, true, "nested_quant_map", "nested_quant_MAP", "key 'up.weight.nested_quant_map': is missing"},
    {FB_INT4_AFFINE, false, "zero_points", "zero_POINTS", "key 'up.weight.zero_points': is missing"},
    {FB_NF4, false, "bitsandbytes__nf4", "bitsandbytes__fp4", "holds quant_type \"nf4\"; key and text must agree"},
    {FB_NF4, false, "\"quant_type\": \"nf4\"", "\"quant_type\": \"fp4\"", "holds quant_type \"fp4\"; key and text"},
    {FB_NF4, false, "[37, 53]", "[37, 54]", "key 'up.weight': has 981 bytes; the quant_state's shape needs 999"},
    {FB_NF4, false, "\"blocksize\": 64", "\"blocksize\": 32", "key 'up.weight.absmax': has 124 bytes"},
    {FB_NF4, false, "\"F32\",\"shape\":[31]", "\"I32\",\"shape\":[31]", "has dtype I32 where F32 is needed"},
    {FB_NF4, false, "\"F32\",\"shape\":[16]", "\"U32\",\"shape\":[16]", "has dtype U32 where F32 is needed"},
    {FB_NF4, true, "\"U8\",\"shape\":[31]", "\"I8\",\"shape\":[31]", "has dtype I8 where U8 is needed"},
    {FB_NF4, true, "\"nested_offset\"", "\"nested_OFFSET\"", "\"nested_OFFSET\" is not a key"},
    {FB_NF4, false, "bitsandbytes__nf4\":{\"dtype\":\"U8\"", "bitsandbytes__nf4\":{\"dtype\":\"I8\"", "has dtype I8 where U8"}};

static void expect_damage(const bytes *b, const char *says, const char *about)
{
    st_file f;
    bnb_index index = {0};
    bnb_module m;
    ck_error e = {0};
    if (!REQUIRE(st_open_memory(&f, "damaged", b->p, b->size, &e), "%s: %s", about, e.message)) return;
    bool opened = bnb_scan(&index, &f, &e) && index.count == 1 && bnb_open(&m, &f, index.states[0], &e);
    if (REQUIRE(!opened, "%s: accepted", about)) REQUIRE_MESSAGE(&e, "damaged: ", says, about);
    else bnb_close(&m);
    bnb_index_free(&index);
    st_close(&f);
}

static void damage_is_named(void)
{
    static weight x;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        make_weight(&x, damages[i].format, 64, damages[i].nested, FB_BF16);
        bytes b = write_weight(&x, false);
        test_replace(&b, damages[i].from, damages[i].to);
        expect_damage(&b, damages[i].says, damages[i].from);
        free(b.p);
    }
    /* values, not text: the codebook's last entry, a zero point */
    make_weight(&x, FB_NF4, 64, false, FB_BF16);
    bytes b = write_weight(&x, false);
    uint8_t *one = memmem(b.p, b.size, fb_codebook_bits[FB_NF4], sizeof fb_codebook_bits[0]);
    CU_ASSERT_FATAL(one != NULL);
    one[63] = 0x7f; /* 1.0 becomes Inf */
    expect_damage(&b, "key 'up.weight': its quant_map[15] is not a finite number", "Inf in the codebook");
    free(b.p);
    make_weight(&x, FB_INT4_AFFINE, 64, false, FB_BF16);
    x.w.zero_points[7] = 16;
    b = write_weight(&x, false);
    expect_damage(&b, "key 'up.weight': its zero_points[7] is 16", "a zero point of 16");
    free(b.p);
}

static void two_states_are_refused(void)
{
    static weight x;
    make_weight(&x, FB_NF4, 64, false, FB_BF16);
    ck_error e = {0};
    bnb_slots slots;
    size_t other;
    st_writer *w = st_writer_new(test_path("two"));
    bool good = bnb_plan(w, "up.weight", &x.state, false, &slots, &e) &&
                st_writer_add(w, "up.weight.quant_state.bitsandbytes__fp4", ST_U8, 1, (int64_t[]){2}, &other, &e) &&
                st_writer_start(w, &e) && bnb_put(w, &slots, &x.state, &x.w, NULL, &e) &&
                st_writer_put(w, other, 0, "{}", 2, &e) && st_writer_commit(w, &e);
    st_writer_free(w);
    REQUIRE(good, "%s", e.message);
    bytes b = test_read(test_path("two"));
    expect_damage(&b, "is a second quant_state of the same weight", "two quant_states");
    free(b.p);
    test_folder_empty();
}

void test_bnb4bit(CU_pSuite suite)
{
    CU_ADD_TEST(suite, text_is_bitsandbytes_own);
    CU_ADD_TEST(suite, text_is_checked);
    CU_ADD_TEST(suite, modules_round_trip);
    CU_ADD_TEST(suite, keys_say_who_reads_them);
    CU_ADD_TEST(suite, damage_is_named);
    CU_ADD_TEST(suite, two_states_are_refused);
}
