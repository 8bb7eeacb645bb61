#pragma once
#include <stdint.h>

/* y = x W' + bias; grid [n / outputs of a block, chunks of 8 rows] */
struct FactorParams {
    const float* x;        /* [rows, k] */
    const void* weight;    /* f32|f16|bf16 [n, k] */
    const float* bias;     /* [n]; null for none */
    float* y;              /* [rows, n] */
    int32_t rows;
    int32_t n;
    int32_t k;
    int32_t unused;
};

#ifdef __cplusplus
#include "layout.h"
#endif
