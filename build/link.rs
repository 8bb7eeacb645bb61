//! Links the emulator and its kernels into the crate.

use std::{fs, path::Path, process::Command};

use crate::{compile, emulator, emulator::Variant, sources::Source, threads, watched};

/// Compiles the emulator and every kernel for it; without a C++ compiler there is a warning and no emulator.
pub(crate) fn emulator(root: &Path, out: &Path, sources: &[Source]) -> Result<(), String> {
    let _ = watched("CXX");
    let Some(compiler) = emulator::compiler() else {
        println!("cargo::warning=no C++ compiler was found: building without the emulator (install g++, or set CXX)");
        return Ok(());
    };
    let folder = out.join("emulator");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = emulator::runtime(root).into_iter().chain(sources.iter().map(|source| source.path.clone()));
    let jobs: Vec<_> = files.map(|file| emulator::job(&compiler, root, &file, &folder, Variant::Plain, &[])).collect();
    compile::run(&jobs, threads())?;
    let archive = out.join("liblowkey_emulator.a");
    // ar adds to an archive that is there.
    let _ = fs::remove_file(&archive);
    let run = Command::new("ar").arg("crs").arg(&archive).args(jobs.iter().map(|job| &job.output)).output();
    let run = run.map_err(|error| format!("ar: {error} (on Debian: apt-get install binutils)"))?;
    if !run.status.success() {
        return Err(format!("ar: {}", String::from_utf8_lossy(&run.stderr)));
    }
    println!("cargo::rustc-cfg=lowkey_emulator");
    println!("cargo::rustc-link-search=native={}", out.display());
    // Whole: kernels register themselves, and nothing names them.
    println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=lowkey_emulator");
    println!("cargo::rustc-link-lib={}", if cfg!(target_vendor = "apple") { "c++" } else { "stdc++" });
    Ok(())
}
