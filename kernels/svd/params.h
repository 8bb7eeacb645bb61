/* What the kernels of svd/ take. Matrices are taken in their tall orientation: the tensor itself, or its transpose
   where it is wide. Strides count elements. */
#pragma once
#include <stdint.h>

/* Rows that one thread block sums up. It does not depend on the batch, so bits do not either. */
#define SVD_CHUNK_ROWS 1024

/* Where a matrix is on its way; every kernel leaves a matrix alone that is not its business. */
#define SVD_OPEN 0       /* to be solved by the present rung */
#define SVD_CHOSEN 1     /* the present rung chose its rank and basis; the projection is to be judged */
#define SVD_SKEWED 2     /* its projected columns are to be orthogonalized one by one */
#define SVD_SINGLE 3     /* solved by the rung in f32 */
#define SVD_DOUBLE 4     /* solved by the rung in f64 */
#define SVD_ZERO 5       /* holds nothing but zeros */
#define SVD_NON_FINITE 6 /* holds a NaN or an infinity */
#define SVD_STUCK 7      /* inverse iteration did not deliver; in the end: nothing did */
#define SVD_JACOBI 8     /* solved by rotations in f64 */
#define SVD_SKETCHED 16  /* beside one of the above: what was solved is a sketch of the matrix */

/* svd_solve has reflections and eigenvectors in shared memory as well. */
#define SVD_SHARED_ALL 1

#define SVD_ROTATED 1  /* the basis comes from rotations */
#define SVD_ARRANGED 2 /* the tall factor is as it is to be */

/* What factors are stored in. */
#define SVD_F32 0
#define SVD_F16 1
#define SVD_BF16 2

/* Columns that svd_project makes together. */
#define SVD_PROJECTED 64

/* What became of a matrix. */
struct SvdVerdict {
    uint32_t state;
    int32_t rank;     /* columns in use */
    float tail;       /* ||A - A~|| / ||A|| */
    uint32_t notes;   /* SVD_ROTATED, SVD_ARRANGED */
};

/* A'A of every matrix whose state is `wanted`. */
struct GramParams {
    const void* a;         /* [batch, rows, columns] f32|bf16|f16 */
    const struct SvdVerdict* verdicts; /* [batch] */
    double* partials; /* [batch, gridDim.x, columns (columns + 1) / 2] lower triangles */
    int64_t row_stride;
    int64_t column_stride;
    int64_t inner_stride; /* from a matrix to the next one, */
    int64_t outer_stride; /* and from `inner` matrices to the next so many */
    int32_t inner;
    int32_t first; /* place of the first matrix among all that the strides lead to */
    int32_t rows;
    int32_t columns;
    uint32_t wanted;
    int32_t all;     /* every matrix is wanted, whatever its state */
    int32_t by_rank; /* matrices have the columns of their rank */
    int32_t dense;   /* rows are whole aligned segments of 16 bytes */
};

/* Everything after A'A, for one rung of the ladder. */
struct SvdParams {
    const void* a;    /* [batch, rows, width] f32|bf16|f16 */
    void* tall;       /* [batch, rows, columns] in tall_dtype: the tall factor on its way */
    void* out_tall;   /* [batch, rows, columns] in factors */
    float* s;         /* [batch, columns]; null: not wanted */
    void* small;      /* [batch, width, columns] in factors */
    double* partials; /* [batch, partial_sums, ..] lower triangles of A'A */
    double* moments;  /* [batch, chunks, ..] lower triangles of tall' tall */
    uint32_t* arrivals; /* [batch] blocks that have projected their rows */
    char* work;       /* [batch, work_stride] what svd_solve has no room for in shared memory */
    double* rotated;  /* [blocks of svd_rotate, ..] vectors and triangle of the matrix that it is at */
    double* basis;    /* [batch, columns, width] eigenvectors in rows */
    double* values;   /* [batch, columns] eigenvalues: estimates of s^2 */
    double* energy;   /* [batch] sum of squares */
    float* mix;       /* [batch, columns, columns] what tall is multiplied by to become orthonormal and ordered */
    struct SvdVerdict* verdicts; /* [batch] */
    int64_t row_stride;
    int64_t column_stride;
    int64_t inner_stride;
    int64_t outer_stride;
    int64_t work_stride; /* bytes */
    double relative; /* tolerated error; negative: every matrix keeps `columns` */
    int32_t inner;
    int32_t first;
    int32_t rows;
    int32_t width;
    int32_t columns;
    int32_t chunks;
    int32_t partial_sums; /* of each matrix */
    uint32_t factors;    /* SVD_F32.. */
    uint32_t tall_dtype;
    uint32_t rung; /* SVD_SINGLE, SVD_DOUBLE or SVD_JACOBI */
    uint32_t solve_shared; /* SVD_SHARED_ALL or 0 */
    int32_t count; /* matrices */
    int32_t fresh; /* this rung is the first: the verdicts hold nothing yet */
    int32_t fast;  /* the first rung is taken as it comes */
    int32_t wide;  /* tall is V, whose signs are to be fixed, and not U */
    int32_t dense; /* rows of A are whole aligned segments of 16 bytes */
    int32_t fused; /* svd_project does what svd_finish and svd_mix do */
    int32_t tall_is_scaled;  /* by s: it is A V */
    int32_t small_is_scaled; /* by s */
    int32_t values_only;
};

#ifdef __cplusplus
#include "layout.h"
#endif
