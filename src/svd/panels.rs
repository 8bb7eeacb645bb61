//! What a sketch is made with: products in panels of a fixed size, each by one thread, so that bits do not depend on how many
//! there are; and the factorization of moments.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

use crate::Result;

/// Rows of a panel, and of what one product sums over at a time.
pub(super) const PANEL: usize = 512;
pub(super) const DEPTH: usize = 1024;
/// Two tiles of an f32 matrix.
pub(super) const TILES: usize = 2 * PANEL * DEPTH;
/// Columns whose Cholesky pivots keep this share of their diagonal are orthonormalized by way of their moments.
const PIVOT: f64 = 1e-5;

/// Gives every panel of `out` to some thread, with two tiles to work with.
pub(super) fn panels<T: Send>(
    out: &mut [T],
    panel: usize,
    tiles: &mut [f32],
    work: impl Fn(usize, &mut [T], &mut [f32]) -> Result<()> + Sync,
) -> Result<()> {
    let jobs = Mutex::new(out.chunks_mut(panel).enumerate());
    tiles.par_chunks_exact_mut(TILES).try_for_each(|tiles| {
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, out)) = job else { return Ok(()) };
            work(index, out, tiles)?;
        }
    })
}

/// The rows of a panel.
pub(super) fn rows_of(panel: usize, rows: usize) -> Range<usize> {
    panel * PANEL..rows.min((panel + 1) * PANEL)
}

/// What one product after another sums over.
pub(super) fn chunks(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(DEPTH).map(move |start| start..len.min(start + DEPTH))
}

/// out = factor left right, or that added to it.
pub(super) fn add_product(out: MatMut<f32>, fresh: bool, left: MatRef<f32>, right: MatRef<f32>, factor: f32) {
    let accum = if fresh { Accum::Replace } else { Accum::Add };
    matmul(out, accum, left, right, factor, Par::Seq);
}

/// Q'Q of a matrix of rows of `width`, summed in f32 over a panel and in f64 over those.
pub(super) fn moments_of(rows: &[f32], width: usize, moments: &mut [f64], tiles: &mut [f32]) -> Result<()> {
    let square = width * width;
    let mut partial = vec![0.0f32; rows.len().div_ceil(PANEL * width) * square];
    panels(&mut partial, square, tiles, |panel, out, _| {
        let block = &rows[panel * PANEL * width..];
        let block = &block[..block.len().min(PANEL * width)];
        let block = MatRef::from_row_major_slice(block, block.len() / width, width);
        add_product(MatMut::from_row_major_slice_mut(out, width, width), true, block.transpose(), block, 1.0);
        Ok(())
    })?;
    moments.fill(0.0);
    for part in partial.chunks_exact(square) {
        moments.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part));
    }
    Ok(())
}

/// The larger of two magnitudes; NaN where one is.
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || b <= a { a } else { b }
}

/// The squared lengths of the columns of rows of `width`.
pub(super) fn squared_lengths(rows: &[f32], width: usize) -> Vec<f64> {
    let mut lengths = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        lengths.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x).powi(2));
    }
    lengths
}

/// Factorizes the moments into R'R, R above the diagonal and on it; false where a pivot is too small.
pub(super) fn cholesky(moments: &mut [f64], width: usize) -> bool {
    for i in 0..width {
        let diagonal = moments[i * width + i];
        let (above, row) = moments.split_at_mut(i * width);
        let row = &mut row[..width];
        for other in above.chunks_exact(width) {
            let factor = other[i];
            row[i..].iter_mut().zip(&other[i..]).for_each(|(x, y)| *x -= factor * y);
        }
        let pivot = row[i];
        if !(pivot > PIVOT * diagonal && diagonal > 0.0) {
            return false;
        }
        row[i..].iter_mut().for_each(|x| *x /= pivot.sqrt());
    }
    true
}

/// The inverse of the upper triangular factor, zeros below its diagonal.
pub(super) fn invert(factor: &[f64], inverse: &mut [f64], width: usize) {
    inverse.fill(0.0);
    for i in (0..width).rev() {
        let (above, below) = inverse.split_at_mut((i + 1) * width);
        let row = &mut above[i * width..];
        row[i] = 1.0;
        for l in i + 1..width {
            let other = &below[(l - i - 1) * width..][..width];
            row[l..].iter_mut().zip(&other[l..]).for_each(|(x, y)| *x -= factor[i * width + l] * y);
        }
        row[i..].iter_mut().for_each(|x| *x /= factor[i * width + i]);
    }
}
