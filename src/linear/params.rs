//! Made by `tools/bindings` from `kernels/linear/params.h`.

use crate::device::Address;

/// y = x W' + bias; grid [n / outputs of a block, chunks of 8 rows]
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct FactorParams {
    /// [rows, k]
    pub(crate) x: Address,
    /// f32|f16|bf16 [n, k]
    pub(crate) weight: Address,
    /// [n]; null for none
    pub(crate) bias: Address,
    /// [rows, n]
    pub(crate) y: Address,
    pub(crate) rows: i32,
    pub(crate) n: i32,
    pub(crate) k: i32,
    pub(crate) unused: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of FactorParams"][::core::mem::size_of::<FactorParams>() - 48usize];
    ["Alignment of FactorParams"][::core::mem::align_of::<FactorParams>() - 8usize];
    ["Offset of field: FactorParams::x"][::core::mem::offset_of!(FactorParams, x) - 0usize];
    ["Offset of field: FactorParams::weight"][::core::mem::offset_of!(FactorParams, weight) - 8usize];
    ["Offset of field: FactorParams::bias"][::core::mem::offset_of!(FactorParams, bias) - 16usize];
    ["Offset of field: FactorParams::y"][::core::mem::offset_of!(FactorParams, y) - 24usize];
    ["Offset of field: FactorParams::rows"][::core::mem::offset_of!(FactorParams, rows) - 32usize];
    ["Offset of field: FactorParams::n"][::core::mem::offset_of!(FactorParams, n) - 36usize];
    ["Offset of field: FactorParams::k"][::core::mem::offset_of!(FactorParams, k) - 40usize];
    ["Offset of field: FactorParams::unused"][::core::mem::offset_of!(FactorParams, unused) - 44usize];
};
