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
pub(crate) const SVD_SLANTED: u32 = 9;
pub(crate) const SVD_SKETCHED: u32 = 16;
pub(crate) const SVD_SHARED_ALL: u32 = 1;
pub(crate) const SVD_ROTATED: u32 = 1;
pub(crate) const SVD_ARRANGED: u32 = 2;
pub(crate) const SVD_F32: u32 = 0;
pub(crate) const SVD_F16: u32 = 1;
pub(crate) const SVD_BF16: u32 = 2;
pub(crate) const SVD_F64: u32 = 3;
pub(crate) const SVD_SIGNS: u32 = 4;
pub(crate) const SVD_PROJECTED: u32 = 64;
pub(crate) const SVD_TILE: u32 = 64;
pub(crate) const SVD_DEPTH: u32 = 16;
pub(crate) const SVD_PANEL: u32 = 32;
pub(crate) const SVD_AHEAD: u32 = 4;
pub(crate) const SVD_LINES: u32 = 8;
pub(crate) const SVD_REDUCED_ROWS: u32 = 32;
pub(crate) const SVD_PIVOT: f64 = 0.25;
pub(crate) const SVD_LEAST_DIAGONAL: f64 = 0.0001;
pub(crate) const SVD_WEIGHT_FLOOR: f64 = 0.000001;
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
/// A factor of a product, or the product: a batch of matrices.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct SvdOperand {
    pub(crate) at: Address,
    pub(crate) row_stride: i64,
    pub(crate) column_stride: i64,
    /// from a matrix to the next one,
    pub(crate) inner_stride: i64,
    /// and from `inner` matrices to the next so many
    pub(crate) outer_stride: i64,
    pub(crate) inner: i64,
    /// place of the first matrix among all that the strides lead to
    pub(crate) first: i32,
    /// SVD_F32..; signs are one row after another in the bits of Philox, whose number the strides lead to
    pub(crate) dtype: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SvdOperand"][::core::mem::size_of::<SvdOperand>() - 56usize];
    ["Alignment of SvdOperand"][::core::mem::align_of::<SvdOperand>() - 8usize];
    ["Offset of field: SvdOperand::at"][::core::mem::offset_of!(SvdOperand, at) - 0usize];
    ["Offset of field: SvdOperand::row_stride"][::core::mem::offset_of!(SvdOperand, row_stride) - 8usize];
    ["Offset of field: SvdOperand::column_stride"][::core::mem::offset_of!(SvdOperand, column_stride) - 16usize];
    ["Offset of field: SvdOperand::inner_stride"][::core::mem::offset_of!(SvdOperand, inner_stride) - 24usize];
    ["Offset of field: SvdOperand::outer_stride"][::core::mem::offset_of!(SvdOperand, outer_stride) - 32usize];
    ["Offset of field: SvdOperand::inner"][::core::mem::offset_of!(SvdOperand, inner) - 40usize];
    ["Offset of field: SvdOperand::first"][::core::mem::offset_of!(SvdOperand, first) - 48usize];
    ["Offset of field: SvdOperand::dtype"][::core::mem::offset_of!(SvdOperand, dtype) - 52usize];
};
/// C = A B for every matrix whose state is `wanted`, with sums in f64.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct MultiplyParams {
    /// [batch, rows, depth]
    pub(crate) a: SvdOperand,
    /// [batch, depth, columns]
    pub(crate) b: SvdOperand,
    /// [batch, rows, columns]
    pub(crate) c: SvdOperand,
    /// [batch]; null: all are wanted
    pub(crate) verdicts: Address,
    /// [batch, columns] that columns of C are multiplied by; null: none
    pub(crate) scales: Address,
    /// of signs
    pub(crate) seed: u64,
    /// from one partial sum of C to the next
    pub(crate) part_stride: i64,
    /// depth of a partial sum: a multiple of SVD_DEPTH
    pub(crate) part: i32,
    pub(crate) rows: i32,
    pub(crate) columns: i32,
    pub(crate) depth: i32,
    pub(crate) wanted: u32,
    /// C is symmetric: its lower triangle is all that is made,
    pub(crate) lower: i32,
    /// and stored without gaps
    pub(crate) packed: i32,
    /// C = C - A B
    pub(crate) subtract: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of MultiplyParams"][::core::mem::size_of::<MultiplyParams>() - 232usize];
    ["Alignment of MultiplyParams"][::core::mem::align_of::<MultiplyParams>() - 8usize];
    ["Offset of field: MultiplyParams::a"][::core::mem::offset_of!(MultiplyParams, a) - 0usize];
    ["Offset of field: MultiplyParams::b"][::core::mem::offset_of!(MultiplyParams, b) - 56usize];
    ["Offset of field: MultiplyParams::c"][::core::mem::offset_of!(MultiplyParams, c) - 112usize];
    ["Offset of field: MultiplyParams::verdicts"][::core::mem::offset_of!(MultiplyParams, verdicts) - 168usize];
    ["Offset of field: MultiplyParams::scales"][::core::mem::offset_of!(MultiplyParams, scales) - 176usize];
    ["Offset of field: MultiplyParams::seed"][::core::mem::offset_of!(MultiplyParams, seed) - 184usize];
    ["Offset of field: MultiplyParams::part_stride"][::core::mem::offset_of!(MultiplyParams, part_stride) - 192usize];
    ["Offset of field: MultiplyParams::part"][::core::mem::offset_of!(MultiplyParams, part) - 200usize];
    ["Offset of field: MultiplyParams::rows"][::core::mem::offset_of!(MultiplyParams, rows) - 204usize];
    ["Offset of field: MultiplyParams::columns"][::core::mem::offset_of!(MultiplyParams, columns) - 208usize];
    ["Offset of field: MultiplyParams::depth"][::core::mem::offset_of!(MultiplyParams, depth) - 212usize];
    ["Offset of field: MultiplyParams::wanted"][::core::mem::offset_of!(MultiplyParams, wanted) - 216usize];
    ["Offset of field: MultiplyParams::lower"][::core::mem::offset_of!(MultiplyParams, lower) - 220usize];
    ["Offset of field: MultiplyParams::packed"][::core::mem::offset_of!(MultiplyParams, packed) - 224usize];
    ["Offset of field: MultiplyParams::subtract"][::core::mem::offset_of!(MultiplyParams, subtract) - 228usize];
};
/// Moments X'X = L L', and X L'^-1, whose columns are orthonormal.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct TriangleParams {
    /// [batch, columns, columns] lower triangles: X'X, and below its tiles on the diagonal L
    pub(crate) moments: Address,
    /// [batch, panels, SVD_PANEL, SVD_PANEL] tiles on the diagonal of L
    pub(crate) corners: Address,
    /// [batch, columns] squared lengths that columns have beside those before, as shares of what they had
    pub(crate) pivots: Address,
    /// [batch, columns] the diagonal of L
    pub(crate) lengths: Address,
    /// [batch, rows, columns], rows `stride` elements apart and matrices `next`
    pub(crate) x: Address,
    pub(crate) next: i64,
    /// [batch]
    pub(crate) verdicts: Address,
    /// pivots from which on X is divided
    pub(crate) least: f64,
    /// moments below count as no pivot at all
    pub(crate) least_diagonal: f32,
    /// of X: SVD_F32 or SVD_F64
    pub(crate) dtype: u32,
    pub(crate) wanted: u32,
    pub(crate) rows: i32,
    pub(crate) columns: i32,
    pub(crate) stride: i32,
    /// that is factorized
    pub(crate) panel: i32,
    /// columns whose pivot is not above this are replaced by random signs where svd_refill is run,
    pub(crate) noise: f32,
    /// which this gives
    pub(crate) seed: u64,
    /// together with this
    pub(crate) stream: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TriangleParams"][::core::mem::size_of::<TriangleParams>() - 112usize];
    ["Alignment of TriangleParams"][::core::mem::align_of::<TriangleParams>() - 8usize];
    ["Offset of field: TriangleParams::moments"][::core::mem::offset_of!(TriangleParams, moments) - 0usize];
    ["Offset of field: TriangleParams::corners"][::core::mem::offset_of!(TriangleParams, corners) - 8usize];
    ["Offset of field: TriangleParams::pivots"][::core::mem::offset_of!(TriangleParams, pivots) - 16usize];
    ["Offset of field: TriangleParams::lengths"][::core::mem::offset_of!(TriangleParams, lengths) - 24usize];
    ["Offset of field: TriangleParams::x"][::core::mem::offset_of!(TriangleParams, x) - 32usize];
    ["Offset of field: TriangleParams::next"][::core::mem::offset_of!(TriangleParams, next) - 40usize];
    ["Offset of field: TriangleParams::verdicts"][::core::mem::offset_of!(TriangleParams, verdicts) - 48usize];
    ["Offset of field: TriangleParams::least"][::core::mem::offset_of!(TriangleParams, least) - 56usize];
    ["Offset of field: TriangleParams::least_diagonal"][::core::mem::offset_of!(TriangleParams, least_diagonal) - 64usize];
    ["Offset of field: TriangleParams::dtype"][::core::mem::offset_of!(TriangleParams, dtype) - 68usize];
    ["Offset of field: TriangleParams::wanted"][::core::mem::offset_of!(TriangleParams, wanted) - 72usize];
    ["Offset of field: TriangleParams::rows"][::core::mem::offset_of!(TriangleParams, rows) - 76usize];
    ["Offset of field: TriangleParams::columns"][::core::mem::offset_of!(TriangleParams, columns) - 80usize];
    ["Offset of field: TriangleParams::stride"][::core::mem::offset_of!(TriangleParams, stride) - 84usize];
    ["Offset of field: TriangleParams::panel"][::core::mem::offset_of!(TriangleParams, panel) - 88usize];
    ["Offset of field: TriangleParams::noise"][::core::mem::offset_of!(TriangleParams, noise) - 92usize];
    ["Offset of field: TriangleParams::seed"][::core::mem::offset_of!(TriangleParams, seed) - 96usize];
    ["Offset of field: TriangleParams::stream"][::core::mem::offset_of!(TriangleParams, stream) - 104usize];
};
/// Matrices of more columns than one block has room for.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct BroadParams {
    pub(crate) svd: SvdParams,
    /// [batch, width, width] A'A over its trace, and what the reduction has left of it
    pub(crate) square: Address,
    /// [batch, width (width + 1) / 2] their vectors in the rows of lower triangles
    pub(crate) reflections: Address,
    /// [batch, SVD_LINES, width]
    pub(crate) lines: Address,
    /// [batch] what scaled eigenvalues are multiplied by
    pub(crate) scale: Address,
    /// [batch, width, columns] eigenvectors of the tridiagonal matrix
    pub(crate) vectors: Address,
    /// [batch, ceil(columns / SVD_PANEL), 2, width, SVD_PANEL]
    pub(crate) elimination: Address,
    /// [batch, ceil(columns / SVD_PANEL), width, SVD_PANEL]
    pub(crate) swaps: Address,
    /// [batch, columns] of the tridiagonal matrix
    pub(crate) eigenvalues: Address,
    /// [batch, columns] 1 for eigenvectors that are that to rounding
    pub(crate) exact: Address,
    /// [batch, columns] 1 / s
    pub(crate) scales: Address,
    /// [batch, columns], and
    pub(crate) pivots: Address,
    /// [batch, columns] as TriangleParams has them
    pub(crate) lengths: Address,
    /// [batch, columns] s,
    pub(crate) singular: Address,
    /// [batch, columns] where columns come from when s descends,
    pub(crate) order: Address,
    /// [batch, columns] and what they are multiplied by
    pub(crate) signs: Address,
    /// row that svd_broad_reduce takes
    pub(crate) step: i32,
    /// that have room in the shared memory of svd_broad_turn
    pub(crate) warps: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of BroadParams"][::core::mem::size_of::<BroadParams>() - 376usize];
    ["Alignment of BroadParams"][::core::mem::align_of::<BroadParams>() - 8usize];
    ["Offset of field: BroadParams::svd"][::core::mem::offset_of!(BroadParams, svd) - 0usize];
    ["Offset of field: BroadParams::square"][::core::mem::offset_of!(BroadParams, square) - 248usize];
    ["Offset of field: BroadParams::reflections"][::core::mem::offset_of!(BroadParams, reflections) - 256usize];
    ["Offset of field: BroadParams::lines"][::core::mem::offset_of!(BroadParams, lines) - 264usize];
    ["Offset of field: BroadParams::scale"][::core::mem::offset_of!(BroadParams, scale) - 272usize];
    ["Offset of field: BroadParams::vectors"][::core::mem::offset_of!(BroadParams, vectors) - 280usize];
    ["Offset of field: BroadParams::elimination"][::core::mem::offset_of!(BroadParams, elimination) - 288usize];
    ["Offset of field: BroadParams::swaps"][::core::mem::offset_of!(BroadParams, swaps) - 296usize];
    ["Offset of field: BroadParams::eigenvalues"][::core::mem::offset_of!(BroadParams, eigenvalues) - 304usize];
    ["Offset of field: BroadParams::exact"][::core::mem::offset_of!(BroadParams, exact) - 312usize];
    ["Offset of field: BroadParams::scales"][::core::mem::offset_of!(BroadParams, scales) - 320usize];
    ["Offset of field: BroadParams::pivots"][::core::mem::offset_of!(BroadParams, pivots) - 328usize];
    ["Offset of field: BroadParams::lengths"][::core::mem::offset_of!(BroadParams, lengths) - 336usize];
    ["Offset of field: BroadParams::singular"][::core::mem::offset_of!(BroadParams, singular) - 344usize];
    ["Offset of field: BroadParams::order"][::core::mem::offset_of!(BroadParams, order) - 352usize];
    ["Offset of field: BroadParams::signs"][::core::mem::offset_of!(BroadParams, signs) - 360usize];
    ["Offset of field: BroadParams::step"][::core::mem::offset_of!(BroadParams, step) - 368usize];
    ["Offset of field: BroadParams::warps"][::core::mem::offset_of!(BroadParams, warps) - 372usize];
};
/// Large matrices, by what they are within a space K of few columns: Z = A K.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct SketchParams {
    /// [batch, rows, summed] whose squares are summed up: A in its tall orientation, or Z
    pub(crate) a: SvdOperand,
    /// [batch, 2, parts] of the squares of A, and of Z
    pub(crate) sums: Address,
    /// [batch] how K is getting on
    pub(crate) space: Address,
    /// [batch] what became of Z,
    pub(crate) inner: Address,
    /// [batch, rows, columns] its tall factor,
    pub(crate) tall: Address,
    /// [batch, columns] its singular values,
    pub(crate) s: Address,
    /// [batch, width, columns] and K times its small factor
    pub(crate) small: Address,
    /// [batch, rows, columns] in factors
    pub(crate) out_tall: Address,
    /// [batch, columns]; null: not wanted
    pub(crate) out_s: Address,
    /// [batch, width, columns] in factors
    pub(crate) out_small: Address,
    /// [batch]
    pub(crate) verdicts: Address,
    /// tolerated error; negative: every matrix keeps `columns`
    pub(crate) relative: f64,
    pub(crate) rows: i32,
    pub(crate) width: i32,
    pub(crate) columns: i32,
    /// columns of K that are made together
    pub(crate) block: i32,
    pub(crate) summed: i32,
    /// of the two sums
    pub(crate) which: i32,
    pub(crate) parts: i32,
    /// SVD_F32..
    pub(crate) factors: u32,
    /// tall is V, whose signs are to be fixed, and not U
    pub(crate) wide: i32,
    /// by s: it is A V
    pub(crate) tall_is_scaled: i32,
    /// by s
    pub(crate) small_is_scaled: i32,
    pub(crate) values_only: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SketchParams"][::core::mem::size_of::<SketchParams>() - 192usize];
    ["Alignment of SketchParams"][::core::mem::align_of::<SketchParams>() - 8usize];
    ["Offset of field: SketchParams::a"][::core::mem::offset_of!(SketchParams, a) - 0usize];
    ["Offset of field: SketchParams::sums"][::core::mem::offset_of!(SketchParams, sums) - 56usize];
    ["Offset of field: SketchParams::space"][::core::mem::offset_of!(SketchParams, space) - 64usize];
    ["Offset of field: SketchParams::inner"][::core::mem::offset_of!(SketchParams, inner) - 72usize];
    ["Offset of field: SketchParams::tall"][::core::mem::offset_of!(SketchParams, tall) - 80usize];
    ["Offset of field: SketchParams::s"][::core::mem::offset_of!(SketchParams, s) - 88usize];
    ["Offset of field: SketchParams::small"][::core::mem::offset_of!(SketchParams, small) - 96usize];
    ["Offset of field: SketchParams::out_tall"][::core::mem::offset_of!(SketchParams, out_tall) - 104usize];
    ["Offset of field: SketchParams::out_s"][::core::mem::offset_of!(SketchParams, out_s) - 112usize];
    ["Offset of field: SketchParams::out_small"][::core::mem::offset_of!(SketchParams, out_small) - 120usize];
    ["Offset of field: SketchParams::verdicts"][::core::mem::offset_of!(SketchParams, verdicts) - 128usize];
    ["Offset of field: SketchParams::relative"][::core::mem::offset_of!(SketchParams, relative) - 136usize];
    ["Offset of field: SketchParams::rows"][::core::mem::offset_of!(SketchParams, rows) - 144usize];
    ["Offset of field: SketchParams::width"][::core::mem::offset_of!(SketchParams, width) - 148usize];
    ["Offset of field: SketchParams::columns"][::core::mem::offset_of!(SketchParams, columns) - 152usize];
    ["Offset of field: SketchParams::block"][::core::mem::offset_of!(SketchParams, block) - 156usize];
    ["Offset of field: SketchParams::summed"][::core::mem::offset_of!(SketchParams, summed) - 160usize];
    ["Offset of field: SketchParams::which"][::core::mem::offset_of!(SketchParams, which) - 164usize];
    ["Offset of field: SketchParams::parts"][::core::mem::offset_of!(SketchParams, parts) - 168usize];
    ["Offset of field: SketchParams::factors"][::core::mem::offset_of!(SketchParams, factors) - 172usize];
    ["Offset of field: SketchParams::wide"][::core::mem::offset_of!(SketchParams, wide) - 176usize];
    ["Offset of field: SketchParams::tall_is_scaled"][::core::mem::offset_of!(SketchParams, tall_is_scaled) - 180usize];
    ["Offset of field: SketchParams::small_is_scaled"][::core::mem::offset_of!(SketchParams, small_is_scaled) - 184usize];
    ["Offset of field: SketchParams::values_only"][::core::mem::offset_of!(SketchParams, values_only) - 188usize];
};
/// Factors of weighted rows in f32, and where they go.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct WeightParams {
    /// [batch, rows, columns]
    pub(crate) u: Address,
    /// [batch, width, columns],
    pub(crate) v: Address,
    /// and so are these
    pub(crate) encoder: Address,
    pub(crate) decoder: Address,
    /// in the same shapes
    pub(crate) out_u: Address,
    pub(crate) out_v: Address,
    pub(crate) out_encoder: Address,
    pub(crate) out_decoder: Address,
    pub(crate) rows: i32,
    pub(crate) width: i32,
    pub(crate) columns: i32,
    /// SVD_F32..
    pub(crate) factors: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of WeightParams"][::core::mem::size_of::<WeightParams>() - 80usize];
    ["Alignment of WeightParams"][::core::mem::align_of::<WeightParams>() - 8usize];
    ["Offset of field: WeightParams::u"][::core::mem::offset_of!(WeightParams, u) - 0usize];
    ["Offset of field: WeightParams::v"][::core::mem::offset_of!(WeightParams, v) - 8usize];
    ["Offset of field: WeightParams::encoder"][::core::mem::offset_of!(WeightParams, encoder) - 16usize];
    ["Offset of field: WeightParams::decoder"][::core::mem::offset_of!(WeightParams, decoder) - 24usize];
    ["Offset of field: WeightParams::out_u"][::core::mem::offset_of!(WeightParams, out_u) - 32usize];
    ["Offset of field: WeightParams::out_v"][::core::mem::offset_of!(WeightParams, out_v) - 40usize];
    ["Offset of field: WeightParams::out_encoder"][::core::mem::offset_of!(WeightParams, out_encoder) - 48usize];
    ["Offset of field: WeightParams::out_decoder"][::core::mem::offset_of!(WeightParams, out_decoder) - 56usize];
    ["Offset of field: WeightParams::rows"][::core::mem::offset_of!(WeightParams, rows) - 64usize];
    ["Offset of field: WeightParams::width"][::core::mem::offset_of!(WeightParams, width) - 68usize];
    ["Offset of field: WeightParams::columns"][::core::mem::offset_of!(WeightParams, columns) - 72usize];
    ["Offset of field: WeightParams::factors"][::core::mem::offset_of!(WeightParams, factors) - 76usize];
};
/// Rows of every matrix copied to where they are wider, and lie farther apart.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct SpreadParams {
    /// [batch, rows, from_columns]
    pub(crate) from: Address,
    /// [rows, columns] for every matrix
    pub(crate) to: Address,
    /// [batch]
    pub(crate) verdicts: Address,
    /// elements from a matrix to the next one
    pub(crate) to_stride: i64,
    pub(crate) rows: i32,
    pub(crate) from_columns: i32,
    pub(crate) columns: i32,
    /// SVD_F32, which stands for any four bytes, SVD_F16 or SVD_BF16
    pub(crate) dtype: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SpreadParams"][::core::mem::size_of::<SpreadParams>() - 48usize];
    ["Alignment of SpreadParams"][::core::mem::align_of::<SpreadParams>() - 8usize];
    ["Offset of field: SpreadParams::from"][::core::mem::offset_of!(SpreadParams, from) - 0usize];
    ["Offset of field: SpreadParams::to"][::core::mem::offset_of!(SpreadParams, to) - 8usize];
    ["Offset of field: SpreadParams::verdicts"][::core::mem::offset_of!(SpreadParams, verdicts) - 16usize];
    ["Offset of field: SpreadParams::to_stride"][::core::mem::offset_of!(SpreadParams, to_stride) - 24usize];
    ["Offset of field: SpreadParams::rows"][::core::mem::offset_of!(SpreadParams, rows) - 32usize];
    ["Offset of field: SpreadParams::from_columns"][::core::mem::offset_of!(SpreadParams, from_columns) - 36usize];
    ["Offset of field: SpreadParams::columns"][::core::mem::offset_of!(SpreadParams, columns) - 40usize];
    ["Offset of field: SpreadParams::dtype"][::core::mem::offset_of!(SpreadParams, dtype) - 44usize];
};
