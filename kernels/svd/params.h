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
#define SVD_SLANTED 9    /* its projected columns are to be divided by the Cholesky factor of their moments */
#define SVD_SKETCHED 16  /* beside one of the above: what was solved is a sketch of the matrix */

/* svd_solve has reflections and eigenvectors in shared memory as well. */
#define SVD_SHARED_ALL 1

#define SVD_ROTATED 1  /* the basis comes from rotations */
#define SVD_ARRANGED 2 /* the tall factor is as it is to be */

/* What factors are stored in; */
#define SVD_F32 0
#define SVD_F16 1
#define SVD_BF16 2
/* and what else svd_multiply takes. */
#define SVD_F64 3
#define SVD_SIGNS 4 /* random ones, made where they are read */

/* Columns that svd_project makes together. */
#define SVD_PROJECTED 64

/* Rows and columns of a tile of svd_multiply, and its depth at a time. */
#define SVD_TILE 64
#define SVD_DEPTH 16

/* Rows and columns of a tile of a triangle that is factorized, and of vectors that are found together. */
#define SVD_PANEL 32

/* Entries of tridiagonal matrices that are read together, ahead of the steps that need them. */
#define SVD_AHEAD 4

/* Vectors of the width of a matrix that its reduction to tridiagonal form leaves. */
#define SVD_LINES 8

/* Rows that a block of svd_broad_reduce brings up to date. */
#define SVD_REDUCED_ROWS 32

/* Below this share of its diagonal a pivot of moments, and below that a diagonal itself, sends columns to be orthogonalized
   one by one. */
#define SVD_PIVOT 0.25
#define SVD_LEAST_DIAGONAL 1e-4

/* Eigenvalues of a weight below this share of the largest are raised to it. */
#define SVD_WEIGHT_FLOOR 1e-6

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

/* A factor of a product, or the product: a batch of matrices. */
struct SvdOperand {
    void* at;
    int64_t row_stride;
    int64_t column_stride;
    int64_t inner_stride; /* from a matrix to the next one, */
    int64_t outer_stride; /* and from `inner` matrices to the next so many */
    int64_t inner;
    int32_t first; /* place of the first matrix among all that the strides lead to */
    uint32_t dtype; /* SVD_F32..; signs are one row after another in the bits of Philox, whose number the strides lead to */
};

/* C = A B for every matrix whose state is `wanted`, with sums in f64. */
struct MultiplyParams {
    struct SvdOperand a; /* [batch, rows, depth] */
    struct SvdOperand b; /* [batch, depth, columns] */
    struct SvdOperand c; /* [batch, rows, columns] */
    const struct SvdVerdict* verdicts; /* [batch]; null: all are wanted */
    const double* scales; /* [batch, columns] that columns of C are multiplied by; null: none */
    uint64_t seed;       /* of signs */
    int64_t part_stride; /* from one partial sum of C to the next */
    int32_t part;        /* depth of a partial sum: a multiple of SVD_DEPTH */
    int32_t rows;
    int32_t columns;
    int32_t depth;
    uint32_t wanted;
    int32_t lower;    /* C is symmetric: its lower triangle is all that is made, */
    int32_t packed;   /* and stored without gaps */
    int32_t subtract; /* C = C - A B */
};

/* Moments X'X = L L', and X L'^-1, whose columns are orthonormal. */
struct TriangleParams {
    double* moments; /* [batch, columns, columns] lower triangles: X'X, and below its tiles on the diagonal L */
    double* corners; /* [batch, panels, SVD_PANEL, SVD_PANEL] tiles on the diagonal of L */
    double* pivots;  /* [batch, columns] squared lengths that columns have beside those before, as shares of what they had */
    double* lengths; /* [batch, columns] the diagonal of L */
    void* x;         /* [batch, rows, columns], rows `stride` elements apart and matrices `next` */
    int64_t next;
    const struct SvdVerdict* verdicts; /* [batch] */
    double least;          /* pivots from which on X is divided */
    float least_diagonal; /* moments below count as no pivot at all */
    uint32_t dtype;  /* of X: SVD_F32 or SVD_F64 */
    uint32_t wanted;
    int32_t rows;
    int32_t columns;
    int32_t stride;
    int32_t panel; /* that is factorized */
    float noise; /* columns whose pivot is not above this are replaced by random signs where svd_refill is run, */
    uint64_t seed; /* which this gives */
    uint64_t stream; /* together with this */
};

/* Matrices of more columns than one block has room for. */
struct BroadParams {
    struct SvdParams svd;
    double* square;      /* [batch, width, width] A'A over its trace, and what the reduction has left of it */
    double* reflections; /* [batch, width (width + 1) / 2] their vectors in the rows of lower triangles */
    double* lines;       /* [batch, SVD_LINES, width] */
    double* scale;       /* [batch] what scaled eigenvalues are multiplied by */
    double* vectors;     /* [batch, width, columns] eigenvectors of the tridiagonal matrix */
    double* elimination; /* [batch, ceil(columns / SVD_PANEL), 2, width, SVD_PANEL] */
    unsigned char* swaps; /* [batch, ceil(columns / SVD_PANEL), width, SVD_PANEL] */
    double* eigenvalues; /* [batch, columns] of the tridiagonal matrix */
    double* exact;       /* [batch, columns] 1 for eigenvectors that are that to rounding */
    double* scales;      /* [batch, columns] 1 / s */
    double* pivots;      /* [batch, columns], and */
    double* lengths;     /* [batch, columns] as TriangleParams has them */
    double* singular;    /* [batch, columns] s, */
    int32_t* order;      /* [batch, columns] where columns come from when s descends, */
    float* signs;        /* [batch, columns] and what they are multiplied by */
    int32_t step;        /* row that svd_broad_reduce takes */
    int32_t warps;       /* that have room in the shared memory of svd_broad_turn */
};

/* Large matrices, by what they are within a space K of few columns: Z = A K. */
struct SketchParams {
    struct SvdOperand a; /* [batch, rows, summed] whose squares are summed up: A in its tall orientation, or Z */
    double* sums;        /* [batch, 2, parts] of the squares of A, and of Z */
    struct SvdVerdict* space; /* [batch] how K is getting on */
    const struct SvdVerdict* inner; /* [batch] what became of Z, */
    const float* tall;  /* [batch, rows, columns] its tall factor, */
    const float* s;     /* [batch, columns] its singular values, */
    const float* small; /* [batch, width, columns] and K times its small factor */
    void* out_tall;     /* [batch, rows, columns] in factors */
    float* out_s;       /* [batch, columns]; null: not wanted */
    void* out_small;    /* [batch, width, columns] in factors */
    struct SvdVerdict* verdicts; /* [batch] */
    double relative; /* tolerated error; negative: every matrix keeps `columns` */
    int32_t rows;
    int32_t width;
    int32_t columns;
    int32_t block; /* columns of K that are made together */
    int32_t summed;
    int32_t which; /* of the two sums */
    int32_t parts;
    uint32_t factors; /* SVD_F32.. */
    int32_t wide; /* tall is V, whose signs are to be fixed, and not U */
    int32_t tall_is_scaled;  /* by s: it is A V */
    int32_t small_is_scaled; /* by s */
    int32_t values_only;
};

/* Factors of weighted rows in f32, and where they go. */
struct WeightParams {
    const float* u;       /* [batch, rows, columns] */
    const float* v;       /* [batch, width, columns], */
    const float* encoder; /* and so are these */
    const float* decoder;
    void* out_u; /* in the same shapes */
    void* out_v;
    void* out_encoder;
    void* out_decoder;
    int32_t rows;
    int32_t width;
    int32_t columns;
    uint32_t factors; /* SVD_F32.. */
};

/* Rows of every matrix copied to where they are wider, and lie farther apart. */
struct SpreadParams {
    const void* from; /* [batch, rows, from_columns] */
    void* to;         /* [rows, columns] for every matrix */
    const struct SvdVerdict* verdicts; /* [batch] */
    int64_t to_stride; /* elements from a matrix to the next one */
    int32_t rows;
    int32_t from_columns;
    int32_t columns;
    uint32_t dtype; /* SVD_F32, which stands for any four bytes, SVD_F16 or SVD_BF16 */
};

#ifdef __cplusplus
#include "layout.h"
#endif
