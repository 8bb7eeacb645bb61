//! kvbench: the contract of its flags and JSON, and that nothing wrong is ever given a time.

mod accuracy;
#[cfg(feature = "emulator")]
mod emulated;
mod linear;

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use lowkey::{
    Device, Error, Result, Tensor,
    bench::{
        Case, Line, Verdict, Work, measure, roofline, sweep,
        timing::{self, Side},
    },
    model::files,
    philox::Stream,
    report::{Document, compare},
};
use serde_json::{Value, json};

/// kvbench on synthetic data.
fn kvbench(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvbench"));
    command.args(args).env("LOWKEY_MODELS", "/nonexistent").env_remove("LOWKEY_LOG");
    command
}

/// kvbench on the model that comes with the project.
fn on_real_model(args: &[&str]) -> Output {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    command(args).env("LOWKEY_MODELS", models).output().unwrap()
}

fn json_of(output: &Output) -> Value {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"))
}

fn rows(document: &Value) -> &Vec<Value> {
    document["rows"].as_array().unwrap()
}

fn refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(output.stdout.is_empty());
    assert_eq!(text.lines().filter(|line| line.starts_with("error:")).count(), 1, "{text}");
    for word in words {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

fn assert_row_keeps_the_contract(row: &Value) {
    for field in ["case", "op", "device", "dtype"] {
        assert!(row[field].is_string(), "{field} of {row}");
    }
    assert_eq!(row["verified"], true, "{row}");
    assert!(row["params"].is_object() && row["error"]["relative"].is_f64(), "{row}");
    let seconds = &row["seconds"];
    let at = |field: &str| seconds[field].as_f64().unwrap_or_else(|| panic!("{field} of {row}"));
    assert!(0.0 < at("min") && at("min") <= at("median") && at("median") <= at("max") && at("runs") >= 5.0, "{row}");
    assert!(row["bytes"].as_u64().unwrap() > 0 && row["flops"].as_u64().unwrap() > 0);
    assert!(["memory", "compute"].contains(&row["roofline"]["bound"].as_str().unwrap()));
    assert!(row["roofline"]["fraction"].as_f64().unwrap() > 0.0);
    if let Value::Object(baseline) = &row["baseline"] {
        let (theirs, ratio) = (baseline["seconds"].as_f64().unwrap(), baseline["ratio"].as_f64().unwrap());
        assert!(baseline["name"].is_string());
        assert!((ratio - theirs / at("median")).abs() <= 1e-9 * ratio, "a ratio above 1 says that ours is faster: {row}");
    }
}

#[test]
fn json_is_one_object_with_every_field_and_nothing_else_on_stdout() {
    let args = ["svd", "--batch", "3", "--rows", "97", "--cols", "59", "--rank", "8,59", "--dtype", "f32,bf16"];
    let output = kvbench(&[&args[..], &["--quick", "--format", "json"]].concat());
    let document = json_of(&output);
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    assert_eq!(document["schema"], 1);
    for field in ["version", "host", "device", "skipped"] {
        assert!(!document[field].is_null(), "{field}");
    }
    for field in ["cpu", "cores", "threads", "simd", "os"] {
        assert!(!document["host"][field].is_null(), "host.{field}");
    }
    assert!(document["device"]["flops_per_second"].as_f64().unwrap() > 0.0);
    assert!(document["device"]["bytes_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(rows(&document).len(), 4);
    for row in rows(&document) {
        assert_row_keeps_the_contract(row);
        assert!(row["error"]["optimal_ratio"].as_f64().unwrap() <= 1.001);
        assert!(row["error"]["orthogonality"].as_f64().unwrap() <= 1e-4);
        assert!(row["baseline"]["ratio"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_case_pasted_as_only_runs_exactly_that_case_again() {
    let svd = ["svd", "--batch", "2", "--rows", "111", "--cols", "16", "--rank", "5", "--seed", "7"];
    let tolerance = ["svd", "--batch", "2", "--rows", "64", "--cols", "17", "--tolerance", "0.25"];
    let attention = ["attention", "--heads", "6/2", "--head-dim", "16", "--context", "97", "--batch", "3", "--rank", "4/8"];
    let attention = [&attention[..], &["--latent", "int4", "--window", "0", "--sinks", "3", "--block", "32"]].concat();
    let mask = ["mask", "--rows", "59", "--cols", "97", "--density", "0.3", "--scope", "row,tensor,2:4", "--dtype", "bf16"];
    let linear = ["linear", "--m", "3", "--n", "59", "--k", "97", "--rank", "5", "--dtype", "f32,f16", "--seed", "7"];
    for args in [&svd[..], &tolerance, &attention, &mask, &linear] {
        let first = json_of(&kvbench(&[args, &["--quick", "--format", "json"]].concat()));
        assert!(!rows(&first).is_empty(), "{first:#}");
        for row in rows(&first) {
            assert_row_keeps_the_contract(row);
            let again = json_of(&kvbench(&["--quick", "--format", "json", "--only", row["case"].as_str().unwrap()]));
            assert_eq!(rows(&again).len(), 1);
            for field in ["case", "op", "params", "dtype", "error", "figures", "bytes", "flops"] {
                assert_eq!(rows(&again)[0][field], row[field], "{field}");
            }
        }
    }
}

#[test]
fn masks_keep_what_their_density_and_scope_say() {
    let args = ["mask", "--rows", "64", "--cols", "100", "--density", "0.25,0.5", "--scope", "row,tensor,1:4", "--quick"];
    let document = json_of(&kvbench(&[&args[..], &["--dtype", "f32", "--format", "json"]].concat()));
    let found: Vec<(&str, f64)> = rows(&document)
        .iter()
        .map(|row| (row["params"]["scope"].as_str().unwrap(), row["figures"]["density"].as_f64().unwrap()))
        .collect();
    assert_eq!(found, [("row", 0.25), ("row", 0.5), ("tensor", 0.25), ("tensor", 0.5), ("1:4", 0.25)]);
    for row in rows(&document) {
        assert_row_keeps_the_contract(row);
        assert_eq!(row["error"]["wrong_bits"], 0.0);
        assert_eq!(row["bytes"], 64 * 100 * 4 + 64 * 16);
        assert!(row["baseline"]["ratio"].as_f64().unwrap() > 0.0);
    }
    let table = String::from_utf8(kvbench(&args).stdout).unwrap();
    assert!(["scope", "kept", "25.0%", "a sort of magnitudes"].iter().all(|word| table.contains(word)), "{table}");
}

#[test]
fn any_text_in_a_case_survives_the_line() {
    let name = "layers.0 k,v=100%/\"é\"\n";
    let line = Line::new("svd").with("tensor", name).with("rank", 3);
    let text = line.to_string();
    assert!(!text.contains([' ', '"', '\n', '\'', '$']), "{text}");
    let mut back: Line = text.parse().unwrap();
    assert_eq!(back.take("tensor").unwrap(), name);
    assert_eq!(back.take("rank").unwrap(), "3");
    for bad in ["", "svd", "svd:rank", "svd:rank=1,rank=2", "svd:rank=%zz", "svd:rank=%ff", "svd:rank=%é"] {
        assert!(matches!(bad.parse::<Line>(), Err(Error::Input(_))), "{bad}");
    }
}

#[test]
fn the_real_cache_gives_verified_rows_for_keys_and_values_at_every_rank() {
    let document = json_of(&on_real_model(&["svd", "--quick", "--format", "json"]));
    for side in ["keys", "values"] {
        for rank in [8, 16, 24, 32, 48, 64] {
            let found = rows(&document).iter().find(|r| r["params"]["data"] == side && r["params"]["rank"] == rank);
            assert_row_keeps_the_contract(found.unwrap_or_else(|| panic!("{side} {rank}")));
        }
    }
}

#[test]
fn attention_over_the_real_cache_stands_beside_dense_and_int4() {
    let document = json_of(&on_real_model(&["attention", "--quick", "--context", "600", "--rank", "8,64", "--format", "json"]));
    let find = |basis: &str, latent: &str, rank: &str| {
        let same = |r: &&Value, name: &str, wanted: &str| r["params"][name].as_str().unwrap_or("") == wanted;
        let mut rows = rows(&document).iter();
        let found = rows.find(|r| same(r, "basis", basis) && same(r, "latent", latent) && same(r, "rank", rank));
        found.unwrap_or_else(|| panic!("{basis} {latent} {rank}"))
    };
    rows(&document).iter().for_each(assert_row_keeps_the_contract);
    let kept = |row: &Value| row["figures"]["kept_bytes"].as_f64().unwrap();
    let lost = |row: &Value| row["error"]["attention_output"].as_f64().unwrap();
    let (dense, int4) = (find("dense", "", ""), find("identity", "int4", ""));
    assert_eq!(kept(dense), 1.0);
    assert!(dense["baseline"].is_null() && int4["baseline"]["name"].as_str().unwrap().contains("dense f16"));
    assert!(kept(int4) < 0.7 && lost(int4) > lost(dense));
    let (low, full) = (find("online", "f16", "8/8"), find("online", "f16", "64/64"));
    assert!(lost(low) > 10.0 * lost(full), "rank 8 loses more than full rank: {} {}", lost(low), lost(full));
    assert!(lost(full) < 1e-2, "full rank loses rounding only: {}", lost(full));
}

#[test]
fn blocks_windows_and_sinks_are_swept_and_each_cache_holds_what_its_format_can() {
    let shape =
        ["attention", "--heads", "4/2", "--head-dim", "16", "--context", "111", "--rank", "4,16", "--keys", "post-rope"];
    let lists = ["--block", "16,32", "--window", "0,7", "--sinks", "1,3", "--quick", "--format", "json"];
    let document = json_of(&kvbench(&[&shape[..], &lists].concat()));
    let of = |row: &Value, name: &str| row["params"][name].to_string();
    let mut places = std::collections::HashSet::new();
    for row in rows(&document) {
        assert_row_keeps_the_contract(row);
        places.insert([of(row, "block"), of(row, "window"), of(row, "sinks")]);
        // Steps of int8 over 16 elements: at worst 4 / 254 of a row; int4 4 / 14.
        let most = match (row["params"]["latent"].as_str(), row["params"]["rank"].as_str()) {
            (None, _) => 5e-4,
            (Some("int8"), None) => 0.018,
            (Some("int4"), None) => 0.29,
            (Some("f16"), Some("16/16")) => 2e-3,
            // A flat spectrum leaves 12 of 16.
            (Some("f16"), Some("4/4")) => 0.87,
            _ => 1.0,
        };
        for side in ["keys", "values"] {
            let limit = row["figures"][format!("{side}_limit")].as_f64().unwrap();
            let error = row["error"][side].as_f64().unwrap();
            assert!(error <= limit && limit <= most, "{side}: {error} {limit} {most} {row}");
        }
    }
    assert_eq!(places.len(), 8 + 1, "every place, and the dense cache that has none");
}

#[test]
fn without_models_the_data_is_synthetic_and_stderr_says_so() {
    let output = kvbench(&["svd", "--rank", "4", "--quick", "--format", "json"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("synthetic"));
    assert_eq!(rows(&json_of(&output))[0]["params"]["data"], "power");
}

#[test]
fn lists_ranges_and_suffixes_mean_what_they_say() {
    let read = |text| sweep::numbers("--context", text, 1 << 20).unwrap();
    assert_eq!(read("8,16,32"), [8, 16, 32]);
    assert_eq!(read("1k..64k"), [1, 2, 4, 8, 16, 32, 64].map(|n| n << 10));
    assert_eq!(read("3..20,1M"), [3, 6, 12, 1 << 20]);
    let pairs: Vec<String> = sweep::pairs("--rank", "32,16/48", 64).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(pairs, ["32/32", "16/48"]);
    for bad in
        ["", ",", "8,", "x", "-1", "+1", "0", "2M", "4..2", "1...3", "1e3", "8 ", "99999999999999999999", "18014398509481985k"]
    {
        let error = sweep::numbers("--context", bad, 1 << 20).unwrap_err();
        assert!(matches!(error, Error::Input(_)), "{bad}");
        assert!(error.to_string().starts_with("--context: found"), "{error}");
    }
}

#[test]
fn bad_use_is_one_error_line_and_exit_code_2() {
    refused(&kvbench(&["svd", "--rank", "8,x"]), &["--rank", "8,x", "hint"]);
    refused(&kvbench(&["svd", "--tolerance", "1.5"]), &["--tolerance", "1.5", "between 0 and 1"]);
    refused(&kvbench(&["svd", "--dtype", "f64"]), &["--dtype", "f32, f16, bf16"]);
    refused(&kvbench(&["attention", "--latent", "int3"]), &["--latent", "int3", "int4"]);
    refused(&kvbench(&["attention", "--heads", "32/0"]), &["--heads", "32/0"]);
    refused(&kvbench(&["mask", "--scope", "row,5:4"]), &["--scope", "row,5:4", "N:M"]);
    refused(&kvbench(&["mask", "--score", "luck"]), &["--score", "luck", "magnitude"]);
    refused(&kvbench(&["mask", "--density", "0"]), &["--density", "between 0 and 1"]);
    refused(&kvbench(&["--only", "svd:rank"]), &["--only", "rank"]);
    refused(&kvbench(&["--only", "fft:n=8"]), &["--only", "svd, svd-accuracy, attention, linear or mask"]);
    refused(&kvbench(&["--only", "svd:data=power,batch=1,rows=4,cols=4,seed=0,dtype=f32,rank=2,speed=9"]), &["speed"]);
    refused(&kvbench(&["--nonsense"]), &["--nonsense"]);
    refused(&kvbench(&["fly"]), &["fly"]);
    refused(&kvbench(&["svd", "--input", "/nonexistent.safetensors"]), &["/nonexistent.safetensors"]);
    refused(&kvbench(&["attention", "--input", "/nonexistent.safetensors"]), &["--input", "svd and mask take files"]);
    let split = kvbench(&["svd", "--input", "/nonexistent\nerror: more.safetensors"]);
    refused(&split, &["/nonexistent\\nerror: more.safetensors"]);
    assert_eq!(split.stderr.iter().filter(|b| **b == b'\n').count(), 1);
    refused(&kvbench(&["doctor", "--format", "csv"]), &["--format", "json"]);
    refused(&kvbench(&["--threads", "0", "doctor"]), &["--threads"]);
}

#[test]
fn a_gpu_that_is_not_there_is_one_line_and_exit_code_2() {
    let output = kvbench(&["--device", "cuda:99999"]);
    refused(&output, &["cuda:99999"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1);
}

#[test]
fn cases_that_do_not_apply_are_listed_with_a_reason() {
    let document = json_of(&kvbench(&[
        "svd", "--batch", "1", "--rows", "40", "--cols", "8", "--rank", "8,9", "--quick", "--format", "json",
    ]));
    assert_eq!(rows(&document).len(), 1);
    let skipped = document["skipped"].as_array().unwrap();
    assert_eq!(skipped.len(), 1);
    assert!(skipped[0]["case"].as_str().unwrap().ends_with("rank=9"));
    assert!(skipped[0]["reason"].as_str().unwrap().contains("rank 9"));
    let case = skipped[0]["case"].as_str().unwrap();
    refused(&kvbench(&["--only", case, "--quick"]), &["--only", "rank 9 is over"]);
    for format in ["csv", "jsonl"] {
        let output =
            kvbench(&["svd", "--batch", "1", "--rows", "40", "--cols", "8", "--rank", "8,9", "--quick", "--format", format]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.lines().count() == 1, "{text}");
        assert!(text.starts_with(&format!("skipped: {case}: rank 9")), "{text}");
    }
    let huge = ["attention", "--heads", "4096/4096", "--head-dim", "4096", "--context", "16M", "--batch", "64k"];
    let document = json_of(&kvbench(&[&huge[..], &["--rank", "8", "--quick", "--format", "json"]].concat()));
    assert!(rows(&document).is_empty() && !document["skipped"].as_array().unwrap().is_empty());
}

#[test]
fn every_tensor_of_a_file_is_taken_and_what_is_not_finite_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kv cache.safetensors");
    let stream = Stream::new(3, 0);
    let values: Vec<f32> = (0..2 * 3 * 59 * 16).map(|i| stream.normal(i)).collect();
    let device = Device::cpu();
    let k = Tensor::from_slice(&values, &[2, 3, 59, 16], &device).unwrap();
    let v = k.to_dtype(lowkey::Dtype::F16).unwrap();
    let saved = |t: &Tensor| files::Saved::tensor(t).unwrap();
    files::save(&path, &[("k, pre".into(), saved(&k)), ("v".into(), saved(&v))]).unwrap();
    let text = path.to_str().unwrap();
    let args = ["svd", "--input", text, "--rank", "4", "--quick", "--format", "json"];
    let document = json_of(&kvbench(&args));
    let names: Vec<&str> = rows(&document).iter().map(|row| row["params"]["tensor"].as_str().unwrap()).collect();
    assert_eq!(names, ["k, pre", "v"]);
    for row in rows(&document) {
        assert_row_keeps_the_contract(row);
        let again = json_of(&kvbench(&["--quick", "--format", "json", "--only", row["case"].as_str().unwrap()]));
        assert_eq!(rows(&again)[0]["error"], row["error"]);
    }

    let mut broken = values;
    broken[59 * 16 + 5] = f32::NAN;
    let k = Tensor::from_slice(&broken, &[2, 3, 59, 16], &device).unwrap();
    files::save(&path, &[("k".into(), saved(&k))]).unwrap();
    refused(&kvbench(&args), &["kv cache.safetensors", "\"k\"", "949"]);
    let output = kvbench(&[&args[..], &["--allow-nonfinite"]].concat());
    let document = json_of(&output);
    let row = &rows(&document)[0];
    assert!(row["note"].as_str().unwrap().starts_with("1 of 6 matrices"), "{row}");
    assert_row_keeps_the_contract(row);

    let k = Tensor::from_slice(&vec![f32::NAN; 2 * 59 * 16], &[2, 59, 16], &device).unwrap();
    files::save(&path, &[("k".into(), saved(&k))]).unwrap();
    let document = json_of(&kvbench(&[&args[..], &["--allow-nonfinite"]].concat()));
    assert!(rows(&document).is_empty(), "nothing was checked, so nothing is verified: {document:#}");
    assert!(document["skipped"][0]["reason"].as_str().unwrap().contains("NaN or Inf"));
}

#[test]
fn the_commit_is_the_one_that_was_checked_out_at_build_time_or_null() {
    let case = "svd:data=power,batch=1,rows=16,cols=4,seed=0,dtype=f32,rank=2";
    let commit = json_of(&kvbench(&["--only", case, "--quick", "--format", "json"]))["commit"].clone();
    assert_eq!(commit.as_str(), option_env!("LOWKEY_COMMIT"));
    assert!(commit.is_null() || commit.as_str().unwrap().bytes().all(|b| b.is_ascii_hexdigit()), "{commit}");
}

#[test]
fn every_format_prints_the_same_rows_and_a_saved_run_equals_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let case = "svd:data=power,batch=2,rows=64,cols=16,seed=0,dtype=f32,rank=4";
    let print = |format| {
        let output = kvbench(&["--only", case, "--quick", "--format", format, "--save", path.to_str().unwrap()]);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let csv = print("csv");
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.lines().nth(1).unwrap().starts_with(&format!("\"{case}\",svd,cpu,f32,true,")), "{csv}");
    let jsonl = print("jsonl");
    assert_eq!(jsonl.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&jsonl).unwrap()["case"], case);
    assert!(print("markdown").lines().any(|line| line.starts_with("| power")));
    assert!(print("table").contains("power"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    let run = path.to_str().unwrap();
    let output = kvbench(&["compare", run, run, "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(rows(&json_of(&output))[0]["verdict"], "same");
}

fn run_with(seconds: &[(&str, Option<[f64; 3]>)]) -> Value {
    let row = |(case, seconds): &(&str, Option<[f64; 3]>)| {
        json!({
            "case": case, "op": "svd", "params": {}, "device": "cpu", "dtype": "f32", "verified": seconds.is_some(),
            "error": {}, "bytes": 1, "flops": 1, "roofline": null, "baseline": null,
            "seconds": seconds.map(|[min, median, max]| json!({"median": median, "min": min, "max": max, "runs": 9})),
        })
    };
    let rows: Vec<Value> = seconds.iter().map(row).collect();
    json!({"schema": 1, "version": "0.1.0", "commit": null, "host": {}, "device": {}, "rows": rows})
}

fn compared(a: &Value, b: &Value) -> (Option<i32>, Output) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, run: &Value| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, run.to_string()).unwrap();
        path
    };
    let (a, b) = (write("a.json", a), write("b.json", b));
    let output = kvbench(&["compare", a.to_str().unwrap(), b.to_str().unwrap(), "--format", "json"]);
    (output.status.code(), output)
}

#[test]
fn compare_tells_same_faster_slower_and_ambiguous_apart() {
    let a = run_with(&[
        ("same", Some([0.9, 1.0, 1.2])),
        ("faster", Some([0.9, 1.0, 1.2])),
        ("noisy", Some([0.5, 1.0, 2.0])),
        ("gone", Some([1.0, 1.0, 1.0])),
    ]);
    let mut b = [
        ("same", Some([0.92, 1.03, 1.3])),
        ("faster", Some([0.4, 0.5, 0.7])),
        ("noisy", Some([0.6, 1.3, 2.2])),
        ("new", Some([1.0, 1.0, 1.0])),
    ];
    let (code, output) = compared(&a, &run_with(&b));
    let document = json_of(&output);
    let verdicts: Vec<&str> = rows(&document).iter().map(|row| row["verdict"].as_str().unwrap()).collect();
    assert_eq!((code, verdicts), (Some(0), vec!["same", "faster", "ambiguous"]));
    assert_eq!((&document["only_in_a"], &document["only_in_b"]), (&json!(["gone"]), &json!(["new"])));
    assert_eq!(rows(&document)[1]["ratio"], 2.0);
    b[0].1 = Some([1.3, 1.4, 1.9]);
    let (code, output) = compared(&a, &run_with(&b));
    assert_eq!((code, &rows(&json_of(&output))[0]["verdict"]), (Some(1), &json!("slower")));
    b[0].1 = None;
    let (code, output) = compared(&a, &run_with(&b));
    assert_eq!((code, &rows(&json_of(&output))[0]["verdict"]), (Some(1), &json!("failed")));
    let wrong = run_with(&[("same", None)]);
    let (code, output) = compared(&wrong, &wrong);
    assert_eq!((code, &rows(&json_of(&output))[0]["verdict"]), (Some(0), &json!("wrong")), "nothing got worse");
    let (code, output) = compared(&wrong, &run_with(&[("same", Some([1.0, 1.0, 1.0]))]));
    assert_eq!((code, &rows(&json_of(&output))[0]["verdict"]), (Some(0), &json!("repaired")));
}

#[test]
fn compare_refuses_what_is_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let good = run_with(&[("a", Some([1.0, 1.0, 1.0]))]);
    let refuse = |bytes: &[u8], words: &[&str]| {
        std::fs::write(&path, bytes).unwrap();
        let output = kvbench(&["compare", path.to_str().unwrap(), path.to_str().unwrap()]);
        refused(&output, &[&["run.json"], words].concat());
    };
    refuse(b"", &["JSON"]);
    refuse(b"\xff\xfe", &["JSON"]);
    refuse(&b"[".repeat(100_000), &["JSON"]);
    refuse(br#"{"schema":1,"schema":1}"#, &["duplicate field"]);
    refuse(br#"{"schema":1,"rows":[]}"#, &["missing field"]);
    let changed = |change: fn(&mut Value)| {
        let mut run = good.clone();
        change(&mut run);
        run.to_string().into_bytes()
    };
    refuse(&changed(|run| run["schema"] = json!(2)), &["schema", "2"]);
    refuse(&changed(|run| run["rows"][0]["seconds"]["median"] = json!(-1.0)), &["rows[0].seconds", "-1"]);
    refuse(&changed(|run| run["rows"][0]["seconds"]["min"] = json!(2.0)), &["rows[0].seconds"]);
    refuse(&changed(|run| run["rows"] = json!([run["rows"][0], run["rows"][0]])), &["rows[1].case", "once"]);
    let text = String::from_utf8(changed(|_| ())).unwrap().replacen("\"median\":1.0", "\"median\":1e999", 1);
    refuse(text.as_bytes(), &["JSON"]);
    refused(&kvbench(&["compare", "/nonexistent", "/nonexistent"]), &["/nonexistent"]);
    let here = folder.path().to_str().unwrap();
    refused(&kvbench(&["compare", here, here]), &["a folder"]);
    let (code, output) = compared(&good, &run_with(&[("b", Some([1.0, 1.0, 1.0]))]));
    assert_eq!(code, Some(2));
    refused(&output, &["a case in both"]);
}

#[test]
fn doctor_names_each_gap_and_its_remedy() {
    let document = json_of(&kvbench(&["doctor", "--format", "json"]));
    let findings = document["findings"].as_array().unwrap();
    let find = |what: &str| findings.iter().find(|f| f["what"] == what).unwrap_or_else(|| panic!("{what}"));
    for what in ["processor", "threads", "memory", "models", "driver", "kernels"] {
        let finding = find(what);
        assert_eq!(finding["state"] == "gap", finding["remedy"].is_string(), "{finding}");
    }
    assert!(find("models")["remedy"].as_str().unwrap().contains("LOWKEY_MODELS"));
    let kernels = find("kernels")["found"].as_str().unwrap();
    assert!(kernels.contains("kernels for sm_") || kernels.contains("none for GPUs"), "{kernels}");
    for what in ["gpu", "emulator"] {
        assert!(!find(what)["found"].as_str().unwrap().is_empty());
    }
    let text = String::from_utf8(kvbench(&["doctor"]).stdout).unwrap();
    assert!(text.contains("gap  models") && text.contains("-> "), "{text}");
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let args = ["svd", "--batch", "2", "--rows", "64", "--cols", "16", "--rank", "2,3,4,5", "--quick", "--format", "jsonl"];
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A case whose verdict and cost are what a test says.
struct Fake {
    verdict: Result<Verdict, &'static str>,
    calls: Vec<Side>,
}

impl Case for Fake {
    fn line(&self) -> Line {
        Line::new("fake").with("n", 1)
    }
    fn dtype(&self) -> String {
        "f32".to_owned()
    }
    fn verify(&mut self) -> Result<Verdict> {
        self.verdict.clone().map_err(|what| Error::Numeric { op: "fake", what: what.to_owned() })
    }
    fn work(&self) -> Work {
        Work { bytes: 1 << 20, flops: 1 }
    }
    fn baseline(&self) -> Option<String> {
        Some("the other".to_owned())
    }
    fn call(&mut self, side: Side) -> Result<()> {
        self.calls.push(side);
        // Longer than the shortest sample, so that each call is a sample of its own.
        std::thread::sleep(std::time::Duration::from_micros(300));
        Ok(())
    }
}

fn measured(verdict: Result<Verdict, &'static str>) -> (lowkey::report::Row, Vec<Side>) {
    let mut fake = Fake { verdict, calls: Vec::new() };
    let limits = timing::Limits::quick();
    let row = measure(&mut fake, &Device::cpu(), &limits, &roofline::Limits::of(1e9, 1e9)).unwrap().unwrap();
    (row, fake.calls)
}

#[test]
fn a_wrong_result_is_never_timed() {
    let wrong = Verdict { passed: false, error: vec![("relative", f64::NAN)], ..Verdict::default() };
    for verdict in [Ok(wrong), Err("it fell over")] {
        let (row, calls) = measured(verdict);
        assert!(calls.is_empty());
        let row = serde_json::to_value(&row).unwrap();
        assert_eq!(row["verified"], false);
        for field in ["seconds", "roofline", "baseline"] {
            assert!(row[field].is_null(), "{field}");
        }
        assert!(row["error"]["relative"].is_null(), "NaN has no place in JSON");
    }
    assert_eq!(measured(Err("it fell over")).0.note.unwrap(), "fake: it fell over");
}

#[test]
fn both_contenders_take_turns_in_the_same_run() {
    let (row, calls) = measured(Ok(Verdict { passed: true, ..Verdict::default() }));
    let (seconds, baseline) = (row.seconds.unwrap(), row.baseline.unwrap());
    assert!(seconds.min <= seconds.median && seconds.median <= seconds.max);
    assert_eq!(baseline.ratio, baseline.seconds / seconds.median);
    let timed = &calls[calls.len() - 2 * seconds.runs..];
    for (round, pair) in timed.chunks(2).enumerate() {
        let first = if round % 2 == 0 { Side::Ours } else { Side::Baseline };
        assert!(pair[0] == first && pair[1] != first, "round {round}: {pair:?}");
    }
    let roofline = row.roofline.unwrap();
    assert_eq!(roofline.bound, "memory");
    let expected = f64::from(1 << 20) / 1e9 / seconds.median;
    assert!((roofline.fraction.unwrap() - expected).abs() < 1e-9 * expected);
}

#[test]
fn the_median_and_its_noise_are_those_of_the_samples() {
    let odd = timing::summary(&[5.0, 1.0, 3.0]);
    assert_eq!((odd.median, odd.min, odd.max, odd.runs), (3.0, 1.0, 5.0, 3));
    assert_eq!(timing::summary(&[1.0, 2.0, 3.0, 10.0]).median, 2.5);
    let steady = timing::summary(&[1.0; 9]);
    assert_eq!(steady.noise, Some(0.0));
    // Of 100 samples the 40th and 61st hold the median with 95 %: 1.4 to 1.6 around 1.495.
    let spread: Vec<f64> = (0..100).map(|i| 1.0 + f64::from(i) / 100.0).collect();
    let noise = timing::summary(&spread).noise.unwrap();
    assert!((noise - 0.1 / 1.495).abs() < 0.01, "{noise}");
}

#[test]
fn a_document_survives_being_saved_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let case = "attention:data=power,heads=4/2,head-dim=8,seed=1,batch=2,context=59,dtype=f32,basis=identity,keys=post-rope,\
                latent=int8,window=7,sinks=1,block=16";
    let output = kvbench(&["--only", case, "--quick", "--save", path.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let document: Document = compare::read(&path).unwrap();
    assert_eq!(document.rows.len(), 1);
    assert_eq!(document.rows[0].case, case);
    // A file that is in the way stays whole when the new one cannot be written.
    std::fs::File::create(&path).unwrap().write_all(b"old").unwrap();
    let below = path.join("below.json");
    let output = kvbench(&["--only", case, "--quick", "--save", below.to_str().unwrap()]);
    refused(&output, &["--save", "below.json", "a folder that exists"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}
