//! Every eigenvalue and vector of a symmetric matrix by cyclic Jacobi rotations (Golub and Van Loan, "Matrix
//! Computations", section 8.5): the last rung of the ladder.

use super::{vector::dot, watch::Steps};
use crate::Result;

const SWEEPS: usize = 40;

/// Diagonalizes `a` (n x n, rows `stride` apart), and leaves the eigenvectors in the rows of `vectors`, in descending
/// order of their `values`. Returns whether it converged.
pub(super) fn diagonalize(
    a: &mut [f64],
    n: usize,
    stride: usize,
    values: &mut [f64],
    vectors: &mut [f64],
    steps: Steps,
) -> Result<bool> {
    vectors.fill(0.0);
    (0..n).for_each(|i| vectors[i * stride + i] = 1.0);
    let size = dot(a, a).sqrt();
    for _ in 0..SWEEPS {
        let mut left = 0.0;
        for p in 0..n {
            steps.check()?;
            for q in p + 1..n {
                left += a[p * stride + q].powi(2);
                if let Some((cosine, sine)) = rotation(a[p * stride + p], a[p * stride + q], a[q * stride + q]) {
                    rotate_rows(a, stride, p, q, cosine, sine);
                    rotate_columns(a, n, stride, p, q, cosine, sine);
                    rotate_rows(vectors, stride, p, q, cosine, sine);
                }
            }
        }
        if left.sqrt() <= f64::EPSILON * size {
            sort(a, n, stride, values, vectors);
            return Ok(true);
        }
    }
    Ok(false)
}

/// The rotation that annihilates the off-diagonal entry.
fn rotation(app: f64, apq: f64, aqq: f64) -> Option<(f64, f64)> {
    if apq == 0.0 {
        return None;
    }
    let ratio = (aqq - app) / (2.0 * apq);
    let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    Some((cosine, tangent * cosine))
}

fn rotate_rows(a: &mut [f64], stride: usize, p: usize, q: usize, cosine: f64, sine: f64) {
    let (low, high) = a.split_at_mut(q * stride);
    for (x, y) in low[p * stride..][..stride].iter_mut().zip(&mut high[..stride]) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

fn rotate_columns(a: &mut [f64], n: usize, stride: usize, p: usize, q: usize, cosine: f64, sine: f64) {
    for row in a.chunks_exact_mut(stride).take(n) {
        (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
    }
}

/// Selection sort by value: n exchanges of rows at most.
fn sort(a: &mut [f64], n: usize, stride: usize, values: &mut [f64], vectors: &mut [f64]) {
    (0..n).for_each(|i| values[i] = a[i * stride + i]);
    for i in 0..n {
        let largest = (i..n).fold(i, |best, j| if values[j] > values[best] { j } else { best });
        if largest != i {
            values.swap(i, largest);
            let (low, high) = vectors.split_at_mut(largest * stride);
            low[i * stride..][..stride].swap_with_slice(&mut high[..stride]);
        }
    }
}
