//! `tools/kernel-report` reads what compilers say, and its check finds what is planted.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// One kernel whose array needs a stack frame, and one with more live values than registers.
const PLANTED: &str = r#"#include "device/kernel.cuh"
struct Params {
    const float* from;
    float* to;
    int index;
};
KERNEL(planted_stack, Params, 32) {
    float values[64];
    for (int i = 0; i < 64; i++) values[i * p.index & 63] = p.from[i];
    p.to[threadIdx.x] = values[p.index + threadIdx.x & 63];
}
KERNEL(planted_spill, Params, 1024) {
    float values[160];
#pragma unroll
    for (int i = 0; i < 160; i++) values[i] = p.from[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 160; i++) p.to[i * 1024 + threadIdx.x] = values[159 - i] + values[i];
}
"#;

fn tool() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/kernel_report")
}

fn python() -> Command {
    let mut command = Command::new(env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned()));
    command.arg("-B").current_dir(tool());
    command
}

#[test]
fn the_kernel_report_reads_what_compilers_print() {
    let run = python().args(["-m", "unittest", "tests"]).output().expect("python3 is needed");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// A report of the kernels in `folder`; `None` on a machine without nvcc, unless it is required.
fn report(folder: &Path, args: &[&str]) -> Option<Output> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = python();
    command.arg(tool()).arg("--kernels").arg(folder).arg("--include").arg(root.join("kernels"));
    command.arg("--cache").arg(folder.join("cache")).args(args).env("LOWKEY_CUDA_ARCHS", "90");
    let run = command.output().expect("python3 is needed");
    let missing = String::from_utf8_lossy(&run.stderr).contains("was not found (tools/setup fetches it)");
    assert!(!missing || env::var("LOWKEY_CUDA").as_deref() != Ok("require"), "nvcc is required");
    if missing {
        eprintln!("no nvcc: the check of planted kernels is left out");
    }
    (!missing).then_some(run)
}

fn complaints(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().filter_map(|line| line.strip_prefix("error: ").map(str::to_owned)).collect()
}

#[test]
fn the_check_of_kernels_finds_spills_stack_frames_and_broken_budgets() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("planted")).unwrap();
    write("planted/planted.cu", PLANTED);
    write("budget.txt", "image_bytes 1000000\ncompile_minutes 10\nkernels 2\n");
    let Some(run) = report(folder.path(), &["--check", "--format", "json"]) else { return };
    let document: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(document["occupancy_ignores"], "dynamic shared memory");
    let rows = document["kernels"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(row["name"].as_str().unwrap().starts_with("planted_") && row["arch"] == "sm_90", "{row}");
        for field in ["registers", "image_bytes", "occupancy", "compile_seconds"] {
            assert!(row[field].as_f64().unwrap() > 0.0, "{field} of {row}");
        }
        assert!(row["instructions"]["LDG"].as_u64().unwrap() > 0, "{row}");
        assert_eq!(row["shared_bytes"], 0);
    }
    assert_eq!(run.status.code(), Some(1));
    let found = complaints(&run);
    assert!(found.iter().any(|line| line.contains("planted_stack has a stack frame of 256 bytes on sm_90")), "{found:?}");
    assert!(found.iter().any(|line| line.contains("planted_spill spills")), "{found:?}");

    let allowances =
        "planted_stack sm_90 stack<=256 planted\nplanted_spill * stack<=4096 planted\nplanted_spill * spill<=4096 planted\n";
    write("allowances.txt", allowances);
    let run = report(folder.path(), &["--check"]).unwrap();
    assert_eq!((run.status.code(), complaints(&run)), (Some(0), vec![]));
    write("allowances.txt", &format!("{allowances}planted_stack sm_90 spill<=8 it never did\n"));
    let run = report(folder.path(), &["--check"]).unwrap();
    assert_eq!(
        (run.status.code(), complaints(&run)),
        (Some(1), vec!["allowances.txt:4: nothing needs it any more".to_owned()])
    );

    write("allowances.txt", allowances);
    write("budget.txt", "image_bytes 1000\ncompile_minutes 10\nkernels 1\n");
    let run = report(folder.path(), &["--check"]).unwrap();
    let found = complaints(&run);
    assert!(run.status.code() == Some(1) && found.len() == 2, "{found:?}");
    assert!(found[0].starts_with("image_bytes: ") && found[1] == "kernels: 2, over the 1 of budget.txt", "{found:?}");

    write("planted/planted.cu", "KERNEL(planted_stack, Params, 32) { this is no C++ }\n");
    let run = report(folder.path(), &[]).unwrap();
    assert_eq!(run.status.code(), Some(2), "a kernel that does not compile is no report");
}
