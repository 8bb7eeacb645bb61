// Rotary position embedding in the canonical layout: dimension j turns together with j + head_dim / 2.
#pragma once
#include "kernel.cuh"

// Turns the pair (x[j], x[j + head_dim / 2]).
__device__ __forceinline__ float2 rotate_pair(float2 x, float cosine, float sine) {
    return make_float2(x.x * cosine - x.y * sine, x.x * sine + x.y * cosine);
}
// Turns it back.
__device__ __forceinline__ float2 unrotate_pair(float2 x, float cosine, float sine) {
    return rotate_pair(x, cosine, -sine);
}
