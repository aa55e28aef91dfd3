/* peft.h: adapters as Hugging Face's peft keeps them, and merged into their base.
 *
 *   FOLDER/adapter_config.json         r, lora_alpha, target_modules ...
 *   FOLDER/adapter_model.safetensors   base_model.model.<module>.lora_A.weight [r, in], .lora_B.weight [out, r];
 *                                      metadata {"format": "pt"}
 */
#ifndef FOURBIT_TRAIN_PEFT_H
#define FOURBIT_TRAIN_PEFT_H

#include "validate/train/hf_load.h"

enum { PEFT_PATH = 1024 };

typedef struct peft_config {
    int64_t r;
    double lora_alpha, lora_dropout;
    bool use_rslora;         /* scaling = alpha / sqrt(r) instead of alpha / r */
    char base_model[PEFT_PATH]; /* base_model_name_or_path; "": null */
} peft_config;

double peft_scaling(const peft_config *c);

/* Writes FOLDER (made if need be). adapters: [count] lora_A and lora_B of each module in turn, as lm_model keeps them, under
 * the names that stand in the file; in dtype. target_modules are the last parts of their modules' names. */
bool peft_save(const char *folder, const peft_config *c, const lm_tensor *adapters, int64_t count, device *d, fb_dtype dtype,
               ck_error *e);

/* adapter_config.json. Refused, by name: what would change the computation and is not done here (use_dora, bias other than
 * none, fan_in_fan_out, rank_pattern, alpha_pattern, modules_to_save, a peft_type other than LORA). */
bool peft_read_config(const char *folder, peft_config *c, ck_error *e);
/* The file must hold these tensors and no others, of these shapes: then their data is set. */
bool peft_load(const char *folder, const lm_tensor *adapters, int64_t count, device *d, ck_error *e);

/* The base with its adapters merged in, W + scaling * B A, as a source for hf_save: dense (bf16), or with
 * hf_save_options.quantize into 4 bits again, which adds a second quantization error. The product is summed in double and
 * rounded once. base and adapters must outlive it; a base in 4 bits is decoded, one layer at a time. */
typedef struct peft_merged {
    const lm_source *base;
    const lm_tensor *adapters;
    int64_t count;
    double scaling;
    device *device; /* of the adapters; NULL: the host's */
} peft_merged;
lm_source peft_merged_source(peft_merged *m);

/* w [out, in] += scaling * B [out, r] A [r, in], all in host memory. */
void peft_merge(float *w, const float *a, const float *b, int64_t out, int64_t in, int64_t r, double scaling);

#endif
