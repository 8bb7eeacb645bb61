//! Masks over weights: which elements of a matrix stay, chosen by magnitude, and their application.

mod cpu;
mod gpu;
mod params;

use crate::{Device, Dtype, Error, Result, Scratch, Tensor, device::Kind};

const MASK: &str = "sparse::mask";
const APPLY: &str = "sparse::apply";
const DTYPES: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];

/// The largest m of [`Scope::Pattern`].
pub const MAX_PATTERN: usize = 32;

/// Among which elements the largest magnitudes are kept. Of equal magnitudes the one that comes first in row-major
/// order is kept, so that the number kept is exact and the same on every device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `keep` of every row.
    Row {
        /// Elements kept in a row, at most its length.
        keep: usize,
    },
    /// `n` of every `m` consecutive elements of a row. A last group that is shorter keeps up to `n` as well.
    Pattern {
        /// Elements kept of a group, at most `m`.
        n: usize,
        /// Length of a group, 1..=[`MAX_PATTERN`].
        m: usize,
    },
    /// `keep` of the whole matrix, which has fewer than 2^32 elements.
    Tensor {
        /// Elements kept, at most as many as there are.
        keep: usize,
    },
}

/// One bit for each element of a matrix: set where the element is kept.
///
/// A row takes [`Mask::row_bytes`], a multiple of four: column c is bit c % 32 of its little-endian 32-bit word c / 32,
/// which is bit c % 8 of its byte c / 8. Bits past the last column are zero.
#[derive(Clone, Debug)]
pub struct Mask {
    bits: Tensor,
    cols: usize,
}

impl Mask {
    /// A mask that keeps nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] when the size wraps, [`Error::Device`] when the memory is not to be had.
    pub fn zeros(rows: usize, cols: usize, device: &Device) -> Result<Self> {
        Ok(Self { bits: Tensor::zeros(&[rows, row_bytes(cols)], Dtype::I8, device)?, cols })
    }

    /// A mask for matrices of `cols` columns from bits that were made elsewhere, int8 [rows, row_bytes]. Bits past the
    /// last column are not looked at.
    ///
    /// # Errors
    /// [`Error::Shape`] when `bits` is not a contiguous [rows, row_bytes] that starts on a whole word; [`Error::Dtype`]
    /// when it is not int8.
    pub fn from_bits(bits: Tensor, cols: usize) -> Result<Self> {
        if bits.dtype() != Dtype::I8 {
            return Err(Error::Dtype { op: MASK, found: bits.dtype(), expected: &[Dtype::I8] });
        }
        match bits.shape() {
            &[_, bytes] if bytes == row_bytes(cols) && bits.is_contiguous() && bits.address().get().is_multiple_of(4) => {
                Ok(Self { bits, cols })
            }
            shape => {
                let found = format!("bits {shape:?} with strides {:?}", bits.strides());
                Err(Error::shape(
                    MASK,
                    found,
                    format!("a contiguous [rows, {}] for {cols} columns, on whole words", row_bytes(cols)),
                ))
            }
        }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.bits.shape()[0]
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bits as int8 [rows, row_bytes], in the layout that [`Mask`] describes.
    pub fn bits(&self) -> &Tensor {
        &self.bits
    }

    /// Bytes of a row, padding included.
    pub fn row_bytes(&self) -> usize {
        row_bytes(self.cols)
    }

    /// Whether each element is kept, in row-major order, copied to the host.
    ///
    /// # Errors
    /// [`Error::Device`] when the copy fails.
    pub fn to_bools(&self) -> Result<Vec<bool>> {
        let bytes = self.bits.to_vec::<i8>()?;
        let row = |bits: &[i8]| (0..self.cols).map(|c| bits[c / 8] >> (c % 8) & 1 == 1).collect::<Vec<_>>();
        Ok(bytes.chunks(self.row_bytes().max(1)).flat_map(row).collect())
    }

    /// The mask on `device`, itself when it is there.
    ///
    /// # Errors
    /// As [`Tensor::to_device`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { bits: self.bits.to_device(device)?, cols: self.cols })
    }

    /// Where the mask lies.
    pub fn device(&self) -> Device {
        self.bits.device()
    }
}

fn row_bytes(cols: usize) -> usize {
    cols.div_ceil(32) * 4
}

/// The mask that keeps the largest magnitudes of `scores` [rows, cols], f32, f16 or bf16.
///
/// Rows may lie anywhere; only the last axis must have stride 1. Minus zero and zero are equal, an infinity is larger
/// than every number, and nothing is rounded: the mask is exact.
///
/// ```
/// use lowkey::{Device, Tensor, sparse};
/// let weights = Tensor::from_slice(&[3.0f32, -4.0, 0.5, 4.0], &[1, 4], &Device::cpu())?;
/// let mask = sparse::mask(&weights, sparse::Scope::Pattern { n: 2, m: 4 })?;
/// assert_eq!(sparse::apply(&weights, &mask)?.to_f32_vec()?, [0.0, -4.0, 0.0, 4.0]);
/// # Ok::<(), lowkey::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `scores` is not a matrix, its last axis has gaps, or more is to be kept than there is;
/// [`Error::Dtype`] for other dtypes; [`Error::Numeric`] that names the first NaN; [`Error::Device`] when memory runs
/// out, and off the CPU for patterns of other than 4 or 8.
pub fn mask(scores: &Tensor, scope: Scope) -> Result<Mask> {
    let [rows, cols] = check_scores(scores, scope)?;
    let device = scores.device();
    let mut out = Mask::zeros(rows, cols, &device)?;
    mask_into(&mut out, scores, scope, &mut Scratch::new(&device))?;
    Ok(out)
}

/// [`mask`] into an existing `out`, with working memory from `scratch`. After an error the content of `out` means
/// nothing. It waits for the device to learn whether there was a NaN.
///
/// # Errors
/// As [`mask`]; [`Error::Shape`] as well when `out` is for other extents or shares its memory; [`Error::Device`] as well
/// while a graph is captured, or when `out` or `scratch` is of another device.
pub fn mask_into(out: &mut Mask, scores: &Tensor, scope: Scope, scratch: &mut Scratch) -> Result<()> {
    let [rows, cols] = check_scores(scores, scope)?;
    if [out.rows(), out.cols()] != [rows, cols] {
        let found = format!("out for {} x {}", out.rows(), out.cols());
        return Err(Error::shape(MASK, found, format!("a mask for {rows} x {cols}")));
    }
    same_device(MASK, "out", &out.bits, scores)?;
    if scores.is_empty() {
        return Ok(());
    }
    match scores.device().kind() {
        Kind::Cpu => cpu::mask(out, scores, scope, scratch),
        _ => gpu::mask(out, scores, scope, scratch),
    }
}

/// Bytes of scratch that [`mask_into`] takes for a matrix of `rows` x `cols`; on the CPU, on as many threads as the
/// current pool has.
pub fn scratch_bytes(rows: usize, cols: usize, scope: Scope, device: &Device) -> usize {
    match device.kind() {
        Kind::Cpu => cpu::scratch_bytes(rows, cols, scope),
        _ => gpu::scratch_bytes(rows, scope),
    }
}

/// `weights` [rows, cols] (f32, f16 or bf16) with zeros where `mask` keeps nothing; what it keeps is unchanged.
///
/// # Errors
/// [`Error::Shape`] when the mask is for other extents or the last axis of `weights` has gaps; [`Error::Dtype`] for
/// other dtypes; [`Error::Device`] when the two lie on different devices or memory runs out.
pub fn apply(weights: &Tensor, mask: &Mask) -> Result<Tensor> {
    check_matrix(APPLY, "weights", weights)?;
    let mut out = Tensor::zeros(weights.shape(), weights.dtype(), &weights.device())?;
    apply_into(&mut out, weights, mask)?;
    Ok(out)
}

/// [`apply`] into a contiguous `out` of the same shape and dtype, whose old content is lost. No scratch is needed.
///
/// # Errors
/// As [`apply`]; [`Error::Shape`] as well when `out` has another shape, has gaps, or shares its memory.
pub fn apply_into(out: &mut Tensor, weights: &Tensor, mask: &Mask) -> Result<()> {
    let shape = check_matrix(APPLY, "weights", weights)?;
    if [mask.rows(), mask.cols()] != shape {
        let found = format!("weights {:?}, a mask for {} x {}", weights.shape(), mask.rows(), mask.cols());
        return Err(Error::shape(APPLY, found, "a mask for the extents of the weights"));
    }
    if out.shape() != shape || !out.is_contiguous() {
        let found = format!("out {:?} with strides {:?}", out.shape(), out.strides());
        return Err(Error::shape(APPLY, found, format!("a contiguous {shape:?}")));
    }
    if out.dtype() != weights.dtype() {
        return Err(Error::shape(APPLY, format!("out of {}", out.dtype()), format!("{} as the weights", weights.dtype())));
    }
    same_device(APPLY, "out", out, weights)?;
    same_device(APPLY, "mask", &mask.bits, weights)?;
    if weights.is_empty() {
        return Ok(());
    }
    match weights.device().kind() {
        Kind::Cpu => cpu::apply(out, weights, mask),
        _ => gpu::apply(out, weights, mask),
    }
}

/// The bits of an infinite score without its sign; larger ones are NaN.
fn infinity(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => f32::INFINITY.to_bits(),
        Dtype::F16 => half::f16::INFINITY.to_bits().into(),
        _ => half::bf16::INFINITY.to_bits().into(),
    }
}

fn nan_at(index: usize, cols: usize) -> Error {
    Error::Numeric { op: MASK, what: format!("the score at row {}, column {} is NaN", index / cols, index % cols) }
}

fn check_scores(scores: &Tensor, scope: Scope) -> Result<[usize; 2]> {
    let [rows, cols] = check_matrix(MASK, "scores", scores)?;
    let (keep, most) = match scope {
        Scope::Row { keep } => (keep, cols),
        Scope::Tensor { keep } if u32::try_from(rows * cols).is_ok() => (keep, rows * cols),
        Scope::Tensor { .. } => {
            return Err(Error::shape(MASK, format!("{rows} x {cols} scores"), "fewer than 2^32 for one mask over all of them"));
        }
        Scope::Pattern { n, m } if (1..=MAX_PATTERN).contains(&m) => (n, m),
        Scope::Pattern { n, m } => {
            return Err(Error::shape(MASK, format!("the pattern {n}:{m}"), format!("groups of 1..={MAX_PATTERN}")));
        }
    };
    if keep > most {
        return Err(Error::shape(MASK, format!("keep {keep} of {most} in scores {:?}", scores.shape()), format!("0..={most}")));
    }
    Ok([rows, cols])
}

fn check_matrix(op: &'static str, name: &str, matrix: &Tensor) -> Result<[usize; 2]> {
    if !DTYPES.contains(&matrix.dtype()) {
        return Err(Error::Dtype { op, found: matrix.dtype(), expected: DTYPES });
    }
    match (matrix.shape(), matrix.strides()) {
        (&[rows, cols], &[_, stride]) if cols <= 1 || stride == 1 => Ok([rows, cols]),
        (shape, strides) => {
            let found = format!("{name} {shape:?} with strides {strides:?}");
            Err(Error::shape(op, found, "[rows, cols] with stride 1 along the columns"))
        }
    }
}

fn same_device(op: &'static str, name: &str, tensor: &Tensor, as_this: &Tensor) -> Result<()> {
    if tensor.device() == as_this.device() {
        return Ok(());
    }
    Err(Error::device(format!("{op}: {name} on {}", tensor.device()), format!("put it on {}", as_this.device())))
}
