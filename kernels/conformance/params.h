/* Parameters of the conformance kernels. */
#pragma once
#include <stdint.h>

struct ConformanceParams {
    const void* input; /* 32-bit words, see each kernel */
    void* output;      /* 32-bit words, see each kernel */
    const void* map;   /* tensor map of a bf16 matrix, tiles [64, 64] with 128-byte swizzle, or null */
    int32_t count;     /* cases */
    int32_t mode;
    int32_t x;         /* of a tile: first column */
    int32_t y;         /* of a tile: first row */
};

#ifdef __cplusplus
#include "layout.h"
#endif
