//! From an orthonormal basis V of the row space to U, s and V: projection, orthogonalization, order and signs.

use super::{
    dense::{Pivots, cholesky, invert},
    desks::{Desk, Desks},
    kernels::{Precision, padded},
    source::{BLOCK, Source},
    vector::{add_outer, subtract_products},
};
use crate::Result;

/// A pivot of the Cholesky factor below this sends U to be orthogonalized column by column.
const PIVOTS: Pivots = Pivots { share: 0.25, diagonal: 1e-4 };
/// A column of which less than this is left beside the others holds rounding only, and is replaced.
const REMAINDER: f64 = 1e-4;
/// A pass that leaves this much of a column has orthogonalized it ("twice is enough").
const KEPT: f64 = 0.7;
/// Columns are left alone where no entry of their moments is further than this from the identity's.
const ORTHONORMAL: f64 = 1e-6;

/// Working memory for projections onto up to k columns.
pub(super) struct Factors<'a> {
    basis: &'a mut [f64],
    partial: &'a mut [f64],
    moments: &'a mut [f64],
    inverse: &'a mut [f64],
    /// Lengths of the projected columns, before they were rounded to f32.
    lengths: &'a mut [f64],
    /// Estimates of the singular values, then the values themselves.
    pub(super) s: &'a mut [f64],
    /// Where the columns come from when s descends.
    order: &'a mut [u64],
    signs: &'a mut [f64],
    row: &'a mut [f64],
}

impl<'a> Factors<'a> {
    /// Elements of working memory for `n` columns and `k` singular triplets.
    pub(super) fn elements(n: usize, k: usize) -> usize {
        let (np, kp) = (padded(n), padded(k));
        np * kp + 3 * kp * kp + 5 * kp
    }

    /// Carves the working memory from `memory`, which has [`Factors::elements`].
    pub(super) fn new(n: usize, k: usize, memory: &'a mut [f64]) -> Self {
        let (np, kp) = (padded(n), padded(k));
        let (basis, rest) = memory.split_at_mut(np * kp);
        let (partial, rest) = rest.split_at_mut(kp * kp);
        let (moments, rest) = rest.split_at_mut(kp * kp);
        let (inverse, rest) = rest.split_at_mut(kp * kp);
        let (lengths, rest) = rest.split_at_mut(kp);
        let (s, rest) = rest.split_at_mut(kp);
        let (order, rest) = rest.split_at_mut(kp);
        let (signs, row) = rest.split_at_mut(kp);
        let order = bytemuck::cast_slice_mut(order);
        Self { basis, partial, moments, inverse, lengths, s, order, signs, row }
    }

    /// tall = A basis / s, and the moments tall' tall, in precision T. `basis` has rows of `padded(rank)`, `tall` rows of
    /// `stride`.
    pub(super) fn project<T: Precision>(
        &mut self,
        source: &Source,
        desks: &mut Desks,
        basis: &[f64],
        rank: usize,
        tall: &mut [f32],
        stride: usize,
    ) -> Result<()> {
        let (np, width) = (padded(source.columns), padded(rank));
        let scaled = &mut bytemuck::cast_slice_mut::<f64, T>(self.basis)[..np * width];
        for (to, from) in scaled.chunks_exact_mut(width).zip(basis.chunks_exact(width)) {
            to.fill(T::ZERO);
            for ((to, from), s) in to.iter_mut().zip(&from[..rank]).zip(&*self.s) {
                *to = T::of(from / s);
            }
        }
        let moments = &mut self.moments[..width * width];
        moments.fill(0.0);
        let scaled = &*scaled;
        let product = |((start, count), tall): ((usize, usize), &mut [f32]), desk: &mut Desk| {
            let block = T::of_block(source.block(start, count, desk.rows)?, bytemuck::cast_slice_mut(desk.wide));
            let out = &mut bytemuck::cast_slice_mut::<f64, T>(desk.product)[..count * width];
            T::product(block, np, scaled, width, out);
            T::gram(out, width, &mut bytemuck::cast_slice_mut(desk.square)[..width * width]);
            for (to, from) in tall.chunks_exact_mut(stride).zip(out.chunks_exact(width)) {
                for (to, from) in to.iter_mut().zip(&from[..rank]) {
                    *to = from.wide() as f32;
                }
            }
            Ok(())
        };
        desks.share(source.blocks().zip(tall.chunks_mut(BLOCK * stride)), product, |desk| {
            let partial = bytemuck::cast_slice::<f64, T>(desk.square);
            moments.iter_mut().zip(partial).for_each(|(sum, part)| *sum += part.wide());
        })
    }

    /// Whether the moments say that the columns are orthonormal as they are.
    pub(super) fn is_orthonormal(&self, rank: usize) -> bool {
        let width = padded(rank);
        let rows = self.moments.chunks_exact(width).take(rank).enumerate();
        rows.into_iter()
            .all(|(i, row)| (row[i] - 1.0).abs() <= ORTHONORMAL && row[i + 1..rank].iter().all(|x| x.abs() <= ORTHONORMAL))
    }

    /// Leaves the lengths of the projected columns in s.
    pub(super) fn measure(&mut self, rank: usize) {
        let width = padded(rank);
        (0..rank).for_each(|i| self.s[i] = self.moments[i * width + i].max(0.0).sqrt());
    }

    /// Energy of the singular values.
    pub(super) fn captured(&self, rank: usize) -> f64 {
        self.s[..rank].iter().map(|s| s * s).sum()
    }

    /// An element for each column, to work with.
    pub(super) fn spare(&mut self, rank: usize) -> &mut [f64] {
        &mut self.row[..rank]
    }

    /// Factorizes the moments into R'R in place, and leaves s = diag(R) s. Returns the energy that R has off its diagonal, or
    /// nothing when the columns are too far from orthogonal for that.
    pub(super) fn cholesky(&mut self, rank: usize) -> Option<f64> {
        let width = padded(rank);
        for i in 0..rank {
            self.lengths[i] = self.moments[i * width + i].max(0.0).sqrt();
        }
        if !cholesky(self.moments, rank, width, PIVOTS) {
            return None;
        }
        let mut strays = 0.0;
        for (l, row) in self.moments.chunks_exact(width).take(rank).enumerate() {
            strays += (l + 1..rank).map(|i| (row[i] * self.s[i]).powi(2)).sum::<f64>();
        }
        for i in 0..rank {
            self.s[i] *= self.moments[i * width + i];
        }
        Some(strays)
    }

    /// tall = tall R^-1, with the factor that [`Factors::cholesky`] left.
    pub(super) fn orthogonalize(&mut self, rank: usize, desks: &mut Desks, tall: &mut [f32], stride: usize) -> Result<()> {
        let width = padded(rank);
        invert(self.moments, &mut self.inverse[..width * width], rank, width);
        let inverse = &mut bytemuck::cast_slice_mut::<f64, f32>(self.partial)[..width * width];
        inverse.iter_mut().zip(&*self.inverse).for_each(|(to, from)| *to = *from as f32);
        let inverse = &*inverse;
        let product = |block: &mut [f32], desk: &mut Desk| {
            let out = &mut bytemuck::cast_slice_mut(desk.product)[..block.len() / stride * width];
            f32::product(rows_of(desk.rows, block, rank, stride), width, inverse, width, out);
            for (to, from) in block.chunks_exact_mut(stride).zip(out.chunks_exact(width)) {
                to[..rank].copy_from_slice(&from[..rank]);
            }
            Ok(())
        };
        desks.share(tall.chunks_mut(BLOCK * stride), product, |_| ())
    }

    /// Orthonormalizes the columns of `tall` one by one, scaling s by what is left of each; columns that hold rounding only
    /// are replaced by orthonormal ones, with s = 0.
    pub(super) fn orthogonalize_columns(&mut self, rank: usize, tall: &mut [f32], stride: usize) {
        for column in 0..rank {
            let left = reduced(tall, stride, column, self.row);
            self.s[column] *= self.lengths[column] * left.unwrap_or(0.0);
            if left.is_none() {
                complete(tall, stride, column, self.row);
            }
        }
    }

    /// Finds where each column belongs so that s descends, and its sign. The larger factor decides the sign when it is V.
    pub(super) fn arrange(&mut self, rank: usize, tall: &[f32], stride: usize, tall_is_v: bool) {
        self.order.iter_mut().zip(0..).for_each(|(from, i)| *from = i);
        self.order[..rank].sort_unstable_by(|a, b| {
            let [x, y] = [a, b].map(|i| self.s[*i as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        });
        self.signs.fill(1.0);
        if tall_is_v {
            let largest = &mut self.row[..rank];
            largest.fill(0.0);
            for row in tall.chunks_exact(stride) {
                for (largest, from) in largest.iter_mut().zip(&*self.order) {
                    let x = f64::from(row[*from as usize]);
                    if x.abs() > largest.abs() {
                        *largest = x;
                    }
                }
            }
            self.signs.iter_mut().zip(largest).for_each(|(sign, largest)| *sign = 1f64.copysign(*largest));
        }
    }

    /// Column `to` in the new order: where it comes from, and its sign.
    pub(super) fn arranged(&self, to: usize) -> (usize, f64) {
        (self.order[to] as usize, self.signs[to])
    }

    /// Puts the columns of `tall` in order.
    pub(super) fn apply_order(&mut self, rank: usize, tall: &mut [f32], stride: usize) {
        if (0..rank).all(|i| self.order[i] == i as u64 && self.signs[i] > 0.0) {
            return;
        }
        let old: &mut [f32] = &mut bytemuck::cast_slice_mut(self.row)[..rank];
        for row in tall.chunks_exact_mut(stride) {
            old.copy_from_slice(&row[..rank]);
            for ((x, from), sign) in row[..rank].iter_mut().zip(&*self.order).zip(&*self.signs) {
                *x = *sign as f32 * old[*from as usize];
            }
        }
    }
}

/// Copies the first `rank` columns of `block` into rows padded with zeros.
fn rows_of<'a>(memory: &'a mut [f32], block: &[f32], rank: usize, stride: usize) -> &'a [f32] {
    let width = padded(rank);
    let rows = &mut memory[..block.len() / stride * width];
    for (to, from) in rows.chunks_exact_mut(width).zip(block.chunks_exact(stride)) {
        to[..rank].copy_from_slice(&from[..rank]);
        to[rank..].fill(0.0);
    }
    rows
}

/// Makes `column` a unit vector orthogonal to those before it. Returns the share of its length that it had beside them;
/// nothing when that is too little.
fn reduced(tall: &mut [f32], stride: usize, column: usize, products: &mut [f64]) -> Option<f64> {
    normalize(tall, stride, column)?;
    let mut left = 1.0;
    while left > REMAINDER {
        products[..column].fill(0.0);
        for row in tall.chunks_exact(stride) {
            add_outer(row[column], &row[..column], &mut products[..column]);
        }
        for row in tall.chunks_exact_mut(stride) {
            row[column] = subtract_products(row[column], &row[..column], &products[..column]);
        }
        let kept = normalize(tall, stride, column)?;
        if kept <= KEPT {
            left *= kept;
            continue;
        }
        // By Pythagoras, which does not see that the column was rounded to f32.
        let removed: f64 = products[..column].iter().map(|x| x * x).sum();
        return Some(left * (1.0 - removed).max(0.0).sqrt());
    }
    None
}

/// Replaces `column` by a unit vector orthogonal to those before it: the coordinate vector they hold least of, reduced.
fn complete(tall: &mut [f32], stride: usize, column: usize, products: &mut [f64]) {
    let held = |row: &[f32]| row[..column].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let (mut least, mut at) = (f64::INFINITY, 0);
    for (i, row) in tall.chunks_exact(stride).enumerate() {
        let held = held(row);
        if held < least {
            (least, at) = (held, i);
        }
    }
    for (i, row) in tall.chunks_exact_mut(stride).enumerate() {
        row[column] = if i == at { 1.0 } else { 0.0 };
    }
    // With fewer columns than rows, a share of at least 1 / rows is left: far above rounding.
    reduced(tall, stride, column, products);
}

/// Scales `column` to length one and returns its length; nothing when it is zero.
fn normalize(tall: &mut [f32], stride: usize, column: usize) -> Option<f64> {
    let squares: f64 = tall.iter().skip(column).step_by(stride).map(|x| f64::from(*x).powi(2)).sum();
    let length = squares.sqrt();
    if length == 0.0 {
        return None;
    }
    tall.iter_mut().skip(column).step_by(stride).for_each(|x| *x = (f64::from(*x) / length) as f32);
    Some(length)
}
