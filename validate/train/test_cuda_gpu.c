/* test_cuda_gpu.c: the tests of the training loop on CUDA, on a GPU (test_cuda_device.h): test_train_gpu, for make gpu-report. */
#include "test_cuda_device.h"

#include <stdio.h>

bool test_cuda_executes(void) { return false; }

device *test_cuda_device(void)
{
    char why[DEVICE_TEXT];
    device *d = device_open("cuda", why);
    if (!d) fprintf(stderr, "\n    %s\n", why);
    return d;
}

/* Of the executor alone. */
long test_cuda_launches(void) { return 0; }
void test_cuda_order(unsigned order) { (void)order; }
void test_cuda_quiet(bool quiet) { (void)quiet; }
