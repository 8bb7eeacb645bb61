//! What results are held against, in f64.

/// The largest figure; NaN if any is.
pub(super) fn worst_of(figures: impl Iterator<Item = f64>) -> f64 {
    figures.fold(0.0, |worst, figure| if worst.is_nan() || figure <= worst { worst } else { figure })
}

use super::limits;
use crate::{
    Result, Tensor,
    attention::{Part, Side},
    coded::Format,
    rope::Rope,
};

/// Keys or values of one sequence and layer: [heads, tokens, width] f64.
pub(super) struct Rows {
    pub(super) heads: usize,
    pub(super) width: usize,
    data: Vec<f64>,
}

impl Rows {
    /// From rows [tokens, heads, width] f32.
    pub(super) fn from_tokens(rows: &[f32], heads: usize, width: usize) -> Self {
        let tokens = rows.len() / (heads * width).max(1);
        let token = |head: usize, token: usize| &rows[(token * heads + head) * width..][..width];
        let data = (0..heads).flat_map(|h| (0..tokens).flat_map(move |t| token(h, t))).map(|x| f64::from(*x)).collect();
        Self { heads, width, data }
    }

    /// What the parts of a cache stand for, decoded.
    pub(super) fn from_parts(parts: &[Part<'_>], values: bool, heads: usize, width: usize) -> Result<Self> {
        let sides: Vec<Side<'_>> = parts.iter().map(|part| if values { part.values } else { part.keys }).collect();
        let decoded = sides.iter().map(|side| decoded(side, width)).collect::<Result<Vec<_>>>()?;
        let mut data = Vec::new();
        for head in 0..heads {
            decoded.iter().for_each(|part| data.extend_from_slice(&part[head * part.len() / heads..][..part.len() / heads]));
        }
        Ok(Self { heads, width, data })
    }

    pub(super) fn tokens(&self) -> usize {
        self.data.len() / (self.heads * self.width)
    }

    fn row(&self, head: usize, token: usize) -> &[f64] {
        &self.data[(head * self.tokens() + token) * self.width..][..self.width]
    }

    /// Turns every row by the angles of its position.
    pub(super) fn rotate(&mut self, rope: &Rope) -> Result<()> {
        let tables = rope.host()?;
        let tokens = self.tokens();
        for (i, row) in self.data.chunks_exact_mut(self.width).enumerate() {
            let (cos, sin) = tables.turns(i % tokens);
            turn(row, cos, sin);
        }
        Ok(())
    }

    /// Squared error that quantizing every row may have, and the squared length of all.
    pub(super) fn quantization(&self, format: Format) -> (f64, f64) {
        let mut most = 0.0;
        for row in self.data.chunks_exact(self.width) {
            let (low, high) = row.iter().fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
            let largest = high.max(-low);
            let span = if format == Format::Int4Asym { high - low } else { largest };
            // Scale and offset are rounded to f16.
            let element = limits::half_step(format) * span + 2.0 * limits::unit(Format::F16) * largest;
            most += self.width as f64 * element * element;
        }
        (most, self.data.iter().map(|a| a * a).sum())
    }

    /// Squared distance to the same rows kept otherwise, and the squared length of these.
    pub(super) fn distance(&self, other: &Self) -> (f64, f64) {
        let off = self.data.iter().zip(&other.data).map(|(a, b)| (a - b).powi(2)).sum();
        (off, self.data.iter().map(|a| a * a).sum())
    }
}

/// [heads, tokens, width] of one side of a part.
fn decoded(side: &Side<'_>, width: usize) -> Result<Vec<f64>> {
    let (heads, tokens, rank) = (side.rows.heads(), side.rows.tokens(), side.rows.width());
    let rows: Vec<f64> = side.rows.decode(0, tokens)?.into_iter().map(f64::from).collect();
    let Some(decoder) = side.decoder else { return Ok(rows) };
    let matrix = decoder.matrix.to_f32_vec()?;
    let mean = decoder.mean.as_ref().map(Tensor::to_f32_vec).transpose()?.unwrap_or_else(|| vec![0.0; heads * width]);
    let mut out = Vec::with_capacity(heads * tokens * width);
    for (i, latent) in rows.chunks_exact(rank).enumerate() {
        let head = i / tokens;
        let matrix = &matrix[head * width * rank..][..width * rank];
        let element = |j: usize| latent.iter().zip(&matrix[j * rank..]).map(|(a, d)| a * f64::from(*d)).sum::<f64>();
        out.extend((0..width).map(|j| element(j) + f64::from(mean[head * width + j])));
    }
    Ok(out)
}

fn turn(row: &mut [f64], cos: &[f32], sin: &[f32]) {
    let half = row.len() / 2;
    for j in 0..half {
        let (c, s) = (f64::from(cos[j]), f64::from(sin[j]));
        let (a, b) = (row[j], row[j + half]);
        (row[j], row[j + half]) = (a * c - b * s, b * c + a * s);
    }
}

/// Softmax attention in f64 of one query [n_heads, width], before RoPE, at the last position of its keys (rotated
/// already) and values.
pub(super) fn attention(q: &[f32], keys: &Rows, values: &Rows, scale: f32, rope: Option<&Rope>) -> Result<Vec<f64>> {
    let n_heads = q.len() / keys.width;
    let mut out = Vec::with_capacity(q.len());
    for (head, q) in q.chunks_exact(keys.width).enumerate() {
        let mut q: Vec<f64> = q.iter().map(|x| f64::from(*x)).collect();
        if let Some(rope) = rope {
            let (cos, sin) = rope.host()?.turns(keys.tokens() - 1);
            turn(&mut q, cos, sin);
        }
        let shared = head * keys.heads / n_heads;
        let score = |t: usize| f64::from(scale) * q.iter().zip(keys.row(shared, t)).map(|(a, b)| a * b).sum::<f64>();
        let scores: Vec<f64> = (0..keys.tokens()).map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = vec![0.0; values.width];
        for (t, weight) in weights.iter().enumerate() {
            sum.iter_mut().zip(values.row(shared, t)).for_each(|(s, v)| *s += weight / total * v);
        }
        out.extend(sum);
    }
    Ok(out)
}
