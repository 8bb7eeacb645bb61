/* What the kernels of sparse/ take. The key of a score is its bits without the sign: keys are in the order of
   magnitudes, and those above the key of infinity are NaN. A mask has a bit for each element, rows padded to whole
   32-bit words: column c is bit c % 32 of word c / 32. */
#pragma once
#include <stdint.h>

/* Progress of a selection over a whole matrix. */
struct Selection {
    uint32_t key;  /* upper digits of the threshold, all of them at the end */
    uint32_t left; /* how many of the keys that share them are to be kept, at least one */
};

struct CountParams {
    const void* scores;    /* [rows, cols] f32|f16|bf16, rows row_stride elements apart */
    const void* selection; /* Selection */
    uint32_t* counts;      /* [2048], added to */
    uint64_t* first_nan;   /* [1] least row-major index of a NaN */
    int64_t row_stride;
    int32_t rows;
    int32_t cols;
    uint32_t infinity;
    int32_t top; /* bits of the key below those that are known */
};

struct PickParams {
    uint32_t* counts; /* [2048], set to zero for the next digit */
    void* selection;  /* Selection */
    int32_t top;
    int32_t pad;
};

struct TiesParams {
    const void* scores;    /* [rows, cols] f32|f16|bf16, rows row_stride elements apart */
    const void* selection; /* Selection */
    uint32_t* ties;        /* [rows] keys equal to the threshold */
    int64_t row_stride;
    int32_t cols;
    int32_t pad;
};

struct ScanParams {
    uint32_t* ties; /* [rows], replaced by the sum over the rows before */
    int32_t rows;
    int32_t pad;
};

struct SelectParams {
    const void* scores;          /* [rows, cols] f32|f16|bf16, rows row_stride elements apart */
    uint32_t* bits;              /* [rows, words] */
    uint64_t* first_nan;         /* [1] least row-major index of a NaN */
    const void* selection;       /* Selection over the whole matrix; null: a selection in each row */
    const uint32_t* ties_before; /* [rows] keys equal to the threshold in the rows before; null without selection */
    int64_t row_stride;
    int32_t cols;
    uint32_t keep; /* of a row, or of the matrix */
    uint32_t infinity;
    int32_t staged; /* whether shared memory has room for a row; never with a selection */
};

struct PatternParams {
    const void* scores;  /* [rows, cols] f32|f16|bf16, rows row_stride elements apart */
    uint8_t* bits;       /* [rows, row_bytes] */
    uint64_t* first_nan; /* [1] least row-major index of a NaN */
    int64_t row_stride;
    int32_t rows;
    int32_t cols;
    int32_t row_bytes;
    int32_t keep; /* of each group */
    uint32_t infinity;
    int32_t pad;
};

struct ApplyParams {
    const void* weights; /* [rows, cols] f32|f16|bf16, rows row_stride elements apart */
    const uint8_t* bits; /* [rows, row_bytes] */
    void* out;           /* [rows, cols] as the weights, contiguous */
    int64_t row_stride;
    int32_t rows;
    int32_t cols;
    int32_t row_bytes;
    int32_t pad;
};

#ifdef __cplusplus
#include "layout.h"
#endif
