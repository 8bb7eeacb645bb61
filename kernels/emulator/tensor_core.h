// Products of small matrices as tensor cores compute them: exact products, one aligned and truncated sum.
#pragma once
#include <cstdint>

#include "runtime.h"

#pragma GCC visibility push(hidden)
namespace emulator {

// How an architecture adds up: this many products and the accumulator at once, each truncated to this many fraction
// bits below the largest exponent among them.
struct Accumulation {
    int products;
    int fraction_bits;
};
Accumulation accumulation(uint32_t arch, Element element);

// A row's or column's elements, widened, with the exponents that alignment compares.
constexpr int kNoExponent = -10000;  // of zero
struct Widened {
    float value;
    int exponent;
};
Widened widen(uint32_t bits, Element element);

// d[0..8) += a[0..k) * b[0..k)[0..8), chunk by chunk. The rows of b lie `stride` elements apart.
// Sparse products pass the rows of b that each element of a meets; null means 0, 1, 2...
void multiply_row(float* d, const float* a, const int* a_exponents, const float* b, const int* b_exponents, int stride,
                  int k, const uint8_t* rows_of_b, Accumulation accumulation);

}  // namespace emulator
#pragma GCC visibility pop
