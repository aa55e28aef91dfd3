/* check_lora.h: are a LoRA layer's outputs right (fb_lora_forward, fb_lora_backward): check.h's bounds, stage by stage.
 *
 *   U    a product of K terms and one scaling, rounded to x's type
 *   Y    K + rank terms, U as the backend gave it
 *   dB   M terms, U as it was given
 *   dA   M terms, each off by dU's slack
 *   dX   N + rank terms, the latter off by dU's slack where X was kept, absent where it was dropped
 *
 * dU's slack: what the fp32 sum over N may be off, and then one rounding to its type. A backend that keeps
 * dU in fp32 is within it, too. Which elements are dropped is worked out here, not by dropout.h. */
#ifndef FOURBIT_CHECK_LORA_H
#define FOURBIT_CHECK_LORA_H

#include "check.h"

typedef struct check_lora {
    const char *what;
    const fb_matrix *w;
    const fb_lora *lora;
    fb_weights weights; /* what fb_lora_weights says of the operation */
    int64_t m;
    fb_dtype dtype;     /* of x, u, dy, a, b, bias */
    const void *x, *u;
    bool gaussian;      /* also the bounds on the whole */

    const void *bias, *y; /* forward */
    fb_dtype y_dtype;

    const void *dy, *dx, *dx_before; /* backward; dx NULL: not made; _before NULL: not accumulated */
    fb_dtype dx_dtype;
    const float *da, *da_before, *db, *db_before;
} check_lora;

enum { CHECK_LORA_FORWARD = 2, CHECK_LORA_BACKWARD = 3 };
void check_lora_forward(const check_lora *c, check_result results[CHECK_LORA_FORWARD]);   /* U, Y */
void check_lora_backward(const check_lora *c, check_result results[CHECK_LORA_BACKWARD]); /* dA, dB, dX */
/* dU [m, rank] in double from dY [m, rows] and lora->b, both of type t, and how far a backend's may be from it. */
void check_lora_du(const fb_lora *lora, int64_t rows, int64_t m, const void *dy, fb_dtype t, double *du, double *slack);
/* Y against weights and U that were never rounded: check.h's level 3. */
check_result check_lora_level3(const check_lora *c);

/* Philox4x32-10, written down a second time; whether element i is kept. */
void check_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
bool check_keeps(uint64_t seed, float dropout, int64_t i);

#endif
