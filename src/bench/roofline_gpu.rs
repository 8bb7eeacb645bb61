//! What a GPU can do at best, measured with kernels of its own: reading memory, and bf16 products on tensor cores.

use super::params::{MultiplyParams, ReadParams};
use crate::{
    Device, Dtype, Result, Tensor,
    device::{Event, Grid, Kernel},
    report::Bandwidth,
};

mod kernels {
    use super::{Kernel, MultiplyParams, ReadParams};
    include!(concat!(env!("OUT_DIR"), "/bench.rs"));
}

/// Enough blocks to fill every GPU there is, with room for uneven finishes.
const BLOCKS: u32 = 2048;
const READERS: u32 = 512;
const MULTIPLIERS: u32 = 256;
/// Steps of eight products a warp.
const STEPS: i32 = 4096;
/// Operations of one m16n8k16 product.
const PRODUCT: f64 = 2.0 * 16.0 * 8.0 * 16.0;

/// Operations a second by `mma.sync` (wgmma, which Hopper alone has, is faster), and bytes a second for data that fits the second-level cache and for data far beyond it.
pub(super) fn measure(device: &Device, quick: bool) -> Result<(f64, Vec<Bandwidth>)> {
    let runs = if quick { 5 } else { 15 };
    let sums = Tensor::zeros(&[BLOCKS as usize, READERS as usize], Dtype::F32, device)?;
    let data = largest_that_fits(device, if quick { 1 << 30 } else { 4 << 30 })?;
    let largest = data.bytes();
    let bandwidth = [16 << 20, largest]
        .into_iter()
        .map(|bytes: usize| {
            let params = ReadParams { data: data.address(), sums: sums.address(), count: (bytes / 16) as i64 };
            let seconds = fastest(device, runs, || device.launch(&kernels::BENCH_READ, grid(READERS), &params))?;
            Ok(Bandwidth { bytes: bytes as u64, bytes_per_second: bytes as f64 / seconds })
        })
        .collect::<Result<Vec<_>>>()?;
    // Numbers with few zero bits: a GPU runs faster on zeros than on data.
    let params = MultiplyParams { sums: sums.address(), steps: STEPS, pair: 0x3f2b_bf55 };
    let seconds = fastest(device, runs, || device.launch(&kernels::BENCH_MULTIPLY, grid(MULTIPLIERS), &params))?;
    let warps = f64::from(BLOCKS) * f64::from(MULTIPLIERS) / 32.0;
    Ok((warps * f64::from(STEPS) * 8.0 * PRODUCT / seconds, bandwidth))
}

/// So many bytes, or a half, a quarter, ... of them on a GPU that has no room.
fn largest_that_fits(device: &Device, mut bytes: usize) -> Result<Tensor> {
    const LEAST: usize = 64 << 20;
    loop {
        match Tensor::zeros(&[bytes / 4], Dtype::F32, device) {
            Err(_) if bytes > LEAST => bytes /= 2,
            done => return done,
        }
    }
}

fn grid(threads: u32) -> Grid {
    Grid { blocks: [BLOCKS, 1, 1], threads, shared: 0 }
}

/// Seconds of the fastest of some runs, by the device's own clock.
fn fastest(device: &Device, runs: usize, launch: impl Fn() -> Result<()>) -> Result<f64> {
    launch()?;
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let start: Event = device.record()?;
        launch()?;
        best = best.min(device.record()?.since(&start)?.as_secs_f64());
    }
    Ok(best.max(1e-9))
}
