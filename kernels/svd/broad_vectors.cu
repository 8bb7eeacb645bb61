// Eigenvectors of A'A where that lies in global memory: inverse iteration, and the reflections that made it tridiagonal.
#define LEAST_BLOCKS 2
#include "svd/broad.cuh"

constexpr int PANEL = SVD_PANEL;

// Squared lengths that orthonormal columns have beside those before them, at least.
constexpr double ORTHOGONAL = 0.999;

// Solves for an eigenvector a lane: twice with what the value leaves of the matrix, from random numbers.
KERNEL(svd_broad_vectors, BroadParams, 32) {
    if (!is_open(p)) return;
    const SvdParams& svd = p.svd;
    const Eigen<double> at = Lines(p).eigen;
    const int n = at.n, vector = blockIdx.x * PANEL + threadIdx.x;
    if (vector >= p.svd.verdicts[matrix_index()].rank) return;
    const int64_t block = matrix_index() * gridDim.x + blockIdx.x, columns = svd.columns;
    double* const x = p.vectors + matrix_index() * n * columns + vector;
    double *const inverses = p.elimination + block * 2 * n * PANEL + threadIdx.x, *const aboves = inverses + n * PANEL;
    unsigned char* const swaps = p.swaps + block * n * PANEL + threadIdx.x;
    const double value = p.eigenvalues[columns_of(p) + vector];
    for (int k = 0; k < n; k += 4) {
        const uint4 words = random_words(0, vector, k / 4);
        x[k * columns] = random_unit(words.x) - 0.5f;
        if (k + 1 < n) x[(k + 1) * columns] = random_unit(words.y) - 0.5f;
        if (k + 2 < n) x[(k + 2) * columns] = random_unit(words.z) - 0.5f;
        if (k + 3 < n) x[(k + 3) * columns] = random_unit(words.w) - 0.5f;
    }
#pragma unroll 1
    for (int time = 0; time < 2; time++) {
        double pivot = at.diagonal[0] - value, above = at.off[0], top = x[0];
        for (int k = 0; k + 1 < n; k++) {
            const double below = at.off[k], shifted = at.diagonal[k + 1] - value, beyond = at.off[k + 1];
            const double low = x[(k + 1) * columns];
            const bool swap = fabs(below) > fabs(pivot);
            const double inverse = 1 / pivot_of(swap ? below : pivot), factor = (swap ? pivot : below) * inverse;
            x[k * columns] = swap ? low : top;
            top = (swap ? top : low) - factor * (swap ? low : top);
            inverses[k * PANEL] = inverse;
            aboves[k * PANEL] = swap ? shifted : above;
            pivot = swap ? above - factor * shifted : shifted - factor * above;
            above = swap ? -factor * beyond : beyond;
            swaps[k * PANEL] = swap;
        }
        double next = top / pivot_of(pivot), beyond = 0, squares = next * next;
        x[(n - 1) * columns] = next;
        for (int k = n - 2; k >= 0; k--) {
            const double second = swaps[k * PANEL] ? at.off[k + 1] : 0;
            const double here = (x[k * columns] - aboves[k * PANEL] * next - second * beyond) * inverses[k * PANEL];
            beyond = next;
            next = here;
            squares += here * here;
            x[k * columns] = here;
        }
        const double scale = 1 / sqrt(squares);
        for (int k = 0; k < n; k++) x[k * columns] *= scale;
    }
}

// Whether this is an eigenvector of the tridiagonal matrix to rounding. For whole warps.
__device__ __forceinline__ bool is_exact(const Eigen<double>& at, const double* x, double value) {
    bool exact = true;
    for (int k = lane_index(); k < at.n; k += 32) {
        const double before = k > 0 ? at.off[k - 1] * x[k - 1] : 0, after = k + 1 < at.n ? at.off[k] * x[k + 1] : 0;
        exact &= fabs((at.diagonal[k] - value) * x[k] + before + after) <= Limits<double>::RESIDUAL;
    }
    return __all_sync(0xffffffffu, exact);
}

// Turns eigenvectors of the tridiagonal matrix into those of the matrix that was reduced to it, a vector a warp.
KERNEL(svd_broad_turn, BroadParams, 256) {
    DYN_SMEM(smem);
    if (!is_open(p)) return;
    const SvdParams& svd = p.svd;
    const Lines at(p);
    const int n = at.n, lane = lane_index(), vector = blockIdx.x * p.warps + warp_index();
    if (warp_index() >= p.warps || vector >= svd.verdicts[matrix_index()].rank) return;
    double* const x = reinterpret_cast<double*>(smem) + warp_index() * n;
    const double* const from = p.vectors + matrix_index() * n * svd.columns + vector;
    for (int j = lane; j < n; j += 32) x[j] = from[int64_t(j) * svd.columns];
    __syncwarp();
    const bool exact = is_exact(at.eigen, x, p.eigenvalues[columns_of(p) + vector]);
    if (lane == 0) p.exact[columns_of(p) + vector] = exact;
    __syncwarp();
    const double* const reflections = p.reflections + matrix_index() * packed(n, 0);
    for (int i = 2; i < n; i++) {
        const double* const v = reflections + packed(i, 0);
        double product = 0;
#pragma unroll 4
        for (int j = lane; j < i; j += 32) product += v[j] * x[j];
        product = warp_sum(product) * at.inverse_heights[i];
#pragma unroll 4
        for (int j = lane; j < i; j += 32) x[j] -= product * v[j];
    }
    const double sign = svd.wide ? 1 : sign_of(n, [&](int j) { return float(x[j]); });
    double* const to = svd.basis + (columns_of(p) + vector) * n;
    for (int j = lane; j < n; j += 32) to[j] = sign * x[j];
}

// Takes the eigenvectors when all of them are that, and orthonormal.
KERNEL(svd_broad_choose, BroadParams, 256) {
    if (!is_open(p)) return;
    const SvdParams& svd = p.svd;
    const int64_t first = columns_of(p);
    const int rank = svd.verdicts[matrix_index()].rank;
    bool holds = true;
    for (int k = threadIdx.x; k < rank; k += THREADS) holds &= p.exact[first + k] != 0 && p.pivots[first + k] >= ORTHOGONAL;
    if (!__syncthreads_and(holds)) return conclude(svd, matrix_index(), SVD_STUCK, 0);
    write_values(svd, matrix_index(), p.eigenvalues + first, p.scale[matrix_index()], rank);
    conclude(svd, matrix_index(), SVD_CHOSEN, rank);
}
