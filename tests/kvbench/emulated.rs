//! kvbench on the emulated device: kernels of GPUs checked case by case where there is none.

use super::{Value, json_of, kvbench, rows};

fn emulated(args: &[&str]) -> (Value, String) {
    let output = kvbench(&[args, &["--device", "emulated", "--quick", "--format", "json"]].concat());
    let document = json_of(&output);
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    (document, String::from_utf8(output.stderr).unwrap())
}

fn reasons(document: &Value) -> Vec<&str> {
    document["skipped"].as_array().unwrap().iter().map(|skipped| skipped["reason"].as_str().unwrap()).collect()
}

fn assert_emulated_row(row: &Value) {
    assert_eq!((&row["device"], &row["verified"]), (&"emulated".into(), &true.into()), "{row}");
    assert!(row["error"]["relative"].is_f64() && row["bytes"].as_u64() > Some(0) && row["flops"].as_u64() > Some(0), "{row}");
    assert_eq!(row["seconds"]["runs"], 1, "{row}");
    assert!(row["seconds"]["median"].as_f64().unwrap() > 0.0 && row["seconds"]["noise"].is_null(), "{row}");
    assert!(row["baseline"].is_null() && row["roofline"].is_null(), "an emulation is no rival of anything: {row}");
}

#[test]
fn everything_is_verified_or_says_what_there_is_no_kernel_for() {
    let (document, stderr) = emulated(&["all"]);
    rows(&document).iter().for_each(assert_emulated_row);
    let known = ["has no kernel for emulated yet", "is not supported; expected one of"];
    let reasons = reasons(&document);
    assert!(reasons.iter().all(|reason| known.iter().any(|known| reason.contains(known))), "{reasons:?}");
    for (op, least) in [("svd", 2), ("attention", 6), ("linear", 2), ("mask", 3)] {
        let found = rows(&document).iter().filter(|row| row["op"] == op).count();
        assert!(found >= least, "{found} rows of {op}");
    }
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("times are of the emulation"), "{stderr}");
}

#[test]
fn attention_runs_over_windows_and_latents_of_devices_and_lists_the_other_forms() {
    let shape = ["attention", "--heads", "4/2", "--head-dim", "32", "--context", "111", "--rank", "7/16", "--batch", "2"];
    let forms = ["--latent", "bf16,int8,int4", "--window", "5", "--sinks", "1", "--block", "32"];
    let (document, _) = emulated(&[&shape[..], &forms].concat());
    rows(&document).iter().for_each(assert_emulated_row);
    let latents: Vec<&str> = rows(&document).iter().map(|row| row["params"]["latent"].as_str().unwrap_or("dense")).collect();
    // Dense, whole rows, and rank 7/16.
    assert_eq!(latents, ["dense", "bf16", "int8", "bf16", "int8"]);
    assert!(rows(&document).iter().all(|row| row["dtype"] == "bf16"));
    let reasons = reasons(&document);
    let count = |text: &str| reasons.iter().filter(|reason| reason.contains(text)).count();
    assert_eq!((count("int4 is not supported"), count("keys stored before RoPE")), (2, 3), "{reasons:?}");
}

#[test]
fn a_case_pasted_as_only_gives_the_same_errors_again() {
    let linear = ["linear", "--m", "3", "--n", "97", "--k", "111", "--rank", "7", "--dtype", "f32,f16,bf16"];
    let mask = ["mask", "--rows", "7", "--cols", "59", "--scope", "row,tensor,2:4"];
    for args in [&linear[..], &mask] {
        let (first, _) = emulated(args);
        assert_eq!(rows(&first).len(), 3, "{first:#}");
        for row in rows(&first) {
            assert_emulated_row(row);
            let (again, _) = emulated(&["--only", row["case"].as_str().unwrap()]);
            assert_eq!(rows(&again)[0]["error"], row["error"]);
        }
    }
}

#[test]
fn kernels_keep_the_promises_of_both_modes() {
    let (document, _) = emulated(&["svd", "--accuracy", "--dtype", "f32,bf16"]);
    assert!(rows(&document).len() > 40, "{}", rows(&document).len());
    assert!(rows(&document).iter().all(|row| row["device"] == "emulated" && row["verified"] == true), "{document:#}");
}
