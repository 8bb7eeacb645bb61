// x <- x + y: a thread an element.
#include "device/kernel.cuh"
#include "nn/params.h"

KERNEL(nn_add_f32, AddParams, 256) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < p.count) p.x[i] += p.y[i];
}
