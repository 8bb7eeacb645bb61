// Joins the splits of each sequence by log-sum-exp, in token order, and decodes the values of each segment once.
#include "attention/decoder.cuh"
#include "attention/params.h"
#include "device/kernel.cuh"

constexpr int THREADS = 128;

KERNEL(attention_combine, CombineParams, 128) {
    DYN_SMEM(smem);
    float* latent = reinterpret_cast<float*>(smem);    // [width]
    float* out = latent + p.width;                     // [head_dim], each element its thread's own
    const int head = blockIdx.y, kv_head = head / (p.n_heads / p.n_kv_heads);
    const int first = p.first_segment[blockIdx.x], last = p.first_segment[blockIdx.x + 1] - 1;
    const int end = p.segments[last].first_split + p.segments[last].splits;

    float peak = -INFINITY;
#pragma unroll 1
    for (int split = p.segments[first].first_split; split < end; split++)
        peak = fmaxf(peak, p.peaks[int64_t(split) * p.n_heads + head]);
    for (int j = threadIdx.x; j < p.head_dim; j += THREADS) out[j] = 0.f;

    float total = 0.f;
    for (int index = first; index <= last; index++) {
        const Segment& segment = p.segments[index];
        const int rank = segment.value_rank;
        float share = 0.f;
        for (int i = 0; i < segment.splits; i++) {
            const int64_t row = int64_t(segment.first_split + i) * p.n_heads + head;
            const float weight = exp2f(p.peaks[row] - peak);
            share += weight * p.sums[row];
            for (int column = threadIdx.x; column < rank; column += THREADS)
                latent[column] = (i == 0 ? 0.f : latent[column]) + weight * p.latents[row * p.width + column];
        }
        total += share;
        __syncthreads();
        for (int j = threadIdx.x; j < p.head_dim; j += THREADS) {
            const int64_t row = (int64_t(kv_head) * p.head_dim + j) * rank;
            float sum = segment.value_matrix ? dot(segment.value_matrix, segment.value_dtype, row, 1, latent, rank)
                                             : latent[j];
            if (segment.value_mean) sum += share * segment.value_mean[kv_head * p.head_dim + j];
            out[j] += sum;
        }
        __syncthreads();    // the next segment's latent overwrites this one
    }
    float* to = p.out + (int64_t(blockIdx.x) * p.n_heads + head) * p.head_dim;
    for (int j = threadIdx.x; j < p.head_dim; j += THREADS) to[j] = out[j] / total;
}
