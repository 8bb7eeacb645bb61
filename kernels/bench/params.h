#pragma once
#include <stdint.h>

struct ReadParams {
    const void* data; /* [count] of 16 bytes */
    float* sums;      /* [blocks, threads] */
    int64_t count;
};

struct MultiplyParams {
    float* sums; /* [blocks, threads] */
    int32_t steps;
    uint32_t pair; /* two bf16, every element of both operands */
};

#ifdef __cplusplus
#include "layout.h"
#endif
