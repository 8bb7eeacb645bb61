//! What the device can do at best, measured: reading memory, and f32 multiply-adds.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use rayon::prelude::*;

use super::{host, roofline_gpu};
use crate::{
    Device, Result,
    device::Kind,
    device::simd::{self, Level, fma, multiversion},
    report::{Bandwidth, DeviceInfo, Roofline},
};

/// Measured limits of the CPU device at the thread count in use.
#[derive(Clone, Debug)]
pub struct Limits {
    flops: f64,
    /// By size of the working set, smallest first; the last is far beyond the caches.
    bandwidth: Vec<Bandwidth>,
}

impl Limits {
    /// Measures the device: over a second, or a fifth of that when `quick`. An emulated device has no limits worth a name:
    /// its times are of the emulation.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when the device fails.
    pub fn measure(device: &Device, quick: bool) -> Result<Self> {
        match device.kind() {
            Kind::Cpu => Ok(Self::of_cpu(quick)),
            Kind::Emulated => Ok(Self::of(f64::INFINITY, f64::INFINITY)),
            Kind::Cuda => {
                let (flops, bandwidth) = roofline_gpu::measure(device, quick)?;
                Ok(Self { flops, bandwidth })
            }
        }
    }

    fn of_cpu(quick: bool) -> Self {
        let seconds = if quick { 0.05 } else { 0.25 };
        let wanted: usize = if quick { 96 << 20 } else { 256 << 20 };
        let free = host::memory("MemAvailable:").unwrap_or(u64::MAX) / 4;
        let largest = wanted.min(usize::try_from(free).unwrap_or(usize::MAX)).max(16 << 20);
        let data = vec![1.0f32; largest / 4];
        let sizes = [1 << 20, 4 << 20, 16 << 20, largest];
        let bandwidth = sizes.map(|bytes| {
            let part = &data[..bytes / 4];
            Bandwidth { bytes: bytes as u64, bytes_per_second: bytes as f64 / fastest(seconds, || black_box(read_all(part))) }
        });
        Self { flops: flops_per_second(Duration::from_secs_f64(seconds)), bandwidth: bandwidth.to_vec() }
    }

    /// Limits known beforehand.
    pub fn of(flops_per_second: f64, bytes_per_second: f64) -> Self {
        Self { flops: flops_per_second, bandwidth: vec![Bandwidth { bytes: u64::MAX, bytes_per_second }] }
    }

    /// Adds the limits to what is said about the device.
    pub fn describe(&self, device: &mut DeviceInfo) {
        if self.flops.is_finite() {
            device.flops_per_second = Some(self.flops);
            device.bytes_per_second = self.bandwidth.last().map(|b| b.bytes_per_second);
            device.bandwidth.clone_from(&self.bandwidth);
        }
    }

    /// Which limit a call is bound by, and the share of it that `seconds` reached.
    ///
    /// A call that moves no more bytes than fit a cache is held to that cache's rate: repeated calls find them there.
    /// `None` where the device has no measured limits.
    pub fn judge(&self, bytes: u64, flops: u64, seconds: f64) -> Option<Roofline> {
        if !self.flops.is_finite() {
            return None;
        }
        let fits = self.bandwidth.iter().find(|b| b.bytes >= bytes).or(self.bandwidth.last());
        let memory = fits.map_or(0.0, |b| bytes as f64 / b.bytes_per_second);
        let compute = flops as f64 / self.flops;
        let (bound, least) = if memory >= compute { ("memory", memory) } else { ("compute", compute) };
        Some(Roofline { bound: bound.to_owned(), fraction: Some(least / seconds).filter(|f| f.is_finite()) })
    }
}

/// Seconds of the fastest call within a time.
fn fastest<T>(seconds: f64, mut call: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut calls = 0;
    while calls < 3 || start.elapsed().as_secs_f64() < seconds {
        let begin = Instant::now();
        call();
        best = best.min(begin.elapsed().as_secs_f64());
        calls += 1;
    }
    best.max(1e-9)
}

fn read_all(data: &[f32]) -> f32 {
    let share = data.len().div_ceil(rayon::current_num_threads()).max(1);
    data.par_chunks(share).map(sum).sum()
}

#[inline(always)]
fn sum_body<const FUSED: bool>(data: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 128];
    for chunk in data.as_chunks::<128>().0 {
        for i in 0..128 {
            lanes[i] += chunk[i];
        }
    }
    lanes.iter().sum()
}

multiversion! {
    /// A sum with enough independent lanes that only memory holds it up.
    fn sum(data: &[f32]) -> f32 = sum_body
}

/// Steps of each lane in one call of a multiply-add loop.
const STEPS: usize = 1 << 14;

#[inline(always)]
fn steps<const FUSED: bool, const LANES: usize>(scale: f32) -> f32 {
    let mut lanes = [1.0f32; LANES];
    for _ in 0..STEPS {
        for lane in &mut lanes {
            *lane = fma::<FUSED>(*lane, scale, 1e-3);
        }
    }
    lanes.iter().sum()
}

// Ten vectors of each instruction set: more than latency times ports, fewer than there are registers.
#[inline(always)]
fn steps_of_16_body<const FUSED: bool>(scale: f32) -> f32 {
    steps::<FUSED, 160>(scale)
}
#[inline(always)]
fn steps_of_8_body<const FUSED: bool>(scale: f32) -> f32 {
    steps::<FUSED, 80>(scale)
}
#[inline(always)]
fn steps_of_4_body<const FUSED: bool>(scale: f32) -> f32 {
    steps::<FUSED, 40>(scale)
}

multiversion! { fn steps_of_16(scale: f32) -> f32 = steps_of_16_body }
multiversion! { fn steps_of_8(scale: f32) -> f32 = steps_of_8_body }
multiversion! { fn steps_of_4(scale: f32) -> f32 = steps_of_4_body }

/// Calls between two looks at the clock: waking other threads takes a few microseconds.
const CALLS: usize = 8;

/// The rate of f32 multiply-adds on every thread of the current pool, the best within `time`.
pub fn flops_per_second(time: Duration) -> f64 {
    let (lanes, run): (usize, fn(f32) -> f32) = match simd::level() {
        Level::Avx512 => (160, steps_of_16),
        Level::Avx2 => (80, steps_of_8),
        Level::Baseline => (40, steps_of_4),
    };
    let threads = rayon::current_num_threads();
    let all = || {
        rayon::broadcast(|_| {
            for _ in 0..CALLS {
                black_box(run(black_box(0.999)));
            }
        })
    };
    (2 * lanes * STEPS * CALLS * threads) as f64 / fastest(time.as_secs_f64(), all)
}
