//! Masks on devices. Kernels see scores as integers: those of 16 bits are alike but for the bits of infinity.

use super::{
    APPLY, MASK, Mask, Scope, infinity, nan_at,
    params::{ApplyParams, CountParams, PatternParams, PickParams, ScanParams, SelectParams, Selection, TiesParams},
};
use crate::{
    Device, Dtype, Error, Result, Scratch, Tensor,
    device::{Address, Grid, Kernel},
};

mod kernels {
    use super::super::params::*;
    use crate::device::Kernel;
    include!(concat!(env!("OUT_DIR"), "/sparse.rs"));
}

const THREADS: u32 = 256;
/// Bits of a digit, as in `select.cuh`.
const DIGIT_BITS: i32 = 11;
/// Shared memory of a selection: counts, sums of warps, and the selection.
const SELECT_SHARED: usize = (4 << DIGIT_BITS) + 4 * 8 + size_of::<Selection>();
/// Rows that take at most this much shared memory, with the selection's, are read from global memory once.
const STAGED_SHARED: usize = 64 << 10;
/// Columns that a block of `sparse_count` counts, as in `select_tensor.cu`, and the most blocks along the rows.
const COUNTED_COLUMNS: usize = 1 << 16;
const COUNTING_BLOCKS: usize = 1 << 10;
/// Kernels count rows and columns in 32 bits, with room for a grid's stride.
const MOST: usize = 1 << 30;

/// What lies in the scratch: the least index of a NaN, and for a selection over the matrix its state, the counts of a
/// digit, and the ties of each row.
const SELECTION: usize = 8;
const COUNTS: usize = SELECTION + size_of::<Selection>();
const TIES: usize = COUNTS + (4 << DIGIT_BITS);

pub(super) fn scratch_bytes(rows: usize, scope: Scope) -> usize {
    match scope {
        Scope::Tensor { .. } => TIES + 4 * rows,
        Scope::Row { .. } | Scope::Pattern { .. } => SELECTION,
    }
}

/// A call's kernels and arguments.
struct Call<'a> {
    device: &'a Device,
    scores: &'a Tensor,
    rows: u32,
    cols: i32,
    bits: Address,
    row_bytes: i32,
    /// The scratch, see [`SELECTION`] and the others.
    first_nan: Address,
}

pub(super) fn mask(out: &mut Mask, scores: &Tensor, scope: Scope, scratch: &mut Scratch) -> Result<()> {
    let [rows, cols] = extents(MASK, scores)?;
    let row_bytes = out.row_bytes() as i32;
    let device = scores.device();
    let memory = scratch.buffer(&device, scratch_bytes(rows as usize, scope))?;
    memory.write_on(&device, 0, &u64::MAX.to_ne_bytes())?;
    if let Scope::Tensor { keep } = scope {
        // No selection is of nothing: sparse_select_row itself keeps none where none is to be kept.
        let selection = Selection { key: 0, left: (keep as u32).max(1) };
        memory.write_on(&device, SELECTION, bytemuck::bytes_of(&selection))?;
        memory.write_on(&device, COUNTS, &[0; 4 << DIGIT_BITS])?;
    }
    let call = Call {
        device: &device,
        scores,
        rows,
        cols: cols as i32,
        bits: out.bits.address_mut(MASK)?,
        row_bytes,
        first_nan: memory.address(),
    };
    match scope {
        Scope::Row { keep } => call.select(keep, false)?,
        Scope::Tensor { keep } => {
            call.threshold()?;
            call.select(keep, true)?;
        }
        Scope::Pattern { n, m } => call.pattern(n, m)?,
    }
    let mut first_nan = [0; 8];
    memory.read_on(&device, 0, &mut first_nan)?;
    match u64::from_ne_bytes(first_nan) {
        u64::MAX => Ok(()),
        at => Err(nan_at(at as usize, cols as usize)),
    }
}

impl Call<'_> {
    fn row_stride(&self) -> i64 {
        self.scores.strides()[0] as i64
    }

    /// The kernel for elements of 32 or 16 bits.
    fn by_width<P>(&self, of_32: Kernel<P>, of_16: Kernel<P>) -> Kernel<P> {
        if self.scores.dtype() == Dtype::F32 { of_32 } else { of_16 }
    }

    /// A block per row: selects in the row, or, `with_threshold`, by the threshold of the matrix.
    fn select(&self, keep: usize, with_threshold: bool) -> Result<()> {
        let shared = SELECT_SHARED + self.scores.dtype().bytes_of(self.cols as usize);
        let staged = !with_threshold && shared <= STAGED_SHARED;
        let of_matrix = |at: usize| if with_threshold { self.first_nan.offset(at) } else { Address::NULL };
        let kernel = self.by_width(kernels::SPARSE_SELECT_ROW_32, kernels::SPARSE_SELECT_ROW_16);
        let grid = Grid { blocks: [self.rows, 1, 1], threads: THREADS, shared: if staged { shared } else { SELECT_SHARED } };
        let params = SelectParams {
            scores: self.scores.address(),
            bits: self.bits,
            first_nan: self.first_nan,
            selection: of_matrix(SELECTION),
            ties_before: of_matrix(TIES),
            row_stride: self.row_stride(),
            cols: self.cols,
            keep: keep as u32,
            infinity: infinity(self.scores.dtype()),
            staged: staged.into(),
        };
        self.device.launch(&kernel, grid, &params)
    }

    /// The threshold of the matrix, and how many keys equal to it lie before each row.
    fn threshold(&self) -> Result<()> {
        let (selection, counts, ties) =
            (self.first_nan.offset(SELECTION), self.first_nan.offset(COUNTS), self.first_nan.offset(TIES));
        let grid = |blocks: [u32; 2]| Grid { blocks: [blocks[0], blocks[1], 1], threads: THREADS, shared: SELECT_SHARED };
        let counting = [self.rows.min(COUNTING_BLOCKS as u32), (self.cols as u32).div_ceil(COUNTED_COLUMNS as u32)];
        let count = self.by_width(kernels::SPARSE_COUNT_32, kernels::SPARSE_COUNT_16);
        let (scores, row_stride, rows, cols) = (self.scores.address(), self.row_stride(), self.rows as i32, self.cols);
        let mut top = self.scores.dtype().bits() as i32 - 1;
        while top > 0 {
            let infinity = infinity(self.scores.dtype());
            let params =
                CountParams { scores, selection, counts, first_nan: self.first_nan, row_stride, rows, cols, infinity, top };
            self.device.launch(&count, grid(counting), &params)?;
            let params = PickParams { counts, selection, top, pad: 0 };
            self.device.launch(&kernels::SPARSE_PICK, grid([1, 1]), &params)?;
            top = (top - DIGIT_BITS).max(0);
        }
        let kernel = self.by_width(kernels::SPARSE_TIES_32, kernels::SPARSE_TIES_16);
        let params = TiesParams { scores, selection, ties, row_stride, cols, pad: 0 };
        self.device.launch(&kernel, grid([self.rows, 1]), &params)?;
        self.device.launch(&kernels::SPARSE_SCAN_TIES, grid([1, 1]), &ScanParams { ties, rows, pad: 0 })
    }

    fn pattern(&self, n: usize, m: usize) -> Result<()> {
        let kernel = match m {
            4 => self.by_width(kernels::SPARSE_PATTERN_OF4_32, kernels::SPARSE_PATTERN_OF4_16),
            8 => self.by_width(kernels::SPARSE_PATTERN_OF8_32, kernels::SPARSE_PATTERN_OF8_16),
            _ => {
                let found = format!("{MASK}: no kernel for the pattern {n}:{m} on {}", self.device);
                return Err(Error::device(found, "use groups of 4 or 8, or the CPU"));
            }
        };
        let params = PatternParams {
            scores: self.scores.address(),
            bits: self.bits,
            first_nan: self.first_nan,
            row_stride: self.row_stride(),
            rows: self.rows as i32,
            cols: self.cols,
            row_bytes: self.row_bytes,
            keep: n as i32,
            infinity: infinity(self.scores.dtype()),
            pad: 0,
        };
        self.device.launch(&kernel, thread_per_byte(MASK, self.rows, self.row_bytes)?, &params)
    }
}

pub(super) fn apply(out: &mut Tensor, weights: &Tensor, mask: &Mask) -> Result<()> {
    let [rows, cols] = extents(APPLY, weights)?;
    let row_bytes = mask.row_bytes() as i32;
    let params = ApplyParams {
        weights: weights.address(),
        bits: mask.bits.address(),
        out: out.address_mut(APPLY)?,
        row_stride: weights.strides()[0] as i64,
        rows: rows as i32,
        cols: cols as i32,
        row_bytes,
        pad: 0,
    };
    let kernel = match weights.dtype() {
        Dtype::F32 => kernels::SPARSE_APPLY_32,
        _ => kernels::SPARSE_APPLY_16,
    };
    weights.device().launch(&kernel, thread_per_byte(APPLY, rows, row_bytes)?, &params)
}

fn extents(op: &'static str, matrix: &Tensor) -> Result<[u32; 2]> {
    match *matrix.shape() {
        [rows, cols] if rows.max(cols) <= MOST => Ok([rows as u32, cols as u32]),
        _ => Err(too_large(op, matrix.shape())),
    }
}

fn too_large(op: &'static str, shape: &[usize]) -> Error {
    Error::shape(
        op,
        format!("{shape:?}"),
        format!("at most {MOST} rows and columns, and a mask of fewer than 2^32 bytes, on a device"),
    )
}

/// A grid with a thread for each byte of a mask.
fn thread_per_byte(op: &'static str, rows: u32, row_bytes: i32) -> Result<Grid> {
    match rows.checked_mul(row_bytes as u32).and_then(|bytes| bytes.checked_next_multiple_of(THREADS)) {
        Some(threads) => Ok(Grid { blocks: [threads / THREADS, 1, 1], threads: THREADS, shared: 0 }),
        None => Err(too_large(op, &[rows as usize, row_bytes as usize * 8])),
    }
}
