// Model of accumulation: Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer
// Science 2021, and its later extensions to Ampere and Hopper. Products are exact and not normalised; a chunk of them and
// the accumulator are aligned to the largest exponent, truncated towards zero to 24 (Ampere) or 25 (Hopper and later)
// fraction bits, added exactly, and the sum is truncated to a float. A chunk is 8 products of 16-bit inputs or 4 of tf32
// on Ampere, twice that later.
#include "tensor_core.h"

#include <cmath>
#include <cstring>

namespace emulator {
namespace {

using Floats = float __attribute__((vector_size(32)));
using Ints = int32_t __attribute__((vector_size(32)));
using HalfInts = int32_t __attribute__((vector_size(16)));
using HalfFloats = float __attribute__((vector_size(16)));
using Doubles = double __attribute__((vector_size(32)));
using Longs = int64_t __attribute__((vector_size(32)));

// Exponents between which every product that counts, and every scale, is a normal float.
constexpr int kLeast = -100, kMost = 100;

// The same bits as another vector.
template <class To, class From> To as(From from) {
    return (To)from;
}
template <class Vector, class Scalar> Vector load(const Scalar* from) {
    Vector v;
    memcpy(&v, from, sizeof v);
    return v;
}

Ints exponents_of(Floats x) {
    const Ints bits = as<Ints>(x);
    const Ints field = bits >> 23 & 255;
    const Ints subnormal = field == 0;
    const Ints exponent = field - 127 - subnormal;
    return (x == 0.0f) ? Ints{} + kNoExponent : exponent;
}

bool any(Ints mask) {
    uint64_t words[4];
    memcpy(words, &mask, sizeof words);
    return words[0] | words[1] | words[2] | words[3];
}

HalfFloats to_floats(Doubles sum, HalfInts exponent) {
    const Longs power = (__builtin_convertvector(exponent, Longs) + 1023) << 52;
    sum *= as<Doubles>(power);
    const Longs truncated = as<Longs>(sum) & ~((int64_t(1) << 29) - 1);
    return __builtin_convertvector(as<Doubles>(truncated), HalfFloats);
}

float toward_zero(double x) {
    const float nearest = float(x);
    return std::fabs(double(nearest)) > std::fabs(x) && std::isfinite(nearest) ? std::nextafter(nearest, 0.0f) : nearest;
}

// One column of a chunk, for inputs that the quick path does not take: infinities, NaNs and extreme exponents.
float add_column(float c, const float* a, const int* a_exponents, const float* b, const int* b_exponents, int stride,
                 const uint8_t* rows, int count, int fraction_bits) {
    double products[16], plain = c;
    int exponent = kNoExponent;
    for (int k = 0; k < count; k++) {
        const int row = rows ? rows[k] * stride : k * stride;
        products[k] = double(a[k]) * double(b[row]);
        plain += products[k];
        if (products[k] != 0) exponent = std::max(exponent, a_exponents[k] + b_exponents[row]);
    }
    if (!std::isfinite(plain)) return float(plain);
    if (c != 0) exponent = std::max(exponent, std::max(std::ilogb(c), -126));
    if (exponent == kNoExponent) return float(plain);
    const int shift = fraction_bits - exponent;
    double sum = std::trunc(std::ldexp(double(c), shift));
    for (int k = 0; k < count; k++) sum += std::trunc(std::ldexp(products[k], shift));
    return toward_zero(std::ldexp(sum, -shift));
}

void add_chunk(float* d, const float* a, const int* a_exponents, const float* b, const int* b_exponents, int stride,
               const uint8_t* rows, int count, int fraction_bits) {
    const Floats c = load<Floats>(d);
    Ints largest = exponents_of(c);
    for (int k = 0; k < count; k++) {
        const int row = rows ? rows[k] * stride : k * stride;
        const Ints exponent = load<Ints>(b_exponents + row) + a_exponents[k];
        largest = exponent > largest ? exponent : largest;
    }
    if (any((largest > kMost) | ((largest < kLeast) & (largest > kNoExponent / 2)))) {
        for (int j = 0; j < 8; j++)
            d[j] = add_column(d[j], a, a_exponents, b + j, b_exponents + j, stride, rows, count, fraction_bits);
        return;
    }
    largest = largest < kLeast ? Ints{} + kLeast : largest;
    const Ints scale_bits = (127 + fraction_bits - largest) << 23;
    const Floats scale = as<Floats>(scale_bits);
    // Two sums, since sixteen products of up to 2^27 do not fit one.
    Ints sums[2] = {__builtin_convertvector(c * scale, Ints), Ints{}};
    for (int k = 0; k < count; k++) {
        const Floats product = load<Floats>(b + (rows ? rows[k] * stride : k * stride)) * a[k];
        sums[k >> 3] += __builtin_convertvector(product * scale, Ints);
    }
    const Ints unit = largest - fraction_bits;
    for (int half = 0; half < 2; half++) {
        const auto part = [&](const Ints& v) { return load<HalfInts>(reinterpret_cast<const int32_t*>(&v) + 4 * half); };
        Doubles sum = __builtin_convertvector(part(sums[0]), Doubles);
        if (count > 8) sum += __builtin_convertvector(part(sums[1]), Doubles);
        const HalfFloats result = to_floats(sum, part(unit));
        memcpy(d + 4 * half, &result, sizeof result);
    }
}

}  // namespace

Accumulation accumulation(uint32_t arch, Element element) {
    const int chunk = arch == 80 ? 8 : 16;
    return {element == Element::Tf32 ? chunk / 2 : chunk, arch == 80 ? 24 : 25};
}

Widened widen(uint32_t bits, Element element) {
    if (element == Element::Bf16) bits <<= 16;
    if (element == Element::Tf32) bits &= ~0x1fffu;
    float value;
    if (element == Element::F16) {
        _Float16 half;
        const uint16_t low = uint16_t(bits);
        memcpy(&half, &low, sizeof half);
        value = float(half);
        memcpy(&bits, &value, sizeof bits);
    } else {
        memcpy(&value, &bits, sizeof value);
    }
    if (value == 0) return {value, kNoExponent};
    const int field = int(bits >> 23 & 255), least = element == Element::F16 ? -14 : -126;
    // Infinity and NaN get an exponent that no sum of two hides.
    if (field == 255) return {value, 20000};
    return {value, std::max(field - 127, least)};
}

void multiply_row(float* d, const float* a, const int* a_exponents, const float* b, const int* b_exponents, int stride,
                  int k, const uint8_t* rows_of_b, Accumulation accumulation) {
    const int chunk = accumulation.products;
    for (int from = 0; from < k; from += chunk) {
        const int offset = rows_of_b ? 0 : from * stride;
        add_chunk(d, a + from, a_exponents + from, b + offset, b_exponents + offset, stride,
                  rows_of_b ? rows_of_b + from : nullptr, chunk, accumulation.fraction_bits);
    }
}

}  // namespace emulator
