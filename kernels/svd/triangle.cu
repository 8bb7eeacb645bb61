// The Cholesky factor of moments too many for one block, and columns made orthonormal by it: tiles of 32 x 32, each from
// all those to its left (Golub and Van Loan, "Matrix Computations", section 4.2).
#include "device/philox.cuh"
#include "svd/matrix.cuh"

constexpr int PANEL = SVD_PANEL;
constexpr int SIDE = 16, EACH = PANEL / SIDE;  // threads form a square
constexpr int STRIDE = PANEL + 1;               // spreads a column over the banks
// A pivot that is no more than this share of what it was is rounding, and replaced by it.
constexpr double ROUNDING = 1e-15;

struct Tile {
    double at[PANEL][STRIDE];
};

struct Shared {
    Tile x, y;            // what is multiplied
    Tile corner, result;
};

// The first columns of a matrix, of which up to PANEL rows are looked at.
struct Rows {
    const void* at;  // row 0
    uint32_t dtype;
    int stride, first, count;

    __device__ __forceinline__ double entry(int i, int j) const {
        if (first + i >= count) return 0;
        const int64_t place = int64_t(first + i) * stride + j;
        return load_number(at, dtype, place);
    }
    // Columns from `column` on, as far as `end`.
    __device__ __forceinline__ void load(Tile& to, int column, int end) const {
        const int j = lane_index();
        for (int i = warp_index(); i < PANEL; i += WARPS) to.at[i][j] = column + j < end ? entry(i, column + j) : 0;
    }
};

// result = x - (x before) (y before)', for the tiles of x and y at `column`; both have what lies before.
__device__ __forceinline__ void reduce(Shared& shared, Tile& result, const Rows& x, const Rows& y, int column, int end) {
    const int i0 = threadIdx.x / SIDE, j0 = threadIdx.x % SIDE;
    double sums[EACH][EACH] = {};
    for (int k = 0; k < column; k += PANEL) {
        __syncthreads();
        x.load(shared.x, k, column);
        y.load(shared.y, k, column);
        __syncthreads();
#pragma unroll 4
        for (int l = 0; l < PANEL; l++) {
#pragma unroll
            for (int i = 0; i < EACH; i++) {
#pragma unroll
                for (int j = 0; j < EACH; j++) sums[i][j] += shared.x.at[i0 + i * SIDE][l] * shared.y.at[j0 + j * SIDE][l];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int row = i0 + i * SIDE, to = j0 + j * SIDE;
            result.at[row][to] = (column + to < end ? x.entry(row, column + to) : 0) - sums[i][j];
        }
    }
}

// Divides the rows of a tile by the transpose of a triangular one, a row a lane. For one warp.
__device__ __forceinline__ void divide_rows(Tile& rows, const Tile& corner, int columns) {
    double* const x = rows.at[lane_index()];
    for (int j = 0; j < columns; j++) {
        double sum = x[j];
        for (int k = 0; k < j; k++) sum -= x[k] * corner.at[j][k];
        x[j] = sum / corner.at[j][j];
    }
}

// The moments of one matrix, and where its columns end.
struct Moments {
    double* at;
    int rank, columns;

    __device__ __forceinline__ explicit Moments(const TriangleParams& p)
        : at(p.moments + matrix_index() * p.columns * p.columns), rank(p.verdicts[matrix_index()].rank), columns(p.columns) {}
    __device__ __forceinline__ Rows rows(int first) const { return {at, SVD_F64, columns, first, rank}; }
};

__device__ __forceinline__ double* corner_of(const TriangleParams& p, int panel) {
    const int64_t panels = (p.columns + PANEL - 1) / PANEL;
    return p.corners + (matrix_index() * panels + panel) * PANEL * PANEL;
}

// Factorizes the tile on the diagonal, a row a lane; `pivots` and `lengths` are those of its columns where they are wanted.
__device__ __forceinline__ void factorize(const TriangleParams& p, const Moments& moments, Tile& tile, int first, bool told) {
    const int i = lane_index(), count = min(PANEL, moments.rank - first);
    for (int k = 0; k < count; k++) {
        const int64_t column = first + k;
        const double pivot = tile.at[k][k], before = moments.at[column * moments.columns + column];
        const bool holds = pivot > ROUNDING * before;
        const double length = holds ? sqrt(pivot) : (before > 0 ? sqrt(before) : 1);
        __syncwarp();
        if (i == k) tile.at[k][k] = length;
        if (told && i == k) {
            p.pivots[matrix_index() * p.columns + column] = holds && before > p.least_diagonal ? pivot / before : 0;
            p.lengths[matrix_index() * p.columns + column] = length;
        }
        const double below = i > k ? tile.at[i][k] / length : 0;
        if (i > k) tile.at[i][k] = below;
        __syncwarp();
        for (int j = k + 1; j <= i; j++) tile.at[i][j] -= below * tile.at[j][k];
        __syncwarp();
    }
}

// A tile of the panel's column in each block, the first of which is on the diagonal. Tiles on the diagonal stay as they
// are, so that every block may factorize its own copy.
KERNEL(svd_cholesky, TriangleParams, 256) {
    DYN_SMEM(smem);
    if (p.verdicts[matrix_index()].state != p.wanted) return;
    const Moments moments(p);
    const int column = p.panel * PANEL, first = column + blockIdx.x * PANEL;
    if (first >= moments.rank) return;
    Shared& shared = *reinterpret_cast<Shared*>(smem);
    const Rows above = moments.rows(column);
    reduce(shared, shared.corner, above, above, column, moments.rank);
    if (blockIdx.x > 0) reduce(shared, shared.result, moments.rows(first), above, column, moments.rank);
    __syncthreads();
    if (warp_index() == 0) {
        factorize(p, moments, shared.corner, column, blockIdx.x == 0);
        if (blockIdx.x > 0) divide_rows(shared.result, shared.corner, PANEL);
    }
    __syncthreads();
    const int j = lane_index();
    for (int i = warp_index(); i < PANEL; i += WARPS) {
        if (blockIdx.x == 0) corner_of(p, p.panel)[i * PANEL + j] = shared.corner.at[i][j];
        if (blockIdx.x > 0 && first + i < moments.rank) {
            moments.at[int64_t(first + i) * moments.columns + column + j] = shared.result.at[i][j];
        }
    }
}

// X = X L'^-1, the rows of a tile in each block. Where a column has too little of its own, all stays as it is.
KERNEL(svd_divide, TriangleParams, 256) {
    DYN_SMEM(smem);
    if (p.verdicts[matrix_index()].state != p.wanted) return;
    const Moments moments(p);
    bool holds = true;
    for (int k = threadIdx.x; k < moments.rank; k += THREADS) holds &= p.pivots[matrix_index() * p.columns + k] >= p.least;
    if (!__syncthreads_and(holds)) return;
    Shared& shared = *reinterpret_cast<Shared*>(smem);
    const int64_t start = matrix_index() * p.next;
    void* const at = p.dtype == SVD_F64 ? static_cast<void*>(static_cast<double*>(p.x) + start)
                                        : static_cast<void*>(static_cast<float*>(p.x) + start);
    const Rows x{at, p.dtype, p.stride, int(blockIdx.x) * PANEL, p.rows};
    const int j = lane_index();
    for (int column = 0; column < moments.rank; column += PANEL) {
        reduce(shared, shared.result, x, moments.rows(column), column, moments.rank);
        for (int i = warp_index(); i < PANEL; i += WARPS) {
            shared.corner.at[i][j] = corner_of(p, column / PANEL)[i * PANEL + j];
        }
        __syncthreads();
        if (warp_index() == 0) divide_rows(shared.result, shared.corner, min(PANEL, moments.rank - column));
        __syncthreads();
        for (int i = warp_index(); i < PANEL; i += WARPS) {
            if (x.first + i >= p.rows || column + j >= moments.rank) continue;
            const int64_t place = int64_t(x.first + i) * p.stride + column + j;
            if (p.dtype == SVD_F64) {
                static_cast<double*>(at)[place] = shared.result.at[i][j];
            } else {
                static_cast<float*>(at)[place] = float(shared.result.at[i][j]);
            }
        }
    }
}

// Replaces columns of which noise is all that was left by unit vectors of random signs, of which the others have little.
KERNEL(svd_refill, TriangleParams, 256) {
    if (p.verdicts[matrix_index()].state != p.wanted) return;
    const int column = blockIdx.x;
    if (p.pivots[matrix_index() * p.columns + column] > p.noise) return;
    const double length = 1 / sqrt(double(p.rows));
    double* const x = static_cast<double*>(p.x) + matrix_index() * p.next + column;
    for (int row = threadIdx.x; row < p.rows; row += THREADS) {
        const uint32_t word = random_words(p.seed, p.stream + column, row).x;
        x[int64_t(row) * p.stride] = word & 1 ? -length : length;
    }
}
