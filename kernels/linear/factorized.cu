// A factorized layer for few rows, y = (x B') A' + bias: one kernel down to the rank, one kernel up from it.
//
// Weights are read once for eight rows. A row is summed in an order that depends on k alone, so it has the same bits in
// any batch: each lane takes pieces of eight elements, then lanes and warps are added up in a fixed order.
#include "device/kernel.cuh"
#include "device/reduce.cuh"
#include "linear/params.h"

constexpr int WARPS = 4;
constexpr int ROWS = 8;     // of a block
constexpr int PIECE = 8;    // elements

template <class T> struct alignas(16) Piece {
    T at[PIECE];
};

// Elements [first, first + PIECE) of a row of `count`, as floats; zero beyond.
template <class T>
__device__ __forceinline__ void load(float (&out)[PIECE], const T* row, int first, int count, bool whole) {
    if (whole) {
        const Piece<T> piece = *reinterpret_cast<const Piece<T>*>(row + first);
#pragma unroll
        for (int i = 0; i < PIECE; i++) out[i] = to_float(piece.at[i]);
    } else {
#pragma unroll
        for (int i = 0; i < PIECE; i++) out[i] = first + i < count ? to_float(row[first + i]) : 0.f;
    }
}

// `SHARE` warps work on one output.
template <class T, int SHARE> __device__ __forceinline__ void multiply(const FactorParams& p, unsigned char* smem) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int output = blockIdx.x * (WARPS / SHARE) + warp / SHARE;
    const int first_row = blockIdx.y * ROWS, rows = min(ROWS, p.rows - first_row);
    const float* x = p.x + int64_t(first_row) * p.k;
    const T* weight = static_cast<const T*>(p.weight) + int64_t(output) * p.k;
    const auto misaligned = (reinterpret_cast<uintptr_t>(p.weight) | reinterpret_cast<uintptr_t>(p.x)) % 16;
    const bool whole = p.k % PIECE == 0 && misaligned == 0;

    float sums[ROWS] = {};
    if (output < p.n) {
        for (int first = (warp % SHARE * 32 + lane) * PIECE; first < p.k; first += SHARE * 32 * PIECE) {
            float w[PIECE];
            load(w, weight, first, p.k, whole);
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                if (row >= rows) continue;
                float values[PIECE];
                load(values, x + int64_t(row) * p.k, first, p.k, whole);
#pragma unroll
                for (int i = 0; i < PIECE; i++) sums[row] = fmaf(values[i], w[i], sums[row]);
            }
        }
    }
    float sum = 0.f;    // of row `lane`
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        const float all = warp_sum(sums[row]);
        if (lane == row) sum = all;
    }
    if (SHARE > 1) {
        float* partial = reinterpret_cast<float*>(smem);    // [WARPS][ROWS]
        if (lane < ROWS) partial[warp * ROWS + lane] = sum;
        __syncthreads();
        if (warp % SHARE != 0) return;
        for (int other = 1; other < SHARE; other++)
            if (lane < ROWS) sum += partial[(warp + other) * ROWS + lane];
    }
    if (lane < rows && output < p.n) {
        if (p.bias) sum += p.bias[output];
        p.y[int64_t(first_row + lane) * p.n + output] = sum;
    }
}

KERNEL(linear_factorized_down_f32, FactorParams, 128) { DYN_SMEM(smem); multiply<float, 4>(p, smem); }
KERNEL(linear_factorized_down_f16, FactorParams, 128) { DYN_SMEM(smem); multiply<f16, 4>(p, smem); }
KERNEL(linear_factorized_down_bf16, FactorParams, 128) { DYN_SMEM(smem); multiply<bf16, 4>(p, smem); }
KERNEL(linear_factorized_up_f32, FactorParams, 128) { DYN_SMEM(smem); multiply<float, 1>(p, smem); }
KERNEL(linear_factorized_up_f16, FactorParams, 128) { DYN_SMEM(smem); multiply<f16, 1>(p, smem); }
KERNEL(linear_factorized_up_bf16, FactorParams, 128) { DYN_SMEM(smem); multiply<bf16, 1>(p, smem); }
