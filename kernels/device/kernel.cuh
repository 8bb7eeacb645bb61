// What every kernel starts from, for nvcc and for the emulator alike.
#pragma once
#ifndef LOWKEY_EMULATED
#include <assert.h>
#include <stdint.h>

// One literal line per kernel: its name, its parameters and the most threads of a block. Inside, `p` is the parameters.
// Where the compiler is to spend registers as if no more than LEAST_BLOCKS shared a processor, that is defined first.
#ifdef LEAST_BLOCKS
#define LOWKEY_BOUNDS(threads) __launch_bounds__(threads, LEAST_BLOCKS)
#else
#define LOWKEY_BOUNDS(threads) __launch_bounds__(threads)
#endif
#define KERNEL(name, Params, threads) \
    extern "C" __global__ void LOWKEY_BOUNDS(threads) name(const __grid_constant__ Params p)
// Dynamic shared memory: a pointer to bytes, aligned to 128.
#define DYN_SMEM(name) extern __shared__ __align__(128) unsigned char name[]

// Barrier `id`, 1 to 15, of `threads`, whole warps, of the block: syncing threads wait for all that sync or arrive.
__device__ __forceinline__ void barrier_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void barrier_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
#else
inline void barrier_sync(int id, int threads, EMULATOR_SITE) {
    emulator::barrier_sync(id, threads, site);
}
inline void barrier_arrive(int id, int threads, EMULATOR_SITE) {
    emulator::barrier_arrive(id, threads, site);
}
#endif
#include <cuda_bf16.h>
#include <cuda_fp16.h>

using bf16 = __nv_bfloat16;
using f16 = __half;

__device__ __forceinline__ float to_float(float x) {
    return x;
}
__device__ __forceinline__ float to_float(bf16 x) {
    return __bfloat162float(x);
}
__device__ __forceinline__ float to_float(f16 x) {
    return __half2float(x);
}

// Rounds to nearest even.
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) {
    return __float2bfloat16_rn(x);
}
template <> __device__ __forceinline__ f16 from_float<f16>(float x) {
    return __float2half_rn(x);
}

// Two values in the halves of a register, the first in the low half, as matrix fragments hold them.
__device__ __forceinline__ uint32_t pack(float low, float high, bf16) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t word;
    memcpy(&word, &pair, 4);
    return word;
}
__device__ __forceinline__ uint32_t pack(float low, float high, f16) {
    const __half2 pair = __floats2half2_rn(low, high);
    uint32_t word;
    memcpy(&word, &pair, 4);
    return word;
}
__device__ __forceinline__ float2 unpack(uint32_t word, bf16) {
    __nv_bfloat162 pair;
    memcpy(&pair, &word, 4);
    return __bfloat1622float2(pair);
}
__device__ __forceinline__ float2 unpack(uint32_t word, f16) {
    __half2 pair;
    memcpy(&pair, &word, 4);
    return __half22float2(pair);
}
