//! The CPU path: a library GEMM for many rows, dot products for few.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

use crate::{Dtype, Result, Scratch, Tensor, device::simd};

/// Up to this many rows the weights are streamed through dot products; packing them for a GEMM costs more.
const FEW_ROWS: usize = 3;
/// Multiplications below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 19;

/// y = x W' + bias for x [rows, k], W [n, k].
pub(super) fn dense(y: &mut [f32], x: &[f32], weight: &[f32], bias: Option<&[f32]>, shape: &[usize]) {
    let (n, k) = (shape[0], shape[1]);
    if y.is_empty() || k == 0 {
        y.fill(0.0);
    }
    if y.is_empty() {
        return;
    }
    let rows = y.len() / n;
    let parts = parts(rows * n * k);
    if rows <= FEW_ROWS {
        for (row, y) in y.chunks_exact_mut(n).enumerate() {
            one_row(y, &x[row * k..][..k], weight, parts);
        }
    } else {
        let block = rows.div_ceil(parts);
        let multiply = |(i, y): (usize, &mut [f32])| many_rows(y, &x[i * block * k..][..y.len() / n * k], weight, n, k);
        match parts {
            1 => multiply((0, y)),
            _ => y.par_chunks_mut(block * n).enumerate().for_each(multiply),
        }
    }
    if let Some(bias) = bias {
        y.chunks_exact_mut(n).for_each(|y| simd::axpy(1.0, bias, y));
    }
}

/// f32 elements that [`factorized`] works in: the latent rows, and factors widened to f32.
pub(super) fn factorized_scratch(x: &Tensor, b: &Tensor, a: &Tensor) -> usize {
    let wide = if b.dtype() == Dtype::F32 { 0 } else { b.len() + a.len() };
    x.shape()[0] * b.shape()[0] + wide
}

/// y = (x B') A' + bias.
pub(super) fn factorized(
    y: &mut Tensor,
    x: &Tensor,
    b: &Tensor,
    a: &Tensor,
    bias: Option<&Tensor>,
    scratch: &mut Scratch,
) -> Result<()> {
    let memory = scratch.take::<f32>(factorized_scratch(x, b, a))?;
    let (latent, rest) = memory.split_at_mut(x.shape()[0] * b.shape()[0]);
    let (wide_b, wide_a) = rest.split_at_mut(rest.len().min(b.len()));
    dense(latent, x.slice()?, floats(b, wide_b)?, None, b.shape());
    dense(y.slice_mut()?, latent, floats(a, wide_a)?, bias.map(Tensor::slice).transpose()?, a.shape());
    Ok(())
}

/// The elements of a factor, widened into `wide` where they are not f32 already.
fn floats<'a>(factor: &'a Tensor, wide: &'a mut [f32]) -> Result<&'a [f32]> {
    if factor.dtype() == Dtype::F32 {
        return factor.slice();
    }
    simd::widen(factor.dtype(), factor.bytes_ref()?, wide);
    Ok(wide)
}

/// How many threads to spread the work over: inside a worker one, since the batch is spread already.
fn parts(multiplications: usize) -> usize {
    let threads = if rayon::current_thread_index().is_some() { 1 } else { rayon::current_num_threads() };
    threads.min(multiplications / WORTH_A_THREAD).max(1)
}

fn one_row(y: &mut [f32], x: &[f32], weight: &[f32], parts: usize) {
    let block = y.len().div_ceil(parts);
    let multiply = |(i, y): (usize, &mut [f32])| simd::dot_rows(x, &weight[i * block * x.len()..][..y.len() * x.len()], y);
    match parts {
        1 => multiply((0, y)),
        _ => y.par_chunks_mut(block).enumerate().for_each(multiply),
    }
}

fn many_rows(y: &mut [f32], x: &[f32], weight: &[f32], n: usize, k: usize) {
    let rows = y.len() / n;
    let y = MatMut::from_row_major_slice_mut(y, rows, n);
    let weight = MatRef::from_row_major_slice(weight, n, k);
    matmul(y, Accum::Replace, MatRef::from_row_major_slice(x, rows, k), weight.transpose(), 1.0, Par::Seq);
}
