//! What the attention kernels are given; written from `kernels/attention/params.h`.

use bytemuck::{Pod, Zeroable};

use crate::device::Address;

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct Segment {
    pub keys: Address,
    pub values: Address,
    pub key_scales: Address,
    pub value_scales: Address,
    pub key_matrix: Address,
    pub value_matrix: Address,
    pub key_mean: Address,
    pub value_mean: Address,
    pub key_capacity: i64,
    pub value_capacity: i64,
    pub key_rank: i32,
    pub value_rank: i32,
    pub key_dtype: i32,
    pub value_dtype: i32,
    pub sequence: i32,
    pub position: i32,
    pub first_split: i32,
    pub splits: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct Split {
    pub segment: i32,
    pub first: i32,
    pub tokens: i32,
    pub index: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct AbsorbParams {
    pub q: Address,
    pub cos: Address,
    pub sin: Address,
    pub segments: Address,
    pub absorbed: Address,
    pub bias: Address,
    pub q_sequence_stride: i64,
    pub q_head_stride: i64,
    pub scale: f32,
    pub n_heads: i32,
    pub n_kv_heads: i32,
    pub head_dim: i32,
    pub width: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct DecodeParams {
    pub segments: Address,
    pub splits: Address,
    pub absorbed: Address,
    pub bias: Address,
    pub peaks: Address,
    pub sums: Address,
    pub latents: Address,
    pub n_heads: i32,
    pub n_kv_heads: i32,
    pub width: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct CombineParams {
    pub segments: Address,
    pub first_segment: Address,
    pub peaks: Address,
    pub sums: Address,
    pub latents: Address,
    pub out: Address,
    pub n_heads: i32,
    pub n_kv_heads: i32,
    pub head_dim: i32,
    pub width: i32,
}
