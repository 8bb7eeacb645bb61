// Judges the projection tall = A V / s of one matrix by its moments tall' tall = R'R, and finds what makes its columns
// orthonormal: R^-1, or where they are too far from that, orthogonalization one by one.
#include "svd/matrix.cuh"

// A pivot of R'R below this share of its diagonal sends columns to be orthogonalized one by one.
constexpr double kPivot = 0.25, kLeastDiagonal = 1e-4;
// Energy that may stray off the diagonal of R, beside the energy left out.
constexpr double kStrays = 1e-4;
// A column of which less than this is left beside the others holds rounding only, and is replaced.
constexpr double kRemainder = 1e-4;
// A pass that leaves this much of a column has orthogonalized it ("twice is enough").
constexpr double kKept = 0.7;

struct Finish {
    double* moments;    // lower triangle: R'R, then R' below its diagonal, then its inverse
    double* diagonal;   // [kMaxWidth] of R'R, then of R
    double* s;          // [kMaxWidth]
    double* products;   // [kMaxWidth]
    double* reduction;  // [kWarps]
    int* from;          // [kMaxWidth] where the columns come from when s descends
    int* rows;          // [kWarps] candidates for a completion
    float* tall;        // [count, stride]
    int count, stride, rank;
};

/// Factorizes the moments into R'R, a column of R' a step; returns whether the columns were near enough to orthonormal.
__device__ __forceinline__ bool cholesky(const Finish& at) {
    const int i = threadIdx.x;
    for (int k = 0; k < at.rank; k++) {
        double left = 0;
        if (i >= k && i < at.rank) {
            left = at.moments[packed(i, k)];
            for (int l = 0; l < k; l++) left -= at.moments[packed(i, l)] * at.moments[packed(k, l)];
            if (i == k) at.products[k] = left;
        }
        __syncthreads();
        const double pivot = at.products[k], diagonal = at.diagonal[k];
        if (!(pivot > kPivot * diagonal && diagonal > kLeastDiagonal)) return false;
        if (i > k && i < at.rank) at.moments[packed(i, k)] = left / sqrt(pivot);
        __syncthreads();
    }
    if (i < at.rank) at.diagonal[i] = sqrt(at.products[i]);
    __syncthreads();
    return true;
}

/// Energy that the factor has off its diagonal.
__device__ __forceinline__ double strays(const Finish& at) {
    double sum = 0;
    for (int i = warp_index(); i < at.rank; i += kWarps) {
        for (int l = lane_index(); l < i; l += 32) {
            const double stray = at.moments[packed(i, l)] * at.s[i];
            sum += stray * stray;
        }
    }
    return block_sum(sum, at.reduction);
}

/// Inverts the lower triangular factor in place, its diagonal included, from the last column to the first.
__device__ __forceinline__ void invert(const Finish& at) {
    const int i = threadIdx.x;
    for (int k = at.rank - 1; k >= 0; k--) {
        double x = 0;
        if (i > k && i < at.rank) {
            for (int l = k + 1; l <= i; l++) x -= at.moments[packed(i, l)] * at.moments[packed(l, k)];
        }
        __syncthreads();
        if (i > k && i < at.rank) at.moments[packed(i, k)] = x / at.diagonal[k];
        if (i == k) at.moments[packed(k, k)] = 1 / at.diagonal[k];
        __syncthreads();
    }
}

/// Scales a column to length one and returns its length; a column of zeros stays.
__device__ __forceinline__ double normalize(const Finish& at, int column) {
    double squares = 0;
    for (int row = threadIdx.x; row < at.count; row += kThreads) {
        const double x = at.tall[int64_t(row) * at.stride + column];
        squares += x * x;
    }
    const double length = sqrt(block_sum(squares, at.reduction));
    if (length == 0) return 0;
    for (int row = threadIdx.x; row < at.count; row += kThreads) {
        float& x = at.tall[int64_t(row) * at.stride + column];
        x = float(x / length);
    }
    __syncthreads();
    return length;
}

/// Takes the columns before `column` out of it once; returns the sum of the squares of what they had of it.
__device__ __forceinline__ double remove_others(const Finish& at, int column) {
    for (int other = warp_index(); other < column; other += kWarps) {
        double sum = 0;
        for (int row = lane_index(); row < at.count; row += 32) {
            const float* x = at.tall + int64_t(row) * at.stride;
            sum += double(x[column]) * double(x[other]);
        }
        sum = warp_sum(sum);
        if (lane_index() == 0) at.products[other] = sum;
    }
    __syncthreads();
    for (int row = threadIdx.x; row < at.count; row += kThreads) {
        float* x = at.tall + int64_t(row) * at.stride;
        double sum = 0;
        for (int other = 0; other < column; other++) sum += double(x[other]) * at.products[other];
        x[column] = float(double(x[column]) - sum);
    }
    double removed = 0;
    for (int other = 0; other < column; other++) removed += at.products[other] * at.products[other];
    __syncthreads();
    return removed;
}

/// Makes a column a unit vector orthogonal to those before it. Returns the share of its length that it had beside them;
/// 0 when that is too little.
__device__ __forceinline__ double reduce(const Finish& at, int column) {
    if (normalize(at, column) == 0) return 0;
    double left = 1;
    while (left > kRemainder) {
        const double removed = remove_others(at, column);
        const double kept = normalize(at, column);
        // By Pythagoras, which does not see that the column was rounded to f32.
        if (kept > kKept) return left * sqrt(fmax(1 - removed, 0.0));
        left *= kept;
    }
    return 0;
}

/// The row of which the columns before `column` hold least; the first of several.
__device__ __forceinline__ int least_held(const Finish& at, int column) {
    double least = INFINITY;
    int at_row = at.count;
    for (int row = threadIdx.x; row < at.count; row += kThreads) {
        double held = 0;
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
    if (lane_index() == 0) at.reduction[warp_index()] = least, at.rows[warp_index()] = at_row;
    __syncthreads();
    for (int warp = 0; warp < kWarps; warp++) {
        const double other = at.reduction[warp];
        if (other < least || (other == least && at.rows[warp] < at_row)) least = other, at_row = at.rows[warp];
    }
    __syncthreads();
    return at_row;
}

/// Orthonormalizes the columns of tall one by one, scaling s by what is left of each; columns that hold rounding only are
/// replaced by orthonormal ones, with s = 0.
__device__ __forceinline__ void orthogonalize_columns(const Finish& at) {
    for (int column = 0; column < at.rank; column++) {
        const double left = reduce(at, column);
        if (left == 0) {
            // The coordinate vector they hold least of: of that at least a share of 1 / rows is left, far above rounding.
            const int one = least_held(at, column);
            for (int row = threadIdx.x; row < at.count; row += kThreads) {
                at.tall[int64_t(row) * at.stride + column] = row == one ? 1 : 0;
            }
            __syncthreads();
            reduce(at, column);
        }
        if (threadIdx.x == 0) at.s[column] *= sqrt(at.diagonal[column]) * left;
    }
    __syncthreads();
}

/// Finds the order in which s descends.
__device__ __forceinline__ void sort(const Finish& at) {
    const int i = threadIdx.x;
    if (i < at.rank) {
        int place = 0;
        for (int j = 0; j < at.rank; j++) place += at.s[j] > at.s[i] || (at.s[j] == at.s[i] && j < i);
        at.from[place] = i;
    }
    __syncthreads();
}

/// Writes s, the small factor, and what tall is to be multiplied by: the inverse of R, its columns in order.
__device__ __forceinline__ void write(const FactorParams& p, const Finish& at, bool triangular) {
    const int64_t index = blockIdx.x;
    for (int k = threadIdx.x; k < p.columns; k += kThreads) {
        p.s[index * p.columns + k] = k < at.rank ? float(at.s[at.from[k]]) : 0;
    }
    for (int row = warp_index(); row < p.width; row += kWarps) {
        for (int k = lane_index(); k < p.columns; k += 32) {
            float x = 0;
            if (k < at.rank) x = float(p.basis[(index * p.columns + at.from[k]) * p.width + row]);
            p.small[(index * p.width + row) * p.columns + k] = x;
        }
    }
    for (int row = warp_index(); row < at.rank; row += kWarps) {
        for (int k = lane_index(); k < at.rank; k += 32) {
            const int from = at.from[k];
            float x = row == from ? 1 : 0;
            if (triangular) x = row <= from ? float(at.moments[packed(from, row)]) : 0;
            p.mix[(index * p.columns + row) * p.columns + k] = x;
        }
    }
}

__device__ __forceinline__ double captured(const Finish& at) {
    double sum = 0;
    for (int k = 0; k < at.rank; k++) sum += at.s[k] * at.s[k];
    return sum;
}

KERNEL(svd_finish, FactorParams, 256) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    if (p.state[index] != SVD_CHOSEN) return;
    Finish at;
    at.moments = reinterpret_cast<double*>(smem);
    at.diagonal = at.moments + packed(p.columns, 0);
    at.s = at.diagonal + kMaxWidth;
    at.products = at.s + kMaxWidth;
    at.reduction = at.products + kMaxWidth;
    at.from = reinterpret_cast<int*>(at.reduction + kWarps);
    at.rows = at.from + kMaxWidth;
    at.tall = p.tall + index * p.rows * p.columns;
    at.count = p.rows;
    at.stride = p.columns;
    at.rank = p.rank[index];

    const int stride = packed(p.columns, 0), i = threadIdx.x;
    sum_chunks(at.moments, p.partials + index * p.chunks * stride, p.chunks, stride, packed(at.rank, 0));
    if (i < at.rank) at.s[i] = p.values[index * p.columns + i];
    __syncthreads();
    if (i < at.rank) at.diagonal[i] = at.moments[packed(i, i)];
    __syncthreads();

    const bool single = p.rung == SVD_SINGLE;
    const double energy = p.energy[index];
    // In f64 the eigenvalues tell what was left out; in f32 the projection does, more precisely.
    double left = energy - captured(at);
    bool accepted = true;
    const bool triangular = cholesky(at);
    if (triangular) {
        if (i < at.rank) at.s[i] *= at.diagonal[i];
        __syncthreads();
        if (single) {
            left = energy - captured(at);
            accepted = strays(at) <= kStrays * left;
            // A tolerance may have been missed after all.
            if (p.relative >= 0 && left > p.relative * p.relative * energy && at.rank < p.columns) accepted = false;
        }
        invert(at);
    } else if (single) {
        accepted = false;
    } else {
        orthogonalize_columns(at);
    }
    if (accepted) {
        sort(at);
        write(p, at, triangular);
    }
    if (i == 0) {
        p.state[index] = !accepted ? SVD_OPEN : p.rung;
        if (accepted) p.tail[index] = float(sqrt(fmax(left, 0.0) / energy));
    }
}
