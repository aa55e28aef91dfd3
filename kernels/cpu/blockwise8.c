/* blockwise8.c: the tables of the 8-bit searches. */
#include "cpu.h"

cpu_search8 cpu_search8_tables[FB_MAP8_COUNT];

static uint8_t count_below(const float *limit, float y)
{
    int count = 0;
    while (count < FB_CODES8 - 1 && limit[count] < y) count++;
    return (uint8_t)count;
}

/* The tie between codes c and c + 1 goes to the even one: for odd c, y >= middle, that is,
 * y > the float below it. */
static void search8_init(cpu_search8 *s, const uint32_t *bits)
{
    for (int c = 0; c + 1 < FB_CODES8; c++) {
        float middle = (fb_bits_to_float(bits[c]) + fb_bits_to_float(bits[c + 1])) * 0.5f;
        s->limit[c] = c % 2 == 0 ? middle : nextafterf(middle, -INFINITY);
    }
    s->limit[FB_CODES8 - 1] = INFINITY;
    for (int b = 0; b < CPU_BUCKETS; b++) {
        /* the bucket's lowest y: its first bits if positive, its last if negative */
        uint32_t first = b == 0 ? 0 : (uint32_t)(b + CPU_BUCKET_FIRST) << CPU_BUCKET_SHIFT;
        uint32_t last = ((uint32_t)(b + 1 + CPU_BUCKET_FIRST) << CPU_BUCKET_SHIFT) - 1;
        s->below[0][b] = count_below(s->limit, fb_bits_to_float(first));
        s->below[1][b] = count_below(s->limit, -fb_bits_to_float(last));
    }
}

void cpu_search8_init(void)
{
    for (int m = 0; m < FB_MAP8_COUNT; m++) search8_init(&cpu_search8_tables[m], fb_dynamic_bits[m]);
}
