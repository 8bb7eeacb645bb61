// A'A of matrices, summed up by chunks of rows on tensor cores. A block takes a chunk, or all chunks of a matrix one after
// another: the sums are the same.
#pragma once
#include "svd/tiles.cuh"

constexpr int PARTIAL_ROWS = 256;  // sums in f32 are no longer than this
constexpr int HALVES = 2;          // of the warps, which take products of rows in turns
constexpr int STRIDE = MAX_WIDTH + 8;
template <class T> constexpr int TILE_ROWS = 128 / sizeof(T);
template <class T> constexpr int TILE = TILE_ROWS<T> * STRIDE;

// Rows of a tile that one product takes, and 16 columns of it: as a factor from the left, or from the right in halves.
template <class T> struct Fragment {
    static constexpr int ROWS = 16;
    uint32_t at[4];

    __device__ __forceinline__ void load(const T* tile, int row, int column) {
        const int lane = lane_index();
        ldmatrix_x4_trans(at, tile + (row + (lane & 7) + (lane >> 4) * 8) * STRIDE + column + (lane >> 3 & 1) * 8);
    }
};
// In f32 each entry is split in two.
template <> struct Fragment<float> {
    static constexpr int ROWS = 8;
    uint32_t at[4], low[4];

    __device__ __forceinline__ void load(const float* tile, int row, int column) {
        const float* from = tile + (row + (lane_index() & 3)) * STRIDE + column + (lane_index() >> 2);
#pragma unroll
        for (int i = 0; i < 4; i++) split_tf32(from[(i >> 1) * 4 * STRIDE + (i & 1) * 8], at[i], low[i]);
    }
};

using Sums = float[2][4];  // the left and the right half of a square of 16 x 16

template <class T> __device__ __forceinline__ void add_product(Sums& sums, const Fragment<T>& a, const Fragment<T>& b) {
    mma_m16n8k16(sums[0], a.at, b.at[0], b.at[2], T{});
    mma_m16n8k16(sums[1], a.at, b.at[1], b.at[3], T{});
}
// The product of the lower halves is left out.
template <> __device__ __forceinline__ void add_product(Sums& sums, const Fragment<float>& a, const Fragment<float>& b) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        mma_m16n8k8_tf32(sums[half], a.low, b.at[half], b.at[half + 2]);
        mma_m16n8k8_tf32(sums[half], a.at, b.low[half], b.low[half + 2]);
        mma_m16n8k8_tf32(sums[half], a.at, b.at[half], b.at[half + 2]);
    }
}

// Of the triangle's eight rows of squares a warp has row Q and row 7 - Q: nine squares, the longer row first.
constexpr int SQUARES = 9;

// Each fragment is loaded once: it is a factor from the left and from the right.
template <int Q, class T> __device__ __forceinline__ void add_products(Sums (&sums)[SQUARES], const T* tile, int columns) {
    constexpr int LONG = 7 - Q;
    const bool has_long = LONG * 16 < columns;
    if (Q * 16 >= columns) return;
#pragma unroll 1  // or a second block has no registers left
    for (int k = warp_index() / 4 * Fragment<T>::ROWS; k < TILE_ROWS<T>; k += HALVES * Fragment<T>::ROWS) {
        Fragment<T> of_short, of_long;
        of_short.load(tile, k, Q * 16);
        if (has_long) of_long.load(tile, k, LONG * 16);
#pragma unroll
        for (int j = 0; j <= LONG; j++) {
            if (j > Q && !has_long) break;
            Fragment<T> other;
            if (j == Q) {
                other = of_short;
            } else if (j == LONG) {
                other = of_long;
            } else {
                other.load(tile, k, j * 16);
            }
            if (has_long) add_product(sums[j], of_long, other);
            if (j <= Q) add_product(sums[LONG + 1 + j], of_short, other);
        }
    }
}

template <class T> __device__ __forceinline__ void add_products(Sums (&sums)[SQUARES], const T* tile, int columns) {
    switch (warp_index() % 4) {
        case 0: return add_products<0>(sums, tile, columns);
        case 1: return add_products<1>(sums, tile, columns);
        case 2: return add_products<2>(sums, tile, columns);
        default: return add_products<3>(sums, tile, columns);
    }
}

// Moves sums to the triangle, but for its diagonal.
__device__ __forceinline__ void drain(Sums (&sums)[SQUARES], float* triangle, int columns, bool first) {
    const int q = warp_index() % 4;
#pragma unroll
    for (int square = 0; square < SQUARES; square++) {
        const bool of_long = square <= 7 - q;
        const int row = (of_long ? 7 - q : q) * 16, column = (of_long ? square : square - 8 + q) * 16;
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int i = row + (lane_index() >> 2) + (e >> 1 & 1) * 8;
            const int j = column + (lane_index() & 3) * 2 + (e >> 2) * 8 + (e & 1);
            float& sum = sums[square][e >> 2][e & 3];
            if (i < columns && j < i) triangle[packed(i, j)] = first ? sum : triangle[packed(i, j)] + sum;
            sum = 0;
        }
    }
}

// Adds squares of a tile's entries to those of each column, in groups of rows. The diagonal decides on scale, rank and
// error: but for the rows of one tile it is summed in f64.
constexpr int ROW_GROUPS = THREADS / (MAX_WIDTH / 2);
template <class T> __device__ __forceinline__ void add_squares(double* squares, const T* tile, int columns, bool first) {
    const int column = threadIdx.x % (MAX_WIDTH / 2) * 2, group = threadIdx.x / (MAX_WIDTH / 2);
    if (column >= columns) return;
    float sums[2] = {};
#pragma unroll 4
    for (int row = group; row < TILE_ROWS<T>; row += ROW_GROUPS) {
        const float2 x = load_pair(tile + row * STRIDE + column);
        sums[0] += x.x * x.x;
        sums[1] += x.y * x.y;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        double& sum = squares[group * MAX_WIDTH + column + i];
        sum = first ? double(sums[i]) : sum + double(sums[i]);
    }
}

// Adds a chunk to what `out` has of the matrix.
__device__ __forceinline__ void write_chunk(const GramParams& p, const float* triangle, const double* squares, int columns,
                                            bool first) {
    double* const out = p.partials + (int64_t(blockIdx.x) * gridDim.y + blockIdx.y) * packed(p.columns, 0);
    for (int i = warp_index(); i < columns; i += WARPS) {
        for (int j = lane_index(); j <= i; j += 32) {
            double sum = 0;
            if (i == j) {
#pragma unroll
                for (int group = 0; group < ROW_GROUPS; group++) sum += squares[group * MAX_WIDTH + i];
            } else {
                sum = triangle[packed(i, j)];
            }
            out[packed(i, j)] = first ? sum : out[packed(i, j)] + sum;
        }
    }
}

template <class T> __device__ __forceinline__ void gram(const GramParams& p) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    if (!p.all && p.verdicts[index].state != p.wanted) return;
    const int columns = p.by_rank ? p.verdicts[index].rank : p.columns, width = round_up(columns, 16);
    double* const squares = reinterpret_cast<double*>(smem);  // [ROW_GROUPS, MAX_WIDTH]
    T* const tiles = reinterpret_cast<T*>(squares + ROW_GROUPS * MAX_WIDTH);
    float* const triangle = reinterpret_cast<float*>(tiles + STAGES * TILE<T>);
    const auto a = matrix_of<T>(p, p.columns);

    for (int chunk = blockIdx.y; chunk * SVD_CHUNK_ROWS < p.rows; chunk += gridDim.y) {
        const int start = chunk * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
        Pipeline<T, TILE_ROWS<T>, STRIDE> pipeline(a, tiles, start, end, width, p.dense);
        Sums sums[SQUARES] = {};
        for (int row = start; row < end; row += TILE_ROWS<T>) {
            const T* tile = pipeline.next(row);
            add_products(sums, tile, columns);
            add_squares(squares, tile, columns, row == start);
            const int done = row + TILE_ROWS<T> - start;
            if (done % (HALVES * PARTIAL_ROWS) != 0 && row + TILE_ROWS<T> < end) continue;
            const bool first = done <= HALVES * PARTIAL_ROWS;
            if (warp_index() / 4 == 0) drain(sums, triangle, columns, first);
            __syncthreads();
            if (warp_index() / 4 == 1) drain(sums, triangle, columns, false);
        }
        __syncthreads();
        write_chunk(p, triangle, squares, columns, chunk == int(blockIdx.y));
    }
}
