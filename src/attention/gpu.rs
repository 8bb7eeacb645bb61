//! Decode on a device: one query a sequence is taken into each segment's key basis, splits of the segments run side by
//! side, and are combined.

use std::f32::consts::LOG2_E;

use bytemuck::Zeroable;

use super::{
    OP, Params, Part, Sequence, Side,
    params::{AbsorbParams, CombineParams, DecodeParams, Segment, Split},
};
use crate::{
    Dtype, Error, Result, Scratch, Tensor,
    device::{Address, Grid, Kernel},
};

mod kernels {
    use super::{AbsorbParams, CombineParams, DecodeParams, Kernel};
    include!(concat!(env!("OUT_DIR"), "/attention.rs"));
}

const THREADS: u32 = 128;
/// Query heads that a decode block takes.
const HEADS: usize = 8;
/// Ranks that decode kernels are made for; a rank in between is padded in shared memory.
const BUCKETS: [usize; 4] = [16, 32, 64, 128];
const LATENTS: &[Dtype] = &[Dtype::BF16, Dtype::I8];

/// The decode kernels, by bucket and then by the order of [`LATENTS`].
const DECODE: [[Kernel<DecodeParams>; 2]; 4] = [
    [kernels::ATTENTION_DECODE_BF16_R16, kernels::ATTENTION_DECODE_INT8_R16],
    [kernels::ATTENTION_DECODE_BF16_R32, kernels::ATTENTION_DECODE_INT8_R32],
    [kernels::ATTENTION_DECODE_BF16_R64, kernels::ATTENTION_DECODE_INT8_R64],
    [kernels::ATTENTION_DECODE_BF16_R128, kernels::ATTENTION_DECODE_INT8_R128],
];

/// Tokens of a split. A function of the sequence's length alone, so that its bits do not depend on the batch.
fn split_tokens(tokens: usize) -> usize {
    tokens.div_ceil(32).next_multiple_of(64).max(256)
}

pub(super) fn scratch_bytes(q: &Tensor, sequences: &[Sequence<'_>], params: &Params<'_>) -> Result<usize> {
    Ok(Plan::new(q, sequences, params)?.layout().bytes)
}

pub(super) fn attend(
    out: &mut Tensor,
    q: &Tensor,
    sequences: &[Sequence<'_>],
    params: &Params<'_>,
    scratch: &mut Scratch,
) -> Result<()> {
    let plan = Plan::new(q, sequences, params)?;
    if plan.segments.is_empty() {
        return Ok(());
    }
    let layout = plan.layout();
    let device = q.device();
    let buffer = scratch.buffer(&device, layout.bytes)?;
    // The host writes the work lists, so a call cannot be captured in a graph: a kernel shall plan them instead.
    buffer.write_on(&device, 0, &plan.tables(&layout))?;
    let call = Call { q, params, plan: &plan, layout: &layout, memory: buffer.address() };
    call.absorb()?;
    call.decode()?;
    call.combine(out.address())
}

/// Everything that is launched for a call.
struct Plan {
    n_heads: usize,
    n_kv_heads: usize,
    segments: Vec<Segment>,
    /// [sequences + 1], into `segments`.
    first_segment: Vec<i32>,
    /// By kernel, as [`DECODE`].
    splits: [[Vec<Split>; 2]; 4],
    split_count: usize,
    /// Elements between rows of absorbed queries and of partial results: the largest bucket in use.
    width: usize,
}

/// Where things lie in the scratch memory, in bytes from its start.
struct Layout {
    splits: usize,
    first_segment: usize,
    /// The tables end and results begin.
    absorbed: usize,
    bias: usize,
    peaks: usize,
    sums: usize,
    latents: usize,
    bytes: usize,
}

impl Plan {
    fn new(q: &Tensor, sequences: &[Sequence<'_>], params: &Params<'_>) -> Result<Self> {
        if params.rope.is_some() && !params.keys_rotated {
            return Err(q.device().unsupported("attention over keys stored before RoPE"));
        }
        if q.strides()[2] != 1 && q.shape()[2] > 1 {
            return Err(Error::shape(OP, format!("q with strides {:?}", q.strides()), "a last axis with stride 1"));
        }
        let n_heads = q.shape()[1];
        let mut plan = Self {
            n_heads,
            n_kv_heads: n_heads,
            segments: Vec::new(),
            first_segment: vec![0],
            splits: Default::default(),
            split_count: 0,
            width: BUCKETS[0],
        };
        for sequence in sequences.iter().filter(|sequence| sequence.queries > 0) {
            if sequence.queries > 1 {
                return Err(q.device().unsupported("attention with several queries a sequence (prefill)"));
            }
            let tokens = sequence.tokens();
            for part in sequence.parts.iter().filter(|part| part.keys.rows.tokens() > 0) {
                plan.add(part, tokens, q)?;
            }
            plan.first_segment.push(plan.segments.len() as i32);
        }
        Ok(plan)
    }

    /// Adds a part of the sequence that comes next, of `tokens` in all.
    fn add(&mut self, part: &Part<'_>, tokens: usize, q: &Tensor) -> Result<()> {
        let latents = part.keys.rows.format().dtype();
        let values = part.values.rows.format().dtype();
        for found in [latents, values] {
            if !LATENTS.contains(&found) {
                return Err(Error::Dtype { op: OP, found, expected: LATENTS });
            }
        }
        if latents != values {
            return Err(q.device().unsupported(&format!("attention over {latents} keys with {values} values")));
        }
        let rank = part.keys.rows.width().max(part.values.rows.width());
        let Some(bucket) = BUCKETS.iter().position(|bucket| rank <= *bucket) else {
            return Err(Error::shape(OP, format!("rows of {rank} elements"), format!("at most 128 on {}", q.device())));
        };
        self.n_kv_heads = part.keys.rows.heads();
        self.width = self.width.max(BUCKETS[bucket]);
        let index = self.segments.len() as i32;
        let first_split = self.split_count;
        let part_tokens = part.keys.rows.tokens();
        let step = split_tokens(tokens);
        for first in (0..part_tokens).step_by(step) {
            let tokens = step.min(part_tokens - first) as i32;
            let split = Split { segment: index, first: first as i32, tokens, index: self.split_count as i32 };
            self.splits[bucket][usize::from(latents == Dtype::I8)].push(split);
            self.split_count += 1;
        }
        self.segments.push(Segment {
            sequence: self.first_segment.len() as i32 - 1,
            position: tokens as i32 - 1,
            first_split: first_split as i32,
            splits: (self.split_count - first_split) as i32,
            ..segment(part)?
        });
        Ok(())
    }

    fn layout(&self) -> Layout {
        let mut bytes = 0;
        let mut region = |of: usize| {
            let start = bytes;
            bytes += of.next_multiple_of(64);
            start
        };
        let row = self.n_heads * size_of::<f32>();
        let (segments, splits) = (self.segments.len(), self.split_count);
        region(segments * size_of::<Segment>());
        Layout {
            splits: region(splits * size_of::<Split>()),
            first_segment: region(self.first_segment.len() * size_of::<i32>()),
            absorbed: region(segments * row * self.width),
            bias: region(segments * row),
            peaks: region(splits * row),
            sums: region(splits * row),
            latents: region(splits * row * self.width),
            bytes,
        }
    }

    /// Segments, splits and first segments, as they lie in the scratch memory.
    fn tables(&self, layout: &Layout) -> Vec<u8> {
        let mut bytes = vec![0; layout.absorbed];
        let mut put = |at: usize, table: &[u8]| bytes[at..at + table.len()].copy_from_slice(table);
        put(0, bytemuck::cast_slice(&self.segments));
        let mut at = layout.splits;
        for splits in self.splits.iter().flatten() {
            put(at, bytemuck::cast_slice(splits));
            at += size_of_val(splits.as_slice());
        }
        put(layout.first_segment, bytemuck::cast_slice(&self.first_segment));
        bytes
    }
}

/// The tensors of a part.
fn segment(part: &Part<'_>) -> Result<Segment> {
    let (keys, values) = (part.keys.rows, part.values.rows);
    let (key_matrix, key_dtype, key_mean) = decoder(part.keys)?;
    let (value_matrix, value_dtype, value_mean) = decoder(part.values)?;
    for rows in [keys, values] {
        if rows.capacity().checked_mul(rows.width()).is_none_or(|elements| elements > i32::MAX as usize) {
            let found = format!("room for {} rows of {} elements a head", rows.capacity(), rows.width());
            return Err(Error::shape(OP, found, "fewer than 2^31 elements a head"));
        }
    }
    Ok(Segment {
        keys: keys.codes().address(),
        values: values.codes().address(),
        key_scales: keys.scales().map_or(Address::NULL, Tensor::address),
        value_scales: values.scales().map_or(Address::NULL, Tensor::address),
        key_matrix,
        value_matrix,
        key_mean,
        value_mean,
        key_capacity: keys.capacity() as i64,
        value_capacity: values.capacity() as i64,
        key_rank: keys.width() as i32,
        value_rank: values.width() as i32,
        key_dtype,
        value_dtype,
        ..Segment::zeroed()
    })
}

/// The matrix of a side's decoder, the number of its dtype, and its mean.
fn decoder(side: Side<'_>) -> Result<(Address, i32, Address)> {
    const DTYPES: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];
    let Some(decoder) = side.decoder else { return Ok((Address::NULL, 0, Address::NULL)) };
    let found = decoder.matrix.dtype();
    let dtype = DTYPES.iter().position(|dtype| *dtype == found);
    let dtype = dtype.ok_or(Error::Dtype { op: OP, found, expected: DTYPES })?;
    for tensor in [Some(&decoder.matrix), decoder.mean.as_ref()].into_iter().flatten() {
        if !tensor.is_contiguous() {
            let found = format!("a decoder {:?} with strides {:?}", tensor.shape(), tensor.strides());
            return Err(Error::shape(OP, found, "contiguous decoders"));
        }
    }
    if let Some(mean) = decoder.mean.as_ref().filter(|mean| mean.dtype() != Dtype::F32) {
        return Err(Error::Dtype { op: OP, found: mean.dtype(), expected: &[Dtype::F32] });
    }
    Ok((decoder.matrix.address(), dtype as i32, decoder.mean.as_ref().map_or(Address::NULL, Tensor::address)))
}

/// The launches of a call.
struct Call<'a> {
    q: &'a Tensor,
    params: &'a Params<'a>,
    plan: &'a Plan,
    layout: &'a Layout,
    /// Where the scratch memory begins, and with it the segments.
    memory: Address,
}

impl Call<'_> {
    fn head_dim(&self) -> usize {
        self.q.shape()[2]
    }

    fn at(&self, region: usize) -> Address {
        self.memory.offset(region)
    }

    fn absorb(&self) -> Result<()> {
        let tables = self.params.rope.map(|rope| rope.tables());
        let params = AbsorbParams {
            q: self.q.address(),
            cos: tables.map_or(Address::NULL, |(cos, _)| cos.address()),
            sin: tables.map_or(Address::NULL, |(_, sin)| sin.address()),
            segments: self.memory,
            absorbed: self.at(self.layout.absorbed),
            bias: self.at(self.layout.bias),
            q_sequence_stride: self.q.strides()[0] as i64,
            q_head_stride: self.q.strides()[1] as i64,
            scale: self.params.scale * LOG2_E,
            n_heads: self.plan.n_heads as i32,
            n_kv_heads: self.plan.n_kv_heads as i32,
            head_dim: self.head_dim() as i32,
            width: self.plan.width as i32,
            unused: 0,
        };
        let blocks = [self.plan.segments.len() as u32, self.plan.n_heads as u32, 1];
        let grid = Grid { blocks, threads: THREADS, shared: self.head_dim() * size_of::<f32>() };
        self.q.device().launch(&kernels::ATTENTION_ABSORB, grid, &params)
    }

    fn decode(&self) -> Result<()> {
        let chunks = (self.plan.n_heads / self.plan.n_kv_heads).div_ceil(HEADS);
        let mut splits_at = self.layout.splits;
        let by_bucket = self.plan.splits.iter().zip(&DECODE).zip(BUCKETS);
        for ((lists, kernels), bucket) in by_bucket {
            for (splits, kernel) in lists.iter().zip(kernels) {
                let params = DecodeParams {
                    segments: self.memory,
                    splits: self.at(splits_at),
                    absorbed: self.at(self.layout.absorbed),
                    bias: self.at(self.layout.bias),
                    peaks: self.at(self.layout.peaks),
                    sums: self.at(self.layout.sums),
                    latents: self.at(self.layout.latents),
                    n_heads: self.plan.n_heads as i32,
                    n_kv_heads: self.plan.n_kv_heads as i32,
                    width: self.plan.width as i32,
                    unused: 0,
                };
                let blocks = [splits.len() as u32, (self.plan.n_kv_heads * chunks) as u32, 1];
                // For each of four warps two tiles of 16 keys and 16 values, or one and its codes twice.
                let grid = Grid { blocks, threads: THREADS, shared: 512 * bucket };
                self.q.device().launch(kernel, grid, &params)?;
                splits_at += size_of_val(splits.as_slice());
            }
        }
        Ok(())
    }

    fn combine(&self, out: Address) -> Result<()> {
        let params = CombineParams {
            segments: self.memory,
            first_segment: self.at(self.layout.first_segment),
            peaks: self.at(self.layout.peaks),
            sums: self.at(self.layout.sums),
            latents: self.at(self.layout.latents),
            out,
            n_heads: self.plan.n_heads as i32,
            n_kv_heads: self.plan.n_kv_heads as i32,
            head_dim: self.head_dim() as i32,
            width: self.plan.width as i32,
        };
        let blocks = [self.plan.first_segment.len() as u32 - 1, self.plan.n_heads as u32, 1];
        let grid = Grid { blocks, threads: THREADS, shared: (self.plan.width + self.head_dim()) * size_of::<f32>() };
        self.q.device().launch(&kernels::ATTENTION_COMBINE, grid, &params)
    }
}
