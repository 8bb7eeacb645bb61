//! What a run of `kvbench` found, and how it is printed.
//!
//! A [`Document`] is the JSON that `--format json` prints and `--save` writes; the other formats are views of it.

pub mod compare;
mod csv;
mod fault;
mod table;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use csv::csv;
pub use fault::{Fault, fault};
pub use table::{markdown, table};

/// Version of the JSON layout.
pub const SCHEMA: u32 = 1;

/// One run: where it ran, what it measured, what did not apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Version of this layout: [`SCHEMA`].
    pub schema: u32,
    /// Version of the crate.
    pub version: String,
    /// Commit that was checked out when the program was built, where known.
    #[serde(default)]
    pub commit: Option<String>,
    /// The machine.
    pub host: Host,
    /// What was measured, and its limits as measured in this run.
    pub device: DeviceInfo,
    /// A row per case.
    pub rows: Vec<Row>,
    /// Cases outside what is promised: with their figures, and `verified` as if it were; none of them counts as a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<Row>,
    /// Cases that were asked for and do not apply.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

impl Document {
    /// Cases whose result was wrong, and which therefore have no time.
    pub fn failures(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.verified)
    }
}

/// The machine a run was made on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Processor, as it calls itself.
    pub cpu: String,
    /// Processors this process may use.
    pub cores: usize,
    /// Threads the CPU device used.
    pub threads: usize,
    /// The widest instruction set in use: baseline, avx2 or avx512.
    pub simd: String,
    /// Physical memory in bytes, where known.
    pub memory: Option<u64>,
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
}

/// The device that was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceInfo {
    /// As given to `--device`.
    pub name: String,
    /// Measured f32 multiply-add rate, flops per second.
    pub flops_per_second: Option<f64>,
    /// Measured rate of reading memory far beyond the caches, bytes per second.
    pub bytes_per_second: Option<f64>,
    /// The same by size of what is read again and again, so that data which fits a cache is held to that cache.
    pub bandwidth: Vec<Bandwidth>,
}

/// Rate of reading a working set of some size.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Size of the working set.
    pub bytes: u64,
    /// Bytes per second.
    pub bytes_per_second: f64,
}

/// One measured case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The whole case on one line; `--only` with this line measures it again.
    pub case: String,
    /// Operation.
    pub op: String,
    /// The parameters of the case by name.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// Device.
    pub device: String,
    /// Element type of the input.
    pub dtype: String,
    /// Whether the result was checked and right; without that nothing is timed.
    pub verified: bool,
    /// Error figures by name.
    #[serde(default)]
    pub error: Map<String, Value>,
    /// What else was found, by name: bytes kept, ranks.
    #[serde(default)]
    pub figures: Map<String, Value>,
    /// Time of one call.
    pub seconds: Option<Seconds>,
    /// Bytes one call has to move.
    pub bytes: u64,
    /// Floating-point operations one call has to do.
    pub flops: u64,
    /// How near the measured limit of the device it came.
    pub roofline: Option<Roofline>,
    /// A rival measured in the same run, interleaved call by call.
    pub baseline: Option<Baseline>,
    /// What a reader must know about this row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Row {
    /// A figure among the errors.
    pub fn error(&self, name: &str) -> Option<f64> {
        self.error.get(name)?.as_f64()
    }

    /// A figure that is neither error nor time.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name)?.as_f64()
    }

    /// A parameter as it would be typed.
    pub fn param(&self, name: &str) -> Option<String> {
        match self.params.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// Bytes per second reached.
    pub fn bytes_per_second(&self) -> Option<f64> {
        self.seconds.map(|s| self.bytes as f64 / s.median)
    }

    /// Flops per second reached.
    pub fn flops_per_second(&self) -> Option<f64> {
        self.seconds.map(|s| self.flops as f64 / s.median)
    }
}

/// Seconds per call over the runs of a case.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Seconds {
    /// Median run.
    pub median: f64,
    /// Fastest run.
    pub min: f64,
    /// Slowest run.
    pub max: f64,
    /// Runs timed.
    pub runs: usize,
    /// Half the width of the 95 % interval of the median, relative to it.
    #[serde(default)]
    pub noise: Option<f64>,
}

/// Distance from the device's measured limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Roofline {
    /// `memory` or `compute`: which limit is the nearer one for this case.
    pub bound: String,
    /// Share of that limit reached.
    pub fraction: Option<f64>,
}

/// A rival in the same run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Baseline {
    /// What it is.
    pub name: String,
    /// Its median time.
    pub seconds: f64,
    /// Its median over ours: above 1, ours is faster.
    pub ratio: f64,
}

/// A case that was asked for and does not apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// The case.
    pub case: String,
    /// Why.
    pub reason: String,
}
