//! Emulators compiled by tests: with mutated kernels, with planted faults, with the race checker, with sanitizers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use crate::{
    compile,
    emulator::{self, Variant},
};

/// Compilers read and write the same objects, so builds take turns.
static BUILDING: Mutex<()> = Mutex::new(());

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every kernel source of the project.
pub(crate) fn kernel_sources() -> Vec<PathBuf> {
    let folders = fs::read_dir(root().join("kernels")).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "cu"));
    files.sort();
    files
}

/// A shared library with an emulator and the kernels of `sources`, named `name`; objects are kept by variant and name.
pub(crate) fn build(name: &str, variant: Variant, sources: &[PathBuf], defines: &[&str]) -> PathBuf {
    let _turn = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let compiler = emulator::compiler().expect("a C++ compiler");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulators").join(format!("{variant:?}").to_lowercase());
    let shared = home.join("runtime");
    let folder = home.join(name);
    fs::create_dir_all(&shared).unwrap();
    fs::create_dir_all(&folder).unwrap();
    let runtime = emulator::runtime(&root());
    let mut jobs: Vec<_> = runtime.iter().map(|file| emulator::job(&compiler, &root(), file, &shared, variant, &[])).collect();
    jobs.extend(sources.iter().map(|file| emulator::job(&compiler, &root(), file, &folder, variant, defines)));
    compile::run(&jobs, 2).unwrap();
    let output = folder.join("emulator.so");
    let mut link = Command::new(&compiler);
    link.arg("-shared").arg("-o").arg(&output).args(jobs.iter().map(|job| &job.output));
    link.args(["-lpthread", "-ldl"]).args(emulator::link_flags(variant));
    let run = link.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    output
}

/// A library with every kernel of the project.
pub(crate) fn build_all(variant: Variant) -> PathBuf {
    build("all", variant, &kernel_sources(), &[])
}
