//! Register-blocked products over f32 and f64.
//!
//! Operands are row-major with rows padded by zeros to a multiple of [`PAD`], so that no kernel has a ragged edge
//! along the lanes. The order of every sum is fixed by the shapes alone.

#![allow(clippy::needless_range_loop, reason = "indices over whole register tiles, which the compiler must unroll")]

use faer::{
    Accum, MatMut, MatRef, Par,
    linalg::matmul::{
        self,
        triangular::{self, BlockStructure},
    },
    traits::RealField,
};

use super::lanes::{F32x4, F64x4, Lanes, Real, Signs};

/// Row widths are multiples of this: two registers of the widest kind.
pub(super) const PAD: usize = 16;

/// Elements of what one register pass over rows reads; few enough for the first-level cache, beside what it writes.
const PASS: usize = 8192;

/// `width` rounded up to a whole number of lanes.
pub(super) const fn padded(width: usize) -> usize {
    width.next_multiple_of(PAD)
}

/// The left operand of a tile: rows so far apart, or columns.
#[derive(Clone, Copy)]
enum Left<'a, T> {
    Rows(&'a [T], usize),
    Columns(&'a [T], usize),
}

/// out[i][j] = sum over k < depth of left[i][k] * right[k][j], for ROWS rows and REGISTERS registers of columns; added to
/// what is there unless it is `fresh`.
///
/// # Safety
/// The instruction set of `L` must be enabled.
#[inline(always)]
unsafe fn tile<L: Lanes, const ROWS: usize, const REGISTERS: usize>(
    depth: usize,
    left: Left<L::Real>,
    right: &[L::Real],
    out: &mut [L::Real],
    stride: usize,
    fresh: bool,
) {
    let width = REGISTERS * L::COUNT;
    assert!(right.len() >= (depth - 1) * stride + width && out.len() >= (ROWS - 1) * stride + width);
    let (from, to) = (right.as_ptr(), out.as_mut_ptr());
    // SAFETY: the assertions cover the last element that each loop below reaches.
    unsafe {
        let mut sums = [[L::splat(L::Real::ZERO); REGISTERS]; ROWS];
        if !fresh {
            for i in 0..ROWS {
                for j in 0..REGISTERS {
                    sums[i][j] = L::load(to.add(i * stride + j * L::COUNT));
                }
            }
        }
        let mut step = |k: usize, entry: &dyn Fn(usize) -> L::Real| {
            let mut lanes = [L::splat(L::Real::ZERO); REGISTERS];
            for j in 0..REGISTERS {
                lanes[j] = L::load(from.add(k * stride + j * L::COUNT));
            }
            for i in 0..ROWS {
                let scale = L::splat(entry(i));
                for j in 0..REGISTERS {
                    sums[i][j] = sums[i][j].plus(scale, lanes[j]);
                }
            }
        };
        match left {
            Left::Rows(data, apart) => {
                assert!(data.len() >= (ROWS - 1) * apart + depth);
                // A pointer each: distances that are not known would be added up at every step.
                let rows: [_; ROWS] = std::array::from_fn(|i| data.as_ptr().add(i * apart));
                (0..depth).for_each(|k| step(k, &|i| *rows[i].add(k)));
            }
            Left::Columns(data, apart) => {
                assert!(data.len() >= (depth - 1) * apart + ROWS);
                (0..depth).for_each(|k| step(k, &|i| *data.as_ptr().add(k * apart + i)));
            }
        }
        for i in 0..ROWS {
            for j in 0..REGISTERS {
                sums[i][j].store(to.add(i * stride + j * L::COUNT));
            }
        }
    }
}

/// # Safety
/// The instruction set of `L` must be enabled.
#[inline(always)]
unsafe fn gram<L: Lanes, const ROWS: usize>(block: &[L::Real], width: usize, out: &mut [L::Real]) {
    let pass = (PASS / width).max(ROWS) * width;
    for (index, rows) in block.chunks(pass).enumerate() {
        let (depth, fresh) = (rows.len() / width, index == 0);
        let mut ahead = Ahead::new(rows, width.div_ceil(2 * L::COUNT) * (width / ROWS) / 2);
        for i in (0..width).step_by(ROWS) {
            let left = Left::Columns(&rows[i..], width);
            let mut j = i / L::COUNT * L::COUNT;
            // SAFETY: the caller's promise.
            unsafe {
                if (width - j) / L::COUNT % 2 == 1 {
                    tile::<L, ROWS, 1>(depth, left, &rows[j..], &mut out[i * width + j..], width, fresh);
                    j += L::COUNT;
                }
                while j < width {
                    ahead.fetch::<L>();
                    tile::<L, ROWS, 2>(depth, left, &rows[j..], &mut out[i * width + j..], width, fresh);
                    j += 2 * L::COUNT;
                }
            }
        }
    }
}

/// What a pass over so many elements is followed by in memory, brought nearer a few lines at a time: passes read by columns,
/// which no machine foresees. It may lie beyond the block, which mostly has a successor there.
struct Ahead<T> {
    next: *const T,
    left: usize,
    share: usize,
}

impl<T> Ahead<T> {
    const LINE: usize = 64 / size_of::<T>();

    fn new(pass: &[T], shares: usize) -> Self {
        let left = pass.len() / Self::LINE;
        Self { next: pass.as_ptr_range().end, left, share: left.div_ceil(shares) }
    }

    /// # Safety
    /// The instruction set of `L` must be enabled.
    #[inline(always)]
    unsafe fn fetch<L: Lanes<Real = T>>(&mut self) {
        let lines = self.share.min(self.left);
        for line in 0..lines {
            // SAFETY: the caller's promise; a hint touches nothing.
            unsafe { L::prefetch(self.next.wrapping_add(line * Self::LINE)) };
        }
        self.next = self.next.wrapping_add(lines * Self::LINE);
        self.left -= lines;
    }
}

/// # Safety
/// The instruction set of `L` must be enabled.
#[inline(always)]
unsafe fn product<L: Lanes, const ROWS: usize>(
    left: &[L::Real],
    inner: usize,
    right: &[L::Real],
    width: usize,
    out: &mut [L::Real],
) {
    let count = out.len() / width;
    let whole = count / ROWS * ROWS;
    for i in (0..whole).step_by(ROWS) {
        let rows = Left::Rows(&left[i * inner..], inner);
        let mut j = 0;
        while j + 2 * L::COUNT <= width {
            // SAFETY: the caller's promise.
            unsafe { tile::<L, ROWS, 2>(inner, rows, &right[j..], &mut out[i * width + j..], width, true) }
            j += 2 * L::COUNT;
        }
        if j < width {
            // SAFETY: the caller's promise.
            unsafe { tile::<L, ROWS, 1>(inner, rows, &right[j..], &mut out[i * width + j..], width, true) }
        }
    }
    for i in whole..count {
        let row = Left::Rows(&left[i * inner..], inner);
        for j in (0..width).step_by(L::COUNT) {
            // SAFETY: the caller's promise.
            unsafe { tile::<L, 1, 1>(inner, row, &right[j..], &mut out[i * width + j..], width, true) }
        }
    }
}

/// a -= v q' + q v' and y += a x for a symmetric `a`, of which squares of ROWS rows on the diagonal and what lies left of them
/// are read and written.
///
/// # Safety
/// The instruction set of `L` must be enabled, and have ROWS lanes.
#[inline(always)]
unsafe fn update<L: Lanes<Real = f64>, const ROWS: usize>(
    a: &mut [f64],
    stride: usize,
    v: &[f64],
    q: &[f64],
    x: &[f64],
    y: &mut [f64],
) {
    let count = a.len() / stride;
    let whole = count / ROWS * ROWS;
    for i in (0..whole).step_by(ROWS) {
        // SAFETY: the caller's promise.
        unsafe { update_tile::<L, ROWS>(i, i, a, stride, v, q, x, y) }
    }
    for i in whole..count {
        // SAFETY: the caller's promise.
        unsafe { update_tile::<L, 1>(whole, i, a, stride, v, q, x, y) }
    }
}

/// Rows `first..first + ROWS`: the columns before `square`, for both triangles, and those of the square.
///
/// # Safety
/// The instruction set of `L` must be enabled.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of one fused pass")]
unsafe fn update_tile<L: Lanes<Real = f64>, const ROWS: usize>(
    square: usize,
    first: usize,
    a: &mut [f64],
    stride: usize,
    v: &[f64],
    q: &[f64],
    x: &[f64],
    y: &mut [f64],
) {
    let width = square + L::COUNT;
    assert!(square.is_multiple_of(L::COUNT) && first >= square && width <= stride && a.len() >= (first + ROWS) * stride);
    assert!(v.len() >= stride && q.len() >= stride && x.len() >= stride && y.len() >= stride && stride >= first + ROWS);
    // SAFETY: the assertions cover whole rows, and the last register ends within the padded row.
    unsafe {
        let mut sums = [L::splat(0.0); ROWS];
        for j in (0..width).step_by(L::COUNT) {
            let (vj, qj, xj) = (L::load(v.as_ptr().add(j)), L::load(q.as_ptr().add(j)), L::load(x.as_ptr().add(j)));
            let mirrored = y.as_mut_ptr().add(j);
            let mut mirror = L::load(mirrored);
            for i in 0..ROWS {
                let at = a.as_mut_ptr().add((first + i) * stride + j);
                let entry = L::load(at).plus(L::splat(-v[first + i]), qj).plus(L::splat(-q[first + i]), vj);
                entry.store(at);
                sums[i] = sums[i].plus(entry, xj);
                mirror = mirror.plus(entry, L::splat(x[first + i]));
            }
            if j < square {
                mirror.store(mirrored);
            }
        }
        for i in 0..ROWS {
            let mut lanes = [0.0; 8];
            sums[i].store(lanes.as_mut_ptr());
            y[first + i] += lanes.iter().sum::<f64>();
        }
    }
}

/// columns -= v (v' columns) / height.
///
/// # Safety
/// The instruction set of `L` must be enabled.
#[inline(always)]
unsafe fn reflection<L: Lanes<Real = f64>, const ROWS: usize>(v: &[f64], inverse: f64, columns: &mut [f64], width: usize) {
    let mut j = 0;
    while j < width {
        // SAFETY: the caller's promise.
        unsafe {
            if j + 4 * L::COUNT <= width {
                reflect_tile::<L, 4>(v, inverse, &mut columns[j..], width);
                j += 4 * L::COUNT;
            } else {
                reflect_tile::<L, 1>(v, inverse, &mut columns[j..], width);
                j += L::COUNT;
            }
        }
    }
}

/// # Safety
/// The instruction set of `L` must be enabled.
#[inline(always)]
unsafe fn reflect_tile<L: Lanes<Real = f64>, const REGISTERS: usize>(
    v: &[f64],
    inverse: f64,
    columns: &mut [f64],
    stride: usize,
) {
    assert!(!v.is_empty() && columns.len() >= (v.len() - 1) * stride + REGISTERS * L::COUNT);
    let at = columns.as_mut_ptr();
    // SAFETY: the assertion covers the last register of the last row.
    unsafe {
        let mut sums = [L::splat(0.0); REGISTERS];
        for (k, v) in v.iter().enumerate() {
            for j in 0..REGISTERS {
                sums[j] = sums[j].plus(L::splat(*v), L::load(at.add(k * stride + j * L::COUNT)));
            }
        }
        for j in 0..REGISTERS {
            sums[j] = L::splat(0.0).plus(sums[j], L::splat(-inverse));
        }
        for (k, v) in v.iter().enumerate() {
            for j in 0..REGISTERS {
                let at = at.add(k * stride + j * L::COUNT);
                L::load(at).plus(L::splat(*v), sums[j]).store(at);
            }
        }
    }
}

/// Eigenvalues counted at once.
pub(super) const POINTS: usize = 32;
/// Steps of a Sturm sequence between rescalings; 3^8 and 1e-36^4 are far from the limits of f64.
const RESCALE: usize = 8;

/// # Safety
/// The instruction set of `L` must be enabled.
#[inline(always)]
unsafe fn counts<L: Signs, const ROWS: usize>(
    diagonal: &[f64],
    off_squared: &[f64],
    points: &[f64; POINTS],
    lanes: usize,
    below: &mut [u64; POINTS],
) {
    let mut first = 0;
    while first < lanes {
        // SAFETY: the caller's promise.
        unsafe {
            if lanes - first > 2 * L::COUNT && first + 4 * L::COUNT <= POINTS {
                count_tile::<L, 4>(diagonal, off_squared, &points[first..], &mut below[first..]);
                first += 4 * L::COUNT;
            } else {
                count_tile::<L, 1>(diagonal, off_squared, &points[first..], &mut below[first..]);
                first += L::COUNT;
            }
        }
    }
}

/// # Safety
/// The instruction set of `L` must be enabled.
#[inline(always)]
unsafe fn count_tile<L: Signs, const REGISTERS: usize>(
    diagonal: &[f64],
    off_squared: &[f64],
    points: &[f64],
    below: &mut [u64],
) {
    assert!(points.len() >= REGISTERS * L::COUNT && below.len() >= REGISTERS * L::COUNT);
    assert!(off_squared.len() >= diagonal.len());
    // SAFETY: the assertions cover the registers of points and counts.
    unsafe {
        let mut shift = [L::splat(0.0); REGISTERS];
        for j in 0..REGISTERS {
            shift[j] = L::load(points.as_ptr().add(j * L::COUNT));
        }
        let mut before = [L::splat(0.0); REGISTERS];
        let mut now = [L::splat(1.0); REGISTERS];
        let mut flips = [L::splat(0.0); REGISTERS];
        let mut coupling = 0.0;
        for (steps, squares) in diagonal.chunks(RESCALE).zip(off_squared.chunks(RESCALE)) {
            for (d, square) in steps.iter().zip(squares) {
                for j in 0..REGISTERS {
                    let next = L::splat(*d).minus(shift[j]).recur(now[j], before[j], L::splat(coupling));
                    flips[j] = flips[j].flips(next, now[j]);
                    before[j] = now[j];
                    now[j] = next;
                }
                coupling = *square;
            }
            for j in 0..REGISTERS {
                let factor = L::rescale(before[j], now[j]);
                before[j] = before[j].times(factor);
                now[j] = now[j].times(factor);
            }
        }
        for j in 0..REGISTERS {
            flips[j].store(below.as_mut_ptr().add(j * L::COUNT).cast());
        }
    }
}

/// Calls a kernel with the widest registers of this machine.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) = $body:ident, $wide:ident, $narrow:ident, $plain:ident) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use crate::device::simd::{Level, level};
                use std::arch::x86_64::{$narrow, $wide};
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
                fn wide($($arg: $ty),*) {
                    // SAFETY: this function enables the instruction set.
                    unsafe { $body::<$wide, 8>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                fn narrow($($arg: $ty),*) {
                    // SAFETY: as above.
                    unsafe { $body::<$narrow, 4>($($arg),*) }
                }
                match level() {
                    // SAFETY: `level` found these features on this machine.
                    Level::Avx512 => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { narrow($($arg),*) },
                    Level::Baseline => {}
                }
            }
            // SAFETY: plain arithmetic needs no instruction set.
            unsafe { $body::<$plain, 4>($($arg),*) }
        }
    };
}

dispatch! {
    fn gram_f32(block: &[f32], width: usize, out: &mut [f32]) = gram, __m512, __m256, F32x4
}
dispatch! {
    fn gram_f64(block: &[f64], width: usize, out: &mut [f64]) = gram, __m512d, __m256d, F64x4
}
dispatch! {
    fn product_f32(left: &[f32], inner: usize, right: &[f32], width: usize, out: &mut [f32]) = product, __m512, __m256, F32x4
}
dispatch! {
    fn product_f64(left: &[f64], inner: usize, right: &[f64], width: usize, out: &mut [f64]) = product, __m512d, __m256d, F64x4
}
dispatch! {
    /// a -= v q' + q v' over the rows there are of a symmetric matrix, of which the upper triangle is not kept, and y += a x, where
    /// v, q and x are zero past the last of them.
    pub(super) fn update_rows(a: &mut [f64], stride: usize, v: &[f64], q: &[f64], x: &[f64], y: &mut [f64]) = update, __m512d, __m256d, F64x4
}
dispatch! {
    /// columns -= v (v' columns) inverse, where `columns` has a row of `width` for each entry of v.
    pub(super) fn reflect(v: &[f64], inverse: f64, columns: &mut [f64], width: usize) = reflection, __m512d, __m256d, F64x4
}
dispatch! {
    /// How many eigenvalues of a tridiagonal matrix lie below each of the first `lanes` points.
    pub(super) fn sturm_counts(diagonal: &[f64], off_squared: &[f64], points: &[f64; POINTS], lanes: usize, below: &mut [u64; POINTS]) = counts, __m512d, __m256d, F64x4
}

/// Operands wider than this no longer stay in the nearer caches; faer's products, which pack them, are quicker then.
const NARROW: usize = 256;

fn wide_gram<T: RealField>(block: &[T], width: usize, out: &mut [T]) {
    let rows = MatRef::from_row_major_slice(block, block.len() / width, width);
    let sums = MatMut::from_row_major_slice_mut(out, width, width);
    let whole = BlockStructure::Rectangular;
    let upper = BlockStructure::TriangularUpper;
    triangular::matmul(sums, upper, Accum::Replace, rows.transpose(), whole, rows, whole, T::one_impl(), Par::Seq);
}

fn wide_product<T: RealField>(left: &[T], inner: usize, right: &[T], width: usize, out: &mut [T]) {
    let rows = out.len() / width;
    let out = MatMut::from_row_major_slice_mut(out, rows, width);
    let left = MatRef::from_row_major_slice(&left[..rows * inner], rows, inner);
    let right = MatRef::from_row_major_slice(&right[..inner * width], inner, width);
    matmul::matmul(out, Accum::Replace, left, right, T::one_impl(), Par::Seq);
}

/// A precision that Gram matrices and projections are computed in.
pub(super) trait Precision: Real {
    /// out = block' block, its upper triangle; whole tiles are written, so parts of the lower one are too.
    fn gram(block: &[Self], width: usize, out: &mut [Self]);
    /// out = left right, where `left` has rows of `inner` elements, `right` and `out` rows of `width`.
    fn product(left: &[Self], inner: usize, right: &[Self], width: usize, out: &mut [Self]);
    /// The block in this precision: itself, or widened into `memory`.
    fn of_block<'a>(block: &'a [f32], memory: &'a mut [Self]) -> &'a [Self];
    /// Rounds from f64.
    fn of(value: f64) -> Self;
    /// Widens to f64.
    fn wide(self) -> f64;
}

impl Precision for f32 {
    fn gram(block: &[Self], width: usize, out: &mut [Self]) {
        if width > NARROW { wide_gram(block, width, out) } else { gram_f32(block, width, out) }
    }
    fn product(left: &[Self], inner: usize, right: &[Self], width: usize, out: &mut [Self]) {
        match inner.max(width) > NARROW {
            true => wide_product(left, inner, right, width, out),
            false => product_f32(left, inner, right, width, out),
        }
    }
    fn of_block<'a>(block: &'a [f32], _: &'a mut [Self]) -> &'a [Self] {
        block
    }
    fn of(value: f64) -> Self {
        value as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Precision for f64 {
    fn gram(block: &[Self], width: usize, out: &mut [Self]) {
        if width > NARROW { wide_gram(block, width, out) } else { gram_f64(block, width, out) }
    }
    fn product(left: &[Self], inner: usize, right: &[Self], width: usize, out: &mut [Self]) {
        match inner.max(width) > NARROW {
            true => wide_product(left, inner, right, width, out),
            false => product_f64(left, inner, right, width, out),
        }
    }
    fn of_block<'a>(block: &'a [f32], memory: &'a mut [Self]) -> &'a [Self] {
        let wide = &mut memory[..block.len()];
        for (to, from) in wide.iter_mut().zip(block) {
            *to = f64::from(*from);
        }
        wide
    }
    fn of(value: f64) -> Self {
        value
    }
    fn wide(self) -> f64 {
        self
    }
}
