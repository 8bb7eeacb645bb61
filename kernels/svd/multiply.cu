// C = A B with sums in f64: what is wider than one block takes, in tiles of 64 x 64. Sums have a fixed order.
#define LEAST_BLOCKS 2
#include "device/philox.cuh"
#include "svd/matrix.cuh"

constexpr int TILE = SVD_TILE, DEPTH = SVD_DEPTH;
constexpr int SIDE = 16, EACH = TILE / SIDE;  // threads form a square
constexpr int STRIDE = TILE + 1;               // spreads a column over the banks
constexpr int LOADED = TILE * DEPTH / THREADS;

// One of the two factors: rows of A, or columns of B.
struct Side {
    const void* at;
    int64_t start, stride, depth_stride;
    int count;
    uint32_t dtype;
    bool along_depth;  // that is how neighbours lie

    __device__ __forceinline__ Side(const SvdOperand& x, int64_t start, int64_t stride, int64_t depth_stride, int count)
        : at(x.at), start(start), stride(stride), depth_stride(depth_stride), count(count), dtype(x.dtype),
          along_depth(depth_stride == 1) {}

    // Where this thread's i-th entry of a tile lies.
    __device__ __forceinline__ int line(int i) const {
        return along_depth ? threadIdx.x / DEPTH + i * (THREADS / DEPTH) : threadIdx.x % TILE;
    }
    __device__ __forceinline__ int depth(int i) const {
        return along_depth ? threadIdx.x % DEPTH : threadIdx.x / TILE + i * (THREADS / TILE);
    }

    __device__ __forceinline__ double entry(int64_t i, uint64_t seed) const {
        if (dtype != SVD_SIGNS) return load_number(at, dtype, i);
        const uint4 words = random_words(seed, 0, i / 128);
        const int which = i / 32 % 4;
        const uint32_t word = which < 2 ? (which == 0 ? words.x : words.y) : (which == 2 ? words.z : words.w);
        return word >> (i % 32) & 1 ? -1 : 1;
    }

    // Entries of a tile, zeros beyond the matrix.
    __device__ __forceinline__ void load(double (&to)[LOADED], int first, int from, int end, uint64_t seed) const {
#pragma unroll
        for (int i = 0; i < LOADED; i++) {
            const int line_at = first + line(i), depth_at = from + depth(i);
            const bool inside = line_at < count && depth_at < end;
            to[i] = inside ? entry(start + line_at * stride + depth_at * depth_stride, seed) : 0;
        }
    }

    __device__ __forceinline__ void place(double* tile, const double (&from)[LOADED]) const {
#pragma unroll
        for (int i = 0; i < LOADED; i++) tile[depth(i) * STRIDE + line(i)] = from[i];
    }
};

__device__ __forceinline__ int64_t start_of(const SvdOperand& x) {
    const int64_t index = x.first + matrix_index();
    return index / x.inner * x.outer_stride + index % x.inner * x.inner_stride;
}

// The tile of C that this block makes, as rows and columns of tiles.
__device__ __forceinline__ int2 tile_of(const MultiplyParams& p) {
    const int index = blockIdx.x, across = (p.columns + TILE - 1) / TILE;
    if (!p.lower) return make_int2(index / across, index % across);
    int row = int((sqrtf(8.0f * float(index) + 1) - 1) / 2);
    while (packed(row, 0) > index) row--;
    while (packed(row + 1, 0) <= index) row++;
    return make_int2(row, index - packed(row, 0));
}

__device__ __forceinline__ void store(const MultiplyParams& p, int64_t start, int row, int column, double x) {
    if (p.scales) x *= p.scales[matrix_index() * p.columns + column];
    const int64_t at = start + (p.packed ? packed(row, column) : row * p.c.row_stride + column * p.c.column_stride);
    if (p.c.dtype == SVD_F64) {
        double& to = static_cast<double*>(p.c.at)[at];
        to = p.subtract ? to - x : x;
    } else {
        store_entry(p.c.at, p.c.dtype, at, float(p.subtract ? load_entry(p.c.at, p.c.dtype, at) - x : x));
    }
}

KERNEL(svd_multiply, MultiplyParams, 256) {
    DYN_SMEM(smem);
    if (p.verdicts && p.verdicts[matrix_index()].state != p.wanted) return;
    double *const rows = reinterpret_cast<double*>(smem), *const columns = rows + DEPTH * STRIDE;  // [DEPTH, STRIDE]
    const Side a(p.a, start_of(p.a), p.a.row_stride, p.a.column_stride, p.rows);
    const Side b(p.b, start_of(p.b), p.b.column_stride, p.b.row_stride, p.columns);
    const int2 tile = tile_of(p);
    const int row = tile.x * TILE, column = tile.y * TILE, i0 = threadIdx.x / SIDE, j0 = threadIdx.x % SIDE;
    const int begin = blockIdx.z * p.part, end = min(begin + p.part, p.depth);
    double sums[EACH][EACH] = {}, next_a[LOADED], next_b[LOADED];
    a.load(next_a, row, begin, end, p.seed);
    b.load(next_b, column, begin, end, p.seed);
    for (int from = begin; from < end; from += DEPTH) {
        __syncthreads();
        a.place(rows, next_a);
        b.place(columns, next_b);
        __syncthreads();
        a.load(next_a, row, from + DEPTH, end, p.seed);
        b.load(next_b, column, from + DEPTH, end, p.seed);
#pragma unroll 4
        for (int k = 0; k < DEPTH; k++) {
            double x[EACH], y[EACH];
#pragma unroll
            for (int i = 0; i < EACH; i++) x[i] = rows[k * STRIDE + i0 + i * SIDE], y[i] = columns[k * STRIDE + j0 + i * SIDE];
#pragma unroll
            for (int i = 0; i < EACH; i++) {
#pragma unroll
                for (int j = 0; j < EACH; j++) sums[i][j] += x[i] * y[j];
            }
        }
    }
    const int64_t start = start_of(p.c) + blockIdx.z * p.part_stride;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int to_row = row + i0 + i * SIDE, to_column = column + j0 + j * SIDE;
            if (to_row >= p.rows || to_column >= p.columns || (p.lower && to_column > to_row)) continue;
            store(p, start, to_row, to_column, sums[i][j]);
        }
    }
}
