//! Made by `tools/bindings` from `kernels/conformance/params.h`.

use lowkey::device::Address;

#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct ConformanceParams {
    /// 32-bit words, see each kernel
    pub(crate) input: Address,
    /// 32-bit words, see each kernel
    pub(crate) output: Address,
    /// tensor map of a bf16 matrix, tiles [64, 64] with 128-byte swizzle, or null
    pub(crate) map: Address,
    /// cases
    pub(crate) count: i32,
    pub(crate) mode: i32,
    /// of a tile: first column
    pub(crate) x: i32,
    /// of a tile: first row
    pub(crate) y: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ConformanceParams"][::core::mem::size_of::<ConformanceParams>() - 40usize];
    ["Alignment of ConformanceParams"][::core::mem::align_of::<ConformanceParams>() - 8usize];
    ["Offset of field: ConformanceParams::input"][::core::mem::offset_of!(ConformanceParams, input) - 0usize];
    ["Offset of field: ConformanceParams::output"][::core::mem::offset_of!(ConformanceParams, output) - 8usize];
    ["Offset of field: ConformanceParams::map"][::core::mem::offset_of!(ConformanceParams, map) - 16usize];
    ["Offset of field: ConformanceParams::count"][::core::mem::offset_of!(ConformanceParams, count) - 24usize];
    ["Offset of field: ConformanceParams::mode"][::core::mem::offset_of!(ConformanceParams, mode) - 28usize];
    ["Offset of field: ConformanceParams::x"][::core::mem::offset_of!(ConformanceParams, x) - 32usize];
    ["Offset of field: ConformanceParams::y"][::core::mem::offset_of!(ConformanceParams, y) - 36usize];
};
