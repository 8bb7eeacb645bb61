//! One matrix of a batch, read in place in blocks of rows of its tall orientation.

use super::kernels::padded;
use crate::{Dtype, Result, Tensor, device::simd};

/// Rows of a block. Gram partials have this length, whatever the batch, so that bits do not depend on it.
pub(super) const BLOCK: usize = 256;

/// Where the entries are.
enum Entries<'a> {
    Tensor(Tensor),
    /// Rows of `padded(columns)`, zeros at their ends.
    Plain(&'a [f32]),
}

/// A matrix with at least as many rows as columns: the tensor itself, or its transpose when it is wide.
pub(super) struct Source<'a> {
    entries: Entries<'a>,
    wide: bool,
    /// Rows of the tall orientation.
    pub(super) rows: usize,
    /// Columns of the tall orientation.
    pub(super) columns: usize,
    /// Power of two that entries are multiplied by as they are read.
    pub(super) scale: f64,
}

impl<'a> Source<'a> {
    /// Reads a tensor of shape [m, n] whose rows are dense.
    pub(super) fn new(matrix: Tensor) -> Self {
        let (m, n) = (matrix.shape()[0], matrix.shape()[1]);
        Self { entries: Entries::Tensor(matrix), wide: m < n, rows: m.max(n), columns: m.min(n), scale: 1.0 }
    }

    /// Reads rows of `padded(columns)`, zeros at their ends, at least as many as there are columns.
    pub(super) fn plain(rows: &'a [f32], columns: usize) -> Self {
        let count = rows.len() / padded(columns);
        Self { entries: Entries::Plain(rows), wide: false, rows: count, columns, scale: 1.0 }
    }

    /// Whether the tall orientation is the transpose.
    pub(super) fn is_wide(&self) -> bool {
        self.wide
    }

    /// First rows of the blocks, and how many rows each has.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let rows = self.rows;
        (0..rows).step_by(BLOCK).map(move |start| (start, BLOCK.min(rows - start)))
    }

    /// `count` rows from `start`, each padded with zeros to `padded(columns)`: the tensor's own memory where it has this
    /// very layout, else copied into `memory`.
    pub(super) fn block<'b>(&'b self, start: usize, count: usize, memory: &'b mut [f32]) -> Result<&'b [f32]> {
        let width = padded(self.columns);
        let part = start * width..(start + count) * width;
        if self.scale == 1.0
            && let Some(rows) = self.as_padded()?
        {
            return Ok(&rows[part]);
        }
        let block = &mut memory[..count * width];
        match &self.entries {
            Entries::Plain(rows) => block.copy_from_slice(&rows[part]),
            Entries::Tensor(matrix) if self.wide => self.columns_into(&matrix.narrow(1, start, count)?, count, block)?,
            Entries::Tensor(matrix) => self.rows_into(&matrix.narrow(0, start, count)?, block)?,
        }
        if self.scale != 1.0 {
            // In f64, where no power of two that fits an f32 matrix overflows.
            block.iter_mut().for_each(|x| *x = (f64::from(*x) * self.scale) as f32);
        }
        Ok(block)
    }

    /// All rows, where the memory they lie in has the layout of a block.
    fn as_padded(&self) -> Result<Option<&[f32]>> {
        Ok(match &self.entries {
            Entries::Plain(rows) => Some(rows),
            Entries::Tensor(matrix) => {
                let padded = !self.wide && self.columns == padded(self.columns);
                let plain = padded && matrix.dtype() == Dtype::F32 && matrix.is_contiguous();
                plain.then(|| matrix.slice()).transpose()?
            }
        })
    }

    fn rows_into(&self, view: &Tensor, block: &mut [f32]) -> Result<()> {
        for (to, from) in block.chunks_exact_mut(padded(self.columns)).zip(view.rows()?) {
            let (to, padding) = to.split_at_mut(self.columns);
            simd::widen(view.dtype(), from, to);
            padding.fill(0.0);
        }
        Ok(())
    }

    fn columns_into(&self, view: &Tensor, count: usize, block: &mut [f32]) -> Result<()> {
        let width = padded(self.columns);
        let mut row = [0.0; BLOCK];
        block.fill(0.0);
        for (column, from) in view.rows()?.enumerate() {
            simd::widen(view.dtype(), from, &mut row[..count]);
            for (to, x) in block[column..].iter_mut().step_by(width).zip(&row[..count]) {
                *to = *x;
            }
        }
        Ok(())
    }

    /// The largest magnitude; NaN or infinite when an entry is.
    pub(super) fn largest(&self, memory: &mut [f32]) -> Result<f32> {
        let mut largest = 0.0f32;
        for (start, count) in self.blocks() {
            for x in self.block(start, count, memory)? {
                if !x.is_finite() {
                    return Ok(f32::NAN);
                }
                largest = largest.max(x.abs());
            }
        }
        Ok(largest)
    }
}
