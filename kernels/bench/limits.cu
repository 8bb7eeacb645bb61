// What a GPU can do at best, measured: reading memory, and multiplying on the tensor cores that every target has.
#include "bench/params.h"
#include "device/mma.cuh"

// Each thread reads 16 bytes at a time, a block's threads side by side, and sums what it read so that no load is dropped.
KERNEL(bench_read, ReadParams, 512) {
    const float4* const data = static_cast<const float4*>(p.data);
    const int64_t stride = int64_t(gridDim.x) * blockDim.x, first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    float sum = 0.f;
    int64_t i = first;
    for (; i + 3 * stride < p.count; i += 4 * stride) {
        float4 v[4];
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = __ldcs(data + i + j * stride);
#pragma unroll
        for (int j = 0; j < 4; j++) sum += (v[j].x + v[j].y) + (v[j].z + v[j].w);
    }
    for (; i < p.count; i += stride) {
        const float4 v = __ldcs(data + i);
        sum += (v.x + v.y) + (v.z + v.w);
    }
    p.sums[first] = sum;
}

// Eight independent accumulators a warp: more than the latency of a product holds.
KERNEL(bench_multiply, MultiplyParams, 256) {
    float d[8][4] = {};
    const uint32_t a[4] = {p.pair, p.pair, p.pair, p.pair};
    for (int step = 0; step < p.steps; step++)
#pragma unroll
        for (int j = 0; j < 8; j++) mma_m16n8k16(d[j], a, p.pair, p.pair, bf16{});
    float sum = 0.f;
#pragma unroll
    for (int j = 0; j < 8; j++) sum += (d[j][0] + d[j][1]) + (d[j][2] + d[j][3]);
    p.sums[int64_t(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}
