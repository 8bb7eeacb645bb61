//! Batched truncated SVD: the best approximation of each matrix of a batch by one of low rank.
//!
//! A ~ U diag(s) V', with orthonormal columns in U and V, and s descending (Eckart and Young, "The approximation of one
//! matrix by another of lower rank", Psychometrika 1936).

mod cpu;
mod eigen;
mod factors;
mod gpu;
mod jacobi;
mod kernels;
mod lanes;
mod params;
mod solver;
mod source;
mod vector;
mod verdict;
mod watch;

pub use verdict::{Info, Verdict};
pub use watch::Watch;

use crate::{Device, Dtype, Error, Result, Scratch, Tensor, device::Kind};

const OP: &str = "svd::truncated";
const DTYPES: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];

/// The largest min(m, n) on devices other than the CPU.
const MAX_DEVICE_COLUMNS: usize = 128;

/// The largest min(m, n) of matrices on `device`, if there is a limit.
pub fn max_columns(device: &Device) -> Option<usize> {
    match device.kind() {
        Kind::Cpu => None,
        _ => Some(MAX_DEVICE_COLUMNS),
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
    /// U [m, r], s [r], V [n, r]: A ~ U diag(s) V'.
    #[default]
    Usv,
    /// u: latents A V [m, r]; s [r]; v: decoder V [n, r], its columns orthonormal: A ~ u v'. What a cache stores. Latents of
    /// rows that were not in A are those rows times V.
    LatentDecoder,
    /// u: Q [m, r], its columns orthonormal; s: nothing, [0]; v: (Q'A)' [n, r]: A ~ u v'.
    Qb,
    /// s [r] alone; u [m, 0] and v [n, 0] are empty.
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
    /// Dtype of [`Svd::u`] and [`Svd::v`]: f32, f16 or bf16. s is always f32.
    pub factors: Dtype,
    /// Where the ladder starts. A caller who knows his matrices to be ill-conditioned saves the first attempt.
    pub start: Rung,
    /// Tells how far long work has come, and ends it early.
    pub watch: Option<Watch>,
}

impl Default for Options {
    fn default() -> Self {
        Self { mode: Mode::default(), output: Output::default(), factors: Dtype::F32, start: Rung::default(), watch: None }
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
        let sizes = Sizes::new(shape, columns, device)?;
        if !DTYPES.contains(&options.factors) {
            return Err(Error::Dtype { op: OP, found: options.factors, expected: DTYPES });
        }
        let [u, s, v] = Self::shapes(shape, &sizes, options.output);
        Ok(Self {
            u: Tensor::zeros(&u, options.factors, device)?,
            s: Tensor::zeros(&s, Dtype::F32, device)?,
            v: Tensor::zeros(&v, options.factors, device)?,
            table: Tensor::zeros(&[sizes.batch, verdict::ROW_BYTES], Dtype::I8, device)?,
        })
    }

    /// Shapes of u, s and v.
    fn shapes(shape: &[usize], sizes: &Sizes, output: Output) -> [Vec<usize>; 3] {
        let leading = &shape[..shape.len() - 2];
        let with = |tail: &[usize]| [leading, tail].concat();
        let r = sizes.columns;
        match output {
            Output::Usv | Output::LatentDecoder => [with(&[sizes.m, r]), with(&[r]), with(&[sizes.n, r])],
            Output::Qb => [with(&[sizes.m, r]), with(&[0]), with(&[sizes.n, r])],
            Output::ValuesOnly => [with(&[sizes.m, 0]), with(&[r]), with(&[sizes.n, 0])],
        }
    }

    /// What became of each matrix, in row-major order of the leading axes. Waits for the device.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub fn verdicts(&self) -> Result<Vec<Verdict>> {
        verdict::read(&self.table)
    }
}

/// The extents of a call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    m: usize,
    n: usize,
    columns: usize,
}

impl Sizes {
    fn new(shape: &[usize], columns: usize, device: &Device) -> Result<Self> {
        let [leading @ .., m, n] = shape else {
            return Err(Error::shape(OP, format!("a {shape:?}"), "matrices [.., m, n]"));
        };
        let (m, n) = (*m, *n);
        if shape.iter().try_fold(1usize, |all, extent| all.checked_mul(*extent)).is_none() {
            return Err(Error::shape(OP, format!("a {shape:?}"), "fewer than 2^64 elements"));
        }
        if m == 0 || n == 0 {
            return Err(Error::shape(OP, format!("matrices of {m} x {n}"), "at least one row and one column"));
        }
        let batch = leading.iter().product();
        if batch == 0 {
            return Err(Error::shape(OP, format!("a {shape:?}, an empty batch"), "at least one matrix"));
        }
        let small = m.min(n);
        if let Some(most) = max_columns(device)
            && small > most
        {
            let found = format!("matrices of {m} x {n}, the smaller side {small}");
            let expected = format!("min(m, n) <= {most} on {device}; larger matrices are not supported yet");
            return Err(Error::shape(OP, found, expected));
        }
        if columns == 0 || columns > small {
            return Err(Error::shape(OP, format!("rank {columns}"), format!("1..={small} for matrices of {m} x {n}")));
        }
        Ok(Self { batch, m, n, columns })
    }
}

/// The truncated SVD of every matrix of `a`, [.., m, n] with any leading axes, f32, f16 or bf16; on other devices than the
/// CPU with min(m, n) up to [`max_columns`].
///
/// Rows may lie anywhere (only the last axis must have stride 1), so a cache [tokens, heads, head_dim] is read in place
/// through its transpose [heads, tokens, head_dim].
///
/// [`Mode`] says how close the result is to the best one, and [`Output`] what is made. The result for a matrix does not
/// depend on what else is in the batch or on the number of threads, not in a bit. Scale does not matter. Rank-deficient
/// and zero matrices get orthonormal completions and zero singular values.
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
    let sizes = check_input(a, rank)?;
    check_output(a, &sizes, options, out)?;
    match a.device().kind() {
        Kind::Cpu => cpu::truncated(a, sizes, rank, options, out, scratch),
        _ => gpu::truncated(a, sizes, rank, options, out, scratch),
    }
}

/// Bytes of scratch that [`truncated_into`] takes for matrices of `shape`, [.., m, n], and `columns` singular triplets on
/// `device`; on the CPU, with as many threads as the current pool has.
///
/// # Errors
/// As [`truncated`] for the shape and the rank.
pub fn scratch_bytes(shape: &[usize], columns: usize, options: &Options, device: &Device) -> Result<usize> {
    let sizes = Sizes::new(shape, columns, device)?;
    match device.kind() {
        Kind::Cpu => Ok(cpu::scratch_bytes(sizes, options)),
        _ => Ok(gpu::scratch_bytes(sizes)),
    }
}

fn check_input(a: &Tensor, rank: Rank) -> Result<Sizes> {
    if !DTYPES.contains(&a.dtype()) {
        return Err(Error::Dtype { op: OP, found: a.dtype(), expected: DTYPES });
    }
    let sizes = Sizes::new(a.shape(), rank.columns(), &a.device())?;
    if sizes.n > 1 && a.strides().last() != Some(&1) {
        let found = format!("a {:?} with strides {:?}", a.shape(), a.strides());
        return Err(Error::shape(OP, found, "a last axis with stride 1"));
    }
    if let Rank::Tolerance { relative, .. } = rank
        && !(0.0..1.0).contains(&relative)
    {
        return Err(Error::shape(OP, format!("a tolerance of {relative}"), "0 <= relative < 1"));
    }
    Ok(sizes)
}

fn check_output(a: &Tensor, sizes: &Sizes, options: &Options, out: &Svd) -> Result<()> {
    let shapes = Svd::shapes(a.shape(), sizes, options.output);
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
