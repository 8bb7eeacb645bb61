// Matrices of more columns than one block has room for: what their kernels share.
#pragma once
#include "svd/eigen.cuh"
#include "svd/spectrum.cuh"

// Vectors of the width of a matrix in global memory.
struct Lines {
    int n;
    double *diagonal, *off, *inverse_heights;
    double* products;     // [2, n] of what is left of the matrix with a reflection's vector, for even and odd rows
    Eigen<double> eigen;  // the tridiagonal matrix, scaled

    __device__ __forceinline__ explicit Lines(const BroadParams& p) : n(p.svd.width) {
        double* const first = p.lines + matrix_index() * SVD_LINES * n;
        diagonal = first, off = first + n, inverse_heights = first + 2 * n;
        products = first + 3 * n;
        eigen.n = n, eigen.diagonal = first + 5 * n, eigen.off = first + 6 * n, eigen.squares = first + 7 * n;
    }
};

__device__ __forceinline__ bool is_open(const BroadParams& p) { return p.svd.verdicts[matrix_index()].state == SVD_OPEN; }

// Where the columns of this matrix begin in arrays of [batch, columns].
__device__ __forceinline__ int64_t columns_of(const BroadParams& p) { return matrix_index() * p.svd.columns; }
