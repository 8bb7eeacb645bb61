// A product of one warpgroup, its operands made by ordinary stores, its result sent by a bulk copy. Blocks of 128
// threads, 34304 bytes of shared memory; input [4096] words are two matrices [64, 64] bf16 as they lie in shared
// memory, output [blocks, 4096].
//
// With a FAULT_ defined: what the plain build tells (words of the error, "output" where only results differ under some
// schedule, - where nothing may), what the checked build tells, and what is wrong.
//
// FAULT_MISSING_PROXY_FENCE  -            fence.proxy.async  ordinary stores are not fenced ahead of wgmma
// FAULT_MISSING_STORE_FENCE  -            fence.proxy.async  ordinary stores are not fenced ahead of the bulk store
// FAULT_MISSING_INIT_FENCE   -            fence.proxy.async  the copy engine may not see the mbarrier's initialisation
// FAULT_ACCUMULATOR_READ     output       accumulator        the result is read before wgmma.wait
// FAULT_ACCUMULATOR_WRITTEN  accumulator  accumulator        the result is changed before wgmma.wait
// FAULT_MISSING_WGMMA_FENCE  wgmma.fence  wgmma.fence        registers are not fenced ahead of wgmma
// FAULT_MISSING_COMMIT       committed    accumulator        products are not committed
// FAULT_OPERAND_OVERWRITTEN  output       race               an operand is overwritten before wgmma.wait
// FAULT_DESCRIPTOR           descriptor   descriptor         a matrix begins at no multiple of 1024
// FAULT_MISSING_MBAR_WAIT    waited for   race               a bulk copy is not waited for
// FAULT_MBAR_BYTES           deadlock     deadlock           an mbarrier waits for more bytes than are copied
// FAULT_STORE_NOT_AWAITED    waited for   waited for         the block ends before its bulk store is done
#include "device/sm90.cuh"
#include "params.h"

KERNEL(fault_hopper, FaultParams, 128) {
    DYN_SMEM(smem);
    unsigned char* a = reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(smem) + 1023) & ~uintptr_t(1023));
    unsigned char* b = a + 8192;
    float* result = reinterpret_cast<float*>(a + 16384);
    uint64_t* barrier = reinterpret_cast<uint64_t*>(a + 32768);
    const uint32_t* input = static_cast<const uint32_t*>(p.input);
    const int thread = threadIdx.x;

    if (thread == 0) {
        mbar_init(barrier, 1);
#ifndef FAULT_MISSING_INIT_FENCE
        mbar_fence_init();
#endif
    }
    __syncthreads();
    if (thread == 0) {
#ifdef FAULT_MBAR_BYTES
        mbar_expect_tx(barrier, 8192 + 16);
#else
        mbar_expect_tx(barrier, 8192);
#endif
        bulk_load(b, input + 2048, 8192, barrier);
    }
    for (int i = thread; i < 2048; i += 128) reinterpret_cast<uint32_t*>(a)[i] = input[i];
#ifndef FAULT_MISSING_PROXY_FENCE
    fence_proxy_async();
#endif
    __syncthreads();
#ifndef FAULT_MISSING_MBAR_WAIT
    mbar_wait(barrier, 0);
#endif

    float d[32];
#pragma unroll
    for (int i = 0; i < 32; i++) d[i] = 0.0f;
    uint64_t of_a = wgmma_descriptor_k_major(a);
    const uint64_t of_b = wgmma_descriptor_k_major(b);
#ifdef FAULT_DESCRIPTOR
    of_a = wgmma_descriptor_k_major(a + 128);
#endif
    wgmma_hold(d);
#ifndef FAULT_MISSING_WGMMA_FENCE
    wgmma_fence();
#endif
#pragma unroll
    for (int k = 0; k < 4; k++) wgmma_m64n64k16(d, of_a + 2 * k, of_b + 2 * k, 1, bf16());
#ifndef FAULT_MISSING_COMMIT
    wgmma_commit();
#endif
    float early = 0.0f;
#ifdef FAULT_ACCUMULATOR_READ
    early = d[3];
#endif
#ifdef FAULT_ACCUMULATOR_WRITTEN
    d[3] *= 2.0f;
#endif
#ifdef FAULT_OPERAND_OVERWRITTEN
    reinterpret_cast<uint32_t*>(a)[thread] = 0;
#endif
    wgmma_wait<0>();
    wgmma_hold(d);

#pragma unroll
    for (int i = 0; i < 32; i++) result[thread * 32 + i] = d[i] + early;
#ifndef FAULT_MISSING_STORE_FENCE
    fence_proxy_async();
#endif
    __syncthreads();
    if (thread == 0) {
        bulk_store(static_cast<float*>(p.output) + blockIdx.x * 4096, result, 16384);
        bulk_commit();
#ifndef FAULT_STORE_NOT_AWAITED
        bulk_wait<0>();
#endif
    }
}
