// Reverses a block's values through shared memory. Blocks of 128 threads, 512 bytes of shared memory; the last block
// may lack values.
//
// With a FAULT_ defined: what the plain build tells (words of the error, "output" where only results differ under some
// schedule, - where nothing may), what the checked build tells, and what is wrong.
//
// FAULT_SHARED_OUT_OF_BOUNDS  out of bounds  out of bounds  a write of one word past the end of shared memory
// FAULT_GLOBAL_OUT_OF_BOUNDS  out of bounds  out of bounds  a read of one word past the end of the input
// FAULT_GLOBAL_WRITE          output         out of bounds  a write of one word before the output
// FAULT_UNINITIALISED         output         uninitialised  a read of shared memory that the last block has not written
// FAULT_MISALIGNED            output         misaligned     a 16-byte read at an address that is no multiple of 16
// FAULT_RACE                  output         race           two threads write one word of shared memory
// FAULT_OVERFLOW              output         undefined      a signed sum that overflows
// FAULT_ASSERT                assertion      assertion      an assertion that does not hold
#include "device/kernel.cuh"
#include "params.h"

KERNEL(fault_memory, FaultParams, 128) {
    DYN_SMEM(smem);
    uint32_t* values = reinterpret_cast<uint32_t*>(smem);
    const uint32_t* input = static_cast<const uint32_t*>(p.input);
    uint32_t* output = static_cast<uint32_t*>(p.output);
    const int thread = threadIdx.x, first = blockIdx.x * 128, i = first + thread;
    int last = p.count;
#ifdef FAULT_GLOBAL_OUT_OF_BOUNDS
    last++;
#endif
    int slot = thread;
#ifdef FAULT_SHARED_OUT_OF_BOUNDS
    slot++;
#endif
#ifdef FAULT_RACE
    slot &= ~1;
#endif
#ifdef FAULT_UNINITIALISED
    if (i < last) values[slot] = input[i];
#else
    values[slot] = i < last ? input[i] : 0;
#endif
    __syncthreads();
    uint32_t x = values[127 - thread];
#ifdef FAULT_MISALIGNED
    const uint4 four = *reinterpret_cast<const uint4*>(values + thread / 2);
#else
    const uint4 four = *reinterpret_cast<const uint4*>(values + thread / 4 * 4);
#endif
    x += four.x ^ four.y ^ four.z ^ four.w;
#ifdef FAULT_OVERFLOW
    const int sum = 0x7fffff00 + p.count;
    x += sum < 0 ? 1 : 2;
#endif
#ifdef FAULT_ASSERT
    assert(x == 0 && p.count < 0);
#endif
#ifdef FAULT_GLOBAL_WRITE
    output -= 1;
#endif
    if (i < p.count) output[i] = x;
}
