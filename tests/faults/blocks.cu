// Sums over all blocks, by the block that arrives last. Blocks of 128 threads, 1024 bytes of shared memory.
//
// With a FAULT_ defined: what the plain build tells (words of the error, "output" where only results differ under some
// schedule, - where nothing may), what the checked build tells, and what is wrong.
//
// FAULT_MISSING_FENCE    -       race  partial sums are published without a __threadfence
// FAULT_MISSING_ACQUIRE  -       race  the last block reads them without one
// FAULT_GLOBAL_RACE      output  race  every block adds to one word without an atomic
#include "device/kernel.cuh"
#include "params.h"

KERNEL(fault_blocks, FaultParams, 128) {
    DYN_SMEM(smem);
    uint32_t* values = reinterpret_cast<uint32_t*>(smem);
    uint32_t* last = values + 128;
    unsigned* counter = static_cast<unsigned*>(p.scratch);
    uint32_t* sums = static_cast<uint32_t*>(p.scratch) + 1;
    const int thread = threadIdx.x, i = blockIdx.x * 128 + thread;
    values[thread] = static_cast<const uint32_t*>(p.input)[i];
    __syncthreads();
    if (thread == 0) {
        uint32_t sum = 0;
        for (int k = 0; k < 128; k++) sum += values[k];
#ifdef FAULT_GLOBAL_RACE
        sums[0] += sum;
#else
        sums[blockIdx.x] = sum;
#endif
#ifndef FAULT_MISSING_FENCE
        __threadfence();
#endif
        *last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
#ifndef FAULT_MISSING_ACQUIRE
        __threadfence();
#endif
    }
    __syncthreads();
    if (!*last) return;
    uint32_t total = 0;
    for (unsigned block = 0; block < gridDim.x; block++) total += sums[block] * (block + 1);
    for (int k = thread; k < p.count; k += 128) static_cast<uint32_t*>(p.output)[k] = total + uint32_t(k);
}
