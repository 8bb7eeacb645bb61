// Products of small matrices as tensor cores compute them: exact products, one aligned and truncated sum.
#pragma once
#include <cstdint>

#include "runtime.h"

#pragma GCC visibility push(hidden)
namespace emulator {

constexpr int kMaxColumns = 256, kMaxDepth = 32;

// d [16, columns] += a [16, depth_of_a] b [depth, columns], all row by row; columns and depths are multiples of eight.
// A sparse product says which row of b each element of a meets, [16, depth_of_a]; a dense one passes null.
struct MatrixProduct {
    float* d;
    const void* a;
    const void* b;
    int depth_of_a, depth, columns;
    const uint8_t* rows_of_b;
};
void multiply(const MatrixProduct& product, Element element, uint32_t arch);

}  // namespace emulator
#pragma GCC visibility pop
