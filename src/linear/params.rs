//! What the linear kernels are given; written from `kernels/linear/params.h`.

use bytemuck::{Pod, Zeroable};

use crate::device::Address;

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct FactorParams {
    pub x: Address,
    pub weight: Address,
    pub bias: Address,
    pub y: Address,
    pub rows: i32,
    pub n: i32,
    pub k: i32,
    pub unused: i32,
}
