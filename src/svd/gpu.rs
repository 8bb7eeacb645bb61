//! The SVD on a device. Each kernel takes a step for a whole wave of matrices and leaves those alone that need it not, so
//! the ladder is climbed there, and the host never waits.

use super::{
    Mode, OP, Options, Output, Rank, Rung, Sizes, Svd,
    params::{
        GramParams, SVD_CHOSEN, SVD_CHUNK_ROWS, SVD_DOUBLE, SVD_JACOBI, SVD_OPEN, SVD_SHARED_REGION, SVD_SHARED_VECTORS,
        SVD_SINGLE, SvdParams,
    },
    verdict::ROW_BYTES,
};
use crate::{
    Dtype, Error, Result, Scratch, Tensor,
    device::{Address, Grid, Kernel},
};

mod kernels {
    use super::super::params::*;
    use crate::device::Kernel;
    include!(concat!(env!("OUT_DIR"), "/svd.rs"));
}

const THREADS: u32 = 256;
/// Matrices that have working memory at the same time.
const WAVE: usize = 512;
/// Blocks that rotate, each of which takes one matrix after another.
const ROTATING: usize = 8;
/// The most blocks along y.
const MAX_CHUNKS: usize = 65_535;
/// Shared memory that every architecture has for a block.
const SHARED: usize = 99 * 1024;
/// Columns and rows of tiles in shared memory.
const WIDTH: usize = 128;
const TILE: usize = 64;

/// The extents of a call in the tall orientation.
#[derive(Clone, Copy)]
struct Extents {
    batch: usize,
    rows: usize,
    width: usize,
    columns: usize,
    chunks: usize,
    wide: bool,
}

impl Extents {
    fn new(sizes: Sizes) -> Self {
        let Sizes { batch, m, n, columns } = sizes;
        let rows = m.max(n);
        Self { batch, rows, width: m.min(n), columns, chunks: rows.div_ceil(SVD_CHUNK_ROWS as usize), wide: m < n }
    }
}

/// Where working memory begins, in bytes from the start of the arena.
struct Workspace {
    partials: usize,
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
    fn new(extents: &Extents) -> Self {
        let Extents { batch, width, columns, chunks, .. } = *extents;
        let wave = batch.min(WAVE);
        let work_stride = ((triangle(width) + columns * (width | 1)) * size_of::<f64>()).next_multiple_of(16);
        let mut bytes = 0;
        let mut next = |elements: usize, size: usize| {
            let start = bytes;
            bytes += (elements * size).next_multiple_of(16);
            start
        };
        Self {
            partials: next(wave * chunks * triangle(width), size_of::<f64>()),
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

pub(super) fn scratch_bytes(sizes: Sizes) -> usize {
    Workspace::new(&Extents::new(sizes)).bytes
}

/// Elements of a lower triangle.
fn triangle(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

/// Shared memory of each kernel, as its source lays it out.
fn gram_shared(columns: usize) -> usize {
    triangle(columns).next_multiple_of(2) * 8 + WIDTH * 8 + WIDTH * (WIDTH + 8)
}

const GRAM_WIDE_SHARED: usize = TILE * WIDTH * 4;

/// Shared memory of svd_solve with numbers of `size` bytes, and what lies in it.
fn solve_shared(width: usize, columns: usize, size: usize) -> (usize, u32) {
    let region = (64 * width).max(triangle(width)) * size + 32 * width;
    let bytes = (8 * WIDTH + columns) * size + region;
    let vectors = columns * (width | 1) * size;
    if bytes + vectors <= SHARED {
        (bytes + vectors, SVD_SHARED_REGION | SVD_SHARED_VECTORS)
    } else {
        (bytes, SVD_SHARED_REGION)
    }
}

const ROTATE_SHARED: usize = WIDTH / 2 * 24 + WIDTH * 8 + WIDTH * 4;

fn project_shared(dtype: Dtype) -> usize {
    let (size, parts) = match dtype {
        Dtype::F32 => (4, 1),
        Dtype::F16 => (2, 2),
        _ => (2, 3),
    };
    TILE * 4 + TILE * (WIDTH * size + 16) * (1 + parts)
}

fn project_wide_shared(width: usize) -> usize {
    TILE * 8 + width * TILE * 8 + TILE * WIDTH * 4
}

fn finish_shared(columns: usize) -> usize {
    3 * WIDTH * 8 + 8 * 8 + WIDTH * 4 + 8 * 4 + triangle(columns) * 8
}

fn mix_shared(columns: usize) -> usize {
    columns * WIDTH * 4 + TILE * (WIDTH + 1) * 4
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
}

pub(super) fn truncated(
    a: &Tensor,
    sizes: Sizes,
    rank: Rank,
    options: &Options,
    out: &mut Svd,
    scratch: &mut Scratch,
) -> Result<()> {
    if options.output != Output::Usv || options.factors != Dtype::F32 {
        return Err(a.device().unsupported("svd::truncated with an output other than U, s and V in f32"));
    }
    let extents = Extents::new(sizes);
    let most = MAX_CHUNKS * SVD_CHUNK_ROWS as usize;
    if extents.rows > most || extents.batch > i32::MAX as usize {
        let found = format!("{} matrices of {} x {}", sizes.batch, sizes.m, sizes.n);
        let expected = format!("max(m, n) <= {most} and at most {} matrices on {}", i32::MAX, a.device());
        return Err(Error::shape(OP, found, expected));
    }
    let [u, s, v] = [out.u.address_mut(OP)?, out.s.address_mut(OP)?, out.v.address_mut(OP)?];
    let verdicts = out.table.address_mut(OP)?;
    let (tall, small) = if extents.wide { (v, u) } else { (u, v) };
    let workspace = Workspace::new(&extents);
    let base = scratch.address(&a.device(), workspace.bytes)?;
    let single = options.start == Rung::Single && rank.may_start_in_single(extents.width);
    let rungs = match options.start {
        Rung::Jacobi => vec![SVD_JACOBI],
        Rung::Single if single => vec![SVD_SINGLE, SVD_DOUBLE],
        _ => vec![SVD_DOUBLE],
    };
    let (readers, fast) = (Readers::new(a.dtype()), options.mode == Mode::Fast);
    let call = Call { a, extents, rank, rungs, fast, readers, tall, s, small, verdicts, workspace, base };
    let walk = Walk::new(a);
    let each = walk.inner.0 * walk.outer.0;
    for (i, start) in walk.starts.iter().enumerate() {
        for first in (0..each).step_by(WAVE) {
            call.wave(&walk, *start, first, i * each + first, WAVE.min(each - first))?;
        }
    }
    Ok(())
}

struct Call<'a> {
    a: &'a Tensor,
    extents: Extents,
    rank: Rank,
    rungs: Vec<u32>,
    fast: bool,
    readers: Readers,
    tall: Address,
    s: Address,
    small: Address,
    verdicts: Address,
    workspace: Workspace,
    base: Address,
}

impl Call<'_> {
    /// Factorizes `count` matrices: from `first` on among those that `start` leads to, from `index` on in the output.
    fn wave(&self, walk: &Walk, start: usize, first: usize, index: usize, count: usize) -> Result<()> {
        let Extents { width, columns, chunks, wide, .. } = self.extents;
        let device = &self.a.device();
        let mut params = self.params(walk, start, first, index, count);
        let blocks = |y: usize, z: usize, shared| Grid { blocks: [count as u32, y as u32, z as u32], threads: THREADS, shared };
        let grams = [gram_shared(width), GRAM_WIDE_SHARED];
        let moments = [gram_shared(columns), GRAM_WIDE_SHARED];
        let projections = [project_shared(self.a.dtype()), project_wide_shared(width)];
        for rung in &self.rungs {
            let thorough = usize::from(*rung != SVD_SINGLE);
            let (solve, shared) = [(kernels::SVD_SOLVE_F32, size_of::<f32>()), (kernels::SVD_SOLVE_F64, size_of::<f64>())]
                .map(|(kernel, size)| (kernel, solve_shared(width, columns, size)))[thorough];
            params.rung = *rung;
            params.solve_shared = shared.1;
            let of_a = gram_of(&params);
            device.launch(&self.readers.gram[thorough], blocks(chunks, 1, grams[thorough]), &of_a)?;
            device.launch(&solve, blocks(1, 1, shared.0), &params)?;
            if thorough == 1 {
                let grid = Grid { blocks: [count.min(ROTATING) as u32, 1, 1], threads: THREADS, shared: ROTATE_SHARED };
                device.launch(&kernels::SVD_ROTATE, grid, &params)?;
            }
            let project = blocks(chunks, columns.div_ceil(TILE), projections[thorough]);
            device.launch(&self.readers.project[thorough], project, &params)?;
            let gram = [kernels::SVD_GRAM_F32, kernels::SVD_GRAM_WIDE_F32][thorough];
            device.launch(&gram, blocks(chunks, 1, moments[thorough]), &moments_of(&params))?;
            device.launch(&kernels::SVD_FINISH, blocks(1, 1, finish_shared(columns)), &params)?;
            params.fresh = 0;
        }
        device.launch(&kernels::SVD_ORTHOGONALIZE, blocks(1, 1, finish_shared(columns)), &params)?;
        device.launch(&kernels::SVD_MIX, blocks(chunks, 1, mix_shared(columns)), &params)?;
        if wide {
            device.launch(&kernels::SVD_SIGNS, blocks(1, 1, SIGNS_SHARED), &params)?;
        }
        Ok(())
    }

    fn params(&self, walk: &Walk, start: usize, first: usize, index: usize, count: usize) -> SvdParams {
        let Extents { rows, width, columns, chunks, wide, .. } = self.extents;
        let row_stride = self.a.strides()[self.a.shape().len() - 2] as i64;
        let at = |offset: usize| self.base.offset(offset);
        let of = |address: Address, elements: usize| address.offset(index * elements * size_of::<f32>());
        SvdParams {
            a: self.a.address().offset(self.a.dtype().bytes_of(start)),
            tall: of(self.tall, rows * columns),
            s: of(self.s, columns),
            small: of(self.small, width * columns),
            partials: at(self.workspace.partials),
            work: at(self.workspace.work),
            rotated: at(self.workspace.rotated),
            basis: at(self.workspace.basis),
            values: at(self.workspace.values),
            energy: at(self.workspace.energy),
            mix: at(self.workspace.mix),
            verdicts: self.verdicts.offset(index * ROW_BYTES),
            row_stride: if wide { 1 } else { row_stride },
            column_stride: if wide { row_stride } else { 1 },
            inner_stride: walk.inner.1 as i64,
            outer_stride: walk.outer.1 as i64,
            work_stride: self.workspace.work_stride as i64,
            relative: match self.rank {
                Rank::Fixed(_) => -1.0,
                Rank::Tolerance { relative, .. } => relative,
            },
            inner: walk.inner.0 as i32,
            first: first as i32,
            rows: rows as i32,
            width: width as i32,
            columns: columns as i32,
            chunks: chunks as i32,
            rung: SVD_SINGLE,
            solve_shared: 0,
            count: count as i32,
            fresh: 1,
            fast: i32::from(self.fast),
            wide: i32::from(wide),
        }
    }
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
        pad: 0,
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
        ..gram_of(p)
    }
}
