//! Timing: warm-up, interleaving, stopping by noise.

use std::time::{Duration, Instant};

use crate::{Result, report::Seconds};

/// When to stop timing a case.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Runs at least.
    pub min_runs: usize,
    /// Runs at most.
    pub max_runs: usize,
    /// Enough when half the 95 % interval of each median, relative to it, is below this.
    pub noise: f64,
    /// Stops here whatever the noise, once there are `min_runs`.
    pub cap: Duration,
    /// Calls before the first timed run, for this long and at least one.
    pub warm_up: Duration,
}

impl Limits {
    /// For figures that are kept.
    pub fn usual() -> Self {
        let (cap, warm_up) = (Duration::from_millis(700), Duration::from_millis(50));
        Self { min_runs: 9, max_runs: 201, noise: 0.02, cap, warm_up }
    }

    /// For a look.
    pub fn quick() -> Self {
        let (cap, warm_up) = (Duration::from_millis(150), Duration::from_millis(5));
        Self { min_runs: 5, max_runs: 51, noise: 0.05, cap, warm_up }
    }

    /// For an emulated device, whose times are of the emulation.
    pub fn emulated() -> Self {
        Self { min_runs: 1, max_runs: 1, noise: 0.0, cap: Duration::ZERO, warm_up: Duration::ZERO }
    }
}

/// Which contender to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is measured.
    Ours,
    /// What it is measured against.
    Baseline,
}

/// A run shorter than this is repeated and divided, or the clock's resolution would show.
const SHORTEST_SAMPLE: Duration = Duration::from_micros(200);

/// Times our side, and with `baseline` the other as well, turn by turn so that a drifting machine slows both. A sample
/// is some calls and then `finish`, which waits for a device that works on its own.
///
/// # Errors
/// Whatever a call returns.
pub fn race(
    limits: &Limits,
    baseline: bool,
    call: &mut dyn FnMut(Side) -> Result<()>,
    finish: &dyn Fn() -> Result<()>,
) -> Result<(Seconds, Option<Seconds>)> {
    let sides: &[Side] = if baseline { &[Side::Ours, Side::Baseline] } else { &[Side::Ours] };
    let mut calls = [1usize; 2];
    for (i, side) in sides.iter().enumerate() {
        calls[i] = warm_up(limits, &mut || call(*side).and_then(|()| finish()))?;
    }
    let mut samples = [Vec::new(), Vec::new()];
    let start = Instant::now();
    loop {
        let round = samples[0].len();
        for turn in 0..sides.len() {
            // Who goes first alternates, so that neither always finds the caches as the other left them.
            let i = (turn + round) % sides.len();
            let begin = Instant::now();
            for _ in 0..calls[i] {
                call(sides[i])?;
            }
            finish()?;
            samples[i].push(begin.elapsed().as_secs_f64() / calls[i] as f64);
        }
        let runs = round + 1;
        let quiet = || samples[..sides.len()].iter().all(|s| summary(s).noise.is_some_and(|n| n <= limits.noise));
        if runs >= limits.max_runs || runs >= limits.min_runs && (start.elapsed() >= limits.cap || quiet()) {
            break;
        }
    }
    Ok((summary(&samples[0]), baseline.then(|| summary(&samples[1]))))
}

/// Calls until the time is up; returns how many calls make one sample.
fn warm_up(limits: &Limits, call: &mut dyn FnMut() -> Result<()>) -> Result<usize> {
    let start = Instant::now();
    let mut fastest = Duration::MAX;
    loop {
        let begin = Instant::now();
        call()?;
        fastest = fastest.min(begin.elapsed());
        if start.elapsed() >= limits.warm_up {
            let fastest = fastest.as_nanos().max(1);
            return Ok(SHORTEST_SAMPLE.as_nanos().div_ceil(fastest).clamp(1, 1 << 16) as usize);
        }
    }
}

/// Median, extremes and noise of samples in seconds.
pub fn summary(samples: &[f64]) -> Seconds {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    if n == 0 {
        return Seconds { median: 0.0, min: 0.0, max: 0.0, runs: 0, noise: None };
    }
    // A clock may tick coarser than a call; no time is zero.
    let at = |i: usize| sorted[i].max(1e-12);
    let median = (at((n - 1) / 2) + at(n / 2)) / 2.0;
    // Order statistics around the median that hold it with 95 % certainty, whatever the distribution.
    let reach = 0.98 * (n as f64).sqrt();
    let low = ((n as f64 - 1.0) / 2.0 - reach).floor().max(0.0) as usize;
    let high = n - 1 - low;
    // One run says nothing of the next.
    let noise = (n > 1).then(|| (at(high) - at(low)) / 2.0 / median);
    Seconds { median, min: at(0), max: at(n - 1), runs: n, noise }
}
