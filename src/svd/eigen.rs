//! The largest eigenvalues of a small symmetric matrix and their vectors, in f64.
//!
//! Householder reduction to tridiagonal form, bisection on Sturm sequences, inverse iteration with reorthogonalization
//! inside clusters, back-transformation (Wilkinson and Reinsch, "Handbook for Automatic Computation II", 1971).
//! The sequences are evaluated without divisions, rescaled as they go, many eigenvalues to a register.

use super::{
    desks::{Desk, Desks},
    kernels::{POINTS, padded, reflect, sturm_counts, update_rows},
    vector::{axpy, dot, scale},
    watch::Steps,
};
use crate::{Result, device::simd::multiversion, philox::Stream};

/// Eigenvalues closer than this share of the norm are orthogonalized against each other.
const CLUSTER: f64 = 1e-4;
/// A residual above this share of the norm means that inverse iteration failed.
const RESIDUAL: f64 = 1e-11;
/// Eigenvalues that one Sturm pass and one factorization handle together.
const LANES: usize = POINTS;
const GROUP: usize = 8;
const INVERSE_STEPS: usize = 3;
const BISECTIONS: usize = 56;
/// Vectors that are reflected together: few enough for the second-level cache.
const COLUMNS: usize = 64;

/// Working memory for matrices of one size.
pub(super) struct Eigen<'a> {
    n: usize,
    norm: f64,
    diagonal: &'a mut [f64],
    off: &'a mut [f64],
    off_squared: &'a mut [f64],
    heights: &'a mut [f64],
    vectors: [&'a mut [f64]; 4],
    starts: &'a mut [f64],
    factors: &'a mut [[f64; GROUP]],
}

impl<'a> Eigen<'a> {
    /// Elements of working memory for `n` x `n` matrices.
    pub(super) fn elements(n: usize) -> usize {
        8 * padded(n) + 2 * n + GROUP + Factors::ROWS * GROUP * n
    }

    /// Carves the working memory from `memory`, which has [`Eigen::elements`].
    pub(super) fn new(n: usize, memory: &'a mut [f64]) -> Self {
        let mut rest = memory;
        let mut next = || {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(padded(n));
            rest = tail;
            part
        };
        let (diagonal, off, off_squared, heights) = (next(), next(), next(), next());
        let vectors = [next(), next(), next(), next()];
        let (starts, rest) = rest.split_at_mut(2 * n + GROUP);
        let random = Stream::new(0, 0);
        starts.iter_mut().enumerate().for_each(|(i, x)| *x = f64::from(random.uniform(i as u64)) - 0.5);
        let factors = rest.as_chunks_mut::<GROUP>().0;
        Self { n, norm: 0.0, diagonal, off, off_squared, heights, vectors, starts, factors }
    }

    /// Reduces `a`, whose rows are `padded(n)` apart, to tridiagonal form; the reflections stay in its rows.
    pub(super) fn reduce(&mut self, a: &mut [f64], steps: Steps) -> Result<()> {
        let (n, stride) = (self.n, padded(self.n));
        let [old_v, old_q, v, q] = &mut self.vectors;
        old_v.fill(0.0);
        old_q.fill(0.0);
        for i in (0..n).rev() {
            steps.check()?;
            let (above, row) = a.split_at_mut(i * stride);
            let row = &mut row[..stride];
            if i + 1 < n {
                axpy(-old_v[i], old_q, row);
                axpy(-old_q[i], old_v, row);
            }
            self.diagonal[i] = row[i];
            if i == 0 {
                break;
            }
            (self.off[i - 1], self.heights[i]) = reflection(&mut row[..i]);
            v.fill(0.0);
            q.fill(0.0);
            v[..i].copy_from_slice(&row[..i]);
            update_rows(above, stride, old_v, old_q, v, q);
            if self.heights[i] > 0.0 {
                scale(1.0 / self.heights[i], q);
                let shift = dot(&v[..i], &q[..i]) / (2.0 * self.heights[i]);
                axpy(-shift, v, q);
            } else {
                v.fill(0.0);
                q.fill(0.0);
            }
            std::mem::swap(old_v, v);
            std::mem::swap(old_q, q);
        }
        self.norm = self.bound();
        // A floor far below rounding keeps a split sequence from vanishing.
        let floor = (1e-18 * self.norm).powi(2);
        for (squared, off) in self.off_squared.iter_mut().zip(&*self.off) {
            *squared = (off * off).max(floor);
        }
        Ok(())
    }

    /// Gershgorin's bound on the absolute value of the eigenvalues.
    fn bound(&self) -> f64 {
        let off = |i: usize| if i + 1 < self.n { self.off[i].abs() } else { 0.0 };
        let before = |i: usize| if i > 0 { off(i - 1) } else { 0.0 };
        (0..self.n).map(|i| self.diagonal[i].abs() + off(i) + before(i)).fold(0.0, f64::max)
    }

    /// The `values.len()` largest eigenvalues in descending order.
    pub(super) fn largest(&self, values: &mut [f64]) {
        for (chunk, values) in values.chunks_mut(LANES).enumerate() {
            let mut low = [-self.norm; LANES];
            let mut high = [self.norm; LANES];
            for _ in 0..BISECTIONS {
                let middle: [f64; LANES] = std::array::from_fn(|l| 0.5 * (low[l] + high[l]));
                let mut below = [0; LANES];
                let lanes = values.len();
                sturm_counts(&self.diagonal[..self.n], self.off_squared, &middle, lanes, &mut below);
                for l in 0..lanes {
                    let index = chunk * LANES + l;
                    let target = if self.n - (below[l] as usize).min(self.n) > index { &mut low[l] } else { &mut high[l] };
                    *target = middle[l];
                }
            }
            for (l, value) in values.iter_mut().enumerate() {
                *value = 0.5 * (low[l] + high[l]);
            }
        }
        // Bisections of close eigenvalues may end an ulp out of order.
        for i in 1..values.len() {
            values[i] = values[i].min(values[i - 1]);
        }
    }

    /// Orthonormal eigenvectors of the tridiagonal matrix for `values`, one to a row of `padded(n)`. Returns whether every
    /// one of them is an eigenvector to rounding.
    pub(super) fn vectors(&mut self, values: &[f64], rows: &mut [f64], steps: Steps) -> Result<bool> {
        let (n, stride) = (self.n, padded(self.n));
        let mut cluster = 0;
        for first in (0..values.len()).step_by(GROUP) {
            steps.check()?;
            let group = &values[first..values.len().min(first + GROUP)];
            let mut factors = Factors::new(n, self.norm, self.factors);
            factorize(&mut factors, self.diagonal, self.off, group);
            // Equal eigenvalues must not start alike: each starts from a window of its own.
            for (x, start) in factors.solution.iter_mut().zip(self.starts[first..].windows(GROUP)) {
                x.copy_from_slice(start);
            }
            for _ in 0..INVERSE_STEPS {
                solve(&mut factors);
                let mut begin = cluster;
                for lane in 0..group.len() {
                    let index = first + lane;
                    if index > 0 && values[index - 1] - values[index] > CLUSTER * self.norm {
                        begin = index;
                    }
                    let (before, row) = rows.split_at_mut(index * stride);
                    let row = &mut row[..stride];
                    factors.read(lane, row);
                    if !orthonormalize(&before[begin * stride..], stride, row) {
                        return Ok(false);
                    }
                    factors.write(lane, row);
                }
            }
            for index in first..first + group.len() {
                if index > 0 && values[index - 1] - values[index] > CLUSTER * self.norm {
                    cluster = index;
                }
            }
        }
        let mut found = values.iter().zip(rows.chunks_exact(stride));
        Ok(found.all(|(value, row)| self.residual(*value, row) <= RESIDUAL * self.norm))
    }

    /// The largest entry of (T - value) x.
    fn residual(&self, value: f64, x: &[f64]) -> f64 {
        let term = |i: usize| {
            let before = if i > 0 { self.off[i - 1] * x[i - 1] } else { 0.0 };
            let after = if i + 1 < self.n { self.off[i] * x[i + 1] } else { 0.0 };
            ((self.diagonal[i] - value) * x[i] + before + after).abs()
        };
        // A NaN must not be lost in the maximum.
        (0..self.n).map(term).fold(0.0, |worst, r| if r <= worst { worst } else { r })
    }

    /// x = Q x for every row x, `padded(n)` apart, where Q is the product of the reflections that [`Eigen::reduce`] left in `a`.
    pub(super) fn back_transform(&self, a: &[f64], rows: &mut [f64], desks: &mut Desks, steps: Steps) -> Result<()> {
        let (n, stride) = (self.n, padded(self.n));
        let reflections = |rows: &mut [f64], desk: &mut Desk| {
            steps.check()?;
            // As columns, which a reflection takes many at a time.
            let width = padded(rows.len() / stride);
            let columns = &mut desk.square[..n * width];
            for (i, column) in columns.chunks_exact_mut(width).enumerate() {
                column.fill(0.0);
                column.iter_mut().zip(rows[i..].iter().step_by(stride)).for_each(|(to, from)| *to = *from);
            }
            for i in (2..n).filter(|i| self.heights[*i] > 0.0) {
                reflect(&a[i * stride..][..i], 1.0 / self.heights[i], &mut columns[..i * width], width);
            }
            for (i, column) in columns.chunks_exact(width).enumerate() {
                rows[i..].iter_mut().step_by(stride).zip(column).for_each(|(to, from)| *to = *from);
            }
            Ok(())
        };
        desks.share(rows.chunks_mut(COLUMNS * stride), reflections, |_| ())
    }
}

/// Turns `u` into the vector of the reflection that leaves only its last entry; returns that entry and half the squared
/// length of the vector, zero when there is nothing to reflect.
fn reflection(u: &mut [f64]) -> (f64, f64) {
    let last = u.len() - 1;
    let rest = dot(&u[..last], &u[..last]);
    if rest < f64::MIN_POSITIVE {
        return (u[last], 0.0);
    }
    let length = (rest + u[last] * u[last]).sqrt();
    let kept = if u[last] > 0.0 { -length } else { length };
    let height = length * length - kept * u[last];
    u[last] -= kept;
    (kept, height)
}

/// Removes the rows of `before` from `row` and scales it to length one; false when nothing finite is left.
fn orthonormalize(before: &[f64], stride: usize, row: &mut [f64]) -> bool {
    // First to length one, so that the squares below neither overflow nor vanish.
    let largest = row.iter().fold(0.0, |worst: f64, x| worst.max(x.abs()));
    if !(largest > 0.0 && largest.is_finite()) {
        return false;
    }
    scale(1.0 / largest, row);
    for other in before.chunks_exact(stride) {
        axpy(-dot(other, row), other, row);
    }
    let length = dot(row, row).sqrt();
    if !(length > 0.0 && length.is_finite()) {
        return false;
    }
    scale(1.0 / length, row);
    true
}

/// LU factors with partial pivoting of T - value for a group of eigenvalues, one to a lane.
struct Factors<'a> {
    norm: f64,
    inverse_pivot: &'a mut [[f64; GROUP]],
    above: &'a mut [[f64; GROUP]],
    second: &'a mut [[f64; GROUP]],
    multiplier: &'a mut [[f64; GROUP]],
    swapped: &'a mut [[f64; GROUP]],
    solution: &'a mut [[f64; GROUP]],
}

impl<'a> Factors<'a> {
    const ROWS: usize = 6;

    fn new(n: usize, norm: f64, memory: &'a mut [[f64; GROUP]]) -> Self {
        let (inverse_pivot, rest) = memory.split_at_mut(n);
        let (above, rest) = rest.split_at_mut(n);
        let (second, rest) = rest.split_at_mut(n);
        let (multiplier, rest) = rest.split_at_mut(n);
        let (swapped, rest) = rest.split_at_mut(n);
        Self { norm, inverse_pivot, above, second, multiplier, swapped, solution: &mut rest[..n] }
    }

    fn read(&self, lane: usize, row: &mut [f64]) {
        let (x, padding) = row.split_at_mut(self.solution.len());
        padding.fill(0.0);
        for (x, solution) in x.iter_mut().zip(&*self.solution) {
            *x = solution[lane];
        }
    }

    fn write(&mut self, lane: usize, row: &[f64]) {
        for (x, solution) in row.iter().zip(&mut *self.solution) {
            solution[lane] = *x;
        }
    }
}

#[inline(always)]
fn factorize_body<const FUSED: bool>(factors: &mut Factors, diagonal: &[f64], off: &[f64], group: &[f64]) {
    let n = factors.solution.len();
    let values: [f64; GROUP] = std::array::from_fn(|l| group[l.min(group.len() - 1)]);
    let smallest = (f64::EPSILON * factors.norm).max(f64::MIN_POSITIVE);
    let mut pivot: [f64; GROUP] = std::array::from_fn(|l| diagonal[0] - values[l]);
    let mut above = [if n > 1 { off[0] } else { 0.0 }; GROUP];
    for k in 0..n {
        let below = if k + 1 < n { off[k] } else { 0.0 };
        let next = if k + 1 < n { diagonal[k + 1] } else { 0.0 };
        let beyond = if k + 2 < n { off[k + 1] } else { 0.0 };
        for l in 0..GROUP {
            let shifted = next - values[l];
            let swap = below.abs() > pivot[l].abs();
            let (top, other) = if swap { (below, pivot[l]) } else { (pivot[l], below) };
            let top = if top.abs() < smallest { smallest.copysign(top) } else { top };
            let inverse = 1.0 / top;
            let multiplier = other * inverse;
            let (u1, u2) = if swap { (shifted, beyond) } else { (above[l], 0.0) };
            let (low1, low2) = if swap { (above[l], 0.0) } else { (shifted, beyond) };
            factors.inverse_pivot[k][l] = inverse;
            factors.above[k][l] = u1;
            factors.second[k][l] = u2;
            factors.multiplier[k][l] = multiplier;
            factors.swapped[k][l] = if swap { 1.0 } else { 0.0 };
            pivot[l] = low1 - multiplier * u1;
            above[l] = low2 - multiplier * u2;
        }
    }
}

multiversion! {
    /// Factorizes T - value for each value of the group; spare lanes repeat the last.
    fn factorize(factors: &mut Factors, diagonal: &[f64], off: &[f64], group: &[f64]) = factorize_body
}

#[inline(always)]
fn solve_body<const FUSED: bool>(factors: &mut Factors) {
    let n = factors.solution.len();
    let mut top = factors.solution[0];
    for k in 1..n {
        let mut low = factors.solution[k];
        for l in 0..GROUP {
            let swap = factors.swapped[k - 1][l] != 0.0;
            let (first, second) = if swap { (low[l], top[l]) } else { (top[l], low[l]) };
            top[l] = first;
            low[l] = second - factors.multiplier[k - 1][l] * first;
        }
        factors.solution[k - 1] = top;
        top = low;
    }
    factors.solution[n - 1] = top;
    let (mut next, mut beyond) = ([0.0; GROUP], [0.0; GROUP]);
    for k in (0..n).rev() {
        let mut x = factors.solution[k];
        for l in 0..GROUP {
            x[l] = (x[l] - factors.above[k][l] * next[l] - factors.second[k][l] * beyond[l]) * factors.inverse_pivot[k][l];
        }
        (beyond, next) = (next, x);
        factors.solution[k] = x;
    }
}

multiversion! {
    /// Replaces the solution by (T - value)^-1 solution, in every lane.
    fn solve(factors: &mut Factors) = solve_body
}
