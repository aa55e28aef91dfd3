/* spike.h: does paged optimizer state survive that someone else takes the memory? Five runs of the same updates:
 *
 *   1 resident    all state in memory, nobody else
 *   2 paged       behind a pager with room for all of it
 *   3 hog         the same, and for some steps memory is taken until less is free than the state needs
 *   4 control     resident state while the hog is there: must fail to allocate, or the hog was none
 *   5 reload      as 3, saved and loaded while the hog is there
 *
 * Parameters, m, v and losses of 1, 2, 3 and 5 must have the same bits, 3 and 5 must have moved pages, and two steps after
 * the hog is gone nothing may move any more. Gradients are made here (they follow the parameters to a moving target), so
 * that this says something about pager and optimizer alone.
 *
 * test_spike.c runs it on the host, with a budget in place of a card; spike_main.c on a GPU.
 */
#ifndef FOURBIT_TRAIN_SPIKE_H
#define FOURBIT_TRAIN_SPIKE_H

#include "validate/train/train_checkpoint.h"

enum { SPIKE_STEPS = 16, SPIKE_FROM = 5, SPIKE_TO = 10 }; /* the hog is there in steps FROM ... TO - 1 */

/* Memory that others may take: a card's, or a budget's. */
typedef struct spike_memory {
    void *self;
    size_t (*free_bytes)(void *self);
    /* Takes so much that only `left` bytes stay free, with plain allocations; and gives it back. */
    bool (*take)(void *self, size_t left, ck_error *e);
    void (*give)(void *self);
} spike_memory;

typedef struct spike_setup {
    fb_context context;    /* of the updates */
    device *device;        /* of parameters, gradients and resident state */
    spike_memory memory;
    pager_config paged;    /* kind, page_bytes ...; budget 0 */
    bool state8;
    int64_t elements;      /* parameters */
    const char *folder;    /* for checkpoints: five files are left there */
} spike_setup;

typedef struct spike_arm {
    const char *name;
    double loss[SPIKE_STEPS];
    double seconds[SPIKE_STEPS];     /* of opt_step, until all its work is done */
    uint64_t moved[SPIKE_STEPS];     /* bytes, in and out */
    uint64_t bytes_in, bytes_out;
    size_t resident_in_spike;        /* most bytes of state in memory while the hog was there */
} spike_arm;

enum { SPIKE_RESIDENT, SPIKE_PAGED, SPIKE_HOG, SPIKE_CONTROL, SPIKE_RELOAD, SPIKE_ARMS };

typedef struct spike_result {
    spike_arm arms[SPIKE_ARMS];
    size_t state_bytes;
    char control[256];     /* what the control said */
} spike_result;

/* True: all of the above holds. False: *e says which arm and what. */
bool spike_run(const spike_setup *s, spike_result *r, ck_error *e);

/* Updates with resident state and with a pager that has room for all of it, in turn: medians of the seconds of one, and of
 * the ratio of each pair. The device must have room for both. */
typedef struct spike_overhead {
    double resident, paged, ratio;
    uint64_t moved; /* by the pager, after its first step */
} spike_overhead;
bool spike_measure_overhead(const spike_setup *s, int rounds, spike_overhead *o, ck_error *e);

#endif
