// The roots of symmetric weights, whose eigenvalues and vectors svd_broad finds as it does those of A'A, and what they make
// of the vectors of weighted rows.
#define LEAST_BLOCKS 2
#include "svd/broad.cuh"

// Eigenvalues below this share of the largest are raised to it.
constexpr double FLOOR = SVD_WEIGHT_FLOOR;

// The symmetric part of a weight, scaled to a Frobenius norm of one: one block a matrix.
KERNEL(svd_weight_begin, BroadParams, 256) {
    DYN_SMEM(smem);
    const SvdParams& svd = p.svd;
    const int64_t index = matrix_index();
    const int n = svd.width;
    const float* const weight = static_cast<const float*>(svd.a) + (svd.first + index) * n * n;
    const auto entry = [&](int i, int j) {
        return 0.5 * (double(weight[int64_t(i) * n + j]) + double(weight[int64_t(j) * n + i]));
    };
    double squares = 0;
    for (int i = warp_index(); i < n; i += WARPS) {
        for (int j = lane_index(); j < n; j += 32) squares += entry(i, j) * entry(i, j);
    }
    squares = block_sum(squares, reinterpret_cast<double*>(smem));
    const double norm = sqrt(squares);
    if (threadIdx.x == 0) svd.energy[index] = norm;
    if (!(norm <= MOST_ENERGY)) return conclude(svd, index, SVD_NON_FINITE, 0);
    if (norm == 0) return conclude(svd, index, SVD_ZERO, n);
    for (int i = warp_index(); i < n; i += WARPS) {
        for (int j = lane_index(); j < n; j += 32) {
            const double x = entry(i, j);
            p.square[index * n * n + int64_t(i) * n + j] = x / norm;
            if (j <= i) svd.partials[index * packed(n, 0) + packed(i, j)] = x;
        }
    }
    conclude(svd, index, SVD_OPEN, 0);
}

// Eigenvectors times powers of their eigenvalues, in rows: what makes W^1/2 and W^-1/2 of the eigenvectors. The mean
// eigenvalue counts as one. A weight without a positive eigenvalue counts as the identity.
KERNEL(svd_weight_roots, BroadParams, 256) {
    const SvdParams& svd = p.svd;
    const int64_t index = matrix_index();
    const int n = svd.width;
    const uint32_t state = svd.verdicts[index].state;
    const double* const values = svd.values + index * n;
    const bool fails = state != SVD_CHOSEN && state != SVD_ZERO;
    const bool weighs = state == SVD_CHOSEN && values[0] > 0;
    double mean = 0;
    for (int k = 0; k < n && weighs; k++) mean += fmax(values[k], values[0] * FLOOR) / n;
    for (int k = blockIdx.x * WARPS + warp_index(); k < n; k += gridDim.x * WARPS) {
        const double root = weighs ? sqrt(fmax(values[k], values[0] * FLOOR) / mean) : 1;
        for (int j = lane_index(); j < n; j += 32) {
            const int64_t at = index * n * n + int64_t(k) * n + j;
            if (state != SVD_CHOSEN) svd.basis[at] = fails ? NAN : k == j ? 1 : 0;
            p.vectors[at] = svd.basis[at] * root;
            p.square[at] = svd.basis[at] / root;
        }
    }
}

// Turns the columns so that the entry of largest magnitude in each of the decoder's is positive, and rounds all factors: a
// column a warp.
KERNEL(svd_weight_finish, WeightParams, 256) {
    const int64_t index = matrix_index();
    const int column = blockIdx.x * WARPS + warp_index();
    if (column >= p.columns) return;
    const int64_t small = index * p.width * p.columns + column, tall = index * p.rows * p.columns + column;
    const float sign = sign_of(p.width, [&](int row) { return p.decoder[small + int64_t(row) * p.columns]; });
    const auto turn = [&](const float* from, void* to, int64_t start, int rows) {
        for (int row = lane_index(); row < rows; row += 32) {
            const int64_t i = start + int64_t(row) * p.columns;
            store_entry(to, p.factors, i, from[i] * sign);
        }
    };
    turn(p.u, p.out_u, tall, p.rows);
    turn(p.v, p.out_v, small, p.width);
    turn(p.encoder, p.out_encoder, small, p.width);
    turn(p.decoder, p.out_decoder, small, p.width);
}
