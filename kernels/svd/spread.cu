// Results of a segment put among those of the others: NaN or zeros in the columns that it has too few rows for.
#include "svd/matrix.cuh"

KERNEL(svd_spread, SpreadParams, 256) {
    const int64_t index = matrix_index();
    const uint32_t state = p.verdicts[index].state;
    const bool fails = !is_solved(state) && state != SVD_ZERO;
    for (int row = blockIdx.x * WARPS + warp_index(); row < p.rows; row += gridDim.x * WARPS) {
        const int64_t from = (index * p.rows + row) * p.from_columns, to = index * p.to_stride + int64_t(row) * p.columns;
        for (int k = lane_index(); k < p.columns; k += 32) {
            if (p.dtype == SVD_F32) {
                const uint32_t filling = fails ? 0x7fffffffu : 0;
                const uint32_t x = k < p.from_columns ? static_cast<const uint32_t*>(p.from)[from + k] : filling;
                static_cast<uint32_t*>(p.to)[to + k] = x;
            } else {
                const uint16_t filling = fails ? 0x7fffu : 0;
                const uint16_t x = k < p.from_columns ? static_cast<const uint16_t*>(p.from)[from + k] : filling;
                static_cast<uint16_t*>(p.to)[to + k] = x;
            }
        }
    }
}
