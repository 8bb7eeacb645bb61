// A'A of matrices in f64, which holds the squares of everything that f32 holds.
#define LEAST_BLOCKS 1
#include "svd/matrix.cuh"

constexpr int SIDE = 16;  // threads form a square
constexpr int EACH = MAX_WIDTH / SIDE;
constexpr int WIDE_TILE_ROWS = 64;

template <class T> __device__ __forceinline__ void gram_wide(const GramParams& p) {
    DYN_SMEM(smem);
    const int64_t index = matrix_index();
    if (!p.all && p.verdicts[index].state != p.wanted) return;
    const int columns = p.by_rank ? p.verdicts[index].rank : p.columns;
    float* tile = reinterpret_cast<float*>(smem);
    const auto a = matrix_of<T>(p, columns);
    double* const out = p.partials + (index * gridDim.x + chunk_index()) * packed(p.columns, 0);
    const int i0 = threadIdx.x / SIDE, j0 = threadIdx.x % SIDE;
    for (int chunk = chunk_index(); chunk * SVD_CHUNK_ROWS < p.rows; chunk += gridDim.x) {
        const int start = chunk * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
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
#pragma unroll
        for (int i = 0; i < EACH; i++) {
#pragma unroll
            for (int j = 0; j <= i; j++) {
                const int row = i0 + i * SIDE, column = j0 + j * SIDE;
                if (row >= columns || column > row) continue;
                double& sum = out[packed(row, column)];
                sum = chunk == chunk_index() ? sums[i][j] : sum + sums[i][j];
            }
        }
    }
}

KERNEL(svd_gram_wide_f32, GramParams, 256) { gram_wide<float>(p); }
KERNEL(svd_gram_wide_bf16, GramParams, 256) { gram_wide<bf16>(p); }
KERNEL(svd_gram_wide_f16, GramParams, 256) { gram_wide<f16>(p); }
