// Philox4x32-10, bit for bit what src/philox.rs computes. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3".
#pragma once
#include "kernel.cuh"

__device__ __forceinline__ uint4 philox4x32(uint4 counter, uint2 key) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        if (round > 0) {
            key.x += 0x9E3779B9u;
            key.y += 0xBB67AE85u;
        }
        const uint32_t a = counter.x, b = counter.z;
        counter = make_uint4(__umulhi(b, 0xCD9E8D57u) ^ counter.y ^ key.x, b * 0xCD9E8D57u,
                             __umulhi(a, 0xD2511F53u) ^ counter.w ^ key.y, a * 0xD2511F53u);
    }
    return counter;
}

// Random words 4 * block to 4 * block + 3 of a matrix under a seed.
__device__ __forceinline__ uint4 random_words(uint64_t seed, uint64_t matrix, uint64_t block) {
    return philox4x32(make_uint4(uint32_t(block), uint32_t(block >> 32), uint32_t(matrix), uint32_t(matrix >> 32)),
                      make_uint2(uint32_t(seed), uint32_t(seed >> 32)));
}

// A number in (0, 1), never 0 or 1.
__device__ __forceinline__ float random_unit(uint32_t bits) {
    return (float(bits >> 9) + 0.5f) * (1.0f / float(1 << 23));
}

// Two standard normal numbers from two random words (Box-Muller), equal to the CPU's up to the last bits of log and
// cos.
__device__ __forceinline__ float2 random_normals(uint32_t first, uint32_t second) {
    const float radius = sqrtf(-2.0f * logf(random_unit(first)));
    const float angle = 6.283185307179586f * random_unit(second);
    return make_float2(radius * cosf(angle), radius * sinf(angle));
}
