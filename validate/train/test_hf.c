/* test_hf.c: folders that are written load back to the bit, dense and in 4 bits, whole and in shards; what is wrong with a
 * folder is said by name. */
#include "hf_load.h"
#include "test_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const lm_config small = {.vocab_size = 37, .hidden_size = 32, .intermediate_size = 48, .num_hidden_layers = 2, .num_attention_heads = 4,
                                .num_key_value_heads = 2, .head_dim = 8, .max_position_embeddings = 64, .rope_theta = 5000,
                                .rms_norm_eps = 1e-5};

/* Each tensor a stream of numbers of its own, so that two that are swapped show. */
static float value(const lm_tensor *t, int64_t i)
{
    uint64_t seed = 5381;
    for (const char *p = t->name; *p; p++) seed = seed * 33 + (unsigned char)*p;
    return test_value(seed, i);
}

static bool read_value(void *self, const lm_tensor *t, float *dst, ck_error *e)
{
    (void)self, (void)e;
    for (int64_t i = 0; i < t->count; i++) dst[i] = value(t, i);
    return true;
}
static const lm_source made = {NULL, "made", read_value, NULL};

static hf_save_options dense(fb_dtype t) { return (hf_save_options){.dtype = t}; }
static hf_save_options four_bit(fb_format f, bool dq)
{
    hf_save_options o = {.dtype = FB_BF16, .quantize = true, .format = f, .block_size = 64, .double_quant = dq};
    fb_context_init(&o.context, FB_BACKEND_REFERENCE);
    return o;
}

static bool same_config(const lm_config *a, const lm_config *b)
{
    return a->vocab_size == b->vocab_size && a->hidden_size == b->hidden_size && a->intermediate_size == b->intermediate_size &&
           a->num_hidden_layers == b->num_hidden_layers && a->num_attention_heads == b->num_attention_heads &&
           a->num_key_value_heads == b->num_key_value_heads && a->head_dim == b->head_dim && a->rope_theta == b->rope_theta &&
           a->rms_norm_eps == b->rms_norm_eps && a->tie_word_embeddings == b->tie_word_embeddings &&
           a->max_position_embeddings == b->max_position_embeddings;
}

/* Every dense tensor is what was made, rounded to t; the linear ones too, unless they are in 4 bits. */
static void holds_what_was_made(hf_checkpoint *c, fb_dtype t, bool linear_too)
{
    int64_t count;
    bool *linear;
    ck_error e = {0};
    lm_tensor *tensors = hf_tensors(&c->config, &count, &linear);
    lm_source s = hf_source(c);
    for (int64_t k = 0; k < count; k++) {
        if (linear[k] && !linear_too) continue;
        float *got = malloc((size_t)tensors[k].count * sizeof *got), want;
        bool right = s.read(s.self, &tensors[k], got, &e);
        for (int64_t i = 0; right && i < tensors[k].count; i++) {
            uint16_t half;
            want = value(&tensors[k], i);
            if (t != FB_F32) fb_store(&half, t, 0, want), want = fb_load(&half, t, 0);
            right = got[i] == want;
        }
        REQUIRE(right, "%s: other values than were written %s", tensors[k].name, e.message);
        free(got);
    }
    free(tensors);
    free(linear);
}

static void dense_and_back(void)
{
    for (int tied = 0; tied < 2; tied++)
        for (int t = 0; t < FB_DTYPE_COUNT; t++) {
            test_folder_empty();
            ck_error e = {0};
            hf_checkpoint c;
            lm_config config = small;
            config.tie_word_embeddings = tied;
            const char *folder = test_path("model");
            hf_save_options o = dense((fb_dtype)t);
            if (!REQUIRE(hf_save(folder, &config, &made, &o, &e), "%s", e.message)) return;
            if (!REQUIRE(hf_open(&c, folder, &e), "%s", e.message)) return;
            CU_ASSERT(same_config(&config, &c.config) && test_count_files(folder) == 2);
            CU_ASSERT((st_find(&c.files[0], "lm_head.weight") == NULL) == (tied == 1));
            holds_what_was_made(&c, (fb_dtype)t, true);
            hf_close(&c);
        }
}

/* Saved in 4 bits, opened, saved again from that: the same file, byte for byte. */
static void four_bits_and_back(void)
{
    static const struct { fb_format f; bool dq; } ways[] = {{FB_NF4, false}, {FB_NF4, true}, {FB_FP4, true}, {FB_INT4, false}, {FB_INT4_AFFINE, true}};
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
        test_folder_empty();
        ck_error e = {0};
        hf_checkpoint c;
        char first[512], second[512], path[600];
        snprintf(first, sizeof first, "%s", test_path("first"));
        snprintf(second, sizeof second, "%s", test_path("second"));
        hf_save_options o = four_bit(ways[k].f, ways[k].dq);
        if (!REQUIRE(hf_save(first, &small, &made, &o, &e), "%s", e.message)) return;
        if (!REQUIRE(hf_open(&c, first, &e), "%s", e.message)) return;
        CU_ASSERT(c.module_count == 14);
        holds_what_was_made(&c, FB_BF16, false);
        /* the library's own quantization of the same numbers */
        lm_source s = hf_source(&c);
        lm_linear l = {.module = "model.layers.1.mlp.down_proj", .out_features = 32, .in_features = 48};
        lm_tensor t = {.name = "model.layers.1.mlp.down_proj.weight", .rank = 2, .shape = {32, 48}, .count = 32 * 48};
        fb_matrix got, want;
        bool normalized;
        float moments[2], *decoded = malloc((size_t)t.count * sizeof *decoded), *values = malloc((size_t)t.count * sizeof *values);
        CU_ASSERT(s.quantized(s.self, &l, &got, &normalized, moments, &e) && got.format == ways[k].f && !normalized);
        fb_matrix_init(&want, ways[k].f, 32, 48, 64, ways[k].dq);
        size_t bytes_needed = fb_matrix_bytes(&want);
        void *buffer = aligned_alloc(256, bytes_needed / 256 * 256 + 256);
        _Alignas(64) float workspace[64];
        fb_context ctx = o.context;
        ctx.workspace = workspace, ctx.workspace_bytes = sizeof workspace;
        read_value(NULL, &t, values, &e);
        CU_ASSERT(fb_matrix_bind(&want, buffer, bytes_needed) == FB_OK && fb_quantize(&ctx, values, FB_F32, &want) == FB_OK);
        CU_ASSERT(memcmp(got.codes, want.codes, 32 * 48 / 2) == 0);
        CU_ASSERT(s.read(s.self, &t, decoded, &e) && fb_dequantize(&ctx, &want, values, FB_F32) == FB_OK);
        REQUIRE(memcmp(decoded, values, (size_t)t.count * sizeof *values) == 0, "%s: read decodes to other values", fb_format_name(ways[k].f));
        free(buffer), free(decoded), free(values);
        o.quantize = false;
        REQUIRE(hf_save(second, &c.config, &s, &o, &e), "%s", e.message);
        hf_close(&c);
        snprintf(path, sizeof path, "%s/model.safetensors", first);
        bytes a = test_read(path);
        snprintf(path, sizeof path, "%s/model.safetensors", second);
        bytes b = test_read(path);
        REQUIRE(a.size == b.size && memcmp(a.p, b.p, a.size) == 0, "%s: saved again, other bytes", fb_format_name(ways[k].f));
        free(a.p), free(b.p);
        /* what transformers is told */
        snprintf(path, sizeof path, "%s/config.json", first);
        a = test_read(path);
        bool theirs = ways[k].f == FB_NF4 || ways[k].f == FB_FP4;
        CU_ASSERT(memmem(a.p, a.size, theirs ? "\"bitsandbytes\"" : "\"quant_method\": \"fourbit\"", theirs ? 14 : 25) != NULL);
        free(a.p);
    }
}

/* Tensors in memory, dense and 4-bit, on a device: the same source as a folder's. */
static void memory_as_a_source(void)
{
    test_folder_empty();
    ck_error e = {0};
    char why[DEVICE_TEXT] = "";
    device *d = device_host(1024, why);
    int64_t count;
    lm_tensor *tensors = hf_tensors(&small, &count, NULL);
    for (int64_t k = 0; k < count; k++) {
        tensors[k].data = malloc((size_t)tensors[k].count * sizeof(float));
        read_value(NULL, &tensors[k], tensors[k].data, &e);
    }
    hf_memory m = {.tensors = tensors, .tensor_count = count, .device = d};
    lm_source s = hf_memory_source(&m);
    hf_checkpoint c;
    const char *folder = test_path("model");
    hf_save_options o = dense(FB_F32);
    REQUIRE(hf_save(folder, &small, &s, &o, &e) && hf_open(&c, folder, &e), "%s", e.message);
    holds_what_was_made(&c, FB_F32, true);
    hf_close(&c);
    /* now without its dense form, as a model holds it that was quantized on load */
    lm_linear l = {.module = "model.layers.0.self_attn.k_proj"};
    fb_matrix_init(&l.quant, FB_NF4, 16, 32, 64, false);
    void *buffer = aligned_alloc(256, fb_matrix_bytes(&l.quant) / 256 * 256 + 256);
    fb_matrix_bind(&l.quant, buffer, fb_matrix_bytes(&l.quant));
    fb_context ctx;
    fb_context_init(&ctx, FB_BACKEND_REFERENCE);
    for (int64_t k = 0; k < count; k++)
        if (strcmp(tensors[k].name, "model.layers.0.self_attn.k_proj.weight") == 0) {
            CU_ASSERT(fb_quantize(&ctx, tensors[k].data, FB_F32, &l.quant) == FB_OK);
            free(tensors[k].data);
            tensors[k].data = NULL;
        }
    CU_ASSERT(!hf_save(folder, &small, &s, &o, &e));
    REQUIRE_MESSAGE(&e, "weights", "key 'model.layers.0.self_attn.k_proj.weight': is missing", "neither dense nor in 4 bits");
    m.linears = &l, m.linear_count = 1;
    REQUIRE(hf_save(folder, &small, &s, &o, &e) && hf_open(&c, folder, &e), "%s", e.message);
    CU_ASSERT(c.module_count == 1 && memcmp(c.modules[0].w.codes, l.quant.codes, 16 * 32 / 2) == 0 &&
              memcmp(c.modules[0].w.absmax, l.quant.absmax, 8 * sizeof(float)) == 0);
    hf_close(&c);
    hf_memory_close(&m);
    for (int64_t k = 0; k < count; k++) free(tensors[k].data);
    free(tensors);
    free(buffer);
    d->close(d);
}

/* ---- shards ---------------------------------------------------------------------------------------------------------------- */

/* Every other tensor into a second file, and the index. */
static void make_shards(const char *folder)
{
    ck_error e = {0};
    hf_save_options o = dense(FB_BF16);
    hf_checkpoint c;
    char path[600], *index = NULL;
    size_t used = 0;
    FILE *text = open_memstream(&index, &used);
    if (!REQUIRE(hf_save(folder, &small, &made, &o, &e) && hf_open(&c, folder, &e), "%s", e.message)) return;
    fprintf(text, "{\"metadata\": {}, \"weight_map\": {");
    for (int part = 0; part < 2; part++) {
        snprintf(path, sizeof path, "%s/model-0000%d-of-00002.safetensors", folder, part + 1);
        st_writer *w = st_writer_new(path);
        size_t slots[64];
        for (size_t i = 0; i < c.files[0].count; i++) {
            const st_tensor *t = &c.files[0].tensors[i];
            if ((int)(i % 2) != part) continue;
            CU_ASSERT(st_writer_add(w, t->name, t->dtype, t->rank, t->shape, &slots[i], &e));
            fprintf(text, "%s\"%s\": \"model-0000%d-of-00002.safetensors\"", part + i > 0 ? ", " : "", t->name, part + 1);
        }
        CU_ASSERT(st_writer_start(w, &e));
        for (size_t i = 0; i < c.files[0].count; i++)
            if ((int)(i % 2) == part) CU_ASSERT(st_writer_put(w, slots[i], 0, c.files[0].tensors[i].data, c.files[0].tensors[i].bytes, &e));
        CU_ASSERT(st_writer_commit(w, &e));
        st_writer_free(w);
    }
    fprintf(text, "}}");
    fclose(text);
    hf_close(&c);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    remove(path);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    test_write(path, index, used);
    free(index);
}

/* In the index, `from` becomes `to`; the folder is then refused with these words. */
static void refused_index(const char *folder, const char *from, const char *to, const char *says)
{
    ck_error e = {0};
    hf_checkpoint c;
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    bytes before = test_read(path);
    uint8_t *at = memmem(before.p, before.size, from, strlen(from));
    if (!REQUIRE(at != NULL, "\"%s\" is not in the index", from)) return;
    FILE *f = fopen(path, "wb");
    fwrite(before.p, 1, (size_t)(at - before.p), f);
    fputs(to, f);
    fwrite(at + strlen(from), 1, before.size - (size_t)(at - before.p) - strlen(from), f);
    fclose(f);
    CU_ASSERT(!hf_open(&c, folder, &e));
    REQUIRE_MESSAGE(&e, folder, says, to);
    test_write(path, before.p, before.size);
    free(before.p);
}

static void shards(void)
{
    test_folder_empty();
    ck_error e = {0};
    hf_checkpoint c;
    const char *folder = test_path("model");
    make_shards(folder);
    if (!REQUIRE(hf_open(&c, folder, &e), "%s", e.message)) return;
    CU_ASSERT(c.file_count == 2);
    holds_what_was_made(&c, FB_BF16, true);
    hf_close(&c);
    static const char norm[] = "\"model.norm.weight\": \"model-0000";
    refused_index(folder, "model-00002-of", "../model-00002-of", "\"../model-00002-of-00002.safetensors\" is not the name of a .safetensors file");
    refused_index(folder, "\"model-00002-of", "\"/etc/model-00002-of", "is not the name of a .safetensors file in this folder");
    refused_index(folder, "-00002.safetensors\"", "-00002.bin\"", "is not the name of a .safetensors file in this folder");
    refused_index(folder, "model-00001-of", "model-00009-of", "cannot be opened: No such file");
    refused_index(folder, "weight_map", "weight_mop", "key 'weight_map': is missing");
    refused_index(folder, norm, "\"other\": \"model-0000", "key 'model.norm.weight': is missing: the index does not list it");
    refused_index(folder, "\"weight_map\": {", "\"weight_map\": {\"x\": 3, ", "its file is not a text");
    refused_index(folder, "{\"metadata\"", "\"metadata\"", "line 1:");
    char from[64], to[64]; /* listed in the file that does not have it */
    for (int part = 1; part <= 2; part++) {
        snprintf(from, sizeof from, "%s%d", norm, part);
        snprintf(to, sizeof to, "%s%d", norm, 3 - part);
        char path[600];
        snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
        bytes b = test_read(path);
        if (memmem(b.p, b.size, from, strlen(from))) refused_index(folder, from, to, "key 'model.norm.weight': is missing");
        free(b.p);
    }
}

/* ---- what is wrong ------------------------------------------------------------------------------------------------------------ */

static void refused_config(const char *folder, const char *from, const char *to, const char *says)
{
    ck_error e = {0};
    hf_checkpoint c;
    char path[600];
    snprintf(path, sizeof path, "%s/config.json", folder);
    bytes before = test_read(path);
    uint8_t *at = memmem(before.p, before.size, from, strlen(from));
    if (!REQUIRE(at != NULL, "\"%s\" is not in config.json", from)) return;
    FILE *f = fopen(path, "wb");
    fwrite(before.p, 1, (size_t)(at - before.p), f);
    fputs(to, f);
    fwrite(at + strlen(from), 1, before.size - (size_t)(at - before.p) - strlen(from), f);
    fclose(f);
    REQUIRE(!hf_open(&c, folder, &e), "with %s it was opened", to);
    REQUIRE_MESSAGE(&e, folder, says, to);
    test_write(path, before.p, before.size);
    free(before.p);
}

static void bad_configs(void)
{
    test_folder_empty();
    ck_error e = {0};
    hf_checkpoint c;
    const char *folder = test_path("model");
    CU_ASSERT(!hf_open(&c, folder, &e));
    REQUIRE_MESSAGE(&e, folder, "cannot be read", "no folder");
    hf_save_options o = dense(FB_BF16);
    CU_ASSERT_FATAL(hf_save(folder, &small, &made, &o, &e));
    refused_config(folder, "\"hidden_size\": 32", "\"hidden_sise\": 32", "key 'hidden_size': is missing");
    refused_config(folder, "\"hidden_size\": 32", "\"hidden_size\": \"32\"", "key 'hidden_size': is not an integer");
    refused_config(folder, "\"hidden_size\": 32", "\"hidden_size\": -32", "key 'hidden_size': is -32");
    refused_config(folder, "\"hidden_size\": 32", "\"hidden_size\": 9223372036854775807", "key 'hidden_size': is 9223372036854775807");
    refused_config(folder, "\"hidden_size\": 32", "\"hidden_size\": 64",
                   "key 'model.embed_tokens.weight': has shape [37, 32]; config.json needs [37, 64]");
    refused_config(folder, "\"intermediate_size\": 48", "\"intermediate_size\": 49", "has shape [48, 32]; config.json needs [49, 32]");
    refused_config(folder, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "key 'num_key_value_heads': is 3, which does not divide");
    refused_config(folder, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", "k_proj.weight': has shape [16, 32]; config.json needs [32, 32]");
    refused_config(folder, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "key 'model.layers.2.input_layernorm.weight': is missing");
    refused_config(folder, "\"head_dim\": 8", "\"head_dim\": 7", "key 'head_dim': is 7; RoPE needs an even one");
    refused_config(folder, "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "key 'hidden_act': is \"gelu\"");
    refused_config(folder, "\"model_type\": \"llama\"", "\"model_type\": \"qwen2\"", "key 'model_type': is \"qwen2\"");
    refused_config(folder, "\"attention_bias\": false", "\"attention_bias\": true", "key 'attention_bias': is set");
    refused_config(folder, "\"mlp_bias\": false", "\"mlp_bias\": false, \"rope_scaling\": {\"type\": \"linear\"}", "key 'rope_scaling': is set");
    refused_config(folder, "\"mlp_bias\": false", "\"mlp_bias\": false, \"sliding_window\": 4096", "key 'sliding_window': is set");
    refused_config(folder, "\"mlp_bias\": false", "\"rope_parameters\": {\"rope_type\": \"yarn\"}", "key 'rope_type': is \"yarn\"");
    refused_config(folder, "\"rms_norm_eps\": 1", "\"rms_norm_eps\": -1", "key 'rms_norm_eps': is not a number above 0");
    refused_config(folder, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 1", "is neither true nor false");
    refused_config(folder, "{", "[", "line 2:");
    /* transformers 5 keeps rope_theta there */
    char path[600];
    snprintf(path, sizeof path, "%s/config.json", folder);
    static const char newer[] = "{\"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "
                                "\"num_key_value_heads\": 2, \"vocab_size\": 37, \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 12.5}}";
    test_write(path, newer, sizeof newer - 1);
    if (REQUIRE(hf_open(&c, folder, &e), "%s", e.message)) {
        CU_ASSERT(c.config.rope_theta == 12.5 && c.config.head_dim == 8 && c.config.max_position_embeddings == 2048 && c.config.rms_norm_eps == 1e-6);
        hf_close(&c);
    }
}

static void bad_files(void)
{
    test_folder_empty();
    ck_error e = {0};
    hf_checkpoint c;
    const char *folder = test_path("model"), *weights = test_path("model/model.safetensors");
    hf_save_options o = four_bit(FB_NF4, true);
    CU_ASSERT_FATAL(hf_save(folder, &small, &made, &o, &e));
    bytes whole = test_read(weights);
    for (size_t cut = 0; cut < whole.size; cut += 211 + cut / 6) {
        test_write(weights, whole.p, cut);
        REQUIRE(!hf_open(&c, folder, &e), "cut to %zu bytes, and opened", cut);
        REQUIRE_MESSAGE(&e, weights, "", "a truncated file");
    }
    /* a quant_state whose shape is another */
    bytes changed = {malloc(whole.size), whole.size};
    memcpy(changed.p, whole.p, whole.size);
    uint8_t *at = memmem(changed.p, changed.size, "\"shape\": [48, 32]", 17);
    CU_ASSERT_FATAL(at != NULL);
    memcpy(at, "\"shape\": [32, 48]", 17);
    test_write(weights, changed.p, changed.size);
    CU_ASSERT(!hf_open(&c, folder, &e));
    REQUIRE_MESSAGE(&e, weights, "has shape [32, 48]; config.json needs [48, 32]", "another shape in a quant_state");
    free(changed.p);
    free(whole.p);
    remove(weights);
    CU_ASSERT(!hf_open(&c, folder, &e));
    REQUIRE_MESSAGE(&e, weights, "cannot be opened: No such file", "no weights");
}

static int without_room(void *user)
{
    (void)user;
    ck_error e = {0};
    hf_save_options o = dense(FB_F32);
    struct rlimit limit = {.rlim_cur = 16384, .rlim_max = 16384};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 9;
    if (hf_save(test_path("model"), &small, &made, &o, &e)) return 2;
    return strstr(e.message, "File too large") ? 0 : 3;
}

static void full_disk(void)
{
    test_folder_empty();
    ck_error e = {0};
    hf_checkpoint c;
    const char *folder = test_path("model");
    hf_save_options o = dense(FB_F16);
    CU_ASSERT_FATAL(hf_save(folder, &small, &made, &o, &e));
    REQUIRE(test_child(without_room, NULL) == 0, "the child: %d", test_child(without_room, NULL));
    CU_ASSERT(test_count_files(folder) == 2);
    if (REQUIRE(hf_open(&c, folder, &e), "%s", e.message)) {
        holds_what_was_made(&c, FB_F16, true);
        hf_close(&c);
    }
}

void test_hf(CU_pSuite suite)
{
    CU_add_test(suite, "dense_and_back", dense_and_back);
    CU_add_test(suite, "four_bits_and_back", four_bits_and_back);
    CU_add_test(suite, "memory_as_a_source", memory_as_a_source);
    CU_add_test(suite, "shards", shards);
    CU_add_test(suite, "bad_configs", bad_configs);
    CU_add_test(suite, "bad_files", bad_files);
    CU_add_test(suite, "full_disk", full_disk);
}
