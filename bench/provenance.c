/* provenance.c: on what and from what the figures were made. Values are strings, as Google Benchmark's own
 * custom context is. */
#include "bench/results.h"

#include "commit.h" /* generated: BENCH_COMMIT */

#include <stdarg.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef BENCH_CFLAGS
#define BENCH_CFLAGS "unknown"
#endif
#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

void provenance_set(json_t *context, const char *key, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_t *value = json_string(text); /* NULL if some /proc file holds bytes that are no UTF-8 */
    json_object_set_new(context, key, value ? value : json_string("not UTF-8"));
}

/* The value of the first line "key : value" of a file; "" if there is none. */
static void line_of(const char *path, const char *key, char *value, size_t size)
{
    char line[8192];
    FILE *f = fopen(path, "r");
    value[0] = '\0';
    while (f && !value[0] && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || !colon) continue;
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(value, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
    }
    if (f) fclose(f);
}

/* The vector extensions of a list of flags; the whole list is a kilobyte. */
static void vector_flags(const char *all, char *text, size_t size)
{
    static const char *const families[] = {"sse4", "avx", "fma", "f16c", "bmi", "amx", "asimd", "sve", "bf16"};
    char copy[8192];
    size_t used = 0;
    text[0] = '\0';
    snprintf(copy, sizeof copy, "%s", all);
    for (char *save, *flag = strtok_r(copy, " ", &save); flag; flag = strtok_r(NULL, " ", &save))
        for (size_t i = 0; i < sizeof families / sizeof *families; i++)
            if (strncmp(flag, families[i], strlen(families[i])) == 0 && used < size)
                used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "", flag);
}

static void caches(json_t *context)
{
    char text[256] = "";
    size_t used = 0;
    for (int i = 0; i < 8 && used < sizeof text; i++) {
        char path[96], level[8] = "", type[32] = "", size[16] = "";
        const char *const names[] = {"level", "type", "size"};
        char *const values[] = {level, type, size};
        const int room[] = {sizeof level, sizeof type, sizeof size};
        for (int j = 0; j < 3; j++) {
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", i, names[j]);
            FILE *f = fopen(path, "r");
            if (f && fgets(values[j], room[j], f)) values[j][strcspn(values[j], "\n")] = '\0';
            if (f) fclose(f);
        }
        if (!size[0] || strcmp(type, "Instruction") == 0) continue;
        used += (size_t)snprintf(text + used, sizeof text - used, "%sL%s %s", used ? ", " : "", level, size);
    }
    provenance_set(context, "caches", "%s", text[0] ? text : "unknown");
}

json_t *provenance(int threads)
{
    json_t *context = json_object();
    char value[8192], flags[2048];
    struct utsname system;
    line_of("/proc/cpuinfo", "model name", value, sizeof value);
    provenance_set(context, "cpu_name", "%s", value[0] ? value : "unknown");
    line_of("/proc/cpuinfo", "flags", value, sizeof value);
    if (!value[0]) line_of("/proc/cpuinfo", "Features", value, sizeof value);
    vector_flags(value, flags, sizeof flags);
    provenance_set(context, "cpu_flags", "%s", flags);
    provenance_set(context, "cpu_cores", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    provenance_set(context, "threads", "%d", threads);
    caches(context);
    provenance_set(context, "evicted_cache_bytes", "%zu", timing_cache_bytes());
    line_of("/proc/meminfo", "MemTotal", value, sizeof value);
    provenance_set(context, "memory", "%.1f GiB", strtod(value, NULL) / (1 << 20));
    if (uname(&system) == 0) provenance_set(context, "kernel", "%s %s", system.sysname, system.release);
    double load = 0;
    if (getloadavg(&load, 1) == 1) provenance_set(context, "load_at_start", "%.2f", load);
    FILE *governor = fopen("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "r");
    bool known = governor && fgets(value, sizeof value, governor);
    if (governor) fclose(governor);
    value[known ? strcspn(value, "\n") : 0] = '\0';
    provenance_set(context, "cpu_governor", "%s", known ? value : "unknown");
    provenance_set(context, "compiler", "%s", COMPILER);
    provenance_set(context, "cflags", "%s", BENCH_CFLAGS);
    provenance_set(context, "commit", "%s", BENCH_COMMIT);
    provenance_set(context, "fourbit_version", "%s", FB_VERSION);
    return context;
}
