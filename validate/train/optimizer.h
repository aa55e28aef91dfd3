/* optimizer.h: AdamW over a list of tensors, its state behind a pager.
 *
 * The arithmetic is fb_adamw32's or fb_adamw8's (fourbit.h); this walks the tensors in pieces of at most a page, acquires
 * the state of each, and asks for the next one's while it works. Elements do not depend on each other (8-bit: on others
 * of their 256-element block), so the pieces, the pager's kind and its budget change no bit of the result.
 *
 *   state of one piece of n elements, blocks = ceil(n / 256):
 *     fp32    m [n] fp32 | v [n] fp32
 *     8-bit   m_absmax [blocks] fp32 | v_absmax [blocks] fp32 | m_codes [n] | v_codes [n]
 *   each part begins on a multiple of 4 bytes; a piece begins on a multiple of 256 elements of its tensor.
 */
#ifndef FOURBIT_TRAIN_OPTIMIZER_H
#define FOURBIT_TRAIN_OPTIMIZER_H

#include "validate/checkpoint/safetensors.h"
#include "validate/train/model.h"
#include "validate/train/pager.h"

enum { OPT_NORM_CHUNK = 4096 }; /* gradients whose squares are added up alone */

typedef struct opt_config {
    fb_context context;   /* backend, threads, stream: as the library is to be called */
    device *device;       /* of the tensors' memory; NULL: the host's */
    bool state8;
    float beta1, beta2, eps, weight_decay; /* the decay of tensors that have `decays` */
    double max_norm;      /* gradients are scaled so that their norm is at most this; 0: as they are */
    pager_config pager;
} opt_config;

typedef struct optimizer optimizer;

/* The paper's: betas .9 and .999, eps 1e-8, no decay, clipping at 0.3; fp32 state, resident. */
opt_config opt_default(const fb_context *context, device *d);

/* tensors: [count] with data, grad and count set; names are used in messages and checkpoints. The list and the tensors
 * must outlive the optimizer. NULL: *e says why, for example how much memory the state needs and did not get. */
optimizer *opt_new(const opt_config *config, lm_tensor *const *tensors, int64_t count, ck_error *e);
void opt_free(optimizer *o); /* NULL is fine */

/* sqrt of the sum of all squared gradients: sums of OPT_NORM_CHUNK elements in double, added in their order whatever the
 * number of threads. On a GPU gradients are copied to the host for this; lm_gradient_norm does without. */
bool opt_gradient_norm(optimizer *o, double *norm, ck_error *e);

/* One update. gradients count grad_scale times (1 / the number of accumulated batches), then are clipped; norm is that of
 * the unscaled gradients. A norm that is NaN, or so large that a square would overflow: false, before anything was
 * written. A pager that fails half way (a full disk): false, and opt_failed says that parameters and state are now of two
 * different steps: go back to a checkpoint. */
bool opt_step(optimizer *o, double lr, double grad_scale, double norm, ck_error *e);
bool opt_failed(const optimizer *o);

int64_t opt_steps(const optimizer *o); /* updates so far */
pager *opt_pager(optimizer *o);
size_t opt_state_bytes(const optimizer *o); /* m and v of all tensors, without the pages' padding */

/* ---- state in a checkpoint ----------------------------------------------------------------------------------------------
 *
 * For each tensor T: "optimizer.T.m" and ".v" F32 [count], or ".m_codes", ".v_codes" U8 [count] and ".m_absmax",
 * ".v_absmax" F32 [ceil(count/256)]. Neither pieces nor pages show: a state saved under one pager loads under any. */

size_t opt_parts(const optimizer *o); /* how many tensors that is */
/* Declares and puts them. */
bool opt_plan(optimizer *o, st_writer *w, ck_error *e);
bool opt_put(optimizer *o, st_writer *w, ck_error *e);
/* Is it all there, of the right shapes? Then takes it, with the number of updates. */
bool opt_check(const optimizer *o, const st_file *f, ck_error *e);
bool opt_take(optimizer *o, const st_file *f, int64_t steps, ck_error *e);

#endif
