// Qualifiers, built-in variables and types of the CUDA device language.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) alignas(n)

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_dim())
#define gridDim (emulator::grid_dim())
constexpr int warpSize = 32;

#if defined(__SANITIZE_THREAD__)
#define LOWKEY_KERNEL_CHECKED true
#elif defined(__has_feature)
#define LOWKEY_KERNEL_CHECKED __has_feature(thread_sanitizer)
#else
#define LOWKEY_KERNEL_CHECKED false
#endif

#define KERNEL(name_, Params, threads_)                                                                    \
    static void name_##_body(const Params& p);                                                             \
    static emulator::Kernel name_##_kernel(#name_, __FILE__, __LINE__, sizeof(Params), threads_,           \
                                           LOWKEY_KERNEL_CHECKED, [](const void* params) {                 \
                                               name_##_body(*static_cast<const Params*>(params));          \
                                           });                                                             \
    static void name_##_body([[maybe_unused]] const Params& p)
#define DYN_SMEM(name) unsigned char* const name = emulator::shared_memory()

using uint3 = emulator::Index3;
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

#define EMULATOR_VECTORS(T, name, bytes2, bytes4)  \
    struct alignas(bytes2) name##2 {               \
        T x, y;                                    \
    };                                             \
    struct alignas(bytes4) name##4 {               \
        T x, y, z, w;                              \
    };                                             \
    inline name##2 make_##name##2(T x, T y) {      \
        return {x, y};                             \
    }                                              \
    inline name##4 make_##name##4(T x, T y, T z, T w) { \
        return {x, y, z, w};                       \
    }
EMULATOR_VECTORS(float, float, 8, 16)
EMULATOR_VECTORS(int, int, 8, 16)
EMULATOR_VECTORS(unsigned, uint, 8, 16)
EMULATOR_VECTORS(short, short, 4, 8)
EMULATOR_VECTORS(unsigned short, ushort, 4, 8)
EMULATOR_VECTORS(signed char, char, 2, 4)
EMULATOR_VECTORS(unsigned char, uchar, 2, 4)
EMULATOR_VECTORS(double, double, 16, 16)
EMULATOR_VECTORS(long long, longlong, 16, 16)
EMULATOR_VECTORS(unsigned long long, ulonglong, 16, 16)
#undef EMULATOR_VECTORS

struct float3 {
    float x, y, z;
};
struct int3 {
    int x, y, z;
};
inline float3 make_float3(float x, float y, float z) {
    return {x, y, z};
}
inline int3 make_int3(int x, int y, int z) {
    return {x, y, z};
}
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) {
    return {x, y, z};
}

namespace emulator {
// Keeps CUDA's overloads callable with a literal of another arithmetic type.
template <class T> struct Same {
    using type = T;
};
template <class T> using SameT = typename Same<T>::type;

}  // namespace emulator

#define __trap() emulator::fail(emulator::here(), "__trap")
#include "include/assert.h"
