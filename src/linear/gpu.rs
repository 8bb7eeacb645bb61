//! A factorized layer on a device: a kernel down to the rank and one up from it, eight rows to a block.

use super::{FACTORIZED, params::FactorParams};
use crate::{
    Device, Dtype, Error, Result, Scratch, Tensor,
    device::{Address, Grid, Kernel},
};

mod kernels {
    use super::{FactorParams, Kernel};
    include!(concat!(env!("OUT_DIR"), "/linear.rs"));
}

/// Rows of a block.
const ROWS: usize = 8;
const WARPS: usize = 4;
/// The most rows: a grid has 65535 blocks along y.
const MOST_ROWS: usize = ROWS * 65_535;
/// The most columns of x and rows of a factor: kernels count them in 32 bits, with room for a stride.
const MOST: usize = 1 << 30;

pub(super) fn factorized_scratch(x: &Tensor, b: &Tensor, a: &Tensor) -> Result<usize> {
    let (rows, k, r, n) = (x.shape()[0], x.shape()[1], b.shape()[0], a.shape()[0]);
    if rows > MOST_ROWS || k.max(r).max(n) > MOST {
        let found = format!("x {:?}, b {:?}, a {:?}", x.shape(), b.shape(), a.shape());
        let expected = format!("at most {MOST_ROWS} rows, and k, r and n of at most {MOST}, on {}", x.device());
        return Err(Error::shape(FACTORIZED, found, expected));
    }
    Ok(rows * r * size_of::<f32>())
}

/// y = (x B') A' + bias.
pub(super) fn factorized(
    y: &mut Tensor,
    x: &Tensor,
    b: &Tensor,
    a: &Tensor,
    bias: Option<&Tensor>,
    scratch: &mut Scratch,
) -> Result<()> {
    let (down, up) = match b.dtype() {
        Dtype::F32 => (&kernels::LINEAR_FACTORIZED_DOWN_F32, &kernels::LINEAR_FACTORIZED_UP_F32),
        Dtype::F16 => (&kernels::LINEAR_FACTORIZED_DOWN_F16, &kernels::LINEAR_FACTORIZED_UP_F16),
        _ => (&kernels::LINEAR_FACTORIZED_DOWN_BF16, &kernels::LINEAR_FACTORIZED_UP_BF16),
    };
    let (device, rows) = (x.device(), x.shape()[0]);
    let latent = scratch.address(&device, factorized_scratch(x, b, a)?)?;
    let bias = bias.map_or(Address::NULL, Tensor::address);
    // Down, all warps of a block share one output; up, each has its own.
    multiply(&device, down, 1, [x.address(), latent, Address::NULL], b, rows)?;
    multiply(&device, up, WARPS, [latent, y.address(), bias], a, rows)
}

/// out = x W' + bias, for `[x, out, bias]`; `outputs` of them a block.
fn multiply(
    device: &Device,
    kernel: &Kernel<FactorParams>,
    outputs: usize,
    [x, y, bias]: [Address; 3],
    weight: &Tensor,
    rows: usize,
) -> Result<()> {
    let (n, k) = (weight.shape()[0], weight.shape()[1]);
    let blocks = [n.div_ceil(outputs) as u32, rows.div_ceil(ROWS) as u32, 1];
    let grid = Grid { blocks, threads: 32 * WARPS as u32, shared: WARPS * ROWS * size_of::<f32>() };
    let params = FactorParams { x, weight: weight.address(), bias, y, rows: rows as i32, n: n as i32, k: k as i32, unused: 0 };
    device.launch(kernel, grid, &params)
}
