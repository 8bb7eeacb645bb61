// A'A of matrices in 16 bits.
#define LEAST_BLOCKS 2
#include "svd/gram.cuh"

KERNEL(svd_gram_bf16, GramParams, 256) { gram<bf16>(p); }
KERNEL(svd_gram_f16, GramParams, 256) { gram<f16>(p); }
