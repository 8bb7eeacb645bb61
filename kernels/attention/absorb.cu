// Rotates and scales queries, and takes each segment's key decoder into them: q K' = (q D) A' + q mean.
#include "attention/decoder.cuh"
#include "attention/params.h"
#include "device/kernel.cuh"
#include "device/reduce.cuh"
#include "device/rope.cuh"

constexpr int THREADS = 128;

// Reads a query, turned to its position.
__device__ __forceinline__ void load_query(float* query, const AbsorbParams& p, const float* q, int position) {
    if (p.cos) {
        const int pairs = p.head_dim / 2;
        for (int j = threadIdx.x; j < pairs; j += THREADS) {
            const int64_t turn = int64_t(position) * pairs + j;
            const float2 turned = rotate_pair(make_float2(q[j], q[j + pairs]), p.cos[turn], p.sin[turn]);
            query[j] = p.scale * turned.x;
            query[j + pairs] = p.scale * turned.y;
        }
    } else {
        for (int j = threadIdx.x; j < p.head_dim; j += THREADS) query[j] = p.scale * q[j];
    }
}

KERNEL(attention_absorb, AbsorbParams, 128) {
    DYN_SMEM(smem);
    float* query = reinterpret_cast<float*>(smem);    // [head_dim]
    const Segment& segment = p.segments[blockIdx.x];
    const int head = blockIdx.y, kv_head = head / (p.n_heads / p.n_kv_heads);
    const float* q = p.q + segment.sequence * p.q_sequence_stride + head * p.q_head_stride;
    load_query(query, p, q, segment.position);
    __syncthreads();

    const int rank = segment.key_rank;
    const int64_t row = int64_t(blockIdx.x) * p.n_heads + head;
    for (int column = threadIdx.x; column < p.width; column += THREADS) {
        float sum = 0.f;
        if (column < rank) {
            const int64_t first = int64_t(kv_head) * p.head_dim * rank + column;
            sum = segment.key_matrix ? dot(segment.key_matrix, segment.key_dtype, first, rank, query, p.head_dim)
                                     : query[column];
        }
        p.absorbed[row * p.width + column] = sum;
    }
    if (threadIdx.x < 32) {
        float bias = 0.f;
        if (segment.key_mean) {
            const float* mean = segment.key_mean + kv_head * p.head_dim;
            for (int j = threadIdx.x; j < p.head_dim; j += 32) bias += query[j] * mean[j];
        }
        bias = warp_sum(bias);
        if (threadIdx.x == 0) p.bias[row] = bias;
    }
}
