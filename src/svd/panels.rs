//! What a sketch is made with: products in panels of a fixed size, each by one thread, so that bits do not depend on how many
//! there are.

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
