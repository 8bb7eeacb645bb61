// Asynchronous 16-byte copies from global to shared memory.
#pragma once
#include "kernel.cuh"

#ifndef LOWKEY_EMULATED

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
// Sixteen bytes; where `pred` is false, zeros, and the source is not read.
__device__ __forceinline__ void cp_async16(void* shared, const void* global, bool pred) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(pred ? 16 : 0)
                 : "memory");
}
// Closes the group of copies issued since the last one.
__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most the N newest groups of this thread are under way. Others need a barrier besides.
template <int N> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#else

inline void cp_async16(void* shared, const void* global, bool pred, EMULATOR_SITE) {
    emulator::cp_async(shared, global, 16, pred ? 16 : 0, site);
}
inline void cp_async_commit(EMULATOR_SITE) {
    emulator::cp_async_commit(site);
}
template <int N> inline void cp_async_wait(EMULATOR_SITE) {
    emulator::cp_async_wait(N, site);
}

#endif
