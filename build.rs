//! Compiles the kernels: for GPUs with nvcc where it is found, for the CPU with the C++ compiler where feature
//! `emulator` asks for it. Writes the handles that Rust launches them by, and tells the program its commit.

#[path = "build/commit.rs"]
mod commit;
#[path = "build/compile.rs"]
mod compile;
#[path = "build/emulator.rs"]
mod emulator;
#[path = "build/link.rs"]
mod link;
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/sources.rs"]
mod sources;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use sources::Source;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rustc-check-cfg=cfg(lowkey_emulator)");
    commit::tell();
    if let Err(message) = kernels() {
        message.lines().for_each(|line| println!("cargo::error={line}"));
        process::exit(1);
    }
}

fn kernels() -> Result<(), String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    println!("cargo::rerun-if-changed=kernels");
    let sources = Source::find(&root.join("kernels"))?;
    let images = if wants("CUDA") { nvcc::compile(&root, &out, &sources)? } else { nvcc::Images::none() };
    for (name, text) in sources::handles(&sources) {
        write(&out.join(format!("{name}.rs")), &text)?;
    }
    write(&out.join("table.rs"), &sources::table(&sources, &images))?;
    if wants("EMULATOR") {
        link::emulator(&root, &out, &sources)?;
    }
    Ok(())
}

fn wants(feature: &str) -> bool {
    env::var_os(format!("CARGO_FEATURE_{feature}")).is_some()
}

/// The value of a variable, which cargo watches from then on.
fn watched(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// How many compilers may run at once.
fn threads() -> usize {
    env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1)
}

/// Writes a file unless it has this very text, so that its time tells when it changed.
fn write(path: &Path, text: &str) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
