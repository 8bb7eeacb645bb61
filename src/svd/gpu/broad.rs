//! Matrices of more columns than one block has room for: the same steps, each spread over many blocks, in f64 throughout.

use super::{
    Extents, Job, SHARED, THREADS, kernels,
    multiply::{self, PANEL, multiply, product},
    rotate_shared, triangle,
};
use crate::{
    Result,
    device::{Address, Grid, Kernel},
    svd::{
        Options, Output, Rung,
        params::{
            BroadParams, MultiplyParams, SVD_AHEAD, SVD_CHOSEN, SVD_DEPTH, SVD_DOUBLE, SVD_F32, SVD_F64, SVD_JACOBI,
            SVD_LEAST_DIAGONAL, SVD_LINES, SVD_OPEN, SVD_PIVOT, SVD_REDUCED_ROWS, SVD_SLANTED, SVD_TILE, SvdOperand, SvdParams,
            TriangleParams,
        },
    },
};

const WARPS: usize = THREADS as usize / 32;
/// The largest width: there is shared memory for its rotations, and for a vector of it.
pub(super) const MAX_WIDTH: usize = 4096;
/// Bytes of the matrices A'A that are worked on at the same time: they are to stay in the L2 cache.
const WAVE_BYTES: usize = 32 << 20;
/// Matrices that have working memory at the same time, at most.
const MAX_WAVE: usize = 512;
/// Blocks that rotate, each of which takes one matrix after another.
const ROTATING: usize = 2;
/// Rows of a partial sum of A'A, and the most of those.
const PART_ROWS: usize = 4096;
const MAX_PARTS: usize = 16;
/// Sums of a block, of which a kernel makes two at most.
const SUMS_SHARED: usize = 2 * WARPS * size_of::<f64>();

/// Where working memory begins, in bytes from the start of the arena.
struct Workspace {
    wave: usize,
    parts: usize,
    partials: usize,
    square: usize,
    reflections: usize,
    lines: usize,
    scale: usize,
    vectors: usize,
    elimination: usize,
    swaps: usize,
    /// Vectors of f64 with an entry for each column: values, eigenvalues, exact, scales, pivots, lengths, s.
    columns: [usize; 7],
    order: usize,
    signs: usize,
    moments: usize,
    corners: usize,
    basis: usize,
    energy: usize,
    rotated: usize,
    tall: usize,
    bytes: usize,
}

impl Workspace {
    fn new(extents: &Extents, options: &Options) -> Self {
        let Extents { batch, rows, width, columns, .. } = *extents;
        let wave = (WAVE_BYTES / (width * width * size_of::<f64>())).clamp(1, MAX_WAVE).min(batch);
        let parts = rows.div_ceil(PART_ROWS).min(MAX_PARTS);
        let panels = columns.div_ceil(PANEL);
        // Of s alone there are no vectors and no factors.
        let factors = usize::from(options.output != Output::ValuesOnly);
        let mut bytes = 0;
        let mut next = |elements: usize, size: usize| {
            let start = bytes;
            bytes += (elements * size).next_multiple_of(16);
            start
        };
        let double = size_of::<f64>();
        Self {
            wave,
            parts,
            partials: next(wave * parts * triangle(width), double),
            square: next(wave * width * width, double),
            reflections: next(wave * triangle(width), double),
            lines: next(wave * SVD_LINES as usize * width.next_multiple_of(SVD_AHEAD as usize), double),
            scale: next(wave, double),
            vectors: next(factors * wave * width * columns, double),
            elimination: next(factors * wave * panels * 2 * width * PANEL, double),
            swaps: next(factors * wave * panels * width * PANEL, 1),
            columns: std::array::from_fn(|_| next(wave * columns, double)),
            order: next(wave * columns, size_of::<i32>()),
            signs: next(wave * columns, size_of::<f32>()),
            moments: next(factors * wave * columns * columns, double),
            corners: next(factors * wave * panels * PANEL * PANEL, double),
            basis: next(factors * wave * columns * width, double),
            energy: next(wave, double),
            rotated: next(wave.min(ROTATING) * (width * width + triangle(width.next_multiple_of(2))), double),
            tall: next(factors * wave * rows * columns, size_of::<f32>()),
            bytes,
        }
    }
}

pub(super) fn bytes(extents: &Extents, options: &Options) -> usize {
    Workspace::new(extents, options).bytes
}

pub(super) struct Call<'a> {
    job: Job<'a>,
    workspace: Workspace,
}

impl<'a> Call<'a> {
    pub(super) fn new(job: Job<'a>) -> Self {
        let workspace = Workspace::new(&job.extents, job.options);
        Self { job, workspace }
    }

    /// Matrices that have working memory at the same time.
    pub(super) fn wave(&self) -> usize {
        self.workspace.wave
    }

    /// Factorizes `count` matrices: from `first` on among those that `start` leads to, from `index` on in the output.
    pub(super) fn run(&self, wave: [usize; 4]) -> Result<()> {
        let Extents { rows, columns, .. } = self.job.extents;
        let p = self.params(wave);
        let a = self.job.matrices.operand(wave, self.job.extents.wide);
        self.gram(&p, a)?;
        if p.svd.rung == SVD_DOUBLE {
            self.values(&p)?;
            if p.svd.values_only == 0 {
                self.vectors(&p)?;
            }
        }
        self.rotate(&p)?;
        if p.svd.values_only == 0 {
            self.project(&p, a)?;
            self.launch(&kernels::SVD_BROAD_FINISH, 1, 0, &p)?;
            if p.svd.wide != 0 {
                self.launch(&kernels::SVD_BROAD_SIGNS, columns.div_ceil(WARPS), 0, &p)?;
            }
        }
        self.launch(&kernels::SVD_BROAD_WRITE, rows.div_ceil(SVD_TILE as usize), 0, &p)
    }

    /// The roots W^1/2 and W^-1/2 of `count` weights, f32 [.., width, width] without gaps, into `to`, f64.
    pub(super) fn roots(&self, wave: [usize; 4], to: [Address; 2]) -> Result<()> {
        let (width, count) = (self.job.extents.width, wave[3]);
        let p = self.params(wave);
        self.launch(&kernels::SVD_WEIGHT_BEGIN, 1, SUMS_SHARED, &p)?;
        self.values(&p)?;
        self.vectors(&p)?;
        self.rotate(&p)?;
        self.launch(&kernels::SVD_WEIGHT_ROOTS, width.div_ceil(WARPS), 0, &p)?;
        let of = |at: Address| SvdOperand::dense(at, SVD_F64, width, width);
        for (scaled, to) in [p.vectors, p.square].into_iter().zip(to) {
            let root = product(of(p.svd.basis).transposed(), of(scaled), of(to), [width; 3]);
            multiply(&self.job.matrices.device, &root, count)?;
        }
        Ok(())
    }

    /// For matrices whose eigenvectors inverse iteration did not find.
    fn rotate(&self, p: &BroadParams) -> Result<()> {
        let (count, width) = (p.svd.count as usize, self.job.extents.width);
        let shared = rotate_shared(width);
        let grid = Grid { blocks: [count.min(ROTATING) as u32, 1, 1], threads: THREADS, shared };
        self.job.matrices.device.launch(&kernels::SVD_ROTATE, grid, &p.svd)
    }

    fn launch(&self, kernel: &Kernel<BroadParams>, blocks: usize, shared: usize, p: &BroadParams) -> Result<()> {
        let grid = Grid { blocks: [blocks as u32, p.svd.count as u32, 1], threads: THREADS, shared };
        self.job.matrices.device.launch(kernel, grid, p)
    }

    /// A'A, its trace scaled to one.
    fn gram(&self, p: &BroadParams, a: SvdOperand) -> Result<()> {
        let Extents { rows, width, .. } = self.job.extents;
        let parts = self.workspace.parts;
        let mut partials = SvdOperand::dense(p.svd.partials, SVD_F64, 0, 0);
        partials.inner_stride = (parts * triangle(width)) as i64;
        let gram = MultiplyParams {
            part: rows.div_ceil(parts).next_multiple_of(SVD_DEPTH as usize) as i32,
            part_stride: triangle(width) as i64,
            lower: 1,
            packed: 1,
            ..product(a.transposed(), a, partials, [width, width, rows])
        };
        multiply(&self.job.matrices.device, &gram, p.svd.count as usize)?;
        self.launch(&kernels::SVD_BROAD_BEGIN, width.div_ceil(WARPS), SUMS_SHARED, p)
    }

    /// Eigenvalues of A'A, and the rank.
    fn values(&self, p: &BroadParams) -> Result<()> {
        let Extents { width, columns, .. } = self.job.extents;
        for row in (0..width).rev() {
            let params = BroadParams { step: row as i32, ..*p };
            let blocks = row.div_ceil(SVD_REDUCED_ROWS as usize).max(1);
            self.launch(&kernels::SVD_BROAD_REDUCE, blocks, SUMS_SHARED, &params)?;
        }
        self.launch(&kernels::SVD_BROAD_SCALE, 1, 0, p)?;
        self.launch(&kernels::SVD_BROAD_VALUES, columns.div_ceil(WARPS), 0, p)?;
        self.launch(&kernels::SVD_BROAD_RANK, 1, 0, p)
    }

    /// Eigenvectors of A'A.
    fn vectors(&self, p: &BroadParams) -> Result<()> {
        let Extents { width, columns, .. } = self.job.extents;
        let count = p.svd.count as usize;
        let panels = Grid { blocks: [columns.div_ceil(PANEL) as u32, count as u32, 1], threads: 32, shared: 0 };
        self.job.matrices.device.launch(&kernels::SVD_BROAD_VECTORS, panels, p)?;
        let columns_of = TriangleParams {
            x: p.vectors,
            stride: columns as i32,
            next: (width * columns) as i64,
            dtype: SVD_F64,
            rows: width as i32,
            wanted: SVD_OPEN,
            least: 0.0,
            least_diagonal: 0.0,
            ..self.triangle(p)
        };
        // Twice is enough: what the first time leaves is no more than the square of what the inversions did.
        for _ in 0..2 {
            multiply::moments(&self.job.matrices.device, &columns_of, count)?;
            multiply::orthonormalize(&self.job.matrices.device, &columns_of, count)?;
        }
        let warps = p.warps as usize;
        self.launch(&kernels::SVD_BROAD_TURN, columns.div_ceil(warps), warps * width * size_of::<f64>(), p)?;
        self.launch(&kernels::SVD_BROAD_CHOOSE, 1, 0, p)
    }

    /// The tall factor, its columns orthonormal.
    fn project(&self, p: &BroadParams, a: SvdOperand) -> Result<()> {
        let Extents { rows, width, columns, .. } = self.job.extents;
        let count = p.svd.count as usize;
        self.launch(&kernels::SVD_BROAD_SCALES, 1, 0, p)?;
        let basis = SvdOperand::dense(p.svd.basis, SVD_F64, columns, width).transposed();
        let tall = SvdOperand::dense(p.svd.tall, SVD_F32, rows, columns);
        let projection = MultiplyParams {
            verdicts: p.svd.verdicts,
            wanted: SVD_CHOSEN,
            scales: p.scales,
            ..product(a, basis, tall, [rows, columns, width])
        };
        multiply(&self.job.matrices.device, &projection, count)?;
        let columns_of = TriangleParams {
            x: p.svd.tall,
            stride: columns as i32,
            next: (rows * columns) as i64,
            dtype: SVD_F32,
            rows: rows as i32,
            wanted: SVD_CHOSEN,
            least: SVD_PIVOT,
            least_diagonal: SVD_LEAST_DIAGONAL as f32,
            ..self.triangle(p)
        };
        multiply::moments(&self.job.matrices.device, &columns_of, count)?;
        self.launch(&kernels::SVD_BROAD_JUDGE, 1, 0, p)?;
        multiply::orthonormalize(&self.job.matrices.device, &TriangleParams { wanted: SVD_SLANTED, ..columns_of }, count)?;
        self.launch(&kernels::SVD_BROAD_ORTHOGONALIZE, 1, SUMS_SHARED + columns * size_of::<f64>(), p)
    }

    fn triangle(&self, p: &BroadParams) -> TriangleParams {
        TriangleParams {
            moments: p.svd.moments,
            corners: self.job.base.offset(self.workspace.corners),
            pivots: p.pivots,
            lengths: p.lengths,
            x: Address::NULL,
            next: 0,
            stride: 0,
            verdicts: p.svd.verdicts,
            least: 0.0,
            least_diagonal: 0.0,
            dtype: SVD_F64,
            wanted: SVD_OPEN,
            rows: 0,
            columns: self.job.extents.columns as i32,
            panel: 0,
            noise: 0.0,
            seed: 0,
            stream: 0,
        }
    }

    fn params(&self, wave: [usize; 4]) -> BroadParams {
        let workspace = &self.workspace;
        let at = |offset: usize| self.job.base.offset(offset);
        let [values, eigenvalues, exact, scales, pivots, lengths, singular] = workspace.columns.map(at);
        let svd = SvdParams {
            tall: at(workspace.tall),
            partials: at(workspace.partials),
            moments: at(workspace.moments),
            rotated: at(workspace.rotated),
            basis: at(workspace.basis),
            values,
            energy: at(workspace.energy),
            partial_sums: workspace.parts as i32,
            tall_dtype: SVD_F32,
            rung: if self.job.options.start == Rung::Jacobi { SVD_JACOBI } else { SVD_DOUBLE },
            ..self.job.params(wave)
        };
        BroadParams {
            svd,
            square: at(workspace.square),
            reflections: at(workspace.reflections),
            lines: at(workspace.lines),
            scale: at(workspace.scale),
            vectors: at(workspace.vectors),
            elimination: at(workspace.elimination),
            swaps: at(workspace.swaps),
            eigenvalues,
            exact,
            scales,
            pivots,
            lengths,
            singular,
            order: at(workspace.order),
            signs: at(workspace.signs),
            step: 0,
            warps: (SHARED / (self.job.extents.width * size_of::<f64>())).clamp(1, WARPS) as i32,
        }
    }
}
