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
mod source;
mod vector;

use crate::{Device, Dtype, Error, Result, Scratch, Tensor, device::Kind};

const OP: &str = "svd::truncated";
const DTYPES: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];

/// The largest min(m, n) on the CPU, and on other devices.
const MAX_COLUMNS: usize = 256;
const MAX_DEVICE_COLUMNS: usize = 128;

/// The largest min(m, n) of matrices on `device`.
pub fn max_columns(device: &Device) -> usize {
    match device.kind() {
        Kind::Cpu => MAX_COLUMNS,
        _ => MAX_DEVICE_COLUMNS,
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
    /// As `Double`, by cyclic Jacobi rotations where inverse iteration did not deliver: slow, and converges always. Other
    /// devices than the CPU rotate on every rung, so theirs ends with `Double`.
    Jacobi,
}

/// What became of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info {
    /// Factorized, by this rung.
    Solved(Rung),
    /// The matrix holds a NaN or an infinity. Its U, s, V and tail are NaN and its rank is zero.
    NonFinite,
}

/// Choices with sensible defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where the ladder starts. A caller who knows his matrices to be ill-conditioned saves the first attempt.
    pub start: Rung,
}

/// A batch of truncated factorizations. For matrices [.., m, n] and r columns:
#[derive(Debug)]
pub struct Svd {
    /// f32 [.., m, r]; the columns are orthonormal.
    pub u: Tensor,
    /// f32 [.., r], descending.
    pub s: Tensor,
    /// f32 [.., n, r]; the columns are orthonormal, and the entry of largest magnitude in each is positive.
    pub v: Tensor,
    /// Columns in use, for each matrix; those above are zero.
    pub rank: Vec<usize>,
    /// What became of each matrix.
    pub info: Vec<Info>,
    /// ||A - U S V'|| / ||A|| of each matrix, before U, s and V were rounded to f32 (that adds about 1e-7).
    pub tail: Vec<f32>,
}

impl Svd {
    /// An output for matrices of `shape`, [.., m, n], with `columns` singular triplets each.
    ///
    /// # Errors
    /// As [`truncated`] for the shape and the rank; [`Error::Device`] when the memory is not to be had.
    pub fn zeros(shape: &[usize], columns: usize, device: &Device) -> Result<Self> {
        let sizes = Sizes::new(shape, columns, device)?;
        let leading = &shape[..shape.len() - 2];
        let tensor = |tail: &[usize]| Tensor::zeros(&[leading, tail].concat(), Dtype::F32, device);
        Ok(Self {
            u: tensor(&[sizes.m, columns])?,
            s: tensor(&[columns])?,
            v: tensor(&[sizes.n, columns])?,
            rank: vec![0; sizes.batch],
            info: vec![Info::NonFinite; sizes.batch],
            tail: vec![f32::NAN; sizes.batch],
        })
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
        let most = max_columns(device);
        if small > most {
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

/// The truncated SVD of every matrix of `a`, [.., m, n] with any leading axes, f32, f16 or bf16, with min(m, n) up to
/// [`max_columns`]: 256 on the CPU, 128 on other devices.
///
/// Rows may lie anywhere (only the last axis must have stride 1), so a cache [tokens, heads, head_dim] is read in place
/// through its transpose [heads, tokens, head_dim].
///
/// The error is at most 1.001 times the least possible, down to the rounding of U, s and V to f32. The result for a
/// matrix does not depend on what else is in the batch or on the number of threads, not in a bit. Scale does not
/// matter. Rank-deficient and zero matrices get orthonormal completions and zero singular values.
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
/// when memory runs out. A NaN or an infinity is no error: [`Svd::info`] marks its matrix.
pub fn truncated(a: &Tensor, rank: Rank, options: &Options) -> Result<Svd> {
    let device = a.device();
    check_input(a, rank)?;
    let mut out = Svd::zeros(a.shape(), rank.columns(), &device)?;
    truncated_into(a, rank, options, &mut out, &mut Scratch::new(&device))?;
    Ok(out)
}

/// [`truncated`] into an existing `out`, with working memory from `scratch`.
/// On devices the verdicts are read back, so the call waits for the device and cannot be captured in a graph yet.
///
/// # Errors
/// As [`truncated`]; [`Error::Shape`] as well when `out` has other shapes (see [`Svd::zeros`]) or shares its memory,
/// [`Error::Device`] when `out` or `scratch` is of another device.
pub fn truncated_into(a: &Tensor, rank: Rank, options: &Options, out: &mut Svd, scratch: &mut Scratch) -> Result<()> {
    let sizes = check_input(a, rank)?;
    check_output(a, &sizes, out)?;
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
pub fn scratch_bytes(shape: &[usize], columns: usize, device: &Device) -> Result<usize> {
    let sizes = Sizes::new(shape, columns, device)?;
    match device.kind() {
        Kind::Cpu => Ok(cpu::scratch_bytes(sizes)),
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

fn check_output(a: &Tensor, sizes: &Sizes, out: &Svd) -> Result<()> {
    let leading = &a.shape()[..a.shape().len() - 2];
    let pairs: [(&str, &Tensor, &[usize]); 3] =
        [("u", &out.u, &[sizes.m, sizes.columns]), ("s", &out.s, &[sizes.columns]), ("v", &out.v, &[sizes.n, sizes.columns])];
    for (name, tensor, tail) in pairs {
        let expected = [leading, tail].concat();
        if tensor.shape() != expected {
            return Err(Error::shape(OP, format!("out.{name} {:?}", tensor.shape()), format!("{expected:?}")));
        }
        if tensor.dtype() != Dtype::F32 {
            return Err(Error::Dtype { op: OP, found: tensor.dtype(), expected: &[Dtype::F32] });
        }
        if tensor.device() != a.device() {
            return Err(Error::device(format!("{OP}: out.{name} on {}", tensor.device()), format!("put it on {}", a.device())));
        }
    }
    Ok(())
}
