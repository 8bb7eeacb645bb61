// Sums over a block through shared memory. Blocks of 128 threads, 1024 bytes of shared memory.
//
// With a FAULT_ defined: what the plain build tells (words of the error, "output" where only results differ under some
// schedule, - where nothing may), what the checked build tells, and what is wrong.
//
// FAULT_MISSING_BARRIER    output     uninitialised  no barrier between the partial sums and their readers
// FAULT_OVERWRITTEN        output     race           no barrier before the partial sums are overwritten
// FAULT_MISSING_SYNCWARP   output     uninitialised  lanes read what others of their warp have yet to write
// FAULT_DIVERGENT_BARRIER  divergent  divergent      half of the block waits at another barrier
// FAULT_EARLY_EXIT         exit       exit           a thread returns while the others wait
// FAULT_MASK               mask       mask           a lane is missing from the mask of its own shuffle
// FAULT_DEADLOCK           deadlock   deadlock       a named barrier waits for more threads than come
#include "device/kernel.cuh"
#include "params.h"

KERNEL(fault_barriers, FaultParams, 128) {
    DYN_SMEM(smem);
    uint32_t* values = reinterpret_cast<uint32_t*>(smem);
    uint32_t* sums = values + 128;
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, i = blockIdx.x * 128 + thread;
    const uint32_t x = static_cast<const uint32_t*>(p.input)[i];

    values[thread] = x;
#ifndef FAULT_MISSING_SYNCWARP
    __syncwarp();
#endif
    const uint32_t neighbour = values[warp * 32 + (lane + 1) % 32];

    uint32_t total = 0;
    for (int round = 0; round < 2; round++) {
        uint32_t sum = round ? neighbour * 3 : x;
        for (int lanes = 16; lanes > 0; lanes /= 2) {
#ifdef FAULT_MASK
            sum += __shfl_xor_sync(0x7fffffffu, sum, lanes);
#else
            sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
#endif
        }
        if (lane == 0) sums[warp] = sum;
#ifdef FAULT_EARLY_EXIT
        if (thread == 77) return;
#endif
#ifdef FAULT_DIVERGENT_BARRIER
        if (warp < 2) __syncthreads();
        else __syncthreads();
#elif !defined(FAULT_MISSING_BARRIER)
        __syncthreads();
#endif
        for (int w = 0; w < 4; w++) total += sums[w] * uint32_t(round * 4 + w + 1);
#ifndef FAULT_OVERWRITTEN
        __syncthreads();
#endif
    }
    // The two halves of the block meet at barriers of their own.
#ifdef FAULT_DEADLOCK
    barrier_sync(1 + warp / 2, 96);
#else
    barrier_sync(1 + warp / 2, 64);
#endif
    static_cast<uint32_t*>(p.output)[i] = total + neighbour;
}
