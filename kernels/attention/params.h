#pragma once
#include <stdint.h>

/* One part of a sequence: consecutive tokens that are kept alike. */
struct Segment {
    const void* keys;          /* bf16|int8 [n_kv_heads, key_capacity, key_rank] */
    const void* values;        /* bf16|int8 [n_kv_heads, value_capacity, value_rank] */
    const void* key_scales;    /* f16 [n_kv_heads, key_capacity]; null for bf16 */
    const void* value_scales;  /* f16 [n_kv_heads, value_capacity]; null for bf16 */
    const void* key_matrix;    /* key_dtype [n_kv_heads, head_dim, key_rank]; null where rows are the keys themselves */
    const void* value_matrix;  /* value_dtype [n_kv_heads, head_dim, value_rank]; null as above */
    const float* key_mean;     /* [n_kv_heads, head_dim]; null for none */
    const float* value_mean;   /* [n_kv_heads, head_dim]; null for none */
    int64_t key_capacity;      /* rows from one head to the next */
    int64_t value_capacity;
    int32_t key_rank;
    int32_t value_rank;
    int32_t key_dtype;         /* of key_matrix: 0 f32, 1 f16, 2 bf16 */
    int32_t value_dtype;
    int32_t sequence;          /* whose query this is about */
    int32_t position;          /* of that query */
    int32_t first_split;       /* its splits follow each other */
    int32_t splits;
};

/* The tokens of a segment that one block takes. */
struct Split {
    int32_t segment;
    int32_t first;    /* token of the segment */
    int32_t tokens;   /* at least 1 */
    int32_t index;    /* among the splits of the call */
};

/* grid [segments, n_heads] */
struct AbsorbParams {
    const float* q;                  /* [sequences, n_heads, head_dim], not rotated */
    const float* cos;                /* [positions, head_dim / 2]; null without RoPE */
    const float* sin;
    const struct Segment* segments;
    float* absorbed;                 /* [segments, n_heads, width], zero above a segment's key rank */
    float* bias;                     /* [segments, n_heads]: what logits gain from the mean of the keys */
    int64_t q_sequence_stride;       /* elements */
    int64_t q_head_stride;
    float scale;                     /* of logits, times log2(e) */
    int32_t n_heads;
    int32_t n_kv_heads;
    int32_t head_dim;
    int32_t width;
    int32_t unused;
};

/* grid [splits, n_kv_heads x chunks of 8 query heads] */
struct DecodeParams {
    const struct Segment* segments;
    const struct Split* splits;      /* those of this launch */
    const float* absorbed;           /* [segments, n_heads, width] */
    const float* bias;               /* [segments, n_heads] */
    float* peaks;                    /* [splits, n_heads]: the largest logit, in powers of two */
    float* sums;                     /* [splits, n_heads]: of 2^(logit - peak) */
    float* latents;                  /* [splits, n_heads, width]: values weighted so */
    int32_t n_heads;
    int32_t n_kv_heads;
    int32_t width;
    int32_t unused;
};

/* grid [sequences, n_heads] */
struct CombineParams {
    const struct Segment* segments;
    const int32_t* first_segment;    /* [sequences + 1] */
    const float* peaks;              /* [splits, n_heads] */
    const float* sums;               /* [splits, n_heads] */
    const float* latents;            /* [splits, n_heads, width] */
    float* out;                      /* [sequences, n_heads, head_dim] */
    int32_t n_heads;
    int32_t n_kv_heads;
    int32_t head_dim;
    int32_t width;
};

#ifdef __cplusplus
#include "layout.h"
#endif
