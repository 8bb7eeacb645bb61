// tall = A V / s, by chunks of rows: on tensor cores, or in f64 where those do not suffice.
#include "svd/matrix.cuh"

constexpr int TILE_ROWS = 64;
constexpr int TILE_COLUMNS = 64;  // columns of the result that are made together
constexpr int SIDE = 16;          // threads form a square where they multiply one by one
constexpr int EACH = TILE_COLUMNS / SIDE;

// Rows far enough apart that neighbouring ones fall into other banks.
template <class T> constexpr int STRIDE = MAX_WIDTH + 16 / sizeof(T);
// Parts that an entry of V is the sum of, so that nothing of its 24 bits is lost.
template <class T> constexpr int PARTS = 1;
template <> constexpr int PARTS<bf16> = 3;
template <> constexpr int PARTS<f16> = 2;
template <class T> constexpr int PART = TILE_COLUMNS * STRIDE<T>;

// Columns `first`.. of V, one in each row, split into parts.
template <class T>
__device__ __forceinline__ void load_basis(T* parts, const double* basis, int n, int count, int width) {
#pragma unroll 2  // unrolled further, it spills
    for (int k = warp_index(); k < TILE_COLUMNS; k += WARPS) {
        for (int i = lane_index(); i < width; i += 32) {
            float left = k < count && i < n ? float(basis[k * n + i]) : 0;
#pragma unroll
            for (int part = 0; part < PARTS<T>; part++) {
                const T rounded = from_float<T>(left);
                parts[part * PART<T> + k * STRIDE<T> + i] = rounded;
                left -= to_float(rounded);
            }
        }
    }
}

// Large products, and the small ones that would be lost among them.
struct Sums {
    float large[4][4], small[4][4];
};

// A tile of 16 x 32 of the result for each warp.
template <class T>
__device__ __forceinline__ void multiply(Sums& sums, const T* tile, const T* parts, int row, int column, int width) {
    const int lane = lane_index();
    const T* from = parts + (column + (lane & 7) + (lane >> 4) * 8) * STRIDE<T> + (lane >> 3 & 1) * 8;
    for (int k = 0; k < width; k += 16) {
        uint32_t a[4];
        ldmatrix_x4(a, tile + (row + (lane & 15)) * STRIDE<T> + k + (lane >> 4) * 8);
#pragma unroll
        for (int part = 0; part < PARTS<T>; part++) {
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                uint32_t b[4];
                ldmatrix_x4(b, from + part * PART<T> + j * 8 * STRIDE<T> + k);
                mma_m16n8k16(part == 0 ? sums.large[j] : sums.small[j], a, b[0], b[1], T{});
                mma_m16n8k16(part == 0 ? sums.large[j + 1] : sums.small[j + 1], a, b[2], b[3], T{});
            }
        }
    }
}

// In f32 each factor is split in two, and the product of the lower halves left out.
template <>
__device__ __forceinline__ void multiply(Sums& sums, const float* tile, const float* parts, int row, int column,
                                         int width) {
    const int group = lane_index() >> 2, k_lane = lane_index() & 3;
    for (int k = 0; k < width; k += 8) {
        uint32_t a[4], a_low[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float x = tile[(row + group + (i & 1) * 8) * STRIDE<float> + k + k_lane + (i >> 1) * 4];
            split_tf32(x, a[i], a_low[i]);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            uint32_t b[2], b_low[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                split_tf32(parts[(column + j * 8 + group) * STRIDE<float> + k + k_lane + i * 4], b[i], b_low[i]);
            }
            mma_m16n8k8_tf32(sums.small[j], a_low, b[0], b[1]);
            mma_m16n8k8_tf32(sums.small[j], a, b_low[0], b_low[1]);
            mma_m16n8k8_tf32(sums.large[j], a, b[0], b[1]);
        }
    }
}

// 1 / s of the columns from `first`; zero beyond the rank, whose products are read and dropped.
template <class T> __device__ __forceinline__ void load_scales(T* scales, const SvdParams& p, int first, int rank) {
    const int i = threadIdx.x;
    if (i < TILE_COLUMNS) {
        scales[i] = first + i < rank ? T(1 / sqrt(p.values[int64_t(blockIdx.x) * p.columns + first + i])) : T(0);
    }
}

// Writes an entry of the factor, unless it lies beyond its edges.
__device__ __forceinline__ void store(const SvdParams& p, int row, int column, int rank, float x) {
    if (row < p.rows && column < rank) p.tall[(int64_t(blockIdx.x) * p.rows + row) * p.columns + column] = x;
}

template <class T> __device__ __forceinline__ void project(const SvdParams& p) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    if (p.verdicts[index].state != SVD_CHOSEN) return;
    const int rank = p.verdicts[index].rank, first = blockIdx.z * TILE_COLUMNS, width = round_up(p.width, 16);
    if (first >= rank) return;
    float* scales = reinterpret_cast<float*>(smem);
    T* tile = reinterpret_cast<T*>(scales + TILE_COLUMNS);
    T* parts = tile + TILE_ROWS * STRIDE<T>;
    const auto a = matrix_of<T>(p, p.width);
    const int start = blockIdx.y * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    const int row = warp_index() % 4 * 16, column = warp_index() / 4 * 32;
    load_basis(parts, p.basis + (index * p.columns + first) * p.width, p.width, rank - first, width);
    load_scales(scales, p, first, rank);
    for (int tile_row = start; tile_row < end; tile_row += TILE_ROWS) {
        __syncthreads();
        load_tile<TILE_ROWS, STRIDE<T>>(tile, a, tile_row, width);
        __syncthreads();
        if (first + column >= rank) continue;
        Sums sums = {};
        multiply(sums, tile, parts, row, column, width);
#pragma unroll
        for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int to_row = tile_row + row + (lane_index() >> 2) + (e >> 1) * 8;
                const int to = column + j * 8 + (lane_index() & 3) * 2 + (e & 1);
                store(p, to_row, first + to, rank, (sums.large[j][e] + sums.small[j][e]) * scales[to]);
            }
        }
    }
}

KERNEL(svd_project_f32, SvdParams, 256) { project<float>(p); }
KERNEL(svd_project_bf16, SvdParams, 256) { project<bf16>(p); }
KERNEL(svd_project_f16, SvdParams, 256) { project<f16>(p); }

template <class T> __device__ __forceinline__ void project_wide(const SvdParams& p) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    if (p.verdicts[index].state != SVD_CHOSEN) return;
    const int rank = p.verdicts[index].rank, first = blockIdx.z * TILE_COLUMNS;
    if (first >= rank) return;
    double* scales = reinterpret_cast<double*>(smem);
    double* basis = scales + TILE_COLUMNS;  // [width, TILE_COLUMNS]
    float* tile = reinterpret_cast<float*>(basis + p.width * TILE_COLUMNS);
    const auto a = matrix_of<T>(p, p.width);
    const int start = blockIdx.y * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    const int row = threadIdx.x / SIDE, column = threadIdx.x % SIDE;
    for (int k = warp_index(); k < TILE_COLUMNS; k += WARPS) {
        const double* from = p.basis + (index * p.columns + first + k) * p.width;
        for (int i = lane_index(); i < p.width; i += 32) basis[i * TILE_COLUMNS + k] = first + k < rank ? from[i] : 0;
    }
    load_scales(scales, p, first, rank);
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
                store(p, tile_row + row + i * SIDE, first + to, rank, float(sums[i][j] * scales[to]));
            }
        }
    }
}

KERNEL(svd_project_wide_f32, SvdParams, 256) { project_wide<float>(p); }
KERNEL(svd_project_wide_bf16, SvdParams, 256) { project_wide<bf16>(p); }
KERNEL(svd_project_wide_f16, SvdParams, 256) { project_wide<f16>(p); }
