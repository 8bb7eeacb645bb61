#pragma once
#include <stdint.h>

struct AddParams {
    float* x;       /* [count], added to in place */
    const float* y; /* [count] */
    int64_t count;
};

#ifdef __cplusplus
#include "layout.h"
#endif
