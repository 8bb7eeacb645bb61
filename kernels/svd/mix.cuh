// The last step for tall factors: columns made orthonormal and put in order, on tensor cores.
#pragma once
#include "svd/matrix.cuh"

// Columns that a warp makes at a time.
constexpr int MIXED = 32;
// Up to so many columns both halves of what tall is multiplied by fit into shared memory.
constexpr int MOST_SPLIT = 64;

// What tall is multiplied by, a column in each row, with zeros beyond the rank; its rows are spread over the banks.
template <bool Split>
__device__ __forceinline__ void load_mix(const SvdParams& p, float* mix, int rank, int width, int stride) {
    const float* const from = p.mix + matrix_index() * p.columns * p.columns;
    for (int i = threadIdx.x; i < width * width; i += THREADS) {
        const int row = i / width, column = i % width;
        const float x = max(row, column) < rank ? from[row * p.columns + column] : 0;
        float* const to = mix + column * stride + row;
        if constexpr (Split) {
            uint32_t high, low;
            split_tf32(x, high, low);
            to[0] = __uint_as_float(high), to[width * stride] = __uint_as_float(low);
        } else {
            to[0] = x;
        }
    }
}

// Four neighbouring rows of what tall is multiplied by: those that two products take.
struct Four {
    uint32_t high[4], low[4];

    template <bool Split> __device__ __forceinline__ void load(const float* from, int to_low) {
        const float4 x = *reinterpret_cast<const float4*>(from);
        const float values[4] = {x.x, x.y, x.z, x.w};
        if constexpr (Split) {
            const float4 y = *reinterpret_cast<const float4*>(from + to_low);
            const float lows[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int i = 0; i < 4; i++) high[i] = __float_as_uint(values[i]), low[i] = __float_as_uint(lows[i]);
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) split_tf32(values[i], high[i], low[i]);
        }
    }
};

// Four neighbouring columns of tall from `column`, with zeros beyond the rank.
__device__ __forceinline__ float4 load_four(const SvdParams& p, int64_t row_start, int column, int rank, bool inside) {
    if (!inside || column >= rank) return {};
    if (p.tall_dtype == SVD_F32 && p.columns % 4 == 0 && column + 4 <= rank) {
        return *reinterpret_cast<const float4*>(static_cast<const float*>(p.tall) + row_start + column);
    }
    const auto entry = [&](int k) { return k < rank ? load_entry(p.tall, p.tall_dtype, row_start + k) : 0.0f; };
    return {entry(column), entry(column + 1), entry(column + 2), entry(column + 3)};
}

// Sixteen rows of up to Columns columns of tall. Lanes have four neighbouring columns each of a row and the eighth after it,
// in another order than products take them, which is no other product.
template <int Columns> struct Rows {
    static constexpr int BLOCKS = Columns / 16;
    float x[BLOCKS][2][4];

    __device__ __forceinline__ void load(const SvdParams& p, int64_t start, int row, int rank, int end) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
            for (int block = 0; block < BLOCKS; block++) {
                const float4 four = load_four(p, start + half * 8 * p.columns, block * 16 + (lane_index() & 3) * 4, rank,
                                              row + half * 8 < end);
                x[block][half][0] = four.x, x[block][half][1] = four.y;
                x[block][half][2] = four.z, x[block][half][3] = four.w;
            }
        }
    }
};

// Stores what one of two rows became, a pair of every eight columns.
__device__ __forceinline__ void store_mixed(const SvdParams& p, const float (&sums)[MIXED / 8][4], int half, int64_t start,
                                            int first) {
    if (p.factors == SVD_F32 && p.columns % 2 == 0) {
        float* const to = static_cast<float*>(p.out_tall) + start + first;
#pragma unroll
        for (int tile = 0; tile < MIXED / 8; tile++) {
            const float2 pair = make_float2(sums[tile][half * 2], sums[tile][half * 2 + 1]);
            if (first + tile * 8 < p.columns) *reinterpret_cast<float2*>(to + tile * 8) = pair;
        }
        return;
    }
#pragma unroll
    for (int tile = 0; tile < MIXED / 8; tile++) {
        const int column = first + tile * 8;
        store_pair(p.out_tall, p.factors, start + column, sums[tile][half * 2], sums[tile][half * 2 + 1],
                   p.columns - column, p.columns % 2 == 0);
    }
}

// tall = tall mix for rows from `start`, with zeros in the columns beyond the rank; at most Columns are in use. A warp has
// whole rows, so that they may be replaced; where registers allow, the next ones are on their way meanwhile.
template <int Columns>
__device__ __forceinline__ void mix_rows(const SvdParams& p, unsigned char* smem, int rank, int start, int end) {
    constexpr int BLOCKS = Columns / 16;
    constexpr bool SPLIT = Columns <= MOST_SPLIT, AHEAD = Columns <= MIXED;
    const int width = round_up(p.columns, 16), stride = width | 16, group = lane_index() >> 2, k_lane = lane_index() & 3;
    float* const mix = reinterpret_cast<float*>(smem);  // [1 or 2, width, stride]
    load_mix<SPLIT>(p, mix, rank, width, stride);
    __syncthreads();
    const auto place = [&](int row) { return (matrix_index() * p.rows + row) * p.columns; };
    const int first_row = start + warp_index() * 16 + group;
    Rows<Columns> next;
    if constexpr (AHEAD) next.load(p, place(first_row), first_row, rank, end);
    for (int row = first_row; row - group < end; row += WARPS * 16) {
        if constexpr (!AHEAD) next.load(p, place(row), row, rank, end);
        const Rows<Columns> rows = next;
        __syncwarp();  // all of a row is read before any of it is replaced
        if constexpr (AHEAD) next.load(p, place(row + WARPS * 16), row + WARPS * 16, rank, end);
        for (int first = 0; first < width; first += MIXED) {
            float sums[MIXED / 8][4] = {};
#pragma unroll
            for (int block = 0; block < BLOCKS; block++) {
                if (block * 16 >= rank) break;
                uint32_t a[2][4], a_low[2][4];
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    split_tf32(rows.x[block][i & 1][i >> 1], a[i >> 2][i & 3], a_low[i >> 2][i & 3]);
                }
                const float* from = mix + (first + group) * stride + block * 16 + k_lane * 4;
#pragma unroll
                for (int tile = 0; tile < MIXED / 8; tile += 2) {
                    if (first + tile * 8 >= width) break;
                    float(*const two)[4] = sums + tile;  // neighbouring products do not wait for each other
                    Four b[2];
#pragma unroll
                    for (int i = 0; i < 2; i++) b[i].load<SPLIT>(from + (tile + i) * 8 * stride, width * stride);
#pragma unroll
                    for (int step = 0; step < 2; step++) {
#pragma unroll
                        for (int i = 0; i < 2; i++) {
                            mma_m16n8k8_tf32(two[i], a_low[step], b[i].high[step * 2], b[i].high[step * 2 + 1]);
                        }
#pragma unroll
                        for (int i = 0; i < 2; i++) {
                            mma_m16n8k8_tf32(two[i], a[step], b[i].low[step * 2], b[i].low[step * 2 + 1]);
                        }
#pragma unroll
                        for (int i = 0; i < 2; i++) {
                            mma_m16n8k8_tf32(two[i], a[step], b[i].high[step * 2], b[i].high[step * 2 + 1]);
                        }
                    }
                }
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (row + half * 8 < end) store_mixed(p, sums, half, place(row + half * 8), first + k_lane * 2);
            }
        }
    }
}
