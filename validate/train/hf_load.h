/* hf_load.h: Hugging Face checkpoint folders of LLaMA-style models, read and written.
 *
 *   FOLDER/config.json                    sizes; with "quantization_config" where linear layers are in 4 bits
 *   FOLDER/model.safetensors              or, sharded:
 *   FOLDER/model.safetensors.index.json   {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors", ...}}
 *
 * Weights in F32, BF16 or F16; linear layers also as bnb-4bit (checkpoint/bnb4bit.h). Files are mapped: what is not asked
 * for is not read. Nothing in them is believed: a shard's name that is not a plain file name, a tensor that is missing or
 * whose shape is not that of config.json is an error that says which.
 */
#ifndef FOURBIT_TRAIN_HF_LOAD_H
#define FOURBIT_TRAIN_HF_LOAD_H

#include "validate/checkpoint/bnb4bit.h"
#include "validate/train/model.h"

/* config.json of FOLDER. Required: hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, vocab_size.
 * Others have transformers' defaults: num_key_value_heads = num_attention_heads, head_dim = hidden_size / heads,
 * rms_norm_eps 1e-6, rope_theta 10000, max_position_embeddings 2048, tie_word_embeddings false. Refused, by name: what
 * would change the computation and is not done here (rope_scaling, attention_bias, mlp_bias, another hidden_act, sliding
 * windows, a model_type other than llama or mistral). */
bool hf_read_config(const char *folder, lm_config *c, ck_error *e);

typedef struct hf_checkpoint {
    char *folder;
    lm_config config;
    st_file *files;
    bnb_index *indices; /* of each file */
    size_t file_count;
    void *weight_map;   /* of the index; NULL: one file */
    bnb_module *modules; /* opened by hf_source's quantized */
    size_t module_count;
} hf_checkpoint;

/* Reads config.json, opens every shard, and checks that each tensor of the model is there with its shape. */
bool hf_open(hf_checkpoint *c, const char *folder, ck_error *e);
void hf_close(hf_checkpoint *c);

/* Its tensors for lm_model_new. The checkpoint must stay open as long as the model. */
lm_source hf_source(hf_checkpoint *c);

/* The base tensors of a configuration, in the model's order, with names and shapes and no data: malloc'd [*count]. NULL:
 * out of memory. linear: of each, whether it is a linear layer's weight (malloc'd too; may be NULL). */
lm_tensor *hf_tensors(const lm_config *c, int64_t *count, bool **linear);

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

/* Tensors that are in memory, as a source: data where it is not NULL, else the linear layer's `quant`. Both may be a
 * device's (NULL: the host's). Copies are kept until hf_memory_close. */
typedef struct hf_memory {
    const lm_tensor *tensors;
    int64_t tensor_count;
    const lm_linear *linears;
    int64_t linear_count;
    device *device;
    void **copies;
    size_t copy_count;
} hf_memory;
lm_source hf_memory_source(hf_memory *m);
void hf_memory_close(hf_memory *m);

typedef struct hf_save_options {
    fb_dtype dtype;      /* of what is not in 4 bits; and "torch_dtype" */
    bool quantize;       /* linear layers that the source has dense, the head excepted: into 4 bits */
    fb_format format;    /* quantize */
    int32_t block_size;
    bool double_quant;
    fb_context context;  /* quantize: with a backend of the host */
} hf_save_options;

/* Writes FOLDER (made if need be) with config.json and model.safetensors, one tensor in memory at a time. What the source
 * has in 4 bits is written as it is, bit for bit. */
bool hf_save(const char *folder, const lm_config *c, const lm_source *source, const hf_save_options *o, ck_error *e);

#endif
