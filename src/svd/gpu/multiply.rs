//! Products of batches of matrices in f64, and the moments by which columns are made orthonormal.

use super::{THREADS, kernels};
use crate::{
    Device, Result,
    device::{Address, Grid},
    svd::params::{MultiplyParams, SVD_DEPTH, SVD_F64, SVD_OPEN, SVD_PANEL, SVD_TILE, SvdOperand, TriangleParams},
};

const TILE: usize = SVD_TILE as usize;
pub(super) const PANEL: usize = SVD_PANEL as usize;
/// Two tiles, a row of which is one element longer to spread columns over the banks.
const MULTIPLY_SHARED: usize = 2 * SVD_DEPTH as usize * (TILE + 1) * size_of::<f64>();
const TRIANGLE_SHARED: usize = 4 * PANEL * (PANEL + 1) * size_of::<f64>();

impl SvdOperand {
    /// Matrices of `rows` x `columns`, row by row and one after another.
    pub(super) fn dense(at: Address, dtype: u32, rows: usize, columns: usize) -> Self {
        Self {
            at,
            row_stride: columns as i64,
            column_stride: 1,
            inner_stride: (rows * columns) as i64,
            outer_stride: 0,
            inner: i64::MAX,
            first: 0,
            dtype,
        }
    }

    pub(super) fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }
}

/// C [rows, columns] = A [rows, depth] B [depth, columns], wherever those lie, in sums of the whole depth.
pub(super) fn product(a: SvdOperand, b: SvdOperand, c: SvdOperand, [rows, columns, depth]: [usize; 3]) -> MultiplyParams {
    MultiplyParams {
        a,
        b,
        c,
        verdicts: Address::NULL,
        scales: Address::NULL,
        seed: 0,
        part_stride: 0,
        part: depth.next_multiple_of(SVD_DEPTH as usize) as i32,
        rows: rows as i32,
        columns: columns as i32,
        depth: depth as i32,
        wanted: SVD_OPEN,
        lower: 0,
        packed: 0,
        subtract: 0,
    }
}

pub(super) fn multiply(device: &Device, params: &MultiplyParams, count: usize) -> Result<()> {
    let tiles = |extent: i32| (extent as usize).div_ceil(TILE);
    let (rows, columns) = (tiles(params.rows), tiles(params.columns));
    let blocks = if params.lower != 0 { super::triangle(rows) } else { rows * columns };
    let parts = (params.depth as usize).div_ceil(params.part as usize);
    let grid = Grid { blocks: [blocks as u32, count as u32, parts as u32], threads: THREADS, shared: MULTIPLY_SHARED };
    device.launch(&kernels::SVD_MULTIPLY, grid, params)
}

/// The moments X'X of matrices [rows, columns], as [`orthonormalize`] takes them.
pub(super) fn moments(device: &Device, params: &TriangleParams, count: usize) -> Result<()> {
    let (rows, columns) = (params.rows as usize, params.columns as usize);
    let mut x = SvdOperand::dense(params.x, params.dtype, rows, columns);
    (x.row_stride, x.inner_stride) = (i64::from(params.stride), params.next);
    let moments = SvdOperand::dense(params.moments, SVD_F64, columns, columns);
    let params = MultiplyParams {
        lower: 1,
        verdicts: params.verdicts,
        wanted: params.wanted,
        ..product(x.transposed(), x, moments, [columns, columns, rows])
    };
    multiply(device, &params, count)
}

/// X = X L'^-1 for its moments L L'.
pub(super) fn orthonormalize(device: &Device, params: &TriangleParams, count: usize) -> Result<()> {
    let panels = (params.columns as usize).div_ceil(PANEL);
    let blocks = |x: usize| Grid { blocks: [x as u32, count as u32, 1], threads: THREADS, shared: TRIANGLE_SHARED };
    for panel in 0..panels {
        let params = TriangleParams { panel: panel as i32, ..*params };
        device.launch(&kernels::SVD_CHOLESKY, blocks(panels - panel), &params)?;
    }
    device.launch(&kernels::SVD_DIVIDE, blocks((params.rows as usize).div_ceil(PANEL)), params)
}
