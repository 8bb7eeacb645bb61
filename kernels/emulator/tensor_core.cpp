// The model of accumulation: products are exact and not normalised; a chunk of them and the accumulator are aligned to
// the largest exponent, truncated towards zero to 24 (Ampere) or 25 (Hopper and later) fraction bits, added exactly,
// and the sum is truncated to a float. A chunk is 8 products of 16-bit inputs or 4 of tf32 on Ampere, twice that later.
// Sources: Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ CS 2021; Khattak,
// Mikaitis, "Accurate models of NVIDIA tensor cores", arXiv 2512.07004; "MMA-Sim", arXiv 2511.10909.
#include "tensor_core.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace emulator {
namespace {

using Floats = float __attribute__((vector_size(32)));
using Ints = int32_t __attribute__((vector_size(32)));
using Shorts = uint16_t __attribute__((vector_size(16)));
using HalfInts = int32_t __attribute__((vector_size(16)));
using HalfFloats = float __attribute__((vector_size(16)));
using Doubles = double __attribute__((vector_size(32)));
using Longs = int64_t __attribute__((vector_size(32)));

// Exponents between which every product that counts, and every scale, is a normal float.
constexpr int kLeast = -100, kMost = 100;
constexpr int kOfZero = -10000, kNotFinite = 20000;

// The same bits as another vector.
template <class To, class From> To as(From from) {
    return (To)from;
}
template <class Vector, class Scalar> Vector load(const Scalar* from) {
    Vector v;
    memcpy(&v, from, sizeof v);
    return v;
}

// Of a float: at least `least`, since subnormal inputs are not normalised.
Ints exponents_of(Floats x, int least) {
    const Ints field = (as<Ints>(x) >> 23) & 255;
    Ints exponent = field - 127;
    exponent = exponent < least ? Ints{} + least : exponent;
    exponent = field == 255 ? Ints{} + kNotFinite : exponent;
    return x == 0.0f ? Ints{} + kOfZero : exponent;
}

bool any(Ints mask) {
    const Longs words = as<Longs>(mask);
    return words[0] | words[1] | words[2] | words[3];
}

// sum * 2^exponent, truncated to floats. No result is subnormal where this is used.
HalfFloats to_floats(Doubles sum, HalfInts exponent) {
    const Longs power = (__builtin_convertvector(exponent, Longs) + 1023) << 52;
    const Longs truncated = as<Longs>(sum * as<Doubles>(power)) & ~((int64_t(1) << 29) - 1);
    return __builtin_convertvector(as<Doubles>(truncated), HalfFloats);
}

float toward_zero(double x) {
    const float nearest = float(x);
    const bool away = std::isfinite(nearest) && std::fabs(double(nearest)) > std::fabs(x);
    return away ? std::nextafter(nearest, 0.0f) : nearest;
}

float canonical(double x) {
    if (x == x) return float(x);
    const uint32_t nan = 0x7fffffff;
    float result;
    memcpy(&result, &nan, sizeof result);
    return result;
}

template <Element element> Floats widen(const unsigned char* bits) {
    if (element == Element::Tf32) return as<Floats>(load<Ints>(bits) & ~0x1fff);
    if (element == Element::Bf16) return as<Floats>(__builtin_convertvector(load<Shorts>(bits), Ints) << 16);
    _Float16 halves[8];
    memcpy(halves, bits, sizeof halves);
    Floats x;
    for (int i = 0; i < 8; i++) x[i] = float(halves[i]);
    return x;
}

// Elements as floats, with the exponents that alignment compares.
template <Element element> void widen(const void* bits, int count, float* values, int32_t* exponents) {
    constexpr int bytes = element == Element::Tf32 ? 4 : 2;
    for (int i = 0; i < count; i += 8) {
        const Floats x = widen<element>(static_cast<const unsigned char*>(bits) + i * bytes);
        const Ints e = exponents_of(x, element == Element::F16 ? -14 : -126);
        memcpy(values + i, &x, sizeof x);
        memcpy(exponents + i, &e, sizeof e);
    }
}

// Some products of one row of a with eight columns of b.
struct Chunk {
    const float* a;
    const int32_t* a_exponents;
    const float* b;
    const int32_t* b_exponents;
    int columns;
    const uint8_t* rows_of_b;
    int fraction_bits;

    template <bool Sparse> int row(int k) const { return (Sparse ? rows_of_b[k] : k) * columns; }
};

// One column of a chunk, for what the quick path does not take: infinities, NaNs and extreme exponents.
template <int Count, bool Sparse> float add_column(float c, const Chunk& x, int column) {
    double products[Count], plain = c;
    int exponent = c != 0 && std::isfinite(c) ? std::max(std::ilogb(c), -126) : kOfZero;
    for (int k = 0; k < Count; k++) {
        const int row = x.row<Sparse>(k) + column;
        products[k] = double(x.a[k]) * double(x.b[row]);
        plain += products[k];
        if (products[k] != 0) exponent = std::max(exponent, x.a_exponents[k] + x.b_exponents[row]);
    }
    if (!std::isfinite(plain) || exponent == kOfZero) return canonical(plain);
    const int shift = x.fraction_bits - exponent;
    double sum = std::trunc(std::ldexp(double(c), shift));
    for (int k = 0; k < Count; k++) sum += std::trunc(std::ldexp(products[k], shift));
    return toward_zero(std::ldexp(sum, -shift));
}

template <int Count, bool Sparse> inline void add_chunk(float* d, const Chunk& x) {
    const Floats c = load<Floats>(d);
    Ints largest = exponents_of(c, -126);
#pragma GCC unroll 16
    for (int k = 0; k < Count; k++) {
        const Ints exponent = load<Ints>(x.b_exponents + x.row<Sparse>(k)) + x.a_exponents[k];
        largest = exponent > largest ? exponent : largest;
    }
    if (any((largest > kMost) | ((largest < kLeast) & (largest > kOfZero / 2)))) {
        for (int column = 0; column < 8; column++) d[column] = add_column<Count, Sparse>(d[column], x, column);
        return;
    }
    largest = largest < kLeast ? Ints{} + kLeast : largest;
    const Floats scale = as<Floats>((127 + x.fraction_bits - largest) << 23);
    // Two sums, since sixteen products of up to 2^27 do not fit one.
    Ints first = __builtin_convertvector(c * scale, Ints), second{};
#pragma GCC unroll 16
    for (int k = 0; k < Count; k++) {
        const Floats product = load<Floats>(x.b + x.row<Sparse>(k)) * x.a[k];
        const Ints aligned = __builtin_convertvector(product * scale, Ints);
        if (k < 8) first += aligned;
        else second += aligned;
    }
    const Ints unit = largest - x.fraction_bits;
    for (int half = 0; half < 2; half++) {
        const auto part = [&](const Ints& v) { return load<HalfInts>(reinterpret_cast<const char*>(&v) + 16 * half); };
        Doubles sum = __builtin_convertvector(part(first), Doubles);
        if (Count > 8) sum += __builtin_convertvector(part(second), Doubles);
        const HalfFloats result = to_floats(sum, part(unit));
        memcpy(d + 4 * half, &result, sizeof result);
    }
}

template <Element element, int Count, bool Sparse, int BSize>
void multiply(const MatrixProduct& product, int fraction_bits) {
    alignas(32) float a[kMaxDepth], b[BSize];
    alignas(32) int32_t a_exponents[kMaxDepth], b_exponents[BSize];
    const int columns = product.columns, depth = product.depth_of_a;
    widen<element>(product.b, product.depth * columns, b, b_exponents);
    for (int row = 0; row < 16; row++) {
        constexpr int bytes = element == Element::Tf32 ? 4 : 2;
        widen<element>(static_cast<const unsigned char*>(product.a) + row * depth * bytes, depth, a, a_exponents);
        for (int column = 0; column < columns; column += 8)
            for (int k = 0; k < depth; k += Count) {
                const int skipped = (Sparse ? 0 : k * columns) + column;
                const uint8_t* rows = Sparse ? product.rows_of_b + row * depth + k : nullptr;
                const Chunk chunk{a + k,   a_exponents + k, b + skipped,  b_exponents + skipped,
                                  columns, rows,            fraction_bits};
                add_chunk<Count, Sparse>(product.d + row * columns + column, chunk);
            }
    }
}

template <Element element, int Count> void multiply(const MatrixProduct& product, int fraction_bits) {
    // Fibers' stacks stay warm when the small products of a warp use little of them.
    constexpr int small = kMaxDepth * 8;
    if (product.rows_of_b) multiply<element, Count, true, small>(product, fraction_bits);
    else if (product.columns == 8) multiply<element, Count, false, small>(product, fraction_bits);
    else multiply<element, Count, false, 16 * kMaxColumns>(product, fraction_bits);
}

}  // namespace

void multiply(const MatrixProduct& product, Element element, uint32_t arch) {
    using Multiply = void (*)(const MatrixProduct&, int);
    constexpr Multiply ampere[] = {multiply<Element::Bf16, 8>, multiply<Element::F16, 8>, multiply<Element::Tf32, 4>};
    constexpr Multiply later[] = {multiply<Element::Bf16, 16>, multiply<Element::F16, 16>, multiply<Element::Tf32, 8>};
    if (arch == 80) ampere[int(element)](product, 24);
    else later[int(element)](product, 25);
}

}  // namespace emulator
