/* test_lockstep.h: a backend's small operations beside the reference's, call by call, inside a real training step. */
#ifndef FOURBIT_TRAIN_TEST_LOCKSTEP_H
#define FOURBIT_TRAIN_TEST_LOCKSTEP_H

#include "ops.h"

enum { LOCKSTEP_OPS = 16 };
typedef struct lockstep_count {
    const char *name;
    int64_t calls, elements, bad;
    double worst; /* error over its bound */
} lockstep_count;

/* A table that runs each operation twice: as `ops` does it, which is what the caller gets, and as the reference does it on
 * copies of the same inputs; every output is held to its bound (test_lockstep.c derives them). The host's memory only. One
 * table at a time. */
const lm_ops *lockstep_begin(const lm_ops *ops);
const lockstep_count *lockstep_counts(void); /* [LOCKSTEP_OPS] */

#endif
