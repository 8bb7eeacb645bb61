//! The CPU path: plain loops, compiled for each instruction set.

use super::Activation;
use crate::device::simd::{fma, multiversion};

pub(super) fn embedding(table: &[f32], ids: &[u32], out: &mut [f32], width: usize) {
    for (id, row) in ids.iter().zip(out.chunks_exact_mut(width.max(1))) {
        let start = *id as usize * width;
        row.copy_from_slice(&table[start..start + width]);
    }
}

const LANES: usize = 16;

/// Sum of f(x) over a row, in an order that depends on the width alone.
#[inline(always)]
fn row_sum(row: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = f(chunk[i], lanes[i]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = f(*x, *lane);
    }
    lanes.iter().sum()
}

#[inline(always)]
fn rms_norm_body<const FUSED: bool>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let square = row_sum(row, |x, sum| fma::<FUSED>(x, x, sum)) / width as f32;
        let scale = 1.0 / (square + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

multiversion! {
    fn rms_norm_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_body
}

pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    if !weight.is_empty() {
        rms_norm_rows(x, weight, eps, out);
    }
}

#[inline(always)]
fn layer_norm_body<const FUSED: bool>(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = row_sum(row, |x, sum| sum + x) / width as f32;
        let variance = row_sum(row, |x, sum| fma::<FUSED>(x - mean, x - mean, sum)) / width as f32;
        let scale = 1.0 / (variance + eps).sqrt();
        for (((out, x), weight), bias) in out.iter_mut().zip(row).zip(weight).zip(bias) {
            *out = fma::<FUSED>((x - mean) * scale, *weight, *bias);
        }
    }
}

multiversion! {
    fn layer_norm_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) = layer_norm_body
}

pub(super) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    if !weight.is_empty() {
        layer_norm_rows(x, weight, bias, eps, out);
    }
}

/// e^x to about 2 units in the last place, without branches, so that loops over it vectorise: x = n ln 2 + r with
/// |r| <= ln 2 / 2, and the Taylor polynomial of e^r.
#[inline(always)]
fn exp<const FUSED: bool>(x: f32) -> f32 {
    // Beyond these e^x leaves the range of f32; NaN passes through clamp.
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    // ln 2 in two parts, the first exact in few bits, so that n times it is exact.
    let r = fma::<FUSED>(n, -0.693_359_4, x);
    let r = fma::<FUSED>(n, 2.121_944_4e-4, r);
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = fma::<FUSED>(p, r, c);
    }
    p * f32::from_bits((((n as i32) + 127) << 23) as u32)
}

#[inline(always)]
fn silu<const FUSED: bool>(x: f32) -> f32 {
    x / (1.0 + exp::<FUSED>(-x))
}

/// 0.5 x (1 + tanh(y)) with y = sqrt(2/pi) (x + 0.044715 x^3), which is x * sigmoid(2 y).
#[inline(always)]
fn gelu_tanh<const FUSED: bool>(x: f32) -> f32 {
    let y = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * fma::<FUSED>(0.044715 * x * x, x, x);
    x / (1.0 + exp::<FUSED>(-2.0 * y))
}

/// Half of x (1 + erf(x / sqrt 2)), erf by formula 7.1.26 of Abramowitz and Stegun (error below 1.5e-7).
#[inline(always)]
fn gelu<const FUSED: bool>(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / fma::<FUSED>(0.327_591_1, z, 1.0);
    let mut p = 1.061_405_4;
    for c in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6, 0.0] {
        p = fma::<FUSED>(p, t, c);
    }
    let tail = 0.5 * p * exp::<FUSED>(-z * z);
    if x >= 0.0 { x - x * tail } else { x * tail }
}

#[inline(always)]
fn activate_body<const FUSED: bool>(x: &mut [f32], activation: Activation) {
    match activation {
        Activation::Silu => x.iter_mut().for_each(|x| *x = silu::<FUSED>(*x)),
        Activation::GeluTanh => x.iter_mut().for_each(|x| *x = gelu_tanh::<FUSED>(*x)),
        Activation::Gelu => x.iter_mut().for_each(|x| *x = gelu::<FUSED>(*x)),
    }
}

multiversion! {
    pub(super) fn activate(x: &mut [f32], activation: Activation) = activate_body
}

#[inline(always)]
fn activate_gated_body<const FUSED: bool>(gate: &mut [f32], up: &[f32], activation: Activation) {
    let pairs = gate.iter_mut().zip(up);
    match activation {
        Activation::Silu => pairs.for_each(|(g, u)| *g = silu::<FUSED>(*g) * u),
        Activation::GeluTanh => pairs.for_each(|(g, u)| *g = gelu_tanh::<FUSED>(*g) * u),
        Activation::Gelu => pairs.for_each(|(g, u)| *g = gelu::<FUSED>(*g) * u),
    }
}

multiversion! {
    pub(super) fn activate_gated(gate: &mut [f32], up: &[f32], activation: Activation) = activate_gated_body
}
