// Arithmetic, conversion and bit intrinsics. Approximate functions are correctly rounded or nearly so here.
#pragma once
#include <limits>

#include "language.h"

namespace emulator {

template <class To, class From> inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}
// Stops the compiler from contracting a product into a following sum.
template <class T> inline T rounded(T x) {
#if defined(__x86_64__)
    asm("" : "+x"(x));
#else
    asm("" : "+w"(x));
#endif
    return x;
}
// Conversions to integers saturate, and turn NaN into zero, as on the device.
template <class To> inline To saturated(double x) {
    using Limits = std::numeric_limits<To>;
    if (x != x) return 0;
    if (x <= double(Limits::min())) return Limits::min();
    if (x >= double(Limits::max())) return Limits::max();
    return To(x);
}

}  // namespace emulator

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point<T>::value) return fmin(T(a), T(b));
    else return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point<T>::value) return fmax(T(a), T(b));
    else return T(a) < T(b) ? T(b) : T(a);
}

template <class T> inline T __ldg(const T* p) {
    return *p;
}
template <class T> inline T __ldcs(const T* p) {
    return *p;
}
template <class T> inline T __ldcg(const T* p) {
    return *p;
}
template <class T> inline void __stcs(T* p, emulator::SameT<T> value) {
    *p = value;
}
template <class T> inline void __stcg(T* p, emulator::SameT<T> value) {
    *p = value;
}

// Reinterpretation.
inline float __int_as_float(int x) {
    return emulator::bits_as<float>(x);
}
inline float __uint_as_float(unsigned x) {
    return emulator::bits_as<float>(x);
}
inline int __float_as_int(float x) {
    return emulator::bits_as<int>(x);
}
inline unsigned __float_as_uint(float x) {
    return emulator::bits_as<unsigned>(x);
}
inline long long __double_as_longlong(double x) {
    return emulator::bits_as<long long>(x);
}
inline double __longlong_as_double(long long x) {
    return emulator::bits_as<double>(x);
}

// Correctly rounded arithmetic, never contracted.
inline float __fadd_rn(float a, float b) {
    return emulator::rounded(a + b);
}
inline float __fsub_rn(float a, float b) {
    return emulator::rounded(a - b);
}
inline float __fmul_rn(float a, float b) {
    return emulator::rounded(a * b);
}
inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
inline float __fdiv_rn(float a, float b) {
    return a / b;
}
inline float __frcp_rn(float x) {
    return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
    return sqrtf(x);
}
inline float __frsqrt_rn(float x) {
    return float(1.0 / sqrt(double(x)));
}
inline double __dadd_rn(double a, double b) {
    return emulator::rounded(a + b);
}
inline double __dmul_rn(double a, double b) {
    return emulator::rounded(a * b);
}
inline double __fma_rn(double a, double b, double c) {
    return fma(a, b, c);
}

// Fast mathematics. glibc declares some of these names in math.h, without a definition; hence noexcept.
inline float rsqrtf(float x) noexcept {
    return float(1.0 / sqrt(double(x)));
}
inline double rsqrt(double x) noexcept {
    return 1.0 / sqrt(x);
}
inline float __expf(float x) noexcept {
    return exp2f(emulator::rounded(x * 1.442695041f));
}
inline float __exp10f(float x) noexcept {
    return exp2f(emulator::rounded(x * 3.321928095f));
}
inline float __log2f(float x) noexcept {
    return log2f(x);
}
inline float __logf(float x) noexcept {
    return emulator::rounded(log2f(x) * 0.6931471806f);
}
inline float __sinf(float x) noexcept {
    return sinf(x);
}
inline float __cosf(float x) noexcept {
    return cosf(x);
}
inline void __sincosf(float x, float* sine, float* cosine) noexcept {
    *sine = sinf(x);
    *cosine = cosf(x);
}
inline float __powf(float x, float y) noexcept {
    return exp2f(emulator::rounded(y * log2f(x)));
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float __saturatef(float x) {
    return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}

// Conversions: _rn to nearest even, _rz towards zero, _rd down, _ru up.
inline int __float2int_rn(float x) {
    return emulator::saturated<int>(rintf(x));
}
inline int __float2int_rz(float x) {
    return emulator::saturated<int>(truncf(x));
}
inline int __float2int_rd(float x) {
    return emulator::saturated<int>(floorf(x));
}
inline int __float2int_ru(float x) {
    return emulator::saturated<int>(ceilf(x));
}
inline unsigned __float2uint_rn(float x) {
    return emulator::saturated<unsigned>(rintf(x));
}
inline unsigned __float2uint_rz(float x) {
    return emulator::saturated<unsigned>(truncf(x));
}
inline int __double2int_rn(double x) {
    return emulator::saturated<int>(rint(x));
}
inline float __int2float_rn(int x) {
    return float(x);
}
inline float __uint2float_rn(unsigned x) {
    return float(x);
}
inline float __double2float_rn(double x) {
    return float(x);
}

// Bits and integers.
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __clz(int x) {
    return x ? __builtin_clz(unsigned(x)) : 32;
}
inline int __clzll(long long x) {
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1) << (31 - bit);
    return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return unsigned((uint64_t(a) * b) >> 32);
}
inline int __mulhi(int a, int b) {
    return int((int64_t(a) * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((uint64_t(high) << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const uint64_t bytes = uint64_t(high) << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned nibble = selector >> (4 * i) & 15;
        unsigned byte = unsigned(bytes >> (8 * (nibble & 7))) & 255;
        if (nibble & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << (8 * i);
    }
    return result;
}
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) c += int(int8_t(unsigned(a) >> (8 * i))) * int(int8_t(unsigned(b) >> (8 * i)));
    return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 4; i++) c += (a >> (8 * i) & 255) * (b >> (8 * i) & 255);
    return c;
}
