//! Segments of different lengths, one after another: each is a batch of its own, whose results are put among the others'.

use super::{Extents, Parts, Request, THREADS, code, factorize, kernels};
use crate::{
    Device, Dtype, Result, Scratch, Tensor,
    device::{Address, Grid},
    svd::{Options, Output, Sizes, params::SpreadParams, verdict::ROW_BYTES},
};

/// Blocks that copy the rows of a matrix, at most, and rows that one takes at a time.
const COPYING: usize = 64;
const ROWS: usize = 8;

/// Where the results of one segment lie until they are put among the others', in bytes from the start of the arena, and
/// where other working memory begins.
struct Staging {
    u: usize,
    s: usize,
    v: usize,
    verdicts: usize,
    bytes: usize,
}

impl Staging {
    fn new(batch: usize, rows: usize, n: usize, columns: usize, options: &Options) -> Self {
        let mut bytes = 0;
        let mut next = |elements: usize, dtype: Dtype| {
            let start = bytes;
            bytes += dtype.bytes_of(elements).next_multiple_of(16);
            start
        };
        let factors = usize::from(options.output != Output::ValuesOnly);
        Self {
            u: next(factors * batch * rows * columns, options.factors),
            s: next(batch * columns, Dtype::F32),
            v: next(factors * batch * n * columns, options.factors),
            verdicts: next(batch * ROW_BYTES, Dtype::I8),
            bytes,
        }
    }
}

/// The extents of a segment of `rows`.
fn extents_of(sizes: &Sizes, rows: usize) -> Extents {
    let columns = sizes.columns.min(rows.min(sizes.n));
    Extents::new(sizes.batch / sizes.segments(), rows, sizes.n, columns)
}

pub(super) fn bytes(sizes: &Sizes, options: &Options) -> usize {
    let of = |rows: usize| {
        let extents = extents_of(sizes, rows);
        Staging::new(extents.batch, rows, sizes.n, extents.columns, options).bytes + extents.bytes(options)
    };
    sizes.lengths().map(of).max().unwrap_or(0)
}

pub(super) fn truncated(a: &Tensor, sizes: &Sizes, request: &Request<'_>, parts: &Parts, scratch: &mut Scratch) -> Result<()> {
    let device = a.device();
    let base = scratch.address(&device, bytes(sizes, request.options))?;
    let axis = a.shape().len() - 2;
    for segment in 0..sizes.segments() {
        let rows = sizes.rows(segment);
        let extents = extents_of(sizes, rows.len());
        extents.check(&device)?;
        let staging = Staging::new(extents.batch, rows.len(), sizes.n, extents.columns, request.options);
        let staged = Parts {
            u: base.offset(staging.u),
            s: if parts.s == Address::NULL { Address::NULL } else { base.offset(staging.s) },
            v: base.offset(staging.v),
            verdicts: base.offset(staging.verdicts),
        };
        let view = a.narrow(axis, rows.start, rows.len())?;
        let request = Request { rank: request.rank.at_most(extents.columns), ..*request };
        factorize(&view, extents, &request, &staged, base.offset(staging.bytes))?;
        put(&device, sizes, segment, extents.columns, request.options, &staged, parts)?;
    }
    Ok(())
}

/// Puts the results of one segment among the others'.
fn put(
    device: &Device,
    sizes: &Sizes,
    segment: usize,
    narrow: usize,
    options: &Options,
    from: &Parts,
    to: &Parts,
) -> Result<()> {
    let (r, n, segments, rows) = (sizes.columns, sizes.n, sizes.segments(), sizes.rows(segment));
    let factors = options.factors;
    let copy = |from_at: Address, to_at: Address, first: usize, [stride, rows, narrow, columns]: [usize; 4], dtype: Dtype| {
        let params = SpreadParams {
            from: from_at,
            to: to_at.offset(dtype.bytes_of(first)),
            verdicts: from.verdicts,
            to_stride: stride as i64,
            rows: rows as i32,
            from_columns: narrow as i32,
            columns: columns as i32,
            dtype: code(dtype),
        };
        let blocks = [rows.div_ceil(ROWS).min(COPYING) as u32, (sizes.batch / segments) as u32, 1];
        device.launch(&kernels::SVD_SPREAD, Grid { blocks, threads: THREADS, shared: 0 }, &params)
    };
    if options.output != Output::ValuesOnly {
        copy(from.u, to.u, rows.start * r, [sizes.m * r, rows.len(), narrow, r], factors)?;
        copy(from.v, to.v, segment * n * r, [segments * n * r, n, narrow, r], factors)?;
    }
    if to.s != Address::NULL {
        copy(from.s, to.s, segment * r, [segments * r, 1, narrow, r], Dtype::F32)?;
    }
    let words = ROW_BYTES / size_of::<f32>();
    copy(from.verdicts, to.verdicts, segment * words, [segments * words, 1, words, words], Dtype::F32)
}
