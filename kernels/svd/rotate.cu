// Eigenvalues and vectors of A'A by cyclic Jacobi rotations in f64, for the rare matrix that svd_solve gave up on (Golub
// and Van Loan, "Matrix Computations", section 8.5): a round rotates disjoint pairs of columns, a sweep meets every pair
// once.
#define LEAST_BLOCKS 1
#include "svd/spectrum.cuh"

constexpr int SWEEPS = 40;
// Entries off the diagonal that are left alone, as shares of the trace.
constexpr double NEGLIGIBLE = 0x1p-54;
// Turns columns p and q of a symmetric matrix.
struct Rotation {
    double cosine, sine;
    int p, q;
};

struct Solver {
    Rotation* rotations;  // shared: of each pair of columns
    double* values;       // shared: in descending order
    int* order;           // shared: where the vectors of those are
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

__device__ __forceinline__ double& entry(const Solver& at, int i, int j) {
    return at.gram[i > j ? packed(i, j) : packed(j, i)];
}

// Turns rows and columns: the four entries where two pairs meet belong to one thread.
__device__ __forceinline__ void rotate_gram(const Solver& at) {
    const int pairs = at.even / 2;
    for (int i = threadIdx.x; i < packed(pairs, 0); i += THREADS) {
        const int k = i % pairs, l = (k + i / pairs) % pairs;
        const Rotation row = at.rotations[k], column = at.rotations[l];
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
        const Rotation r = at.rotations[k];
        if (r.sine == 0) continue;
#pragma unroll 2  // as is another below: unrolled further, they spill
        for (int i = lane_index(); i < at.n; i += 32) turn(r, at.vectors[r.p * at.n + i], at.vectors[r.q * at.n + i]);
    }
}

// Diagonalizes the triangle; returns whether that took no more than SWEEPS.
__device__ __forceinline__ bool diagonalize(const Solver& at) {
    for (int i = threadIdx.x; i < at.n * at.n; i += THREADS) at.vectors[i] = i / at.n == i % at.n ? 1 : 0;
    __syncthreads();
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        bool rotated = false;
        for (int round = 0; round < at.even - 1; round++) {
            for (int k = threadIdx.x; k < at.even / 2; k += THREADS) {
                const Rotation r = rotation(at, round, k);
                at.rotations[k] = r;
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
    for (int i = threadIdx.x; i < at.n; i += THREADS) {
        const double value = at.gram[packed(i, i)];
        int place = 0;
        for (int j = 0; j < at.n; j++) {
            const double other = at.gram[packed(j, j)];
            place += other > value || (other == value && j < i);
        }
        at.values[place] = value;
        at.order[place] = i;
    }
    __syncthreads();
}

// Writes the first eigenvectors.
__device__ __forceinline__ void write_basis(const SvdParams& p, int64_t index, const Solver& at, int rank) {
    for (int k = warp_index(); k < rank; k += WARPS) {
        const double* vector = at.vectors + at.order[k] * at.n;
        const double sign = p.wide ? 1 : sign_of(at.n, [&](int j) { return float(vector[j]); });
        double* out = p.basis + (index * p.columns + k) * at.n;
        for (int j = lane_index(); j < at.n; j += 32) out[j] = sign * vector[j];
    }
}

__device__ __forceinline__ void rotate(const SvdParams& p, int64_t index, const Solver& at) {
    const Partials partials(p, index);
    const double energy = p.energy[index];
    for (int i = warp_index(); i < at.even; i += WARPS) {
        for (int j = lane_index(); j <= i; j += 32) at.gram[packed(i, j)] = i < at.n ? partials.entry(i, j) / energy : 0;
    }
    if (!diagonalize(at)) return;
    sort(at);
    const int rank = choose_rank(p, at.values, 1.0);
    if (p.values_only) return accept_values(p, index, at.values, 1.0, rank, SVD_ROTATED);
    write_basis(p, index, at, rank);
    write_values(p, index, at.values, 1.0, rank);
    conclude(p, index, SVD_CHOSEN, rank, SVD_ROTATED);
}

// A block takes one matrix after another, so that there is little to remember.
KERNEL(svd_rotate, SvdParams, 256) {
    DYN_SMEM(smem);
    const int n = p.width, even = round_up(n, 2);
    double* const vectors = p.rotated + int64_t(blockIdx.x) * (n * n + packed(even, 0));
    Rotation* const rotations = reinterpret_cast<Rotation*>(smem);
    double* const values = reinterpret_cast<double*>(rotations + even / 2);
    const Solver at{rotations, values, reinterpret_cast<int*>(values + n), vectors + n * n, vectors, n, even};
    for (int index = blockIdx.x; index < p.count; index += gridDim.x) {
        if (p.verdicts[index].state == SVD_STUCK) rotate(p, index, at);
        __syncthreads();
    }
}
