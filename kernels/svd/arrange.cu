// The last step for every matrix: columns of the tall factor made orthonormal and put in order, and their signs.
#include "svd/matrix.cuh"

constexpr int kTileRows = 64;
constexpr int kStride = kMaxWidth + 1;
constexpr int kSide = 16;  // threads form a square
constexpr int kEachRow = kTileRows / kSide, kEachColumn = kMaxWidth / kSide;

/// NaN everywhere, or orthonormal factors of a matrix of zeros.
__device__ __forceinline__ void fill(const FactorParams& p, int start, int end, int state, int rank) {
    const int64_t index = blockIdx.x;
    const bool zero = state == SVD_ZERO;
    for (int row = start + warp_index(); row < end; row += kWarps) {
        for (int k = lane_index(); k < p.columns; k += 32) {
            const float x = zero ? (row == k && k < rank ? 1 : 0) : NAN;
            p.tall[(index * p.rows + row) * p.columns + k] = x;
            if (row < p.width) p.small[(index * p.width + row) * p.columns + k] = x;
            if (row == 0) p.s[index * p.columns + k] = zero ? 0 : NAN;
        }
    }
}

/// tall = tall mix, in place, with zeros in the columns beyond the rank.
KERNEL(svd_mix, FactorParams, 256) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    const int start = blockIdx.y * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    const int state = p.state[index], rank = p.rank[index];
    if (state != SVD_SINGLE && state != SVD_DOUBLE) return fill(p, start, end, state, rank);
    float* mix = reinterpret_cast<float*>(smem);  // [rank, kMaxWidth]
    float* tile = mix + p.columns * kMaxWidth;
    for (int row = warp_index(); row < rank; row += kWarps) {
        const float* from = p.mix + (index * p.columns + row) * p.columns;
        for (int k = lane_index(); k < kMaxWidth; k += 32) mix[row * kMaxWidth + k] = k < rank ? from[k] : 0;
    }
    const Matrix<float> tall{p.tall + index * p.rows * p.columns, p.columns, 1, p.rows, rank};
    const int row = threadIdx.x / kSide, column = threadIdx.x % kSide;
    for (int tile_row = start; tile_row < end; tile_row += kTileRows) {
        __syncthreads();
        load_tile<kTileRows, kStride>(tile, tall, tile_row, rank);
        __syncthreads();
        float sums[kEachRow][kEachColumn] = {};
#pragma unroll 2
        for (int k = 0; k < rank; k++) {
            float x[kEachRow];
#pragma unroll
            for (int i = 0; i < kEachRow; i++) x[i] = tile[(row + i * kSide) * kStride + k];
#pragma unroll
            for (int j = 0; j < kEachColumn; j++) {
                if (j * kSide >= rank) break;
                const float y = mix[k * kMaxWidth + column + j * kSide];
#pragma unroll
                for (int i = 0; i < kEachRow; i++) sums[i][j] += x[i] * y;
            }
        }
#pragma unroll
        for (int i = 0; i < kEachRow; i++) {
#pragma unroll
            for (int j = 0; j < kEachColumn; j++) {
                const int to_row = tile_row + row + i * kSide, k = column + j * kSide;
                if (to_row < p.rows && k < p.columns) p.tall[(index * p.rows + to_row) * p.columns + k] = sums[i][j];
            }
        }
    }
}

/// Makes the entry of largest magnitude in each column of a wide matrix's V, which is its tall factor, positive.
KERNEL(svd_signs, FactorParams, 256) {
    DYN_SMEM(smem);
    float* largest = reinterpret_cast<float*>(smem);        // [kThreads] candidates
    int* at = reinterpret_cast<int*>(largest + kThreads);   // and their rows
    const int64_t index = blockIdx.x;
    const int state = p.state[index];
    if (state != SVD_SINGLE && state != SVD_DOUBLE) return;
    float* tall = p.tall + index * p.rows * p.columns;
    float* small = p.small + index * p.width * p.columns;
    const int column = threadIdx.x % kMaxWidth, half = threadIdx.x / kMaxWidth;
    largest[threadIdx.x] = 0;
    at[threadIdx.x] = p.rows;
    for (int row = half; column < p.columns && row < p.rows; row += kThreads / kMaxWidth) {
        const float x = tall[int64_t(row) * p.columns + column];
        if (fabsf(x) > fabsf(largest[threadIdx.x])) largest[threadIdx.x] = x, at[threadIdx.x] = row;
    }
    __syncthreads();
    const float a = largest[column], b = largest[column + kMaxWidth];
    const bool first = fabsf(a) > fabsf(b) || (fabsf(a) == fabsf(b) && at[column] < at[column + kMaxWidth]);
    if (column >= p.columns || (first ? a : b) >= 0) return;
    for (int row = half; row < p.rows; row += kThreads / kMaxWidth) tall[int64_t(row) * p.columns + column] *= -1;
    for (int row = half; row < p.width; row += kThreads / kMaxWidth) small[int64_t(row) * p.columns + column] *= -1;
}
