//! The CPU path: matrices in parallel, each by one thread, from one Gram pass to one projection pass.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{
    Info, MAX_COLUMNS, OP, Options, Rank, Rung, SINGLE_TAIL, Sizes, Svd,
    eigen::Eigen,
    factors::Factors,
    jacobi,
    kernels::{Precision, padded},
    source::{BLOCK, Source},
};
use crate::{Error, Result, Scratch, Tensor};

/// Largest s_1 / s_rank that an f32 Gram matrix is trusted with.
const SINGLE_CONDITION: f64 = 100.0;
/// Energy that may stray off the diagonal, beside the energy left out.
const STRAYS: f64 = 1e-4;
/// Sums of squares in this range lose nothing in f32.
const SAFE_ENERGY: std::ops::Range<f64> = 1e-12..1e24;
/// Rounding of U, s and V to f32, relative to ||A||: kept free below a tolerance.
const OUTPUT_ROUNDING: f64 = 2e-7;
/// Error of the energies that a rank is chosen by, relative to the tolerated energy.
const SINGLE_MARGIN: f64 = 2e-3;
const DOUBLE_MARGIN: f64 = 1e-6;

pub(super) fn scratch_bytes(sizes: Sizes) -> usize {
    workers(sizes) * Workspace::elements(&sizes) * size_of::<f64>()
}

fn workers(sizes: Sizes) -> usize {
    rayon::current_num_threads().min(sizes.batch)
}

pub(super) fn truncated(
    a: &Tensor,
    sizes: Sizes,
    rank: Rank,
    options: &Options,
    out: &mut Svd,
    scratch: &mut Scratch,
) -> Result<()> {
    let Sizes { batch, m, n, columns } = sizes;
    out.rank.resize(batch, 0);
    out.info.resize(batch, Info::NonFinite);
    out.tail.resize(batch, f32::NAN);
    let us = out.u.slice_mut::<f32>()?.chunks_exact_mut(m * columns);
    let ss = out.s.slice_mut::<f32>()?.chunks_exact_mut(columns);
    let vs = out.v.slice_mut::<f32>()?.chunks_exact_mut(n * columns);
    let verdicts = out.rank.iter_mut().zip(&mut out.info).zip(&mut out.tail);
    // Workers draw matrices one by one: matrices that climb the ladder take longer than others.
    let jobs = Mutex::new(us.zip(ss).zip(vs).zip(verdicts).enumerate());
    let share = Workspace::elements(&sizes);
    scratch.take::<f64>(workers(sizes) * share)?.par_chunks_exact_mut(share).try_for_each(|memory| {
        let mut workspace = Workspace::new(&sizes, memory);
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, (((u, s), v), ((rank_out, info), tail)))) = job else { return Ok(()) };
            let source = Source::new(matrix(a, index)?);
            let (tall, small) = if source.is_wide() { (v, u) } else { (u, v) };
            let verdict = Solver { source, rank, workspace: &mut workspace, tall, s, small }.solve(options.start)?;
            (*rank_out, *info, *tail) = (verdict.rank, verdict.info, verdict.tail as f32);
        }
    })
}

/// The matrix at `index` in row-major order of the leading axes.
fn matrix(a: &Tensor, mut index: usize) -> Result<Tensor> {
    let mut view = a.clone();
    for axis in (0..a.shape().len() - 2).rev() {
        view = view.select(axis, index % a.shape()[axis])?;
        index /= a.shape()[axis];
    }
    Ok(view)
}

/// Working memory of one thread, for one matrix at a time.
struct Workspace<'a> {
    block: &'a mut [f32],
    partial: &'a mut [f64],
    gram: &'a mut [f64],
    values: &'a mut [f64],
    rows: &'a mut [f64],
    basis: &'a mut [f64],
    eigen: Eigen<'a>,
    factors: Factors<'a>,
}

impl<'a> Workspace<'a> {
    fn elements(sizes: &Sizes) -> usize {
        let (n, k) = (sizes.m.min(sizes.n), sizes.columns);
        let (np, kp) = (padded(n), padded(k));
        BLOCK * np / 2 + 3 * np * np + np + np * kp + Eigen::elements(n) + Factors::elements(n, k)
    }

    fn new(sizes: &Sizes, memory: &'a mut [f64]) -> Self {
        let (n, k) = (sizes.m.min(sizes.n), sizes.columns);
        let (np, kp) = (padded(n), padded(k));
        let mut rest = memory;
        let mut next = |len: usize| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part
        };
        Self {
            block: bytemuck::cast_slice_mut(next(BLOCK * np / 2)),
            partial: next(np * np),
            gram: next(np * np),
            rows: next(np * np),
            values: next(np),
            basis: next(np * kp),
            eigen: Eigen::new(n, next(Eigen::elements(n))),
            factors: Factors::new(n, k, next(Factors::elements(n, k))),
        }
    }
}

struct Verdict {
    rank: usize,
    info: Info,
    tail: f64,
}

/// One matrix on its way. `tall` is the factor with as many rows as the longer side, `small` the other one.
struct Solver<'a, 'b> {
    source: Source,
    rank: Rank,
    workspace: &'a mut Workspace<'b>,
    tall: &'a mut [f32],
    s: &'a mut [f32],
    small: &'a mut [f32],
}

impl Solver<'_, '_> {
    fn solve(mut self, start: Rung) -> Result<Verdict> {
        // The f32 Gram matrix tells NaN, zero and scale apart from the rest at no extra pass.
        let mut energy = self.gram::<f32>()?;
        if !SAFE_ENERGY.contains(&energy) {
            let largest = self.source.largest(self.workspace.block)?;
            if !largest.is_finite() {
                return Ok(self.non_finite());
            }
            if largest == 0.0 {
                return Ok(self.zero());
            }
            self.source.scale = f64::from(largest).log2().floor().exp2().recip();
            energy = self.gram::<f32>()?;
        }
        if start == Rung::Single
            && self.rank.may_start_in_single(self.source.columns)
            && let Some(verdict) = self.climb::<f32>(Rung::Single, energy)?
        {
            return Ok(verdict);
        }
        for rung in [Rung::Double, Rung::Jacobi] {
            if start <= rung {
                tracing::debug!(?rung, columns = self.source.columns, "a matrix needs more than single precision");
                let energy = self.gram::<f64>()?;
                if let Some(verdict) = self.climb::<f64>(rung, energy)? {
                    return Ok(verdict);
                }
            }
        }
        Err(Error::Numeric { op: OP, what: "the eigenvalue iteration did not converge".into() })
    }

    /// Leaves A'A in `gram`, summed in T over blocks of fixed length and in f64 over those; returns its trace.
    fn gram<T: Precision>(&mut self) -> Result<f64> {
        let Workspace { block: memory, partial, gram, factors, .. } = &mut *self.workspace;
        let (n, width) = (self.source.columns, padded(self.source.columns));
        gram.fill(0.0);
        for (start, count) in self.source.blocks() {
            let wide = bytemuck::cast_slice_mut(factors.wide_block());
            let block = T::of_block(self.source.block(start, count, memory)?, wide);
            let partial = &mut bytemuck::cast_slice_mut::<f64, T>(partial)[..width * width];
            partial.fill(T::ZERO);
            T::gram(block, width, partial);
            for (i, (sums, parts)) in gram.chunks_exact_mut(width).zip(partial.chunks_exact(width)).enumerate() {
                sums[i..].iter_mut().zip(&parts[i..]).for_each(|(sum, part)| *sum += part.wide());
            }
        }
        for i in 0..n {
            for j in 0..i {
                gram[i * width + j] = gram[j * width + i];
            }
        }
        Ok((0..n).map(|i| gram[i * width + i]).sum())
    }

    /// One attempt with the Gram matrix at hand; nothing when a check fails.
    fn climb<T: Precision>(&mut self, rung: Rung, energy: f64) -> Result<Option<Verdict>> {
        let Some(rank) = self.basis(rung, energy) else { return Ok(None) };
        let columns = self.rank.columns();
        let Workspace { block, values, basis, factors, .. } = &mut *self.workspace;
        // The floor is where f64 sums of squares end: a smaller value would only blow up rounding.
        let floor = 1e-16 * values[0];
        factors.s.iter_mut().zip(&values[..rank]).for_each(|(s, value)| *s = value.max(floor).sqrt());
        factors.project::<T>(&self.source, block, basis, rank, self.tall, columns)?;
        let orthogonal = factors.cholesky(rank);
        let left = energy - factors.s[..rank].iter().map(|s| s * s).sum::<f64>();
        match orthogonal {
            Some(strays) if rung != Rung::Single || strays <= STRAYS * left => {
                factors.orthogonalize(rank, self.tall, columns);
            }
            _ if rung == Rung::Single => return Ok(None),
            _ => factors.orthogonalize_columns(rank, self.tall, columns),
        }
        Ok(self.accept(rung, rank, energy))
    }

    /// Leaves the eigenvectors that the rank asks for in `basis`, and returns the rank.
    fn basis(&mut self, rung: Rung, energy: f64) -> Option<usize> {
        let (n, stride, columns) = (self.source.columns, padded(self.source.columns), self.rank.columns());
        let Workspace { gram, values, rows, basis, eigen, .. } = &mut *self.workspace;
        if rung == Rung::Jacobi {
            if !jacobi::diagonalize(gram, n, stride, values, rows) {
                return None;
            }
        } else {
            eigen.reduce(gram);
            eigen.largest(&mut values[..columns]);
        }
        let rank = choose_rank(self.rank, rung, &values[..columns], energy);
        let values = &values[..rank];
        if rung == Rung::Single && !single_suffices(values, energy) {
            return None;
        }
        if rung != Rung::Jacobi && !eigen.vectors(values, rows) {
            return None;
        }
        let width = padded(rank);
        let basis = &mut basis[..stride * width];
        basis.fill(0.0);
        for (column, row) in rows.chunks_exact(stride).take(rank).enumerate() {
            row[..n].iter().enumerate().for_each(|(i, x)| basis[i * width + column] = *x);
        }
        if rung != Rung::Jacobi {
            eigen.back_transform(gram, basis, width);
        }
        if !self.source.is_wide() {
            fix_signs(basis, width, rank);
        }
        Some(rank)
    }

    /// Writes s and the small factor, and puts the columns in order; nothing when a tolerance was missed after all.
    fn accept(&mut self, rung: Rung, rank: usize, energy: f64) -> Option<Verdict> {
        let Workspace { basis, factors, .. } = &mut *self.workspace;
        let (columns, width) = (self.rank.columns(), padded(rank));
        let arrangement = factors.arrangement(rank, self.tall, columns, self.source.is_wide());
        let captured: f64 = factors.s[..rank].iter().map(|s| s * s).sum();
        let tail = ((energy - captured).max(0.0) / energy).sqrt();
        if let Rank::Tolerance { relative, max } = self.rank
            && rung == Rung::Single
            && tail > relative
            && rank < max
        {
            return None;
        }
        for (i, s) in self.s.iter_mut().enumerate() {
            *s = if i < rank { (factors.s[arrangement.from[i]] / self.source.scale) as f32 } else { 0.0 };
        }
        for (to, from) in self.small.chunks_exact_mut(columns).zip(basis.chunks_exact(width)) {
            for (i, to) in to.iter_mut().enumerate() {
                *to = if i < rank { arrangement.sign[i] * from[arrangement.from[i]] as f32 } else { 0.0 };
            }
        }
        arrangement.apply(rank, self.tall, columns);
        if rank < columns {
            self.tall.chunks_exact_mut(columns).for_each(|row| row[rank..].fill(0.0));
        }
        Some(Verdict { rank, info: Info::Solved(rung), tail })
    }

    fn non_finite(self) -> Verdict {
        for out in [self.tall, self.s, self.small] {
            out.fill(f32::NAN);
        }
        Verdict { rank: 0, info: Info::NonFinite, tail: f64::NAN }
    }

    /// A matrix of zeros: coordinate vectors, or no columns at all when a tolerance is to be met.
    fn zero(self) -> Verdict {
        let columns = self.rank.columns();
        let rank = if matches!(self.rank, Rank::Fixed(_)) { columns } else { 0 };
        for out in [self.tall, self.small] {
            out.fill(0.0);
            (0..rank).for_each(|i| out[i * columns + i] = 1.0);
        }
        self.s.fill(0.0);
        Verdict { rank, info: Info::Solved(Rung::Single), tail: 0.0 }
    }
}

/// The rank to keep, given the largest eigenvalues of A'A.
fn choose_rank(rank: Rank, rung: Rung, values: &[f64], energy: f64) -> usize {
    let Rank::Tolerance { relative, .. } = rank else { return values.len() };
    let margin = if rung == Rung::Single { SINGLE_MARGIN } else { DOUBLE_MARGIN };
    let tolerated = energy * (relative * relative * (1.0 - margin) - OUTPUT_ROUNDING * OUTPUT_ROUNDING);
    let mut left = energy;
    let enough = values.iter().position(|value| {
        left -= value;
        left <= tolerated
    });
    enough.map_or(values.len(), |last| last + 1)
}

/// Whether an f32 Gram matrix resolves these eigenvalues and what they leave out.
fn single_suffices(values: &[f64], energy: f64) -> bool {
    let left = energy - values.iter().sum::<f64>();
    values[values.len() - 1] * SINGLE_CONDITION.powi(2) >= values[0] && left >= SINGLE_TAIL * energy
}

/// Makes the largest entry of each column, as it will be rounded, positive.
fn fix_signs(basis: &mut [f64], width: usize, rank: usize) {
    let mut largest = [0.0f32; MAX_COLUMNS];
    for row in basis.chunks_exact(width) {
        for (largest, x) in largest[..rank].iter_mut().zip(row) {
            let x = *x as f32;
            if x.abs() > largest.abs() {
                *largest = x;
            }
        }
    }
    for row in basis.chunks_exact_mut(width) {
        for (x, largest) in row[..rank].iter_mut().zip(&largest) {
            *x *= 1f64.copysign(f64::from(*largest));
        }
    }
}
