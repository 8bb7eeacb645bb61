//! Many queries: keys are decoded once a head, then matrix products over blocks of queries.

use faer::{Accum, MatMut, MatRef};
use rayon::prelude::*;

use super::{Head, HeadPart, HeadSide, product, view};
use crate::device::simd;

/// Queries of a block. Fixed, so that bits do not depend on threads or on the batch.
const BLOCK: usize = 64;

pub(super) fn attend(head: &Head<'_>) -> Vec<f32> {
    let keys = decode_keys(head);
    let values: Vec<Values> = head.parts.iter().map(|part| Values::new(&part.values, part.tokens)).collect();
    let mut out = vec![0.0; head.q.len()];
    let block_len = BLOCK * head.group * head.head_dim;
    out.par_chunks_mut(block_len).zip(head.q.par_chunks(block_len)).enumerate().for_each(|(i, (out, q))| {
        attend_block(head, head.position + i * BLOCK, q, &keys, &values, out);
    });
    out
}

/// The stored values of a part.
struct Values {
    /// [tokens, width], scales applied, decoder not.
    rows: Vec<f32>,
    /// Whether a product with weights of zero leaves nothing of a row.
    finite: bool,
}

impl Values {
    fn new(side: &HeadSide<'_>, tokens: usize) -> Self {
        let rows = stored_values(side, tokens);
        let finite = rows.iter().all(|x| x.is_finite());
        Self { rows, finite }
    }
}

/// All keys of the head, [tokens, head_dim], rotated.
fn decode_keys(head: &Head<'_>) -> Vec<f32> {
    let tokens: usize = head.parts.iter().map(|part| part.tokens).sum();
    let mut keys = vec![0.0; tokens * head.head_dim];
    for part in &head.parts {
        let range = part.start * head.head_dim..(part.start + part.tokens) * head.head_dim;
        decode_side(&part.keys, part.tokens, &mut keys[range]);
    }
    if let Some(rope) = head.rotate {
        for (position, key) in keys.chunks_exact_mut(head.head_dim).enumerate() {
            rope.rotate(key, position);
        }
    }
    keys
}

fn decode_side(side: &HeadSide<'_>, tokens: usize, out: &mut [f32]) {
    let Some(decoder) = &side.decoder else {
        side.rows.values(0, out);
        return;
    };
    decoder.decode(&stored_values(side, tokens), side.width, out);
}

/// The stored rows of one side as f32, scales applied, decoder not.
fn stored_values(side: &HeadSide<'_>, tokens: usize) -> Vec<f32> {
    let mut rows = vec![0.0; tokens * side.width];
    side.rows.values(0, &mut rows);
    rows
}

/// Attention of the queries of one block, the first of which stands at `position`.
fn attend_block(head: &Head<'_>, position: usize, q: &[f32], keys: &[f32], values: &[Values], out: &mut [f32]) {
    let rows = q.len() / head.head_dim;
    let visible = position + rows / head.group;
    let mut scores = vec![0.0; rows * visible];
    let scores_mut = MatMut::from_row_major_slice_mut(&mut scores, rows, visible);
    let keys = view(&keys[..visible * head.head_dim], visible, head.head_dim);
    product(scores_mut, Accum::Replace, view(q, rows, head.head_dim), keys.transpose());
    for (i, row) in scores.chunks_exact_mut(visible).enumerate() {
        softmax(row, position + i / head.group + 1);
    }
    let scores = view(&scores, rows, visible);
    for (part, values) in head.parts.iter().zip(values).filter(|(part, _)| part.start < visible) {
        let tokens = part.tokens.min(visible - part.start);
        let weights = scores.subcols(part.start, tokens);
        let mut latent = vec![0.0; rows * part.values.width];
        if values.finite {
            let values = view(&values.rows[..tokens * part.values.width], tokens, part.values.width);
            product(MatMut::from_row_major_slice_mut(&mut latent, rows, part.values.width), Accum::Replace, weights, values);
        } else {
            let seen = |row: usize| (position + row / head.group + 1).saturating_sub(part.start).min(tokens);
            add_seen_rows(weights, &values.rows, part.values.width, seen, &mut latent);
        }
        add_values(head, part, weights, &latent, out);
    }
}

/// Turns the first `seen` scores of a row into probabilities and the rest into zeros.
fn softmax(row: &mut [f32], seen: usize) {
    let (seen, hidden) = row.split_at_mut(seen);
    let max = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum = simd::exp_shifted(seen, max);
    seen.iter_mut().for_each(|x| *x /= sum);
    hidden.fill(0.0);
}

/// As a matrix product, but without touching what a row does not see: zero times NaN is NaN.
fn add_seen_rows(weights: MatRef<'_, f32>, values: &[f32], width: usize, seen: impl Fn(usize) -> usize, latent: &mut [f32]) {
    for (i, latent) in latent.chunks_exact_mut(width).enumerate() {
        let weights: Vec<f32> = weights.row(i).iter().take(seen(i)).copied().collect();
        simd::combine_rows(&weights, &values[..weights.len() * width], latent);
    }
}

/// Adds the decoded share of one part, `latent` [rows, width], to `out` [rows, head_dim].
fn add_values(head: &Head<'_>, part: &HeadPart<'_>, weights: MatRef<'_, f32>, latent: &[f32], out: &mut [f32]) {
    let Some(decoder) = &part.values.decoder else {
        out.iter_mut().zip(latent).for_each(|(out, x)| *out += x);
        return;
    };
    let (rows, width) = (weights.nrows(), part.values.width);
    let decoder_t = view(&decoder.matrix, head.head_dim, width).transpose();
    product(MatMut::from_row_major_slice_mut(out, rows, head.head_dim), Accum::Add, view(latent, rows, width), decoder_t);
    if let Some(mean) = &decoder.mean {
        for (i, row) in out.chunks_exact_mut(head.head_dim).enumerate() {
            simd::axpy(weights.row(i).iter().sum(), mean, row);
        }
    }
}
