/* nvml.c: the management library by dlopen (nvml.h). Its functions return 0 for success; the names with _v2 are those
 * that every driver since 2012 has. */
#include "bench/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLOCK_SM = 1, CLOCK_MEMORY = 2, TEMPERATURE_GPU = 0, TEXT = 96 };

typedef struct { unsigned long long total, free, used; } memory_info;

struct nvml {
    void *library, *gpu;
    int (*shutdown)(void);
    int (*clock)(void *, int, unsigned *), (*max_clock)(void *, int, unsigned *), (*temperature)(void *, int, unsigned *);
    int (*driver)(char *, unsigned), (*uuid)(void *, char *, unsigned);
    int (*persistence)(void *, int *), (*ecc)(void *, int *, int *);
    int (*memory)(void *, memory_info *);
    int (*power)(void *, unsigned *), (*power_limit)(void *, unsigned *);
    int (*reasons)(void *, unsigned long long *);
};

static void take(nvml *n, const char *name, void *function)
{
    void *found = dlsym(n->library, name);
    memcpy(function, &found, sizeof found);
}

nvml *nvml_open(const char *library, const char *bus_id, char *why)
{
    nvml *n = calloc(1, sizeof *n);
    int (*init)(void) = NULL, (*handle)(const char *, void **) = NULL, error = -1;
    if (!n) return snprintf(why, 400, "no memory"), NULL;
    n->library = dlopen(library ? library : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!n->library) {
        const char *said = dlerror();
        snprintf(why, 400, "%.380s", said ? said : "it cannot be loaded");
        free(n);
        return NULL;
    }
    take(n, "nvmlInit_v2", &init), take(n, "nvmlShutdown", &n->shutdown), take(n, "nvmlDeviceGetHandleByPciBusId_v2", &handle);
    take(n, "nvmlDeviceGetClockInfo", &n->clock), take(n, "nvmlDeviceGetMaxClockInfo", &n->max_clock);
    take(n, "nvmlDeviceGetTemperature", &n->temperature), take(n, "nvmlSystemGetDriverVersion", &n->driver);
    take(n, "nvmlDeviceGetUUID", &n->uuid), take(n, "nvmlDeviceGetPersistenceMode", &n->persistence);
    take(n, "nvmlDeviceGetEccMode", &n->ecc), take(n, "nvmlDeviceGetMemoryInfo", &n->memory);
    take(n, "nvmlDeviceGetPowerUsage", &n->power), take(n, "nvmlDeviceGetPowerManagementLimit", &n->power_limit);
    take(n, "nvmlDeviceGetCurrentClocksThrottleReasons", &n->reasons);
    if (!init || !handle) snprintf(why, 400, "it lacks nvmlInit_v2 or nvmlDeviceGetHandleByPciBusId_v2");
    else if ((error = init()) != 0) snprintf(why, 400, "nvmlInit_v2 failed with %d", error);
    else if ((error = handle(bus_id, &n->gpu)) != 0) snprintf(why, 400, "it does not know the GPU %.40s (error %d)", bus_id, error);
    if (error == 0) return n;
    dlclose(n->library);
    free(n);
    return NULL;
}

void nvml_close(nvml *n)
{
    if (!n) return;
    if (n->shutdown) n->shutdown();
    dlclose(n->library);
    free(n);
}

bool nvml_clocks(nvml *n, unsigned *sm, unsigned *memory)
{
    *sm = *memory = 0;
    return n && n->clock && n->clock(n->gpu, CLOCK_SM, sm) == 0 && n->clock(n->gpu, CLOCK_MEMORY, memory) == 0;
}

typedef struct { void (*say)(void *, const char *, const char *); void *user; } listener;

static void number(const listener *l, const char *key, bool known, double value, const char *format)
{
    char text[TEXT];
    snprintf(text, sizeof text, format, value);
    l->say(l->user, key, known ? text : "not said");
}

void nvml_describe(nvml *n, void (*say)(void *, const char *, const char *), void *user)
{
    listener l = {say, user};
    char text[TEXT] = "";
    unsigned value = 0;
    int now = 0, pending = 0;
    unsigned long long reasons = 0;
    memory_info memory = {0, 0, 0};
    say(user, "gpu_driver", n->driver && n->driver(text, sizeof text) == 0 ? text : "not said");
    say(user, "gpu_uuid", n->uuid && n->uuid(n->gpu, text, sizeof text) == 0 ? text : "not said");
    say(user, "gpu_persistence", n->persistence && n->persistence(n->gpu, &now) == 0 ? now ? "on" : "off" : "not said");
    say(user, "gpu_ecc", n->ecc && n->ecc(n->gpu, &now, &pending) == 0 ? now ? "on" : "off" : "not said");
    struct { const char *key; int (*ask)(void *, int, unsigned *); int which; } clocks[] = {
        {"gpu_sm_clock_at_start", n->clock, CLOCK_SM}, {"gpu_memory_clock_at_start", n->clock, CLOCK_MEMORY},
        {"gpu_sm_clock_max", n->max_clock, CLOCK_SM},  {"gpu_memory_clock_max", n->max_clock, CLOCK_MEMORY}};
    for (int i = 0; i < 4; i++) {
        bool known = clocks[i].ask && clocks[i].ask(n->gpu, clocks[i].which, &value) == 0;
        number(&l, clocks[i].key, known, value, "%.0f MHz");
    }
    bool known = n->power && n->power(n->gpu, &value) == 0;
    number(&l, "gpu_power_at_start", known, value * 1e-3, "%.0f W");
    known = n->power_limit && n->power_limit(n->gpu, &value) == 0;
    number(&l, "gpu_power_limit", known, value * 1e-3, "%.0f W");
    known = n->temperature && n->temperature(n->gpu, TEMPERATURE_GPU, &value) == 0;
    number(&l, "gpu_temperature_at_start", known, value, "%.0f C");
    known = n->memory && n->memory(n->gpu, &memory) == 0;
    number(&l, "gpu_memory_total", known, (double)memory.total / (1 << 30), "%.1f GiB");
    number(&l, "gpu_memory_used_at_start", known, (double)memory.used / (1 << 30), "%.2f GiB");
    known = n->reasons && n->reasons(n->gpu, &reasons) == 0;
    snprintf(text, sizeof text, "0x%llx (1: idle)", reasons);
    say(user, "gpu_throttle_reasons_at_start", known ? text : "not said");
}
