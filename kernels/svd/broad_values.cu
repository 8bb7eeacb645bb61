// Eigenvalues of A'A where that lies in global memory: Householder tridiagonalization, a launch for each row, and
// multisection.
#define LEAST_BLOCKS 2
#include "svd/broad.cuh"

constexpr int ROWS = SVD_REDUCED_ROWS / WARPS;  // of a warp

// Adds the parts of A'A up, finds the energy, and leaves the matrix scaled to a trace of one.
KERNEL(svd_broad_begin, BroadParams, 256) {
    DYN_SMEM(smem);
    const SvdParams& svd = p.svd;
    const int64_t index = matrix_index();
    const int n = svd.width, row = blockIdx.x * WARPS + warp_index();
    const Partials partials(svd, index);
    double trace = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) trace += partials.entry(i, i);
    const double energy = block_sum(trace, reinterpret_cast<double*>(smem)), share = 1 / energy;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        svd.energy[index] = energy;
        if (!(energy <= MOST_ENERGY)) {
            conclude(svd, index, SVD_NON_FINITE, 0);
        } else if (energy == 0) {
            conclude(svd, index, SVD_ZERO, svd.relative < 0 ? svd.columns : 0);
        } else {
            conclude(svd, index, svd.rung == SVD_JACOBI ? SVD_STUCK : SVD_OPEN, 0);
        }
    }
    if (row >= n) return;
    double* const square = p.square + index * n * n;
    for (int j = lane_index(); j <= row; j += 32) {
        const double x = partials.entry(row, j) * share;
        square[int64_t(row) * n + j] = x;
        square[int64_t(j) * n + row] = x;
    }
}

// What reflection `at` and the row below it make of an entry of a row.
struct Update {
    const double *v, *product, *row;
    double inverse, shift, v_here, w_here;

    __device__ __forceinline__ double w(int j) const { return product[j] * inverse - shift * v[j]; }
    __device__ __forceinline__ double entry(int j) const { return row[j] - (v_here * w(j) + w_here * v[j]); }
};

// Row `step`, brought up to date, gives the next reflection; and what is above it loses the last reflection's part and is
// multiplied by the next one's vector. Every block finds both for itself, so a launch is all the waiting there is.
KERNEL(svd_broad_reduce, BroadParams, 256) {
    DYN_SMEM(smem);
    if (!is_open(p)) return;
    double *const first_sum = reinterpret_cast<double*>(smem), *const second_sum = first_sum + WARPS;
    const Lines at(p);
    const int n = at.n, i = p.step;
    const bool is_first = i == n - 1;
    double* const reflections = p.reflections + matrix_index() * packed(n, 0);
    double* const square = p.square + matrix_index() * n * n;
    Update update{reflections + packed(i + 1, 0), at.products + (i + 1) % 2 * at.pitch, square + int64_t(i) * n, 0, 0, 0, 0};
    if (is_first) update.v = update.product = update.row;  // nothing comes of them
    double sum = 0;
    for (int j = threadIdx.x; j <= i && !is_first; j += THREADS) sum += update.product[j] * update.v[j];
    sum = block_sum(sum, first_sum);
    update.inverse = is_first ? 0 : at.inverse_heights[i + 1];
    update.shift = sum * update.inverse * update.inverse / 2;
    update.v_here = is_first ? 0 : update.v[i];
    update.w_here = is_first ? 0 : update.w(i);
    double rest = 0;
    for (int j = threadIdx.x; j < i - 1; j += THREADS) rest += update.entry(j) * update.entry(j);
    rest = block_sum(rest, second_sum);
    const double last = i > 0 ? update.entry(i - 1) : 0, length = sqrt(rest + last * last);
    const double kept = last > 0 ? -length : length;
    const bool reflects = rest >= LEAST_SQUARES<double>;
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) {
            at.diagonal[i] = update.entry(i);
            if (i > 0) at.off[i - 1] = reflects ? kept : last;
            at.inverse_heights[i] = reflects ? 1 / (rest + last * (last - kept)) : 0;
        }
        for (int j = threadIdx.x; j < i; j += THREADS) {
            reflections[packed(i, j)] = !reflects ? 0 : j == i - 1 ? last - kept : update.entry(j);
        }
    }
    const int first = blockIdx.x * SVD_REDUCED_ROWS + warp_index();
    double v_rows[ROWS], w_rows[ROWS], sums[ROWS] = {};
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int row = min(first + r * WARPS, n - 1);
        v_rows[r] = row < i && !is_first ? update.v[row] : 0;
        w_rows[r] = row < i && !is_first ? update.w(row) : 0;
    }
    for (int j = lane_index(); j < i; j += 32) {
        const double v = is_first ? 0 : update.v[j], w = is_first ? 0 : update.w(j);
        const double next = !reflects ? 0 : j == i - 1 ? last - kept : update.row[j] - (update.v_here * w + update.w_here * v);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int row = first + r * WARPS;
            if (row >= i) break;
            double& entry = square[int64_t(row) * n + j];
            const double left = entry - (v_rows[r] * w + w_rows[r] * v);
            entry = left;
            sums[r] += left * next;
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const double product = warp_sum(sums[r]);
        if (lane_index() == 0 && first + r * WARPS < i) at.products[i % 2 * at.pitch + first + r * WARPS] = product;
    }
}

// Scales the tridiagonal matrix to eigenvalues of at most a half.
KERNEL(svd_broad_scale, BroadParams, 256) {
    if (!is_open(p)) return;
    const Lines at(p);
    Tridiagonal<double> reduced(at.n, at.diagonal, nullptr);
    reduced.off = at.off;
    const double scale = scale_down(reduced, at.eigen);
    if (threadIdx.x == 0) p.scale[matrix_index()] = scale;
}

// A warp narrows each of the largest eigenvalues down.
KERNEL(svd_broad_values, BroadParams, 256) {
    if (!is_open(p)) return;
    const int index = blockIdx.x * WARPS + warp_index();
    if (index >= p.svd.columns) return;
    const Eigen<double> at = Lines(p).eigen;
    double low = -0.5, width = 1;
    while (width > Limits<double>::RESOLUTION) {
        width /= 33;
        const bool above = at.n - count_below(at, low + (lane_index() + 1) * width) > index;
        low += width * __popc(__ballot_sync(0xffffffffu, above));
    }
    if (lane_index() == 0) p.eigenvalues[columns_of(p) + index] = low + width / 2;
}

// Chooses the rank.
KERNEL(svd_broad_rank, BroadParams, 256) {
    if (!is_open(p)) return;
    const SvdParams& svd = p.svd;
    const int64_t index = matrix_index();
    const double scale = p.scale[index], *const values = p.eigenvalues + columns_of(p);
    const int rank = choose_rank(svd, values, scale);
    __syncthreads();
    if (svd.values_only) return accept_values(svd, index, values, scale, rank, 0);
    conclude(svd, index, SVD_OPEN, rank);
}
