/* model.h: AMX's tiles in plain C, for machines without them: what kernels/cpu/tiles_amx.h does in instructions.
 *
 * After Intel's description of TDPBF16PS: sums of even and of odd elements grow apart, each product fused into its sum,
 * then the two and the tile's old value are added; every result is rounded to nearest even, and subnormals are zero on
 * the way in and on the way out. A tile used before it was configured ends the program, as it would there. */
#ifndef FOURBIT_TILES_H
#define FOURBIT_TILES_H

#include "formats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct model_tile {
    uint8_t bytes[16][64];
} model_tile;
static _Thread_local model_tile model_tiles[8];
static _Thread_local bool model_configured;

static inline model_tile *model_at(int t)
{
    if (!model_configured || t < 0 || t > 7) {
        fprintf(stderr, "tile %d: not configured\n", t);
        abort();
    }
    return &model_tiles[t];
}

/* What is in a tile beforehand is unknown. */
static inline void tiles_begin(void) { memset(model_tiles, 0xff, sizeof model_tiles), model_configured = true; }
static inline void tiles_end(void) { model_configured = false; }
static inline void tiles_see_memory(void) {}
static inline bool tiles_usable(void) { return true; }

static inline void tile_zero(int t) { memset(model_at(t), 0, sizeof(model_tile)); }
static inline void tile_load(int t, const void *from, int64_t row_bytes)
{
    for (int r = 0; r < 16; r++) memcpy(model_at(t)->bytes[r], (const char *)from + r * row_bytes, 64);
}
static inline void tile_store(int t, void *to, int64_t row_bytes)
{
    for (int r = 0; r < 16; r++) memcpy((char *)to + r * row_bytes, model_at(t)->bytes[r], 64);
}

static inline float model_flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }
static inline float model_element(const uint8_t row[64], int i)
{
    uint16_t bits;
    memcpy(&bits, row + 2 * i, sizeof bits);
    return model_flush(fb_bf16_to_float(bits));
}
/* Both are bf16: the product is exact in double, the sum rounded once to fp32 unless double rounds before it: that is an
 * error of 2^-53, which no bound here sees. */
static inline float model_fma(float a, float b, float sum) { return model_flush((float)((double)a * (double)b + (double)sum)); }

static inline void tile_dot(int to, int a, int b)
{
    const model_tile *x = model_at(a), *w = model_at(b);
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float even = 0, odd = 0, old;
            for (int k = 0; k < 16; k++) {
                even = model_fma(model_element(x->bytes[m], 2 * k), model_element(w->bytes[k], 2 * n), even);
                odd = model_fma(model_element(x->bytes[m], 2 * k + 1), model_element(w->bytes[k], 2 * n + 1), odd);
            }
            uint8_t *cell = model_at(to)->bytes[m] + 4 * n;
            memcpy(&old, cell, sizeof old);
            old = model_flush(model_flush(old) + model_flush(even + odd));
            memcpy(cell, &old, sizeof old);
        }
}

#endif
