//! The SVD on a device. Each kernel takes a step for a whole wave of matrices and leaves those alone that need it not, so
//! the ladder is climbed there, and the host never waits.

use bytemuck::Zeroable;

use super::{
    Mode, OP, Options, Output, Rank, Sizes, Svd,
    params::{SVD_BF16, SVD_CHUNK_ROWS, SVD_F16, SVD_F32, SVD_F64, SVD_SINGLE, SvdOperand, SvdParams},
    verdict::ROW_BYTES,
    watch::Steps,
};
use crate::{Device, Dtype, Error, Result, Scratch, Tensor, device::Address};

mod broad;
mod multiply;
mod narrow;
mod ragged;
mod sketch;
mod weighted;

pub(super) use sketch::serves as sketches;
pub(super) use weighted::weighted;

mod kernels {
    use super::super::params::*;
    use crate::device::Kernel;
    include!(concat!(env!("OUT_DIR"), "/svd.rs"));
}

/// The largest min(m, n).
pub(super) const MAX_COLUMNS: usize = broad::MAX_WIDTH;

const THREADS: u32 = 256;
/// Columns that one block takes all of.
const WIDTH: usize = narrow::MAX_WIDTH;
/// Matrices at once from which on one block sums up a whole matrix, so that there is less to write and read.
const ENOUGH: usize = 128;
/// Chunks of the longest matrix: rows are counted in 32 bits with room to spare.
const MAX_CHUNKS: usize = 65_535;
/// Shared memory that every architecture has for a block.
const SHARED: usize = 99 * 1024;
/// The extents of a call in the tall orientation.
#[derive(Clone, Copy)]
struct Extents {
    batch: usize,
    rows: usize,
    width: usize,
    columns: usize,
    chunks: usize,
    /// Partial sums of moments.
    sums: usize,
    wide: bool,
}

impl Extents {
    fn new(batch: usize, m: usize, n: usize, columns: usize) -> Self {
        let rows = m.max(n);
        let chunks = rows.div_ceil(SVD_CHUNK_ROWS as usize);
        let sums = if batch >= ENOUGH { 1 } else { chunks };
        Self { batch, rows, width: m.min(n), columns, chunks, sums, wide: m < n }
    }

    /// Bytes of working memory.
    fn bytes(&self, options: &Options) -> usize {
        if self.is_sketched(options) {
            return sketch::bytes(self, options);
        }
        if self.width > WIDTH { broad::bytes(self, options) } else { narrow::bytes(self, options) }
    }

    /// Whether these are sketched.
    fn is_sketched(&self, options: &Options) -> bool {
        sketch::serves(self.width, self.columns, options.mode)
    }

    fn check(&self, device: &Device) -> Result<()> {
        let most = MAX_CHUNKS * SVD_CHUNK_ROWS as usize;
        if self.rows <= most && self.batch <= i32::MAX as usize {
            return Ok(());
        }
        let found = format!("{} matrices of {} x {}", self.batch, self.rows, self.width);
        let expected = format!("max(m, n) <= {most} and at most {} matrices on {device}", i32::MAX);
        Err(Error::shape(OP, found, expected))
    }
}

pub(super) fn scratch_bytes(sizes: &Sizes, options: &Options) -> usize {
    if sizes.segments() > 1 {
        return ragged::bytes(sizes, options);
    }
    Extents::new(sizes.batch, sizes.m, sizes.n, sizes.columns).bytes(options)
}

/// Elements of a lower triangle.
fn triangle(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

/// Shared memory of svd_rotate.
fn rotate_shared(width: usize) -> usize {
    width.div_ceil(2) * 24 + width * (8 + 4)
}

/// Matrices in memory: where those of a tensor lie, or some without gaps.
struct Matrices {
    device: Device,
    at: Address,
    /// SVD_F32..
    dtype: u32,
    row_stride: usize,
    walk: Walk,
}

impl Matrices {
    fn of(a: &Tensor) -> Self {
        let row_stride = a.strides()[a.shape().len() - 2];
        Self { device: a.device(), at: a.address(), dtype: code(a.dtype()), row_stride, walk: Walk::new(a) }
    }

    fn dense(device: &Device, at: Address, dtype: u32, [batch, rows, columns]: [usize; 3]) -> Self {
        let walk = Walk { inner: (batch, rows * columns), outer: (1, 0), starts: vec![0] };
        Self { device: device.clone(), at, dtype, row_stride: columns, walk }
    }

    /// What a kernel is told of a wave: the tall orientation.
    fn operand(&self, [start, first, ..]: [usize; 4], wide: bool) -> SvdOperand {
        let size = match self.dtype {
            SVD_F64 => 8,
            SVD_F32 => 4,
            _ => 2,
        };
        let rows = SvdOperand {
            at: self.at.offset(start * size),
            row_stride: self.row_stride as i64,
            column_stride: 1,
            inner_stride: self.walk.inner.1 as i64,
            outer_stride: self.walk.outer.1 as i64,
            inner: self.walk.inner.0 as i64,
            first: first as i32,
            dtype: self.dtype,
        };
        if wide { rows.transposed() } else { rows }
    }
}

/// How the leading axes are walked: two of them by strides in a kernel, the rest from one starting point after another.
struct Walk {
    inner: (usize, usize),
    outer: (usize, usize),
    starts: Vec<usize>,
}

impl Walk {
    fn new(a: &Tensor) -> Self {
        let leading = a.shape().len() - 2;
        let mut axes: Vec<(usize, usize)> = Vec::new();
        for (&extent, &stride) in a.shape()[..leading].iter().zip(a.strides()).filter(|(extent, _)| **extent > 1) {
            match axes.last_mut() {
                Some(last) if last.1 == stride * extent => *last = (last.0 * extent, stride),
                _ => axes.push((extent, stride)),
            }
        }
        let inner = axes.pop().unwrap_or((1, 0));
        let outer = axes.pop().unwrap_or((1, 0));
        let starts = axes.into_iter().fold(vec![0], |starts, (extent, stride)| {
            starts.into_iter().flat_map(|start| (0..extent).map(move |i| start + i * stride)).collect()
        });
        Self { inner, outer, starts }
    }

    /// Matrices by so many at a time: where a starting point lies, the place of the first matrix from there on and in all,
    /// and how many there are.
    fn waves(&self, wave: usize) -> Vec<[usize; 4]> {
        let each = self.inner.0 * self.outer.0;
        let of = |(i, start): (usize, &usize)| {
            let start = *start;
            (0..each).step_by(wave).map(move |first| [start, first, i * each + first, wave.min(each - first)])
        };
        self.starts.iter().enumerate().flat_map(of).collect()
    }
}

pub(super) fn truncated(
    a: &Tensor,
    sizes: &Sizes,
    rank: Rank,
    options: &Options,
    out: &mut Svd,
    scratch: &mut Scratch,
) -> Result<()> {
    let parts = Parts::new(out)?;
    let steps = Steps(options.watch.as_ref());
    let request = Request { rank, options, steps };
    steps.begin(0)?;
    if sizes.segments() > 1 {
        return ragged::truncated(a, sizes, &request, &parts, scratch);
    }
    let extents = Extents::new(sizes.batch, sizes.m, sizes.n, sizes.columns);
    extents.check(&a.device())?;
    let base = scratch.address(&a.device(), extents.bytes(options))?;
    factorize(a, extents, &request, &parts, base)
}

/// What is asked for.
struct Request<'a> {
    rank: Rank,
    options: &'a Options,
    steps: Steps<'a>,
}

/// Factorizes a batch into parts without gaps, with working memory at `base`.
fn factorize(a: &Tensor, extents: Extents, request: &Request<'_>, parts: &Parts, base: Address) -> Result<()> {
    let Request { rank, options, steps } = *request;
    let matrices = Matrices::of(a);
    let job = Job { matrices: &matrices, extents, rank, options, outputs: parts.outputs(extents.wide), base };
    let waves = |wave: usize| {
        let waves = matrices.walk.waves(wave);
        steps.more(waves.len());
        waves.into_iter()
    };
    if extents.is_sketched(options) {
        let call = sketch::Call::new(job);
        return waves(call.wave()).try_for_each(|wave| call.run(wave).and_then(|()| steps.done()));
    }
    if extents.width > WIDTH {
        let call = broad::Call::new(job);
        return waves(call.wave()).try_for_each(|wave| call.run(wave).and_then(|()| steps.done()));
    }
    let call = narrow::Call::new(a, job);
    waves(narrow::WAVE).try_for_each(|wave| call.run(wave).and_then(|()| steps.done()))
}

/// Where results go.
struct Parts {
    u: Address,
    /// Nowhere when s is not wanted.
    s: Address,
    v: Address,
    verdicts: Address,
}

impl Parts {
    fn new(out: &mut Svd) -> Result<Self> {
        let s = if out.s.is_empty() { Address::NULL } else { out.s.address_mut(OP)? };
        let (u, v) = (out.u.address_mut(OP)?, out.v.address_mut(OP)?);
        if [u, v].iter().any(|factor| !factor.get().is_multiple_of(16)) {
            let found = "out.u or out.v at an address that is not a multiple of 16";
            return Err(Error::shape(OP, found, "factors that kernels can write in words of 16 bytes"));
        }
        Ok(Self { u, s, v, verdicts: out.table.address_mut(OP)? })
    }

    fn outputs(&self, wide: bool) -> Outputs {
        let (tall, small) = if wide { (self.v, self.u) } else { (self.u, self.v) };
        Outputs { tall, s: self.s, small, verdicts: self.verdicts }
    }
}

/// The same in the tall orientation.
struct Outputs {
    tall: Address,
    s: Address,
    small: Address,
    verdicts: Address,
}

/// A batch to be factorized, and where to.
struct Job<'a> {
    matrices: &'a Matrices,
    extents: Extents,
    rank: Rank,
    options: &'a Options,
    outputs: Outputs,
    /// Where working memory begins.
    base: Address,
}

impl Job<'_> {
    /// What every kernel is told of a wave, without the working memory.
    fn params(&self, wave: [usize; 4]) -> SvdParams {
        let Self { matrices, extents, rank, options, outputs, .. } = self;
        let Extents { rows, width, columns, wide, .. } = *extents;
        let Options { mode, output, factors, .. } = **options;
        let [_, first, index, count] = wave;
        let a = matrices.operand(wave, wide);
        let factor = |address: Address, rows: usize| address.offset(factors.bytes_of(index * rows * columns));
        let (u_is_scaled, v_is_scaled) = (output == Output::LatentDecoder, output == Output::Qb);
        let s = if outputs.s == Address::NULL { 0 } else { index * columns * size_of::<f32>() };
        SvdParams {
            a: a.at,
            tall: factor(outputs.tall, rows),
            out_tall: factor(outputs.tall, rows),
            s: outputs.s.offset(s),
            small: factor(outputs.small, width),
            verdicts: outputs.verdicts.offset(index * ROW_BYTES),
            row_stride: a.row_stride,
            column_stride: a.column_stride,
            inner_stride: a.inner_stride,
            outer_stride: a.outer_stride,
            relative: match *rank {
                Rank::Fixed(_) => -1.0,
                Rank::Tolerance { relative, .. } => relative,
            },
            inner: a.inner as i32,
            first: first as i32,
            rows: rows as i32,
            width: width as i32,
            columns: columns as i32,
            factors: code(factors),
            tall_dtype: code(factors),
            rung: SVD_SINGLE,
            count: count as i32,
            fresh: 1,
            fast: i32::from(mode == Mode::Fast),
            wide: i32::from(wide),
            tall_is_scaled: i32::from(if wide { v_is_scaled } else { u_is_scaled }),
            small_is_scaled: i32::from(if wide { u_is_scaled } else { v_is_scaled }),
            values_only: i32::from(output == Output::ValuesOnly),
            ..Zeroable::zeroed()
        }
    }
}

/// What kernels know a dtype of factors by.
fn code(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F16 => SVD_F16,
        Dtype::BF16 => SVD_BF16,
        _ => SVD_F32,
    }
}
