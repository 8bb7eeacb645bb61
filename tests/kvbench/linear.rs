//! kvbench linear: factors are held against f64 and the dense layer, and what is not built says so.

use super::{Value, assert_row_keeps_the_contract, json_of, kvbench, refused, rows};

#[test]
fn factors_of_every_dtype_stand_beside_the_dense_layer_with_the_work_that_they_take() {
    let (n, k) = (97, 59);
    let shape = ["linear", "--m", "1,5", "--n", "97", "--k", "59", "--rank", "7,59", "--quick", "--format", "json"];
    let document = json_of(&kvbench(&[&shape[..], &["--dtype", "f32,f16,bf16"]].concat()));
    let of = |row: &Value, name: &str| row["params"][name].as_u64();
    let mut found = Vec::new();
    for row in rows(&document) {
        assert_row_keeps_the_contract(row);
        assert!(row["error"]["relative"].as_f64().unwrap() < 2e-6, "{row}");
        let (m, rank) = (of(row, "m").unwrap(), of(row, "rank"));
        let element = if row["dtype"] == "f32" { 4 } else { 2 };
        let weights = rank.map_or(n * k, |rank| rank * (n + k));
        assert_eq!(row["bytes"], 4 * m * (n + k) + element * weights);
        assert_eq!(row["flops"], 2 * m * weights);
        assert_eq!(row["figures"]["kept_bytes"], weights as f64 / (n * k) as f64);
        match rank {
            Some(_) => assert!(row["baseline"]["name"].as_str().unwrap().contains("dense f32 layer of the same n x k")),
            None => assert!(row["baseline"].is_null()),
        }
        found.push((m, rank, row["dtype"].as_str().unwrap()));
    }
    let mut expected = Vec::new();
    for m in [1, 5] {
        expected.push((m, None, "f32"));
        for dtype in ["f32", "f16", "bf16"] {
            expected.extend([7, 59].map(|rank| (m, Some(rank), dtype)));
        }
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let skipped: Vec<&str> =
        document["skipped"].as_array().unwrap().iter().map(|skipped| skipped["reason"].as_str().unwrap()).collect();
    assert_eq!(skipped.len(), 4, "dense weights are f32: {skipped:?}");
    assert!(skipped.iter().all(|reason| reason.contains("f16 is not supported; expected one of f32")), "{skipped:?}");
}

#[test]
fn formats_that_are_not_built_are_listed_with_that_reason() {
    let formats = ["--format-of-weights", "bitmap,delta,csr,2:4,int8,int4,factorized", "--density", "0.25,0.5"];
    let shape = ["linear", "--m", "1", "--n", "8", "--k", "16", "--rank", "8,9", "--quick", "--format", "json"];
    let document = json_of(&kvbench(&[&shape[..], &formats].concat()));
    assert_eq!(rows(&document).len(), 1);
    let skipped = document["skipped"].as_array().unwrap();
    let (unbuilt, over): (Vec<&Value>, Vec<&Value>) =
        skipped.iter().partition(|skipped| skipped["reason"].as_str().unwrap().contains("not built yet"));
    assert_eq!((unbuilt.len(), over.len()), (9, 1), "{skipped:?}");
    assert!(over[0]["reason"].as_str().unwrap().contains("rank 9 is over the 8"));
    for case in unbuilt {
        refused(&kvbench(&["--quick", "--only", case["case"].as_str().unwrap()]), &["--only", "not built yet"]);
    }
}

#[test]
fn bad_use_of_linear_is_one_error_line() {
    refused(&kvbench(&["linear", "--format-of-weights", "coo"]), &["--format-of-weights", "coo", "factorized"]);
    refused(&kvbench(&["linear", "--density", "1"]), &["--density", "between 0 and 1"]);
    refused(&kvbench(&["linear", "--rank", "0"]), &["--rank", "0"]);
    refused(&kvbench(&["linear", "--input", "/nonexistent.safetensors"]), &["--input", "linear layers are synthetic"]);
    let case = "linear:m=1,n=8,k=8,format-of-weights=factorized,dtype=f32,seed=0";
    refused(&kvbench(&["--only", case]), &["no rank="]);
    refused(&kvbench(&["--only", &case.replace("factorized", "csr,density=2")]), &["density=2", "between 0 and 1"]);
}

#[test]
fn the_table_says_what_the_columns_of_linear_mean() {
    let output = kvbench(&["linear", "--m", "1", "--n", "64", "--k", "64", "--rank", "8", "--quick"]);
    let table = String::from_utf8(output.stdout).unwrap();
    for word in ["weights", "factorized", "25.0%", "an n x k weight", "dense f32 layer of the same n x k"] {
        assert!(table.contains(word), "{word}: {table}");
    }
}
