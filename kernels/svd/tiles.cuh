// Tiles of rows of a matrix, copied to shared memory while earlier ones are worked on; and products of their columns.
#pragma once
#include "svd/matrix.cuh"

__device__ __forceinline__ float2 load_pair(const float* at) { return *reinterpret_cast<const float2*>(at); }
template <class T> __device__ __forceinline__ float2 load_pair(const T* at) {
    return unpack(*reinterpret_cast<const uint32_t*>(at), T{});
}

// Tiles of `Rows` rows of `Stride` from `start` to `end`, with zeros beyond the matrix up to `width` columns. When it is
// made nobody may be at what lay there before.
template <class T, int Stages, int Rows, int Stride> struct Pipeline {
    static constexpr int SEGMENT = 16 / sizeof(T), LANES = MAX_WIDTH / SEGMENT, STEP = THREADS / LANES;
    const Matrix<T>& a;
    T* tiles;
    int end, width;
    bool dense;  // rows are whole aligned segments of 16 bytes
    int slot = 0;

    __device__ __forceinline__ Pipeline(const Matrix<T>& a, T* tiles, int start, int end, int width, bool dense)
        : a(a), tiles(tiles), end(end), width(width), dense(dense) {
        for (int stage = 0; stage + 1 < Stages; stage++) copy(start + stage * Rows, stage);
    }

    __device__ __forceinline__ void copy(int row, int to) {
        T* const tile = tiles + to * Rows * Stride;
        if (row < end && dense) {
            const int column = threadIdx.x % LANES * SEGMENT, first = threadIdx.x / LANES;
            const int left = column < a.columns ? a.rows - row - first : 0;
            const T* from = a.at + (row + first) * a.row_stride + column;
            T* const at = tile + first * Stride + column;
            if (column < width) {
#pragma unroll
                for (int step = 0; step < Rows / STEP; step++) {
                    cp_async16(at + step * STEP * Stride, from, step * STEP < left);
                    from += STEP * a.row_stride;
                }
            }
        } else if (row < end) {
            load_tile<Rows, Stride>(tile, a, row, width);
        }
        cp_async_commit();
    }

    // The tile at `row`, which comes next, for all threads; the one before is given up.
    __device__ __forceinline__ const T* next(int row) {
        cp_async_wait<Stages - 2>();
        __syncthreads();
        copy(row + (Stages - 1) * Rows, slot == 0 ? Stages - 1 : slot - 1);
        const T* const tile = tiles + slot * Rows * Stride;
        slot = slot + 1 == Stages ? 0 : slot + 1;
        return tile;
    }
};

// Rows of a tile that one product takes, and 16 columns of it: as a factor from the left, or from the right in halves.
template <class T, int Stride> struct Fragment {
    static constexpr int ROWS = 16;
    uint32_t at[4];

    __device__ __forceinline__ void load(const T* tile, int row, int column) {
        const int lane = lane_index();
        ldmatrix_x4_trans(at, tile + (row + (lane & 7) + (lane >> 4) * 8) * Stride + column + (lane >> 3 & 1) * 8);
    }
};
// In f32 each entry is split in two.
template <int Stride> struct Fragment<float, Stride> {
    static constexpr int ROWS = 8;
    uint32_t at[4], low[4];

    __device__ __forceinline__ void load(const float* tile, int row, int column) {
        const float* from = tile + (row + (lane_index() & 3)) * Stride + column + (lane_index() >> 2);
#pragma unroll
        for (int i = 0; i < 4; i++) split_tf32(from[(i >> 1) * 4 * Stride + (i & 1) * 8], at[i], low[i]);
    }
};

using Sums = float[2][4];  // the left and the right half of a square of 16 x 16

template <class T, int Stride>
__device__ __forceinline__ void add_product(Sums& sums, const Fragment<T, Stride>& a, const Fragment<T, Stride>& b) {
    mma_m16n8k16(sums[0], a.at, b.at[0], b.at[2], T{});
    mma_m16n8k16(sums[1], a.at, b.at[1], b.at[3], T{});
}
// The product of the lower halves is left out.
template <int Stride>
__device__ __forceinline__ void add_product(Sums& sums, const Fragment<float, Stride>& a, const Fragment<float, Stride>& b) {
    // Neighbouring products are of other sums, or they would wait for each other.
#pragma unroll
    for (int half = 0; half < 2; half++) mma_m16n8k8_tf32(sums[half], a.low, b.at[half], b.at[half + 2]);
#pragma unroll
    for (int half = 0; half < 2; half++) mma_m16n8k8_tf32(sums[half], a.at, b.low[half], b.low[half + 2]);
#pragma unroll
    for (int half = 0; half < 2; half++) mma_m16n8k8_tf32(sums[half], a.at, b.at[half], b.at[half + 2]);
}

// Adds a square to a triangle that has room for whole ones, but for its diagonal, and leaves zeros. All of a square's row is
// read before anything of it is written.
template <bool OnDiagonal>
__device__ __forceinline__ void drain(Sums& sums, float* triangle, int row, int column, bool first) {
    const int i = row * 16 + (lane_index() >> 2), j = column * 16 + (lane_index() & 3) * 2;
    float* const rows[2] = {triangle + packed(i, j), triangle + packed(i + 8, j)};
    float before[8];
#pragma unroll
    for (int e = 0; e < 8; e++) {
        const int right = (e >> 2) * 8 + (e & 1), below = e >> 1 & 1;
        const bool inside = !OnDiagonal || j + right < i + below * 8;
        before[e] = first || !inside ? 0 : rows[below][right];
    }
#pragma unroll
    for (int e = 0; e < 8; e++) {
        const int right = (e >> 2) * 8 + (e & 1), below = e >> 1 & 1;
        float& sum = sums[e >> 2][e & 3];
        if (!OnDiagonal || j + right < i + below * 8) rows[below][right] = before[e] + sum;
        sum = 0;
    }
}
__device__ __forceinline__ void drain(Sums& sums, float* triangle, int row, int column, bool first) {
    if (row == column) {
        drain<true>(sums, triangle, row, column, first);
    } else {
        drain<false>(sums, triangle, row, column, first);
    }
}

// Adds squares of a tile's entries to those of each of up to Width columns, in groups of rows. Diagonals decide on
// scale, rank and error: but for the rows of one tile they are summed in f64.
template <int Width> constexpr int ROW_GROUPS = 2 * THREADS / Width;
template <int Width, int Rows, int Stride, class T>
__device__ __forceinline__ void add_squares(double* squares, const T* tile, int columns, bool first) {
    const int column = threadIdx.x % (Width / 2) * 2, group = threadIdx.x / (Width / 2);
    if (column >= columns) return;
    float sums[2] = {};
#pragma unroll 4
    for (int row = group; row < Rows; row += ROW_GROUPS<Width>) {
        const float2 x = load_pair(tile + row * Stride + column);
        sums[0] += x.x * x.x;
        sums[1] += x.y * x.y;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        double& sum = squares[group * Width + column + i];
        sum = first ? double(sums[i]) : sum + double(sums[i]);
    }
}

// Leaves zeros where a triangle's diagonal would be: drain does not touch it.
__device__ __forceinline__ void clear_diagonal(float* triangle, int columns) {
    if (threadIdx.x < columns) triangle[packed(threadIdx.x, threadIdx.x)] = 0;
}

// Writes a triangle with the sum of squares in Groups groups as its diagonal, or adds it to what `out` has; begins with a
// barrier.
template <int Width, int Groups = ROW_GROUPS<Width>>
__device__ __forceinline__ void write_triangle(double* out, const float* triangle, const double* squares, int columns,
                                               bool first) {
    constexpr int TOGETHER = 8;  // all under way before one is waited for
    const int last = packed(columns, 0) - 1;
    double diagonal = 0;
    if (threadIdx.x < columns && !first) diagonal = out[packed(threadIdx.x, threadIdx.x)];
    __syncthreads();
    if (threadIdx.x < columns) {
#pragma unroll
        for (int group = 0; group < Groups; group++) diagonal += squares[group * Width + threadIdx.x];
    }
#pragma unroll 1
    for (int start = threadIdx.x; start <= last; start += TOGETHER * THREADS) {
        double before[TOGETHER] = {};
        if (!first) {
#pragma unroll
            for (int e = 0; e < TOGETHER; e++) before[e] = out[min(start + e * THREADS, last)];
        }
#pragma unroll
        for (int e = 0; e < TOGETHER; e++) {
            const int at = start + e * THREADS;
            if (at <= last) out[at] = before[e] + triangle[at];
        }
    }
    __syncthreads();
    if (threadIdx.x < columns) out[packed(threadIdx.x, threadIdx.x)] = diagonal;
}
