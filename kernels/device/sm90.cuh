// Hopper: mbarriers, bulk and tensor copies, products of warpgroups.
//
// Shared memory written by ordinary stores is read by bulk stores, tensor stores and wgmma only after the writing
// threads' fence_proxy_async() and a barrier. Accumulators of wgmma are neither read nor written between the product
// and its wgmma_wait. Matrices for wgmma lie in rows of 128 bytes with the 128-byte swizzle, as tma_load_2d leaves
// them, and begin at a multiple of 1024.
#pragma once
#include "mma.cuh"

// What cuTensorMapEncodeTiled fills on the host; a member of a kernel's parameters, or in global memory.
struct alignas(128) TensorMap {
    uint64_t words[16];
};

#ifndef LOWKEY_EMULATED

__device__ __forceinline__ void mbar_init(uint64_t* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void mbar_invalidate(uint64_t* barrier) {
    asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// After initialisation and before a barrier of the block: other threads and the copy engine see the mbarriers.
__device__ __forceinline__ void mbar_fence_init() {
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory");
}
__device__ __forceinline__ void mbar_arrive(uint64_t* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and lets the phase wait for so many bytes of copies.
__device__ __forceinline__ void mbar_expect_tx(uint64_t* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
// Waits for the end of the phase of this parity: 0 for the first, 1 for the second, and so on.
__device__ __forceinline__ void mbar_wait(uint64_t* barrier, int parity) {
    asm volatile("{\n.reg .pred over;\nTRY:\nmbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
                 "@over bra OVER;\nbra TRY;\nOVER:\n}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}
__device__ __forceinline__ void fence_proxy_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The other way from ldmatrix: lane i gives row i % 8 of matrix i / 8.
__device__ __forceinline__ void stmatrix_x4(void* row, const uint32_t (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(shared_address(row)), "r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}
__device__ __forceinline__ void stmatrix_x4_trans(void* row, const uint32_t (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(shared_address(row)),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

// Addresses and bytes are multiples of 16.
__device__ __forceinline__ void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}
__device__ __forceinline__ void bulk_store(void* global, const void* shared, uint32_t bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global),
                 "r"(shared_address(shared)), "r"(bytes)
                 : "memory");
}
// Before a map in global memory is used: the copy engine may remember what was there before.
__device__ __forceinline__ void fence_tensor_map(const TensorMap* map) {
    asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(map) : "memory");
}
// The tile whose first column is x and first row y; what lies outside the matrix is zero.
__device__ __forceinline__ void tma_load_2d(void* shared, const TensorMap* map, uint64_t* barrier, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(shared)),
                 "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y)
                 : "memory");
}
__device__ __forceinline__ void tma_store_2d(const TensorMap* map, const void* shared, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
                 "r"(shared_address(shared)), "r"(x), "r"(y)
                 : "memory");
}
__device__ __forceinline__ void bulk_commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Until at most N groups of stores have yet to be written.
template <int N> __device__ __forceinline__ void bulk_wait() {
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}
// Until at most N groups of stores have yet to read shared memory.
template <int N> __device__ __forceinline__ void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

template <int Registers> __device__ __forceinline__ void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers> __device__ __forceinline__ void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
// Before the first use of what an earlier kernel of the stream writes, where launches may overlap.
__device__ __forceinline__ void grid_dependency_wait() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
__device__ __forceinline__ void grid_dependency_launch() {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

__device__ __forceinline__ uint64_t wgmma_descriptor(const void* matrix, int leading_bytes, int stride_bytes) {
    return uint64_t((shared_address(matrix) & 0x3ffff) >> 4) | uint64_t(leading_bytes >> 4) << 16 |
           uint64_t(stride_bytes >> 4) << 32 | 1ull << 62;
}
__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// Keeps the compiler from moving uses of accumulators across fences and waits.
template <int R> __device__ __forceinline__ void wgmma_hold(float (&d)[R]) {
#pragma unroll
    for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#define LOWKEY_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define LOWKEY_D16(i) LOWKEY_D4(i), LOWKEY_D4(i + 4), LOWKEY_D4(i + 8), LOWKEY_D4(i + 12)
#define LOWKEY_D32(i) LOWKEY_D16(i), LOWKEY_D16(i + 16)
#define LOWKEY_D64(i) LOWKEY_D32(i), LOWKEY_D32(i + 32)
#define LOWKEY_NAMES16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define LOWKEY_NAMES32 LOWKEY_NAMES16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define LOWKEY_NAMES64                                                                                             \
    LOWKEY_NAMES32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54," \
                   "%55,%56,%57,%58,%59,%60,%61,%62,%63"
// Operands after the R accumulators are a, b, accumulate and whether b is transposed.
#define LOWKEY_WGMMA_TEXT(N, R, C, types, operands)                                                 \
    "{\n.reg .pred p;\nsetp.ne.b32 p, " C ", 0;\n"                                                  \
    "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." types " {" LOWKEY_NAMES##R "}, " operands ";\n}"
#define LOWKEY_WGMMA_SHARED(N, R, A, B, C, T, tag, types)                                               \
    template <bool BTransposed = false>                                                                 \
    __device__ __forceinline__ void wgmma_m64n##N##k16(float (&d)[R], uint64_t a, uint64_t b,           \
                                                       int accumulate, tag) {                           \
        asm volatile(LOWKEY_WGMMA_TEXT(N, R, C, types, A ", " B ", p, 1, 1, 0, " T)                     \
                     : LOWKEY_D##R(0)                                                                   \
                     : "l"(a), "l"(b), "r"(accumulate), "n"(int(BTransposed)));                         \
    }
// a in registers, laid out as for mma_m16n8k16.
#define LOWKEY_WGMMA_REGISTERS(N, R, A, B, C, T, tag, types)                                            \
    template <bool BTransposed = false>                                                                 \
    __device__ __forceinline__ void wgmma_m64n##N##k16(float (&d)[R], const uint32_t (&a)[4],           \
                                                       uint64_t b, int accumulate, tag) {               \
        asm volatile(LOWKEY_WGMMA_TEXT(N, R, C, types, "{" A "}, " B ", p, 1, 1, " T)                   \
                     : LOWKEY_D##R(0)                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate),             \
                       "n"(int(BTransposed)));                                                          \
    }
#define LOWKEY_WGMMA(tag, types)                                                                    \
    LOWKEY_WGMMA_SHARED(32, 16, "%16", "%17", "%18", "%19", tag, types)                                 \
    LOWKEY_WGMMA_SHARED(64, 32, "%32", "%33", "%34", "%35", tag, types)                                 \
    LOWKEY_WGMMA_SHARED(128, 64, "%64", "%65", "%66", "%67", tag, types)                                \
    LOWKEY_WGMMA_REGISTERS(32, 16, "%16,%17,%18,%19", "%20", "%21", "%22", tag, types)                     \
    LOWKEY_WGMMA_REGISTERS(64, 32, "%32,%33,%34,%35", "%36", "%37", "%38", tag, types)                     \
    LOWKEY_WGMMA_REGISTERS(128, 64, "%64,%65,%66,%67", "%68", "%69", "%70", tag, types)
LOWKEY_WGMMA(bf16, "bf16.bf16")
LOWKEY_WGMMA(f16, "f16.f16")
#undef LOWKEY_WGMMA
#undef LOWKEY_WGMMA_REGISTERS
#undef LOWKEY_WGMMA_SHARED
#undef LOWKEY_WGMMA_TEXT
#undef LOWKEY_NAMES64
#undef LOWKEY_NAMES32
#undef LOWKEY_NAMES16
#undef LOWKEY_D64
#undef LOWKEY_D32
#undef LOWKEY_D16
#undef LOWKEY_D4

#else

inline void mbar_init(uint64_t* barrier, int arrivals, EMULATOR_SITE) {
    emulator::mbarrier_init(barrier, arrivals, site);
}
inline void mbar_invalidate(uint64_t* barrier, EMULATOR_SITE) {
    emulator::mbarrier_invalidate(barrier, site);
}
inline void mbar_fence_init(EMULATOR_SITE) {
    emulator::proxy_fence(site);
}
inline void mbar_arrive(uint64_t* barrier, EMULATOR_SITE) {
    emulator::mbarrier_arrive(barrier, 0, site);
}
inline void mbar_expect_tx(uint64_t* barrier, int bytes, EMULATOR_SITE) {
    emulator::mbarrier_arrive(barrier, bytes, site);
}
inline void mbar_wait(uint64_t* barrier, int parity, EMULATOR_SITE) {
    emulator::mbarrier_wait(barrier, unsigned(parity), site);
}
inline void fence_proxy_async(EMULATOR_SITE) {
    emulator::proxy_fence(site);
}
inline void stmatrix_x4(void* row, const uint32_t (&r)[4], EMULATOR_SITE) {
    emulator::stmatrix(row, r, 4, false, site);
}
inline void stmatrix_x4_trans(void* row, const uint32_t (&r)[4], EMULATOR_SITE) {
    emulator::stmatrix(row, r, 4, true, site);
}
inline void bulk_load(void* shared, const void* global, uint32_t bytes, uint64_t* barrier, EMULATOR_SITE) {
    emulator::bulk_load(shared, global, bytes, barrier, site);
}
inline void bulk_store(void* global, const void* shared, uint32_t bytes, EMULATOR_SITE) {
    emulator::bulk_store(global, shared, bytes, site);
}
inline void fence_tensor_map(const TensorMap*) {}
inline void tma_load_2d(void* shared, const TensorMap* map, uint64_t* barrier, int x, int y, EMULATOR_SITE) {
    emulator::tensor_load(shared, map, x, y, barrier, site);
}
inline void tma_store_2d(const TensorMap* map, const void* shared, int x, int y, EMULATOR_SITE) {
    emulator::tensor_store(map, shared, x, y, site);
}
inline void bulk_commit(EMULATOR_SITE) {
    emulator::bulk_commit(site);
}
template <int N> inline void bulk_wait(EMULATOR_SITE) {
    emulator::bulk_wait(N, site);
}
template <int N> inline void bulk_wait_read(EMULATOR_SITE) {
    emulator::bulk_wait(N, site);
}
// Registers are not counted, and a launch begins when the one before has ended.
template <int Registers> inline void more_registers() {}
template <int Registers> inline void fewer_registers() {}
inline void grid_dependency_wait() {}
inline void grid_dependency_launch() {}

inline uint64_t wgmma_descriptor(const void* matrix, int leading_bytes, int stride_bytes, EMULATOR_SITE) {
    return emulator::shared_descriptor(matrix, leading_bytes, stride_bytes, site);
}
inline void wgmma_fence(EMULATOR_SITE) {
    emulator::wgmma_fence(site);
}
inline void wgmma_commit(EMULATOR_SITE) {
    emulator::wgmma_commit(site);
}
template <int N> inline void wgmma_wait(EMULATOR_SITE) {
    emulator::wgmma_wait(N, site);
}
template <int R> inline void wgmma_hold(float (&)[R]) {}

#define LOWKEY_WGMMA(N)                                                                                                \
    template <bool BTransposed = false, class T>                                                                       \
    inline void wgmma_m64n##N##k16(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate, T tag, EMULATOR_SITE) {  \
        emulator::wgmma({d, N, nullptr, a, b, BTransposed, accumulate != 0, emulator::element_of(tag)}, site);         \
    }                                                                                                                  \
    template <bool BTransposed = false, class T>                                                                       \
    inline void wgmma_m64n##N##k16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate, T tag,       \
                                   EMULATOR_SITE) {                                                                    \
        emulator::wgmma({d, N, a, 0, b, BTransposed, accumulate != 0, emulator::element_of(tag)}, site);               \
    }
LOWKEY_WGMMA(32)
LOWKEY_WGMMA(64)
LOWKEY_WGMMA(128)
#undef LOWKEY_WGMMA

#endif

// Rows of k contiguous, 64 to a row of 128 bytes: a, and b as [n, k]. The next 16 of k lie 32 bytes, two descriptor
// units, on.
__device__ __forceinline__ uint64_t wgmma_descriptor_k_major(const void* matrix) {
    return wgmma_descriptor(matrix, 16, 1024);
}
// b as [k, n] with n contiguous, 64 to a row of 128 bytes, `block_bytes` from one block of 64 columns to the next; for
// BTransposed. The next 16 of k lie 2048 bytes, 128 descriptor units, on.
__device__ __forceinline__ uint64_t wgmma_descriptor_n_major(const void* matrix, int block_bytes) {
    return wgmma_descriptor(matrix, block_bytes, 1024);
}
