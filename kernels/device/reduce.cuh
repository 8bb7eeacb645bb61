// Sums and maxima over a warp or a block, in an order that depends on nothing but the block's size.
#pragma once
#include "kernel.cuh"

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes >>= 1) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    return x;
}

// Every thread of a one-dimensional block of whole warps gets the result; `shared` holds 32 floats. The last barrier
// lets the caller use `shared` again at once.
__device__ __forceinline__ float block_sum(float x, float* shared) {
    const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    x = warp_sum(x);
    if (lane == 0) shared[threadIdx.x >> 5] = x;
    __syncthreads();
    x = warp_sum(lane < warps ? shared[lane] : 0.0f);
    __syncthreads();
    return x;
}
__device__ __forceinline__ float block_max(float x, float* shared) {
    const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    x = warp_max(x);
    if (lane == 0) shared[threadIdx.x >> 5] = x;
    __syncthreads();
    x = warp_max(lane < warps ? shared[lane] : -INFINITY);
    __syncthreads();
    return x;
}

// True in every thread of the block that arrives last at `counter` (zero before the first launch, and again after),
// which then sees what all blocks wrote before they arrived. `shared` holds one word.
__device__ __forceinline__ bool last_block_to_arrive(unsigned* counter, unsigned blocks, unsigned* shared) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();  // after the barrier, so that it holds for what all threads wrote
        *shared = atomicInc(counter, blocks - 1) == blocks - 1;
        __threadfence();
    }
    __syncthreads();
    return *shared != 0;
}
