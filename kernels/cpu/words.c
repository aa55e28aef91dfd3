/* words.c: the tables by which bf16 becomes 4-bit codes without a float (cpu.h says how they are used). */
#include "cpu.h"

#include <pthread.h>
#include <stdlib.h>

/* The code of x in a block whose largest magnitude is absmax: the rules of reference/quantize.c. FP4: the rank of |x|. */
static int code_of(fb_format format, float x, float absmax)
{
    int code = 0;
    if (format == FB_INT4) {
        const float q = rintf(x / (absmax / 7.0f));
        return (int)(q < -8 ? -8 : q > 7 ? 7 : q) + FB_INT4_ZERO;
    }
    const float y = x * (1.0f / absmax);
    if (format == FB_NF4)
        for (int i = 0; i < FB_CODES - 1; i++) code += y > fb_bits_to_float(fb_nf4_threshold_bits[i]);
    else
        for (int i = 0; i < FB_CODES / 2 - 1; i++) code += fabsf(y) > fb_bits_to_float(fb_fp4_threshold_bits[i]);
    return code;
}

/* The code of the word that e stands for: base + e, or for a negative e, base - e and a sign. */
static int code_at(fb_format format, unsigned largest, int e)
{
    const unsigned magnitude = largest - (unsigned)cpu_word_range(format) + (unsigned)abs(e);
    return code_of(format, fb_bf16_to_float((uint16_t)(magnitude | (e < 0 ? 0x8000u : 0))), fb_bf16_to_float((uint16_t)largest));
}

/* limit[j]: the largest e whose code is no more than j. */
static void limits_init(int limit[FB_CODES - 1], fb_format format, unsigned largest)
{
    const int range = cpu_word_range(format), least = format == FB_FP4 ? 0 : -range;
    for (int j = 0; j < FB_CODES - 1; j++) {
        int low = least, high = range; /* by halving: code of low <= j < code of high */
        if (code_at(format, largest, low) > j) high = low = INT16_MIN;
        else if (code_at(format, largest, high) <= j) high = low = INT16_MAX;
        while (high - low > 1) {
            const int middle = low + (high - low) / 2;
            if (code_at(format, largest, middle) <= j) low = middle;
            else high = middle;
        }
        limit[j] = low;
    }
}

/* A block of zeros asks for e = 0 only. */
static void zero_limits(int limit[FB_CODES - 1], fb_format format)
{
    for (int j = 0; j < FB_CODES - 1; j++) limit[j] = format == FB_INT4 && j < FB_INT4_ZERO ? INT16_MIN : INT16_MAX;
}

static void step_init(uint16_t step[CPU_WORD_STEPS], fb_format format, const int limit[FB_CODES - 1])
{
    const int width = 1 << cpu_word_shift(format);
    for (int i = 0; i < CPU_WORD_STEPS; i++) {
        const int first = (format != FB_FP4 && i >= CPU_WORD_STEPS / 2 ? i - CPU_WORD_STEPS : i) * width;
        int code = 0;
        while (code < FB_CODES - 1 && limit[code] < first) code++;
        const int same = code < FB_CODES - 1 && limit[code] - first < width ? limit[code] - first + 1 : width; /* places of that code */
        step[i] = (uint16_t)(code * width + width - same - first + cpu_word_origin(format));
    }
}

static void words_init(cpu_words *w, fb_format format)
{
    for (unsigned m = 0; m <= CPU_WORD_ZERO; m++) {
        int limit[FB_CODES - 1];
        if (m == CPU_WORD_ZERO) zero_limits(limit, format);
        else limits_init(limit, format, 0x3f80 + m);
        step_init(w->step[m], format, limit);
        for (int j = 0; j < FB_CODES - 1; j++) w->limit[m][j % 2 * 8 + j / 2] = (int16_t)limit[j];
        w->limit[m][FB_CODES - 1] = INT16_MAX;
    }
}

static cpu_words tables[FB_INT4 + 1];
static void init_nf4(void) { words_init(&tables[FB_NF4], FB_NF4); }
static void init_fp4(void) { words_init(&tables[FB_FP4], FB_FP4); }
static void init_int4(void) { words_init(&tables[FB_INT4], FB_INT4); }

const cpu_words *cpu_words_get(fb_format format)
{
    static pthread_once_t once[] = {PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT, PTHREAD_ONCE_INIT};
    static void (*const init[])(void) = {init_nf4, init_fp4, init_int4};
    pthread_once(&once[format], init[format]);
    return &tables[format];
}
