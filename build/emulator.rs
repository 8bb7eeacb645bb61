//! The emulator and the kernels compiled for it, by the host's C++ compiler.
//!
//! Tests compile other variants with the same commands: kernels with a fault, with the race checker, with sanitizers.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::compile::Job;

/// How an emulator is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "tests compile the other variants")]
pub(crate) enum Variant {
    /// For speed.
    Plain,
    /// Every access of a kernel is checked, by the compiler's instrumentation and the emulator's own run-time support.
    Checked,
    /// With the compiler's address and undefined-behaviour sanitizers.
    Sanitized,
}

impl Variant {
    fn flags(self, is_kernel: bool) -> &'static [&'static str] {
        match self {
            Self::Checked if is_kernel => &["-fsanitize=thread,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all"],
            Self::Plain | Self::Checked => &[],
            Self::Sanitized => &["-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=undefined"],
        }
    }
}

/// What linking a shared library needs beyond the objects.
#[allow(dead_code, reason = "tests link")]
pub(crate) fn link_flags(variant: Variant) -> &'static [&'static str] {
    match variant {
        // The emulator brings the run-time support of a checked build.
        Variant::Plain | Variant::Checked => &[],
        Variant::Sanitized => &["-fsanitize=address,undefined"],
    }
}

/// The C++ compiler: `CXX`, else the first of the usual names that runs.
pub(crate) fn compiler() -> Option<String> {
    let named = env::var("CXX").ok().filter(|name| !name.is_empty());
    let runs = |name: &String| Command::new(name).arg("--version").output().is_ok_and(|run| run.status.success());
    match named {
        Some(name) => runs(&name).then_some(name),
        None => ["c++", "g++", "clang++"].map(str::to_owned).into_iter().find(runs),
    }
}

/// The files of the emulator itself.
pub(crate) fn runtime(root: &Path) -> Vec<PathBuf> {
    let folder = fs::read_dir(root.join("kernels/emulator")).into_iter().flatten();
    let mut files: Vec<PathBuf> = folder.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "cpp"));
    files.sort();
    files
}

/// The compilation of one file, a kernel's `.cu` or the emulator's `.cpp`, into an object in `folder`.
pub(crate) fn job(compiler: &str, root: &Path, file: &Path, folder: &Path, variant: Variant, defines: &[&str]) -> Job {
    let is_kernel = file.extension().is_some_and(|ending| ending == "cu");
    let kernels = root.join("kernels");
    let parent = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let output = folder.join(format!("{parent}_{stem}.o"));
    let depfile = output.with_extension("d");
    let mut command = vec![compiler.to_owned()];
    // Sums are contracted as nvcc contracts them; lines are known, so that reports name them.
    const COMMON: [&str; 8] =
        ["-std=c++17", "-O2", "-g1", "-fPIC", "-ffp-contract=fast", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"];
    command.extend(COMMON.map(str::to_owned));
    if cfg!(target_arch = "x86_64") {
        command.push("-march=x86-64-v3".to_owned());
    }
    command.extend(variant.flags(is_kernel).iter().chain(defines).map(|&flag| flag.to_owned()));
    command.extend([format!("-I{}", kernels.display()), format!("-I{}", kernels.join("emulator/include").display())]);
    if is_kernel {
        command.extend(["-include".to_owned(), kernels.join("emulator/cuda.h").display().to_string()]);
        command.extend(["-x".to_owned(), "c++".to_owned()]);
    }
    command.extend(["-MD".to_owned(), "-MF".to_owned(), depfile.display().to_string()]);
    command.extend(["-o".to_owned(), output.display().to_string(), "-c".to_owned(), file.display().to_string()]);
    Job { command, output, depfile }
}
