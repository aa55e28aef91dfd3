/* train_checkpoint.h: all that a training run must remember, in one file that appears whole or not at all.
 *
 * A safetensors file: the trained tensors under their names, the optimizer's state ("optimizer.*"), and in the container's
 * metadata, under "fourbit_training", a JSON object of the fields below. One file, so one rename: a full disk, Ctrl-C or
 * a lost machine leaves the previous checkpoint as it was (atomic_file.h).
 *
 *     double lr = 2e-4; int64_t step = 0; uint64_t dropout_step = 0; char config[65];
 *     const tc_field fields[] = {{"step", TC_I64, &step, 0, false}, {"dropout_step", TC_U64, &dropout_step, 0, false},
 *                                {"lr", TC_F64, &lr, 0, true}, {"config_sha256", TC_TEXT, config, sizeof config, true}};
 *     tc_save("run/state.safetensors", &(tc_state){fields, 4, model->trainable, n, optimizer, device}, e)
 */
#ifndef FOURBIT_TRAIN_CHECKPOINT_H
#define FOURBIT_TRAIN_CHECKPOINT_H

#include "validate/train/optimizer.h"

typedef enum tc_kind {
    TC_I64 = 0, /* int64_t */
    TC_U64,     /* uint64_t: RNG words, seeds; 16 hexadecimal digits in the file */
    TC_F64,     /* double; its bits are kept, as C's hexadecimal notation */
    TC_TEXT     /* char [size], NUL-terminated UTF-8 */
} tc_kind;

typedef struct tc_field {
    const char *name;
    tc_kind kind;
    void *value;
    size_t size;      /* TC_TEXT: of the array */
    bool must_equal;  /* loading compares instead of setting: part of what makes it the same run */
} tc_field;

typedef struct tc_state {
    const tc_field *fields;
    size_t field_count;
    lm_tensor *const *tensors; /* what is trained: fp32 */
    int64_t tensor_count;
    optimizer *optimizer;      /* NULL: none */
    device *device;            /* of the tensors; NULL: the host's memory */
} tc_state;

/* false: *e says why, and a file that was there is as it was. */
bool tc_save(const char *path, const tc_state *state, ck_error *e);

/* The file must hold these fields and tensors and no others, with these shapes, and equal values where must_equal: else
 * false, *e names the field or tensor, and nothing was changed. After a load, training goes on with the same bits as if it
 * had not been interrupted. */
bool tc_load(const char *path, const tc_state *state, ck_error *e);

#endif
