//! What became of each matrix, in a table that lies where the factors lie: nobody waits for it until it is read.

use bytemuck::{Pod, Zeroable};

use super::{
    Rung,
    params::{SVD_DOUBLE, SVD_JACOBI, SVD_NON_FINITE, SVD_SINGLE, SVD_SKETCHED, SVD_ZERO},
};
use crate::{Result, Tensor};

/// Bytes of one row of the table.
pub(super) const ROW_BYTES: usize = size_of::<Row>();

/// What became of one matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Columns in use; those above are zero.
    pub rank: usize,
    /// How it was solved, or why not.
    pub info: Info,
    /// ||A - A~|| / ||A||, before the factors were rounded to their dtype (in f32 that adds about 1e-7).
    pub tail: f32,
}

/// How a matrix was solved, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info {
    /// Factorized by way of its Gram matrix, on this rung.
    Solved(Rung),
    /// Factorized by way of a sketch, whose own Gram matrix was solved on this rung.
    Sketched(Rung),
    /// The matrix holds a NaN or an infinity. Its factors and its tail are NaN and its rank is zero.
    NonFinite,
    /// No rung converged. Its factors and its tail are NaN and its rank is zero. No finite matrix is known to end here.
    Stuck,
}

/// A row as kernels write it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Row {
    /// SVD_SINGLE.. and, for a sketch, SVD_SKETCHED beside it.
    pub(super) state: u32,
    pub(super) rank: i32,
    pub(super) tail: f32,
    pub(super) pad: u32,
}

impl Row {
    pub(super) fn new(verdict: Verdict) -> Self {
        let of = |rung| match rung {
            Rung::Single => SVD_SINGLE,
            Rung::Double => SVD_DOUBLE,
            Rung::Jacobi => SVD_JACOBI,
        };
        let state = match verdict.info {
            Info::Solved(rung) => of(rung),
            Info::Sketched(rung) => of(rung) | SVD_SKETCHED,
            Info::NonFinite => SVD_NON_FINITE,
            Info::Stuck => super::params::SVD_STUCK,
        };
        Self { state, rank: verdict.rank as i32, tail: verdict.tail, pad: 0 }
    }

    fn verdict(self) -> Verdict {
        let rung = match self.state & !SVD_SKETCHED {
            SVD_SINGLE | SVD_ZERO => Some(Rung::Single),
            SVD_DOUBLE => Some(Rung::Double),
            SVD_JACOBI => Some(Rung::Jacobi),
            _ => None,
        };
        let info = match rung {
            Some(rung) if self.state & SVD_SKETCHED != 0 => Info::Sketched(rung),
            Some(rung) => Info::Solved(rung),
            None if self.state & !SVD_SKETCHED == SVD_NON_FINITE => Info::NonFinite,
            None => Info::Stuck,
        };
        Verdict { rank: self.rank.max(0) as usize, info, tail: self.tail }
    }
}

pub(super) fn read(table: &Tensor) -> Result<Vec<Verdict>> {
    let bytes = table.to_vec::<i8>()?;
    let rows = bytes.chunks_exact(ROW_BYTES);
    Ok(rows.map(|row| bytemuck::pod_read_unaligned::<Row>(bytemuck::cast_slice(row)).verdict()).collect())
}
