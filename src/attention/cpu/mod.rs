//! Attention on the CPU: a streaming path for a few queries, matrix products for many.

mod decode;
mod prefill;

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

use super::{Params, Part, Sequence, Side};
use crate::{Result, Tensor, coded::HostRows, device::simd, rope::HostRope};

/// More queries than this are worth decoding all keys once for.
const FEW_QUERIES: usize = 8;

/// Writes all of `out` [queries, n_heads, head_dim].
pub(super) fn attend(out: &mut [f32], q: &Tensor, sequences: &[Sequence<'_>], params: &Params<'_>) -> Result<()> {
    let (n_heads, head_dim) = (q.shape()[1], q.shape()[2]);
    let q_all = q.contiguous()?;
    let q_all = q_all.slice::<f32>()?;
    let mut tasks = Vec::new();
    let mut first = 0;
    for sequence in sequences {
        let n_kv_heads = sequence.parts.first().map_or(1, |part| part.keys.rows.heads());
        tasks.extend((0..n_kv_heads).map(|head| (sequence, first, head, n_heads / n_kv_heads)));
        first += sequence.queries;
    }
    let results: Vec<Vec<f32>> = tasks
        .par_iter()
        .map(|&(sequence, first, head, group)| {
            Head::new(q_all, n_heads, head_dim, sequence, first, head, group, params)?.attend()
        })
        .collect::<Result<_>>()?;
    for (&(_, first, head, group), rows) in tasks.iter().zip(&results) {
        for (i, rows) in rows.chunks_exact((group * head_dim).max(1)).enumerate() {
            let start = ((first + i) * n_heads + head * group) * head_dim;
            out[start..start + rows.len()].copy_from_slice(rows);
        }
    }
    Ok(())
}

/// The queries of one sequence that share a key-value head, and what they attend to.
struct Head<'a> {
    /// [queries, group, head_dim], rotated to their positions and scaled.
    q: Vec<f32>,
    group: usize,
    head_dim: usize,
    /// Position of the first query.
    position: usize,
    parts: Vec<HeadPart<'a>>,
    /// Set when cached keys still have to be rotated.
    rotate: Option<HostRope<'a>>,
}

/// One key-value head of a part.
struct HeadPart<'a> {
    /// Position of the first token.
    start: usize,
    tokens: usize,
    keys: HeadSide<'a>,
    values: HeadSide<'a>,
}

struct HeadSide<'a> {
    rows: HostRows<'a>,
    width: usize,
    decoder: Option<HeadDecoder>,
}

struct HeadDecoder {
    /// [head_dim, rank] f32.
    matrix: Vec<f32>,
    mean: Option<Vec<f32>>,
}

impl<'a> Head<'a> {
    #[allow(clippy::too_many_arguments, reason = "private; called once")]
    fn new(
        q_all: &[f32],
        n_heads: usize,
        head_dim: usize,
        sequence: &'a Sequence<'a>,
        first: usize,
        head: usize,
        group: usize,
        params: &Params<'a>,
    ) -> Result<Self> {
        let rope = params.rope.map(crate::rope::Rope::host).transpose()?;
        let position = sequence.tokens() - sequence.queries;
        let mut q = Vec::with_capacity(sequence.queries * group * head_dim);
        for i in 0..sequence.queries {
            let start = ((first + i) * n_heads + head * group) * head_dim;
            for row in q_all[start..start + group * head_dim].chunks_exact(head_dim) {
                let rotated = q.len();
                q.extend(row.iter().map(|x| x * params.scale));
                if let Some(rope) = rope {
                    rope.rotate(&mut q[rotated..], position + i);
                }
            }
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(sequence.parts.len());
        for part in sequence.parts.iter().filter(|part| part.keys.rows.tokens() > 0) {
            parts.push(HeadPart::new(part, head, start)?);
            start += part.keys.rows.tokens();
        }
        let rotate = rope.filter(|_| !params.keys_rotated);
        Ok(Self { q, group, head_dim, position, parts, rotate })
    }

    fn attend(&self) -> Result<Vec<f32>> {
        if self.queries() <= FEW_QUERIES { Ok(decode::attend(self)) } else { Ok(prefill::attend(self)) }
    }

    fn queries(&self) -> usize {
        self.q.len() / (self.group * self.head_dim).max(1)
    }
}

impl<'a> HeadPart<'a> {
    fn new(part: &Part<'a>, head: usize, start: usize) -> Result<Self> {
        let keys = HeadSide::new(part.keys, head)?;
        let values = HeadSide::new(part.values, head)?;
        Ok(Self { start, tokens: part.keys.rows.tokens(), keys, values })
    }
}

impl<'a> HeadSide<'a> {
    fn new(side: Side<'a>, head: usize) -> Result<Self> {
        let decoder = match side.decoder {
            None => None,
            Some(decoder) => Some(HeadDecoder {
                matrix: decoder.matrix.select(0, head)?.to_f32_vec()?,
                mean: decoder.mean.as_ref().map(|mean| mean.select(0, head)?.to_f32_vec()).transpose()?,
            }),
        };
        Ok(Self { rows: side.rows.host(head)?, width: side.rows.width(), decoder })
    }
}

impl HeadDecoder {
    /// out [tokens, head_dim] = latents [tokens, width] D' + mean.
    fn decode(&self, latents: &[f32], width: usize, out: &mut [f32]) {
        let tokens = latents.len() / width.max(1);
        let head_dim = out.len() / tokens.max(1);
        let decoder = view(&self.matrix, head_dim, width).transpose();
        product(MatMut::from_row_major_slice_mut(out, tokens, head_dim), Accum::Replace, view(latents, tokens, width), decoder);
        if let Some(mean) = &self.mean {
            out.chunks_exact_mut(head_dim).for_each(|row| simd::axpy(1.0, mean, row));
        }
    }
}

fn view(data: &[f32], rows: usize, cols: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(data, rows, cols)
}

fn product(out: MatMut<'_, f32>, accum: Accum, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    matmul(out, accum, a, b, 1.0, Par::Seq);
}
