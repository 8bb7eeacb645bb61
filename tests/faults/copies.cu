// Streams tiles through two buffers of shared memory by cp.async. Blocks of 128 threads, 4096 bytes of shared memory;
// each block goes through the whole input, in tiles of 512 words, of which count is a multiple.
//
// With a FAULT_ defined: what the plain build tells (words of the error, "output" where only results differ under some
// schedule, - where nothing may), what the checked build tells, and what is wrong.
//
// FAULT_WEAK_WAIT             output         race                the wait leaves one group too many under way
// FAULT_MISSING_BARRIER       output         race|uninitialised  a wait for one's own copies alone
// FAULT_OVERWRITTEN           output         race                the next copy begins while the tile is still read
// FAULT_MISALIGNED            misaligned     misaligned          a copy to an address that is no multiple of 16
// FAULT_GLOBAL_OUT_OF_BOUNDS  out of bounds  out of bounds       one tile more than there is
#include "device/copy.cuh"
#include "params.h"

__device__ __forceinline__ void fetch(uint32_t* tile, const uint32_t* input, int index) {
#ifdef FAULT_MISALIGNED
    cp_async16(tile + threadIdx.x * 4 + 1, input + index * 512 + threadIdx.x * 4, true);
#else
    cp_async16(tile + threadIdx.x * 4, input + index * 512 + threadIdx.x * 4, true);
#endif
    cp_async_commit();
}

KERNEL(fault_copies, FaultParams, 128) {
    DYN_SMEM(smem);
    uint32_t* tiles = reinterpret_cast<uint32_t*>(smem);
    const uint32_t* input = static_cast<const uint32_t*>(p.input);
    const int thread = threadIdx.x;
    int count = p.count / 512;
#ifdef FAULT_GLOBAL_OUT_OF_BOUNDS
    count++;
#endif
    uint32_t sum = 0;
    fetch(tiles, input, 0);
    for (int t = 0; t < count; t++) {
        if (t + 1 < count) {
            fetch(tiles + (t + 1) % 2 * 512, input, t + 1);
#ifdef FAULT_WEAK_WAIT
            cp_async_wait<2>();
#else
            cp_async_wait<1>();
#endif
        } else {
#ifdef FAULT_WEAK_WAIT
            cp_async_wait<1>();
#else
            cp_async_wait<0>();
#endif
        }
#ifndef FAULT_MISSING_BARRIER
        __syncthreads();
#endif
        for (int k = 0; k < 4; k++) sum = sum * 31 + tiles[t % 2 * 512 + (127 - thread) + 128 * k];
#ifndef FAULT_OVERWRITTEN
        __syncthreads();
#endif
    }
    static_cast<uint32_t*>(p.output)[blockIdx.x * 128 + thread] = sum;
}
