//! Inner loops over f64 vectors.

use crate::device::simd::multiversion;

const LANES: usize = 16;

#[inline(always)]
fn fma<const FUSED: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn dot_body<const FUSED: bool>(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] = fma::<FUSED>(x[i], y[i], lanes[i]);
        }
    }
    for (i, (x, y)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] = fma::<FUSED>(*x, *y, lanes[i]);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

multiversion! {
    /// Sum of products of two vectors of one length, in a fixed order.
    pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 = dot_body
}

#[inline(always)]
fn axpy_body<const FUSED: bool>(scale: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = fma::<FUSED>(scale, *x, *y);
    }
}

multiversion! {
    /// y += scale x.
    pub(super) fn axpy(scale: f64, x: &[f64], y: &mut [f64]) = axpy_body
}

/// y *= factor.
pub(super) fn scale(factor: f64, y: &mut [f64]) {
    y.iter_mut().for_each(|y| *y *= factor);
}

/// sums += scale row, widened to f64.
pub(super) fn add_outer(scale: f32, row: &[f32], sums: &mut [f64]) {
    let scale = f64::from(scale);
    for (sum, x) in sums.iter_mut().zip(row) {
        *sum += scale * f64::from(*x);
    }
}

/// x - row . factors, summed in f64.
pub(super) fn subtract_products(x: f32, row: &[f32], factors: &[f64]) -> f32 {
    let sum: f64 = row.iter().zip(factors).map(|(x, factor)| f64::from(*x) * factor).sum();
    (f64::from(x) - sum) as f32
}

#[inline(always)]
fn sum_of_squares_body<const FUSED: bool>(x: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            let x = f64::from(chunk[i]);
            lanes[i] = fma::<FUSED>(x, x, lanes[i]);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
}

multiversion! {
    /// The sum of the squares, in a fixed order.
    pub(super) fn sum_of_squares(x: &[f32]) -> f64 = sum_of_squares_body
}
