//! Element-wise operations on devices.

use crate::{
    Error, Result, Tensor,
    device::{Grid, Kernel},
};

use super::params::AddParams;

mod kernels {
    use super::{AddParams, Kernel};
    include!(concat!(env!("OUT_DIR"), "/nn.rs"));
}

const THREADS: u32 = 256;

/// x <- x + y, contiguous f32 of one shape.
pub(super) fn add(op: &'static str, x: &mut Tensor, y: &Tensor) -> Result<()> {
    let device = x.device();
    if !y.is_contiguous() {
        return Err(Error::shape(op, format!("y with strides {:?}", y.strides()), "a contiguous tensor"));
    }
    let blocks = u32::try_from(x.len().div_ceil(THREADS as usize))
        .map_err(|_| Error::shape(op, format!("{} elements", x.len()), "fewer than 2^40"))?;
    let params = AddParams { x: x.address_mut(op)?, y: y.address(), count: x.len() as i64 };
    device.launch(&kernels::NN_ADD_F32, Grid { blocks: [blocks, 1, 1], threads: THREADS, shared: 0 }, &params)
}
