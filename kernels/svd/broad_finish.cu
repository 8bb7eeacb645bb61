// Broad matrices that were projected: judged by their moments, put in order, written.
#define LEAST_BLOCKS 2
#include "svd/broad.cuh"
#include "svd/columns.cuh"
#include "svd/finish.cuh"

__device__ __forceinline__ double moment(const BroadParams& p, int i, int j) {
    return p.svd.moments[(columns_of(p) + i) * p.svd.columns + j];
}

// What the columns of A V are to be multiplied by.
KERNEL(svd_broad_scales, BroadParams, 256) {
    const SvdVerdict verdict = p.svd.verdicts[matrix_index()];
    if (verdict.state != SVD_CHOSEN) return;
    for (int k = threadIdx.x; k < p.svd.columns; k += THREADS) {
        const double one = p.svd.tall_is_scaled ? 1 : 1 / sqrt(p.svd.values[columns_of(p) + k]);
        p.scales[columns_of(p) + k] = k < verdict.rank ? one : 0;
    }
}

// Sends columns that are not orthonormal on to be made that.
KERNEL(svd_broad_judge, BroadParams, 256) {
    const SvdVerdict verdict = p.svd.verdicts[matrix_index()];
    if (verdict.state != SVD_CHOSEN) return;
    const double tolerated = p.svd.factors == SVD_F32 ? ORTHONORMAL : ORTHONORMAL_16;
    bool near = true;
    for (int i = warp_index(); i < verdict.rank; i += WARPS) {
        for (int j = lane_index(); j <= i; j += 32) near &= fabs(moment(p, i, j) - (i == j)) <= tolerated;
        if (lane_index() == 0) p.lengths[columns_of(p) + i] = sqrt(moment(p, i, i));
    }
    near = __syncthreads_and(near);
    if (!near && !p.svd.tall_is_scaled && threadIdx.x == 0) p.svd.verdicts[matrix_index()].state = SVD_SLANTED;
}

// Orthonormalizes columns one by one where the Cholesky factor of their moments did not serve.
KERNEL(svd_broad_orthogonalize, BroadParams, 256) {
    DYN_SMEM(smem);
    const SvdVerdict verdict = p.svd.verdicts[matrix_index()];
    if (verdict.state != SVD_SLANTED) return;
    bool holds = true;
    for (int k = threadIdx.x; k < verdict.rank; k += THREADS) holds &= p.pivots[columns_of(p) + k] >= SVD_PIVOT;
    if (__syncthreads_and(holds)) return;
    double* const reduction = reinterpret_cast<double*>(smem);
    const Columns at{static_cast<float*>(p.svd.tall) + matrix_index() * p.svd.rows * p.svd.columns,
                     p.svd.rows,
                     p.svd.columns,
                     reduction + 2 * WARPS,
                     reduction,
                     reinterpret_cast<int*>(reduction + WARPS)};
    for (int column = 0; column < verdict.rank; column++) {
        const double share = orthogonalize(at, column);
        if (threadIdx.x == 0) p.lengths[columns_of(p) + column] = sqrt(moment(p, column, column)) * share;
    }
}

// Finds s and the order in which it descends, and concludes.
KERNEL(svd_broad_finish, BroadParams, 256) {
    const SvdParams& svd = p.svd;
    const int64_t index = matrix_index(), first = columns_of(p);
    const SvdVerdict verdict = svd.verdicts[index];
    if (verdict.state != SVD_CHOSEN && verdict.state != SVD_SLANTED) return;
    double* const s = p.singular + first;
    for (int k = threadIdx.x; k < verdict.rank; k += THREADS) {
        s[k] = p.lengths[first + k] * (svd.tall_is_scaled ? 1 : sqrt(svd.values[first + k]));
    }
    __syncthreads();
    for (int k = threadIdx.x; k < verdict.rank; k += THREADS) {
        int place = 0;
        for (int other = 0; other < verdict.rank; other++) place += s[other] > s[k] || (s[other] == s[k] && other < k);
        p.order[first + place] = k;
        if (svd.s) svd.s[first + place] = float(s[k]);
    }
    for (int k = verdict.rank + threadIdx.x; k < svd.columns && svd.s; k += THREADS) svd.s[first + k] = 0;
    double left = svd.energy[index];
    for (int k = 0; k < verdict.rank; k++) left -= svd.values[first + k];
    if (threadIdx.x == 0) {
        const float tail = float(sqrt(fmax(left, 0.0) / svd.energy[index]));
        svd.verdicts[index] = {solved_state(svd, verdict.notes), verdict.rank, tail, verdict.notes};
    }
}

// What makes the entry of largest magnitude in each column of a wide matrix's V, which is its tall factor, positive: a
// column a warp.
KERNEL(svd_broad_signs, BroadParams, 256) {
    const SvdParams& svd = p.svd;
    const SvdVerdict verdict = svd.verdicts[matrix_index()];
    const int column = blockIdx.x * WARPS + warp_index();
    if (!is_solved(verdict.state) || column >= verdict.rank) return;
    const float* const tall = static_cast<const float*>(svd.tall) + matrix_index() * svd.rows * svd.columns + column;
    const float sign = sign_of(svd.rows, [&](int row) { return tall[int64_t(row) * svd.columns]; });
    if (lane_index() == 0) p.signs[columns_of(p) + column] = sign;
}

// An entry of the tall factor, NaN or zeros and ones where there is none.
__device__ __forceinline__ float filling(const SvdVerdict& verdict, int row, int k, bool scaled) {
    if (verdict.state != SVD_ZERO) return NAN;
    return row == k && k < verdict.rank && !scaled ? 1 : 0;
}

// Writes both factors, their columns in order.
KERNEL(svd_broad_write, BroadParams, 256) {
    const SvdParams& svd = p.svd;
    const int64_t index = matrix_index(), first = columns_of(p);
    const SvdVerdict verdict = svd.verdicts[index];
    const bool solved = is_solved(verdict.state);
    const int start = blockIdx.x * SVD_TILE, end = min(start + SVD_TILE, svd.rows);
    for (int k = threadIdx.x; k < svd.columns && !solved && start == 0 && svd.s; k += THREADS) {
        svd.s[first + k] = verdict.state == SVD_ZERO ? 0 : NAN;
    }
    if (svd.values_only) return;
    const float* const tall = static_cast<const float*>(svd.tall) + index * svd.rows * svd.columns;
    for (int k = lane_index(); k < svd.columns; k += 32) {
        const int from = solved && k < verdict.rank ? p.order[first + k] : -1;
        const float sign = from >= 0 && svd.wide ? p.signs[first + from] : 1;
        const double scale = from >= 0 && svd.small_is_scaled ? p.singular[first + from] * sign : sign;
        for (int row = start + warp_index(); row < end; row += WARPS) {
            float x = 0, y = 0;
            if (from >= 0) {
                x = tall[int64_t(row) * svd.columns + from] * sign;
                if (row < svd.width) y = float(svd.basis[(first + from) * svd.width + row] * scale);
            } else if (!solved) {
                x = filling(verdict, row, k, svd.tall_is_scaled), y = filling(verdict, row, k, svd.small_is_scaled);
            }
            store_entry(svd.out_tall, svd.factors, (index * svd.rows + row) * svd.columns + k, x);
            if (row < svd.width) store_entry(svd.small, svd.factors, (index * svd.width + row) * svd.columns + k, y);
        }
    }
}
