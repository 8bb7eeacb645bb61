// The last steps for every matrix: the tall factor of those that are not done yet, NaN or zeros where there is none, and
// signs.
#include "svd/mix.cuh"

// NaN everywhere, or orthonormal factors of a matrix of zeros.
__device__ __forceinline__ void fill(const SvdParams& p, int start, int end, uint32_t state, int rank) {
    const int64_t index = matrix_index();
    const bool zero = state == SVD_ZERO;
    for (int row = start + warp_index(); row < end; row += WARPS) {
        for (int k = lane_index(); k < p.columns; k += 32) {
            const float none = zero ? 0 : NAN, one = zero && row == k && k < rank ? 1 : none;
            if (row == 0 && p.s) p.s[index * p.columns + k] = none;
            if (p.values_only) continue;
            store_entry(p.out_tall, p.factors, (index * p.rows + row) * p.columns + k, p.tall_is_scaled ? none : one);
            if (row >= p.width) continue;
            store_entry(p.small, p.factors, (index * p.width + row) * p.columns + k, p.small_is_scaled ? none : one);
        }
    }
}

KERNEL(svd_mix, SvdParams, 256) {
    DYN_SMEM(smem);
    const int start = chunk_index() * SVD_CHUNK_ROWS, end = min(start + SVD_CHUNK_ROWS, p.rows);
    const SvdVerdict verdict = p.verdicts[matrix_index()];
    if (!is_solved(verdict.state)) return fill(p, start, end, verdict.state, verdict.rank);
    if (p.values_only || verdict.notes & SVD_ARRANGED) return;
    mix_rows<MAX_WIDTH>(p, smem, verdict.rank, start, end);
}

// Makes the entry of largest magnitude in each column of a wide matrix's V, which is its tall factor, positive.
KERNEL(svd_signs, SvdParams, 256) {
    DYN_SMEM(smem);
    float* largest = reinterpret_cast<float*>(smem);       // [THREADS] candidates
    int* at = reinterpret_cast<int*>(largest + THREADS);  // and their rows
    const int64_t index = matrix_index();
    if (!is_solved(p.verdicts[index].state)) return;
    const int64_t tall = index * p.rows * p.columns, small = index * p.width * p.columns;
    const int column = threadIdx.x % MAX_WIDTH, half = threadIdx.x / MAX_WIDTH;
    largest[threadIdx.x] = 0;
    at[threadIdx.x] = p.rows;
    for (int row = half; column < p.columns && row < p.rows; row += THREADS / MAX_WIDTH) {
        const float x = load_entry(p.out_tall, p.factors, tall + int64_t(row) * p.columns + column);
        if (fabsf(x) > fabsf(largest[threadIdx.x])) largest[threadIdx.x] = x, at[threadIdx.x] = row;
    }
    __syncthreads();
    const float a = largest[column], b = largest[column + MAX_WIDTH];
    const bool first = fabsf(a) > fabsf(b) || (fabsf(a) == fabsf(b) && at[column] < at[column + MAX_WIDTH]);
    if (column >= p.columns || (first ? a : b) >= 0) return;
    const auto turn = [&](void* factor, int64_t i) {
        store_entry(factor, p.factors, i, -load_entry(factor, p.factors, i));
    };
    for (int row = half; row < p.rows; row += THREADS / MAX_WIDTH) turn(p.out_tall, tall + int64_t(row) * p.columns + column);
    for (int row = half; row < p.width; row += THREADS / MAX_WIDTH) turn(p.small, small + int64_t(row) * p.columns + column);
}
