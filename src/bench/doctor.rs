//! `kvbench doctor`: what this machine and build have, what they lack, and what to do about it.

use serde::Serialize;

use super::{REAL_MODEL, host};
use crate::{Device, Error, device, report::Host};

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing to do.
    Ok,
    /// Something works less well, or not at all.
    Gap,
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What closes the gap; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// Version of this layout.
    pub schema: u32,
    /// Version of the crate.
    pub version: String,
    /// Commit the program was built from, where known.
    pub commit: Option<String>,
    /// The machine.
    pub host: Host,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// The findings as text, gaps with their remedy.
    pub fn text(&self) -> String {
        let mut out = format!("lowkey {} on {}, {}\n\n", self.version, self.host.cpu, self.host.os);
        for finding in &self.findings {
            let mark = if finding.state == State::Ok { "ok " } else { "gap" };
            out += &format!("{mark}  {:<12}  {}\n", finding.what, finding.found);
            if let Some(remedy) = &finding.remedy {
                out += &format!("     {:<12}  -> {remedy}\n", "");
            }
        }
        out
    }
}

/// Looks at the machine and this build.
pub fn diagnose() -> Diagnosis {
    let host = host::host();
    let findings =
        vec![instructions(&host), threads(&host), memory(&host), models(), driver(), gpu(), kernels(), emulator(), build()];
    Diagnosis {
        schema: crate::report::SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: host::commit(),
        host,
        findings,
    }
}

fn ok(what: &str, found: String) -> Finding {
    Finding { what: what.to_owned(), state: State::Ok, found, remedy: None }
}

fn gap(what: &str, found: String, remedy: &str) -> Finding {
    Finding { what: what.to_owned(), state: State::Gap, found, remedy: Some(remedy.to_owned()) }
}

fn instructions(host: &Host) -> Finding {
    match host.simd.as_str() {
        "baseline" => gap(
            "processor",
            format!("{} without AVX2: inner loops use the baseline instruction set", host.arch),
            "use a processor with AVX2 or AVX-512, or let the virtual machine pass them through",
        ),
        level => ok("processor", format!("inner loops use {level}")),
    }
}

fn threads(host: &Host) -> Finding {
    let found = format!("{} threads on {} cores", host.threads, host.cores);
    match host.threads.cmp(&host.cores) {
        std::cmp::Ordering::Less => gap("threads", found, "unset RAYON_NUM_THREADS or raise --threads to use every core"),
        std::cmp::Ordering::Greater => gap("threads", found, "lower RAYON_NUM_THREADS or --threads to the number of cores"),
        std::cmp::Ordering::Equal => ok("threads", found),
    }
}

fn memory(host: &Host) -> Finding {
    const NEEDED: u64 = 2 << 30;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    match (host.memory, host::memory("MemAvailable:")) {
        (Some(total), Some(free)) if free < NEEDED => gap(
            "memory",
            format!("{:.1} GiB free of {:.1} GiB", gib(free), gib(total)),
            "free 2 GiB, or use --quick and smaller shapes",
        ),
        (Some(total), Some(free)) => ok("memory", format!("{:.1} GiB free of {:.1} GiB", gib(free), gib(total))),
        _ => ok("memory", "unknown on this system".to_owned()),
    }
}

fn models() -> Finding {
    match host::find_model(REAL_MODEL) {
        Some((path, _)) => ok("models", path.display().to_string()),
        None => {
            let looked: Vec<String> = host::model_folders().iter().map(|p| p.display().to_string()).collect();
            gap(
                "models",
                format!("no {REAL_MODEL} in {}; without it the data is synthetic", looked.join(", ")),
                "run inside a checkout of the project, or set LOWKEY_MODELS to its folder `models`",
            )
        }
    }
}

#[cfg(feature = "cuda")]
fn driver() -> Finding {
    match crate::device::driver() {
        None => gap("driver", "no NVIDIA driver: libcuda was not found".to_owned(), "install NVIDIA driver 580 or newer"),
        // Driver 580 is the one that brought CUDA 13.
        Some(driver) if driver.major < 13 => {
            gap("driver", format!("an NVIDIA driver for CUDA {driver}"), "install NVIDIA driver 580 (CUDA 13.0) or newer")
        }
        Some(driver) => ok("driver", format!("an NVIDIA driver for CUDA {driver}")),
    }
}

#[cfg(not(feature = "cuda"))]
fn driver() -> Finding {
    gap("driver", "not looked for: built without feature `cuda`".to_owned(), "build with --features cuda")
}

fn gpu() -> Finding {
    match "cuda:0".parse::<Device>() {
        Ok(device) => ok("gpu", format!("{device} is ready")),
        Err(Error::Device { found, hint }) => gap("gpu", found, &hint),
        Err(error) => gap("gpu", error.to_string(), "use --device cpu"),
    }
}

fn kernels() -> Finding {
    let (count, built) = (device::kernels().len(), device::architectures());
    if !cfg!(feature = "cuda") {
        return gap(
            "kernels",
            format!("{count} kernels, none for GPUs: built without feature `cuda`"),
            "build with --features cuda",
        );
    }
    if built.is_empty() {
        let found = format!("{count} kernels, none for GPUs: nvcc was not found when this was built, or LOWKEY_CUDA was off");
        return gap("kernels", found, "run tools/setup, or set NVCC to CUDA 13.0 or newer, and build again");
    }
    ok("kernels", format!("{count} kernels for {}", built.join(", ")))
}

#[cfg(feature = "emulator")]
fn emulator() -> Finding {
    if device::emulator_built() {
        ok("emulator", "kernels can be run on the CPU with --device emulated".to_owned())
    } else {
        let found = "no C++ compiler was found when this was built".to_owned();
        gap("emulator", found, "install g++ (on Debian: apt-get install g++) or set CXX, and build again")
    }
}

#[cfg(not(feature = "emulator"))]
fn emulator() -> Finding {
    gap("emulator", "built without feature `emulator`".to_owned(), "build with --features emulator to run kernels on the CPU")
}

fn build() -> Finding {
    if cfg!(debug_assertions) {
        gap("build", "compiled with checks: times mean little".to_owned(), "build with --release")
    } else {
        ok("build", "compiled for speed".to_owned())
    }
}
