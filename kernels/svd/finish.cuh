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
    double columns[2][MAX_WIDTH];  // of the moments: the one that is eliminated, and the one after it
    double reduction[WARPS];
    int from[MAX_WIDTH];  // where the columns come from when s descends
    int rows[WARPS];       // candidates for a completion
};

struct Factor {
    Shared& shared;
    double* moments;  // lower triangle: R'R, then the inverse of R'
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

// Eliminates the columns of the moments one after another, and does to the identity what is done to them (Gauss and
// Jordan), which leaves the inverse of R' in their place and squares of its diagonal in products; returns whether the
// columns of tall were near enough to orthonormal.
__device__ __forceinline__ bool invert(const Factor& at) {
    Shared& shared = at.shared;
    for (int i = threadIdx.x; i < at.rank; i += THREADS) shared.columns[0][i] = at.moments[packed(i, 0)];
    __syncthreads();
    for (int k = 0; k < at.rank; k++) {
        const double* const column = shared.columns[k % 2];
        const double pivot = column[k], diagonal = shared.diagonal[k];
        if (!(pivot > SVD_PIVOT * diagonal && diagonal > SVD_LEAST_DIAGONAL)) return false;
        const double inverse = 1 / pivot;
        if (threadIdx.x == 0) shared.products[k] = pivot;
        for (int i = k + 1 + warp_index(); i < at.rank; i += WARPS) {
            const double share = column[i] * inverse;
            for (int j = lane_index(); j <= i; j += 32) {
                // Before column k there is the inverse, after it what is left of the moments.
                const double other = j < k ? at.moments[packed(k, j)] : column[j];
                const double x = (j == k ? 0 : at.moments[packed(i, j)]) - share * (j == k ? 1 : other);
                at.moments[packed(i, j)] = x;
                if (j == k + 1) shared.columns[j % 2][i] = x;
            }
        }
        __syncthreads();
    }
    for (int i = warp_index(); i < at.rank; i += WARPS) {
        const double inverse = 1 / sqrt(shared.products[i]);
        for (int j = lane_index(); j <= i; j += 32) at.moments[packed(i, j)] = (j == i ? 1 : at.moments[packed(i, j)]) * inverse;
    }
    return true;
}

// Energy that R has off its diagonal: by Pythagoras, what pivots lost of the diagonal of R'R. Each warp finds it for itself.
__device__ __forceinline__ double strays(const Factor& at) {
    const Shared& shared = at.shared;
    double sum = 0;
    for (int i = lane_index(); i < at.rank; i += 32) {
        sum += (shared.diagonal[i] - shared.products[i]) * shared.products[i] * shared.s[i] * shared.s[i];
    }
    return warp_sum(sum);
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
    constexpr int TOGETHER = 8;  // rows, all of them read before one is written
    for (int k = lane_index(); k < p.columns; k += 32) {
        const int from = k < at.rank ? at.shared.from[k] : 0;
        const double scale = k < at.rank ? (p.small_is_scaled ? at.shared.s[from] : 1) : 0;
        const double* const basis = p.basis + (index * p.columns + from) * p.width;
        for (int first = warp_index() * TOGETHER; first < p.width; first += WARPS * TOGETHER) {
            double x[TOGETHER];
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) x[i] = basis[min(first + i, p.width - 1)];
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) {
                const int64_t to = (index * p.width + first + i) * p.columns + k;
                if (first + i < p.width) store_entry(p.small, p.factors, to, float(x[i] * scale));
            }
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

// Energy that the columns leave out. In f64 the eigenvalues tell that best; in f32 the projection does. Each warp finds it
// for itself.
__device__ __forceinline__ double left_out(const SvdParams& p, const Factor& at) {
    const int64_t index = matrix_index();
    double taken = 0;
    for (int k = lane_index(); k < at.rank; k += 32) {
        taken += p.rung == SVD_SINGLE ? at.shared.s[k] * at.shared.s[k] : p.values[index * p.columns + k];
    }
    return p.energy[index] - warp_sum(taken);
}

// Puts the columns in order and writes everything about this matrix; returns whether tall is to be multiplied.
__device__ __forceinline__ bool accept(const SvdParams& p, const Factor& at, bool triangular, double left) {
    const bool is_arranged = sort(at) && !triangular && p.tall == p.out_tall;
    write(p, at, triangular);
    if (threadIdx.x == 0) {
        SvdVerdict& verdict = p.verdicts[matrix_index()];
        verdict.state = solved_state(p, verdict.notes);
        verdict.tail = float(sqrt(fmax(left, 0.0) / p.energy[matrix_index()]));
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
    const bool triangular = !p.tall_is_scaled && !is_orthonormal(p, at);
    double astray = 0;
    if (triangular) {
        if (!invert(at)) {
            if (i == 0) p.verdicts[matrix_index()].state = p.rung == SVD_SINGLE ? SVD_OPEN : SVD_SKEWED;
            return false;
        }
        astray = strays(at);
        __syncthreads();
    }
    if (i < at.rank) {
        at.shared.diagonal[i] = sqrt(triangular ? at.shared.products[i] : at.shared.diagonal[i]);
        at.shared.s[i] *= at.shared.diagonal[i];
    }
    __syncthreads();
    const double left = left_out(p, at);
    const bool missed = p.relative >= 0 && left > p.relative * p.relative * p.energy[matrix_index()] && at.rank < p.columns;
    if (doubtful && (missed || !(astray <= STRAYS * left))) {
        if (i == 0) p.verdicts[matrix_index()].state = SVD_OPEN;
        return false;
    }
    return accept(p, at, triangular, left);
}
