// What the emulator keeps in the 128 bytes of a tensor map.
#pragma once
#include <cstdint>

#pragma GCC visibility push(hidden)
namespace emulator {

struct TensorMap {
    static constexpr uint64_t kMark = 0x70616d726f736e74ull;
    uint64_t mark;
    char* base;
    uint64_t rows, columns, row_bytes;
    uint32_t box_rows, box_columns, element_bytes, swizzle;
};
static_assert(sizeof(TensorMap) <= 128, "a tensor map has 128 bytes");

// See LkApi::tensor_map.
int32_t encode_tensor_map(void* out, void* base, uint32_t element_bytes, uint64_t rows, uint64_t columns,
                          uint64_t row_bytes, uint32_t box_rows, uint32_t box_columns, uint32_t swizzle);

// Shared addresses are permuted in 16-byte chunks: bits 4.. get the bits from 7 on added. Offsets count from a multiple
// of 1024.
inline uint64_t swizzled(uint64_t offset, uint32_t swizzle) {
    return swizzle ? offset ^ ((offset >> 7 & (swizzle / 16 - 1)) << 4) : offset;
}

}  // namespace emulator
#pragma GCC visibility pop
