// Matrices that were projected: judged by their moments, or their columns orthogonalized one by one.
#include "svd/finish.cuh"

// A column of which less than this is left beside the others holds rounding only, and is replaced.
constexpr double REMAINDER = 1e-4;
// A pass that leaves this much of a column has orthogonalized it ("twice is enough").
constexpr double KEPT = 0.7;

// A factor whose columns are made orthonormal in place.
struct Columns {
    Shared& shared;
    float* tall;  // [count, stride]
    int count, stride;
};

KERNEL(svd_finish, SvdParams, 256) {
    DYN_SMEM(smem);
    if (p.verdicts[matrix_index()].state == SVD_CHOSEN) judge(p, smem);
}

// Scales a column to length one and returns the length it had; a column of zeros stays.
__device__ __forceinline__ double normalize(const Columns& at, int column) {
    double squares = 0;
    for (int row = threadIdx.x; row < at.count; row += THREADS) {
        const double x = at.tall[int64_t(row) * at.stride + column];
        squares += x * x;
    }
    const double length = sqrt(block_sum(squares, at.shared.reduction));
    const double scale = length == 0 ? 0 : 1 / length;
    for (int row = threadIdx.x; row < at.count; row += THREADS) {
        float& x = at.tall[int64_t(row) * at.stride + column];
        x = float(x * scale);
    }
    __syncthreads();
    return length;
}

// Takes the columns before `column` out of it once; returns the sum of the squares of what they had of it.
__device__ __forceinline__ double remove_others(const Columns& at, int column) {
    for (int other = warp_index(); other < column; other += WARPS) {
        double sum = 0;
        for (int row = lane_index(); row < at.count; row += 32) {
            const float* x = at.tall + int64_t(row) * at.stride;
            sum += double(x[column]) * double(x[other]);
        }
        sum = warp_sum(sum);
        if (lane_index() == 0) at.shared.products[other] = sum;
    }
    __syncthreads();
    for (int row = threadIdx.x; row < at.count; row += THREADS) {
        float* x = at.tall + int64_t(row) * at.stride;
        double sum = 0;
#pragma unroll 1
        for (int other = 0; other < column; other++) sum += double(x[other]) * at.shared.products[other];
        x[column] = float(double(x[column]) - sum);
    }
    double removed = 0;
#pragma unroll 1
    for (int other = 0; other < column; other++) removed += at.shared.products[other] * at.shared.products[other];
    return removed;
}

// Makes a column a unit vector orthogonal to those before it. Returns the share of its length that it had beside them;
// 0 when that is too little.
__device__ __forceinline__ double reduce(const Columns& at, int column) {
    double left = 1, removed = 0;
    for (int pass = 0; left > REMAINDER; pass++) {
        if (pass > 0) removed = remove_others(at, column);
        const double kept = normalize(at, column);
        if (kept == 0) return 0;
        // By Pythagoras, which does not see that the column was rounded to f32.
        if (pass > 0 && kept > KEPT) return left * sqrt(fmax(1 - removed, 0.0));
        if (pass > 0) left *= kept;
    }
    return 0;
}

// The row of which the columns before `column` hold least; the first of several.
__device__ __forceinline__ int least_held(const Columns& at, int column) {
    double least = INFINITY;
    int at_row = at.count;
    for (int row = threadIdx.x; row < at.count; row += THREADS) {
        double held = 0;
#pragma unroll 1
        for (int other = 0; other < column; other++) {
            const double x = at.tall[int64_t(row) * at.stride + other];
            held += x * x;
        }
        if (held < least) least = held, at_row = row;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, least, distance);
        const int other_row = __shfl_xor_sync(0xffffffffu, at_row, distance);
        if (other < least || (other == least && other_row < at_row)) least = other, at_row = other_row;
    }
    if (lane_index() == 0) at.shared.reduction[warp_index()] = least, at.shared.rows[warp_index()] = at_row;
    __syncthreads();
    for (int warp = 0; warp < WARPS; warp++) {
        const double other = at.shared.reduction[warp];
        const int other_row = at.shared.rows[warp];
        if (other < least || (other == least && other_row < at_row)) least = other, at_row = other_row;
    }
    __syncthreads();
    return at_row;
}

// Replaces a column by the coordinate vector that those before it hold least of: of that at least a share of 1 / rows
// is left beside them, far above rounding.
__device__ __forceinline__ void replace(const Columns& at, int column) {
    const int one = least_held(at, column);
    for (int row = threadIdx.x; row < at.count; row += THREADS) {
        at.tall[int64_t(row) * at.stride + column] = row == one ? 1 : 0;
    }
}

// Orthonormalizes the columns of tall one by one, scaling s by what is left of each; columns that hold rounding only
// are replaced by orthonormal ones, with s = 0.
KERNEL(svd_orthogonalize, SvdParams, 256) {
    DYN_SMEM(smem);
    const uint32_t state = p.verdicts[matrix_index()].state;
    if (state == SVD_OPEN || state == SVD_STUCK) conclude(p, matrix_index(), SVD_STUCK, 0);
    if (state != SVD_SKEWED) return;
    const Factor factor = load(p, smem);
    const Columns at{factor.shared, static_cast<float*>(p.tall) + matrix_index() * p.rows * p.columns, p.rows,
                     p.columns};
    for (int column = 0; column < factor.rank; column++) {
        double share = 1;
#pragma unroll 1
        for (int attempt = 0; attempt < 2; attempt++) {
            const double left = reduce(at, column);
            share *= left;
            if (left > 0) break;
            replace(at, column);
        }
        if (threadIdx.x == 0) at.shared.s[column] *= sqrt(at.shared.diagonal[column]) * share;
    }
    __syncthreads();
    accept(p, factor, false, left_out(p, factor));
}
