// The beginning and the end of large matrices' sketches: energies, ranks, signs. Between them is what other kernels do.
#define LEAST_BLOCKS 2
#include "svd/spectrum.cuh"

// The sum of the squares of the rows that this block has.
KERNEL(svd_energy, SketchParams, 256) {
    DYN_SMEM(smem);
    const int64_t index = p.a.first + matrix_index();
    const int64_t start = index / p.a.inner * p.a.outer_stride + index % p.a.inner * p.a.inner_stride;
    const int each = (p.rows + p.parts - 1) / p.parts, first = blockIdx.x * each, count = min(each, p.rows - first);
    // Neighbouring threads read neighbouring elements in either orientation.
    const bool by_rows = p.a.column_stride == 1;
    const int minor = by_rows ? p.summed : count;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < int64_t(count) * p.summed; i += THREADS) {
        const int64_t row = first + (by_rows ? i / minor : i % minor), column = by_rows ? i % minor : i / minor;
        const double x = load_number(p.a.at, p.a.dtype, start + row * p.a.row_stride + column * p.a.column_stride);
        sum += x * x;
    }
    sum = block_sum(sum, reinterpret_cast<double*>(smem));
    if (threadIdx.x == 0) p.sums[(matrix_index() * 2 + p.which) * p.parts + blockIdx.x] = sum;
}

__device__ __forceinline__ double energy_of(const SketchParams& p, int which) {
    double energy = 0;
    for (int part = 0; part < p.parts; part++) energy += p.sums[(matrix_index() * 2 + which) * p.parts + part];
    return energy;
}

// Opens the matrices that are to be sketched.
KERNEL(svd_sketch_begin, SketchParams, 32) {
    if (threadIdx.x != 0) return;
    const double energy = energy_of(p, 0);
    const uint32_t state = !(energy <= MOST_ENERGY) ? SVD_NON_FINITE : energy == 0 ? SVD_ZERO : SVD_OPEN;
    p.space[matrix_index()] = {state, p.block, 0, 0};
}

// Concludes: the rank that a tolerance asks for, and the energy that is left out.
KERNEL(svd_sketch_finish, SketchParams, 32) {
    if (threadIdx.x != 0) return;
    SvdVerdict& verdict = p.verdicts[matrix_index()];
    const uint32_t state = p.space[matrix_index()].state;
    const SvdVerdict inner = p.inner[matrix_index()];
    if (state == SVD_ZERO) {
        verdict = {SVD_ZERO, p.relative < 0 ? p.columns : 0, 0, 0};
        return;
    }
    if (state != SVD_OPEN || !is_solved(inner.state)) {
        verdict = {state != SVD_OPEN ? state : uint32_t(SVD_STUCK), 0, NAN, 0};
        return;
    }
    const double energy = energy_of(p, 0), held = energy_of(p, 1), tail = inner.tail;
    const double tolerated = energy * (p.relative * p.relative - OUTPUT_ROUNDING * OUTPUT_ROUNDING);
    double left = fmax(energy - held, 0.0) + tail * tail * held;
    int rank = inner.rank;
    for (; p.relative >= 0 && rank > 0; rank--) {
        const double s = p.s[matrix_index() * p.columns + rank - 1];
        if (left + s * s > tolerated) break;
        left += s * s;
    }
    verdict = {inner.state | SVD_SKETCHED, rank, float(sqrt(left / energy)), 0};
}

// Writes s and both factors, a column a warp, the signs of V fixed.
KERNEL(svd_sketch_write, SketchParams, 256) {
    const int64_t index = matrix_index();
    const SvdVerdict verdict = p.verdicts[index];
    const bool solved = is_solved(verdict.state & ~SVD_SKETCHED);
    const int k = blockIdx.x * WARPS + warp_index();
    if (k >= p.columns) return;
    const bool kept = solved && k < verdict.rank;
    const float none = solved || verdict.state == SVD_ZERO ? 0 : NAN;
    const float s = kept ? p.s[index * p.columns + k] : none;
    if (p.out_s && lane_index() == 0) p.out_s[index * p.columns + k] = s;
    if (p.values_only) return;
    const int64_t tall = index * p.rows * p.columns + k, small = index * p.width * p.columns + k;
    const float* const v = p.wide ? p.tall + tall : p.small + small;
    float sign = 1;
    if (kept) sign = sign_of(p.wide ? p.rows : p.width, [&](int row) { return v[int64_t(row) * p.columns]; });
    const auto put = [&](const float* from, void* to, int64_t start, int rows, float scale, bool scaled) {
        for (int row = lane_index(); row < rows; row += 32) {
            const int64_t at = start + int64_t(row) * p.columns;
            const bool one = verdict.state == SVD_ZERO && row == k && k < verdict.rank && !scaled;
            store_entry(to, p.factors, at, kept ? from[at] * scale : one ? 1 : none);
        }
    };
    put(p.tall, p.out_tall, tall, p.rows, sign, p.tall_is_scaled);
    put(p.small, p.out_small, small, p.width, p.small_is_scaled ? sign * s : sign, p.small_is_scaled);
}
