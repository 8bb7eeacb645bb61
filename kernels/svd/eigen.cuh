// The largest eigenvalues of a tridiagonal matrix and their vectors: multisection on Sturm sequences, inverse iteration
// with all vectors orthogonalized against each other, back-transformation (Golub and Van Loan, section 8.4).
#pragma once
#include "device/philox.cuh"
#include "svd/tridiagonal.cuh"

constexpr int MOST_STEPS = 3;
// A pass that leaves less than this of a squared length is done again; what is left may be taken to be more than it is,
// and then the next pass takes the rest.
constexpr float KEPT_SQUARES = 0.25f, LEAST_SQUARES_KEPT = 1e-3f;
constexpr int MOST_PASSES = 4;

// For matrices scaled to eigenvalues of at most a half.
template <class Real> struct Limits;
template <> struct Limits<float> {
    static constexpr float RESOLUTION = 0x1p-26f, SMALLEST_PIVOT = 0x1p-24f, RESIDUAL = 2e-6f;
    // Squared entries off the diagonal are kept above the floor, so that a sequence that is lifted whenever two steps
    // took it below LOW never vanishes.
    static constexpr float FLOOR = 0x1p-60f, LOW = 0x1p-40f, LIFT = 0x1p60f;
};
template <> struct Limits<double> {
    static constexpr double RESOLUTION = 0x1p-55, SMALLEST_PIVOT = 0x1p-53, RESIDUAL = 5e-12;
    static constexpr double FLOOR = 0x1p-120, LOW = 0x1p-300, LIFT = 0x1p400;
};

// A scaled tridiagonal matrix, and eigenvectors in rows.
template <class Real> struct Eigen {
    int n, stride;
    Real *diagonal, *off, *squares, *values, *vectors;
    Real* factors;  // [2, n, 32]
    unsigned char* swaps;  // [n, 32]
};

// Scales the matrix into `to`; returns the scale, the same in every thread. Each warp finds it for itself.
template <class Real> __device__ __forceinline__ Real scale_down(const Tridiagonal<Real>& at, const Eigen<Real>& to) {
    Real bound = 0;
    for (int j = lane_index(); j < at.n; j += 32) {
        const Real before = j > 0 ? fabs(at.off[j - 1]) : Real(0), after = j + 1 < at.n ? fabs(at.off[j]) : Real(0);
        bound = fmax(bound, fabs(at.diagonal[j]) + before + after);
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) bound = fmax(bound, __shfl_xor_sync(0xffffffffu, bound, distance));
    const Real scale = 2 * bound;
    for (int j = threadIdx.x; j < at.n; j += THREADS) {
        const Real off = j + 1 < at.n ? at.off[j] / scale : Real(0);
        to.diagonal[j] = at.diagonal[j] / scale;
        to.off[j] = off;
        to.squares[j] = fmax(off * off, Limits<Real>::FLOOR);
    }
    __syncthreads();
    return scale;
}

// How many eigenvalues lie below x.
template <class Real> __device__ __forceinline__ int count_below(const Eigen<Real>& at, Real x) {
    Real before = 1, here = at.diagonal[0] - x;
    int below = here < 0;
#pragma unroll 2
    for (int k = 1; k < at.n; k++) {
        const Real next = (at.diagonal[k] - x) * here - at.squares[k - 1] * before;
        below += (next < 0) != (here < 0);
        before = here;
        here = next;
        if (k % 2 == 0 && fmax(fabs(here), fabs(before)) < Limits<Real>::LOW) {
            here *= Limits<Real>::LIFT;
            before *= Limits<Real>::LIFT;
        }
    }
    return below;
}

// The `count` largest eigenvalues: several neighbouring lanes narrow each one down. No barrier.
template <class Real> __device__ __forceinline__ void find_values(const Eigen<Real>& at, int count) {
    int lanes = 32;
    while (lanes > 1 && lanes * count > THREADS) lanes /= 2;
    const int lane = threadIdx.x % lanes;
    const uint32_t group = (lanes == 32 ? 0xffffffffu : (1u << lanes) - 1) << (lane_index() - lane);
    for (int first = 0; first < count; first += THREADS / lanes) {
        const int index = first + threadIdx.x / lanes;
        Real low = -0x1p-8f, width = 0.5f - low;
        while (width > Limits<Real>::RESOLUTION) {
            width /= lanes + 1;
            const bool above = at.n - count_below(at, low + (lane + 1) * width) > index;
            low += width * __popc(__ballot_sync(0xffffffffu, above) & group);
        }
        if (lane == 0 && index < count) at.values[index] = low + width / 2;
    }
}

// Numbers in (-1/2, 1/2), others for each vector: equal eigenvalues must not start alike.
template <class Real> __device__ __forceinline__ void start_vectors(const Eigen<Real>& at, int count) {
    const int blocks = (at.n + 3) / 4;
    for (int i = threadIdx.x; i < count * blocks; i += THREADS) {
        const int vector = i / blocks, k = i % blocks * 4;
        const uint4 words = random_words(0, vector, i % blocks);
        Real* to = at.vectors + int64_t(vector) * at.stride + k;
        to[0] = random_unit(words.x) - 0.5f;
        if (k + 1 < at.n) to[1] = random_unit(words.y) - 0.5f;
        if (k + 2 < at.n) to[2] = random_unit(words.z) - 0.5f;
        if (k + 3 < at.n) to[3] = random_unit(words.w) - 0.5f;
    }
}

template <class Real> __device__ __forceinline__ Real pivot_of(Real x) {
    return fabs(x) < Limits<Real>::SMALLEST_PIVOT ? copysign(Limits<Real>::SMALLEST_PIVOT, x) : x;
}

// x = (T - value)^-1 x by elimination with partial pivoting, a vector a lane.
template <class Real> __device__ __forceinline__ void invert(const Eigen<Real>& at, int vector) {
    const Real value = at.values[vector];
    Real* const x = at.vectors + int64_t(vector) * at.stride;
    Real *const inverses = at.factors + lane_index(), *const aboves = inverses + at.n * 32;
    unsigned char* const swaps = at.swaps + lane_index();
    Real pivot = at.diagonal[0] - value, above = at.off[0], top = x[0];
    for (int k = 0; k + 1 < at.n; k++) {
        const Real below = at.off[k], shifted = at.diagonal[k + 1] - value, beyond = at.off[k + 1], low = x[k + 1];
        const bool swap = fabs(below) > fabs(pivot);
        const Real inverse = reciprocal(pivot_of(swap ? below : pivot)), factor = (swap ? pivot : below) * inverse;
        const Real first = swap ? low : top;
        x[k] = first;
        top = (swap ? top : low) - factor * first;
        inverses[k * 32] = inverse;
        aboves[k * 32] = swap ? shifted : above;
        pivot = swap ? above - factor * shifted : shifted - factor * above;
        above = swap ? -factor * beyond : beyond;
        swaps[k * 32] = swap;
    }
    Real next = top / pivot_of(pivot), beyond = 0;
    x[at.n - 1] = next;
#pragma unroll 4
    for (int k = at.n - 2; k >= 0; k--) {
        const Real second = swaps[k * 32] ? at.off[k + 1] : Real(0);
        const Real here = (x[k] - aboves[k * 32] * next - second * beyond) * inverses[k * 32];
        beyond = next;
        next = here;
        x[k] = here;
    }
}

// Scales every vector to length one.
template <class Real> __device__ __forceinline__ void normalize(const Eigen<Real>& at, int count) {
    for (int i = warp_index(); i < count; i += WARPS) {
        Real* const x = at.vectors + int64_t(i) * at.stride;
        Real squares = 0;
        for (int k = lane_index(); k < at.n; k += 32) squares += x[k] * x[k];
        const Real scale = 1 / sqrt(lanes_sum(squares));
        for (int k = lane_index(); k < at.n; k += 32) x[k] *= scale;
        if (lane_index() == 0) at.squares[i] = 1;
    }
    __syncthreads();
}

// Takes vector j out of several of those after it. Pythagoras tells what is left of them.
template <int Several, class Real>
__device__ __forceinline__ void remove(const Eigen<Real>& at, int j, int first, int count) {
    const Real* const x = at.vectors + int64_t(j) * at.stride;
    Real products[Several] = {};
#pragma unroll 4
    for (int k = lane_index(); k < at.n; k += 32) {
#pragma unroll
        for (int i = 0; i < Several; i++) {
            const int64_t other = first + i * WARPS;
            if (other < count) products[i] += x[k] * at.vectors[other * at.stride + k];
        }
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
#pragma unroll
        for (int i = 0; i < Several; i++) products[i] += __shfl_xor_sync(0xffffffffu, products[i], distance);
    }
    const Real inverse = 1 / fmax(at.squares[j], Real(LEAST_SQUARES_KEPT));
#pragma unroll
    for (int i = 0; i < Several; i++) {
        const int64_t other = first + i * WARPS;
        if (other >= count) break;
        const Real share = products[i] * inverse;
        if (lane_index() == 0) at.squares[other] -= products[i] * share;
#pragma unroll 4
        for (int k = lane_index(); k < at.n; k += 32) at.vectors[other * at.stride + k] -= share * x[k];
    }
}

// Takes each vector of length one out of those after it (modified Gram-Schmidt); returns whether one lost much by that.
template <class Real> __device__ __forceinline__ bool orthogonalize(const Eigen<Real>& at, int count) {
    bool lost = false;
    for (int j = 0; j < count; j++) {
        lost |= !(at.squares[j] >= KEPT_SQUARES);
        for (int first = j + 1 + warp_index(); first < count; first += 4 * WARPS) remove<4>(at, j, first, count);
        __syncthreads();
    }
    normalize(at, count);
    return lost;
}

// Whether vectors are eigenvectors to rounding.
template <class Real> __device__ __forceinline__ bool are_exact(const Eigen<Real>& at, int count) {
    for (int i = warp_index(); i < count; i += WARPS) {
        const Real* const x = at.vectors + int64_t(i) * at.stride;
        bool exact = true;
        for (int k = lane_index(); k < at.n; k += 32) {
            const Real before = k > 0 ? at.off[k - 1] * x[k - 1] : Real(0);
            const Real after = k + 1 < at.n ? at.off[k] * x[k + 1] : Real(0);
            exact &= fabs((at.diagonal[k] - at.values[i]) * x[k] + before + after) <= Limits<Real>::RESIDUAL;
        }
        exact = __all_sync(0xffffffffu, exact);
        if (lane_index() == 0) at.squares[i] = exact;
    }
    __syncthreads();
    bool exact = true;
    for (int i = lane_index(); i < count; i += 32) exact &= at.squares[i] != 0;
    return __all_sync(0xffffffffu, exact);
}

// Makes orthonormal eigenvectors for the first `count` values; returns whether all of them are that to rounding. Vectors
// of eigenvalues that lie apart need no more than two inversions, and nothing between.
template <class Real> __device__ __forceinline__ bool find_vectors(const Eigen<Real>& at, int count) {
    start_vectors(at, count);
    __syncthreads();
    for (int step = 1; step <= MOST_STEPS; step++) {
        for (int vector = threadIdx.x; vector < count && warp_index() == 0; vector += 32) {
            invert(at, vector);
            if (step == 1) invert(at, vector);
        }
        __syncthreads();
        normalize(at, count);
        for (int pass = 0; pass < MOST_PASSES && orthogonalize(at, count);) pass++;
        if (are_exact(at, count)) return true;
    }
    return false;
}

// Turns an eigenvector of the tridiagonal matrix into one of the matrix that was reduced to it, and writes it with its
// entry of largest magnitude positive where `positive` asks for that. A vector belongs to Lanes neighbouring lanes.
template <int Lanes, int Each, class Real>
__device__ __forceinline__ void turn_back(const Real* from, const Real* reflections, const Real* inverse_heights,
                                          int n, double* to, bool positive, bool wanted) {
    const int lane = threadIdx.x % Lanes;
    Real x[Each];
#pragma unroll
    for (int c = 0; c < Each; c++) {
        const int j = c * Lanes + lane;
        x[c] = j < n && wanted ? from[j] : Real(0);
    }
    // By blocks of as many reflections as a vector has lanes: how many entries of a lane they reach is known then.
#pragma unroll
    for (int last = 0; last < Each; last++) {
        for (int i = max(2, last * Lanes + 1); i <= min(last * Lanes + Lanes, n - 1); i++) {
            const Real* const v = reflections + packed(i, 0) + lane;
            Real products[4] = {}, here[Each];
#pragma unroll
            for (int c = 0; c <= last; c++) {
                here[c] = c < last || c * Lanes + lane < i ? v[c * Lanes] : Real(0);
                products[c % 4] += here[c] * x[c];
            }
            Real product = (products[0] + products[1]) + (products[2] + products[3]);
#pragma unroll
            for (int lanes = Lanes / 2; lanes > 0; lanes /= 2) product += __shfl_xor_sync(0xffffffffu, product, lanes);
            product *= inverse_heights[i];
#pragma unroll
            for (int c = 0; c <= last; c++) x[c] -= product * here[c];
        }
    }
    float largest = 0;
    int largest_at = n;
#pragma unroll
    for (int c = 0; c < Each; c++) {
        if (fabsf(float(x[c])) > fabsf(largest)) largest = float(x[c]), largest_at = c * Lanes + lane;
    }
#pragma unroll
    for (int lanes = Lanes / 2; lanes > 0; lanes /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, largest, lanes);
        const int other_at = __shfl_xor_sync(0xffffffffu, largest_at, lanes);
        const bool takes = fabsf(other) > fabsf(largest) || (fabsf(other) == fabsf(largest) && other_at < largest_at);
        if (takes) largest = other, largest_at = other_at;
    }
    const double sign = positive && largest < 0 ? -1 : 1;
#pragma unroll
    for (int c = 0; c < Each; c++) {
        const int j = c * Lanes + lane;
        if (j < n && wanted) to[j] = sign * double(x[c]);
    }
}
