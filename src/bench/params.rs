//! Made by `tools/bindings` from `kernels/bench/params.h`.

use crate::device::Address;

#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct ReadParams {
    /// [count] of 16 bytes
    pub(crate) data: Address,
    /// [blocks, threads]
    pub(crate) sums: Address,
    pub(crate) count: i64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ReadParams"][::core::mem::size_of::<ReadParams>() - 24usize];
    ["Alignment of ReadParams"][::core::mem::align_of::<ReadParams>() - 8usize];
    ["Offset of field: ReadParams::data"][::core::mem::offset_of!(ReadParams, data) - 0usize];
    ["Offset of field: ReadParams::sums"][::core::mem::offset_of!(ReadParams, sums) - 8usize];
    ["Offset of field: ReadParams::count"][::core::mem::offset_of!(ReadParams, count) - 16usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct MultiplyParams {
    /// [blocks, threads]
    pub(crate) sums: Address,
    pub(crate) steps: i32,
    /// two bf16, every element of both operands
    pub(crate) pair: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of MultiplyParams"][::core::mem::size_of::<MultiplyParams>() - 16usize];
    ["Alignment of MultiplyParams"][::core::mem::align_of::<MultiplyParams>() - 8usize];
    ["Offset of field: MultiplyParams::sums"][::core::mem::offset_of!(MultiplyParams, sums) - 0usize];
    ["Offset of field: MultiplyParams::steps"][::core::mem::offset_of!(MultiplyParams, steps) - 8usize];
    ["Offset of field: MultiplyParams::pair"][::core::mem::offset_of!(MultiplyParams, pair) - 12usize];
};
