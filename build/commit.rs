//! Tells the program which commit it is built from, where that can be known.

use std::{env, path::Path, process::Command};

pub(crate) fn tell() {
    println!("cargo::rerun-if-env-changed=LOWKEY_COMMIT");
    // A package unpacked inside another checkout is not that checkout's commit.
    if env::var_os("LOWKEY_COMMIT").is_some() || !Path::new(".git").exists() {
        return;
    }
    let Some(commit) = git(&["rev-parse", "--verify", "HEAD"]) else { return };
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        // A path that is not there would run this at every build.
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rustc-env=LOWKEY_COMMIT={commit}");
}

/// The line that git prints; `None` where there is no git or it refuses.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}
