// Weights with zeros where a mask keeps nothing; what it keeps is copied bit by bit.
#include "sparse/bytes.cuh"
#include "sparse/params.h"

template <class T> __device__ __forceinline__ void apply(const ApplyParams& p) {
    const Byte at(p.row_bytes);
    if (at.row >= p.rows || at.col >= p.cols) return;
    T elements[8];
    load_eight(elements, static_cast<const T*>(p.weights) + at.row * p.row_stride + at.col, p.cols - at.col);
    const uint32_t byte = p.bits[at.row * p.row_bytes + at.col / 8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (!(byte >> i & 1)) elements[i] = 0;
    store_eight(static_cast<T*>(p.out) + at.row * p.cols + at.col, elements, p.cols - at.col);
}

KERNEL(sparse_apply_32, ApplyParams, 256) { apply<uint32_t>(p); }
KERNEL(sparse_apply_16, ApplyParams, 256) { apply<uint16_t>(p); }
