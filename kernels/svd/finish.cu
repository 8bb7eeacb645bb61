// Matrices that were projected: judged by their moments, or their columns orthogonalized one by one.
#include "svd/columns.cuh"
#include "svd/finish.cuh"

KERNEL(svd_finish, SvdParams, 256) {
    DYN_SMEM(smem);
    if (p.verdicts[matrix_index()].state == SVD_CHOSEN) judge(p, smem);
}

// Orthonormalizes the columns of tall one by one, scaling s by what is left of each; columns that hold rounding only
// are replaced by orthonormal ones, with s = 0.
KERNEL(svd_orthogonalize, SvdParams, 256) {
    DYN_SMEM(smem);
    const uint32_t state = p.verdicts[matrix_index()].state;
    if (state == SVD_OPEN || state == SVD_STUCK) conclude(p, matrix_index(), SVD_STUCK, 0);
    if (state != SVD_SKEWED) return;
    const Factor factor = load(p, smem);
    Shared& shared = factor.shared;
    const Columns at{static_cast<float*>(p.tall) + matrix_index() * p.rows * p.columns,
                     p.rows,
                     p.columns,
                     shared.products,
                     shared.reduction,
                     shared.rows};
    for (int column = 0; column < factor.rank; column++) {
        const double share = orthogonalize(at, column);
        if (threadIdx.x == 0) shared.s[column] *= sqrt(shared.diagonal[column]) * share;
    }
    __syncthreads();
    accept(p, factor, false, left_out(p, factor));
}
