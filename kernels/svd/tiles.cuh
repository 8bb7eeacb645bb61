// Tiles of rows of a matrix, copied to shared memory while earlier ones are worked on.
#pragma once
#include "svd/matrix.cuh"

constexpr int STAGES = 3;

__device__ __forceinline__ float2 load_pair(const float* at) { return *reinterpret_cast<const float2*>(at); }
template <class T> __device__ __forceinline__ float2 load_pair(const T* at) {
    return unpack(*reinterpret_cast<const uint32_t*>(at), T{});
}

// Tiles of `Rows` rows of `Stride` from `start` to `end`, with zeros beyond the matrix up to `width` columns. When it is
// made nobody may be at what lay there before.
template <class T, int Rows, int Stride> struct Pipeline {
    const Matrix<T>& a;
    T* tiles;
    int end, width;
    bool dense;  // rows are whole aligned segments of 16 bytes
    int slot = 0;

    __device__ __forceinline__ Pipeline(const Matrix<T>& a, T* tiles, int start, int end, int width, bool dense)
        : a(a), tiles(tiles), end(end), width(width), dense(dense) {
        for (int stage = 0; stage + 1 < STAGES; stage++) copy(start + stage * Rows, stage);
    }

    __device__ __forceinline__ void copy(int row, int to) {
        constexpr int SEGMENT = 16 / sizeof(T), LANES = MAX_WIDTH / SEGMENT;
        T* const tile = tiles + to * Rows * Stride;
        if (row < end && dense) {
            const int column = threadIdx.x % LANES * SEGMENT;
#pragma unroll 1  // registers are scarce
            for (int r = threadIdx.x / LANES; r < Rows; r += THREADS / LANES) {
                const bool inside = row + r < a.rows && column < a.columns;
                const T* from = inside ? a.at + (row + r) * a.row_stride + column : a.at;
                if (column < width) cp_async16(tile + r * Stride + column, from, inside);
            }
        } else if (row < end) {
            load_tile<Rows, Stride>(tile, a, row, width);
        }
        cp_async_commit();
    }

    // The tile at `row`, which comes next, for all threads; the one before is given up.
    __device__ __forceinline__ const T* next(int row) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        copy(row + (STAGES - 1) * Rows, slot == 0 ? STAGES - 1 : slot - 1);
        const T* const tile = tiles + slot * Rows * Stride;
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        return tile;
    }
};
