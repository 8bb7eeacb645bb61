// Stands in for NVIDIA's header of the same name: what kernels use of it.
#pragma once
#include "../intrinsics.h"

struct __half {
    unsigned short x;
    __half() = default;
    __half(float value) : x(emulator::bits_as<unsigned short>(_Float16(value))) {}
    constexpr explicit __half(unsigned short bits, int) : x(bits) {}
    operator float() const { return float(emulator::bits_as<_Float16>(x)); }
};
struct alignas(4) __half2 {
    __half x, y;
};
using half = __half;
using half2 = __half2;

inline float __half2float(__half value) {
    return float(value);
}
inline __half __ushort_as_half(unsigned short bits) {
    return __half(bits, 0);
}
inline unsigned short __half_as_ushort(__half value) {
    return value.x;
}
inline __half __float2half_rn(float value) {
    return __half(value);
}
inline __half __float2half(float value) {
    return __half(value);
}
inline __half2 __floats2half2_rn(float low, float high) {
    return {__half(low), __half(high)};
}
inline __half2 __float22half2_rn(float2 value) {
    return __floats2half2_rn(value.x, value.y);
}
inline __half2 __halves2half2(__half low, __half high) {
    return {low, high};
}
inline __half2 __float2half2_rn(float value) {
    return __floats2half2_rn(value, value);
}
inline __half2 __half2half2(__half value) {
    return {value, value};
}
inline float2 __half22float2(__half2 value) {
    return {float(value.x), float(value.y)};
}
inline float __low2float(__half2 value) {
    return float(value.x);
}
inline float __high2float(__half2 value) {
    return float(value.y);
}
inline __half __low2half(__half2 value) {
    return value.x;
}
inline __half __high2half(__half2 value) {
    return value.y;
}

inline __half __hadd(__half a, __half b) {
    return __half(float(a) + float(b));
}
inline __half __hsub(__half a, __half b) {
    return __half(float(a) - float(b));
}
inline __half __hmul(__half a, __half b) {
    return __half(float(a) * float(b));
}
inline __half2 __hadd2(__half2 a, __half2 b) {
    return {__hadd(a.x, b.x), __hadd(a.y, b.y)};
}
inline __half2 __hsub2(__half2 a, __half2 b) {
    return {__hsub(a.x, b.x), __hsub(a.y, b.y)};
}
inline __half2 __hmul2(__half2 a, __half2 b) {
    return {__hmul(a.x, b.x), __hmul(a.y, b.y)};
}
// Rounds to double first, which moves a half in contrived ties alone.
inline __half __hfma(__half a, __half b, __half c) {
    const double sum = fma(double(float(a)), double(float(b)), double(float(c)));
    return __ushort_as_half(emulator::bits_as<unsigned short>(_Float16(sum)));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
