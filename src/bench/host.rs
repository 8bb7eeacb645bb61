//! What can be learned about the machine and this build.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use crate::{
    device::simd::{self, Level},
    report::Host,
};

/// The machine as this process sees it.
pub(super) fn host() -> Host {
    Host {
        cpu: cpu_name(),
        cores: thread::available_parallelism().map_or(1, usize::from),
        threads: rayon::current_num_threads(),
        simd: simd_name().to_owned(),
        memory: memory("MemTotal:"),
        os: os_name(),
        arch: std::env::consts::ARCH.to_owned(),
    }
}

/// The instruction set that inner loops run with.
pub(super) fn simd_name() -> &'static str {
    match simd::level() {
        Level::Avx512 => "avx512",
        Level::Avx2 => "avx2",
        Level::Baseline => "baseline",
    }
}

fn cpu_name() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}

/// A figure of /proc/meminfo in bytes.
pub(super) fn memory(field: &str) -> Option<u64> {
    let about = fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = about.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse::<u64>();
    kilobytes.ok()?.checked_mul(1024)
}

fn os_name() -> String {
    let about = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = about.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| std::env::consts::OS.to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The commit that was checked out when this was built, by the build script; changes beside it do not show.
pub(super) fn commit() -> Option<String> {
    option_env!("LOWKEY_COMMIT").filter(|commit| is_hash(commit)).map(str::to_owned)
}

fn is_hash(text: &str) -> bool {
    text.len() >= 7 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Folders that may hold models, nearest first: `LOWKEY_MODELS` alone where it is set; else `models` here, beside the
/// program or above it, and where the program was built.
pub(super) fn model_folders() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os("LOWKEY_MODELS") {
        return vec![folder.into()];
    }
    let program = std::env::current_exe().unwrap_or_default();
    let mut folders = vec![PathBuf::from("models")];
    folders.extend(program.ancestors().skip(1).map(|above| above.join("models")));
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("models"));
    folders
}

/// The folder of a model that comes with this project, and the text it is measured on, where both are found.
pub(super) fn find_model(name: &str) -> Option<(PathBuf, PathBuf)> {
    let pair = |folder: PathBuf| (folder.join(name), folder.join("tinyshakespeare").join("val.txt"));
    let is_here = |(model, text): &(PathBuf, PathBuf)| model.join("config.json").is_file() && text.is_file();
    model_folders().into_iter().map(pair).find(is_here)
}
