//! Matrices of up to 128 columns: one block has the whole eigenproblem of each.

use super::{Extents, Job, SHARED, THREADS, kernels, rotate_shared, triangle};
use crate::{
    Dtype, Result, Tensor,
    device::{Grid, Kernel},
    svd::{
        Options, Output, Rung,
        params::{
            GramParams, SVD_CHOSEN, SVD_DOUBLE, SVD_F32, SVD_JACOBI, SVD_OPEN, SVD_PROJECTED, SVD_SHARED_ALL, SVD_SINGLE,
            SvdParams,
        },
    },
};

/// The largest width.
pub(super) const MAX_WIDTH: usize = 128;
/// Columns and rows of tiles in shared memory.
const WIDTH: usize = MAX_WIDTH;
const TILE: usize = SVD_PROJECTED as usize;
/// Matrices that have working memory at the same time.
pub(super) const WAVE: usize = 512;
/// Blocks that rotate, each of which takes one matrix after another.
const ROTATING: usize = 8;

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

pub(super) fn bytes(extents: &Extents, options: &Options) -> usize {
    Workspace::new(extents, options).bytes
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

pub(super) struct Call<'a> {
    job: Job<'a>,
    dtype: Dtype,
    rungs: Vec<u32>,
    dense: bool,
    readers: Readers,
    workspace: Workspace,
}

impl<'a> Call<'a> {
    pub(super) fn new(a: &Tensor, job: Job<'a>) -> Self {
        let start = job.options.start;
        let single = start == Rung::Single && job.rank.may_start_in_single(job.extents.width);
        let rungs = match start {
            Rung::Jacobi => vec![SVD_JACOBI],
            Rung::Single if single => vec![SVD_SINGLE, SVD_DOUBLE],
            _ => vec![SVD_DOUBLE],
        };
        let dense = !job.extents.wide && is_dense(a);
        let workspace = Workspace::new(&job.extents, job.options);
        Self { job, dtype: a.dtype(), rungs, dense, readers: Readers::new(a.dtype()), workspace }
    }

    /// Factorizes `count` matrices: from `first` on among those that `start` leads to, from `index` on in the output.
    pub(super) fn run(&self, wave: [usize; 4]) -> Result<()> {
        let Extents { columns, chunks, wide, .. } = self.job.extents;
        let device = &self.job.matrices.device;
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
        let Extents { width, columns, sums, .. } = self.job.extents;
        let device = &self.job.matrices.device;
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
        let Extents { width, columns, chunks, .. } = self.job.extents;
        let device = &self.job.matrices.device;
        let thorough = usize::from(params.rung != SVD_SINGLE);
        let fused = thorough == 0 && columns <= TILE;
        params.fused = i32::from(fused);
        if fused || self.job.options.factors == Dtype::F32 {
            (params.tall, params.tall_dtype) = (params.out_tall, params.factors);
        } else {
            (params.tall, params.tall_dtype) = (self.job.base.offset(self.workspace.tall), SVD_F32);
        }
        let blocks =
            |x: usize, z: usize, shared| Grid { blocks: [x as u32, params.count as u32, z as u32], threads: THREADS, shared };
        let shared = [project_shared(self.dtype, columns), project_wide_shared(width)][thorough];
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
        let at = |offset: usize| self.job.base.offset(offset);
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
            chunks: self.job.extents.chunks as i32,
            partial_sums: self.job.extents.sums as i32,
            dense: i32::from(self.dense),
            ..self.job.params(wave)
        }
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
