//! Made by `tools/bindings` from `kernels/svd/params.h`.

use crate::device::Address;

pub(crate) const SVD_CHUNK_ROWS: u32 = 1024;
pub(crate) const SVD_OPEN: u32 = 0;
pub(crate) const SVD_CHOSEN: u32 = 1;
pub(crate) const SVD_SKEWED: u32 = 2;
pub(crate) const SVD_SINGLE: u32 = 3;
pub(crate) const SVD_DOUBLE: u32 = 4;
pub(crate) const SVD_ZERO: u32 = 5;
pub(crate) const SVD_NON_FINITE: u32 = 6;
pub(crate) const SVD_STUCK: u32 = 7;
pub(crate) const SVD_JACOBI: u32 = 8;
pub(crate) const SVD_SKETCHED: u32 = 16;
pub(crate) const SVD_SHARED_ALL: u32 = 1;
pub(crate) const SVD_ROTATED: u32 = 1;
pub(crate) const SVD_ARRANGED: u32 = 2;
pub(crate) const SVD_F32: u32 = 0;
pub(crate) const SVD_F16: u32 = 1;
pub(crate) const SVD_BF16: u32 = 2;
pub(crate) const SVD_PROJECTED: u32 = 64;
/// What became of a matrix.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct SvdVerdict {
    pub(crate) state: u32,
    /// columns in use
    pub(crate) rank: i32,
    /// ||A - A~|| / ||A||
    pub(crate) tail: f32,
    /// SVD_ROTATED, SVD_ARRANGED
    pub(crate) notes: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SvdVerdict"][::core::mem::size_of::<SvdVerdict>() - 16usize];
    ["Alignment of SvdVerdict"][::core::mem::align_of::<SvdVerdict>() - 4usize];
    ["Offset of field: SvdVerdict::state"][::core::mem::offset_of!(SvdVerdict, state) - 0usize];
    ["Offset of field: SvdVerdict::rank"][::core::mem::offset_of!(SvdVerdict, rank) - 4usize];
    ["Offset of field: SvdVerdict::tail"][::core::mem::offset_of!(SvdVerdict, tail) - 8usize];
    ["Offset of field: SvdVerdict::notes"][::core::mem::offset_of!(SvdVerdict, notes) - 12usize];
};
/// A'A of every matrix whose state is `wanted`.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct GramParams {
    /// [batch, rows, columns] f32|bf16|f16
    pub(crate) a: Address,
    /// [batch]
    pub(crate) verdicts: Address,
    /// [batch, gridDim.x, columns (columns + 1) / 2] lower triangles
    pub(crate) partials: Address,
    pub(crate) row_stride: i64,
    pub(crate) column_stride: i64,
    /// from a matrix to the next one,
    pub(crate) inner_stride: i64,
    /// and from `inner` matrices to the next so many
    pub(crate) outer_stride: i64,
    pub(crate) inner: i32,
    /// place of the first matrix among all that the strides lead to
    pub(crate) first: i32,
    pub(crate) rows: i32,
    pub(crate) columns: i32,
    pub(crate) wanted: u32,
    /// every matrix is wanted, whatever its state
    pub(crate) all: i32,
    /// matrices have the columns of their rank
    pub(crate) by_rank: i32,
    /// rows are whole aligned segments of 16 bytes
    pub(crate) dense: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GramParams"][::core::mem::size_of::<GramParams>() - 88usize];
    ["Alignment of GramParams"][::core::mem::align_of::<GramParams>() - 8usize];
    ["Offset of field: GramParams::a"][::core::mem::offset_of!(GramParams, a) - 0usize];
    ["Offset of field: GramParams::verdicts"][::core::mem::offset_of!(GramParams, verdicts) - 8usize];
    ["Offset of field: GramParams::partials"][::core::mem::offset_of!(GramParams, partials) - 16usize];
    ["Offset of field: GramParams::row_stride"][::core::mem::offset_of!(GramParams, row_stride) - 24usize];
    ["Offset of field: GramParams::column_stride"][::core::mem::offset_of!(GramParams, column_stride) - 32usize];
    ["Offset of field: GramParams::inner_stride"][::core::mem::offset_of!(GramParams, inner_stride) - 40usize];
    ["Offset of field: GramParams::outer_stride"][::core::mem::offset_of!(GramParams, outer_stride) - 48usize];
    ["Offset of field: GramParams::inner"][::core::mem::offset_of!(GramParams, inner) - 56usize];
    ["Offset of field: GramParams::first"][::core::mem::offset_of!(GramParams, first) - 60usize];
    ["Offset of field: GramParams::rows"][::core::mem::offset_of!(GramParams, rows) - 64usize];
    ["Offset of field: GramParams::columns"][::core::mem::offset_of!(GramParams, columns) - 68usize];
    ["Offset of field: GramParams::wanted"][::core::mem::offset_of!(GramParams, wanted) - 72usize];
    ["Offset of field: GramParams::all"][::core::mem::offset_of!(GramParams, all) - 76usize];
    ["Offset of field: GramParams::by_rank"][::core::mem::offset_of!(GramParams, by_rank) - 80usize];
    ["Offset of field: GramParams::dense"][::core::mem::offset_of!(GramParams, dense) - 84usize];
};
/// Everything after A'A, for one rung of the ladder.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct SvdParams {
    /// [batch, rows, width] f32|bf16|f16
    pub(crate) a: Address,
    /// [batch, rows, columns] in tall_dtype: the tall factor on its way
    pub(crate) tall: Address,
    /// [batch, rows, columns] in factors
    pub(crate) out_tall: Address,
    /// [batch, columns]; null: not wanted
    pub(crate) s: Address,
    /// [batch, width, columns] in factors
    pub(crate) small: Address,
    /// [batch, partial_sums, ..] lower triangles of A'A
    pub(crate) partials: Address,
    /// [batch, chunks, ..] lower triangles of tall' tall
    pub(crate) moments: Address,
    /// [batch] blocks that have projected their rows
    pub(crate) arrivals: Address,
    /// [batch, work_stride] what svd_solve has no room for in shared memory
    pub(crate) work: Address,
    /// [blocks of svd_rotate, ..] vectors and triangle of the matrix that it is at
    pub(crate) rotated: Address,
    /// [batch, columns, width] eigenvectors in rows
    pub(crate) basis: Address,
    /// [batch, columns] eigenvalues: estimates of s^2
    pub(crate) values: Address,
    /// [batch] sum of squares
    pub(crate) energy: Address,
    /// [batch, columns, columns] what tall is multiplied by to become orthonormal and ordered
    pub(crate) mix: Address,
    /// [batch]
    pub(crate) verdicts: Address,
    pub(crate) row_stride: i64,
    pub(crate) column_stride: i64,
    pub(crate) inner_stride: i64,
    pub(crate) outer_stride: i64,
    /// bytes
    pub(crate) work_stride: i64,
    /// tolerated error; negative: every matrix keeps `columns`
    pub(crate) relative: f64,
    pub(crate) inner: i32,
    pub(crate) first: i32,
    pub(crate) rows: i32,
    pub(crate) width: i32,
    pub(crate) columns: i32,
    pub(crate) chunks: i32,
    /// of each matrix
    pub(crate) partial_sums: i32,
    /// SVD_F32..
    pub(crate) factors: u32,
    pub(crate) tall_dtype: u32,
    /// SVD_SINGLE, SVD_DOUBLE or SVD_JACOBI
    pub(crate) rung: u32,
    /// SVD_SHARED_ALL or 0
    pub(crate) solve_shared: u32,
    /// matrices
    pub(crate) count: i32,
    /// this rung is the first: the verdicts hold nothing yet
    pub(crate) fresh: i32,
    /// the first rung is taken as it comes
    pub(crate) fast: i32,
    /// tall is V, whose signs are to be fixed, and not U
    pub(crate) wide: i32,
    /// rows of A are whole aligned segments of 16 bytes
    pub(crate) dense: i32,
    /// svd_project does what svd_finish and svd_mix do
    pub(crate) fused: i32,
    /// by s: it is A V
    pub(crate) tall_is_scaled: i32,
    /// by s
    pub(crate) small_is_scaled: i32,
    pub(crate) values_only: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SvdParams"][::core::mem::size_of::<SvdParams>() - 248usize];
    ["Alignment of SvdParams"][::core::mem::align_of::<SvdParams>() - 8usize];
    ["Offset of field: SvdParams::a"][::core::mem::offset_of!(SvdParams, a) - 0usize];
    ["Offset of field: SvdParams::tall"][::core::mem::offset_of!(SvdParams, tall) - 8usize];
    ["Offset of field: SvdParams::out_tall"][::core::mem::offset_of!(SvdParams, out_tall) - 16usize];
    ["Offset of field: SvdParams::s"][::core::mem::offset_of!(SvdParams, s) - 24usize];
    ["Offset of field: SvdParams::small"][::core::mem::offset_of!(SvdParams, small) - 32usize];
    ["Offset of field: SvdParams::partials"][::core::mem::offset_of!(SvdParams, partials) - 40usize];
    ["Offset of field: SvdParams::moments"][::core::mem::offset_of!(SvdParams, moments) - 48usize];
    ["Offset of field: SvdParams::arrivals"][::core::mem::offset_of!(SvdParams, arrivals) - 56usize];
    ["Offset of field: SvdParams::work"][::core::mem::offset_of!(SvdParams, work) - 64usize];
    ["Offset of field: SvdParams::rotated"][::core::mem::offset_of!(SvdParams, rotated) - 72usize];
    ["Offset of field: SvdParams::basis"][::core::mem::offset_of!(SvdParams, basis) - 80usize];
    ["Offset of field: SvdParams::values"][::core::mem::offset_of!(SvdParams, values) - 88usize];
    ["Offset of field: SvdParams::energy"][::core::mem::offset_of!(SvdParams, energy) - 96usize];
    ["Offset of field: SvdParams::mix"][::core::mem::offset_of!(SvdParams, mix) - 104usize];
    ["Offset of field: SvdParams::verdicts"][::core::mem::offset_of!(SvdParams, verdicts) - 112usize];
    ["Offset of field: SvdParams::row_stride"][::core::mem::offset_of!(SvdParams, row_stride) - 120usize];
    ["Offset of field: SvdParams::column_stride"][::core::mem::offset_of!(SvdParams, column_stride) - 128usize];
    ["Offset of field: SvdParams::inner_stride"][::core::mem::offset_of!(SvdParams, inner_stride) - 136usize];
    ["Offset of field: SvdParams::outer_stride"][::core::mem::offset_of!(SvdParams, outer_stride) - 144usize];
    ["Offset of field: SvdParams::work_stride"][::core::mem::offset_of!(SvdParams, work_stride) - 152usize];
    ["Offset of field: SvdParams::relative"][::core::mem::offset_of!(SvdParams, relative) - 160usize];
    ["Offset of field: SvdParams::inner"][::core::mem::offset_of!(SvdParams, inner) - 168usize];
    ["Offset of field: SvdParams::first"][::core::mem::offset_of!(SvdParams, first) - 172usize];
    ["Offset of field: SvdParams::rows"][::core::mem::offset_of!(SvdParams, rows) - 176usize];
    ["Offset of field: SvdParams::width"][::core::mem::offset_of!(SvdParams, width) - 180usize];
    ["Offset of field: SvdParams::columns"][::core::mem::offset_of!(SvdParams, columns) - 184usize];
    ["Offset of field: SvdParams::chunks"][::core::mem::offset_of!(SvdParams, chunks) - 188usize];
    ["Offset of field: SvdParams::partial_sums"][::core::mem::offset_of!(SvdParams, partial_sums) - 192usize];
    ["Offset of field: SvdParams::factors"][::core::mem::offset_of!(SvdParams, factors) - 196usize];
    ["Offset of field: SvdParams::tall_dtype"][::core::mem::offset_of!(SvdParams, tall_dtype) - 200usize];
    ["Offset of field: SvdParams::rung"][::core::mem::offset_of!(SvdParams, rung) - 204usize];
    ["Offset of field: SvdParams::solve_shared"][::core::mem::offset_of!(SvdParams, solve_shared) - 208usize];
    ["Offset of field: SvdParams::count"][::core::mem::offset_of!(SvdParams, count) - 212usize];
    ["Offset of field: SvdParams::fresh"][::core::mem::offset_of!(SvdParams, fresh) - 216usize];
    ["Offset of field: SvdParams::fast"][::core::mem::offset_of!(SvdParams, fast) - 220usize];
    ["Offset of field: SvdParams::wide"][::core::mem::offset_of!(SvdParams, wide) - 224usize];
    ["Offset of field: SvdParams::dense"][::core::mem::offset_of!(SvdParams, dense) - 228usize];
    ["Offset of field: SvdParams::fused"][::core::mem::offset_of!(SvdParams, fused) - 232usize];
    ["Offset of field: SvdParams::tall_is_scaled"][::core::mem::offset_of!(SvdParams, tall_is_scaled) - 236usize];
    ["Offset of field: SvdParams::small_is_scaled"][::core::mem::offset_of!(SvdParams, small_is_scaled) - 240usize];
    ["Offset of field: SvdParams::values_only"][::core::mem::offset_of!(SvdParams, values_only) - 244usize];
};
