// The last step for every matrix: columns of the tall factor made orthonormal and put in order, and their signs.
#include "svd/matrix.cuh"

constexpr int TILE_ROWS = 64;
constexpr int STRIDE = MAX_WIDTH + 1;
constexpr int SIDE = 16;  // threads form a square
constexpr int EACH_ROW = TILE_ROWS / SIDE, EACH_COLUMN = MAX_WIDTH / SIDE;

// NaN everywhere, or orthonormal factors of a matrix of zeros.
__device__ __forceinline__ void fill(const SvdParams& p, int start, int end, uint32_t state, int rank) {
    const int64_t index = blockIdx.x;
    const bool zero = state == SVD_ZERO;
    for (int row = start + warp_index(); row < end; row += WARPS) {
        for (int k = lane_index(); k < p.columns; k += 32) {
            const float x = zero ? (row == k && k < rank ? 1 : 0) : NAN;
            p.tall[(index * p.rows + row) * p.columns + k] = x;
            if (row < p.width) p.small[(index * p.width + row) * p.columns + k] = x;
            if (row == 0) p.s[index * p.columns + k] = zero ? 0 : NAN;
        }
    }
}

// tall = tall mix, in place, with zeros in the columns beyond the rank.
KERNEL(svd_mix, SvdParams, 256) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    const int start = blockIdx.y * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    const uint32_t state = p.verdicts[index].state;
    const int rank = p.verdicts[index].rank;
    if (!is_solved(state)) return fill(p, start, end, state, rank);
    float* mix = reinterpret_cast<float*>(smem);  // [rank, MAX_WIDTH]
    float* tile = mix + p.columns * MAX_WIDTH;
    for (int row = warp_index(); row < rank; row += WARPS) {
        const float* from = p.mix + (index * p.columns + row) * p.columns;
        for (int k = lane_index(); k < MAX_WIDTH; k += 32) mix[row * MAX_WIDTH + k] = k < rank ? from[k] : 0;
    }
    const Matrix<float> tall{p.tall + index * p.rows * p.columns, p.columns, 1, p.rows, rank};
    const int row = threadIdx.x / SIDE, column = threadIdx.x % SIDE;
    for (int tile_row = start; tile_row < end; tile_row += TILE_ROWS) {
        __syncthreads();
        load_tile<TILE_ROWS, STRIDE>(tile, tall, tile_row, rank);
        __syncthreads();
        float sums[EACH_ROW][EACH_COLUMN] = {};
#pragma unroll 2  // unrolled further, it spills
        for (int k = 0; k < rank; k++) {
            float x[EACH_ROW];
#pragma unroll
            for (int i = 0; i < EACH_ROW; i++) x[i] = tile[(row + i * SIDE) * STRIDE + k];
#pragma unroll
            for (int j = 0; j < EACH_COLUMN; j++) {
                if (j * SIDE >= rank) break;
                const float y = mix[k * MAX_WIDTH + column + j * SIDE];
#pragma unroll
                for (int i = 0; i < EACH_ROW; i++) sums[i][j] += x[i] * y;
            }
        }
#pragma unroll
        for (int i = 0; i < EACH_ROW; i++) {
#pragma unroll
            for (int j = 0; j < EACH_COLUMN; j++) {
                const int to_row = tile_row + row + i * SIDE, k = column + j * SIDE;
                if (to_row < p.rows && k < p.columns) p.tall[(index * p.rows + to_row) * p.columns + k] = sums[i][j];
            }
        }
    }
}

// Makes the entry of largest magnitude in each column of a wide matrix's V, which is its tall factor, positive.
KERNEL(svd_signs, SvdParams, 256) {
    DYN_SMEM(smem);
    float* largest = reinterpret_cast<float*>(smem);       // [THREADS] candidates
    int* at = reinterpret_cast<int*>(largest + THREADS);  // and their rows
    const int64_t index = blockIdx.x;
    const uint32_t state = p.verdicts[index].state;
    if (!is_solved(state)) return;
    float* tall = p.tall + index * p.rows * p.columns;
    float* small = p.small + index * p.width * p.columns;
    const int column = threadIdx.x % MAX_WIDTH, half = threadIdx.x / MAX_WIDTH;
    largest[threadIdx.x] = 0;
    at[threadIdx.x] = p.rows;
    for (int row = half; column < p.columns && row < p.rows; row += THREADS / MAX_WIDTH) {
        const float x = tall[int64_t(row) * p.columns + column];
        if (fabsf(x) > fabsf(largest[threadIdx.x])) largest[threadIdx.x] = x, at[threadIdx.x] = row;
    }
    __syncthreads();
    const float a = largest[column], b = largest[column + MAX_WIDTH];
    const bool first = fabsf(a) > fabsf(b) || (fabsf(a) == fabsf(b) && at[column] < at[column + MAX_WIDTH]);
    if (column >= p.columns || (first ? a : b) >= 0) return;
    for (int row = half; row < p.rows; row += THREADS / MAX_WIDTH) tall[int64_t(row) * p.columns + column] *= -1;
    for (int row = half; row < p.width; row += THREADS / MAX_WIDTH) small[int64_t(row) * p.columns + column] *= -1;
}
