// Eigenvalues and vectors of A'A in f32.
#define LEAST_BLOCKS 2
#include "svd/solve.cuh"

KERNEL(svd_solve_f32, SvdParams, 256) { solve<float>(p); }
