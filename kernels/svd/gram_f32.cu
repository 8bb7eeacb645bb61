// A'A of matrices in f32.
#define LEAST_BLOCKS 1
#include "svd/gram.cuh"

KERNEL(svd_gram_f32, GramParams, 256) { gram<float>(p); }
