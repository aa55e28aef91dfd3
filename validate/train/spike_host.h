/* spike_host.h: a host device whose memory is a budget: the card of those who have none. */
#ifndef FOURBIT_TRAIN_SPIKE_HOST_H
#define FOURBIT_TRAIN_SPIKE_HOST_H

#include "validate/train/spike.h"

typedef struct spike_host {
    device d;    /* first: alloc fails beyond the limit */
    size_t limit, used, taken;
} spike_host;

/* The limit: parameters, gradients, state, and little more. A setup with a pager behind a file in `folder`; its device and
 * memory are h, which must outlive it. */
spike_setup spike_host_setup(spike_host *h, const char *folder, int64_t elements, bool state8);

#endif
