// A thread for each byte of a mask: eight columns of a row, vector loads and stores where they are aligned.
#pragma once
#include "device/kernel.cuh"

// Row and first column of this thread's byte; a grid has fewer than 2^32 threads.
struct Byte {
    int64_t row;
    int col;
    __device__ __forceinline__ explicit Byte(int row_bytes) {
        const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
        row = index / uint32_t(row_bytes);
        col = int(index % uint32_t(row_bytes)) * 8;
    }
};

template <class T> __device__ __forceinline__ bool is_whole(const T* elements, int count) {
    return count >= 8 && reinterpret_cast<uintptr_t>(elements) % 16 == 0;
}

// Eight elements of four or two bytes, zeros past the first `count`.
template <class T> __device__ __forceinline__ void load_eight(T (&to)[8], const T* from, int count) {
    if (is_whole(from, count)) {
        uint4 parts[sizeof(to) / 16];
#pragma unroll
        for (int i = 0; i < int(sizeof(to) / 16); i++) parts[i] = reinterpret_cast<const uint4*>(from)[i];
        memcpy(to, parts, sizeof(to));
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) to[i] = i < count ? from[i] : T(0);
}

template <class T> __device__ __forceinline__ void store_eight(T* to, const T (&from)[8], int count) {
    if (is_whole(to, count)) {
        uint4 parts[sizeof(from) / 16];
        memcpy(parts, from, sizeof(from));
#pragma unroll
        for (int i = 0; i < int(sizeof(from) / 16); i++) reinterpret_cast<uint4*>(to)[i] = parts[i];
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) to[i] = from[i];
}
