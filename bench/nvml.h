/* nvml.h: clocks, driver and state of a GPU, asked of the driver's management library, which is loaded when it is there. */
#ifndef FOURBIT_BENCH_NVML_H
#define FOURBIT_BENCH_NVML_H

#include <stdbool.h>

typedef struct nvml nvml;

/* library: NULL for the driver's own (libnvidia-ml.so.1); bus_id: of the GPU. NULL: why[400] says why not. */
nvml *nvml_open(const char *library, const char *bus_id, char *why);
void nvml_close(nvml *n);

/* MHz now; false: it does not say. */
bool nvml_clocks(nvml *n, unsigned *sm, unsigned *memory);

/* A name and value at a time, for provenance: driver, UUID, clocks and their limits, ECC, persistence, power, memory,
 * temperature, what holds the clocks down. What the library does not say is "not said". */
void nvml_describe(nvml *n, void (*say)(void *user, const char *key, const char *value), void *user);

#endif
