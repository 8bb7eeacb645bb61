// The last step for tall factors: columns made orthonormal and put in order, on tensor cores.
#pragma once
#include "svd/matrix.cuh"

// Columns that a warp makes at a time.
constexpr int MIXED = 32;

// What tall is multiplied by, with zeros beyond the rank; its rows are spread over the banks.
__device__ __forceinline__ void load_mix(const SvdParams& p, float* mix, int rank, int width, int stride) {
    const float* const from = p.mix + matrix_index() * p.columns * p.columns;
    for (int i = threadIdx.x; i < width * width; i += THREADS) {
        const int row = i / width, column = i % width;
        mix[row * stride + column] = max(row, column) < rank ? from[row * p.columns + column] : 0;
    }
}

// Four neighbouring columns of tall from `column`, with zeros beyond the rank.
__device__ __forceinline__ float4 load_four(const SvdParams& p, int64_t row_start, int column, int rank, bool inside) {
    if (!inside) return {};
    if (p.tall_dtype == SVD_F32 && p.columns % 4 == 0 && column + 4 <= rank) {
        return *reinterpret_cast<const float4*>(static_cast<const float*>(p.tall) + row_start + column);
    }
    const auto entry = [&](int k) { return k < rank ? load_entry(p.tall, p.tall_dtype, row_start + k) : 0.0f; };
    return {entry(column), entry(column + 1), entry(column + 2), entry(column + 3)};
}

// tall = tall mix for rows from `start`, with zeros in the columns beyond the rank; at most Columns are in use. A warp has
// whole rows, so that they may be replaced. Lanes have four neighbouring columns each, in another order than products take
// them, which is no other product.
template <int Columns>
__device__ __forceinline__ void mix_rows(const SvdParams& p, unsigned char* smem, int rank, int start, int end) {
    constexpr int BLOCKS = Columns / 16;
    const int width = round_up(p.columns, 16), stride = width + 2, group = lane_index() >> 2, k_lane = lane_index() & 3;
    float* const mix = reinterpret_cast<float*>(smem);  // [width, stride]
    load_mix(p, mix, rank, width, stride);
    __syncthreads();
    for (int row = start + warp_index() * 16 + group; row - group < end; row += WARPS * 16) {
        const int64_t at[2] = {(matrix_index() * p.rows + row) * p.columns, (matrix_index() * p.rows + row + 8) * p.columns};
        float4 x[BLOCKS][2];
#pragma unroll
        for (int block = 0; block < BLOCKS; block++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                x[block][half] = load_four(p, at[half], block * 16 + k_lane * 4, rank, row + half * 8 < end);
            }
        }
        __syncwarp();  // all of a row is read before any of it is replaced
        for (int first = 0; first < width; first += MIXED) {
            float sums[MIXED / 8][4] = {};
#pragma unroll
            for (int block = 0; block < BLOCKS; block++) {
                if (block * 16 >= rank) break;
                const float(*y)[4] = reinterpret_cast<const float(*)[4]>(x[block]);
#pragma unroll
                for (int step = 0; step < 2; step++) {
                    uint32_t a[4], a_low[4];
#pragma unroll
                    for (int i = 0; i < 4; i++) split_tf32(y[i & 1][step * 2 + (i >> 1)], a[i], a_low[i]);
                    const float* from = mix + (block * 16 + k_lane * 4 + step * 2) * stride + first + group;
#pragma unroll
                    for (int tile = 0; tile < MIXED / 8; tile += 2) {
                        if (first + tile * 8 >= width) break;
                        float(*const two)[4] = sums + tile;  // neighbouring products do not wait for each other
                        uint32_t b[2][2], b_low[2][2];
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                            split_tf32(from[(i & 1) * stride + (tile + (i >> 1)) * 8], b[i >> 1][i & 1], b_low[i >> 1][i & 1]);
                        }
#pragma unroll
                        for (int i = 0; i < 2; i++) mma_m16n8k8_tf32(two[i], a_low, b[i][0], b[i][1]);
#pragma unroll
                        for (int i = 0; i < 2; i++) mma_m16n8k8_tf32(two[i], a, b_low[i][0], b_low[i][1]);
#pragma unroll
                        for (int i = 0; i < 2; i++) mma_m16n8k8_tf32(two[i], a, b[i][0], b[i][1]);
                    }
                }
            }
#pragma unroll
            for (int tile = 0; tile < MIXED / 8; tile++) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int column = first + tile * 8 + k_lane * 2;
                    if (row + half * 8 >= end) continue;
                    store_pair(p.out_tall, p.factors, at[half] + column, sums[tile][half * 2], sums[tile][half * 2 + 1],
                               p.columns - column, p.columns % 2 == 0);
                }
            }
        }
    }
}
