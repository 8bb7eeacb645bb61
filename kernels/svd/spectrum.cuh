// What is made of the eigenvalues and vectors of A'A, whoever found them: the rank to keep, and what later steps read.
#pragma once
#include "svd/matrix.cuh"

// What an f32 triangle is trusted with: s_1 / s_rank, for factors and for s alone, and the
// share of the energy left out.
constexpr double SINGLE_CONDITION = 100, SINGLE_CONDITION_OF_VALUES = 10;
constexpr double SINGLE_TAIL = 1e-4;
constexpr double LEAST_SINGLE_ENERGY = 1e-12, MOST_SINGLE_ENERGY = 1e24;
// More than any finite f32 entries have.
constexpr double MOST_ENERGY = 1e300;
// Error of the energies that a rank is chosen by, relative to the tolerated energy.
constexpr double SINGLE_MARGIN = 2e-3, DOUBLE_MARGIN = 1e-6;
// Rounding of U, s and V to f32, relative to ||A||: kept free below a tolerance.
constexpr double OUTPUT_ROUNDING = 2e-7;

// The triangle of A'A of one matrix, in partial sums.
struct Partials {
    const double* at;
    int chunks, size;

    __device__ __forceinline__ Partials(const SvdParams& p, int64_t index)
        : at(p.partials + index * p.partial_sums * packed(p.width, 0)), chunks(p.partial_sums), size(packed(p.width, 0)) {}

    // Where there is only one.
    __device__ __forceinline__ double only(int i, int j) const { return at[packed(i, j)]; }
    // In the order of the chunks.
    __device__ __forceinline__ double entry(int i, int j) const {
        double sum = 0;
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; chunk++) sum += at[int64_t(chunk) * size + packed(i, j)];
        return sum;
    }
};

// The rank to keep, given eigenvalues in descending order and the share of the energy that one stands for; 0 when an
// f32 triangle does not resolve those and what they leave out.
template <class Real> __device__ __forceinline__ int choose_rank(const SvdParams& p, const Real* values, double share) {
    const bool single = p.rung == SVD_SINGLE;
    const double margin = single ? SINGLE_MARGIN : DOUBLE_MARGIN;
    const double tolerated = p.relative * p.relative * (1 - margin) - OUTPUT_ROUNDING * OUTPUT_ROUNDING;
    int rank = 0;
    double left = 1;
    do left -= values[rank++] * share;
    while (rank < p.columns && (p.relative < 0 || left > tolerated));
    const double condition = p.values_only ? SINGLE_CONDITION_OF_VALUES : SINGLE_CONDITION;
    const bool resolved = values[rank - 1] * condition * condition >= double(values[0]) && left >= SINGLE_TAIL;
    return single && !p.fast && !resolved ? 0 : rank;
}

// Writes eigenvalues. The floor is where f64 sums of squares end: a smaller value would only blow up rounding.
template <class Real>
__device__ __forceinline__ void write_values(const SvdParams& p, int64_t index, const Real* values, double share, int rank) {
    for (int i = threadIdx.x; i < rank; i += THREADS) {
        p.values[index * p.columns + i] = fmax(double(values[i]), 1e-16 * double(values[0])) * share * p.energy[index];
    }
}

__device__ __forceinline__ uint32_t solved_state(const SvdParams& p, uint32_t notes) {
    return p.rung == SVD_SINGLE ? SVD_SINGLE : notes & SVD_ROTATED ? SVD_JACOBI : SVD_DOUBLE;
}

__device__ __forceinline__ void conclude(const SvdParams& p, int64_t index, uint32_t state, int rank,
                                         uint32_t notes = 0) {
    if (threadIdx.x != 0) return;
    p.verdicts[index] = {state, rank, state == SVD_ZERO ? 0.0f : NAN, notes};
}

// Ends a matrix of which only s is wanted.
template <class Real>
__device__ __forceinline__ void accept_values(const SvdParams& p, int64_t index, const Real* values, double share, int rank,
                                              uint32_t notes) {
    const double energy = p.energy[index];
    double left = 1;
    for (int i = 0; i < rank; i++) left -= values[i] * share;
    for (int i = threadIdx.x; i < p.columns; i += THREADS) {
        p.s[index * p.columns + i] = i < rank ? float(sqrt(fmax(values[i] * share, 0.0) * energy)) : 0;
    }
    if (threadIdx.x == 0) p.verdicts[index] = {solved_state(p, notes), rank, float(sqrt(fmax(left, 0.0))), notes};
}
