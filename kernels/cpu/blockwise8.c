/* blockwise8.c: tables and sums of the 8-bit operations that no vector needs. */
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

/* ---- tree sum of backend.h ------------------------------------------------------------ */

enum { TREE_GROUP = 256, TREE_LEVELS = 9 }; /* 256^9 > 2^60 */

static double halve(double *v)
{
    for (int s = TREE_GROUP / 2; s > 0; s /= 2)
        for (int i = 0; i < s; i++) v[i] += v[i + s];
    return v[0];
}

float cpu_tree_mean(const float *x, int64_t n)
{
    double group[TREE_GROUP], upper[TREE_LEVELS][TREE_GROUP]; /* upper[l]: sums of 256^(l+1) elements */
    int filled[TREE_LEVELS] = {0}, top = 0;
    for (int64_t begin = 0; begin < n; begin += TREE_GROUP) {
        const int64_t count = cpu_min(TREE_GROUP, n - begin);
        for (int64_t i = 0; i < TREE_GROUP; i++) group[i] = i < count ? (double)x[begin + i] : 0.0;
        double sum = n == 1 ? group[0] : halve(group);
        for (int level = 0;; level++) {
            upper[level][filled[level]++] = sum;
            if (filled[level] < TREE_GROUP) break;
            sum = halve(upper[level]);
            filled[level] = 0;
        }
    }
    /* close the short groups from below until one sum is left */
    for (int64_t left = fb_ceil_div(n, TREE_GROUP); left > 1; left = fb_ceil_div(left, TREE_GROUP), top++) {
        if (!filled[top]) continue;
        for (int i = filled[top]; i < TREE_GROUP; i++) upper[top][i] = 0.0;
        upper[top + 1][filled[top + 1]++] = halve(upper[top]);
    }
    return (float)(upper[top][0] / (double)n);
}
