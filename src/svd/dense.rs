//! Factorizations of dense matrices, each by one thread whatever faer's own setting is: bits do not depend on how many there are.

use faer::{
    Accum, Conj, Mat, MatRef, Par,
    diag::Diag,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch},
        householder::{
            apply_block_householder_sequence_on_the_left_in_place_scratch,
            apply_block_householder_sequence_on_the_left_in_place_with_conj,
        },
        matmul::matmul,
        qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size},
    },
};

/// What pivots of a Cholesky factorization must exceed.
#[derive(Clone, Copy)]
pub(super) struct Pivots {
    /// The least share of the diagonal.
    pub(super) share: f64,
    /// The least diagonal.
    pub(super) diagonal: f64,
}

/// Factorizes the first `rank` rows and columns of moments, whose rows are `width` apart, into R'R, R above the diagonal and on
/// it; false where a pivot is too small.
pub(super) fn cholesky(moments: &mut [f64], rank: usize, width: usize, least: Pivots) -> bool {
    for i in 0..rank {
        let diagonal = moments[i * width + i];
        let (above, row) = moments.split_at_mut(i * width);
        for other in above.chunks_exact(width) {
            let factor = other[i];
            row[i..rank].iter_mut().zip(&other[i..rank]).for_each(|(x, y)| *x -= factor * y);
        }
        let pivot = row[i];
        if !(pivot > least.share * diagonal && diagonal > least.diagonal) {
            return false;
        }
        row[i..rank].iter_mut().for_each(|x| *x /= pivot.sqrt());
    }
    true
}

/// The inverse of the upper triangular factor, zeros elsewhere.
pub(super) fn invert(factor: &[f64], inverse: &mut [f64], rank: usize, width: usize) {
    inverse.fill(0.0);
    for i in (0..rank).rev() {
        let (above, below) = inverse.split_at_mut((i + 1) * width);
        let row = &mut above[i * width..];
        row[i] = 1.0;
        for l in i + 1..rank {
            let other = &below[(l - i - 1) * width..][..rank];
            row[l..rank].iter_mut().zip(&other[l..]).for_each(|(x, y)| *x -= factor[i * width + l] * y);
        }
        row[i..rank].iter_mut().for_each(|x| *x /= factor[i * width + i]);
    }
}

/// Makes the columns of rows of `width` orthonormal by Householder reflections, and returns the diagonal of R.
pub(super) fn reflect_columns(rows: &mut [f32], width: usize) -> Vec<f32> {
    let count = rows.len() / width;
    let mut factored = MatRef::from_row_major_slice(&*rows, count, width).to_owned();
    let depth = recommended_block_size::<f32>(count, width);
    let mut coefficients = Mat::zeros(depth, width);
    let need = qr_in_place_scratch::<f32>(count, width, depth, Par::Seq, Default::default());
    let stack = &mut MemBuffer::new(need);
    qr_in_place(factored.as_mut(), coefficients.as_mut(), Par::Seq, MemStack::new(stack), Default::default());
    let diagonal = (0..width).map(|i| factored[(i, i)]).collect();
    let basis = Mat::from_fn(count, width, |i, j| match i.cmp(&j) {
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => 1.0,
        std::cmp::Ordering::Greater => factored[(i, j)],
    });
    let mut q = Mat::<f32>::identity(count, width);
    let need = apply_block_householder_sequence_on_the_left_in_place_scratch::<f32>(count, depth, width);
    let stack = &mut MemBuffer::new(need);
    apply_block_householder_sequence_on_the_left_in_place_with_conj(
        basis.as_ref(),
        coefficients.as_ref(),
        Conj::No,
        q.as_mut(),
        Par::Seq,
        MemStack::new(stack),
    );
    for (i, row) in rows.chunks_exact_mut(width).enumerate() {
        row.iter_mut().enumerate().for_each(|(j, x)| *x = q[(i, j)]);
    }
    diagonal
}

/// Eigenvalues, ascending, and eigenvectors of a symmetric matrix; nothing where they do not converge.
pub(super) fn symmetric_eigen(matrix: MatRef<'_, f64>) -> Option<(Vec<f64>, Mat<f64>)> {
    let n = matrix.nrows();
    let (mut values, mut vectors) = (Diag::zeros(n), Mat::zeros(n, n));
    let need = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let stack = &mut MemBuffer::new(need);
    let into = (values.as_mut(), Some(vectors.as_mut()));
    self_adjoint_evd(matrix, into.0, into.1, Par::Seq, MemStack::new(stack), Default::default()).ok()?;
    Some((values.column_vector().iter().copied().collect(), vectors))
}

/// left right
pub(super) fn product(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(left.nrows(), right.ncols());
    matmul(out.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
    out
}
