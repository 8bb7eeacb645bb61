//! One matrix by way of its Gram matrix: from one pass over it to another, up the ladder of rungs.

use super::{
    Info, Mode, Options, Output, Rank, Rung, SINGLE_TAIL, Verdict,
    desks::{Desk, Desks},
    eigen::Eigen,
    factors::Factors,
    jacobi,
    kernels::{Precision, padded},
    source::Source,
    watch::Steps,
};
use crate::Result;

/// Largest s_1 / s_rank that an f32 Gram matrix is trusted with: for factors, and for singular values by themselves.
const SINGLE_CONDITION: f64 = 100.0;
const SINGLE_CONDITION_OF_VALUES: f64 = 10.0;
/// Energy that may stray off the diagonal, beside the energy left out.
const STRAYS: f64 = 1e-4;
/// Sums of squares in this range lose nothing in f32.
pub(super) const SAFE_ENERGY: std::ops::Range<f64> = 1e-12..1e24;
/// Rounding of U, s and V to f32, relative to ||A||: kept free below a tolerance.
const OUTPUT_ROUNDING: f64 = 2e-7;
/// Error of the energies that a rank is chosen by, relative to the tolerated energy.
const SINGLE_MARGIN: f64 = 2e-3;
const DOUBLE_MARGIN: f64 = 1e-6;

/// What is asked for every matrix.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) rank: Rank,
    pub(super) mode: Mode,
    pub(super) start: Rung,
    /// Without the tall factor; the small one is made where there is room for it.
    pub(super) values_only: bool,
    /// Which factor carries the singular values, if one does.
    pub(super) tall_is_scaled: bool,
    pub(super) small_is_scaled: bool,
    /// Which factor decides on the signs.
    pub(super) tall_is_v: bool,
}

impl Task {
    /// For matrices that are wide, or not.
    pub(super) fn new(rank: Rank, options: &Options, wide: bool) -> Self {
        let (u_is_scaled, v_is_scaled) = (options.output == Output::LatentDecoder, options.output == Output::Qb);
        Self {
            rank,
            mode: options.mode,
            start: options.start,
            values_only: options.output == Output::ValuesOnly,
            tall_is_scaled: if wide { v_is_scaled } else { u_is_scaled },
            small_is_scaled: if wide { u_is_scaled } else { v_is_scaled },
            tall_is_v: wide,
        }
    }

    fn columns(&self) -> usize {
        self.rank.columns()
    }

    /// The rung to start on, for a Gram matrix of `width` columns.
    fn first_rung(&self, width: usize) -> Rung {
        if self.rank.may_start_in_single(width) { self.start } else { self.start.max(Rung::Double) }
    }
}

/// Where the result goes: f32, in rows of `stride`, at least as many columns as are asked for; `tall` has as many rows as the
/// longer side. What the task does not ask for is empty.
pub(super) struct Outputs<'a> {
    pub(super) tall: &'a mut [f32],
    pub(super) s: &'a mut [f32],
    pub(super) small: &'a mut [f32],
    pub(super) stride: usize,
}

impl Outputs<'_> {
    fn fill(&mut self, value: f32) {
        [&mut *self.tall, self.s, self.small].into_iter().for_each(|part| part.fill(value));
    }

    /// NaN everywhere.
    pub(super) fn void(mut self, info: Info) -> Verdict {
        self.fill(f32::NAN);
        Verdict { rank: 0, info, tail: f32::NAN }
    }

    /// A matrix of zeros: coordinate vectors, or no columns at all when a tolerance is to be met.
    pub(super) fn zero(mut self, task: &Task) -> Verdict {
        let (columns, stride) = (task.columns(), self.stride);
        let rank = if matches!(task.rank, Rank::Fixed(_)) { columns } else { 0 };
        self.fill(0.0);
        for (factor, scaled) in [(self.tall, task.tall_is_scaled), (self.small, task.small_is_scaled)] {
            if !scaled && !factor.is_empty() {
                (0..rank).for_each(|i| factor[i * stride + i] = 1.0);
            }
        }
        Verdict { rank, info: Info::Solved(Rung::Single), tail: 0.0 }
    }
}

/// Working memory for one matrix at a time.
pub(super) struct Workspace<'a> {
    desks: Desks<'a>,
    gram: &'a mut [f64],
    values: &'a mut [f64],
    rows: &'a mut [f64],
    basis: &'a mut [f64],
    eigen: Eigen<'a>,
    factors: Factors<'a>,
}

impl<'a> Workspace<'a> {
    /// Elements for matrices whose shorter side is `width`, and `columns` singular triplets, shared by so many threads.
    pub(super) fn elements(width: usize, columns: usize, threads: usize) -> usize {
        let (np, kp) = (padded(width), padded(columns));
        let own = Eigen::elements(width) + Factors::elements(width, columns);
        2 * np * np + np + np * kp + own + threads * Desks::elements(width, columns)
    }

    /// Carves the working memory from `memory`, which has [`Workspace::elements`].
    pub(super) fn new(width: usize, columns: usize, threads: usize, memory: &'a mut [f64]) -> Self {
        let (np, kp) = (padded(width), padded(columns));
        let mut rest = memory;
        let mut next = |len: usize| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part
        };
        let (gram, rows, values, basis) = (next(np * np), next(np * np), next(np), next(np * kp));
        let desks = Desks::new(width, columns, next(threads * Desks::elements(width, columns)));
        let eigen = Eigen::new(width, next(Eigen::elements(width)));
        let factors = Factors::new(width, columns, next(Factors::elements(width, columns)));
        Self { desks, gram, values, rows, basis, eigen, factors }
    }
}

/// One matrix on its way.
pub(super) struct Solver<'a, 'b, 's> {
    pub(super) source: Source<'s>,
    pub(super) task: Task,
    pub(super) workspace: &'a mut Workspace<'b>,
    pub(super) outputs: Outputs<'a>,
    pub(super) steps: Steps<'a>,
}

impl Solver<'_, '_, '_> {
    pub(super) fn solve(mut self) -> Result<Verdict> {
        let first = self.task.first_rung(self.source.columns);
        let mut energy = self.gram_for(first)?;
        if !SAFE_ENERGY.contains(&energy) {
            let largest = self.source.largest(self.workspace.desks.rows())?;
            if !largest.is_finite() {
                return Ok(self.outputs.void(Info::NonFinite));
            }
            if largest == 0.0 {
                return Ok(self.outputs.zero(&self.task));
            }
            self.source.scale = f64::from(largest).log2().floor().exp2().recip();
            energy = self.gram_for(first)?;
        }
        if first == Rung::Single {
            if let Some(verdict) = self.climb::<f32>(Rung::Single, energy)? {
                return Ok(verdict);
            }
            tracing::debug!(columns = self.source.columns, "a matrix needs more than single precision");
            energy = self.gram::<f64>()?;
        }
        if first <= Rung::Double {
            if let Some(verdict) = self.climb::<f64>(Rung::Double, energy)? {
                return Ok(verdict);
            }
            tracing::debug!(columns = self.source.columns, "inverse iteration did not deliver");
            energy = self.gram::<f64>()?;
        }
        match self.climb::<f64>(Rung::Jacobi, energy)? {
            Some(verdict) => Ok(verdict),
            None => Ok(self.outputs.void(Info::Stuck)),
        }
    }

    fn gram_for(&mut self, rung: Rung) -> Result<f64> {
        if rung == Rung::Single { self.gram::<f32>() } else { self.gram::<f64>() }
    }

    /// Leaves A'A in `gram`, summed in T over blocks of fixed length and in f64 over those; returns its trace.
    fn gram<T: Precision>(&mut self) -> Result<f64> {
        let Workspace { desks, gram, .. } = &mut *self.workspace;
        let (source, steps) = (&self.source, self.steps);
        let (n, width) = (source.columns, padded(source.columns));
        gram.fill(0.0);
        let product = |(start, count), desk: &mut Desk| {
            steps.check()?;
            let block = T::of_block(source.block(start, count, desk.rows)?, bytemuck::cast_slice_mut(desk.wide));
            T::gram(block, width, &mut bytemuck::cast_slice_mut(desk.square)[..width * width]);
            Ok(())
        };
        desks.share(source.blocks(), product, |desk| {
            let partial = &bytemuck::cast_slice::<f64, T>(desk.square)[..width * width];
            for (i, (sums, parts)) in gram.chunks_exact_mut(width).zip(partial.chunks_exact(width)).enumerate() {
                sums[i..].iter_mut().zip(&parts[i..]).for_each(|(sum, part)| *sum += part.wide());
            }
        })?;
        for i in 0..n {
            for j in 0..i {
                gram[i * width + j] = gram[j * width + i];
            }
        }
        Ok((0..n).map(|i| gram[i * width + i]).sum())
    }

    /// One attempt with the Gram matrix at hand; nothing when a check fails.
    fn climb<T: Precision>(&mut self, rung: Rung, energy: f64) -> Result<Option<Verdict>> {
        let Some(rank) = self.choose(rung, energy)? else { return Ok(None) };
        if !self.outputs.small.is_empty() && !self.vectors(rung, rank)? {
            return Ok(None);
        }
        if self.task.values_only {
            let Workspace { values, factors, .. } = &mut *self.workspace;
            factors.s.iter_mut().zip(&values[..rank]).for_each(|(s, value)| *s = value.max(0.0).sqrt());
        } else if !self.project::<T>(rung, rank, energy)? {
            return Ok(None);
        }
        Ok(self.accept(rung, rank, energy))
    }

    /// The eigenvalues, and how many of them the rank asks for; nothing when the Gram matrix cannot tell.
    fn choose(&mut self, rung: Rung, energy: f64) -> Result<Option<usize>> {
        let (n, stride, columns) = (self.source.columns, padded(self.source.columns), self.task.columns());
        let Workspace { gram, values, rows, eigen, .. } = &mut *self.workspace;
        if rung == Rung::Jacobi {
            if !jacobi::diagonalize(gram, n, stride, values, rows, self.steps)? {
                return Ok(None);
            }
        } else {
            eigen.reduce(gram, self.steps)?;
            eigen.largest(&mut values[..columns]);
        }
        let rank = choose_rank(self.task.rank, rung, &values[..columns], energy);
        let doubtful = rung == Rung::Single && self.task.mode == Mode::Safe;
        let condition = if self.task.values_only { SINGLE_CONDITION_OF_VALUES } else { SINGLE_CONDITION };
        Ok((!doubtful || single_suffices(&values[..rank], condition, energy)).then_some(rank))
    }

    /// Leaves the eigenvectors in `basis`; false when inverse iteration did not converge.
    fn vectors(&mut self, rung: Rung, rank: usize) -> Result<bool> {
        let (n, stride) = (self.source.columns, padded(self.source.columns));
        let Workspace { desks, gram, values, rows, basis, eigen, factors } = &mut *self.workspace;
        if rung != Rung::Jacobi {
            if !eigen.vectors(&values[..rank], rows, self.steps)? {
                return Ok(false);
            }
            eigen.back_transform(gram, &mut rows[..rank * stride], desks, self.steps)?;
        }
        let width = padded(rank);
        let basis = &mut basis[..stride * width];
        basis.fill(0.0);
        for (column, row) in rows.chunks_exact(stride).take(rank).enumerate() {
            row[..n].iter().enumerate().for_each(|(i, x)| basis[i * width + column] = *x);
        }
        if !self.task.tall_is_v {
            fix_signs(basis, width, factors.spare(rank));
        }
        Ok(true)
    }

    /// Makes the tall factor and s; false when they are too far from orthogonal for this rung.
    fn project<T: Precision>(&mut self, rung: Rung, rank: usize, energy: f64) -> Result<bool> {
        let columns = self.outputs.stride;
        let Workspace { desks, values, basis, factors, .. } = &mut *self.workspace;
        let tall = &mut *self.outputs.tall;
        if self.task.tall_is_scaled {
            factors.s.fill(1.0);
            factors.project::<T>(&self.source, desks, basis, rank, tall, columns)?;
            factors.measure(rank);
            return Ok(true);
        }
        // The floor is where f64 sums of squares end: a smaller value would only blow up rounding.
        let floor = 1e-16 * values[0];
        factors.s.iter_mut().zip(&values[..rank]).for_each(|(s, value)| *s = value.max(floor).sqrt());
        factors.project::<T>(&self.source, desks, basis, rank, tall, columns)?;
        if factors.is_orthonormal(rank) {
            return Ok(true);
        }
        let strays = factors.cholesky(rank);
        let left = energy - factors.captured(rank);
        let doubtful = rung == Rung::Single && self.task.mode == Mode::Safe;
        match strays {
            Some(strays) if !doubtful || strays <= STRAYS * left => factors.orthogonalize(rank, desks, tall, columns)?,
            _ if doubtful => return Ok(false),
            _ => factors.orthogonalize_columns(rank, tall, columns),
        }
        Ok(true)
    }

    /// Writes s and the small factor, and puts the columns in order; nothing when a tolerance was missed after all.
    fn accept(&mut self, rung: Rung, rank: usize, energy: f64) -> Option<Verdict> {
        let Workspace { basis, factors, .. } = &mut *self.workspace;
        let (width, scale) = (padded(rank), self.source.scale);
        let Outputs { tall, s, small, stride: columns } = &mut self.outputs;
        let columns = *columns;
        let tail = ((energy - factors.captured(rank)).max(0.0) / energy).sqrt();
        if let Rank::Tolerance { relative, max } = self.task.rank
            && rung == Rung::Single
            && self.task.mode == Mode::Safe
            && tail > relative
            && rank < max
        {
            return None;
        }
        factors.arrange(rank, tall, columns, self.task.tall_is_v);
        for (i, s) in s.iter_mut().enumerate() {
            *s = if i < rank { (factors.s[factors.arranged(i).0] / scale) as f32 } else { 0.0 };
        }
        for (to, from) in small.chunks_exact_mut(columns).zip(basis.chunks_exact(width)) {
            to[rank..].fill(0.0);
            for (i, to) in to[..rank].iter_mut().enumerate() {
                let (column, sign) = factors.arranged(i);
                let length = if self.task.small_is_scaled { factors.s[column] / scale } else { 1.0 };
                *to = (sign * length * from[column]) as f32;
            }
        }
        factors.apply_order(rank, tall, columns);
        if rank < columns {
            tall.chunks_exact_mut(columns).for_each(|row| row[rank..].fill(0.0));
        }
        if self.task.tall_is_scaled && scale != 1.0 {
            tall.iter_mut().for_each(|x| *x = (f64::from(*x) / scale) as f32);
        }
        Some(Verdict { rank, info: Info::Solved(rung), tail: tail as f32 })
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
fn single_suffices(values: &[f64], condition: f64, energy: f64) -> bool {
    let left = energy - values.iter().sum::<f64>();
    values[values.len() - 1] * condition.powi(2) >= values[0] && left >= SINGLE_TAIL * energy
}

/// Makes the largest entry of each column, as it will be rounded, positive; `largest` has an element for each.
fn fix_signs(basis: &mut [f64], width: usize, largest: &mut [f64]) {
    largest.fill(0.0);
    for row in basis.chunks_exact(width) {
        for (largest, x) in largest.iter_mut().zip(row) {
            let x = f64::from(*x as f32);
            if x.abs() > largest.abs() {
                *largest = x;
            }
        }
    }
    for row in basis.chunks_exact_mut(width) {
        row.iter_mut().zip(&*largest).for_each(|(x, largest)| *x *= 1f64.copysign(*largest));
    }
}
