/* test_peft.c: adapters written as peft's, and read back; what is refused; merging, into bf16 and into 4 bits again, with
 * the error that costs. */
#include "peft.h"
#include "test_state.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAIRS = 2, R = 4 };
static const char *const modules[PAIRS] = {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"};
static const int64_t in_of[PAIRS] = {32, 48}, out_of[PAIRS] = {32, 32};

static void make(lm_tensor adapters[2 * PAIRS], uint64_t seed)
{
    for (int i = 0; i < PAIRS; i++) {
        char name[LM_NAME];
        snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", modules[i]);
        adapters[2 * i] = test_tensor(name, R, in_of[i], seed + (uint64_t)(2 * i), false);
        snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", modules[i]);
        adapters[2 * i + 1] = test_tensor(name, out_of[i], R, seed + (uint64_t)(2 * i + 1), false);
    }
}
static void unmake(lm_tensor adapters[2 * PAIRS])
{
    for (int i = 0; i < 2 * PAIRS; i++) test_tensor_free(&adapters[i]);
}

static const peft_config config = {.r = R, .lora_alpha = 16, .lora_dropout = 0.1, .base_model = "a/base"};

static void export_has_pefts_shape(void)
{
    test_folder_empty();
    ck_error e = {0};
    lm_tensor adapters[2 * PAIRS];
    make(adapters, 1);
    const char *folder = test_path("adapter");
    if (!REQUIRE(peft_save(folder, &config, adapters, 2 * PAIRS, NULL, FB_F32, &e), "%s", e.message)) return;
    CU_ASSERT(test_count_files(folder) == 2);
    st_file f;
    if (REQUIRE(st_open(&f, test_path("adapter/adapter_model.safetensors"), &e), "%s", e.message)) {
        CU_ASSERT(f.count == 4 && f.metadata_count == 1 && strcmp(f.metadata[0], "format") == 0 && strcmp(f.metadata[1], "pt") == 0);
        const st_tensor *a = st_find(&f, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
        const st_tensor *b = st_find(&f, "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight");
        CU_ASSERT(a && a->dtype == ST_F32 && a->rank == 2 && a->shape[0] == R && a->shape[1] == 32 && memcmp(a->data, adapters[0].data, a->bytes) == 0);
        CU_ASSERT(b && b->shape[0] == 32 && b->shape[1] == R && memcmp(b->data, adapters[3].data, b->bytes) == 0);
        st_close(&f);
    }
    json_t *json = json_load_file(test_path("adapter/adapter_config.json"), 0, NULL);
    const char *type, *task, *bias, *base, *first, *second;
    int r, alpha, inference, fan, rslora, dora;
    double dropout;
    CU_ASSERT(json_unpack_ex(json, NULL, JSON_VALIDATE_ONLY, "{ss ss si si sf s[ss] ss sb ss sb sb sb}", "peft_type", "task_type", "r", "lora_alpha",
                             "lora_dropout", "target_modules", "bias", "fan_in_fan_out", "base_model_name_or_path", "inference_mode", "use_rslora",
                             "use_dora") == 0);
    CU_ASSERT(json_unpack(json, "{s:s s:s s:i s:i s:f s:[ss] s:s s:b s:s s:b s:b s:b}", "peft_type", &type, "task_type", &task, "r", &r, "lora_alpha",
                          &alpha, "lora_dropout", &dropout, "target_modules", &first, &second, "bias", &bias, "fan_in_fan_out", &fan,
                          "base_model_name_or_path", &base, "inference_mode", &inference, "use_rslora", &rslora, "use_dora", &dora) == 0);
    CU_ASSERT(strcmp(type, "LORA") == 0 && strcmp(task, "CAUSAL_LM") == 0 && r == R && alpha == 16 && dropout == 0.1);
    CU_ASSERT(strcmp(first, "q_proj") == 0 && strcmp(second, "down_proj") == 0 && strcmp(bias, "none") == 0 && strcmp(base, "a/base") == 0);
    CU_ASSERT(!fan && !rslora && !dora && inference);
    json_decref(json);
    unmake(adapters);
}

static void import_is_the_same(void)
{
    for (int t = 0; t < FB_DTYPE_COUNT; t++) {
        test_folder_empty();
        ck_error e = {0};
        lm_tensor a[2 * PAIRS], b[2 * PAIRS];
        peft_config c;
        make(a, 1);
        make(b, 99);
        const char *folder = test_path("adapter");
        REQUIRE(peft_save(folder, &config, a, 2 * PAIRS, NULL, (fb_dtype)t, &e) && peft_read_config(folder, &c, &e) &&
                peft_load(folder, b, 2 * PAIRS, NULL, &e), "%s", e.message);
        CU_ASSERT(c.r == R && c.lora_alpha == 16 && c.lora_dropout == 0.1 && !c.use_rslora && strcmp(c.base_model, "a/base") == 0);
        bool right = true;
        for (int k = 0; k < 2 * PAIRS; k++)
            for (int64_t i = 0; i < a[k].count; i++) {
                uint32_t word;
                fb_store(&word, (fb_dtype)t, 0, a[k].data[i]);
                right &= b[k].data[i] == fb_load(&word, (fb_dtype)t, 0);
            }
        REQUIRE(right, "%s: other values", fb_dtype_name((fb_dtype)t));
        unmake(a);
        unmake(b);
    }
    peft_config c = config;
    CU_ASSERT(peft_scaling(&c) == 4);
    c.use_rslora = true;
    CU_ASSERT(peft_scaling(&c) == 8);
}

static void refused(const char *json, const char *says)
{
    ck_error e = {0};
    peft_config c;
    test_write(test_path("adapter/adapter_config.json"), json, strlen(json));
    CU_ASSERT(!peft_read_config(test_path("adapter"), &c, &e));
    REQUIRE_MESSAGE(&e, test_path("adapter/adapter_config.json"), says, json);
}

static void bad_adapters(void)
{
    test_folder_empty();
    ck_error e = {0};
    lm_tensor a[2 * PAIRS];
    make(a, 1);
    char folder[512], file[512]; /* test_path's are used up below */
    snprintf(folder, sizeof folder, "%s", test_path("adapter"));
    snprintf(file, sizeof file, "%s", test_path("adapter/adapter_model.safetensors"));
    CU_ASSERT(!peft_save(folder, &config, a, 3, NULL, FB_F32, &e) && !peft_save(folder, &config, a + 1, 2, NULL, FB_F32, &e));
    peft_config wrong = config;
    wrong.r = 5;
    CU_ASSERT(!peft_save(folder, &wrong, a, 4, NULL, FB_F32, &e));
    CU_ASSERT(test_count_files(test_folder()) == 0);
    CU_ASSERT_FATAL(peft_save(folder, &config, a, 4, NULL, FB_F32, &e));
    refused("{\"r\": 4}", "key 'peft_type': is \"(none)\", not LORA");
    refused("{\"peft_type\": \"LORA\", \"lora_alpha\": 1}", "key 'r': is missing");
    refused("{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 1}", "key 'r': is 0");
    refused("{\"peft_type\": \"LORA\", \"r\": 2.5, \"lora_alpha\": 1}", "key 'r': is 2.5, not an integer");
    refused("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 1, \"use_dora\": true}", "key 'use_dora': is set");
    refused("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 1, \"bias\": \"all\"}", "key 'bias': is set");
    refused("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 1, \"rank_pattern\": {\"q\": 2}}", "key 'rank_pattern': is set");
    refused("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 1, \"lora_dropout\": 1}", "key 'lora_dropout': is not in [0, 1)");
    refused("[", "line 1");
    float kept = a[0].data[0];
    CU_ASSERT(!peft_load(folder, a, 2, NULL, &e));
    REQUIRE_MESSAGE(&e, file, "belongs to no linear layer of this model", "an adapter too many");
    a[3].shape[0] = 4, a[3].shape[1] = 32;
    a[0].data[0] = 7;
    CU_ASSERT(!peft_load(folder, a, 4, NULL, &e) && a[0].data[0] == 7);
    REQUIRE_MESSAGE(&e, file, "down_proj.lora_B.weight': is not [4, 32]", "another shape");
    a[0].data[0] = kept;
    strcpy(a[2].name, "base_model.model.else.lora_A.weight");
    CU_ASSERT(!peft_load(folder, a, 4, NULL, &e));
    REQUIRE_MESSAGE(&e, file, "key 'base_model.model.else.lora_A.weight': is missing", "a missing tensor");
    bytes b = test_read(file);
    for (size_t cut = 0; cut < b.size; cut += 61) {
        test_write(file, b.p, cut);
        CU_ASSERT(!peft_load(folder, a, 4, NULL, &e));
    }
    free(b.p);
    unmake(a);
}

/* ---- merging ------------------------------------------------------------------------------------------------------------------ */

static bool read_value(void *self, const lm_tensor *t, float *dst, ck_error *e)
{
    (void)self, (void)e;
    for (int64_t i = 0; i < t->count; i++) dst[i] = 0.5f * test_value((uint64_t)t->name[strlen(t->name) - 8], i + (int64_t)strlen(t->name) * 7919);
    return true;
}

static const lm_config shape = {.vocab_size = 16, .hidden_size = 32, .intermediate_size = 48, .num_hidden_layers = 1, .num_attention_heads = 2,
                                .num_key_value_heads = 2, .head_dim = 16, .max_position_embeddings = 8, .rope_theta = 10000, .rms_norm_eps = 1e-6};

static double power(const float *x, const float *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += ((double)x[i] - (y ? (double)y[i] : 0)) * ((double)x[i] - (y ? (double)y[i] : 0));
    return sum / (double)n;
}

/* Saved, opened again: q_proj's weight. */
static void saved_weight(const lm_source *s, const hf_save_options *o, float *dst)
{
    ck_error e = {0};
    hf_checkpoint c;
    const char *folder = test_path("merged");
    lm_tensor t = {.name = "model.layers.0.self_attn.q_proj.weight", .rank = 2, .shape = {32, 32}, .count = 1024};
    if (!REQUIRE(hf_save(folder, &shape, s, o, &e) && hf_open(&c, folder, &e), "%s", e.message)) return;
    lm_source from = hf_source(&c);
    REQUIRE(from.read(from.self, &t, dst, &e), "%s", e.message);
    hf_close(&c);
}

static void merging(void)
{
    test_folder_empty();
    enum { N = 1024 };
    ck_error e = {0};
    lm_tensor a[2 * PAIRS];
    make(a, 3);
    for (int k = 0; k < 2 * PAIRS; k++)
        for (int64_t i = 0; i < a[k].count; i++) a[k].data[i] *= 0.1f;
    lm_source base = {NULL, "base", read_value, NULL};
    peft_merged m = {.base = &base, .adapters = a, .count = 2 * PAIRS, .scaling = peft_scaling(&config)};
    lm_source merged = peft_merged_source(&m);
    float want[N], plain[N], exact[N], bf16[N], nf4[N];
    lm_tensor t = {.name = "model.layers.0.self_attn.q_proj.weight", .rank = 2, .shape = {32, 32}, .count = N};
    read_value(NULL, &t, plain, &e);
    for (int o = 0; o < 32; o++)
        for (int i = 0; i < 32; i++) {
            double sum = 0;
            for (int k = R - 1; k >= 0; k--) sum += (double)a[1].data[o * R + k] * (double)a[0].data[k * 32 + i];
            want[o * 32 + i] = (float)((double)plain[o * 32 + i] + 4 * sum);
        }
    hf_save_options o = {.dtype = FB_F32};
    saved_weight(&merged, &o, exact);
    bool close = true;
    for (int i = 0; i < N; i++) close &= fabsf(exact[i] - want[i]) <= 1e-7f;
    REQUIRE(close && power(exact, plain, N) > 1e-4, "W + s B A: %g from the sum by hand, %g from W", power(exact, want, N), power(exact, plain, N));
    o.dtype = FB_BF16;
    saved_weight(&merged, &o, bf16);
    for (int i = 0; i < N; i++) close &= bf16[i] == fb_bf16_to_float(fb_float_to_bf16(exact[i]));
    REQUIRE(close, "merged into bf16: not the rounded sum");
    o.quantize = true, o.format = FB_NF4, o.block_size = 64;
    fb_context_init(&o.context, FB_BACKEND_REFERENCE);
    saved_weight(&merged, &o, nf4);
    /* NF4 of uniform data: about 0.0085 of its power in Gaussian data, more here; bf16's is 2^-18 of it at most */
    double of_bf16 = power(bf16, exact, N) / power(exact, NULL, N), of_nf4 = power(nf4, exact, N) / power(exact, NULL, N);
    REQUIRE(of_bf16 > 0 && of_bf16 < 3.9e-6, "bf16: relative error %g", of_bf16);
    REQUIRE(of_nf4 > 1e-3 && of_nf4 < 0.02, "NF4: relative error %g", of_nf4);
    /* the base itself in NF4: merging decodes it, and quantizes the sum a second time */
    hf_save_options quantized = o;
    hf_checkpoint c;
    const char *folder = test_path("base");
    if (REQUIRE(hf_save(folder, &shape, &base, &quantized, &e) && hf_open(&c, folder, &e), "%s", e.message)) {
        lm_source in_4_bits = hf_source(&c);
        float once[N], twice[N], decoded[N];
        m.base = &in_4_bits;
        CU_ASSERT(in_4_bits.read(in_4_bits.self, &t, decoded, &e));
        o.quantize = false, o.dtype = FB_F32;
        saved_weight(&merged, &o, once);
        saved_weight(&merged, &quantized, twice);
        for (int i = 0; i < N; i++) close &= fabsf(once[i] - (decoded[i] + (want[i] - plain[i]))) <= 1e-6f;
        REQUIRE(close, "a 4-bit base is not decoded before merging");
        double first = power(once, exact, N), second = power(twice, exact, N);
        REQUIRE(second > first && second < 3 * first, "the error grows from %g to %g", first, second);
        m.base = &base;
        hf_close(&c);
    }
    lm_tensor swap = a[1];
    a[1].shape[0] = 31;
    CU_ASSERT(!hf_save(test_path("merged"), &shape, &merged, &o, &e));
    REQUIRE_MESSAGE(&e, "adapter", "does not fit 'model.layers.0.self_attn.q_proj.weight' [32, 32]", "another shape");
    a[1] = swap;
    unmake(a);
}

void test_peft(CU_pSuite suite)
{
    CU_add_test(suite, "export_has_pefts_shape", export_has_pefts_shape);
    CU_add_test(suite, "import_is_the_same", import_is_the_same);
    CU_add_test(suite, "bad_adapters", bad_adapters);
    CU_add_test(suite, "merging", merging);
}
