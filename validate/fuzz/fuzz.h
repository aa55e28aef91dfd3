/* fuzz.h: what a fuzz target gives. libFuzzer calls it with inputs it invents; replay.c
 * with the files of a folder, on any compiler. */
#ifndef FOURBIT_FUZZ_H
#define FOURBIT_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
