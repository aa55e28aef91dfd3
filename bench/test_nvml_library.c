/* test_nvml_library.c: a management library that test_gpu.c loads in place of the driver's. */
#include <stdio.h>
#include <string.h>

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **gpu);
int nvmlDeviceGetClockInfo(void *gpu, int which, unsigned *mhz);
int nvmlDeviceGetUUID(void *gpu, char *text, unsigned size);
int nvmlDeviceGetEccMode(void *gpu, int *now, int *pending);
int nvmlSystemGetDriverVersion(char *text, unsigned size);

static int gpu_of_this_machine;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **gpu)
{
    *gpu = &gpu_of_this_machine;
    return strcmp(bus, "0000:1B:00.0") == 0 ? 0 : 6;
}
int nvmlDeviceGetClockInfo(void *gpu, int which, unsigned *mhz)
{
    static unsigned now = 1500;
    *mhz = which == 1 ? now += 15 : 2619;
    return gpu == &gpu_of_this_machine ? 0 : 2;
}
int nvmlDeviceGetUUID(void *gpu, char *text, unsigned size)
{
    snprintf(text, size, "GPU-1234");
    return gpu == &gpu_of_this_machine ? 0 : 2;
}
int nvmlDeviceGetEccMode(void *gpu, int *now, int *pending)
{
    *now = *pending = 1;
    return gpu == &gpu_of_this_machine ? 0 : 2;
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) { return snprintf(text, size, "580.1") > 0 ? 0 : 1; }
