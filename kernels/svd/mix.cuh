// The last step for tall factors: columns made orthonormal and put in order.
#pragma once
#include "svd/matrix.cuh"

constexpr int MIX_ROWS = 64;
constexpr int MIX_STRIDE = MAX_WIDTH + 1;
constexpr int MIX_SIDE = 16;  // threads form a square

// tall = tall mix for rows from `start`, with zeros in the columns beyond the rank.
__device__ __forceinline__ void mix_rows(const SvdParams& p, unsigned char* smem, int rank, int start, int end) {
    constexpr int EACH_ROW = MIX_ROWS / MIX_SIDE, EACH_COLUMN = MAX_WIDTH / MIX_SIDE;
    const int64_t index = blockIdx.x, first = index * p.rows * p.columns;
    float* mix = reinterpret_cast<float*>(smem);  // [rank, MAX_WIDTH]
    float* tile = mix + p.columns * MAX_WIDTH;
    for (int row = warp_index(); row < rank; row += WARPS) {
        const float* from = p.mix + (index * p.columns + row) * p.columns;
        for (int k = lane_index(); k < MAX_WIDTH; k += 32) mix[row * MAX_WIDTH + k] = k < rank ? from[k] : 0;
    }
    const int row = threadIdx.x / MIX_SIDE, column = threadIdx.x % MIX_SIDE;
    for (int tile_row = start; tile_row < end; tile_row += MIX_ROWS) {
        __syncthreads();
        for (int r = warp_index(); r < min(MIX_ROWS, end - tile_row); r += WARPS) {
            for (int k = lane_index(); k < rank; k += 32) {
                tile[r * MIX_STRIDE + k] = load_entry(p.tall, p.tall_dtype, first + int64_t(tile_row + r) * p.columns + k);
            }
        }
        __syncthreads();
        float sums[EACH_ROW][EACH_COLUMN] = {};
#pragma unroll 2  // unrolled further, it spills
        for (int k = 0; k < rank; k++) {
            float x[EACH_ROW];
#pragma unroll
            for (int i = 0; i < EACH_ROW; i++) {
                const int r = row + i * MIX_SIDE;
                x[i] = tile_row + r < end ? tile[r * MIX_STRIDE + k] : 0;
            }
#pragma unroll
            for (int j = 0; j < EACH_COLUMN; j++) {
                if (j * MIX_SIDE >= rank) break;
                const float y = mix[k * MAX_WIDTH + column + j * MIX_SIDE];
#pragma unroll
                for (int i = 0; i < EACH_ROW; i++) sums[i][j] += x[i] * y;
            }
        }
#pragma unroll
        for (int i = 0; i < EACH_ROW; i++) {
#pragma unroll
            for (int j = 0; j < EACH_COLUMN; j++) {
                const int to_row = tile_row + row + i * MIX_SIDE, k = column + j * MIX_SIDE;
                if (to_row >= end || k >= p.columns) continue;
                store_entry(p.out_tall, p.factors, first + int64_t(to_row) * p.columns + k, sums[i][j]);
            }
        }
    }
}
