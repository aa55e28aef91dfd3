/* layers.h: the linear layers of models that people run, and the benchmark cases they make. */
#ifndef FOURBIT_BENCH_LAYERS_H
#define FOURBIT_BENCH_LAYERS_H

#include "bench/timing.h"
#include "validate/cases.h"

typedef struct bench_layer {
    const char *model, *part;
    int64_t n, k; /* W [n, k] */
} bench_layer;

extern const bench_layer bench_layers[]; /* ends with model NULL */

/* base (ends with rows = -1), then what the layers of the models add to it: "all", "none", or names with commas between;
 * of their sweeps those that are in one of sets. No case twice, those of one matrix together. To be freed. NULL: no memory, or no such model; why says. */
fb_case *bench_layer_cases(const char *models, unsigned sets, const fb_case *base, char why[TIMING_WHY]);

#endif
