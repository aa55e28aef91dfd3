/* hf_config.h: JSON files of a Hugging Face folder. Internal to hf_load.c, hf_save.c and peft.c. */
#ifndef FOURBIT_TRAIN_HF_CONFIG_H
#define FOURBIT_TRAIN_HF_CONFIG_H

#include "validate/train/hf_load.h"

#include <jansson.h>

/* An object, or NULL and *e. */
json_t *hf_read_json(const char *path, ck_error *e);
/* FOLDER/name = object, whole or not at all; FOLDER is made if it is not there. Takes the object. */
bool hf_write_json(const char *folder, const char *name, json_t *object, ck_error *e);
/* config.json's object; NULL: out of memory. */
json_t *hf_config_json(const lm_config *c, fb_dtype dtype, bool quantized, fb_format format, bool double_quant);

/* dst [rows, cols] = the weight, as fp32. */
bool hf_decode(const char *name, const fb_matrix *w, bool normalized, const float moments[2], float *dst, ck_error *e);
/* dst [t->elements] = t, of F32, BF16 or F16 and of any alignment, as fp32. */
void hf_as_float(const st_tensor *t, float *dst);
/* [n] of fp32 rounded to t; dst may be src. */
void hf_round(const float *src, int64_t n, fb_dtype t, void *dst);
st_dtype hf_stored(fb_dtype t);
/* Names a linear layer by its weight's name ("... .q_proj.weight"), with shape. */
lm_linear hf_linear(const lm_tensor *weight);

#endif
