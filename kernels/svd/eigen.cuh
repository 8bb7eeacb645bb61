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
    // Squared entries off the diagonal are kept above the floor, so that a sequence that is lifted whenever it came below
    // LOW never vanishes in the steps between.
    static constexpr float FLOOR = 0x1p-56f, LOW = 0x1p-12f, LIFT = 0x1p112f;
};
template <> struct Limits<double> {
    static constexpr double RESOLUTION = 0x1p-55, SMALLEST_PIVOT = 0x1p-53, RESIDUAL = 5e-12;
    static constexpr double FLOOR = 0x1p-120, LOW = 0x1p-300, LIFT = 0x1p400;
};

constexpr int AHEAD = SVD_AHEAD;

// A scaled tridiagonal matrix, and eigenvectors in rows.
template <class Real> struct Eigen {
    int n, stride;
    Real *diagonal, *off;
    Real* squares;  // of the entry off the diagonal before; then of what is left of vectors
    Real *values, *vectors;
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
    // Beyond the matrix there is what no sequence changes its sign by.
    for (int j = threadIdx.x; j < round_up(at.n, AHEAD); j += THREADS) {
        const Real before = j > 0 && j < at.n ? at.off[j - 1] / scale : Real(0);
        to.diagonal[j] = j < at.n ? at.diagonal[j] / scale : Real(1);
        to.off[j] = j + 1 < at.n ? at.off[j] / scale : Real(0);
        to.squares[j] = j < at.n ? fmax(before * before, Limits<Real>::FLOOR) : Real(0);
    }
    __syncthreads();
    return scale;
}

__device__ __forceinline__ int signs_differ(float x, float y) { return (__float_as_uint(x) ^ __float_as_uint(y)) >> 31; }
__device__ __forceinline__ int signs_differ(double x, double y) { return (x < 0) != (y < 0); }

// How many eigenvalues lie below x.
template <class Real> __device__ __forceinline__ int count_below(const Eigen<Real>& at, Real x) {
    Real before = 0, here = 1;
    int below = 0;
#pragma unroll 2
    for (int first = 0; first < at.n; first += AHEAD) {
        Real diagonal[AHEAD], squares[AHEAD];
        load_vector<AHEAD>(diagonal, at.diagonal + first);
        load_vector<AHEAD>(squares, at.squares + first);
#pragma unroll
        for (int c = 0; c < AHEAD; c++) {
            const Real next = (diagonal[c] - x) * here - squares[c] * before;
            below += signs_differ(next, here);
            before = here;
            here = next;
        }
        if (fmax(fabs(here), fabs(before)) < Limits<Real>::LOW) {
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
    const int last = at.n - 1;
    Real* const x = at.vectors + int64_t(vector) * at.stride;
    Real *const inverses = at.factors + lane_index(), *const aboves = inverses + at.n * 32;
    unsigned char* const swaps = at.swaps + lane_index();
    Real pivot = at.diagonal[0] - value, below = at.off[0], above = below, top = x[0];
    Real diagonals[AHEAD], offs[AHEAD], lows[AHEAD];
    const auto fetch = [&](int k) {
#pragma unroll
        for (int c = 0; c < AHEAD; c++) {
            const int j = min(k + c, last);
            diagonals[c] = at.diagonal[j], offs[c] = at.off[j], lows[c] = x[j];
        }
    };
    fetch(1);
#pragma unroll 1
    for (int first = 0; first < last; first += AHEAD) {
        Real shifted[AHEAD], beyond[AHEAD], low[AHEAD];
#pragma unroll
        for (int c = 0; c < AHEAD; c++) shifted[c] = diagonals[c] - value, beyond[c] = offs[c], low[c] = lows[c];
        fetch(first + AHEAD + 1);
#pragma unroll
        for (int c = 0; c < AHEAD; c++) {
            const int k = first + c;
            if (k >= last) break;
            const bool swap = fabs(below) > fabs(pivot);
            const Real inverse = reciprocal(pivot_of(swap ? below : pivot)), factor = (swap ? pivot : below) * inverse;
            const Real over = swap ? low[c] : top;
            x[k] = over;
            top = (swap ? top : low[c]) - factor * over;
            inverses[k * 32] = inverse;
            aboves[k * 32] = swap ? shifted[c] : above;
            pivot = swap ? above - factor * shifted[c] : shifted[c] - factor * above;
            above = swap ? -factor * beyond[c] : beyond[c];
            below = beyond[c];
            swaps[k * 32] = swap;
        }
    }
    Real next = top / pivot_of(pivot), beyond = 0;
    x[last] = next;
    // Divided by pivots as it is read, so that only one multiplication has to wait for the one before.
    Real rests[AHEAD], uppers[AHEAD], seconds[AHEAD];
    const auto fetch_back = [&](int k) {
#pragma unroll
        for (int c = 0; c < AHEAD; c++) {
            const int j = max(k - c, 0);
            const Real inverse = inverses[j * 32], second = at.off[j + 1];
            rests[c] = x[j] * inverse, uppers[c] = aboves[j * 32] * inverse;
            seconds[c] = swaps[j * 32] ? second * inverse : Real(0);
        }
    };
    fetch_back(last - 1);
#pragma unroll 1
    for (int first = last - 1; first >= 0; first -= AHEAD) {
        Real rest[AHEAD], upper[AHEAD], second[AHEAD];
#pragma unroll
        for (int c = 0; c < AHEAD; c++) rest[c] = rests[c], upper[c] = uppers[c], second[c] = seconds[c];
        fetch_back(first - AHEAD);
#pragma unroll
        for (int c = 0; c < AHEAD; c++) {
            if (first - c < 0) break;
            const Real here = rest[c] - second[c] * beyond - upper[c] * next;
            beyond = next;
            next = here;
            x[first - c] = here;
        }
    }
}

// Vectors that a warp has in registers, spread over its lanes: every WARPS-th from the first.
constexpr int TOGETHER = 4, PIECES = MAX_WIDTH / 32;
template <class Real> struct Panel {
    const Eigen<Real>& at;
    int first, count;
    Real x[TOGETHER][PIECES], squares[TOGETHER];

    __device__ __forceinline__ Panel(const Eigen<Real>& at, int first, int count) : at(at), first(first), count(count) {
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
#pragma unroll
            for (int c = 0; c < PIECES; c++) x[i][c] = is_inside(i, c) ? *place(i, c) : Real(0);
        }
    }

    __device__ __forceinline__ bool is_inside(int i, int c) const {
        return first + i * WARPS < count && lane_index() + c * 32 < at.n;
    }
    __device__ __forceinline__ Real* place(int i, int c) const {
        return at.vectors + int64_t(first + i * WARPS) * at.stride + lane_index() + c * 32;
    }
    __device__ __forceinline__ void store(int i) const {
#pragma unroll
        for (int c = 0; c < PIECES; c++) {
            if (is_inside(i, c)) *place(i, c) = x[i][c];
        }
    }

    static __device__ __forceinline__ void sum_lanes(Real (&sums)[TOGETHER]) {
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) {
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], distance);
        }
    }

    // Scales every vector to length one.
    __device__ __forceinline__ void normalize() {
        Real lengths[TOGETHER] = {};
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
#pragma unroll
            for (int c = 0; c < PIECES; c++) lengths[i] += x[i][c] * x[i][c];
        }
        sum_lanes(lengths);
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const Real scale = first + i * WARPS < count ? 1 / sqrt(lengths[i]) : Real(0);
            squares[i] = 1;
#pragma unroll
            for (int c = 0; c < PIECES; c++) x[i][c] *= scale;
        }
    }

    // Takes vector j out of those after it. Pythagoras tells what is left of them.
    __device__ __forceinline__ void remove(int j) {
        Real products[TOGETHER] = {}, other[PIECES];
        const Real* const from = at.vectors + int64_t(j) * at.stride + lane_index();
#pragma unroll
        for (int c = 0; c < PIECES; c++) other[c] = lane_index() + c * 32 < at.n ? from[c * 32] : Real(0);
        const Real inverse = 1 / fmax(at.squares[j], Real(LEAST_SQUARES_KEPT));
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
#pragma unroll
            for (int c = 0; c < PIECES; c++) products[i] += other[c] * x[i][c];
        }
        sum_lanes(products);
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const Real share = first + i * WARPS > j ? products[i] * inverse : Real(0);
            squares[i] -= products[i] * share;
#pragma unroll
            for (int c = 0; c < PIECES; c++) x[i][c] -= share * other[c];
        }
    }
};

// Scales vectors to length one, and takes each out of those after it (modified Gram-Schmidt); returns whether one lost much
// by that.
template <class Real> __device__ __forceinline__ bool orthogonalize(const Eigen<Real>& at, int count) {
    bool lost = false;
    for (int first = 0; first < count; first += TOGETHER * WARPS) {
        Panel<Real> panel(at, first + warp_index(), count);
        panel.normalize();
#pragma unroll 1
        for (int j = 0; j < first; j++) panel.remove(j);
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
#pragma unroll 1
            for (int j = first + i * WARPS; j < min(first + (i + 1) * WARPS, count); j++) {
                if (j % WARPS == warp_index()) {
                    panel.store(i);
                    if (lane_index() == 0) at.squares[j] = panel.squares[i];
                }
                __syncthreads();
                lost |= !(at.squares[j] >= KEPT_SQUARES);
                panel.remove(j);
            }
        }
        __syncthreads();
        panel.normalize();
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            panel.store(i);
            if (lane_index() == 0 && panel.first + i * WARPS < count) at.squares[panel.first + i * WARPS] = 1;
        }
        __syncthreads();
    }
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
        const int first = max(2, last * Lanes + 1), end = min(last * Lanes + Lanes, n - 1);
        Real ahead[Each], height = 0;
        const auto fetch = [&](int i) {
            const Real* const v = reflections + packed(i, 0) + lane;
            height = inverse_heights[i];
#pragma unroll
            for (int c = 0; c <= last; c++) ahead[c] = c < last || c * Lanes + lane < i ? v[c * Lanes] : Real(0);
        };
        if (first <= end) fetch(first);
        for (int i = first; i <= end; i++) {
            Real products[4] = {}, here[Each];
            const Real inverse_height = height;
#pragma unroll
            for (int c = 0; c <= last; c++) here[c] = ahead[c];
            fetch(min(i + 1, end));
#pragma unroll
            for (int c = 0; c <= last; c++) products[c % 4] += here[c] * x[c];
            Real product = (products[0] + products[1]) + (products[2] + products[3]);
#pragma unroll
            for (int lanes = Lanes / 2; lanes > 0; lanes /= 2) product += __shfl_xor_sync(0xffffffffu, product, lanes);
            product *= inverse_height;
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
