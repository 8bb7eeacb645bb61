//! Made by `tools/bindings` from `kernels/sparse/params.h`.

use crate::device::Address;

/// Progress of a selection over a whole matrix.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Selection {
    /// upper digits of the threshold, all of them at the end
    pub(crate) key: u32,
    /// how many of the keys that share them are to be kept, at least one
    pub(crate) left: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Selection"][::core::mem::size_of::<Selection>() - 8usize];
    ["Alignment of Selection"][::core::mem::align_of::<Selection>() - 4usize];
    ["Offset of field: Selection::key"][::core::mem::offset_of!(Selection, key) - 0usize];
    ["Offset of field: Selection::left"][::core::mem::offset_of!(Selection, left) - 4usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct CountParams {
    /// [rows, cols] f32|f16|bf16, rows row_stride elements apart
    pub(crate) scores: Address,
    /// Selection
    pub(crate) selection: Address,
    /// [2048], added to
    pub(crate) counts: Address,
    /// [1] least row-major index of a NaN
    pub(crate) first_nan: Address,
    pub(crate) row_stride: i64,
    pub(crate) rows: i32,
    pub(crate) cols: i32,
    pub(crate) infinity: u32,
    /// bits of the key below those that are known
    pub(crate) top: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CountParams"][::core::mem::size_of::<CountParams>() - 56usize];
    ["Alignment of CountParams"][::core::mem::align_of::<CountParams>() - 8usize];
    ["Offset of field: CountParams::scores"][::core::mem::offset_of!(CountParams, scores) - 0usize];
    ["Offset of field: CountParams::selection"][::core::mem::offset_of!(CountParams, selection) - 8usize];
    ["Offset of field: CountParams::counts"][::core::mem::offset_of!(CountParams, counts) - 16usize];
    ["Offset of field: CountParams::first_nan"][::core::mem::offset_of!(CountParams, first_nan) - 24usize];
    ["Offset of field: CountParams::row_stride"][::core::mem::offset_of!(CountParams, row_stride) - 32usize];
    ["Offset of field: CountParams::rows"][::core::mem::offset_of!(CountParams, rows) - 40usize];
    ["Offset of field: CountParams::cols"][::core::mem::offset_of!(CountParams, cols) - 44usize];
    ["Offset of field: CountParams::infinity"][::core::mem::offset_of!(CountParams, infinity) - 48usize];
    ["Offset of field: CountParams::top"][::core::mem::offset_of!(CountParams, top) - 52usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct PickParams {
    /// [2048], set to zero for the next digit
    pub(crate) counts: Address,
    /// Selection
    pub(crate) selection: Address,
    pub(crate) top: i32,
    pub(crate) pad: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PickParams"][::core::mem::size_of::<PickParams>() - 24usize];
    ["Alignment of PickParams"][::core::mem::align_of::<PickParams>() - 8usize];
    ["Offset of field: PickParams::counts"][::core::mem::offset_of!(PickParams, counts) - 0usize];
    ["Offset of field: PickParams::selection"][::core::mem::offset_of!(PickParams, selection) - 8usize];
    ["Offset of field: PickParams::top"][::core::mem::offset_of!(PickParams, top) - 16usize];
    ["Offset of field: PickParams::pad"][::core::mem::offset_of!(PickParams, pad) - 20usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct TiesParams {
    /// [rows, cols] f32|f16|bf16, rows row_stride elements apart
    pub(crate) scores: Address,
    /// Selection
    pub(crate) selection: Address,
    /// [rows] keys equal to the threshold
    pub(crate) ties: Address,
    pub(crate) row_stride: i64,
    pub(crate) cols: i32,
    pub(crate) pad: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TiesParams"][::core::mem::size_of::<TiesParams>() - 40usize];
    ["Alignment of TiesParams"][::core::mem::align_of::<TiesParams>() - 8usize];
    ["Offset of field: TiesParams::scores"][::core::mem::offset_of!(TiesParams, scores) - 0usize];
    ["Offset of field: TiesParams::selection"][::core::mem::offset_of!(TiesParams, selection) - 8usize];
    ["Offset of field: TiesParams::ties"][::core::mem::offset_of!(TiesParams, ties) - 16usize];
    ["Offset of field: TiesParams::row_stride"][::core::mem::offset_of!(TiesParams, row_stride) - 24usize];
    ["Offset of field: TiesParams::cols"][::core::mem::offset_of!(TiesParams, cols) - 32usize];
    ["Offset of field: TiesParams::pad"][::core::mem::offset_of!(TiesParams, pad) - 36usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct ScanParams {
    /// [rows], replaced by the sum over the rows before
    pub(crate) ties: Address,
    pub(crate) rows: i32,
    pub(crate) pad: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ScanParams"][::core::mem::size_of::<ScanParams>() - 16usize];
    ["Alignment of ScanParams"][::core::mem::align_of::<ScanParams>() - 8usize];
    ["Offset of field: ScanParams::ties"][::core::mem::offset_of!(ScanParams, ties) - 0usize];
    ["Offset of field: ScanParams::rows"][::core::mem::offset_of!(ScanParams, rows) - 8usize];
    ["Offset of field: ScanParams::pad"][::core::mem::offset_of!(ScanParams, pad) - 12usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct SelectParams {
    /// [rows, cols] f32|f16|bf16, rows row_stride elements apart
    pub(crate) scores: Address,
    /// [rows, words]
    pub(crate) bits: Address,
    /// [1] least row-major index of a NaN
    pub(crate) first_nan: Address,
    /// Selection over the whole matrix; null: a selection in each row
    pub(crate) selection: Address,
    /// [rows] keys equal to the threshold in the rows before; null without selection
    pub(crate) ties_before: Address,
    pub(crate) row_stride: i64,
    pub(crate) cols: i32,
    /// of a row, or of the matrix
    pub(crate) keep: u32,
    pub(crate) infinity: u32,
    /// whether shared memory has room for a row; never with a selection
    pub(crate) staged: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SelectParams"][::core::mem::size_of::<SelectParams>() - 64usize];
    ["Alignment of SelectParams"][::core::mem::align_of::<SelectParams>() - 8usize];
    ["Offset of field: SelectParams::scores"][::core::mem::offset_of!(SelectParams, scores) - 0usize];
    ["Offset of field: SelectParams::bits"][::core::mem::offset_of!(SelectParams, bits) - 8usize];
    ["Offset of field: SelectParams::first_nan"][::core::mem::offset_of!(SelectParams, first_nan) - 16usize];
    ["Offset of field: SelectParams::selection"][::core::mem::offset_of!(SelectParams, selection) - 24usize];
    ["Offset of field: SelectParams::ties_before"][::core::mem::offset_of!(SelectParams, ties_before) - 32usize];
    ["Offset of field: SelectParams::row_stride"][::core::mem::offset_of!(SelectParams, row_stride) - 40usize];
    ["Offset of field: SelectParams::cols"][::core::mem::offset_of!(SelectParams, cols) - 48usize];
    ["Offset of field: SelectParams::keep"][::core::mem::offset_of!(SelectParams, keep) - 52usize];
    ["Offset of field: SelectParams::infinity"][::core::mem::offset_of!(SelectParams, infinity) - 56usize];
    ["Offset of field: SelectParams::staged"][::core::mem::offset_of!(SelectParams, staged) - 60usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct PatternParams {
    /// [rows, cols] f32|f16|bf16, rows row_stride elements apart
    pub(crate) scores: Address,
    /// [rows, row_bytes]
    pub(crate) bits: Address,
    /// [1] least row-major index of a NaN
    pub(crate) first_nan: Address,
    pub(crate) row_stride: i64,
    pub(crate) rows: i32,
    pub(crate) cols: i32,
    pub(crate) row_bytes: i32,
    /// of each group
    pub(crate) keep: i32,
    pub(crate) infinity: u32,
    pub(crate) pad: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PatternParams"][::core::mem::size_of::<PatternParams>() - 56usize];
    ["Alignment of PatternParams"][::core::mem::align_of::<PatternParams>() - 8usize];
    ["Offset of field: PatternParams::scores"][::core::mem::offset_of!(PatternParams, scores) - 0usize];
    ["Offset of field: PatternParams::bits"][::core::mem::offset_of!(PatternParams, bits) - 8usize];
    ["Offset of field: PatternParams::first_nan"][::core::mem::offset_of!(PatternParams, first_nan) - 16usize];
    ["Offset of field: PatternParams::row_stride"][::core::mem::offset_of!(PatternParams, row_stride) - 24usize];
    ["Offset of field: PatternParams::rows"][::core::mem::offset_of!(PatternParams, rows) - 32usize];
    ["Offset of field: PatternParams::cols"][::core::mem::offset_of!(PatternParams, cols) - 36usize];
    ["Offset of field: PatternParams::row_bytes"][::core::mem::offset_of!(PatternParams, row_bytes) - 40usize];
    ["Offset of field: PatternParams::keep"][::core::mem::offset_of!(PatternParams, keep) - 44usize];
    ["Offset of field: PatternParams::infinity"][::core::mem::offset_of!(PatternParams, infinity) - 48usize];
    ["Offset of field: PatternParams::pad"][::core::mem::offset_of!(PatternParams, pad) - 52usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct ApplyParams {
    /// [rows, cols] f32|f16|bf16, rows row_stride elements apart
    pub(crate) weights: Address,
    /// [rows, row_bytes]
    pub(crate) bits: Address,
    /// [rows, cols] as the weights, contiguous
    pub(crate) out: Address,
    pub(crate) row_stride: i64,
    pub(crate) rows: i32,
    pub(crate) cols: i32,
    pub(crate) row_bytes: i32,
    pub(crate) pad: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ApplyParams"][::core::mem::size_of::<ApplyParams>() - 48usize];
    ["Alignment of ApplyParams"][::core::mem::align_of::<ApplyParams>() - 8usize];
    ["Offset of field: ApplyParams::weights"][::core::mem::offset_of!(ApplyParams, weights) - 0usize];
    ["Offset of field: ApplyParams::bits"][::core::mem::offset_of!(ApplyParams, bits) - 8usize];
    ["Offset of field: ApplyParams::out"][::core::mem::offset_of!(ApplyParams, out) - 16usize];
    ["Offset of field: ApplyParams::row_stride"][::core::mem::offset_of!(ApplyParams, row_stride) - 24usize];
    ["Offset of field: ApplyParams::rows"][::core::mem::offset_of!(ApplyParams, rows) - 32usize];
    ["Offset of field: ApplyParams::cols"][::core::mem::offset_of!(ApplyParams, cols) - 36usize];
    ["Offset of field: ApplyParams::row_bytes"][::core::mem::offset_of!(ApplyParams, row_bytes) - 40usize];
    ["Offset of field: ApplyParams::pad"][::core::mem::offset_of!(ApplyParams, pad) - 44usize];
};
