// Eigenvalues and vectors of A'A in f64, where the matrix alone takes half of the registers that a thread can have.
#define LEAST_BLOCKS 1
#include "svd/solve.cuh"

KERNEL(svd_solve_f64, SvdParams, 256) { solve<double>(p); }
