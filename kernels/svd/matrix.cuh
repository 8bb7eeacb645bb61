// What the kernels of this family share: tiles of a matrix in its tall orientation, triangles, sums in f64.
#pragma once
#include "device/kernel.cuh"
#include "device/mma.cuh"
#include "svd/params.h"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int MAX_WIDTH = 128;

__device__ __forceinline__ int lane_index() { return threadIdx.x & 31; }
__device__ __forceinline__ int warp_index() { return threadIdx.x >> 5; }

// Blocks of one matrix follow each other: the last of them finds in the L2 cache what the others wrote.
__device__ __forceinline__ int64_t matrix_index() { return blockIdx.y; }
__device__ __forceinline__ int chunk_index() { return blockIdx.x; }

// Place of (i, j), i >= j, in a lower triangle stored row by row; the size of a triangle of i rows is packed(i, 0).
__device__ __forceinline__ int packed(int i, int j) { return i * (i + 1) / 2 + j; }

__device__ __forceinline__ int round_up(int value, int multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// The two halves of a factor: together they keep 22 of its 24 bits.
__device__ __forceinline__ void split_tf32(float x, uint32_t& high, uint32_t& low) {
    high = to_tf32(x);
    low = to_tf32(x - __uint_as_float(high));
}

// A matrix in global memory.
template <class T> struct Matrix {
    const T* at;
    int64_t row_stride, column_stride;
    int rows, columns;
};

// The matrix of this block.
template <class T, class Params>
__device__ __forceinline__ Matrix<T> matrix_of(const Params& p, int columns) {
    const int index = p.first + blockIdx.y;
    const int64_t offset = index / p.inner * p.outer_stride + index % p.inner * p.inner_stride;
    return {static_cast<const T*>(p.a) + offset, p.row_stride, p.column_stride, p.rows, columns};
}

// Copies `Rows` rows from `start` into rows of `Stride`, with zeros beyond the matrix up to `width` columns.
// Neighbouring lanes read neighbouring elements in either orientation.
template <int Rows, int Stride, class To, class T>
__device__ __forceinline__ void load_tile(To* tile, const Matrix<T>& a, int start, int width) {
    const bool by_rows = a.column_stride == 1;
    const int major_end = by_rows ? Rows : width, minor_end = by_rows ? width : Rows;
    for (int major = warp_index(); major < major_end; major += WARPS) {
        for (int minor = lane_index(); minor < minor_end; minor += 32) {
            const int row = by_rows ? major : minor, column = by_rows ? minor : major;
            const bool inside = start + row < a.rows && column < a.columns;
            const int64_t offset = (start + row) * a.row_stride + column * a.column_stride;
            tile[row * Stride + column] = inside ? from_float<To>(to_float(a.at[offset])) : from_float<To>(0);
        }
    }
}

// Entries of factors, in whatever they are stored in: 32 bits, or 16 of either kind, so that there is no table to jump by.
__device__ __forceinline__ float load_entry(const void* from, uint32_t dtype, int64_t i) {
    if (dtype == SVD_F32) return static_cast<const float*>(from)[i];
    const uint32_t bits = static_cast<const uint16_t*>(from)[i];
    return dtype == SVD_F16 ? unpack(bits, f16{}).x : unpack(bits, bf16{}).x;
}
// The same, or f64.
__device__ __forceinline__ double load_number(const void* from, uint32_t dtype, int64_t i) {
    return dtype == SVD_F64 ? static_cast<const double*>(from)[i] : load_entry(from, dtype, i);
}
__device__ __forceinline__ uint32_t pack_entries(uint32_t dtype, float x, float y) {
    return dtype == SVD_F16 ? pack(x, y, f16{}) : pack(x, y, bf16{});
}
__device__ __forceinline__ void store_entry(void* to, uint32_t dtype, int64_t i, float x) {
    if (dtype == SVD_F32) {
        static_cast<float*>(to)[i] = x;
    } else {
        static_cast<uint16_t*>(to)[i] = static_cast<uint16_t>(pack_entries(dtype, x, 0));
    }
}

// Stores two neighbouring entries of a row, or `count` where that is less; `even` rows have all pairs aligned.
__device__ __forceinline__ void store_pair(void* to, uint32_t dtype, int64_t i, float x, float y, int count, bool even) {
    if (even && count >= 2) {
        if (dtype == SVD_F32) {
            *reinterpret_cast<float2*>(static_cast<float*>(to) + i) = make_float2(x, y);
        } else {
            *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(to) + i) = pack_entries(dtype, x, y);
        }
        return;
    }
    if (count > 0) store_entry(to, dtype, i, x);
    if (count > 1) store_entry(to, dtype, i + 1, y);
}

__device__ __forceinline__ bool is_solved(uint32_t state) {
    return state == SVD_SINGLE || state == SVD_DOUBLE || state == SVD_JACOBI;
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

// What makes the entry of largest magnitude, the first of several, positive; for whole warps.
template <class Entry> __device__ __forceinline__ float sign_of(int count, const Entry& entry) {
    float largest = 0;
    int at = count;
#pragma unroll 1
    for (int i = lane_index(); i < count; i += 32) {
        const float x = entry(i);
        if (fabsf(x) > fabsf(largest)) largest = x, at = i;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, largest, distance);
        const int other_at = __shfl_xor_sync(0xffffffffu, at, distance);
        const bool takes = fabsf(other) > fabsf(largest) || (fabsf(other) == fabsf(largest) && other_at < at);
        if (takes) largest = other, at = other_at;
    }
    return largest < 0 ? -1 : 1;
}

// The sum over the block, the same in every thread; `shared` holds WARPS values and is free again after the next
// barrier.
__device__ __forceinline__ double block_sum(double x, double* shared) {
    x = warp_sum(x);
    if (lane_index() == 0) shared[warp_index()] = x;
    __syncthreads();
    double sum = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) sum += shared[warp];
    return sum;
}

// Adds the partial triangles of one matrix up, in the order of its chunks.
__device__ __forceinline__ void sum_chunks(double* triangle, const double* partials, int chunks, int stride, int size) {
    for (int i = threadIdx.x; i < size; i += THREADS) {
        double sum = 0;
        for (int chunk = 0; chunk < chunks; chunk++) sum += partials[int64_t(chunk) * stride + i];
        triangle[i] = sum;
    }
}
