//! A few queries: every cached byte is read once, tile by tile, with online softmax.

use std::ops::Range;

use rayon::prelude::*;

use super::{Head, HeadPart};
use crate::{coded::HostRows, device::simd};

/// Tokens of a tile.
const TILE: usize = 64;
/// Tokens of a split. Fixed, so that bits do not depend on threads or on the batch.
const SPLIT: usize = 2048;

/// Softmax-weighted values over some tokens, for every query row.
struct Partial {
    /// Largest score.
    max: Vec<f32>,
    /// Sum of e^(score - max); 0 for a row that sees none of the tokens.
    sum: Vec<f32>,
    /// [rows, head_dim], divided by `sum`.
    out: Vec<f32>,
}

pub(super) fn attend(head: &Head<'_>) -> Vec<f32> {
    let splits: Vec<_> =
        head.parts.iter().flat_map(|part| (0..part.tokens).step_by(SPLIT).map(move |start| (part, start))).collect();
    let partials: Vec<Partial> =
        splits.into_par_iter().map(|(part, start)| partial(head, part, start..part.tokens.min(start + SPLIT))).collect();
    combine(&partials, head.head_dim)
}

/// Joins partial results by their log-sum-exp, in token order.
fn combine(partials: &[Partial], head_dim: usize) -> Vec<f32> {
    let rows = partials.first().map_or(0, |partial| partial.sum.len());
    let mut out = vec![0.0; rows * head_dim];
    for (row, out) in out.chunks_exact_mut(head_dim.max(1)).enumerate() {
        let seen = || partials.iter().filter(|partial| partial.sum[row] != 0.0);
        let max = seen().map(|partial| partial.max[row]).fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0;
        for partial in seen() {
            let weight = partial.sum[row] * (partial.max[row] - max).exp();
            total += weight;
            simd::axpy(weight, &partial.out[row * head_dim..(row + 1) * head_dim], out);
        }
        out.iter_mut().for_each(|x| *x /= total);
    }
    out
}

/// What query rows are multiplied with the stored rows of a part as.
struct Operand {
    /// [rows, width]: the queries, or the queries with the keys' decoder absorbed.
    q: Vec<f32>,
    width: usize,
    /// What each row's scores gain from the keys' mean.
    bias: Vec<f32>,
    /// Sum of each row of q, for asymmetric codes.
    sums: Vec<f32>,
}

impl Operand {
    fn new(head: &Head<'_>, part: &HeadPart<'_>) -> Self {
        let rows = head.q.chunks_exact(head.head_dim);
        let (q, width, bias) = match &part.keys.decoder {
            Some(decoder) if head.rotate.is_none() => {
                let width = part.keys.width;
                let mut absorbed = vec![0.0; rows.len() * width];
                for (row, to) in rows.clone().zip(absorbed.chunks_exact_mut(width)) {
                    simd::combine_rows(row, &decoder.matrix, to);
                }
                let bias = rows.map(|row| decoder.mean.as_ref().map_or(0.0, |mean| simd::dot(row, mean))).collect();
                (absorbed, width, bias)
            }
            _ => (head.q.clone(), head.head_dim, vec![0.0; rows.len()]),
        };
        let sums = q.chunks_exact(width).map(|row| row.iter().sum()).collect();
        Self { q, width, bias, sums }
    }
}

/// Running state of one query row.
struct Row {
    max: f32,
    sum: f32,
    /// Values weighted so far, in latent space.
    latent: Vec<f32>,
}

/// Scales and offsets of the rows of a tile.
struct Scales {
    scale: [f32; TILE],
    offset: [f32; TILE],
}

impl Scales {
    const NONE: Self = Self { scale: [1.0; TILE], offset: [0.0; TILE] };

    fn load(&mut self, rows: &HostRows<'_>, first: usize, count: usize) {
        if rows.is_scaled() {
            rows.scales(first, &mut self.scale[..count]);
            rows.offsets(first, &mut self.offset[..count]);
        }
    }
}

fn partial(head: &Head<'_>, part: &HeadPart<'_>, tokens: Range<usize>) -> Partial {
    let operand = Operand::new(head, part);
    let width = operand.width;
    let mut rows: Vec<Row> =
        operand.bias.iter().map(|_| Row { max: f32::NEG_INFINITY, sum: 0.0, latent: vec![0.0; part.values.width] }).collect();
    let mut keys = vec![0.0; TILE * width];
    let mut latents = vec![0.0; TILE * part.keys.width];
    let mut values = vec![0.0; TILE * part.values.width];
    let (mut key_scales, mut value_scales) = (Scales::NONE, Scales::NONE);
    let mut scores = [0.0; TILE];
    for first in tokens.clone().step_by(TILE) {
        let count = TILE.min(tokens.end - first);
        let keys = &mut keys[..count * width];
        load_keys(head, part, first, keys, &mut latents[..count * part.keys.width]);
        if head.rotate.is_none() {
            key_scales.load(&part.keys.rows, first, count);
        }
        let values = &mut values[..count * part.values.width];
        part.values.rows.codes(first, values);
        value_scales.load(&part.values.rows, first, count);
        for (i, row) in rows.iter_mut().enumerate() {
            let seen = (head.position + i / head.group + 1).saturating_sub(part.start + first).min(count);
            if seen == 0 {
                continue;
            }
            let scores = &mut scores[..seen];
            simd::dot_rows(&operand.q[i * width..(i + 1) * width], &keys[..seen * width], scores);
            let (bias, q_sum) = (operand.bias[i], operand.sums[i]);
            for ((score, scale), offset) in scores.iter_mut().zip(&key_scales.scale).zip(&key_scales.offset) {
                *score = *score * scale + offset * q_sum + bias;
            }
            row.take(scores, values, &value_scales);
        }
    }
    decode_rows(head, part, rows)
}

/// The keys of a tile as the operand meets them: raw codes, or decoded and rotated where positions still have to be applied.
fn load_keys(head: &Head<'_>, part: &HeadPart<'_>, first: usize, keys: &mut [f32], latents: &mut [f32]) {
    let Some(rope) = head.rotate else {
        part.keys.rows.codes(first, keys);
        return;
    };
    match &part.keys.decoder {
        None => part.keys.rows.values(first, keys),
        Some(decoder) => {
            part.keys.rows.values(first, latents);
            decoder.decode(latents, part.keys.width, keys);
        }
    }
    for (i, key) in keys.chunks_exact_mut(head.head_dim).enumerate() {
        rope.rotate(key, part.start + first + i);
    }
}

impl Row {
    /// Adds tokens with these scores, the raw codes of their values, and the scales of those.
    fn take(&mut self, scores: &mut [f32], values: &[f32], scales: &Scales) {
        let max = scores.iter().copied().fold(self.max, f32::max);
        if max > self.max {
            let shrink = (self.max - max).exp();
            self.sum *= shrink;
            self.latent.iter_mut().for_each(|x| *x *= shrink);
            self.max = max;
        }
        self.sum += simd::exp_shifted(scores, max);
        let offset = simd::dot(scores, &scales.offset[..scores.len()]);
        scores.iter_mut().zip(&scales.scale).for_each(|(weight, scale)| *weight *= scale);
        simd::combine_rows(scores, &values[..scores.len() * self.latent.len()], &mut self.latent);
        self.latent.iter_mut().for_each(|x| *x += offset);
    }
}

fn decode_rows(head: &Head<'_>, part: &HeadPart<'_>, rows: Vec<Row>) -> Partial {
    let mut out = vec![0.0; rows.len() * head.head_dim];
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(head.head_dim)).filter(|(row, _)| row.sum != 0.0) {
        match &part.values.decoder {
            None => out.copy_from_slice(&row.latent),
            Some(decoder) => simd::dot_rows(&row.latent, &decoder.matrix, out),
        }
        out.iter_mut().for_each(|x| *x /= row.sum);
        if let Some(mean) = part.values.decoder.as_ref().and_then(|decoder| decoder.mean.as_ref()) {
            simd::axpy(1.0, mean, out);
        }
    }
    Partial { max: rows.iter().map(|row| row.max).collect(), sum: rows.iter().map(|row| row.sum).collect(), out }
}
