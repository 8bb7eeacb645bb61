// A'A of matrices, summed up by chunks of rows on tensor cores. A block takes a chunk, or all chunks of a matrix one after
// another: the sums are the same.
#pragma once
#include "svd/tiles.cuh"

constexpr int PARTIAL_ROWS = 256;  // sums in f32 are no longer than this
constexpr int HALVES = 2;          // of the warps, which take products of rows in turns
constexpr int STRIDE = MAX_WIDTH + 8, STAGES = 3;
template <class T> constexpr int TILE_ROWS = 128 / sizeof(T);
template <class T> constexpr int TILE = TILE_ROWS<T> * STRIDE;

// Of the triangle's eight rows of squares a warp has row Q and row 7 - Q: nine squares, the longer row first.
constexpr int SQUARES = 9;

// Each fragment is loaded once: it is a factor from the left and from the right.
template <int Q, class T> __device__ __forceinline__ void add_products(Sums (&sums)[SQUARES], const T* tile, int columns) {
    using Part = Fragment<T, STRIDE>;
    constexpr int LONG = 7 - Q;
    const bool has_long = LONG * 16 < columns;
    if (Q * 16 >= columns) return;
#pragma unroll 1  // or a second block has no registers left
    for (int k = warp_index() / 4 * Part::ROWS; k < TILE_ROWS<T>; k += HALVES * Part::ROWS) {
        Part of_short, of_long;
        of_short.load(tile, k, Q * 16);
        if (has_long) of_long.load(tile, k, LONG * 16);
#pragma unroll
        for (int j = 0; j <= LONG; j++) {
            if (j > Q && !has_long) break;
            Part other;
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

__device__ __forceinline__ void drain(Sums (&sums)[SQUARES], float* triangle, int columns, bool first) {
    const int q = warp_index() % 4;
#pragma unroll
    for (int square = 0; square < SQUARES; square++) {
        const bool of_long = square <= 7 - q;
        const int row = (of_long ? 7 - q : q) * 16, column = (of_long ? square : square - 8 + q) * 16;
        drain(sums[square], triangle, row, column, columns, first);
    }
}

template <class T> __device__ __forceinline__ void gram(const GramParams& p) {
    DYN_SMEM(smem);
    const int64_t index = matrix_index();
    if (!p.all && p.verdicts[index].state != p.wanted) return;
    const int columns = p.by_rank ? p.verdicts[index].rank : p.columns, width = round_up(columns, 16);
    double* const squares = reinterpret_cast<double*>(smem);  // [ROW_GROUPS<MAX_WIDTH>, MAX_WIDTH]
    T* const tiles = reinterpret_cast<T*>(squares + ROW_GROUPS<MAX_WIDTH> * MAX_WIDTH);
    float* const triangle = reinterpret_cast<float*>(tiles + STAGES * TILE<T>);
    const auto a = matrix_of<T>(p, p.columns);

    for (int chunk = chunk_index(); chunk * SVD_CHUNK_ROWS < p.rows; chunk += gridDim.x) {
        const int start = chunk * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
        Pipeline<T, STAGES, TILE_ROWS<T>, STRIDE> pipeline(a, tiles, start, end, width, p.dense);
        Sums sums[SQUARES] = {};
        for (int row = start; row < end; row += TILE_ROWS<T>) {
            const T* tile = pipeline.next(row);
            add_products(sums, tile, columns);
            add_squares<MAX_WIDTH, TILE_ROWS<T>, STRIDE>(squares, tile, columns, row == start);
            const int done = row + TILE_ROWS<T> - start;
            if (done % (HALVES * PARTIAL_ROWS) != 0 && row + TILE_ROWS<T> < end) continue;
            const bool first = done <= HALVES * PARTIAL_ROWS;
            if (warp_index() / 4 == 0) drain(sums, triangle, columns, first);
            __syncthreads();
            if (warp_index() / 4 == 1) drain(sums, triangle, columns, false);
        }
        __syncthreads();
        double* const out = p.partials + (index * gridDim.x + chunk_index()) * packed(p.columns, 0);
        write_triangle<MAX_WIDTH>(out, triangle, squares, columns, chunk == chunk_index());
    }
}
