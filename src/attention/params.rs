//! Made by `tools/bindings` from `kernels/attention/params.h`.

use crate::device::Address;

/// One part of a sequence: consecutive tokens that are kept alike.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Segment {
    /// bf16|int8 [n_kv_heads, key_capacity, key_rank]
    pub(crate) keys: Address,
    /// bf16|int8 [n_kv_heads, value_capacity, value_rank]
    pub(crate) values: Address,
    /// f16 [n_kv_heads, key_capacity]; null for bf16
    pub(crate) key_scales: Address,
    /// f16 [n_kv_heads, value_capacity]; null for bf16
    pub(crate) value_scales: Address,
    /// key_dtype [n_kv_heads, head_dim, key_rank]; null where rows are the keys themselves
    pub(crate) key_matrix: Address,
    /// value_dtype [n_kv_heads, head_dim, value_rank]; null as above
    pub(crate) value_matrix: Address,
    /// [n_kv_heads, head_dim]; null for none
    pub(crate) key_mean: Address,
    /// [n_kv_heads, head_dim]; null for none
    pub(crate) value_mean: Address,
    /// rows from one head to the next
    pub(crate) key_capacity: i64,
    pub(crate) value_capacity: i64,
    pub(crate) key_rank: i32,
    pub(crate) value_rank: i32,
    /// of key_matrix: 0 f32, 1 f16, 2 bf16
    pub(crate) key_dtype: i32,
    pub(crate) value_dtype: i32,
    /// whose query this is about
    pub(crate) sequence: i32,
    /// of that query
    pub(crate) position: i32,
    /// its splits follow each other
    pub(crate) first_split: i32,
    pub(crate) splits: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Segment"][::core::mem::size_of::<Segment>() - 112usize];
    ["Alignment of Segment"][::core::mem::align_of::<Segment>() - 8usize];
    ["Offset of field: Segment::keys"][::core::mem::offset_of!(Segment, keys) - 0usize];
    ["Offset of field: Segment::values"][::core::mem::offset_of!(Segment, values) - 8usize];
    ["Offset of field: Segment::key_scales"][::core::mem::offset_of!(Segment, key_scales) - 16usize];
    ["Offset of field: Segment::value_scales"][::core::mem::offset_of!(Segment, value_scales) - 24usize];
    ["Offset of field: Segment::key_matrix"][::core::mem::offset_of!(Segment, key_matrix) - 32usize];
    ["Offset of field: Segment::value_matrix"][::core::mem::offset_of!(Segment, value_matrix) - 40usize];
    ["Offset of field: Segment::key_mean"][::core::mem::offset_of!(Segment, key_mean) - 48usize];
    ["Offset of field: Segment::value_mean"][::core::mem::offset_of!(Segment, value_mean) - 56usize];
    ["Offset of field: Segment::key_capacity"][::core::mem::offset_of!(Segment, key_capacity) - 64usize];
    ["Offset of field: Segment::value_capacity"][::core::mem::offset_of!(Segment, value_capacity) - 72usize];
    ["Offset of field: Segment::key_rank"][::core::mem::offset_of!(Segment, key_rank) - 80usize];
    ["Offset of field: Segment::value_rank"][::core::mem::offset_of!(Segment, value_rank) - 84usize];
    ["Offset of field: Segment::key_dtype"][::core::mem::offset_of!(Segment, key_dtype) - 88usize];
    ["Offset of field: Segment::value_dtype"][::core::mem::offset_of!(Segment, value_dtype) - 92usize];
    ["Offset of field: Segment::sequence"][::core::mem::offset_of!(Segment, sequence) - 96usize];
    ["Offset of field: Segment::position"][::core::mem::offset_of!(Segment, position) - 100usize];
    ["Offset of field: Segment::first_split"][::core::mem::offset_of!(Segment, first_split) - 104usize];
    ["Offset of field: Segment::splits"][::core::mem::offset_of!(Segment, splits) - 108usize];
};
/// The tokens of a segment that one block takes.
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Split {
    pub(crate) segment: i32,
    /// token of the segment
    pub(crate) first: i32,
    /// at least 1
    pub(crate) tokens: i32,
    /// among the splits of the call
    pub(crate) index: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of Split"][::core::mem::size_of::<Split>() - 16usize];
    ["Alignment of Split"][::core::mem::align_of::<Split>() - 4usize];
    ["Offset of field: Split::segment"][::core::mem::offset_of!(Split, segment) - 0usize];
    ["Offset of field: Split::first"][::core::mem::offset_of!(Split, first) - 4usize];
    ["Offset of field: Split::tokens"][::core::mem::offset_of!(Split, tokens) - 8usize];
    ["Offset of field: Split::index"][::core::mem::offset_of!(Split, index) - 12usize];
};
/// grid [segments, n_heads]
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct AbsorbParams {
    /// [sequences, n_heads, head_dim], not rotated
    pub(crate) q: Address,
    /// [positions, head_dim / 2]; null without RoPE
    pub(crate) cos: Address,
    pub(crate) sin: Address,
    pub(crate) segments: Address,
    /// [segments, n_heads, width], zero above a segment's key rank
    pub(crate) absorbed: Address,
    /// [segments, n_heads]: what logits gain from the mean of the keys
    pub(crate) bias: Address,
    /// elements
    pub(crate) q_sequence_stride: i64,
    pub(crate) q_head_stride: i64,
    /// of logits, times log2(e)
    pub(crate) scale: f32,
    pub(crate) n_heads: i32,
    pub(crate) n_kv_heads: i32,
    pub(crate) head_dim: i32,
    pub(crate) width: i32,
    pub(crate) unused: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AbsorbParams"][::core::mem::size_of::<AbsorbParams>() - 88usize];
    ["Alignment of AbsorbParams"][::core::mem::align_of::<AbsorbParams>() - 8usize];
    ["Offset of field: AbsorbParams::q"][::core::mem::offset_of!(AbsorbParams, q) - 0usize];
    ["Offset of field: AbsorbParams::cos"][::core::mem::offset_of!(AbsorbParams, cos) - 8usize];
    ["Offset of field: AbsorbParams::sin"][::core::mem::offset_of!(AbsorbParams, sin) - 16usize];
    ["Offset of field: AbsorbParams::segments"][::core::mem::offset_of!(AbsorbParams, segments) - 24usize];
    ["Offset of field: AbsorbParams::absorbed"][::core::mem::offset_of!(AbsorbParams, absorbed) - 32usize];
    ["Offset of field: AbsorbParams::bias"][::core::mem::offset_of!(AbsorbParams, bias) - 40usize];
    ["Offset of field: AbsorbParams::q_sequence_stride"][::core::mem::offset_of!(AbsorbParams, q_sequence_stride) - 48usize];
    ["Offset of field: AbsorbParams::q_head_stride"][::core::mem::offset_of!(AbsorbParams, q_head_stride) - 56usize];
    ["Offset of field: AbsorbParams::scale"][::core::mem::offset_of!(AbsorbParams, scale) - 64usize];
    ["Offset of field: AbsorbParams::n_heads"][::core::mem::offset_of!(AbsorbParams, n_heads) - 68usize];
    ["Offset of field: AbsorbParams::n_kv_heads"][::core::mem::offset_of!(AbsorbParams, n_kv_heads) - 72usize];
    ["Offset of field: AbsorbParams::head_dim"][::core::mem::offset_of!(AbsorbParams, head_dim) - 76usize];
    ["Offset of field: AbsorbParams::width"][::core::mem::offset_of!(AbsorbParams, width) - 80usize];
    ["Offset of field: AbsorbParams::unused"][::core::mem::offset_of!(AbsorbParams, unused) - 84usize];
};
/// grid [splits, n_kv_heads x chunks of 8 query heads]
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct DecodeParams {
    pub(crate) segments: Address,
    /// those of this launch
    pub(crate) splits: Address,
    /// [segments, n_heads, width]
    pub(crate) absorbed: Address,
    /// [segments, n_heads]
    pub(crate) bias: Address,
    /// [splits, n_heads]: the largest logit, in powers of two
    pub(crate) peaks: Address,
    /// [splits, n_heads]: of 2^(logit - peak)
    pub(crate) sums: Address,
    /// [splits, n_heads, width]: values weighted so
    pub(crate) latents: Address,
    pub(crate) n_heads: i32,
    pub(crate) n_kv_heads: i32,
    pub(crate) width: i32,
    pub(crate) unused: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DecodeParams"][::core::mem::size_of::<DecodeParams>() - 72usize];
    ["Alignment of DecodeParams"][::core::mem::align_of::<DecodeParams>() - 8usize];
    ["Offset of field: DecodeParams::segments"][::core::mem::offset_of!(DecodeParams, segments) - 0usize];
    ["Offset of field: DecodeParams::splits"][::core::mem::offset_of!(DecodeParams, splits) - 8usize];
    ["Offset of field: DecodeParams::absorbed"][::core::mem::offset_of!(DecodeParams, absorbed) - 16usize];
    ["Offset of field: DecodeParams::bias"][::core::mem::offset_of!(DecodeParams, bias) - 24usize];
    ["Offset of field: DecodeParams::peaks"][::core::mem::offset_of!(DecodeParams, peaks) - 32usize];
    ["Offset of field: DecodeParams::sums"][::core::mem::offset_of!(DecodeParams, sums) - 40usize];
    ["Offset of field: DecodeParams::latents"][::core::mem::offset_of!(DecodeParams, latents) - 48usize];
    ["Offset of field: DecodeParams::n_heads"][::core::mem::offset_of!(DecodeParams, n_heads) - 56usize];
    ["Offset of field: DecodeParams::n_kv_heads"][::core::mem::offset_of!(DecodeParams, n_kv_heads) - 60usize];
    ["Offset of field: DecodeParams::width"][::core::mem::offset_of!(DecodeParams, width) - 64usize];
    ["Offset of field: DecodeParams::unused"][::core::mem::offset_of!(DecodeParams, unused) - 68usize];
};
/// grid [sequences, n_heads]
#[repr(C)]
#[derive(Debug, Copy, Clone, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct CombineParams {
    pub(crate) segments: Address,
    /// [sequences + 1]
    pub(crate) first_segment: Address,
    /// [splits, n_heads]
    pub(crate) peaks: Address,
    /// [splits, n_heads]
    pub(crate) sums: Address,
    /// [splits, n_heads, width]
    pub(crate) latents: Address,
    /// [sequences, n_heads, head_dim]
    pub(crate) out: Address,
    pub(crate) n_heads: i32,
    pub(crate) n_kv_heads: i32,
    pub(crate) head_dim: i32,
    pub(crate) width: i32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CombineParams"][::core::mem::size_of::<CombineParams>() - 64usize];
    ["Alignment of CombineParams"][::core::mem::align_of::<CombineParams>() - 8usize];
    ["Offset of field: CombineParams::segments"][::core::mem::offset_of!(CombineParams, segments) - 0usize];
    ["Offset of field: CombineParams::first_segment"][::core::mem::offset_of!(CombineParams, first_segment) - 8usize];
    ["Offset of field: CombineParams::peaks"][::core::mem::offset_of!(CombineParams, peaks) - 16usize];
    ["Offset of field: CombineParams::sums"][::core::mem::offset_of!(CombineParams, sums) - 24usize];
    ["Offset of field: CombineParams::latents"][::core::mem::offset_of!(CombineParams, latents) - 32usize];
    ["Offset of field: CombineParams::out"][::core::mem::offset_of!(CombineParams, out) - 40usize];
    ["Offset of field: CombineParams::n_heads"][::core::mem::offset_of!(CombineParams, n_heads) - 48usize];
    ["Offset of field: CombineParams::n_kv_heads"][::core::mem::offset_of!(CombineParams, n_kv_heads) - 52usize];
    ["Offset of field: CombineParams::head_dim"][::core::mem::offset_of!(CombineParams, head_dim) - 56usize];
    ["Offset of field: CombineParams::width"][::core::mem::offset_of!(CombineParams, width) - 60usize];
};
