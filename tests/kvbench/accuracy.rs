//! `kvbench svd --accuracy`: what a grid says of both modes, and what it calls beyond them.

use std::path::Path;

use lowkey::philox::Stream;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;

use super::{json_of, kvbench, refused, rows};

const FIGURES: [&str; 7] =
    ["relative", "optimal_ratio", "of_limit", "orthogonality_u", "orthogonality_v", "residual", "singular_values"];

fn assert_row_keeps_the_contract(row: &Value) {
    assert_eq!((&row["op"], &row["seconds"], &row["baseline"]), (&"svd-accuracy".into(), &Value::Null, &Value::Null), "{row}");
    let figure = |name: &str| row["error"][name].as_f64().unwrap_or_else(|| panic!("{name} of {row}"));
    FIGURES.iter().for_each(|name| assert!(figure(name) >= 0.0, "{row}"));
    // Nothing is better than the best one, but for the rounding of factors.
    assert!(figure("optimal_ratio") > 0.9999 && row["figures"]["kappa"].as_f64().unwrap() > 0.9999, "{row}");
    for param in ["data", "shape", "rank", "mode", "solved"] {
        assert!(!row["params"][param].is_null(), "{param} of {row}");
    }
}

/// The grid, every promised case of it kept.
fn grid(args: &[&str]) -> Value {
    let output = kvbench(&[&["svd", "--accuracy", "--format", "json"], args].concat());
    let document = json_of(&output);
    let wrong: Vec<&Value> = rows(&document).iter().filter(|row| row["verified"] != true).collect();
    assert!(wrong.is_empty() && output.status.code() == Some(0), "{wrong:#?}");
    document["rows"]
        .as_array()
        .into_iter()
        .chain(document["beyond"].as_array())
        .flatten()
        .for_each(assert_row_keeps_the_contract);
    document
}

fn every<'a>(document: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    document[list].as_array().into_iter().flatten()
}

/// Matrices [2, 23, 40] with singular values near 2^-3j, and [1, 60, 20] of noise.
fn file(path: &Path) {
    let normal = |matrix, count| {
        let stream = Stream::new(3, matrix);
        (0..count).map(move |i| stream.normal(i))
    };
    let graded: Vec<f32> = normal(0, 2 * 23 * 40).enumerate().map(|(i, x)| x * 0.125f32.powi((i / 40 % 23) as i32)).collect();
    let noise: Vec<f32> = normal(1, 60 * 20).collect();
    let view = |shape: &[usize], data| TensorView::new(Dtype::F32, shape.to_vec(), bytemuck::cast_slice(data)).unwrap();
    let tensors = [("graded", view(&[2, 23, 40], &graded)), ("noise", view(&[60, 20], &noise))];
    safetensors::serialize_to_file(tensors, None, path).unwrap();
}

#[test]
fn both_modes_keep_their_promises_and_what_lies_beyond_is_listed_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matrices.safetensors");
    file(&path);
    let document = grid(&["--input", path.to_str().unwrap(), "--dtype", "f32"]);
    let of = |list: &str, tensor: &str, mode: &str, rank: u64| {
        let same = |r: &&Value| r["params"]["tensor"] == tensor && r["params"]["mode"] == mode && r["params"]["rank"] == rank;
        every(&document, list).filter(same).count()
    };
    // s_1 / s_8 is near 2^21, and near 2^45 at 16.
    for rank in [8, 16] {
        assert_eq!([of("rows", "graded", "safe", rank), of("rows", "graded", "fast", rank)], [1, 0]);
        assert_eq!([of("beyond", "graded", "safe", rank), of("beyond", "graded", "fast", rank)], [0, 1]);
        assert_eq!([of("rows", "noise", "safe", rank), of("rows", "noise", "fast", rank)], [1, 1]);
    }
    assert_eq!(document["skipped"].as_array().unwrap().len(), 4, "rank 32 of either");
    let beyond = every(&document, "beyond").next().unwrap();
    let again = json_of(&kvbench(&["--only", beyond["case"].as_str().unwrap(), "--format", "json"]));
    assert_eq!(&again["beyond"][0], beyond);
    let saved = folder.path().join("run.json");
    std::fs::write(&saved, document.to_string()).unwrap();
    let compared = json_of(&kvbench(&["compare", saved.to_str().unwrap(), saved.to_str().unwrap(), "--format", "json"]));
    assert!(rows(&compared).iter().all(|row| row["verdict"] == "same"), "right in both, if without a time: {compared}");
    for format in ["table", "markdown", "csv", "jsonl"] {
        let output = kvbench(&["svd", "--accuracy", "--dtype", "f32", "--input", path.to_str().unwrap(), "--format", format]);
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| line.contains("fast") && line.contains("single")).count();
        assert!(output.status.success() && (format == "csv" || lines == 4), "{format}: {text}");
        assert!(text.contains("beyond what"), "{format}: {text}");
    }
}

#[test]
#[ignore = "slow: f64 decompositions of a large matrix"]
fn the_quick_grid_keeps_every_promise_in_every_dtype() {
    let document = grid(&["--quick"]);
    for (mode, dtype) in ["safe", "fast"].into_iter().flat_map(|mode| ["f32", "f16", "bf16"].map(|dtype| (mode, dtype))) {
        let found = rows(&document).iter().filter(|r| r["params"]["mode"] == mode && r["dtype"] == dtype).count();
        assert!(found > 30, "{found} of {mode} {dtype}");
    }
    // As f32 they are what they were made to be.
    let f32s = || rows(&document).iter().chain(every(&document, "beyond")).filter(|row| row["dtype"] == "f32");
    for row in f32s() {
        let (made, found) = (row["params"]["kappa"].as_f64().unwrap(), row["figures"]["kappa"].as_f64().unwrap());
        assert!((found / made - 1.0).abs() < 0.02, "{row}");
    }
    assert!(f32s().count() > 100 && every(&document, "beyond").all(|row| row["params"]["mode"] == "fast"));
}

#[test]
fn a_grid_is_no_sweep() {
    for flag in ["--rank", "--rows", "--start"] {
        refused(&kvbench(&["svd", "--accuracy", flag, "8"]), &["--accuracy", flag]);
    }
    refused(&kvbench(&["svd", "--start", "triple"]), &["--start", "single, double, jacobi"]);
    let case = "svd-accuracy:data=step,rows=9,cols=7,kappa=100.0,at=3,seed=0,dtype=f32,rank=3,mode=";
    refused(&kvbench(&["--only", &format!("{case}hasty")]), &["mode=hasty", "safe or fast"]);
    refused(&kvbench(&["--only", &format!("{case}safe").replace("at=3", "at=8")]), &["at=8", "1 to 7"]);
    refused(&kvbench(&["--only", &format!("{case}safe").replace("100.0", "0.5")]), &["kappa=0.5", "1 to 1e30"]);
    refused(&kvbench(&["--only", &format!("{case}safe").replace("rank=3", "rank=8")]), &["rank 8 is over the 7"]);
}
