//! The SVD on a device. Each kernel takes a step for a whole wave of matrices and leaves those alone that need it not, so
//! the ladder is climbed there, and the host never waits.

use bytemuck::Zeroable;

use super::{
    Mode, OP, Options, Output, Rank, Rung, Sizes, Svd,
    params::{
        GramParams, SVD_BF16, SVD_CHOSEN, SVD_CHUNK_ROWS, SVD_DOUBLE, SVD_F16, SVD_F32, SVD_F64, SVD_JACOBI, SVD_OPEN,
        SVD_PROJECTED, SVD_SHARED_ALL, SVD_SINGLE, SvdOperand, SvdParams,
    },
    verdict::ROW_BYTES,
    watch::Steps,
};
use crate::{
    Device, Dtype, Error, Result, Scratch, Tensor,
    device::{Address, Grid, Kernel},
};

mod broad;
mod multiply;
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
/// Matrices that have working memory at the same time.
const WAVE: usize = 512;
/// Blocks that rotate, each of which takes one matrix after another.
const ROTATING: usize = 8;
/// Matrices at once from which on one block sums up a whole matrix, so that there is less to write and read.
const ENOUGH: usize = 128;
/// Chunks of the longest matrix: rows are counted in 32 bits with room to spare.
const MAX_CHUNKS: usize = 65_535;
/// Shared memory that every architecture has for a block.
const SHARED: usize = 99 * 1024;
/// Columns and rows of tiles in shared memory.
const WIDTH: usize = 128;
const TILE: usize = SVD_PROJECTED as usize;

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
        if self.width > WIDTH { broad::bytes(self, options) } else { Workspace::new(self, options).bytes }
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

/// Where working memory begins, in bytes from the start of the arena.
struct Workspace {
    /// f32 for factors of other dtypes on their way.
    tall: usize,
    partials: usize,
    moments: usize,
    arrivals: usize,
    work: usize,
    work_stride: usize,
    rotated: usize,
    basis: usize,
    values: usize,
    energy: usize,
    mix: usize,
    bytes: usize,
}

impl Workspace {
    fn new(extents: &Extents, options: &Options) -> Self {
        let Extents { batch, rows, width, columns, chunks, sums, .. } = *extents;
        let staged = options.factors != Dtype::F32 && options.output != Output::ValuesOnly;
        let wave = batch.min(WAVE);
        let work_stride = ((triangle(width) + columns * (width | 1)) * size_of::<f64>()).next_multiple_of(16);
        let mut bytes = 0;
        let mut next = |elements: usize, size: usize| {
            let start = bytes;
            bytes += (elements * size).next_multiple_of(16);
            start
        };
        Self {
            tall: next(if staged { wave * rows * columns } else { 0 }, size_of::<f32>()),
            moments: next(wave * chunks * triangle(columns), size_of::<f64>()),
            arrivals: next(wave, size_of::<u32>()),
            partials: next(wave * sums * triangle(width), size_of::<f64>()),
            work: next(wave, work_stride),
            work_stride,
            rotated: next(batch.min(ROTATING) * (width * width + triangle(width.next_multiple_of(2))), size_of::<f64>()),
            basis: next(wave * columns * width, size_of::<f64>()),
            values: next(wave * columns, size_of::<f64>()),
            energy: next(wave, size_of::<f64>()),
            mix: next(wave * columns * columns, size_of::<f32>()),
            bytes,
        }
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

/// Shared memory of each kernel, as its source lays it out.
fn gram_shared(columns: usize) -> usize {
    4 * WIDTH * 8 + 3 * 128 * (WIDTH + 8) + triangle(columns.next_multiple_of(16)) * 4
}

const GRAM_WIDE_SHARED: usize = TILE * WIDTH * 4;

/// Shared memory of svd_solve with numbers of `size` bytes, and what lies in it.
fn solve_shared(width: usize, columns: usize, size: usize) -> (usize, u32) {
    let head = (8 * WIDTH + columns) * size + 32 * width;
    let all = head + (triangle(width) + 64 * width + columns * (width | 1)) * size;
    if all <= SHARED { (all, SVD_SHARED_ALL) } else { (head + (64 * width).max(triangle(width)) * size, 0) }
}

fn rotate_shared(width: usize) -> usize {
    width.div_ceil(2) * 24 + width * (8 + 4)
}

fn project_shared(dtype: Dtype, columns: usize) -> usize {
    let (size, parts) = if dtype == Dtype::F32 { (4, 1) } else { (2, 2) };
    let (columns, rows) = (columns.next_multiple_of(16).min(TILE), 128 / size);
    let (row, moments) = (WIDTH * size + 16, rows * (TILE + 8) * 4 + triangle(columns) * 4);
    let projecting = TILE * 4 + rows / 16 * TILE * 8 + parts * columns * row + 2 * rows * row + moments;
    projecting.max(finish_shared(columns)).max(mix_shared(columns))
}

fn project_wide_shared(width: usize) -> usize {
    TILE * 8 + width * TILE * 8 + TILE * WIDTH * 4
}

fn finish_shared(columns: usize) -> usize {
    5 * WIDTH * 8 + 8 * 8 + WIDTH * 4 + 8 * 4 + triangle(columns) * 8
}

fn mix_shared(columns: usize) -> usize {
    let width = columns.next_multiple_of(16);
    let parts = if width <= TILE { 2 } else { 1 };
    parts * width * (width | 16) * 4
}

const SIGNS_SHARED: usize = THREADS as usize * 8;

/// The kernels that read the matrices, which have an instantiation for each dtype.
struct Readers {
    gram: [Kernel<GramParams>; 2],
    project: [Kernel<SvdParams>; 2],
}

impl Readers {
    fn new(dtype: Dtype) -> Self {
        let (gram, project) = match dtype {
            Dtype::F32 => {
                ([kernels::SVD_GRAM_F32, kernels::SVD_GRAM_WIDE_F32], [kernels::SVD_PROJECT_F32, kernels::SVD_PROJECT_WIDE_F32])
            }
            Dtype::F16 => {
                ([kernels::SVD_GRAM_F16, kernels::SVD_GRAM_WIDE_F16], [kernels::SVD_PROJECT_F16, kernels::SVD_PROJECT_WIDE_F16])
            }
            _ => (
                [kernels::SVD_GRAM_BF16, kernels::SVD_GRAM_WIDE_BF16],
                [kernels::SVD_PROJECT_BF16, kernels::SVD_PROJECT_WIDE_BF16],
            ),
        };
        Self { gram, project }
    }
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
    let outputs = parts.outputs(extents.wide);
    let matrices = Matrices::of(a);
    let waves = |wave: usize| {
        let waves = matrices.walk.waves(wave);
        steps.more(waves.len());
        waves.into_iter()
    };
    if extents.is_sketched(options) {
        let call = sketch::Call::new(&matrices, extents, rank, options, outputs, base);
        return waves(call.wave()).try_for_each(|wave| call.run(wave).and_then(|()| steps.done()));
    }
    if extents.width > WIDTH {
        let call = broad::Call::new(&matrices, extents, rank, options, outputs, base);
        return waves(call.wave()).try_for_each(|wave| call.run(wave).and_then(|()| steps.done()));
    }
    let call = Call::new(a, &matrices, extents, rank, options, outputs, base);
    waves(WAVE).try_for_each(|wave| call.run(wave).and_then(|()| steps.done()))
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

struct Call<'a> {
    a: &'a Tensor,
    matrices: &'a Matrices,
    extents: Extents,
    rank: Rank,
    options: &'a Options,
    rungs: Vec<u32>,
    dense: bool,
    readers: Readers,
    outputs: Outputs,
    workspace: Workspace,
    base: Address,
}

impl<'a> Call<'a> {
    fn new(
        a: &'a Tensor,
        matrices: &'a Matrices,
        extents: Extents,
        rank: Rank,
        options: &'a Options,
        outputs: Outputs,
        base: Address,
    ) -> Self {
        let single = options.start == Rung::Single && rank.may_start_in_single(extents.width);
        let rungs = match options.start {
            Rung::Jacobi => vec![SVD_JACOBI],
            Rung::Single if single => vec![SVD_SINGLE, SVD_DOUBLE],
            _ => vec![SVD_DOUBLE],
        };
        let dense = !extents.wide && is_dense(a);
        let workspace = Workspace::new(&extents, options);
        Self { a, matrices, extents, rank, options, rungs, dense, readers: Readers::new(a.dtype()), outputs, workspace, base }
    }

    /// Factorizes `count` matrices: from `first` on among those that `start` leads to, from `index` on in the output.
    fn run(&self, wave: [usize; 4]) -> Result<()> {
        let Extents { columns, chunks, wide, .. } = self.extents;
        let device = &self.a.device();
        let count = wave[3];
        let mut params = self.params(wave);
        let blocks = |x: usize, shared| Grid { blocks: [x as u32, count as u32, 1], threads: THREADS, shared };
        for rung in &self.rungs {
            params.rung = *rung;
            self.solve(&mut params)?;
            if params.values_only == 0 {
                self.project(&mut params)?;
            }
            params.fresh = 0;
        }
        device.launch(&kernels::SVD_ORTHOGONALIZE, blocks(1, finish_shared(columns)), &params)?;
        device.launch(&kernels::SVD_MIX, blocks(chunks, mix_shared(columns)), &params)?;
        if wide && params.values_only == 0 {
            device.launch(&kernels::SVD_SIGNS, blocks(1, SIGNS_SHARED), &params)?;
        }
        Ok(())
    }

    /// A'A and its eigenvectors, on the rung of `params`.
    fn solve(&self, params: &mut SvdParams) -> Result<()> {
        let Extents { width, columns, sums, .. } = self.extents;
        let device = &self.a.device();
        let blocks = |x: usize, y: usize, shared| Grid { blocks: [x as u32, y as u32, 1], threads: THREADS, shared };
        let count = params.count as usize;
        let thorough = usize::from(params.rung != SVD_SINGLE);
        let gram = blocks(sums, count, [gram_shared(width), GRAM_WIDE_SHARED][thorough]);
        device.launch(&self.readers.gram[thorough], gram, &gram_of(params))?;
        let (kernel, size) = [(kernels::SVD_SOLVE_F32, size_of::<f32>()), (kernels::SVD_SOLVE_F64, size_of::<f64>())][thorough];
        let (bytes, shared) = solve_shared(width, columns, size);
        let grid = blocks(count, 1, bytes);
        params.solve_shared = shared;
        device.launch(&kernel, grid, params)?;
        if thorough == 1 {
            device.launch(&kernels::SVD_ROTATE, blocks(count.min(ROTATING), 1, rotate_shared(width)), params)?;
        }
        Ok(())
    }

    /// The tall factor, judged. Where one block makes all columns in f32, that is all one kernel.
    fn project(&self, params: &mut SvdParams) -> Result<()> {
        let Extents { width, columns, chunks, .. } = self.extents;
        let device = &self.a.device();
        let thorough = usize::from(params.rung != SVD_SINGLE);
        let fused = thorough == 0 && columns <= TILE;
        params.fused = i32::from(fused);
        if fused || self.options.factors == Dtype::F32 {
            (params.tall, params.tall_dtype) = (params.out_tall, params.factors);
        } else {
            (params.tall, params.tall_dtype) = (self.base.offset(self.workspace.tall), SVD_F32);
        }
        let blocks =
            |x: usize, z: usize, shared| Grid { blocks: [x as u32, params.count as u32, z as u32], threads: THREADS, shared };
        let shared = [project_shared(self.a.dtype(), columns), project_wide_shared(width)][thorough];
        device.launch(&self.readers.project[thorough], blocks(chunks, columns.div_ceil(TILE), shared), params)?;
        if fused {
            return Ok(());
        }
        let (gram, shared) =
            [(kernels::SVD_GRAM_F32, gram_shared(columns)), (kernels::SVD_GRAM_WIDE_F32, GRAM_WIDE_SHARED)][thorough];
        device.launch(&gram, blocks(chunks, 1, shared), &moments_of(params))?;
        device.launch(&kernels::SVD_FINISH, blocks(1, 1, finish_shared(columns)), params)
    }

    fn params(&self, wave: [usize; 4]) -> SvdParams {
        let at = |offset: usize| self.base.offset(offset);
        SvdParams {
            partials: at(self.workspace.partials),
            moments: at(self.workspace.moments),
            arrivals: at(self.workspace.arrivals),
            work: at(self.workspace.work),
            rotated: at(self.workspace.rotated),
            basis: at(self.workspace.basis),
            values: at(self.workspace.values),
            energy: at(self.workspace.energy),
            mix: at(self.workspace.mix),
            work_stride: self.workspace.work_stride as i64,
            chunks: self.extents.chunks as i32,
            partial_sums: self.extents.sums as i32,
            dense: i32::from(self.dense),
            ..params(self.matrices, &self.extents, self.rank, self.options, &self.outputs, wave)
        }
    }
}

/// What every kernel is told of `count` matrices, from `first` on among those that `start` leads to and from `index` on in
/// the output, without the working memory.
fn params(
    matrices: &Matrices,
    extents: &Extents,
    rank: Rank,
    options: &Options,
    outputs: &Outputs,
    wave: [usize; 4],
) -> SvdParams {
    let Extents { rows, width, columns, wide, .. } = *extents;
    let Options { mode, output, factors, .. } = *options;
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
        relative: match rank {
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

/// What kernels know a dtype of factors by.
fn code(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F16 => SVD_F16,
        Dtype::BF16 => SVD_BF16,
        _ => SVD_F32,
    }
}

/// Whether all rows are whole segments of 16 bytes, and aligned to that.
fn is_dense(a: &Tensor) -> bool {
    let segment = 16 / a.dtype().bytes_of(1);
    let (columns, strides) = (a.shape().last().copied().unwrap_or(0), a.strides());
    let strides = &strides[..strides.len() - 1];
    a.address().get().is_multiple_of(16)
        && columns.is_multiple_of(segment)
        && strides.iter().all(|stride| stride.is_multiple_of(segment))
}

/// A'A of the matrices that are to be solved.
fn gram_of(p: &SvdParams) -> GramParams {
    GramParams {
        a: p.a,
        verdicts: p.verdicts,
        partials: p.partials,
        row_stride: p.row_stride,
        column_stride: p.column_stride,
        inner_stride: p.inner_stride,
        outer_stride: p.outer_stride,
        inner: p.inner,
        first: p.first,
        rows: p.rows,
        columns: p.width,
        wanted: SVD_OPEN,
        all: p.fresh,
        by_rank: 0,
        dense: p.dense,
    }
}

/// The moments of the projections that are to be judged.
fn moments_of(p: &SvdParams) -> GramParams {
    GramParams {
        a: p.tall,
        row_stride: i64::from(p.columns),
        column_stride: 1,
        inner_stride: i64::from(p.rows) * i64::from(p.columns),
        outer_stride: 0,
        inner: i32::MAX,
        first: 0,
        columns: p.columns,
        wanted: SVD_CHOSEN,
        all: 0,
        by_rank: 1,
        dense: i32::from(p.columns % 4 == 0),
        partials: p.moments,
        ..gram_of(p)
    }
}
