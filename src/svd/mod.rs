//! Batched truncated SVD: the best approximation of each matrix of a batch by one of low rank.
//!
//! A ~ U diag(s) V', with orthonormal columns in U and V, and s descending (Eckart and Young, "The approximation of one
//! matrix by another of lower rank", Psychometrika 1936).

mod cpu;
mod dense;
mod desks;
mod eigen;
mod factors;
mod gpu;
mod jacobi;
mod kernels;
mod lanes;
mod panels;
#[allow(dead_code, reason = "some constants are the kernels' alone")]
mod params;
mod sizes;
mod sketch;
mod solver;
mod source;
mod stopping;
mod vector;
mod verdict;
mod watch;
mod weighted;

pub use verdict::{Info, Verdict};
pub use watch::Watch;
pub use weighted::{Weighted, weighted};

#[cfg(feature = "model")]
pub(crate) use weighted::{eigen, symmetric_power};

use sizes::Sizes;

use crate::{Device, Dtype, Error, Result, Scratch, Tensor, device::Kind};

const OP: &str = "svd::truncated";
const DTYPES: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];

/// The largest min(m, n) that is always factorized by way of its Gram matrix; larger matrices are sketched first where the
/// rank is small beside them.
pub const GRAM_COLUMNS: usize = 1024;

/// The largest min(m, n) of matrices on `device` whose rank is not small beside it, if there is a limit. Larger ones are
/// sketched, which takes a rank of less than about a tenth of min(m, n).
pub fn max_columns(device: &Device) -> Option<usize> {
    match device.kind() {
        Kind::Cpu => None,
        _ => Some(gpu::MAX_COLUMNS),
    }
}

/// Least share of the energy left out that an f32 Gram matrix is trusted with.
const SINGLE_TAIL: f64 = 1e-4;

/// How many singular triplets to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rank {
    /// This many, in every matrix.
    Fixed(usize),
    /// As few as reach a relative Frobenius error, chosen for each matrix.
    Tolerance {
        /// ||A - U S V'|| / ||A|| at most, in [0, 1). Below about 1e-7 nothing short of every column will do.
        relative: f64,
        /// Columns of the result; a matrix that needs more keeps this many and says its error in `tail`.
        max: usize,
    },
}

impl Rank {
    /// Columns of U and V.
    pub fn columns(self) -> usize {
        match self {
            Self::Fixed(rank) => rank,
            Self::Tolerance { max, .. } => max,
        }
    }

    /// As many columns as a matrix has, at most.
    fn at_most(self, columns: usize) -> Self {
        match self {
            Self::Fixed(rank) => Self::Fixed(rank.min(columns)),
            Self::Tolerance { relative, max } => Self::Tolerance { relative, max: max.min(columns) },
        }
    }

    /// Whether an f32 Gram matrix of `width` columns may resolve what is left out.
    fn may_start_in_single(self, width: usize) -> bool {
        match self {
            Self::Fixed(rank) => rank < width,
            Self::Tolerance { relative, .. } => relative * relative >= 2.0 * SINGLE_TAIL,
        }
    }
}

/// How far a result is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Every result is checked, and a matrix whose check fails climbs the ladder of [`Rung`]s. The error is at most 1.001
    /// times the least possible, down to the rounding of the factors.
    #[default]
    Safe,
    /// The rung that a matrix starts on is taken as it comes: for s_1 / s_rank up to about 300 the error is at most 1.001
    /// times the least possible, but for a share of about 1e-4 of ||A||. Factors are orthonormal all the same.
    Fast,
}

/// What to make of each matrix A, [m, n]: the shapes of [`Svd::u`], [`Svd::s`] and [`Svd::v`], and what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// U [m, r], s of r values, V [n, r]: A ~ U diag(s) V'.
    #[default]
    Usv,
    /// u: latents A V [m, r]; s: r values; v: decoder V [n, r], its columns orthonormal: A ~ u v'. What a cache stores. Latents of
    /// rows that were not in A are those rows times V. A latent beyond what [`Options::factors`] reaches (65 504 in f16) is
    /// infinite there, as in any conversion, and no verdict says so: bf16 and f32 reach as far as s does.
    LatentDecoder,
    /// u: Q [m, r], its columns orthonormal; s: nothing; v: (Q'A)' [n, r]: A ~ u v'.
    Qb,
    /// s alone, r values; u [m, 0] and v [n, 0] are empty.
    ValuesOnly,
}

/// The rungs of the ladder, from quick to thorough. Each matrix starts where [`Options::start`] says and climbs when a
/// check fails: which rung served depends on that matrix alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// A Gram matrix in f32, for s_1 <= 100 s_rank and errors above 1 %.
    #[default]
    Single,
    /// A Gram matrix and a projection in f64, for everything that f32 entries can express. The columns of U are
    /// orthogonalized one by one, and completed, where the matrix is rank-deficient or nearly so.
    Double,
    /// As `Double`, by cyclic Jacobi rotations where inverse iteration did not deliver: slow, and converges always.
    Jacobi,
}

/// Choices with sensible defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far results are checked.
    pub mode: Mode,
    /// What to make of each matrix.
    pub output: Output,
    /// Dtype of [`Svd::u`] and [`Svd::v`]: f32, f16 or bf16. s is always f32, and infinite where it is beyond that.
    pub factors: Dtype,
    /// Where the ladder starts. A caller who knows his matrices to be ill-conditioned saves the first attempt.
    pub start: Rung,
    /// Seed of the sketches of large matrices, whose smaller side is over [`GRAM_COLUMNS`].
    pub seed: u64,
    /// Tells how far long work has come, and ends it early.
    pub watch: Option<Watch>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            output: Output::default(),
            factors: Dtype::F32,
            start: Rung::default(),
            seed: 0,
            watch: None,
        }
    }
}

/// A batch of truncated factorizations of matrices [.., m, n] by r columns; [`Output`] says what the parts are.
#[derive(Debug)]
pub struct Svd {
    /// [.., m, r] in the dtype of [`Options::factors`].
    pub u: Tensor,
    /// f32 [.., r], descending.
    pub s: Tensor,
    /// [.., n, r] in the dtype of [`Options::factors`]. The entry of largest magnitude in each column of V is positive.
    pub v: Tensor,
    /// What became of each matrix.
    table: Tensor,
}

impl Svd {
    /// An output for matrices of `shape`, [.., m, n], with up to `columns` singular triplets each.
    ///
    /// # Errors
    /// As [`truncated`] for the shape, the rank and the dtype; [`Error::Device`] when the memory is not to be had.
    pub fn zeros(shape: &[usize], columns: usize, options: &Options, device: &Device) -> Result<Self> {
        Self::of(shape, &Sizes::new(shape, columns, device)?, &[], options, device)
    }

    /// An output for rows of `shape`, [.., m, n], cut into segments at `offsets`.
    ///
    /// # Errors
    /// As [`truncated_ragged`] for the shape, the offsets, the rank and the dtype; [`Error::Device`] when the memory is not to
    /// be had.
    pub fn zeros_ragged(
        shape: &[usize],
        offsets: &[usize],
        columns: usize,
        options: &Options,
        device: &Device,
    ) -> Result<Self> {
        let sizes = Sizes::ragged(shape, offsets, columns, device)?;
        Self::of(shape, &sizes, &[sizes.segments()], options, device)
    }

    fn of(shape: &[usize], sizes: &Sizes, segments: &[usize], options: &Options, device: &Device) -> Result<Self> {
        if !DTYPES.contains(&options.factors) {
            return Err(Error::Dtype { op: OP, found: options.factors, expected: DTYPES });
        }
        let [u, s, v] = Self::shapes(shape, sizes, segments, options.output);
        Ok(Self {
            u: Tensor::zeros(&u, options.factors, device)?,
            s: Tensor::zeros(&s, Dtype::F32, device)?,
            v: Tensor::zeros(&v, options.factors, device)?,
            table: Tensor::zeros(&[sizes.batch, verdict::ROW_BYTES], Dtype::I8, device)?,
        })
    }

    /// Shapes of u, s and v; `segments` is the axis that they add, if there is one.
    fn shapes(shape: &[usize], sizes: &Sizes, segments: &[usize], output: Output) -> [Vec<usize>; 3] {
        let leading = &shape[..shape.len() - 2];
        let (tall, values, small) = match output {
            Output::Usv | Output::LatentDecoder => (sizes.columns, sizes.columns, sizes.columns),
            Output::Qb => (sizes.columns, 0, sizes.columns),
            Output::ValuesOnly => (0, sizes.columns, 0),
        };
        [
            [leading, &[sizes.m, tall]].concat(),
            [leading, segments, &[values]].concat(),
            [leading, segments, &[sizes.n, small]].concat(),
        ]
    }

    /// What became of each matrix, in row-major order of the leading axes. Waits for the device.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub fn verdicts(&self) -> Result<Vec<Verdict>> {
        verdict::read(&self.table)
    }
}

/// The truncated SVD of every matrix of `a`, [.., m, n] with any leading axes, f32, f16 or bf16; on other devices than the
/// CPU with min(m, n) up to [`max_columns`], or a rank small enough for a sketch.
///
/// Rows may lie anywhere (only the last axis must have stride 1), so a cache [tokens, heads, head_dim] is read in place
/// through its transpose [heads, tokens, head_dim].
///
/// [`Mode`] says how close the result is to the best one, and [`Output`] what is made. The result for a matrix does not
/// depend on what else is in the batch or on the number of threads, not in a bit. Scale does not matter. Rank-deficient
/// and zero matrices get orthonormal completions and zero singular values.
///
/// Up to min(m, n) = [`GRAM_COLUMNS`] the route is an eigenproblem of the Gram matrix; beyond, where the rank is small, a
/// sketch by block Krylov iteration makes a smaller matrix first. Where the sketch would not keep the promise of the mode, the
/// Gram matrix serves after all: its working memory is some three times the square of min(m, n), in f64.
///
/// ```
/// use lowkey::{Device, Tensor, svd};
/// let a = Tensor::from_slice(&[3.0f32, 0.0, 0.0, -2.0, 0.0, 0.0], &[3, 2], &Device::cpu())?;
/// let svd = svd::truncated(&a, svd::Rank::Fixed(1), &svd::Options::default())?;
/// assert_eq!(svd.s.to_f32_vec()?, [3.0]);
/// assert_eq!(svd.v.to_f32_vec()?, [1.0, 0.0]);
/// # Ok::<(), lowkey::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] for an empty batch, a matrix without rows or columns, min(m, n) above [`max_columns`], a rank of zero or above
/// min(m, n), a tolerance outside [0, 1), a last axis with gaps; [`Error::Dtype`] for other dtypes; [`Error::Device`]
/// when memory runs out; [`Error::Cancelled`] when the [`Watch`] says so. A NaN or an infinity is no error:
/// [`Svd::verdicts`] tells of its matrix.
pub fn truncated(a: &Tensor, rank: Rank, options: &Options) -> Result<Svd> {
    let device = a.device();
    check_input(a, rank)?;
    let mut out = Svd::zeros(a.shape(), rank.columns(), options, &device)?;
    truncated_into(a, rank, options, &mut out, &mut Scratch::new(&device))?;
    Ok(out)
}

/// [`truncated`] into an existing `out`, with working memory from `scratch`. Asynchronous on devices.
///
/// # Errors
/// As [`truncated`]; [`Error::Shape`] and [`Error::Dtype`] as well when `out` does not fit (see [`Svd::zeros`]) or shares its
/// memory, [`Error::Device`] when `out` or `scratch` is of another device.
pub fn truncated_into(a: &Tensor, rank: Rank, options: &Options, out: &mut Svd, scratch: &mut Scratch) -> Result<()> {
    check_input(a, rank)?;
    let sizes = Sizes::new(a.shape(), rank.columns(), &a.device())?;
    check_output(a, &sizes, &[], options, out)?;
    dispatch(a, sizes, rank, options, out, scratch)
}

/// The truncated SVD of every segment of the rows of `a`, [.., m, n]: sequences of different lengths one after another, as
/// in a cache. Segment i is rows `offsets[i]..offsets[i + 1]`, and `offsets` goes from 0 to m.
///
/// The results are packed alike: u [.., m, r], s [.., segments, r], v [.., segments, n, r], with verdicts in the order of
/// [.., segments]. A segment with fewer rows than the rank keeps as many columns as it has rows. Each segment's result is
/// what [`truncated`] makes of it alone, to the bit.
///
/// # Errors
/// As [`truncated`]; [`Error::Shape`] for offsets that do not go from 0 to m, or a segment without rows, and for a rank above
/// n.
pub fn truncated_ragged(a: &Tensor, offsets: &[usize], rank: Rank, options: &Options) -> Result<Svd> {
    let device = a.device();
    check_input(a, rank)?;
    let mut out = Svd::zeros_ragged(a.shape(), offsets, rank.columns(), options, &device)?;
    truncated_ragged_into(a, offsets, rank, options, &mut out, &mut Scratch::new(&device))?;
    Ok(out)
}

/// [`truncated_ragged`] into an existing `out`, with working memory from `scratch`.
///
/// # Errors
/// As [`truncated_ragged`], and for `out` and `scratch` as [`truncated_into`].
pub fn truncated_ragged_into(
    a: &Tensor,
    offsets: &[usize],
    rank: Rank,
    options: &Options,
    out: &mut Svd,
    scratch: &mut Scratch,
) -> Result<()> {
    check_input(a, rank)?;
    let sizes = Sizes::ragged(a.shape(), offsets, rank.columns(), &a.device())?;
    check_output(a, &sizes, &[sizes.segments()], options, out)?;
    dispatch(a, sizes, rank, options, out, scratch)
}

fn dispatch(a: &Tensor, sizes: Sizes, rank: Rank, options: &Options, out: &mut Svd, scratch: &mut Scratch) -> Result<()> {
    match a.device().kind() {
        Kind::Cpu => cpu::truncated(a, &sizes, rank, options, out, scratch),
        _ => gpu::truncated(a, &sizes, rank, options, out, scratch),
    }
}

/// Bytes of scratch that [`truncated_into`] takes for matrices of `shape`, [.., m, n], and `columns` singular triplets on
/// `device`; on the CPU, with as many threads as the current pool has. Large matrices that no sketch serves take more than that
/// (see [`truncated`]).
///
/// # Errors
/// As [`truncated`] for the shape and the rank.
pub fn scratch_bytes(shape: &[usize], columns: usize, options: &Options, device: &Device) -> Result<usize> {
    Ok(bytes_of(&Sizes::new(shape, columns, device)?, options, device))
}

/// Bytes of scratch that [`truncated_ragged_into`] takes for rows of `shape`, [.., m, n], cut into segments at `offsets`; as
/// [`scratch_bytes`].
///
/// # Errors
/// As [`truncated_ragged`] for the shape, the offsets and the rank.
pub fn scratch_bytes_ragged(
    shape: &[usize],
    offsets: &[usize],
    columns: usize,
    options: &Options,
    device: &Device,
) -> Result<usize> {
    Ok(bytes_of(&Sizes::ragged(shape, offsets, columns, device)?, options, device))
}

fn bytes_of(sizes: &Sizes, options: &Options, device: &Device) -> usize {
    match device.kind() {
        Kind::Cpu => cpu::scratch_bytes(sizes, options),
        _ => gpu::scratch_bytes(sizes, options),
    }
}

fn check_input(a: &Tensor, rank: Rank) -> Result<()> {
    if !DTYPES.contains(&a.dtype()) {
        return Err(Error::Dtype { op: OP, found: a.dtype(), expected: DTYPES });
    }
    if a.shape().last().is_some_and(|n| *n > 1) && a.strides().last() != Some(&1) {
        let found = format!("a {:?} with strides {:?}", a.shape(), a.strides());
        return Err(Error::shape(OP, found, "a last axis with stride 1"));
    }
    check_rank(rank)
}

fn check_rank(rank: Rank) -> Result<()> {
    match rank {
        Rank::Tolerance { relative, .. } if !(0.0..1.0).contains(&relative) => {
            Err(Error::shape(OP, format!("a tolerance of {relative}"), "0 <= relative < 1"))
        }
        _ => Ok(()),
    }
}

fn check_output(a: &Tensor, sizes: &Sizes, segments: &[usize], options: &Options, out: &Svd) -> Result<()> {
    let shapes = Svd::shapes(a.shape(), sizes, segments, options.output);
    let parts = [("u", &out.u, options.factors), ("s", &out.s, Dtype::F32), ("v", &out.v, options.factors)];
    for ((name, tensor, dtype), expected) in parts.into_iter().zip(shapes) {
        if tensor.shape() != expected {
            return Err(Error::shape(OP, format!("out.{name} {:?}", tensor.shape()), format!("{expected:?}")));
        }
        if tensor.dtype() != dtype {
            return Err(Error::Dtype { op: OP, found: tensor.dtype(), expected: only(dtype) });
        }
        if tensor.device() != a.device() {
            return Err(Error::device(format!("{OP}: out.{name} on {}", tensor.device()), format!("put it on {}", a.device())));
        }
    }
    Ok(())
}

/// The list of one dtype that an error names.
fn only(dtype: Dtype) -> &'static [Dtype] {
    let at = DTYPES.iter().position(|known| *known == dtype).unwrap_or(0);
    &DTYPES[at..=at]
}
