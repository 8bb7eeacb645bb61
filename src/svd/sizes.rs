//! The extents of a call, checked.

use std::ops::Range;

use super::{Mode, OP, gpu, max_columns};
use crate::{Device, Error, Result};

/// The extents of a call: for each of the leading positions the segments that rows are cut into, a matrix each.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    /// Where segments begin, and where the last one ends.
    pub(super) offsets: Vec<usize>,
    /// Matrices in all.
    pub(super) batch: usize,
    /// Rows of all segments.
    pub(super) m: usize,
    pub(super) n: usize,
    /// Columns of the factors.
    pub(super) columns: usize,
}

impl Sizes {
    /// Matrices [.., m, n], each of one segment.
    pub(super) fn new(shape: &[usize], columns: usize, device: &Device) -> Result<Self> {
        let [leading @ .., m, n] = shape else {
            return Err(Error::shape(OP, format!("a {shape:?}"), "matrices [.., m, n]"));
        };
        let (m, n) = (*m, *n);
        if shape.iter().try_fold(1usize, |all, extent| all.checked_mul(*extent)).is_none() {
            return Err(Error::shape(OP, format!("a {shape:?}"), "fewer than 2^64 elements"));
        }
        if m == 0 || n == 0 {
            return Err(Error::shape(OP, format!("matrices of {m} x {n}"), "at least one row and one column"));
        }
        let batch = leading.iter().product();
        if batch == 0 {
            return Err(Error::shape(OP, format!("a {shape:?}, an empty batch"), "at least one matrix"));
        }
        let sizes = Self { offsets: vec![0, m], batch, m, n, columns };
        sizes.check_columns(m.min(n), &format!("matrices of {m} x {n}"))?;
        sizes.check_device(device)?;
        Ok(sizes)
    }

    /// Rows [.., m, n] cut into segments at `offsets`.
    pub(super) fn ragged(shape: &[usize], offsets: &[usize], columns: usize, device: &Device) -> Result<Self> {
        let [leading @ .., m, n] = shape else {
            return Err(Error::shape(OP, format!("a {shape:?}"), "rows [.., m, n]"));
        };
        let complete = offsets.first() == Some(&0) && offsets.last() == Some(m) && offsets.len() > 1;
        if !complete {
            let found = format!("{} offsets from {:?} to {:?}", offsets.len(), offsets.first(), offsets.last());
            return Err(Error::shape(OP, found, format!("offsets from 0 to the {m} rows, at least two")));
        }
        if let Some(at) = offsets.windows(2).position(|pair| pair[0] >= pair[1]) {
            let found = format!("segment {at} from row {} to row {}", offsets[at], offsets[at + 1]);
            return Err(Error::shape(OP, found, "at least one row in each segment"));
        }
        // The rank of a segment may be its rows; what it lacks is zero.
        let whole = Self::new(&[leading, &[(*m).max(*n), *n]].concat(), columns, &Device::cpu())?;
        let segments = offsets.len() - 1;
        let sizes = Self { offsets: offsets.to_vec(), batch: whole.batch * segments, m: *m, ..whole };
        sizes.check_device(device)?;
        Ok(sizes)
    }

    pub(super) fn segments(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Rows of a matrix of the batch.
    pub(super) fn rows(&self, index: usize) -> Range<usize> {
        let segment = index % self.segments();
        self.offsets[segment]..self.offsets[segment + 1]
    }

    /// Rows of each segment.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0])
    }

    fn check_columns(&self, most: usize, what: &str) -> Result<()> {
        if (1..=most).contains(&self.columns) {
            return Ok(());
        }
        Err(Error::shape(OP, format!("rank {}", self.columns), format!("1..={most} for {what}")))
    }

    fn check_device(&self, device: &Device) -> Result<()> {
        let small = self.lengths().max().unwrap_or(0).min(self.n);
        match max_columns(device) {
            Some(most) if small > most && !gpu::sketches(small, self.columns, Mode::Safe) => {
                let found = format!("matrices of {} x {}, the smaller side {small}", self.m, self.n);
                Err(Error::shape(OP, found, format!("min(m, n) <= {most} on {device}, or a rank of less than a tenth of it")))
            }
            _ => Ok(()),
        }
    }
}
