//! The approximation that loses least under a weight, by the SVD of what the weight makes of the rows.

use faer::{Accum, Mat, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

use super::{
    DTYPES, Options, Output, Rank, Sizes, Svd, Verdict, check_rank,
    dense::{product, symmetric_eigen},
    gpu,
    params::SVD_WEIGHT_FLOOR as FLOOR,
    truncated,
};
use crate::{Dtype, Error, Result, Tensor, device::Kind};

pub(super) const OP: &str = "svd::weighted";

/// An encoder E and a decoder D of rows X: latents X E, and X ~ X E D'.
#[derive(Debug)]
pub struct Weighted {
    /// E = W^1/2 V [.., n, r] in the dtype of [`Options::factors`].
    pub encoder: Tensor,
    /// D = W^-1/2 V [.., n, r] in the dtype of [`Options::factors`]. The entry of largest magnitude in each column is positive.
    pub decoder: Tensor,
    /// Of X W^1/2, W scaled to a mean eigenvalue of one, as [`Output::LatentDecoder`]: u is the latents X E [.., m, r], and v
    /// is V.
    pub svd: Svd,
}

impl Weighted {
    /// What became of each matrix; `tail` is ||(X - X E D') W^1/2|| / ||X W^1/2||.
    ///
    /// # Errors
    /// As [`Svd::verdicts`].
    pub fn verdicts(&self) -> Result<Vec<Verdict>> {
        self.svd.verdicts()
    }
}

/// For every matrix X of `x`, [.., m, n] f32, f16 or bf16, the encoder and decoder of low rank that minimise
/// ||(X - X E D') W^1/2||, W being the symmetric weight at the same place of `weight`, f32 [.., n, n], or the one there is,
/// [n, n].
///
/// With V from the SVD of X W^1/2 they are E = W^1/2 V and D = W^-1/2 V, and what is lost is the tail of that SVD; the roots
/// are those of eigh(W), whose eigenvalues below 1e-6 of the largest are raised to that. W is scaled to a mean eigenvalue of
/// one first, which changes neither the subspace nor E D', and keeps latents at the size of the rows, within reach of 16-bit
/// floats. Keys weighted by the queries that meet them (W = Q'Q), values
/// by the output projection (W = W_O'W_O) and weights by their inputs (W = S, the second moments) are all this one
/// function. A weight without a positive eigenvalue weighs nothing, and counts as the identity.
///
/// [`Options::output`] does not matter here.
///
/// # Errors
/// As [`truncated`]; [`Error::Shape`] for weights that do not fit, [`Error::Dtype`] for weights other than f32,
/// [`Error::Numeric`] for one that holds a NaN or an infinity: on other devices than the CPU, where nobody waits, such a weight
/// marks its matrices instead, as a NaN among the rows does; [`Error::Device`] when x and the weight are on different devices.
pub fn weighted(x: &Tensor, weight: &Tensor, rank: Rank, options: &Options) -> Result<Weighted> {
    let (leading, m, n) = check(x, weight, rank, options)?;
    if x.device().kind() != Kind::Cpu {
        return gpu::weighted(x, weight, rank, options);
    }
    let weights = weight.contiguous()?;
    let roots: Vec<Roots> =
        weights.slice::<f32>()?.par_chunks_exact(n * n).map(|weight| Roots::new(weight, n)).collect::<Result<_>>()?;
    let root = |index: usize| &roots[index % roots.len()];

    let unweighted = x.to_dtype(Dtype::F32)?.contiguous()?;
    let mut rows = Tensor::zeros(x.shape(), Dtype::F32, &x.device())?;
    let matrices = rows.slice_mut::<f32>()?.par_chunks_exact_mut(m * n).zip(unweighted.slice::<f32>()?.par_chunks_exact(m * n));
    matrices.enumerate().for_each(|(index, (rows, unweighted))| {
        let unweighted = MatRef::from_row_major_slice(unweighted, m, n);
        let rows = MatMut::from_row_major_slice_mut(rows, m, n);
        matmul(rows, Accum::Replace, unweighted, root(index).single.as_ref(), 1.0, Par::Seq);
    });
    let as_latents = Options { output: Output::LatentDecoder, factors: Dtype::F32, ..options.clone() };
    let mut svd = truncated(&rows, rank, &as_latents)?;

    let r = rank.columns();
    let columns = || Tensor::zeros(&[leading, &[n, r]].concat(), Dtype::F32, &x.device());
    let (mut encoder, mut decoder) = (columns()?, columns()?);
    let vs = svd.v.slice_mut::<f32>()?.par_chunks_exact_mut(n * r);
    let us = svd.u.slice_mut::<f32>()?.par_chunks_exact_mut(m * r);
    let encoders = encoder.slice_mut::<f32>()?.par_chunks_exact_mut(n * r);
    let decoders = decoder.slice_mut::<f32>()?.par_chunks_exact_mut(n * r);
    us.zip(vs).zip(encoders).zip(decoders).enumerate().for_each(|(index, (((u, v), encoder), decoder))| {
        let Roots { half, inverse, .. } = root(index);
        let wide = Mat::from_fn(n, r, |i, j| f64::from(v[i * r + j]));
        write(&product(half.as_ref(), wide.as_ref()), encoder);
        write(&product(inverse.as_ref(), wide.as_ref()), decoder);
        let signs = signs(decoder, r);
        for part in [u, v, encoder, decoder] {
            part.chunks_exact_mut(r).for_each(|row| row.iter_mut().zip(&signs).for_each(|(x, sign)| *x *= sign));
        }
    });
    let rounded = |tensor: Tensor| tensor.to_dtype(options.factors);
    let svd = Svd { u: rounded(svd.u)?, v: rounded(svd.v)?, ..svd };
    Ok(Weighted { encoder: rounded(encoder)?, decoder: rounded(decoder)?, svd })
}

/// The leading axes, m and n.
fn check<'a>(x: &'a Tensor, weight: &Tensor, rank: Rank, options: &Options) -> Result<(&'a [usize], usize, usize)> {
    if weight.device() != x.device() {
        return Err(Error::device(format!("weight on {} for x on {}", weight.device(), x.device()), "move one of them"));
    }
    let [leading @ .., m, n] = x.shape() else {
        return Err(Error::shape(OP, format!("x {:?}", x.shape()), "rows [.., m, n]"));
    };
    if x.is_empty() {
        return Err(Error::shape(OP, format!("x {:?}", x.shape()), "at least one matrix, one row and one column"));
    }
    for dtype in [x.dtype(), options.factors] {
        if !DTYPES.contains(&dtype) {
            return Err(Error::Dtype { op: OP, found: dtype, expected: DTYPES });
        }
    }
    check_rank(rank)?;
    Sizes::new(x.shape(), rank.columns(), &x.device())?;
    if weight.dtype() != Dtype::F32 {
        return Err(Error::Dtype { op: OP, found: weight.dtype(), expected: &[Dtype::F32] });
    }
    let (own, shared) = ([leading, &[*n, *n]].concat(), [*n, *n]);
    if weight.shape() != own && weight.shape() != shared {
        return Err(Error::shape(OP, format!("weight {:?}", weight.shape()), format!("{own:?} or {shared:?}")));
    }
    Ok((leading, *m, *n))
}

/// W^1/2 and W^-1/2 of a symmetric matrix scaled to a mean eigenvalue of one, eigenvalues floored.
struct Roots {
    half: Mat<f64>,
    inverse: Mat<f64>,
    /// W^1/2 in the precision of the rows.
    single: Mat<f32>,
}

impl Roots {
    fn new(weight: &[f32], n: usize) -> Result<Self> {
        let weight = MatRef::from_row_major_slice(weight, n, n);
        let weight = Mat::from_fn(n, n, |i, j| f64::from(weight[(i, j)]));
        let (mut values, vectors) = eigen(OP, weight.as_ref())?;
        let largest = values.last().copied().unwrap_or(0.0);
        if largest > 0.0 {
            values.iter_mut().for_each(|value| *value = value.max(largest * FLOOR));
            let mean = values.iter().sum::<f64>() / n as f64;
            values.iter_mut().for_each(|value| *value /= mean);
        } else {
            values.fill(1.0);
        }
        let [half, inverse] = [0.5, -0.5].map(|exponent| symmetric_power(&values, vectors.as_ref(), exponent));
        let single = Mat::from_fn(n, n, |i, j| half[(i, j)] as f32);
        Ok(Self { half, inverse, single })
    }
}

/// Eigenvalues, ascending, and eigenvectors of a symmetric matrix, for operation `op`.
pub(crate) fn eigen(op: &'static str, matrix: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let n = matrix.nrows();
    let failed = |what: &str| Error::Numeric { op, what: what.into() };
    let symmetric = Mat::from_fn(n, n, |i, j| 0.5 * (matrix[(i, j)] + matrix[(j, i)]));
    if !(0..n).all(|j| (0..n).all(|i| symmetric[(i, j)].is_finite())) {
        return Err(failed("a symmetric matrix holds a NaN or an infinity"));
    }
    symmetric_eigen(symmetric.as_ref()).ok_or_else(|| failed("eigenvalues did not converge"))
}

/// The matrix of these eigenvectors whose eigenvalues are powers of `values`.
pub(crate) fn symmetric_power(values: &[f64], vectors: MatRef<'_, f64>, exponent: f64) -> Mat<f64> {
    let scaled = Mat::from_fn(vectors.nrows(), values.len(), |i, j| vectors[(i, j)] * values[j].powf(exponent));
    product(scaled.as_ref(), vectors.transpose())
}

fn write(from: &Mat<f64>, to: &mut [f32]) {
    for (i, row) in to.chunks_exact_mut(from.ncols()).enumerate() {
        row.iter_mut().enumerate().for_each(|(j, x)| *x = from[(i, j)] as f32);
    }
}

/// What makes the entry of largest magnitude in each column positive.
fn signs(rows: &[f32], width: usize) -> Vec<f32> {
    let mut largest = vec![0.0f32; width];
    for row in rows.chunks_exact(width) {
        for (largest, x) in largest.iter_mut().zip(row) {
            if x.abs() > largest.abs() {
                *largest = *x;
            }
        }
    }
    largest.into_iter().map(|x| 1f32.copysign(x)).collect()
}
