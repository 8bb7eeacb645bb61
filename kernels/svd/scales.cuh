// What columns of A V are divided by.
#pragma once
#include "svd/matrix.cuh"

// 1 / s of the columns from `first`, or 1; zero beyond the rank.
template <class T> __device__ __forceinline__ void load_scales(T* scales, const SvdParams& p, int first) {
    const int64_t index = matrix_index();
    const int column = first + threadIdx.x;
    if (threadIdx.x >= SVD_PROJECTED) return;
    T scale = 0;
    if (column < p.verdicts[index].rank) scale = p.tall_is_scaled ? T(1) : T(1 / sqrt(p.values[index * p.columns + column]));
    scales[threadIdx.x] = scale;
}
