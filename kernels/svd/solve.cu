// Eigenvalues and vectors of A'A, one thread block a matrix, by cyclic Jacobi rotations in f64 (Golub and Van Loan, "Matrix
// Computations", section 8.5): a round of them rotates disjoint pairs of columns, a sweep meets every pair once.
#include "svd/matrix.cuh"

constexpr int SWEEPS = 40;
// Entries off the diagonal that are left alone, as shares of the trace.
constexpr double NEGLIGIBLE = 0x1p-54;
// What an f32 triangle is trusted with: s_1 / s_rank, and the share of the energy left out.
constexpr double SINGLE_CONDITION = 100;
constexpr double SINGLE_TAIL = 1e-4;
constexpr double LEAST_SINGLE_ENERGY = 1e-12, MOST_SINGLE_ENERGY = 1e24;
// More than any finite f32 entries have.
constexpr double MOST_ENERGY = 1e300;
// Error of the energies that a rank is chosen by, relative to the tolerated energy.
constexpr double SINGLE_MARGIN = 2e-3, DOUBLE_MARGIN = 1e-6;
// Rounding of U, s and V to f32, relative to ||A||: kept free below a tolerance.
constexpr double OUTPUT_ROUNDING = 2e-7;

// Turns columns p and q of a symmetric matrix.
struct Rotation {
    double cosine, sine;
    int p, q;
};

// What lies at the start of shared memory; the triangle and, where they fit, the vectors follow.
struct Shared {
    Rotation rotations[MAX_WIDTH / 2];
    double values[MAX_WIDTH];  // in descending order
    int order[MAX_WIDTH];      // where the vectors of those are
    double reduction[WARPS];
};

struct Solver {
    Shared& shared;
    double* gram;     // lower triangle of `even` rows, divided by its trace
    double* vectors;  // [n, n], a vector in each row
    int n, even;      // a row of zeros makes the number of columns even
};

// Pair `k` of a round: as in a round-robin tournament, all but the last column move on by one place each round.
// An angle in f32 will do, as long as the rotation is one to f64.
__device__ __forceinline__ Rotation rotation(const Solver& at, int round, int k) {
    const int moving = at.even - 1;
    const int a = (round + k) % moving, b = k == 0 ? moving : (round - k + moving) % moving;
    Rotation r{1, 0, min(a, b), max(a, b)};
    const double pq = at.gram[packed(r.q, r.p)];
    if (fabs(pq) > NEGLIGIBLE) {
        const float apart = float(at.gram[packed(r.q, r.q)] - at.gram[packed(r.p, r.p)]);
        const float twice = float(2 * pq), squares = apart * apart + twice * twice;
        const float tangent = __fdividef(twice, copysignf(fabsf(apart) + squares * rsqrtf(squares), apart));
        const double secant = 1 + double(tangent) * double(tangent);
        double cosine = rsqrtf(float(secant));
        // Two of Newton's steps take the inverse root from f32 to f64.
        cosine *= 1.5 - 0.5 * secant * cosine * cosine;
        cosine *= 1.5 - 0.5 * secant * cosine * cosine;
        r.cosine = cosine;
        r.sine = tangent * cosine;
    }
    return r;
}

__device__ __forceinline__ void turn(const Rotation& r, double& x, double& y) {
    const double old = x;
    x = r.cosine * old - r.sine * y;
    y = r.sine * old + r.cosine * y;
}

__device__ __forceinline__ double& entry(const Solver& at, int i, int j) { return at.gram[i > j ? packed(i, j) : packed(j, i)]; }

// Turns rows and columns: the four entries where two pairs meet belong to one thread.
__device__ __forceinline__ void rotate_gram(const Solver& at) {
    const int pairs = at.even / 2;
    for (int i = threadIdx.x; i < packed(pairs, 0); i += THREADS) {
        const int k = i % pairs, l = (k + i / pairs) % pairs;
        const Rotation row = at.shared.rotations[k], column = at.shared.rotations[l];
        if (row.sine == 0 && column.sine == 0) continue;
        // Where a pair meets itself pq and qp are one entry.
        double &pp = entry(at, row.p, column.p), &pq = entry(at, row.p, column.q);
        double &qp = entry(at, row.q, column.p), &qq = entry(at, row.q, column.q);
        double block[4] = {pp, pq, qp, qq};
        turn(row, block[0], block[2]);
        turn(row, block[1], block[3]);
        turn(column, block[0], block[1]);
        turn(column, block[2], block[3]);
        pp = block[0], pq = block[1], qp = block[2], qq = block[3];
    }
}

__device__ __forceinline__ void rotate_vectors(const Solver& at) {
    for (int k = warp_index(); k < at.even / 2; k += WARPS) {
        const Rotation r = at.shared.rotations[k];
        if (r.sine == 0) continue;
#pragma unroll 2
        for (int i = lane_index(); i < at.n; i += 32) turn(r, at.vectors[r.p * at.n + i], at.vectors[r.q * at.n + i]);
    }
}

// Diagonalizes the triangle; returns whether that took no more than SWEEPS.
__device__ __forceinline__ bool diagonalize(const Solver& at) {
    const int k = threadIdx.x;
    for (int i = threadIdx.x; i < at.n * at.n; i += THREADS) at.vectors[i] = i / at.n == i % at.n ? 1 : 0;
    __syncthreads();
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        bool rotated = false;
        for (int round = 0; round < at.even - 1; round++) {
            if (k < at.even / 2) {
                const Rotation r = rotation(at, round, k);
                at.shared.rotations[k] = r;
                rotated |= r.sine != 0;
            }
            __syncthreads();
            rotate_gram(at);
            rotate_vectors(at);
            __syncthreads();
        }
        if (__syncthreads_count(rotated) == 0) return true;
    }
    return false;
}

// Leaves the diagonal in descending order in `values`.
__device__ __forceinline__ void sort(const Solver& at) {
    const int i = threadIdx.x;
    if (i < at.n) {
        const double value = at.gram[packed(i, i)];
        int place = 0;
        for (int j = 0; j < at.n; j++) {
            const double other = at.gram[packed(j, j)];
            place += other > value || (other == value && j < i);
        }
        at.shared.values[place] = value;
        at.shared.order[place] = i;
    }
    __syncthreads();
}

// The rank to keep, given eigenvalues as shares of the energy; 0 when an f32 triangle does not resolve those and what
// they leave out.
__device__ __forceinline__ int choose_rank(const SvdParams& p, const double* values) {
    const bool single = p.rung == SVD_SINGLE;
    const double margin = single ? SINGLE_MARGIN : DOUBLE_MARGIN;
    const double tolerated = p.relative * p.relative * (1 - margin) - OUTPUT_ROUNDING * OUTPUT_ROUNDING;
    int rank = 0;
    double left = 1;
    do left -= values[rank++];
    while (rank < p.columns && (p.relative < 0 || left > tolerated));
    const bool resolved = values[rank - 1] * SINGLE_CONDITION * SINGLE_CONDITION >= values[0] && left >= SINGLE_TAIL;
    return single && !resolved ? 0 : rank;
}

// Whether the entry of largest magnitude, as it will be rounded, is negative. For whole warps.
__device__ __forceinline__ bool is_negative(const double* vector, int n) {
    float largest = 0;
    int at = n;
#pragma unroll 1
    for (int i = lane_index(); i < n; i += 32) {
        const float x = float(vector[i]);
        if (fabsf(x) > fabsf(largest)) largest = x, at = i;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, largest, distance);
        const int other_at = __shfl_xor_sync(0xffffffffu, at, distance);
        const bool takes = fabsf(other) > fabsf(largest) || (fabsf(other) == fabsf(largest) && other_at < at);
        if (takes) largest = other, at = other_at;
    }
    return largest < 0;
}

// Writes the first eigenvectors and their values.
__device__ __forceinline__ void write_basis(const SvdParams& p, const Solver& at, int rank) {
    const int64_t index = blockIdx.x;
    // The floor is where f64 sums of squares end: a smaller value would only blow up rounding.
    const double floor = 1e-16 * at.shared.values[0];
    const int i = threadIdx.x;
    if (i < rank) p.values[index * p.columns + i] = fmax(at.shared.values[i], floor) * p.energy[index];
    for (int k = warp_index(); k < rank; k += WARPS) {
        const double* vector = at.vectors + at.shared.order[k] * at.n;
        const double sign = !p.wide && is_negative(vector, at.n) ? -1 : 1;
        double* out = p.basis + (index * p.columns + k) * at.n;
        for (int j = lane_index(); j < at.n; j += 32) out[j] = sign * vector[j];
    }
}

__device__ __forceinline__ void conclude(const SvdParams& p, uint32_t state, int rank) {
    if (threadIdx.x != 0) return;
    const int64_t index = blockIdx.x;
    p.state[index] = state;
    p.rank[index] = rank;
    p.tail[index] = state == SVD_ZERO ? 0 : NAN;
}

KERNEL(svd_solve, SvdParams, 256) {
    DYN_SMEM(smem);
    const int64_t index = blockIdx.x;
    if (!p.fresh && p.state[index] != SVD_OPEN) return;
    const int n = p.width, even = round_up(n, 2);
    double* gram = reinterpret_cast<double*>(smem + sizeof(Shared));
    double* vectors = p.vectors ? p.vectors + index * n * n : gram + packed(even, 0);
    const Solver at{*reinterpret_cast<Shared*>(smem), gram, vectors, n, even};

    const int size = packed(at.n, 0);
    sum_chunks(at.gram, p.partials + index * p.chunks * size, p.chunks, size, size);
    for (int i = size + threadIdx.x; i < packed(at.even, 0); i += THREADS) at.gram[i] = 0;
    __syncthreads();
    const int i = threadIdx.x;
    const double energy = block_sum(i < n ? gram[packed(i, i)] : 0, at.shared.reduction);

    if (i == 0) p.energy[index] = energy;
    if (!(energy <= MOST_ENERGY)) return conclude(p, SVD_NON_FINITE, 0);
    if (energy == 0) return conclude(p, SVD_ZERO, p.relative < 0 ? p.columns : 0);
    if (p.rung == SVD_SINGLE && !(energy >= LEAST_SINGLE_ENERGY && energy <= MOST_SINGLE_ENERGY)) {
        return conclude(p, SVD_OPEN, 0);
    }
    const double share = 1 / energy;
    for (int j = i; j < size; j += THREADS) gram[j] *= share;
    if (!diagonalize(at)) return conclude(p, SVD_STUCK, 0);
    sort(at);
    const int rank = choose_rank(p, at.shared.values);
    write_basis(p, at, rank);
    conclude(p, rank > 0 ? SVD_CHOSEN : SVD_OPEN, rank);
}
