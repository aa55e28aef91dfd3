/* tiles_amx.h: eight tiles of 16 rows x 64 bytes, in AMX instructions. Which tile is a constant.
 * validate/tiles/model.h has the same names in plain C. */
#ifndef FOURBIT_TILES_H
#define FOURBIT_TILES_H

#include <immintrin.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A thread's tiles are usable between these two. */
static inline void tiles_begin(void)
{
    static const struct { uint8_t palette, start, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } shape
        __attribute__((aligned(64))) = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&shape);
}
static inline void tiles_end(void) { _tile_release(); }

/* gcc 12's tile loads do not say that they read memory. */
static inline void tiles_see_memory(void) { __asm__ volatile("" ::: "memory"); }

#define tile_zero(t) _tile_zero(t)
#define tile_load(t, from, row_bytes) _tile_loadd(t, from, row_bytes)
#define tile_store(t, to, row_bytes) _tile_stored(t, to, row_bytes)
#define tile_dot(sum, a, b) _tile_dpbf16ps(sum, a, b) /* sum[m][n] += a[m][2k] b[k][2n] + a[m][2k+1] b[k][2n+1] */

/* CPUID 7.0, EDX 22 (amx-bf16) and 24 (amx-tile); the kernel hands out tile registers to a process on request. */
static inline bool tiles_usable(void)
{
    enum { REQUEST_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    return (d >> 22 & 1) && (d >> 24 & 1) && syscall(SYS_arch_prctl, REQUEST_XCOMP_PERM, TILE_DATA) == 0;
}

#endif
