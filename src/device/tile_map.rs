//! What Hopper's copy engine is told about a matrix.

use bytemuck::{Pod, Zeroable};

use super::Device;
use crate::{Dtype, Error, Result, Tensor};

/// A matrix in a device's memory, as its copy engine takes tiles from it: a member of a kernel's parameters, or copied to
/// memory, from which a kernel uses it after `fence_tensor_map`. Rows of a tile are swizzled in shared memory by 128 bytes, as `wgmma` reads them.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TileMap(pub(super) [u64; 16]);

/// What a map says, checked.
#[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(dead_code, reason = "read by backends with kernels"))]
pub(super) struct Tiles {
    pub(super) address: u64,
    pub(super) dtype: Dtype,
    pub(super) rows: u64,
    pub(super) columns: u64,
    pub(super) row_bytes: u64,
    pub(super) tile: [u32; 2],
}

/// Bytes of a row of a tile: the swizzle's span.
const SPAN: usize = 128;

impl TileMap {
    /// Tiles of `rows` x 64 elements of a bf16 or f16 matrix [rows, columns] whose rows begin on multiples of 16 bytes. Elements
    /// beyond the matrix are read as zeros and not written.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape or alignment or tiles of more than 256 rows, [`Error::Dtype`] for other dtypes,
    /// [`Error::Device`] when the device has no such engine.
    pub fn new(matrix: &Tensor, rows: usize) -> Result<Self> {
        const OP: &str = "TileMap::new";
        const DTYPES: &[Dtype] = &[Dtype::F16, Dtype::BF16];
        if !DTYPES.contains(&matrix.dtype()) {
            return Err(Error::Dtype { op: OP, found: matrix.dtype(), expected: DTYPES });
        }
        let address = matrix.address().get();
        let (&[m, n], &[stride, 1]) = (matrix.shape(), matrix.strides()) else {
            let found = format!("{:?} with strides {:?}", matrix.shape(), matrix.strides());
            return Err(Error::shape(OP, found, "a matrix whose rows have no gaps"));
        };
        let row_bytes = matrix.dtype().bytes_of(stride);
        if m == 0 || n == 0 || !row_bytes.is_multiple_of(16) || !address.is_multiple_of(16) || !(1..=256).contains(&rows) {
            let found = format!("{m} x {n} at {address:#x} with rows of {row_bytes} bytes, tiles of {rows} rows");
            return Err(Error::shape(OP, found, "rows and address at multiples of 16 bytes, 1..=256 rows"));
        }
        let tiles = Tiles {
            address,
            dtype: matrix.dtype(),
            rows: m as u64,
            columns: n as u64,
            row_bytes: row_bytes as u64,
            tile: [rows as u32, (SPAN / 2) as u32],
        };
        let device: Device = matrix.device();
        device.inner.backend.tile_map(&tiles)
    }
}
