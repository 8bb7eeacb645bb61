//! From moments to a fixed encoder and decoder.

use faer::{Mat, MatRef, Side};

use super::moments::LayerMoments;
use crate::{
    Device, Dtype, Error, Result, Tensor,
    cache::{Basis, KeyForm, Layout, Spec, Weighting, hadamard},
    rope::Rope,
};

/// Eigenvalues of a weight below this share of the largest are raised to it, so that its inverse root stays bounded.
const FLOOR: f64 = 1e-6;

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

    /// The rank columns that lose least: E = W^1/2 P, D = W^-1/2 P with P the leading eigenvectors of W^1/2 M W^1/2.
    pub(super) fn basis(&self, layout: &Layout, tokens: usize, spec: &Spec, rank: usize, device: &Device) -> Result<Basis> {
        let (heads, n) = (layout.n_kv_heads, layout.head_dim);
        let (mut encoders, mut decoders) = (Vec::with_capacity(heads * n * rank), Vec::with_capacity(heads * n * rank));
        let scale = 1.0 / tokens.max(1) as f64;
        let means: Vec<f64> = self.sums.iter().map(|sum| sum * scale).collect();
        for head in 0..heads {
            let square = head * n * n..(head + 1) * n * n;
            let mean = &means[head * n..(head + 1) * n];
            let centre = |i: usize, j: usize| if spec.mean { mean[i] * mean[j] } else { 0.0 };
            let second = &self.second[square.clone()];
            let moment = Mat::from_fn(n, n, |i, j| second[i * n + j] * scale - centre(i, j));
            let weight = self.weights.as_ref().map(|weights| MatRef::from_row_major_slice(&weights[square], n, n));
            let (encoder, decoder) = leading(moment.as_ref(), weight, rank)?;
            let rows = |x: &Mat<f64>| -> Vec<f32> {
                (0..n).flat_map(|i| (0..rank).map(move |j| (i, j))).map(|at| x[at] as f32).collect()
            };
            encoders.extend(rows(&encoder));
            decoders.extend(rows(&decoder));
        }
        if spec.latent.dtype() == Dtype::I4 {
            hadamard(&mut encoders, rank);
            hadamard(&mut decoders, rank);
        }
        let mean: Option<Vec<f32>> = spec.mean.then(|| means.iter().map(|x| *x as f32).collect());
        Basis::new(&encoders, &decoders, mean.as_deref(), [heads, n, rank], spec.dense, device)
    }
}

/// Encoder and decoder of one head, each column's largest decoder entry positive.
fn leading(moment: MatRef<'_, f64>, weight: Option<MatRef<'_, f64>>, rank: usize) -> Result<(Mat<f64>, Mat<f64>)> {
    let n = moment.nrows();
    let (root, inverse) = match weight {
        None => (Mat::identity(n, n), Mat::identity(n, n)),
        Some(weight) => roots(weight)?,
    };
    let weighted = &root * moment * &root;
    let (_, vectors) = eigen(weighted.as_ref())?;
    // Eigenvalues ascend: the leading vectors are the last ones.
    let mut chosen = Mat::from_fn(n, rank, |i, j| vectors[(i, n - 1 - j)]);
    let decoder = &inverse * &chosen;
    for j in 0..rank {
        let largest =
            (0..n).map(|i| decoder[(i, j)]).fold(0.0f64, |largest, x| if x.abs() > largest.abs() { x } else { largest });
        if largest < 0.0 {
            (0..n).for_each(|i| chosen[(i, j)] = -chosen[(i, j)]);
        }
    }
    Ok((&root * &chosen, &inverse * &chosen))
}

/// W^1/2 and W^-1/2 of a symmetric matrix, eigenvalues floored. W is first scaled to a mean eigenvalue of 1, which changes
/// no subspace and keeps latents at the size of the rows, within reach of 16-bit floats.
fn roots(weight: MatRef<'_, f64>) -> Result<(Mat<f64>, Mat<f64>)> {
    let n = weight.nrows();
    let (mut values, vectors) = eigen(weight)?;
    let mean = values.iter().sum::<f64>() / n as f64;
    if mean <= 0.0 {
        return Ok((Mat::identity(n, n), Mat::identity(n, n)));
    }
    values.iter_mut().for_each(|value| *value /= mean);
    let floor = values.last().map_or(0.0, |largest| largest * FLOOR);
    let power = |exponent: f64| {
        let scaled = Mat::from_fn(n, n, |i, j| vectors[(i, j)] * values[j].max(floor).powf(exponent));
        scaled * vectors.transpose()
    };
    Ok((power(0.5), power(-0.5)))
}

/// Eigenvalues, ascending, and eigenvectors of a symmetric matrix.
fn eigen(matrix: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let n = matrix.nrows();
    let failed = |what: &str| Error::Numeric { op: "calibrate", what: what.into() };
    let symmetric = Mat::from_fn(n, n, |i, j| 0.5 * (matrix[(i, j)] + matrix[(j, i)]));
    if (0..n).any(|i| (0..n).any(|j| !symmetric[(i, j)].is_finite())) {
        return Err(failed("moments are not finite"));
    }
    let found = symmetric.self_adjoint_eigen(Side::Lower).map_err(|_| failed("eigenvalues did not converge"))?;
    Ok((found.S().column_vector().iter().copied().collect(), found.U().to_owned()))
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
        return Err(Error::shape(
            "calibrate",
            format!("output projection {:?}", output.shape()),
            format!("[hidden, {}]", heads * n),
        ));
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
