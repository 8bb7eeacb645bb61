// Tensor-core products of a warp, and their fragments' way from shared memory.
//
// A fragment of m16n8k16: with g = lane / 4 and t = lane % 4, a holds rows g, g + 8, g, g + 8 at columns 2t, 2t, 2t +
// 8, 2t + 8 (and the next), b holds rows 2t and 2t + 8 (and the next) of column g, d holds rows g, g, g + 8, g + 8 at
// columns 2t, 2t + 1, 2t, 2t + 1. Rows of shared memory given to ldmatrix are 16 aligned bytes; lane i gives row i % 8
// of matrix i / 8.
#pragma once
#include "copy.cuh"

#ifndef LOWKEY_EMULATED

#define LOWKEY_LDMATRIX1(name, modifiers)                                                            \
    __device__ __forceinline__ void name(uint32_t (&r)[1], const void* row) {                        \
        asm volatile("ldmatrix.sync.aligned.m8n8.x1" modifiers ".shared.b16 {%0}, [%1];"             \
                     : "=r"(r[0])                                                                    \
                     : "r"(shared_address(row))                                                      \
                     : "memory");                                                                    \
    }
#define LOWKEY_LDMATRIX2(name, modifiers)                                                            \
    __device__ __forceinline__ void name(uint32_t (&r)[2], const void* row) {                        \
        asm volatile("ldmatrix.sync.aligned.m8n8.x2" modifiers ".shared.b16 {%0,%1}, [%2];"          \
                     : "=r"(r[0]), "=r"(r[1])                                                        \
                     : "r"(shared_address(row))                                                      \
                     : "memory");                                                                    \
    }
#define LOWKEY_LDMATRIX4(name, modifiers)                                                            \
    __device__ __forceinline__ void name(uint32_t (&r)[4], const void* row) {                        \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" modifiers ".shared.b16 {%0,%1,%2,%3}, [%4];"    \
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                                \
                     : "r"(shared_address(row))                                                      \
                     : "memory");                                                                    \
    }
LOWKEY_LDMATRIX1(ldmatrix_x1, "")
LOWKEY_LDMATRIX1(ldmatrix_x1_trans, ".trans")
LOWKEY_LDMATRIX2(ldmatrix_x2, "")
LOWKEY_LDMATRIX2(ldmatrix_x2_trans, ".trans")
LOWKEY_LDMATRIX4(ldmatrix_x4, "")
LOWKEY_LDMATRIX4(ldmatrix_x4_trans, ".trans")
#undef LOWKEY_LDMATRIX1
#undef LOWKEY_LDMATRIX2
#undef LOWKEY_LDMATRIX4

// The 8x8 fragment of 16-bit elements, transposed.
__device__ __forceinline__ uint32_t movmatrix(uint32_t fragment) {
    uint32_t transposed;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(fragment));
    return transposed;
}

#define LOWKEY_MMA(tag, shape_types)                                                                               \
    __device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,  \
                                                 tag) {                                                            \
        asm volatile("mma.sync.aligned.m16n8k16.row.col." shape_types                                              \
                     " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                      \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                              \
    }
LOWKEY_MMA(bf16, "f32.bf16.bf16.f32")
LOWKEY_MMA(f16, "f32.f16.f16.f32")
#undef LOWKEY_MMA

__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// a [16, 32] keeps two of every four elements of a row, packed as for m16n8k16; b [32, 8] has rows 2t + 8i and the next
// in register i. In two lanes of each four, 2 * Selector and the next, the metadata holds the kept elements' places,
// two bits each in ascending order: row g in the low half, row g + 8 in the high one, for columns 0 to 15 and 16 to 31.
#define LOWKEY_MMA_SPARSE(tag, types)                                                                                 \
    template <int Selector = 0>                                                                                       \
    __device__ __forceinline__ void mma_sp_m16n8k32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4],    \
                                                    uint32_t metadata, tag) {                                         \
        asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col." types                                  \
                     " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9,%10,%11}, {%0,%1,%2,%3}, %12, %13;"                        \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]),        \
                       "r"(metadata), "n"(Selector));                                                                 \
    }
LOWKEY_MMA_SPARSE(bf16, "f32.bf16.bf16.f32")
LOWKEY_MMA_SPARSE(f16, "f32.f16.f16.f32")
#undef LOWKEY_MMA_SPARSE
// Rounds to the nearest of the 10-bit fractions that tf32 keeps, ties away from zero.
__device__ __forceinline__ uint32_t to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

#else

inline void ldmatrix_x1(uint32_t (&r)[1], const void* row, EMULATOR_SITE) {
    emulator::ldmatrix(r, row, 1, false, site);
}
inline void ldmatrix_x1_trans(uint32_t (&r)[1], const void* row, EMULATOR_SITE) {
    emulator::ldmatrix(r, row, 1, true, site);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, EMULATOR_SITE) {
    emulator::ldmatrix(r, row, 2, false, site);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, EMULATOR_SITE) {
    emulator::ldmatrix(r, row, 2, true, site);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, EMULATOR_SITE) {
    emulator::ldmatrix(r, row, 4, false, site);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, EMULATOR_SITE) {
    emulator::ldmatrix(r, row, 4, true, site);
}
inline uint32_t movmatrix(uint32_t fragment, EMULATOR_SITE) {
    return emulator::movmatrix(fragment, site);
}

namespace emulator {
constexpr Element element_of(bf16) {
    return Element::Bf16;
}
constexpr Element element_of(f16) {
    return Element::F16;
}
}  // namespace emulator
template <class T>
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T tag, EMULATOR_SITE) {
    const uint32_t b[2] = {b0, b1};
    emulator::mma_k16(d, a, b, emulator::element_of(tag), site);
}
template <int Selector = 0, class T>
inline void mma_sp_m16n8k32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t metadata, T tag,
                            EMULATOR_SITE) {
    emulator::mma_sparse_k32(d, a, b, metadata, Selector, emulator::element_of(tag), site);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMULATOR_SITE) {
    const uint32_t b[2] = {b0, b1};
    emulator::mma_k8_tf32(d, a, b, site);
}
inline uint32_t to_tf32(float x) {
    const uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
    return (bits + 0x1000u) & ~0x1fffu;
}

#endif
