// Matrices of more columns than one block has room for: what their kernels share.
#pragma once
#include "svd/eigen.cuh"
#include "svd/spectrum.cuh"

// Vectors of the width of a matrix in global memory, each as long as the eigenvalues' loops read ahead.
struct Lines {
    int n, pitch;
    double *diagonal, *off, *inverse_heights;
    double* products;     // [2, pitch] of what is left of the matrix with a reflection's vector, for even and odd rows
    Eigen<double> eigen;  // the tridiagonal matrix, scaled

    __device__ __forceinline__ explicit Lines(const BroadParams& p) : n(p.svd.width), pitch(round_up(n, AHEAD)) {
        double* const first = p.lines + matrix_index() * SVD_LINES * pitch;
        diagonal = first, off = first + pitch, inverse_heights = first + 2 * pitch, products = first + 3 * pitch;
        eigen.n = n, eigen.diagonal = first + 5 * pitch, eigen.off = first + 6 * pitch, eigen.squares = first + 7 * pitch;
    }
};

__device__ __forceinline__ bool is_open(const BroadParams& p) { return p.svd.verdicts[matrix_index()].state == SVD_OPEN; }

// Where the columns of this matrix begin in arrays of [batch, columns].
__device__ __forceinline__ int64_t columns_of(const BroadParams& p) { return matrix_index() * p.svd.columns; }
