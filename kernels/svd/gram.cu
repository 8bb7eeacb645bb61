// A'A, summed up by one thread block for each chunk of rows: on tensor cores, or in f64 where those do not suffice.
#include "svd/matrix.cuh"

constexpr int PARTIAL_ROWS = 256;  // sums in f32 are no longer than this
constexpr int STRIDE = MAX_WIDTH + 8;
template <class T> constexpr int TILE_ROWS = 128 / sizeof(T);

// A square of 16 x 16 on or below the diagonal of the product.
struct Square {
    int row, column;
};
constexpr int SQUARES = 5;  // of one warp, at most

// Two warps share rows q and 7 - q of squares, nine in all, and take them in turns.
__device__ __forceinline__ Square square(int i) {
    const int upper = warp_index() / 2, lower = 7 - upper, turn = 2 * i + warp_index() % 2;
    if (turn <= lower) return {lower * 16, turn * 16};
    return {upper * 16, (turn - lower - 1) * 16};
}

__device__ __forceinline__ bool is_in_use(const Square& at, int columns) {
    return at.row < columns && at.column <= at.row;
}

using Sums = float[2][4];  // the left and the right half of a square

template <class T> __device__ __forceinline__ void add_products(Sums& sums, const T* tile, const Square& at) {
    const int lane = lane_index();
#pragma unroll 2  // unrolled further, it spills
    for (int k = 0; k < TILE_ROWS<T>; k += 16) {
        uint32_t a[4], b[4];
        ldmatrix_x4_trans(a, tile + (k + (lane & 7) + (lane >> 4) * 8) * STRIDE + at.row + (lane >> 3 & 1) * 8);
        ldmatrix_x4_trans(b, tile + (k + (lane & 15)) * STRIDE + at.column + (lane >> 4) * 8);
        mma_m16n8k16(sums[0], a, b[0], b[1], T{});
        mma_m16n8k16(sums[1], a, b[2], b[3], T{});
    }
}

// In f32 each factor is split in two, and the product of the lower halves left out.
template <> __device__ __forceinline__ void add_products(Sums& sums, const float* tile, const Square& at) {
    const int group = lane_index() >> 2, k_lane = lane_index() & 3;
    for (int k = 0; k < TILE_ROWS<float>; k += 8) {
        const float* from = tile + (k + k_lane) * STRIDE + group;
        uint32_t a[4], a_low[4];
#pragma unroll
        for (int i = 0; i < 4; i++) split_tf32(from[(i >> 1) * 4 * STRIDE + at.row + (i & 1) * 8], a[i], a_low[i]);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t b[2], b_low[2];
#pragma unroll
            for (int i = 0; i < 2; i++) split_tf32(from[i * 4 * STRIDE + at.column + half * 8], b[i], b_low[i]);
            mma_m16n8k8_tf32(sums[half], a_low, b[0], b[1]);
            mma_m16n8k8_tf32(sums[half], a, b_low[0], b_low[1]);
            mma_m16n8k8_tf32(sums[half], a, b[0], b[1]);
        }
    }
}

// Adds the sums to the triangle, but for its diagonal.
__device__ __forceinline__ void drain(const Sums& sums, double* triangle, const Square& at, int columns) {
#pragma unroll
    for (int e = 0; e < 8; e++) {
        const int i = at.row + (lane_index() >> 2) + (e >> 1 & 1) * 8;
        const int j = at.column + (lane_index() & 3) * 2 + (e >> 2) * 8 + (e & 1);
        if (i < columns && j < i) triangle[packed(i, j)] += double(sums[e >> 2][e & 3]);
    }
}

template <class T> __device__ __forceinline__ void gram(const GramParams& p) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    if (!p.all && p.verdicts[index].state != p.wanted) return;
    const int columns = p.by_rank ? p.verdicts[index].rank : p.columns, size = packed(columns, 0), width = round_up(columns, 16);
    double* triangle = reinterpret_cast<double*>(smem);
    double* halves = triangle + round_up(packed(p.columns, 0), 2);
    T* tile = reinterpret_cast<T*>(halves + MAX_WIDTH);

    const auto a = matrix_of<T>(p, columns);
    const int start = blockIdx.y * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    const int column = threadIdx.x % MAX_WIDTH, half = threadIdx.x / MAX_WIDTH;
    for (int i = threadIdx.x; i < size; i += THREADS) triangle[i] = 0;
    // The diagonal decides on scale, rank and error: it is summed in f64.
    double squares = 0;
    for (int partial = start; partial < end; partial += PARTIAL_ROWS) {
        Sums sums[SQUARES] = {};
        for (int row = partial; row < min(partial + PARTIAL_ROWS, end); row += TILE_ROWS<T>) {
            __syncthreads();
            load_tile<TILE_ROWS<T>, STRIDE>(tile, a, row, width);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < SQUARES; i++) {
                if (is_in_use(square(i), columns)) add_products<T>(sums[i], tile, square(i));
            }
            for (int i = half; column < columns && i < TILE_ROWS<T>; i += 2) {
                const double x = to_float(tile[i * STRIDE + column]);
                squares += x * x;
            }
        }
#pragma unroll
        for (int i = 0; i < SQUARES; i++) {
            if (is_in_use(square(i), columns)) drain(sums[i], triangle, square(i), columns);
        }
    }
    if (half == 1) halves[column] = squares;
    __syncthreads();
    if (half == 0 && column < columns) triangle[packed(column, column)] = squares + halves[column];
    __syncthreads();
    double* out = p.partials + (index * gridDim.y + blockIdx.y) * packed(p.columns, 0);
    for (int i = threadIdx.x; i < size; i += THREADS) out[i] = triangle[i];
}

KERNEL(svd_gram_f32, GramParams, 256) { gram<float>(p); }
KERNEL(svd_gram_bf16, GramParams, 256) { gram<bf16>(p); }
KERNEL(svd_gram_f16, GramParams, 256) { gram<f16>(p); }

constexpr int SIDE = 16;  // threads form a square
constexpr int EACH = MAX_WIDTH / SIDE;
constexpr int WIDE_TILE_ROWS = 64;

// The same in f64, which holds the squares of everything that f32 holds.
template <class T> __device__ __forceinline__ void gram_wide(const GramParams& p) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    if (!p.all && p.verdicts[index].state != p.wanted) return;
    const int columns = p.by_rank ? p.verdicts[index].rank : p.columns;
    float* tile = reinterpret_cast<float*>(smem);
    const auto a = matrix_of<T>(p, columns);
    const int start = blockIdx.y * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    const int i0 = threadIdx.x / SIDE, j0 = threadIdx.x % SIDE;
    double sums[EACH][EACH] = {};
    for (int row = start; row < end; row += WIDE_TILE_ROWS) {
        __syncthreads();
        load_tile<WIDE_TILE_ROWS, MAX_WIDTH>(tile, a, row, round_up(columns, SIDE));
        __syncthreads();
        for (int k = 0; k < WIDE_TILE_ROWS; k++) {
            const float* at = tile + k * MAX_WIDTH;
            double x[EACH];
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                if (i * SIDE >= columns) break;
                const double y = at[i0 + i * SIDE];
                x[i] = at[j0 + i * SIDE];
#pragma unroll
                for (int j = 0; j <= i; j++) sums[i][j] += y * x[j];
            }
        }
    }
    double* out = p.partials + (index * gridDim.y + blockIdx.y) * packed(p.columns, 0);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
#pragma unroll
        for (int j = 0; j <= i; j++) {
            const int row = i0 + i * SIDE, column = j0 + j * SIDE;
            if (row < columns && column <= row) out[packed(row, column)] = sums[i][j];
        }
    }
}

KERNEL(svd_gram_wide_f32, GramParams, 256) { gram_wide<float>(p); }
KERNEL(svd_gram_wide_bf16, GramParams, 256) { gram_wide<bf16>(p); }
KERNEL(svd_gram_wide_f16, GramParams, 256) { gram_wide<f16>(p); }
