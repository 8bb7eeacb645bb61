// Integer codes and what they stand for, bit for bit what src/coded.rs computes.
#pragma once
#include "kernel.cuh"

// Four-bit codes lie two to a byte, the first in the low half; they are signed, -8 to 7.
__device__ __forceinline__ int int4_code(uint32_t word, int index) {
    return int(word << (28 - 4 * index)) >> 28;
}
__device__ __forceinline__ int int8_code(uint32_t word, int index) {
    return int(word << (24 - 8 * index)) >> 24;
}
__device__ __forceinline__ float dequantize(int code, float scale) {
    return __fmul_rn(float(code), scale);
}
__device__ __forceinline__ float dequantize(int code, float scale, float offset) {
    return __fadd_rn(__fmul_rn(float(code), scale), offset);
}

// The codes of a row lie between these.
struct CodeRange {
    float steps;          // the row's span in steps of its scale
    float least, most;    // code
};
__device__ __forceinline__ CodeRange int8_range() {
    return {127.0f, -127.0f, 127.0f};
}
__device__ __forceinline__ CodeRange int4_range() {
    return {7.0f, -7.0f, 7.0f};
}
__device__ __forceinline__ CodeRange int4_asymmetric_range() {
    return {15.0f, -8.0f, 7.0f};
}

// Scale and offset of a row as they are stored, in f16, so that codes are nearest to what is decoded.
struct RowScale {
    f16 scale, offset;
    float inverse;        // of the scale, 0 for a row of zeros
};
__device__ __forceinline__ f16 saturated_f16(float x) {
    return __float2half_rn(fminf(x, 65504.0f));
}
__device__ __forceinline__ RowScale symmetric_scale(float low, float high, CodeRange range) {
    RowScale row;
    row.scale = saturated_f16(__fdiv_rn(fmaxf(high, -low), range.steps));
    row.offset = __float2half_rn(0.0f);
    const float scale = __half2float(row.scale);
    row.inverse = scale == 0.0f ? 0.0f : __fdiv_rn(1.0f, scale);
    return row;
}
__device__ __forceinline__ RowScale asymmetric_scale(float low, float high) {
    RowScale row;
    const float span = __fsub_rn(high, low);
    const float centre = __fadd_rn(low, __fmul_rn(span, 8.0f / 15.0f));
    row.scale = saturated_f16(__fdiv_rn(span, 15.0f));
    row.offset = __float2half_rn(centre < -65504.0f ? -65504.0f : centre > 65504.0f ? 65504.0f : centre);
    const float scale = __half2float(row.scale);
    row.inverse = scale == 0.0f ? 0.0f : __fdiv_rn(1.0f, scale);
    return row;
}
__device__ __forceinline__ int quantize(float x, RowScale row, CodeRange range) {
    const float steps = rintf(__fmul_rn(__fsub_rn(x, __half2float(row.offset)), row.inverse));
    return steps == steps ? int(fminf(fmaxf(steps, range.least), range.most)) : 0;
}
