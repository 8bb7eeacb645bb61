// Decoder matrices, whose dtype is the same for all of a segment.
#pragma once
#include "device/kernel.cuh"

constexpr int DTYPE_F32 = 0, DTYPE_F16 = 1;    // else bf16

template <class T>
__device__ __forceinline__ float dot(const T* matrix, int64_t first, int64_t stride, const float* x, int count) {
    matrix += first;
    float sum = 0.f;
#pragma unroll 4
    for (int i = 0; i < count; i++) sum += to_float(matrix[i * stride]) * x[i];
    return sum;
}

// The product of x [count] with every stride-th element of a matrix from `first` on.
__device__ __forceinline__ float dot(const void* matrix, int dtype, int64_t first, int64_t stride, const float* x,
                                     int count) {
    if (dtype == DTYPE_F32) return dot(static_cast<const float*>(matrix), first, stride, x, count);
    if (dtype == DTYPE_F16) return dot(static_cast<const f16*>(matrix), first, stride, x, count);
    return dot(static_cast<const bf16*>(matrix), first, stride, x, count);
}
