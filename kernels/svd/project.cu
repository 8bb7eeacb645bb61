// tall = A V / s, by chunks of rows on tensor cores. Where one block makes all columns, it sums up their moments as well, and
// the last block of a matrix finishes it.
#define LEAST_BLOCKS 2
#include "device/reduce.cuh"
#include "svd/finish.cuh"
#include "svd/mix.cuh"
#include "svd/scales.cuh"
#include "svd/tiles.cuh"

constexpr int STAGES = 2;
constexpr int PARTIAL_ROWS = 256;  // sums in f32 are no longer than this
constexpr int HALVES = 2;          // of the warps, which take products of rows in turns
// Rows far enough apart that neighbouring ones fall into other banks.
template <class T> constexpr int STRIDE = MAX_WIDTH + 16 / sizeof(T);
constexpr int RESULT_STRIDE = SVD_PROJECTED + 8;
template <class T> constexpr int TILE_ROWS = 128 / sizeof(T);
// Parts that an entry of V is the sum of: 16 of its bits, or 22, and what that leaves is small beside the least tail that
// this rung is trusted with.
template <class T> constexpr int PARTS = sizeof(T) == 4 ? 1 : 2;

// Columns of V, one in each row, split into parts.
template <class T>
__device__ __forceinline__ void load_basis(T* parts, const double* basis, int n, int count, int columns, int width) {
#pragma unroll 2  // unrolled further, it spills
    for (int k = warp_index(); k < columns; k += WARPS) {
        for (int i = lane_index(); i < width; i += 32) {
            float left = k < count && i < n ? float(basis[k * n + i]) : 0;
#pragma unroll
            for (int part = 0; part < PARTS<T>; part++) {
                const T rounded = from_float<T>(left);
                parts[(part * columns + k) * STRIDE<T> + i] = rounded;
                left -= to_float(rounded);
            }
        }
    }
}

// Large products, and the small ones that would be lost among them, of 16 rows with 16 columns.
struct Products {
    float large[2][4], small[2][4];
};

// Warps stand in rows of 16 rows of a tile and take blocks of 16 columns in turns.
template <class T> constexpr int WARP_ROWS = TILE_ROWS<T> / 16;
template <class T> constexpr int WARP_COLUMNS = WARPS / WARP_ROWS<T>;
template <class T> constexpr int BLOCKS = SVD_PROJECTED / 16 / WARP_COLUMNS<T>;
template <class T> __device__ __forceinline__ int block_column(int block) {
    return (warp_index() / WARP_ROWS<T> + block * WARP_COLUMNS<T>) * 16;
}

template <class T>
__device__ __forceinline__ void multiply(Products (&products)[BLOCKS<T>], const T* tile, const T* parts, int columns, int width) {
    const int lane = lane_index(), row = warp_index() % WARP_ROWS<T> * 16;
    for (int k = 0; k < width; k += 16) {
        uint32_t a[4];
        ldmatrix_x4(a, tile + (row + (lane & 15)) * STRIDE<T> + k + (lane >> 4) * 8);
#pragma unroll
        for (int block = 0; block < BLOCKS<T>; block++) {
            const int column = block_column<T>(block);
            if (column >= columns) break;
            const T* from = parts + (column + (lane & 7) + (lane >> 4) * 8) * STRIDE<T> + (lane >> 3 & 1) * 8 + k;
            uint32_t large[4], small[4];  // both under way before one is waited for
            ldmatrix_x4(large, from);
            ldmatrix_x4(small, from + columns * STRIDE<T>);
            mma_m16n8k16(products[block].large[0], a, large[0], large[1], T{});
            mma_m16n8k16(products[block].large[1], a, large[2], large[3], T{});
            mma_m16n8k16(products[block].small[0], a, small[0], small[1], T{});
            mma_m16n8k16(products[block].small[1], a, small[2], small[3], T{});
        }
    }
}

// In f32 each factor is split in two, and the product of the lower halves left out.
template <>
__device__ __forceinline__ void multiply(Products (&products)[BLOCKS<float>], const float* tile, const float* parts,
                                         int columns, int width) {
    const int group = lane_index() >> 2, k_lane = lane_index() & 3, row = warp_index() % WARP_ROWS<float> * 16;
    const int column = block_column<float>(0);
    if (column >= columns) return;
    for (int k = 0; k < width; k += 8) {
        uint32_t a[4], a_low[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float x = tile[(row + group + (i & 1) * 8) * STRIDE<float> + k + k_lane + (i >> 1) * 4];
            split_tf32(x, a[i], a_low[i]);
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            uint32_t b[2], b_low[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                split_tf32(parts[(column + j * 8 + group) * STRIDE<float> + k + k_lane + i * 4], b[i], b_low[i]);
            }
            mma_m16n8k8_tf32(products[0].small[j], a_low, b[0], b[1]);
            mma_m16n8k8_tf32(products[0].small[j], a, b_low[0], b_low[1]);
            mma_m16n8k8_tf32(products[0].large[j], a, b[0], b[1]);
        }
    }
}

// The result of a tile goes to memory and, for its moments, to shared memory.
template <class T>
__device__ __forceinline__ void store(const SvdParams& p, const Products (&products)[BLOCKS<T>], const float* scales,
                                      float* result, int tile_row, int first, int columns) {
    const int64_t index = matrix_index();
#pragma unroll
    for (int block = 0; block < BLOCKS<T>; block++) {
        if (block_column<T>(block) >= columns) break;
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            const int half = pair >> 1, e = (pair & 1) * 2;
            const int row = warp_index() % WARP_ROWS<T> * 16 + (lane_index() >> 2) + (pair & 1) * 8;
            const int column = block_column<T>(block) + half * 8 + (lane_index() & 3) * 2;
            const auto& large = products[block].large[half];
            const auto& small = products[block].small[half];
            const float x = (large[e] + small[e]) * scales[column];
            const float y = (large[e + 1] + small[e + 1]) * scales[column + 1];
            if (p.fused) *reinterpret_cast<float2*>(result + row * RESULT_STRIDE + column) = make_float2(x, y);
            if (tile_row + row >= p.rows) continue;
            const int64_t at = (index * p.rows + tile_row + row) * p.columns + first + column;
            store_pair(p.tall, p.tall_dtype, at, x, y, p.columns - first - column, p.columns % 2 == 0);
        }
    }
}

// Of the triangle of moments two warps have a row of squares, each for half of the rows of a tile.
constexpr int SQUARES = SVD_PROJECTED / 16;
template <int Rows> __device__ __forceinline__ void add_moments(Sums (&sums)[SQUARES], const float* result, int columns) {
    using Part = Fragment<float, RESULT_STRIDE>;
    const int q = warp_index() % 4;
    if (q * 16 >= columns) return;
    for (int k = warp_index() / 4 * Part::ROWS; k < Rows; k += HALVES * Part::ROWS) {
        Part own;
        own.load(result, k, q * 16);
#pragma unroll
        for (int j = 0; j < SQUARES; j++) {
            if (j > q) break;
            Part other;
            other.load(result, k, j * 16);
            add_product(sums[j], own, other);
        }
    }
}

__device__ __forceinline__ void drain(Sums (&sums)[SQUARES], float* triangle, int columns, bool first) {
    const int q = warp_index() % 4;
#pragma unroll
    for (int j = 0; j < SQUARES; j++) {
        if (j <= q) drain(sums[j], triangle, q * 16, j * 16, columns, first);
    }
}

// Shared memory behind the tiles, for moments.
struct Moments {
    double* squares;  // [ROW_GROUPS, SVD_PROJECTED]
    float *result, *triangle;
};

template <class T> __device__ __forceinline__ Moments project(const SvdParams& p, unsigned char* smem) {
    const int64_t index = matrix_index();
    const int rank = p.verdicts[index].rank, first = blockIdx.z * SVD_PROJECTED, width = round_up(p.width, 16);
    const int columns = round_up(min(p.columns - first, SVD_PROJECTED), 16);
    constexpr int ROWS = TILE_ROWS<T>;
    float* const scales = reinterpret_cast<float*>(smem);
    double* const squares = reinterpret_cast<double*>(scales + SVD_PROJECTED);
    T* const parts = reinterpret_cast<T*>(squares + ROW_GROUPS<SVD_PROJECTED> * SVD_PROJECTED);
    T* const tiles = parts + PARTS<T> * columns * STRIDE<T>;
    float* const result = reinterpret_cast<float*>(tiles + STAGES * ROWS * STRIDE<T>);
    float* const triangle = result + ROWS * RESULT_STRIDE;
    const auto a = matrix_of<T>(p, p.width);
    const int start = chunk_index() * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    Pipeline<T, STAGES, ROWS, STRIDE<T>> pipeline(a, tiles, start, end, width, p.dense);
    load_basis(parts, p.basis + (index * p.columns + first) * p.width, p.width, rank - first, columns, width);
    load_scales(scales, p, first);
    Sums sums[SQUARES] = {};
    for (int row = start; row < end; row += ROWS) {
        const T* tile = pipeline.next(row);
        Products products[BLOCKS<T>] = {};
        multiply(products, tile, parts, columns, width);
        store<T>(p, products, scales, result, row, first, columns);
        if (!p.fused) continue;
        __syncthreads();
        add_moments<ROWS>(sums, result, columns);
        add_squares<SVD_PROJECTED, ROWS, RESULT_STRIDE>(squares, result, rank, row == start);
        const int done = row + ROWS - start;
        if (done % (HALVES * PARTIAL_ROWS) != 0 && row + ROWS < end) continue;
        if (warp_index() / 4 == 0) drain(sums, triangle, rank, done <= HALVES * PARTIAL_ROWS);
        __syncthreads();
        if (warp_index() / 4 == 1) drain(sums, triangle, rank, false);
    }
    return {squares, result, triangle};
}

template <class T> __device__ __forceinline__ void project_and_finish(const SvdParams& p) {
    DYN_SMEM(smem);
    const int64_t index = matrix_index();
    if (p.verdicts[index].state != SVD_CHOSEN) return;
    const Moments moments = project<T>(p, smem);
    if (!p.fused) return;
    __syncthreads();
    const int rank = p.verdicts[index].rank;
    double* const out = p.moments + (index * p.chunks + chunk_index()) * packed(p.columns, 0);
    write_triangle<SVD_PROJECTED>(out, moments.triangle, moments.squares, rank, true);
    if (!last_block_to_arrive(p.arrivals + index, p.chunks, reinterpret_cast<unsigned*>(smem))) return;
    if (judge(p, smem)) {
        __syncthreads();
        mix_rows<SVD_PROJECTED>(p, smem, rank, 0, p.rows);
    }
}

KERNEL(svd_project_f32, SvdParams, 256) { project_and_finish<float>(p); }
KERNEL(svd_project_bf16, SvdParams, 256) { project_and_finish<bf16>(p); }
KERNEL(svd_project_f16, SvdParams, 256) { project_and_finish<f16>(p); }
