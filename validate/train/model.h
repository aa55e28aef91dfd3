/* model.h: a LLaMA-style decoder whose linear layers are frozen, 4-bit or dense, with a LoRA pair each.
 *
 *   h = embed_tokens[token]
 *   for each layer:  a = RMSNorm(h);  q, k, v = a Wq^T, a Wk^T, a Wv^T;  RoPE(q, k);  h += attention(q, k, v) Wo^T
 *                    b = RMSNorm(h);  h += (SiLU(b Wgate^T) * (b Wup^T)) Wdown^T
 *   logits = RMSNorm(h) lm_head^T     (lm_head = embed_tokens when tied)
 *
 * Names, shapes and conventions are those of Hugging Face's LlamaForCausalLM: weights [out_features, in_features], RoPE
 * over halves (element i of a head turns with i + head_dim/2), grouped-query attention (query head i reads key head
 * i / (heads / kv_heads)). Sources: Touvron et al., LLaMA (2023); Su et al., RoFormer (2021); Zhang and Sennrich, RMSNorm
 * (2019); Shazeer, GLU variants (2020); Ainslie et al., GQA (2023); Hu et al., LoRA (2021); Dettmers et al., QLoRA (2023).
 *
 * Activations, adapters, gradients and what is not a linear layer are fp32. Every data pointer below is the device's: with
 * the CUDA backend on a GPU that is not the host's memory, and only the model's device may be asked to copy from it.
 *
 * Functions that can fail return false (or NULL) and say why in *e. Nothing here prints or exits.
 */
#ifndef FOURBIT_TRAIN_MODEL_H
#define FOURBIT_TRAIN_MODEL_H

#include "fourbit.h"
#include "bench/device.h"
#include "validate/checkpoint/error.h"

/* float; the gradient check compiles model and reference operations a second time with double. */
#ifdef LM_DOUBLE
typedef double lm_real;
#else
typedef float lm_real;
#endif

enum { LM_NAME = 128, LM_LINEARS = 7 /* of a layer: q, k, v, o, gate, up, down */ };

/* ---- configuration: the fields of config.json that matter ---------------------------------------------------- */

typedef struct lm_config {
    int64_t vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads;
    int64_t head_dim;                /* hidden_size / num_attention_heads unless config.json says otherwise; even */
    int64_t max_position_embeddings; /* the longest sequence */
    double rope_theta, rms_norm_eps;
    bool tie_word_embeddings;
} lm_config;

/* False if a field is out of range or the fields disagree; *e names it. file: for the message. */
bool lm_config_check(const lm_config *c, const char *file, ck_error *e);

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

typedef struct lm_tensor {
    char name[LM_NAME]; /* in a checkpoint: "model.layers.0.self_attn.q_proj.weight"; of an adapter, what PEFT writes:
                           "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" */
    int rank;           /* 1 or 2 */
    int64_t shape[2];
    int64_t count;      /* elements */
    lm_real *data;      /* [count]; NULL: held in 4 bits, see lm_linear */
    lm_real *grad;      /* [count]; NULL: not trained */
    bool decays;        /* weight decay applies: matrices, not norms */
} lm_tensor;

/* One linear layer: y = x W^T, and with an adapter + scaling * D(x) A^T B^T. */
typedef struct lm_linear {
    char module[LM_NAME];      /* "model.layers.0.self_attn.q_proj"; + ".weight" is the name of W */
    int64_t out_features, in_features;
    lm_tensor *weight;         /* W. data NULL: it is in `quant` */
    fb_matrix quant;           /* 4-bit W, when the model is quantized; its buffers are device memory */
    bool normalized;           /* then W = decoded * moments[1] + moments[0] */
    float moments[2];
    lm_tensor *lora_A, *lora_B; /* [rank, in], [out, rank]; NULL: no adapter */
} lm_linear;

/* ---- where weights come from ---------------------------------------------------------------------------------------- */

/* A checkpoint (hf_load.h) or, where NULL is given, random initial values (normal, deviation 0.02; output projections less
 * by sqrt(2 layers), as GPT-2's; norms 1). Every tensor of the model is asked for once. */
typedef struct lm_source {
    void *self;
    const char *file; /* for messages */
    /* dst [count] (host memory) = the tensor of t's name and shape, as fp32. No such tensor, or another shape: false. */
    bool (*read)(void *self, const lm_tensor *t, float *dst, ck_error *e);
    /* Is the weight of that linear layer stored in 4 bits? Then *w is it, in host memory that stays until the model is
     * freed: taken as it is, whatever format the options ask for. *normalized and moments as in lm_linear. Not stored in 4
     * bits: true with w->codes NULL, and the weight is read() and quantized as the options say. NULL: none ever is. */
    bool (*quantized)(void *self, const lm_linear *l, fb_matrix *w, bool *normalized, float moments[2], ck_error *e);
} lm_source;

/* ---- options -------------------------------------------------------------------------------------------------------- */

typedef enum lm_trains {
    LM_TRAINS_NOTHING = 0, /* evaluation, sampling */
    LM_TRAINS_ADAPTERS,    /* LoRA on a frozen base */
    LM_TRAINS_ALL          /* every dense tensor; no adapters, no quantization: making a base */
} lm_trains;

/* What the linear layers' weights become when they are loaded. */
typedef enum lm_base {
    LM_BASE_F32 = 0,
    LM_BASE_BF16,  /* rounded to bf16; the CPU's dense products then read them as fp32 */
    LM_BASE_4BIT,  /* format, block_size, double_quant, normalize */
    LM_BASE_INT3   /* the experiment's control: 7 levels, -3 ... 3, held in FB_INT4's layout (quantize_base.c) */
} lm_base;

typedef struct lm_options {
    fb_backend backend;
    int threads;       /* as fb_context.threads */
    lm_trains trains;
    lm_base base;
    fb_format format;
    int32_t block_size;
    bool double_quant, normalize;
    int64_t rank;      /* of the adapters; 0: none */
    double alpha;      /* scaling = alpha / rank, or / sqrt(rank) with rslora */
    bool rslora;
    double dropout;    /* of the adapters' input, [0, 1) */
    bool unfused;      /* adapters on a 4-bit weight by the backend's dense products, not the library's LoRA calls */
    bool recompute;    /* activation checkpointing: keep each layer's input only, and run it again on the way back */
    int64_t batch, seq; /* at most; buffers are made for them */
    uint64_t seed;     /* of initial values and dropout */
} lm_options;

/* ---- the model -------------------------------------------------------------------------------------------------------- */

/* Bytes by component: as predicted from the shapes (lm_predict_memory), and as asked of the device. */
typedef struct lm_memory {
    size_t base_linear; /* 4-bit codes, absmax ...; or dense */
    size_t base_other;  /* embeddings, head, norms */
    size_t adapters, gradients;
    size_t activations; /* kept for the way back, all layers */
    size_t workspace;   /* one layer's passing values, the library's workspaces */
    size_t logits;
} lm_memory;

typedef struct lm_run lm_run; /* activations and workspace; model_run.c */

typedef struct lm_model {
    lm_config config;
    lm_options options;
    device *device;        /* memory and copies */
    lm_linear *linears;    /* [layers * LM_LINEARS], layer by layer in LM_LINEARS's order */
    int64_t linear_count;
    lm_tensor *tensors;    /* the base: embed_tokens, each layer's norms and weights, norm, lm_head unless tied */
    int64_t tensor_count;
    lm_tensor *adapters;   /* lora_A and lora_B of each linear layer in turn */
    int64_t adapter_count;
    lm_tensor **trainable; /* those with a gradient, in the order above: what an optimizer walks and a checkpoint holds */
    int64_t trainable_count;
    int64_t trainable_elements;
    uint64_t dropout_step; /* of the next forward pass: part of what a checkpoint must hold. Dropped elements depend on
                              (seed, dropout_step, layer, index) alone */
    lm_memory memory;      /* measured */
    lm_run *run;
} lm_model;

/* NULL: *e says why. d must outlive the model. */
lm_model *lm_model_new(const lm_config *c, const lm_options *o, const lm_source *source, device *d, ck_error *e);
void lm_model_free(lm_model *m);

lm_memory lm_predict_memory(const lm_config *c, const lm_options *o);

lm_tensor *lm_find(lm_model *m, const char *name); /* base tensor or adapter; NULL: none */

/* Mean cross-entropy in nats of `targets` after `tokens`, both [batch, seq] in host memory, ids in [0, vocab); a negative
 * target does not count. training: dropout is on, and what lm_backward needs is kept. *loss may come out NaN or Inf: the
 * caller looks. */
bool lm_forward(lm_model *m, const int32_t *tokens, const int32_t *targets, int64_t batch, int64_t seq, bool training,
                double *loss, ck_error *e);
/* Adds the gradient of scale * that loss to every trainable tensor's grad. After each training forward pass, once. */
bool lm_backward(lm_model *m, double scale, ck_error *e);
bool lm_zero_gradients(lm_model *m, ck_error *e);
/* sqrt of the sum of squares of all gradients: in double, in one fixed order. */
bool lm_gradient_norm(lm_model *m, double *norm, ck_error *e);
/* logits [vocab] (host, fp32) after the last of `seq` tokens, for sampling. */
bool lm_next_logits(lm_model *m, const int32_t *tokens, int64_t seq, float *logits, ck_error *e);

/* The weight of a linear layer as it enters products, decoded to fp32 (host memory, [out, in]): for merging and for
 * measuring the error of quantization. A temporary of one layer, given back. */
bool lm_decode_weight(lm_model *m, const lm_linear *l, float *dst, ck_error *e);

#endif
