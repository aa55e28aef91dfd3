/* words.c: the tables by which bf16 becomes 4-bit codes without a float (cpu.h says how they are used). */
#include "cpu.h"

#include <pthread.h>

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
    const unsigned base = largest - (unsigned)cpu_word_range(format), d = (unsigned)(e < 0 ? -e : e);
    const unsigned magnitude = base + d < largest ? base + d : largest; /* beyond it no word is asked for */
    return code_of(format, fb_bf16_to_float((uint16_t)(magnitude | (e < 0 ? 0x8000u : 0))), fb_bf16_to_float((uint16_t)largest));
}

static void step_init(uint16_t step[CPU_WORD_STEPS], fb_format format, unsigned largest)
{
    const int width = 1 << cpu_word_shift(format);
    for (int i = 0; i < CPU_WORD_STEPS; i++) {
        const int first = (format != FB_FP4 && i >= CPU_WORD_STEPS / 2 ? i - CPU_WORD_STEPS : i) * width;
        const int code = code_at(format, largest, first);
        int same = width; /* the first place of another code, by halving */
        if (code_at(format, largest, first + width - 1) != code)
            for (int low = 0, high = width - 1; same = high, high - low > 1;) {
                const int middle = (low + high) / 2;
                if (code_at(format, largest, first + middle) == code) low = middle;
                else high = middle;
            }
        step[i] = (uint16_t)(code * width + width - same - first + cpu_word_origin(format));
    }
}

/* A block of zeros asks for e = 0 only. */
static void zero_init(uint16_t step[CPU_WORD_STEPS], fb_format format)
{
    const int code = format == FB_INT4 ? FB_INT4_ZERO : 0;
    for (int i = 0; i < CPU_WORD_STEPS; i++) step[i] = (uint16_t)((code << cpu_word_shift(format)) + cpu_word_origin(format));
}

static void words_init(cpu_words *w, fb_format format)
{
    for (unsigned m = 0; m < CPU_WORD_ZERO; m++) step_init(w->step[m], format, 0x3f80 + m);
    zero_init(w->step[CPU_WORD_ZERO], format);
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
