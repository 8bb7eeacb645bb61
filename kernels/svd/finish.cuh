// Judges the projection tall = A V / s of one matrix by its moments tall' tall = R'R, and finds what makes its columns
// orthonormal: R^-1, or nothing at all.
#pragma once
#include "svd/spectrum.cuh"

// Energy that may stray off the diagonal of R, beside the energy left out.
constexpr double STRAYS = 1e-4;
// Columns whose moments are this near to the identity are orthonormal, in f32 and in 16 bits.
constexpr double ORTHONORMAL = 2e-6, ORTHONORMAL_16 = 5e-4;

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
    int rank;
};

// Threads see the diagonal after the next barrier.
__device__ __forceinline__ Factor load(const SvdParams& p, unsigned char* smem) {
    const int64_t index = matrix_index();
    Shared& shared = *reinterpret_cast<Shared*>(smem);
    double* moments = reinterpret_cast<double*>(smem + sizeof(Shared));
    const int i = threadIdx.x, rank = p.verdicts[index].rank, stride = packed(p.columns, 0);
    sum_chunks(moments, p.moments + index * p.chunks * stride, p.chunks, stride, packed(rank, 0));
    if (i < rank) shared.s[i] = p.tall_is_scaled ? 1 : sqrt(p.values[index * p.columns + i]);
    __syncthreads();
    if (i < rank) shared.diagonal[i] = moments[packed(i, i)];
    return {shared, moments, rank};
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
        if (!(pivot > SVD_PIVOT * diagonal && diagonal > SVD_LEAST_DIAGONAL)) return false;
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

// Finds the order in which s descends; returns whether it did already.
__device__ __forceinline__ bool sort(const Factor& at) {
    const int i = threadIdx.x;
    bool ordered = true;
    if (i < at.rank) {
        const double* s = at.shared.s;
        int place = 0;
        for (int j = 0; j < at.rank; j++) place += s[j] > s[i] || (s[j] == s[i] && j < i);
        at.shared.from[place] = i;
        ordered = place == i;
    }
    return __syncthreads_and(ordered);
}

// Writes s, the small factor, and what tall is to be multiplied by: the inverse of R, its columns in order.
__device__ __forceinline__ void write(const SvdParams& p, const Factor& at, bool triangular) {
    const int64_t index = matrix_index();
    for (int k = threadIdx.x; k < p.columns && p.s; k += THREADS) {
        p.s[index * p.columns + k] = k < at.rank ? float(at.shared.s[at.shared.from[k]]) : 0;
    }
    for (int row = warp_index(); row < p.width; row += WARPS) {
        for (int k = lane_index(); k < p.columns; k += 32) {
            double x = 0;
            if (k < at.rank) {
                const int from = at.shared.from[k];
                x = p.basis[(index * p.columns + from) * p.width + row] * (p.small_is_scaled ? at.shared.s[from] : 1);
            }
            store_entry(p.small, p.factors, (index * p.width + row) * p.columns + k, float(x));
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
    const int64_t index = matrix_index();
    double left = p.energy[index];
    for (int k = 0; k < at.rank; k++) {
        left -= p.rung == SVD_SINGLE ? at.shared.s[k] * at.shared.s[k] : p.values[index * p.columns + k];
    }
    return left;
}

// Puts the columns in order and writes everything about this matrix; returns whether tall is to be multiplied.
__device__ __forceinline__ bool accept(const SvdParams& p, const Factor& at, bool triangular) {
    const bool is_arranged = sort(at) && !triangular && p.tall == p.out_tall;
    write(p, at, triangular);
    if (threadIdx.x == 0) {
        SvdVerdict& verdict = p.verdicts[matrix_index()];
        verdict.state = solved_state(p, verdict.notes);
        verdict.tail = float(sqrt(fmax(left_out(p, at), 0.0) / p.energy[matrix_index()]));
        if (is_arranged || p.fused) verdict.notes |= SVD_ARRANGED;
    }
    return !is_arranged;
}

__device__ __forceinline__ bool is_orthonormal(const SvdParams& p, const Factor& at) {
    const double tolerated = p.factors == SVD_F32 ? ORTHONORMAL : ORTHONORMAL_16;
    bool near = true;
    for (int i = warp_index(); i < at.rank; i += WARPS) {
        for (int j = lane_index(); j <= i; j += 32) near &= fabs(at.moments[packed(i, j)] - (i == j)) <= tolerated;
    }
    return __syncthreads_and(near);
}

// Takes the matrix, or sends it on its way; returns whether it was taken and tall is to be multiplied. For whole blocks.
__device__ __forceinline__ bool judge(const SvdParams& p, unsigned char* smem) {
    const Factor at = load(p, smem);
    const int i = threadIdx.x;
    const bool doubtful = p.rung == SVD_SINGLE && !p.fast;
    bool triangular = false;
    if (!p.tall_is_scaled && !is_orthonormal(p, at)) {
        if (!cholesky(at)) {
            if (i == 0) p.verdicts[matrix_index()].state = p.rung == SVD_SINGLE ? SVD_OPEN : SVD_SKEWED;
            return false;
        }
        triangular = true;
    } else if (i < at.rank) {
        at.shared.diagonal[i] = sqrt(at.shared.diagonal[i]);
    }
    if (i < at.rank) at.shared.s[i] *= at.shared.diagonal[i];
    __syncthreads();
    const double astray = triangular ? strays(at) : 0, left = left_out(p, at);
    const bool missed = p.relative >= 0 && left > p.relative * p.relative * p.energy[matrix_index()] && at.rank < p.columns;
    if (doubtful && (missed || !(astray <= STRAYS * left))) {
        if (i == 0) p.verdicts[matrix_index()].state = SVD_OPEN;
        return false;
    }
    if (triangular) invert(at);
    return accept(p, at, triangular);
}
