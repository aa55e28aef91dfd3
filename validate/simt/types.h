/* types.h — CUDA's vector types for kernels that run in the executor.
 *
 * A two- or four-element vector is copied through a compiler vector member and not element by element.  With plain
 * structs GCC splits "uint4 v = *p" into four 4-byte loads before the instrumentation sees it, and the executor would
 * count four requests where the GPU makes one (measured: 4 x __tsan_read4 against 1 x __tsan_read16 in both compilers).
 */
#ifndef SIMT_TYPES_H
#define SIMT_TYPES_H

#include <cstddef>
#include <cstdint>

/* A program may hold nvcc's objects and the executor's: inside this namespace a function of ours cannot be taken by the
 * linker for the CUDA headers' function of the same name. */
inline namespace simt_types {

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

#define SIMT_VECTOR2(NAME, ELEM)                                              \
    struct alignas(2 * sizeof(ELEM)) NAME {                                   \
        typedef ELEM Wide __attribute__((vector_size(2 * sizeof(ELEM))));     \
        union {                                                               \
            struct {                                                          \
                ELEM x, y;                                                    \
            };                                                                \
            Wide wide;                                                        \
        };                                                                    \
        NAME() = default;                                                     \
        NAME(ELEM a, ELEM b) : wide{a, b} {}                                  \
        NAME(const NAME &o) : wide(o.wide) {}                                 \
        NAME &operator=(const NAME &o) { wide = o.wide; return *this; }       \
    };                                                                        \
    static inline NAME make_##NAME(ELEM a, ELEM b) { return NAME(a, b); }     \
    static_assert(sizeof(NAME) == 2 * sizeof(ELEM), "CUDA layout")

#define SIMT_VECTOR4(NAME, ELEM)                                                            \
    struct alignas(4 * sizeof(ELEM) > 16 ? 16 : 4 * sizeof(ELEM)) NAME {                    \
        typedef ELEM Wide __attribute__((vector_size(4 * sizeof(ELEM))));                   \
        union {                                                                             \
            struct {                                                                        \
                ELEM x, y, z, w;                                                            \
            };                                                                              \
            Wide wide;                                                                      \
        };                                                                                  \
        NAME() = default;                                                                   \
        NAME(ELEM a, ELEM b, ELEM c, ELEM d) : wide{a, b, c, d} {}                          \
        NAME(const NAME &o) : wide(o.wide) {}                                               \
        NAME &operator=(const NAME &o) { wide = o.wide; return *this; }                     \
    };                                                                                      \
    static inline NAME make_##NAME(ELEM a, ELEM b, ELEM c, ELEM d) { return NAME(a, b, c, d); } \
    static_assert(sizeof(NAME) == 4 * sizeof(ELEM), "CUDA layout")

SIMT_VECTOR2(char2, signed char);
SIMT_VECTOR2(uchar2, unsigned char);
SIMT_VECTOR2(short2, short);
SIMT_VECTOR2(ushort2, unsigned short);
SIMT_VECTOR2(int2, int);
SIMT_VECTOR2(uint2, unsigned);
SIMT_VECTOR2(float2, float);
SIMT_VECTOR2(double2, double);
SIMT_VECTOR2(longlong2, long long);
SIMT_VECTOR2(ulonglong2, unsigned long long);
SIMT_VECTOR4(char4, signed char);
SIMT_VECTOR4(uchar4, unsigned char);
SIMT_VECTOR4(short4, short);
SIMT_VECTOR4(ushort4, unsigned short);
SIMT_VECTOR4(int4, int);
SIMT_VECTOR4(uint4, unsigned);
SIMT_VECTOR4(float4, float);

} // namespace simt_types

#endif
