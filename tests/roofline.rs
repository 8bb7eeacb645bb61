//! `tools/roofline` reads machine code, and budgets follow from it.

use std::{
    env,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn python(args: &[&str]) -> Output {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/roofline_model");
    let mut command = Command::new(env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned()));
    command.arg("-B").current_dir(&tool).args(args).output().expect("python3 is needed")
}

#[test]
fn the_roofline_model_keeps_to_known_loops() {
    let run = python(&["-m", "unittest", "tests"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// Every loop of the kernels is described, and what the descriptions come to is the work of the operation.
#[test]
#[ignore = "slow: compiles kernels"]
fn every_operation_has_a_budget() {
    for op in ["svd", "attention", "linear"] {
        let run = python(&[".", op, "--format", "json"]);
        let said = String::from_utf8_lossy(&run.stderr);
        if said.contains("was not found (tools/setup fetches it)") && env::var("LOWKEY_CUDA").as_deref() != Ok("require") {
            eprintln!("no nvcc: budgets are left out");
            return;
        }
        assert!(run.status.success(), "{op}: {said}");
        let document: Value = serde_json::from_slice(&run.stdout).unwrap();
        let kernels = document["kernels"].as_array().unwrap();
        let sum: f64 = kernels.iter().map(|row| row["budget_us"].as_f64().unwrap()).sum();
        assert!((sum / document["budget_us"].as_f64().unwrap() - 1.0).abs() < 1e-3, "{document}");
        for row in kernels {
            let time = |name: &str| row[name].as_f64().unwrap();
            assert!(time("budget_us") >= time("memory_us").max(time("issue_us")), "{row}");
        }
    }
}
