// tall = A V / s in f64, by chunks of rows.
#include "svd/scales.cuh"

constexpr int TILE_ROWS = 64;
constexpr int TILE_COLUMNS = SVD_PROJECTED;
constexpr int SIDE = 16;  // threads form a square
constexpr int EACH = TILE_COLUMNS / SIDE;

template <class T> __device__ __forceinline__ void project_wide(const SvdParams& p) {
    DYN_SMEM(smem);
    const int64_t index = matrix_index();
    if (p.verdicts[index].state != SVD_CHOSEN) return;
    const int rank = p.verdicts[index].rank, first = blockIdx.z * TILE_COLUMNS;
    double* scales = reinterpret_cast<double*>(smem);
    double* basis = scales + TILE_COLUMNS;  // [width, TILE_COLUMNS]
    float* tile = reinterpret_cast<float*>(basis + p.width * TILE_COLUMNS);
    const auto a = matrix_of<T>(p, p.width);
    const int start = chunk_index() * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    const int row = threadIdx.x / SIDE, column = threadIdx.x % SIDE;
    for (int k = warp_index(); k < TILE_COLUMNS; k += WARPS) {
        const double* from = p.basis + (index * p.columns + first + k) * p.width;
        for (int i = lane_index(); i < p.width; i += 32) basis[i * TILE_COLUMNS + k] = first + k < rank ? from[i] : 0;
    }
    load_scales(scales, p, first);
    for (int tile_row = start; tile_row < end; tile_row += TILE_ROWS) {
        __syncthreads();
        load_tile<TILE_ROWS, MAX_WIDTH>(tile, a, tile_row, p.width);
        __syncthreads();
        double sums[EACH][EACH] = {};
        for (int k = 0; k < p.width; k++) {
            double y[EACH];
#pragma unroll
            for (int j = 0; j < EACH; j++) y[j] = basis[k * TILE_COLUMNS + column + j * SIDE];
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                const double x = tile[(row + i * SIDE) * MAX_WIDTH + k];
#pragma unroll
                for (int j = 0; j < EACH; j++) sums[i][j] += x * y[j];
            }
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                const int to = column + j * SIDE;
                const int to_row = tile_row + row + i * SIDE;
                if (to_row >= p.rows || first + to >= p.columns) continue;
                store_entry(p.tall, p.tall_dtype, (index * p.rows + to_row) * p.columns + first + to, float(sums[i][j] * scales[to]));
            }
        }
    }
}

KERNEL(svd_project_wide_f32, SvdParams, 256) { project_wide<float>(p); }
KERNEL(svd_project_wide_bf16, SvdParams, 256) { project_wide<bf16>(p); }
KERNEL(svd_project_wide_f16, SvdParams, 256) { project_wide<f16>(p); }
