/* Parameters of the kernels with planted faults. */
#pragma once
#include <stdint.h>

struct FaultParams {
    const void* input;  /* [blocks * 128] u32, see each kernel */
    void* output;       /* [blocks * 128] u32 */
    void* scratch;      /* zeroed words: a counter, then one for each block */
    int32_t count;      /* words of input and output */
    int32_t pad;
};
