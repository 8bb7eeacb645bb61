//! Made by `tools/bindings` from `kernels/nn/params.h`.

use crate::device::Address;

#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct AddParams {
    /// [count], added to in place
    pub(crate) x: Address,
    /// [count]
    pub(crate) y: Address,
    pub(crate) count: i64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AddParams"][::core::mem::size_of::<AddParams>() - 24usize];
    ["Alignment of AddParams"][::core::mem::align_of::<AddParams>() - 8usize];
    ["Offset of field: AddParams::x"][::core::mem::offset_of!(AddParams, x) - 0usize];
    ["Offset of field: AddParams::y"][::core::mem::offset_of!(AddParams, y) - 8usize];
    ["Offset of field: AddParams::count"][::core::mem::offset_of!(AddParams, count) - 16usize];
};
