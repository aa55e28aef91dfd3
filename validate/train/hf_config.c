/* hf_config.c: config.json of a LLaMA-style model: read with suspicion, written as transformers does. */
#include "hf_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *hf_read_json(const char *path, ck_error *e)
{
    json_error_t why;
    json_t *object = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    if (!object) {
        if (why.line > 0) ck_fail(e, path, NULL, "line %d: %s", why.line, why.text);
        else ck_fail(e, path, NULL, "cannot be read: %s", why.text);
        return NULL;
    }
    if (json_is_object(object)) return object;
    json_decref(object);
    ck_fail(e, path, NULL, "is not a JSON object");
    return NULL;
}

typedef struct reader {
    const json_t *object;
    const char *file;
    ck_error *e;
} reader;

/* null counts as absent */
static const json_t *given(const reader *r, const char *key)
{
    const json_t *value = json_object_get(r->object, key);
    return json_is_null(value) ? NULL : value;
}

/* A size; fallback < 0: required. */
static bool size(const reader *r, const char *key, int64_t fallback, int64_t *out)
{
    const json_t *value = given(r, key);
    if (!value && fallback < 0) return ck_fail(r->e, r->file, key, "is missing");
    *out = value ? json_integer_value(value) : fallback;
    if (value && !json_is_integer(value)) return ck_fail(r->e, r->file, key, "is not an integer");
    if (*out < 1 || *out > 1 << 30) return ck_fail(r->e, r->file, key, "is %lld; it must be 1 ... 2^30", (long long)*out);
    return true;
}

static bool real(const reader *r, const json_t *object, const char *key, double *out)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return true;
    *out = json_number_value(value);
    if (!json_is_number(value) || !(*out > 0) || *out > 1e30) return ck_fail(r->e, r->file, key, "is not a number above 0");
    return true;
}

/* Must not be there, or be false. */
static bool off(const reader *r, const char *key)
{
    const json_t *value = given(r, key);
    return !value || json_is_false(value) || ck_fail(r->e, r->file, key, "is set: this model cannot do that");
}

static bool text_is(const reader *r, const json_t *object, const char *key, const char *const allowed[2])
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return true;
    const char *text = json_string_value(value);
    if (text && (strcmp(text, allowed[0]) == 0 || strcmp(text, allowed[1]) == 0)) return true;
    return ck_fail(r->e, r->file, key, "is \"%.64s\"; this model can only do \"%s\"", text ? text : "(no text)", allowed[0]);
}

/* rope_theta stands by itself, or (transformers 5) in "rope_parameters"; any scaling would turn other angles. */
static bool rope(const reader *r, lm_config *c)
{
    static const char *const plain[2] = {"default", "default"};
    const json_t *parameters = given(r, "rope_parameters");
    c->rope_theta = 10000;
    if (given(r, "rope_scaling")) return ck_fail(r->e, r->file, "rope_scaling", "is set: this model cannot do that");
    if (!real(r, r->object, "rope_theta", &c->rope_theta)) return false;
    return !parameters || (text_is(r, parameters, "rope_type", plain) && real(r, parameters, "rope_theta", &c->rope_theta));
}

static bool sizes(const reader *r, lm_config *c)
{
    if (!size(r, "hidden_size", -1, &c->hidden_size) || !size(r, "intermediate_size", -1, &c->intermediate_size) ||
        !size(r, "num_hidden_layers", -1, &c->num_hidden_layers) || !size(r, "num_attention_heads", -1, &c->num_attention_heads) ||
        !size(r, "num_key_value_heads", c->num_attention_heads, &c->num_key_value_heads) || !size(r, "vocab_size", -1, &c->vocab_size) ||
        !size(r, "max_position_embeddings", 2048, &c->max_position_embeddings))
        return false;
    if (c->num_hidden_layers > 10000) return ck_fail(r->e, r->file, "num_hidden_layers", "is %lld", (long long)c->num_hidden_layers);
    if (!given(r, "head_dim") && c->hidden_size % c->num_attention_heads != 0)
        return ck_fail(r->e, r->file, "hidden_size", "is %lld, no multiple of num_attention_heads (%lld)", (long long)c->hidden_size,
                       (long long)c->num_attention_heads);
    if (!size(r, "head_dim", given(r, "head_dim") ? -1 : c->hidden_size / c->num_attention_heads, &c->head_dim)) return false;
    if (c->head_dim % 2 != 0) return ck_fail(r->e, r->file, "head_dim", "is %lld; RoPE needs an even one", (long long)c->head_dim);
    if (c->num_attention_heads % c->num_key_value_heads == 0) return true;
    return ck_fail(r->e, r->file, "num_key_value_heads", "is %lld, which does not divide num_attention_heads (%lld)",
                   (long long)c->num_key_value_heads, (long long)c->num_attention_heads);
}

static bool known(const reader *r)
{
    static const char *const types[2] = {"llama", "mistral"}, *const silu[2] = {"silu", "swish"};
    return text_is(r, r->object, "model_type", types) && text_is(r, r->object, "hidden_act", silu) && off(r, "attention_bias") &&
           off(r, "mlp_bias") && off(r, "sliding_window");
}

bool hf_read_config(const char *folder, lm_config *c, ck_error *e)
{
    char *path = NULL;
    if (asprintf(&path, "%s/config.json", folder) < 0) return ck_fail(e, folder, NULL, "out of memory");
    json_t *object = hf_read_json(path, e);
    const reader r = {object, path, e};
    *c = (lm_config){.rms_norm_eps = 1e-6};
    bool good = object && known(&r) && sizes(&r, c) && rope(&r, c) && real(&r, object, "rms_norm_eps", &c->rms_norm_eps);
    if (good) {
        const json_t *tie = given(&r, "tie_word_embeddings");
        c->tie_word_embeddings = json_is_true(tie);
        if (tie && !json_is_boolean(tie)) good = ck_fail(e, path, "tie_word_embeddings", "is neither true nor false");
    }
    json_decref(object);
    free(path);
    return good;
}

static const char *torch_name(fb_dtype t) { return t == FB_F32 ? "float32" : t == FB_BF16 ? "bfloat16" : "float16"; }

/* What tells transformers that linear layers are bitsandbytes'; a format that it does not know has a name of its own, so
 * that it refuses the folder. */
static json_t *quantization_config(fb_format f, bool double_quant, fb_dtype dtype)
{
    bool theirs = f == FB_NF4 || f == FB_FP4;
    return json_pack("{ss sb sb ss sb ss}", "quant_method", theirs ? "bitsandbytes" : "fourbit", "load_in_4bit", 1, "load_in_8bit", 0,
                     "bnb_4bit_quant_type", fb_format_name(f), "bnb_4bit_use_double_quant", double_quant, "bnb_4bit_compute_dtype", torch_name(dtype));
}

json_t *hf_config_json(const lm_config *c, fb_dtype dtype, bool quantized, fb_format format, bool double_quant)
{
    json_t *object = json_pack(
        "{s[s] ss ss sI sI sI sI sI sI sI sI sf sf sb sb sb ss si si}", "architectures", "LlamaForCausalLM", "model_type", "llama", "hidden_act",
        "silu", "vocab_size", (json_int_t)c->vocab_size, "hidden_size", (json_int_t)c->hidden_size, "intermediate_size",
        (json_int_t)c->intermediate_size, "num_hidden_layers", (json_int_t)c->num_hidden_layers, "num_attention_heads",
        (json_int_t)c->num_attention_heads, "num_key_value_heads", (json_int_t)c->num_key_value_heads, "head_dim", (json_int_t)c->head_dim,
        "max_position_embeddings", (json_int_t)c->max_position_embeddings, "rms_norm_eps", c->rms_norm_eps, "rope_theta", c->rope_theta,
        "tie_word_embeddings", c->tie_word_embeddings, "attention_bias", 0, "mlp_bias", 0, "torch_dtype", torch_name(dtype), "bos_token_id", 1,
        "eos_token_id", 2);
    if (object && quantized) json_object_set_new(object, "quantization_config", quantization_config(format, double_quant, dtype));
    return object;
}
