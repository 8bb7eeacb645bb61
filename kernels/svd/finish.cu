// Judges the projection tall = A V / s of one matrix by its moments tall' tall = R'R, and finds what makes its columns
// orthonormal: R^-1, or where they are too far from that, orthogonalization one by one.
#include "svd/spectrum.cuh"

// A pivot of R'R below this share of its diagonal sends columns to be orthogonalized one by one.
constexpr double PIVOT = 0.25, LEAST_DIAGONAL = 1e-4;
// Energy that may stray off the diagonal of R, beside the energy left out.
constexpr double STRAYS = 1e-4;
// A column of which less than this is left beside the others holds rounding only, and is replaced.
constexpr double REMAINDER = 1e-4;
// A pass that leaves this much of a column has orthogonalized it ("twice is enough").
constexpr double KEPT = 0.7;

// What lies at the start of shared memory; the moments follow.
struct Shared {
    double diagonal[MAX_WIDTH];  // of R'R, then of R
    double s[MAX_WIDTH];
    double products[MAX_WIDTH];
    double reduction[WARPS];
    int from[MAX_WIDTH];  // where the columns come from when s descends
    int rows[WARPS];       // candidates for a completion
};

struct Factor {
    Shared& shared;
    double* moments;  // lower triangle: R'R, then R' below its diagonal, then its inverse
    float* tall;      // [count, stride]
    int count, stride, rank;
};

// Threads see the diagonal after the next barrier.
__device__ __forceinline__ Factor load(const SvdParams& p, unsigned char* smem) {
    const int64_t index = blockIdx.x;
    Shared& shared = *reinterpret_cast<Shared*>(smem);
    double* moments = reinterpret_cast<double*>(smem + sizeof(Shared));
    const int i = threadIdx.x, rank = p.verdicts[index].rank, stride = packed(p.columns, 0);
    sum_chunks(moments, p.partials + index * p.chunks * stride, p.chunks, stride, packed(rank, 0));
    if (i < rank) shared.s[i] = sqrt(p.values[index * p.columns + i]);
    __syncthreads();
    if (i < rank) shared.diagonal[i] = moments[packed(i, i)];
    return {shared, moments, p.tall + index * p.rows * p.columns, p.rows, p.columns, rank};
}

// Factorizes the moments into R'R, a column of R' a step; returns whether the columns were near enough to orthonormal.
__device__ __forceinline__ bool cholesky(const Factor& at) {
    const int i = threadIdx.x;
    for (int k = 0; k < at.rank; k++) {
        double left = 0;
        if (i >= k && i < at.rank) {
            left = at.moments[packed(i, k)];
            for (int l = 0; l < k; l++) left -= at.moments[packed(i, l)] * at.moments[packed(k, l)];
            if (i == k) at.shared.products[k] = left;
        }
        __syncthreads();
        const double pivot = at.shared.products[k], diagonal = at.shared.diagonal[k];
        if (!(pivot > PIVOT * diagonal && diagonal > LEAST_DIAGONAL)) return false;
        if (i > k && i < at.rank) at.moments[packed(i, k)] = left / sqrt(pivot);
        __syncthreads();
    }
    if (i < at.rank) at.shared.diagonal[i] = sqrt(at.shared.products[i]);
    return true;
}

// Energy that the factor has off its diagonal.
__device__ __forceinline__ double strays(const Factor& at) {
    double sum = 0;
    for (int i = warp_index(); i < at.rank; i += WARPS) {
        for (int l = lane_index(); l < i; l += 32) {
            const double stray = at.moments[packed(i, l)] * at.shared.s[i];
            sum += stray * stray;
        }
    }
    return block_sum(sum, at.shared.reduction);
}

// Inverts the lower triangular factor in place, its diagonal included, from the last column to the first. Each thread
// has a row, and of the others' rows reads only what is not inverted yet.
__device__ __forceinline__ void invert(const Factor& at) {
    const int i = threadIdx.x;
    for (int k = at.rank - 1; k >= 0; k--) {
        double x = 0;
        if (i > k && i < at.rank) {
#pragma unroll 2  // as are others below: unrolled further, they spill
            for (int l = k + 1; l <= i; l++) x -= at.moments[packed(i, l)] * at.moments[packed(l, k)];
        }
        __syncthreads();
        if (i > k && i < at.rank) at.moments[packed(i, k)] = x / at.shared.diagonal[k];
        if (i == k) at.moments[packed(k, k)] = 1 / at.shared.diagonal[k];
    }
}

// Finds the order in which s descends.
__device__ __forceinline__ void sort(const Factor& at) {
    const int i = threadIdx.x;
    if (i < at.rank) {
        const double* s = at.shared.s;
        int place = 0;
        for (int j = 0; j < at.rank; j++) place += s[j] > s[i] || (s[j] == s[i] && j < i);
        at.shared.from[place] = i;
    }
    __syncthreads();
}

// Writes s, the small factor, and what tall is to be multiplied by: the inverse of R, its columns in order.
__device__ __forceinline__ void write(const SvdParams& p, const Factor& at, bool triangular) {
    const int64_t index = blockIdx.x;
    for (int k = threadIdx.x; k < p.columns; k += THREADS) {
        p.s[index * p.columns + k] = k < at.rank ? float(at.shared.s[at.shared.from[k]]) : 0;
    }
    for (int row = warp_index(); row < p.width; row += WARPS) {
        for (int k = lane_index(); k < p.columns; k += 32) {
            float x = 0;
            if (k < at.rank) x = float(p.basis[(index * p.columns + at.shared.from[k]) * p.width + row]);
            p.small[(index * p.width + row) * p.columns + k] = x;
        }
    }
    for (int row = warp_index(); row < at.rank; row += WARPS) {
        for (int k = lane_index(); k < at.rank; k += 32) {
            const int from = at.shared.from[k];
            float x = row == from ? 1 : 0;
            if (triangular) x = row <= from ? float(at.moments[packed(from, row)]) : 0;
            p.mix[(index * p.columns + row) * p.columns + k] = x;
        }
    }
}

// Energy that the columns leave out. In f64 the eigenvalues tell that best; in f32 the projection does.
__device__ __forceinline__ double left_out(const SvdParams& p, const Factor& at) {
    const int64_t index = blockIdx.x;
    double left = p.energy[index];
    for (int k = 0; k < at.rank; k++) {
        left -= p.rung == SVD_SINGLE ? at.shared.s[k] * at.shared.s[k] : p.values[index * p.columns + k];
    }
    return left;
}

// Puts the columns in order and writes everything about this matrix.
__device__ __forceinline__ void accept(const SvdParams& p, const Factor& at, bool triangular) {
    sort(at);
    write(p, at, triangular);
    if (threadIdx.x != 0) return;
    const int64_t index = blockIdx.x;
    p.verdicts[index].state = p.rung == SVD_SINGLE ? SVD_SINGLE : p.verdicts[index].rotated ? SVD_JACOBI : SVD_DOUBLE;
    p.verdicts[index].tail = float(sqrt(fmax(left_out(p, at), 0.0) / p.energy[index]));
}

KERNEL(svd_finish, SvdParams, 256) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    if (p.verdicts[index].state != SVD_CHOSEN) return;
    const Factor at = load(p, smem);
    if (!cholesky(at)) {
        if (threadIdx.x == 0) p.verdicts[index].state = p.rung == SVD_SINGLE && !p.fast ? SVD_OPEN : SVD_SKEWED;
        return;
    }
    const int i = threadIdx.x;
    if (i < at.rank) at.shared.s[i] *= at.shared.diagonal[i];
    __syncthreads();
    if (p.rung == SVD_SINGLE && !p.fast) {
        const double astray = strays(at), left = left_out(p, at);
        const bool missed = p.relative >= 0 && left > p.relative * p.relative * p.energy[index] && at.rank < p.columns;
        if (missed || !(astray <= STRAYS * left)) {
            if (threadIdx.x == 0) p.verdicts[index].state = SVD_OPEN;
            return;
        }
    }
    invert(at);
    accept(p, at, true);
}

// Scales a column to length one and returns the length it had; a column of zeros stays.
__device__ __forceinline__ double normalize(const Factor& at, int column) {
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
__device__ __forceinline__ double remove_others(const Factor& at, int column) {
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
__device__ __forceinline__ double reduce(const Factor& at, int column) {
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
__device__ __forceinline__ int least_held(const Factor& at, int column) {
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
__device__ __forceinline__ void replace(const Factor& at, int column) {
    const int one = least_held(at, column);
    for (int row = threadIdx.x; row < at.count; row += THREADS) {
        at.tall[int64_t(row) * at.stride + column] = row == one ? 1 : 0;
    }
}

// Orthonormalizes the columns of tall one by one, scaling s by what is left of each; columns that hold rounding only
// are replaced by orthonormal ones, with s = 0.
KERNEL(svd_orthogonalize, SvdParams, 256) {
    DYN_SMEM(smem);
    const uint32_t state = p.verdicts[blockIdx.x].state;
    if (state == SVD_OPEN || state == SVD_STUCK) conclude(p, blockIdx.x, SVD_STUCK, 0);
    if (state != SVD_SKEWED) return;
    const Factor at = load(p, smem);
    for (int column = 0; column < at.rank; column++) {
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
    accept(p, at, false);
}
