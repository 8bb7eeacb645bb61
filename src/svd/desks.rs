//! Working memory of the threads that share one matrix, or of the one that has it to itself.

use rayon::prelude::*;

use super::{kernels::padded, source::BLOCK};
use crate::Result;

/// Memory for one block of rows and what is made of it.
pub(super) struct Desk<'a> {
    /// [BLOCK, padded(n)]
    pub(super) rows: &'a mut [f32],
    /// The same in f64.
    pub(super) wide: &'a mut [f64],
    /// [padded(n), padded(n)]
    pub(super) square: &'a mut [f64],
    /// [BLOCK, padded(k)]
    pub(super) product: &'a mut [f64],
}

/// As many desks as threads.
pub(super) struct Desks<'a> {
    memory: &'a mut [f64],
    width: usize,
    columns: usize,
}

impl<'a> Desks<'a> {
    /// Elements of each desk, for `n` columns and `k` singular triplets.
    pub(super) fn elements(n: usize, k: usize) -> usize {
        let (np, kp) = (padded(n), padded(k));
        BLOCK * np / 2 + BLOCK * np + np * np + BLOCK * kp
    }

    /// The desks that `memory` is made of.
    pub(super) fn new(n: usize, k: usize, memory: &'a mut [f64]) -> Self {
        Self { memory, width: n, columns: k }
    }

    /// All desks, of which there is one at least.
    fn all(&mut self) -> impl ExactSizeIterator<Item = Desk<'_>> {
        let (np, kp) = (padded(self.width), padded(self.columns));
        self.memory.chunks_exact_mut(Self::elements(self.width, self.columns)).map(move |memory| {
            let (rows, rest) = memory.split_at_mut(BLOCK * np / 2);
            let (wide, rest) = rest.split_at_mut(BLOCK * np);
            let (square, product) = rest.split_at_mut(np * np);
            Desk { rows: bytemuck::cast_slice_mut(rows), wide, square, product: &mut product[..BLOCK * kp] }
        })
    }

    /// Memory for one block of rows.
    pub(super) fn rows(&mut self) -> &mut [f32] {
        self.all().next().map_or(&mut [], |desk| desk.rows)
    }

    /// Has `work` done at a desk of its own for each of the jobs, one thread at each desk; and then, job by job in their
    /// order, `gather` what it left there.
    pub(super) fn share<J: Send>(
        &mut self,
        mut jobs: impl Iterator<Item = J>,
        work: impl Fn(J, &mut Desk) -> Result<()> + Sync,
        mut gather: impl FnMut(&Desk),
    ) -> Result<()> {
        let mut desks = self.all();
        if let (Some(mut desk), 0) = (desks.next(), desks.len()) {
            return jobs.try_for_each(|job| {
                work(job, &mut desk)?;
                gather(&desk);
                Ok(())
            });
        }
        drop(desks);
        let mut desks: Vec<Desk> = self.all().collect();
        loop {
            let wave: Vec<(J, &mut Desk)> = jobs.by_ref().take(desks.len()).zip(&mut desks).collect();
            let count = wave.len();
            if count == 0 {
                return Ok(());
            }
            wave.into_par_iter().try_for_each(|(job, desk)| work(job, desk))?;
            desks[..count].iter().for_each(&mut gather);
        }
    }
}
