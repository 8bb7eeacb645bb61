// Eigenvalues and vectors of A'A, one thread block a matrix: Householder tridiagonalization, multisection, inverse
// iteration. What that does not solve to rounding goes to the next rung, or is left to rotations.
#pragma once
#include "svd/eigen.cuh"
#include "svd/spectrum.cuh"

// Lanes that a vector belongs to in the back-transformation, and entries that each of them has.
constexpr int LANES = 8, EACH = MAX_WIDTH / LANES;

// Working memory: shared where it fits.
template <class Real> struct Memory {
    Real *tridiagonal, *values, *reflections;
    Eigen<Real> eigen;
    bool shares_region;  // where factors are, reflections come later

    __device__ __forceinline__ Memory(const SvdParams& p, int64_t index, unsigned char* smem) {
        const int n = p.width, size = packed(n, 0);
        tridiagonal = reinterpret_cast<Real*>(smem);
        values = tridiagonal + TRIDIAGONAL_VECTORS * MAX_WIDTH;
        eigen.n = n, eigen.stride = n | 1, eigen.values = values;
        const bool all = p.solve_shared & SVD_SHARED_ALL;
        Real *shared = values + p.columns, *global = reinterpret_cast<Real*>(p.work + index * p.work_stride);
        shares_region = !all;
        reflections = all ? shared : global;
        if (all) shared += size;
        eigen.factors = shared;
        shared += all ? 64 * n : max(64 * n, size);
        eigen.swaps = reinterpret_cast<unsigned char*>(shared);
        shared += 32 * n / sizeof(Real);
        eigen.vectors = all ? shared : global + size;
    }
};

template <class Real>
__device__ __forceinline__ void turn_all_back(const SvdParams& p, int64_t index, const Memory<Real>& memory,
                                              const Real* inverse_heights, int rank) {
    const int n = p.width;
    const Real* reflections = memory.reflections;
    if (memory.shares_region) {
        for (int i = threadIdx.x; i < packed(n, 0); i += THREADS) memory.eigen.factors[i] = reflections[i];
        reflections = memory.eigen.factors;
        __syncthreads();
    }
    constexpr int COLUMNS = THREADS / LANES;
    for (int first = 0; first < rank; first += COLUMNS) {
        const int wanted = first + threadIdx.x / LANES, k = min(wanted, rank - 1);
        const Real* from = memory.eigen.vectors + int64_t(k) * memory.eigen.stride;
        double* to = p.basis + (index * p.columns + k) * n;
        turn_back<LANES, EACH>(from, reflections, inverse_heights, n, to, !p.wide, wanted < rank);
    }
}

template <class Real> __device__ __forceinline__ void solve(const SvdParams& p) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    if (!p.fresh && p.verdicts[index].state != SVD_OPEN) return;
    const int n = p.width;
    Memory<Real> memory(p, index, smem);
    const Partials partials(p, index);
    double trace = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) trace += partials.entry(i, i);
    const double energy = block_sum(trace, reinterpret_cast<double*>(smem));
    if (threadIdx.x == 0) p.energy[index] = energy, p.arrivals[index] = 0;
    if (p.rung == SVD_SINGLE && !(energy >= LEAST_SINGLE_ENERGY && energy <= MOST_SINGLE_ENERGY)) {
        return conclude(p, index, SVD_OPEN, 0);
    }
    if (!(energy <= MOST_ENERGY)) return conclude(p, index, SVD_NON_FINITE, 0);
    if (energy == 0) return conclude(p, index, SVD_ZERO, p.relative < 0 ? p.columns : 0);
    if (p.rung == SVD_JACOBI) return conclude(p, index, SVD_STUCK, 0);
    const double share = 1 / energy;
    const Tridiagonal<Real> reduced(n, memory.tridiagonal, memory.reflections);
    RegisterMatrix<Real> matrix;
    // Apart, so that all loads go out at once where there is one partial sum.
    if (partials.chunks == 1) {
        matrix.load(reduced, share, [&](int i, int j) { return partials.only(i, j); });
    } else {
        matrix.load(reduced, share, [&](int i, int j) { return partials.entry(i, j); });
    }
    reduce(matrix, reduced);
    memory.eigen.diagonal = reduced.w, memory.eigen.off = reduced.q, memory.eigen.squares = reduced.row;
    const double scale = scale_down(reduced, memory.eigen);
    find_values(memory.eigen, p.columns);
    __syncthreads();
    const int rank = choose_rank(p, memory.values, scale);
    if (rank == 0) return conclude(p, index, SVD_OPEN, 0);
    if (p.values_only) return accept_values(p, index, memory.values, scale, rank, 0);
    if (!find_vectors(memory.eigen, rank)) return conclude(p, index, p.rung == SVD_SINGLE ? SVD_OPEN : SVD_STUCK, 0);
    turn_all_back(p, index, memory, reduced.inverse_heights, rank);
    write_values(p, index, memory.values, scale, rank);
    conclude(p, index, SVD_CHOSEN, rank);
}
