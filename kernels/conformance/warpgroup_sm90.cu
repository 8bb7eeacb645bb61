// As warp.cu, for what only Hopper has: one warpgroup a kernel.
#include "conformance/params.h"
#include "device/sm90.cuh"

// Where matrices for wgmma and tiles begin: the first multiple of 1024.
__device__ __forceinline__ unsigned char* first_tile(unsigned char* smem) {
    return reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(smem) + 1023) & ~uintptr_t(1023));
}
__device__ __forceinline__ void copy_words(uint32_t* to, const uint32_t* from, int words) {
    for (int i = threadIdx.x; i < words; i += 128) to[i] = from[i];
}

// Input [count] and output [count], count a multiple of 4: there and back by bulk copies.
KERNEL(conformance_bulk_copy, ConformanceParams, 128) {
    DYN_SMEM(smem);
    uint64_t* barrier = reinterpret_cast<uint64_t*>(smem);
    uint32_t* words = reinterpret_cast<uint32_t*>(smem + 128);
    if (threadIdx.x == 0) {
        mbar_init(barrier, 1);
        mbar_fence_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbar_expect_tx(barrier, p.count * 4);
        bulk_load(words, p.input, uint32_t(p.count) * 4, barrier);
    }
    mbar_wait(barrier, 0);
    for (int i = threadIdx.x; i < p.count; i += 128) words[i] ^= 0x01000001u;
    fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        bulk_store(p.output, words, uint32_t(p.count) * 4);
        bulk_commit();
        bulk_wait<0>();
    }
}

// Output [2048]: the tile at (x, y) as it lies in shared memory.
KERNEL(conformance_tma_load, ConformanceParams, 128) {
    DYN_SMEM(smem);
    unsigned char* tile = first_tile(smem);
    uint64_t* barrier = reinterpret_cast<uint64_t*>(tile + 8192);
    if (threadIdx.x == 0) {
        mbar_init(barrier, 1);
        mbar_fence_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        const TensorMap* map = static_cast<const TensorMap*>(p.map);
        mbar_expect_tx(barrier, 8192);
        fence_tensor_map(map);
        tma_load_2d(tile, map, barrier, p.x, p.y);
    }
    mbar_wait(barrier, 0);
    copy_words(static_cast<uint32_t*>(p.output), reinterpret_cast<const uint32_t*>(tile), 2048);
}

// Input [2048]: a tile as it lies in shared memory, stored at (x, y) of the map's matrix.
KERNEL(conformance_tma_store, ConformanceParams, 128) {
    DYN_SMEM(smem);
    unsigned char* tile = first_tile(smem);
    copy_words(reinterpret_cast<uint32_t*>(tile), static_cast<const uint32_t*>(p.input), 2048);
    fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        const TensorMap* map = static_cast<const TensorMap*>(p.map);
        fence_tensor_map(map);
        tma_store_2d(map, tile, p.x, p.y);
        bulk_commit();
        bulk_wait<0>();
    }
}

// Input [32 lanes, 4], output [32 rows, 4] of a warp's shared memory; mode 1 stores transposed.
KERNEL(conformance_stmatrix, ConformanceParams, 128) {
    DYN_SMEM(smem);
    uint32_t* rows = reinterpret_cast<uint32_t*>(smem);
    if (threadIdx.x >= 32) return;
    const uint32_t* in = static_cast<const uint32_t*>(p.input) + threadIdx.x * 4;
    const uint32_t r[4] = {in[0], in[1], in[2], in[3]};
    if (p.mode == 0) stmatrix_x4(rows + threadIdx.x * 4, r);
    else stmatrix_x4_trans(rows + threadIdx.x * 4, r);
    __syncwarp();
    for (int i = 0; i < 4; i++) static_cast<uint32_t*>(p.output)[threadIdx.x * 4 + i] = rows[threadIdx.x * 4 + i];
}

__device__ __forceinline__ void wgmma_once(float (&d)[16], uint64_t a, uint64_t b, bool transposed) {
    if (transposed) wgmma_m64n32k16<true>(d, a, b, 1, bf16());
    else wgmma_m64n32k16(d, a, b, 1, bf16());
}
__device__ __forceinline__ void wgmma_once(float (&d)[32], uint64_t a, uint64_t b, bool transposed) {
    if (transposed) wgmma_m64n64k16<true>(d, a, b, 1, bf16());
    else wgmma_m64n64k16(d, a, b, 1, bf16());
}
__device__ __forceinline__ void wgmma_once(float (&d)[64], uint64_t a, uint64_t b, bool transposed) {
    if (transposed) wgmma_m64n128k16<true>(d, a, b, 1, bf16());
    else wgmma_m64n128k16(d, a, b, 1, bf16());
}

// Input [a 2048], [b 4096], then [128 lanes, d N / 2]: the matrices as they lie in shared memory, a [64, 64] and b
// [N, 64], or with mode's bit 2 [64, N] in blocks of 64 columns. Mode's bits 0 and 1 are the slice of 16 along k.
// Output [128 lanes, d N / 2].
template <int N> __device__ __forceinline__ void wgmma_case(const ConformanceParams& p, unsigned char* smem) {
    const uint32_t* in = static_cast<const uint32_t*>(p.input);
    unsigned char *a = first_tile(smem), *b = a + 8192;
    copy_words(reinterpret_cast<uint32_t*>(a), in, 2048);
    copy_words(reinterpret_cast<uint32_t*>(b), in + 2048, 4096);
    float d[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) d[i] = __uint_as_float(in[6144 + threadIdx.x * (N / 2) + i]);
    fence_proxy_async();
    __syncthreads();
    const int slice = p.mode & 3;
    const bool transposed = p.mode & 4;
    const uint64_t of_a = wgmma_descriptor_k_major(a) + slice * 2;
    const uint64_t of_b =
        transposed ? wgmma_descriptor_n_major(b, 8192) + slice * 128 : wgmma_descriptor_k_major(b) + slice * 2;
    wgmma_hold(d);
    wgmma_fence();
    wgmma_once(d, of_a, of_b, transposed);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(d);
#pragma unroll
    for (int i = 0; i < N / 2; i++) static_cast<float*>(p.output)[threadIdx.x * (N / 2) + i] = d[i];
}
KERNEL(conformance_wgmma_n32, ConformanceParams, 128) { DYN_SMEM(smem); wgmma_case<32>(p, smem); }
KERNEL(conformance_wgmma_n64, ConformanceParams, 128) { DYN_SMEM(smem); wgmma_case<64>(p, smem); }
KERNEL(conformance_wgmma_n128, ConformanceParams, 128) { DYN_SMEM(smem); wgmma_case<128>(p, smem); }

// Input [128 lanes, a 4], then [b 2048] as above for N = 64, f16; output [128 lanes, 32].
KERNEL(conformance_wgmma_registers, ConformanceParams, 128) {
    DYN_SMEM(smem);
    const uint32_t* in = static_cast<const uint32_t*>(p.input);
    unsigned char* b = first_tile(smem);
    copy_words(reinterpret_cast<uint32_t*>(b), in + 512, 2048);
    const uint32_t* own = in + threadIdx.x * 4;
    const uint32_t a[4] = {own[0], own[1], own[2], own[3]};
    float d[32] = {};
    fence_proxy_async();
    __syncthreads();
    wgmma_hold(d);
    wgmma_fence();
    wgmma_m64n64k16(d, a, wgmma_descriptor_k_major(b) + (p.mode & 3) * 2, 0, f16());
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(d);
#pragma unroll
    for (int i = 0; i < 32; i++) static_cast<float*>(p.output)[threadIdx.x * 32 + i] = d[i];
}
