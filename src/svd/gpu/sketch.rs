//! Large matrices of small rank: a block Krylov space in f64, and the route of broad matrices on what the matrix is within
//! it (see the CPU's sketch for the sources). Nobody waits, so every matrix gets the same number of blocks, each as wide as
//! the rank and a little more.

use super::{
    Extents, Job, Matrices, Outputs, THREADS, broad, code, kernels,
    multiply::{self, PANEL, multiply, product},
};
use crate::{
    Dtype, Result,
    device::{Address, Grid, Kernel},
    svd::{
        GRAM_COLUMNS, Mode, Options, Output, Rank,
        params::{MultiplyParams, SVD_F32, SVD_F64, SVD_OPEN, SVD_SIGNS, SketchParams, SvdOperand, TriangleParams},
        verdict::ROW_BYTES,
    },
};

const WARPS: usize = THREADS as usize / 32;
/// Columns of a block beyond the rank, and what their number is a multiple of.
const OVERSAMPLING: usize = 8;
const MULTIPLE: usize = 16;
/// Times that a block is orthogonalized; columns of noise are replaced after the first.
const ROUNDS: usize = 3;
/// Squared length of a column beside those before it, as a share, that is noise.
const NOISE: f32 = 1e-13;
/// Partial sums of squares.
const PARTS: usize = 64;
/// Bytes of the spaces that are worked on at the same time, unless one alone has more.
const WAVE_BYTES: usize = 1 << 30;

/// The widths of a space.
#[derive(Clone, Copy)]
struct Plan {
    block: usize,
    blocks: usize,
}

impl Plan {
    fn new(rank: usize, mode: Mode) -> Self {
        let blocks = if mode == Mode::Fast { 3 } else { 5 };
        Self { block: (rank + OVERSAMPLING).next_multiple_of(MULTIPLE), blocks }
    }

    fn width(&self) -> usize {
        self.block * self.blocks
    }
}

/// Whether matrices with so many columns in the tall orientation are sketched: where the space has no more than half of
/// them.
pub(in crate::svd) fn serves(columns: usize, rank: usize, mode: Mode) -> bool {
    columns > GRAM_COLUMNS && 2 * Plan::new(rank, mode).width() <= columns
}

/// Where working memory begins, in bytes from the start of the arena.
struct Workspace {
    wave: usize,
    k: usize,
    z: usize,
    /// Products of a block with those before.
    products: usize,
    moments: usize,
    corners: usize,
    pivots: usize,
    lengths: usize,
    sums: usize,
    space: usize,
    inner: usize,
    tall: usize,
    s: usize,
    w: usize,
    small: usize,
    broad: usize,
    bytes: usize,
}

impl Workspace {
    fn new(extents: &Extents, options: &Options) -> Self {
        let Extents { batch, rows, width, columns, .. } = *extents;
        let plan = Plan::new(columns, options.mode);
        let (space, double, single) = (plan.width(), size_of::<f64>(), size_of::<f32>());
        let wave = (WAVE_BYTES / (space * (rows + width) * double)).clamp(1, batch);
        let panels = plan.block.div_ceil(PANEL);
        let mut bytes = 0;
        let mut next = |elements: usize, size: usize| {
            let start = bytes;
            bytes += (wave * elements * size).next_multiple_of(16);
            start
        };
        let mut found = Self {
            wave,
            k: next(width * space, double),
            z: next(rows * space, double),
            products: next(space * plan.block, double),
            moments: next(plan.block * plan.block, double),
            corners: next(panels * PANEL * PANEL, double),
            pivots: next(plan.block, double),
            lengths: next(plan.block, double),
            sums: next(2 * PARTS, double),
            space: next(ROW_BYTES, 1),
            inner: next(ROW_BYTES, 1),
            tall: next(rows * columns, single),
            s: next(columns, single),
            w: next(space * columns, single),
            small: next(width * columns, single),
            broad: 0,
            bytes: 0,
        };
        found.broad = bytes;
        found.bytes = bytes + broad::bytes(&Extents::new(wave, rows, space, columns), &inner_options(extents, options));
        found
    }
}

pub(super) fn bytes(extents: &Extents, options: &Options) -> usize {
    Workspace::new(extents, options).bytes
}

/// What is made of Z: the tall factor as it is wanted in the end, and one that makes the small one.
fn inner_options(extents: &Extents, options: &Options) -> Options {
    let tall_is_scaled = options.output == if extents.wide { Output::Qb } else { Output::LatentDecoder };
    let output = match options.output {
        Output::ValuesOnly => Output::ValuesOnly,
        _ if tall_is_scaled => Output::LatentDecoder,
        _ => Output::Usv,
    };
    Options { output, factors: Dtype::F32, start: options.start, ..Options::default() }
}

pub(super) struct Call<'a> {
    job: Job<'a>,
    plan: Plan,
    workspace: Workspace,
}

impl<'a> Call<'a> {
    pub(super) fn new(job: Job<'a>) -> Self {
        let plan = Plan::new(job.extents.columns, job.options.mode);
        let workspace = Workspace::new(&job.extents, job.options);
        Self { job, plan, workspace }
    }

    /// Matrices that have working memory at the same time.
    pub(super) fn wave(&self) -> usize {
        self.workspace.wave
    }

    /// As the calls for other matrices do.
    pub(super) fn run(&self, wave: [usize; 4]) -> Result<()> {
        let Extents { rows, width, columns, .. } = self.job.extents;
        let (p, count) = (self.params(wave), wave[3]);
        self.launch(&kernels::SVD_ENERGY, p.parts as usize, count, &p)?;
        self.conclude(&kernels::SVD_SKETCH_BEGIN, count, &p)?;
        for block in 0..self.plan.blocks {
            self.grow(block, p.a, count)?;
        }
        let space = self.plan.width();
        let z = self.of_z(0);
        self.launch(
            &kernels::SVD_ENERGY,
            p.parts as usize,
            count,
            &SketchParams { a: z, summed: space as i32, which: 1, ..p },
        )?;
        self.solve(count)?;
        self.conclude(&kernels::SVD_SKETCH_FINISH, count, &p)?;
        if p.values_only == 0 {
            let w = SvdOperand::dense(self.at(self.workspace.w), SVD_F32, space, columns);
            let small = SvdOperand::dense(self.at(self.workspace.small), SVD_F32, width, columns);
            multiply(&self.job.matrices.device, &product(self.of_k(0), w, small, [width, columns, space]), count)?;
        }
        debug_assert!(rows >= width);
        self.launch(&kernels::SVD_SKETCH_WRITE, columns.div_ceil(WARPS), count, &p)
    }

    /// Makes one block of K and of Z.
    fn grow(&self, block: usize, a: SvdOperand, count: usize) -> Result<()> {
        let Extents { rows, width, .. } = self.job.extents;
        let wide = self.plan.block;
        let before = match block.checked_sub(1) {
            Some(last) => self.of_z(last),
            None => SvdOperand { inner_stride: 0, ..SvdOperand::dense(Address::NULL, SVD_SIGNS, rows, wide) },
        };
        self.multiply(product(a.transposed(), before, self.of_k(block), [width, wide, rows]), count)?;
        for round in 0..ROUNDS {
            self.orthonormalize(block, round, count)?;
        }
        self.multiply(product(a, self.of_k(block), self.of_z(block), [rows, wide, width]), count)
    }

    /// Takes the blocks before out of one, and its columns out of each other, once.
    fn orthonormalize(&self, block: usize, round: usize, count: usize) -> Result<()> {
        let (width, wide) = (self.job.extents.width, self.plan.block);
        let (before, next) = (self.of_k(0), self.of_k(block));
        if block > 0 {
            let products = SvdOperand::dense(self.at(self.workspace.products), SVD_F64, block * wide, wide);
            self.multiply(product(before.transposed(), next, products, [block * wide, wide, width]), count)?;
            let rest = product(before, products, next, [width, wide, block * wide]);
            self.multiply(MultiplyParams { subtract: 1, ..rest }, count)?;
        }
        let columns = TriangleParams {
            moments: self.at(self.workspace.moments),
            corners: self.at(self.workspace.corners),
            pivots: self.at(self.workspace.pivots),
            lengths: self.at(self.workspace.lengths),
            x: next.at,
            next: next.inner_stride,
            verdicts: self.at(self.workspace.space),
            least: 0.0,
            least_diagonal: 0.0,
            dtype: SVD_F64,
            wanted: SVD_OPEN,
            rows: width as i32,
            columns: wide as i32,
            stride: self.plan.width() as i32,
            panel: 0,
            noise: NOISE,
            seed: self.job.options.seed,
            stream: 1 + (block * wide) as u64,
        };
        let device = &self.job.matrices.device;
        multiply::moments(device, &columns, count)?;
        multiply::orthonormalize(device, &columns, count)?;
        if round > 0 {
            return Ok(());
        }
        let grid = Grid { blocks: [wide as u32, count as u32, 1], threads: THREADS, shared: 0 };
        device.launch(&kernels::SVD_REFILL, grid, &columns)
    }

    /// A product for the matrices that are sketched.
    fn multiply(&self, params: MultiplyParams, count: usize) -> Result<()> {
        let verdicts = self.at(self.workspace.space);
        let params = MultiplyParams { verdicts, wanted: SVD_OPEN, seed: self.job.options.seed, ..params };
        multiply(&self.job.matrices.device, &params, count)
    }

    /// The route of broad matrices for Z.
    fn solve(&self, count: usize) -> Result<()> {
        let Extents { rows, columns, .. } = self.job.extents;
        let space = self.plan.width();
        let z = Matrices::dense(&self.job.matrices.device, self.at(self.workspace.z), SVD_F64, [count, rows, space]);
        let outputs = Outputs {
            tall: self.at(self.workspace.tall),
            s: self.at(self.workspace.s),
            small: self.at(self.workspace.w),
            verdicts: self.at(self.workspace.inner),
        };
        let options = inner_options(&self.job.extents, self.job.options);
        let extents = Extents::new(self.workspace.wave, rows, space, columns);
        let (rank, base) = (Rank::Fixed(columns), self.at(self.workspace.broad));
        let call = broad::Call::new(Job { matrices: &z, extents, rank, options: &options, outputs, base });
        z.walk.waves(call.wave()).into_iter().try_for_each(|wave| call.run(wave))
    }

    /// K from a block on.
    fn of_k(&self, block: usize) -> SvdOperand {
        self.columns_from(self.workspace.k, self.job.extents.width, block)
    }

    /// Z from a block on.
    fn of_z(&self, block: usize) -> SvdOperand {
        self.columns_from(self.workspace.z, self.job.extents.rows, block)
    }

    fn columns_from(&self, start: usize, rows: usize, block: usize) -> SvdOperand {
        let at = self.at(start).offset(block * self.plan.block * size_of::<f64>());
        SvdOperand::dense(at, SVD_F64, rows, self.plan.width())
    }

    fn at(&self, offset: usize) -> Address {
        self.job.base.offset(offset)
    }

    fn launch(&self, kernel: &Kernel<SketchParams>, blocks: usize, count: usize, p: &SketchParams) -> Result<()> {
        let grid = Grid { blocks: [blocks as u32, count as u32, 1], threads: THREADS, shared: WARPS * size_of::<f64>() };
        self.job.matrices.device.launch(kernel, grid, p)
    }

    /// For kernels with one warp for each matrix.
    fn conclude(&self, kernel: &Kernel<SketchParams>, count: usize, p: &SketchParams) -> Result<()> {
        let grid = Grid { blocks: [1, count as u32, 1], threads: 32, shared: 0 };
        self.job.matrices.device.launch(kernel, grid, p)
    }

    fn params(&self, wave: [usize; 4]) -> SketchParams {
        let Extents { rows, width, columns, wide, .. } = self.job.extents;
        let svd = self.job.params(wave);
        SketchParams {
            a: self.job.matrices.operand(wave, wide),
            sums: self.at(self.workspace.sums),
            space: self.at(self.workspace.space),
            inner: self.at(self.workspace.inner),
            tall: self.at(self.workspace.tall),
            s: self.at(self.workspace.s),
            small: self.at(self.workspace.small),
            out_tall: svd.out_tall,
            out_s: svd.s,
            out_small: svd.small,
            verdicts: svd.verdicts,
            relative: svd.relative,
            rows: rows as i32,
            width: width as i32,
            columns: columns as i32,
            block: self.plan.block as i32,
            summed: width as i32,
            which: 0,
            parts: PARTS as i32,
            factors: code(self.job.options.factors),
            wide: svd.wide,
            tall_is_scaled: svd.tall_is_scaled,
            small_is_scaled: svd.small_is_scaled,
            values_only: svd.values_only,
        }
    }
}
