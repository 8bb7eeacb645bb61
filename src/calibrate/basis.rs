//! From moments to a fixed encoder and decoder.

use faer::{Mat, MatRef};

use super::moments::LayerMoments;
use crate::{
    Device, Dtype, Error, Result, Tensor,
    cache::{Basis, KeyForm, Layout, Spec, Weighting, hadamard},
    rope::Rope,
    svd::{self, Options, Output, Rank},
};

const OP: &str = "calibrate";

/// What the basis of one side of a layer is fitted to: matrices [head_dim, head_dim] f64, one for each key-value head.
pub(super) struct Target<'a> {
    second: &'a [f64],
    /// Sums of rows, [n_kv_heads, head_dim].
    sums: &'a [f64],
    /// W of the loss ||(X - X^) W^1/2||; the identity where there is none.
    weights: Option<Vec<f64>>,
}

impl<'a> Target<'a> {
    /// Keys, weighted by the queries that meet them.
    pub(super) fn keys(layout: &Layout, moments: &'a LayerMoments, window: usize, spec: &Spec) -> Result<Self> {
        let rotated = spec.keys == KeyForm::PostRope;
        let weights = match (spec.weighting, rotated, &layout.rope) {
            (Weighting::None, ..) => None,
            (_, false, Some(rope)) => Some(over_relative_positions(rope, &moments.queries, window)?),
            (_, false, None) => Some(moments.queries.clone()),
            (_, true, _) => Some(moments.rotated_queries.clone()),
        };
        let [keys, rotated_keys, _] = &moments.sums;
        let (second, sums) = if rotated { (&moments.rotated_keys, rotated_keys) } else { (&moments.keys, keys) };
        Ok(Self { second, sums, weights })
    }

    /// Values, weighted by `output`, the output projection [hidden, n_heads * head_dim]: W = sum of W_O' W_O over the
    /// query heads of a group.
    pub(super) fn values(layout: &Layout, moments: &'a LayerMoments, output: &Tensor, spec: &Spec) -> Result<Self> {
        let weights = (spec.weighting == Weighting::Query).then(|| output_weights(layout, output)).transpose()?;
        Ok(Self { second: &moments.values, sums: &moments.sums[2], weights })
    }

    /// The rank columns that lose least, of rows that have the second moments of those seen.
    pub(super) fn basis(&self, layout: &Layout, tokens: usize, spec: &Spec, rank: usize, device: &Device) -> Result<Basis> {
        let (heads, n) = (layout.n_kv_heads, layout.head_dim);
        let scale = 1.0 / tokens.max(1) as f64;
        let means: Vec<f64> = self.sums.iter().map(|sum| sum * scale).collect();
        let mut rows = Vec::with_capacity(heads * n * n);
        for (second, mean) in self.second.chunks_exact(n * n).zip(means.chunks_exact(n)).take(heads) {
            let centre = |i: usize, j: usize| if spec.mean { mean[i] * mean[j] } else { 0.0 };
            rows.extend(root(n, |i, j| second[i * n + j] * scale - centre(i, j))?);
        }
        let rows = Tensor::from_slice(&rows, &[heads, n, n], &Device::cpu())?;
        let (mut encoders, mut decoders) = match self.weights.as_ref() {
            None => {
                let options = Options { output: Output::LatentDecoder, ..Options::default() };
                let basis = svd::truncated(&rows, Rank::Fixed(rank), &options)?.v.to_f32_vec()?;
                (basis.clone(), basis)
            }
            Some(weights) => {
                let weights: Vec<f32> = weights.iter().map(|x| *x as f32).collect();
                let weights = Tensor::from_slice(&weights, &[heads, n, n], &Device::cpu())?;
                let found = svd::weighted(&rows, &weights, Rank::Fixed(rank), &Options::default())?;
                (found.encoder.to_f32_vec()?, found.decoder.to_f32_vec()?)
            }
        };
        if spec.latent.dtype() == Dtype::I4 {
            hadamard(&mut encoders, rank);
            hadamard(&mut decoders, rank);
        }
        let mean: Option<Vec<f32>> = spec.mean.then(|| means.iter().map(|x| *x as f32).collect());
        Basis::new(&encoders, &decoders, mean.as_deref(), [heads, n, rank], spec.dense, device)
    }
}

/// Rows with these second moments, as many as there are columns: the symmetric root.
fn root(n: usize, moment: impl Fn(usize, usize) -> f64) -> Result<Vec<f32>> {
    let (mut values, vectors) = svd::eigen(OP, Mat::from_fn(n, n, moment).as_ref())?;
    // Rounding makes the least ones negative.
    values.iter_mut().for_each(|value| *value = value.max(0.0));
    let root = svd::symmetric_power(&values, vectors.as_ref(), 0.5);
    Ok((0..n * n).map(|i| root[(i / n, i % n)] as f32).collect())
}

/// The sum of R_D M R_D' over the relative positions D = 0..window of causal pairs, each as often as a window has it: logits
/// of keys before RoPE meet q turned by how far back the key lies.
fn over_relative_positions(rope: &Rope, queries: &[f64], window: usize) -> Result<Vec<f64>> {
    let pairs = rope.pairs();
    let n = 2 * pairs;
    let tables = rope.host()?;
    let mut total = vec![0.0; queries.len()];
    for distance in 0..window {
        let often = (window - distance) as f64;
        let (cos, sin) = tables.turns(distance);
        // Entry i of a turned vector is its own share plus that of the other half.
        let turn = |i: usize| -> [(usize, f64); 2] {
            let (cos, sin) = (f64::from(cos[i % pairs]), f64::from(sin[i % pairs]));
            if i < pairs { [(i, cos), (i + pairs, -sin)] } else { [(i, cos), (i - pairs, sin)] }
        };
        for (moment, total) in queries.chunks_exact(n * n).zip(total.chunks_exact_mut(n * n)) {
            for i in 0..n {
                for j in 0..n {
                    let shares =
                        turn(i).into_iter().flat_map(|(a, x)| turn(j).into_iter().map(move |(b, y)| x * y * moment[a * n + b]));
                    total[i * n + j] += often * shares.sum::<f64>();
                }
            }
        }
    }
    Ok(total)
}

fn output_weights(layout: &Layout, output: &Tensor) -> Result<Vec<f64>> {
    let (n, heads) = (layout.head_dim, layout.n_heads);
    if output.shape().len() != 2 || output.shape()[1] != heads * n {
        return Err(Error::shape(OP, format!("output projection {:?}", output.shape()), format!("[hidden, {}]", heads * n)));
    }
    let rows: Vec<f64> = output.to_f32_vec()?.into_iter().map(f64::from).collect();
    let projection = MatRef::from_row_major_slice(&rows, output.shape()[0], heads * n);
    let group = heads / layout.n_kv_heads;
    let mut weights = Vec::with_capacity(layout.n_kv_heads * n * n);
    for head in 0..layout.n_kv_heads {
        let mut weight = Mat::<f64>::zeros(n, n);
        for query_head in head * group..(head + 1) * group {
            let of_head = projection.subcols(query_head * n, n);
            weight += of_head.transpose() * of_head;
        }
        weights.extend((0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|at| weight[at]));
    }
    Ok(weights)
}
