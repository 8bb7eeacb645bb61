//! Made by `tools/bindings` from `kernels/svd/params.h`.

use crate::device::Address;

/// A'A of every matrix whose state is `wanted`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct GramParams {
    /// [batch, rows, columns] f32|bf16|f16
    pub(crate) a: Address,
    /// [batch]; null: every matrix is wanted
    pub(crate) state: Address,
    /// [batch] columns in use of each matrix; null: all
    pub(crate) rank: Address,
    /// [batch, chunks, columns (columns + 1) / 2] lower triangles
    pub(crate) partials: Address,
    pub(crate) row_stride: i64,
    pub(crate) column_stride: i64,
    /// from a matrix to the next one,
    pub(crate) inner_stride: i64,
    /// and from `inner` matrices to the next so many
    pub(crate) outer_stride: i64,
    pub(crate) inner: i32,
    pub(crate) rows: i32,
    pub(crate) columns: i32,
    pub(crate) wanted: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GramParams"][::core::mem::size_of::<GramParams>() - 80usize];
    ["Alignment of GramParams"][::core::mem::align_of::<GramParams>() - 8usize];
    ["Offset of field: GramParams::a"][::core::mem::offset_of!(GramParams, a) - 0usize];
    ["Offset of field: GramParams::state"][::core::mem::offset_of!(GramParams, state) - 8usize];
    ["Offset of field: GramParams::rank"][::core::mem::offset_of!(GramParams, rank) - 16usize];
    ["Offset of field: GramParams::partials"][::core::mem::offset_of!(GramParams, partials) - 24usize];
    ["Offset of field: GramParams::row_stride"][::core::mem::offset_of!(GramParams, row_stride) - 32usize];
    ["Offset of field: GramParams::column_stride"][::core::mem::offset_of!(GramParams, column_stride) - 40usize];
    ["Offset of field: GramParams::inner_stride"][::core::mem::offset_of!(GramParams, inner_stride) - 48usize];
    ["Offset of field: GramParams::outer_stride"][::core::mem::offset_of!(GramParams, outer_stride) - 56usize];
    ["Offset of field: GramParams::inner"][::core::mem::offset_of!(GramParams, inner) - 64usize];
    ["Offset of field: GramParams::rows"][::core::mem::offset_of!(GramParams, rows) - 68usize];
    ["Offset of field: GramParams::columns"][::core::mem::offset_of!(GramParams, columns) - 72usize];
    ["Offset of field: GramParams::wanted"][::core::mem::offset_of!(GramParams, wanted) - 76usize];
};
/// Everything after A'A, for one rung of the ladder.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct FactorParams {
    /// [batch, rows, width] f32|bf16|f16
    pub(crate) a: Address,
    /// [batch, rows, columns]
    pub(crate) tall: Address,
    /// [batch, columns]
    pub(crate) s: Address,
    /// [batch, width, columns]
    pub(crate) small: Address,
    /// [batch, chunks, ..] lower triangles: A'A, then the moments tall' tall
    pub(crate) partials: Address,
    /// [batch, width, width]; null where shared memory holds them
    pub(crate) vectors: Address,
    /// [batch, columns, width] eigenvectors in rows
    pub(crate) basis: Address,
    /// [batch, columns] eigenvalues: estimates of s^2
    pub(crate) values: Address,
    /// [batch] sum of squares
    pub(crate) energy: Address,
    /// [batch, columns, columns] what tall is multiplied by to become orthonormal and ordered
    pub(crate) mix: Address,
    /// [batch]
    pub(crate) tail: Address,
    /// [batch]
    pub(crate) state: Address,
    /// [batch]
    pub(crate) rank: Address,
    pub(crate) row_stride: i64,
    pub(crate) column_stride: i64,
    pub(crate) inner_stride: i64,
    pub(crate) outer_stride: i64,
    /// tolerated error; negative: every matrix keeps `columns`
    pub(crate) relative: f64,
    pub(crate) inner: i32,
    pub(crate) rows: i32,
    pub(crate) width: i32,
    pub(crate) columns: i32,
    pub(crate) chunks: i32,
    /// SVD_SINGLE or SVD_DOUBLE
    pub(crate) rung: i32,
    /// this rung is the first: `state` holds nothing yet
    pub(crate) first: i32,
    /// tall is V, whose signs are to be fixed, and not U
    pub(crate) wide: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of FactorParams"][::core::mem::size_of::<FactorParams>() - 176usize];
    ["Alignment of FactorParams"][::core::mem::align_of::<FactorParams>() - 8usize];
    ["Offset of field: FactorParams::a"][::core::mem::offset_of!(FactorParams, a) - 0usize];
    ["Offset of field: FactorParams::tall"][::core::mem::offset_of!(FactorParams, tall) - 8usize];
    ["Offset of field: FactorParams::s"][::core::mem::offset_of!(FactorParams, s) - 16usize];
    ["Offset of field: FactorParams::small"][::core::mem::offset_of!(FactorParams, small) - 24usize];
    ["Offset of field: FactorParams::partials"][::core::mem::offset_of!(FactorParams, partials) - 32usize];
    ["Offset of field: FactorParams::vectors"][::core::mem::offset_of!(FactorParams, vectors) - 40usize];
    ["Offset of field: FactorParams::basis"][::core::mem::offset_of!(FactorParams, basis) - 48usize];
    ["Offset of field: FactorParams::values"][::core::mem::offset_of!(FactorParams, values) - 56usize];
    ["Offset of field: FactorParams::energy"][::core::mem::offset_of!(FactorParams, energy) - 64usize];
    ["Offset of field: FactorParams::mix"][::core::mem::offset_of!(FactorParams, mix) - 72usize];
    ["Offset of field: FactorParams::tail"][::core::mem::offset_of!(FactorParams, tail) - 80usize];
    ["Offset of field: FactorParams::state"][::core::mem::offset_of!(FactorParams, state) - 88usize];
    ["Offset of field: FactorParams::rank"][::core::mem::offset_of!(FactorParams, rank) - 96usize];
    ["Offset of field: FactorParams::row_stride"][::core::mem::offset_of!(FactorParams, row_stride) - 104usize];
    ["Offset of field: FactorParams::column_stride"][::core::mem::offset_of!(FactorParams, column_stride) - 112usize];
    ["Offset of field: FactorParams::inner_stride"][::core::mem::offset_of!(FactorParams, inner_stride) - 120usize];
    ["Offset of field: FactorParams::outer_stride"][::core::mem::offset_of!(FactorParams, outer_stride) - 128usize];
    ["Offset of field: FactorParams::relative"][::core::mem::offset_of!(FactorParams, relative) - 136usize];
    ["Offset of field: FactorParams::inner"][::core::mem::offset_of!(FactorParams, inner) - 144usize];
    ["Offset of field: FactorParams::rows"][::core::mem::offset_of!(FactorParams, rows) - 148usize];
    ["Offset of field: FactorParams::width"][::core::mem::offset_of!(FactorParams, width) - 152usize];
    ["Offset of field: FactorParams::columns"][::core::mem::offset_of!(FactorParams, columns) - 156usize];
    ["Offset of field: FactorParams::chunks"][::core::mem::offset_of!(FactorParams, chunks) - 160usize];
    ["Offset of field: FactorParams::rung"][::core::mem::offset_of!(FactorParams, rung) - 164usize];
    ["Offset of field: FactorParams::first"][::core::mem::offset_of!(FactorParams, first) - 168usize];
    ["Offset of field: FactorParams::wide"][::core::mem::offset_of!(FactorParams, wide) - 172usize];
};
