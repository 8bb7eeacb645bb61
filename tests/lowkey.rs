//! The `lowkey` program: what it prints, its exit codes, and one line on stderr for anything wrong.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Output, Stdio},
};

use lowkey::model::files::{SafeFile, Saved, save};
use serde_json::Value;

use crate::model::{Reference, copy_of, fixture, project};

fn lowkey(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lowkey")).args(args).env_remove("LOWKEY_LOG").output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = lowkey(args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(args)).unwrap()
}

/// The one error line of a command that exits 2 and prints nothing.
fn refused(args: &[&str]) -> String {
    let output = lowkey(args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty());
    assert!(error.starts_with("error: ") && error.trim_end().lines().count() == 1, "{error}");
    assert!(!error.contains("panicked"), "{error}");
    error
}

#[test]
fn forward_writes_the_logits_and_hidden_states_of_the_reference() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("out.safetensors");
    for name in ["llama", "gpt2-oldnames"] {
        let reference = fixture(name).join("reference.safetensors");
        let result =
            json(&["forward", text(&fixture(name)), "--ids", text(&reference), "--out", text(&path), "--format", "json"]);
        assert_eq!((result["batch"].as_u64(), result["tokens"].as_u64()), (Some(2), Some(48)));
        let (found, expected) = (Reference::open(&path), Reference::open(&reference));
        assert_eq!(SafeFile::open(&path).unwrap().get("logits").unwrap().shape[..2], [2, 48]);
        for tensor in ["logits", "hidden_states.0", "hidden_states.1", "hidden_states.2"] {
            let (a, b) = (found.floats(tensor), expected.floats(tensor));
            assert_eq!(a.len(), b.len());
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-4), "{name} {tensor}");
        }
    }
}

#[test]
fn forward_refuses_ids_and_masks_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("ids.safetensors"), folder.path().join("out.safetensors"));
    let run = |tensors: Vec<(&str, &[i64], &[usize])>| {
        let tensors = tensors.iter().map(|(n, data, shape)| (n.to_string(), Saved::integers(data, shape).unwrap()));
        save(&path, &tensors.collect::<Vec<_>>()).unwrap();
        let model = fixture("gpt2");
        vec!["forward".to_string(), text(&model).into(), "--ids".into(), text(&path).into(), "--out".into(), text(&out).into()]
    };
    let refuse = |tensors: Vec<(&str, &[i64], &[usize])>| refused(&run(tensors).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refuse(vec![("input_ids", &[1, 2, 256, 3], &[2, 2])]).contains("input_ids[1, 0]: found 256"));
    assert!(refuse(vec![("input_ids", &[-1], &[1, 1])]).contains("input_ids[0, 0]: found -1"));
    assert!(refuse(vec![("input_ids", &[1; 73], &[1, 73])]).contains("at most 72 tokens"));
    assert!(refuse(vec![("input_ids", &[], &[1, 0])]).contains("shape [1, 0]"));
    assert!(refuse(vec![("input_ids", &[1, 2], &[2])]).contains("shape [2]"));
    assert!(refuse(vec![("other", &[1], &[1, 1])]).contains("input_ids"));
    let ids = ("input_ids", &[1i64, 2, 3][..], &[1usize, 3][..]);
    assert!(refuse(vec![ids, ("attention_mask", &[0, 1, 1], &[1, 3])]).contains("attention_mask[0]"));
    assert!(refuse(vec![ids, ("attention_mask", &[1, 1], &[1, 2])]).contains("the shape of input_ids"));
    assert!(refuse(vec![ids, ("token_type_ids", &[0, 1, 1], &[1, 3])]).contains("token_type_ids"));
    assert!(!out.exists());
    let fits = run(vec![ids, ("attention_mask", &[1, 1, 0], &[1, 3])]);
    stdout(&fits.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn generate_prints_the_text_as_is_or_as_json() {
    let model = project("models/tinyshakespeare-llama");
    let cases: Value = serde_json::from_slice(&fs::read(model.join("reference/greedy.json")).unwrap()).unwrap();
    let (prompt, expected) = (cases[0]["prompt"].as_str().unwrap(), cases[0]["continuation"].as_str().unwrap());
    assert_eq!(stdout(&["generate", text(&model), "--prompt", prompt]), format!("{expected}\n"));
    let result = json(&["generate", text(&model), "--prompt", prompt, "--format", "json"]);
    assert_eq!((result["text"].as_str(), &result["ids"]), (Some(expected), &cases[0]["continuation_ids"]));
    assert!(result["tokens_per_second"].as_f64().unwrap() > 0.0);
    let short = json(&["generate", text(&model), "--prompt", prompt, "--max-new-tokens", "3", "--format", "json"]);
    assert_eq!(short["ids"].as_array().unwrap(), &cases[0]["continuation_ids"].as_array().unwrap()[..3]);
}

#[test]
fn prompts_that_are_empty_or_longer_than_the_context_are_refused() {
    let model = project("models/tinyshakespeare-llama");
    assert!(refused(&["generate", text(&model), "--prompt", ""]).contains("--prompt: found 0 tokens"));
    let long = "ROMEO:\n".repeat(200);
    let error = refused(&["generate", text(&model), "--prompt", &long]);
    assert!(error.contains("--prompt: found 600 tokens, expected from 1 to 512"), "{error}");
}

#[test]
fn eval_prints_the_fields_of_its_contract() {
    let model = project("models/tinyshakespeare-gpt2");
    let val = project("models/tinyshakespeare/val.txt");
    let args = ["eval", text(&model), "--text", text(&val), "--window", "128", "--samples", "5"];
    let result = json(&[&args[..], &["--format", "json"]].concat());
    assert_eq!(result["tokens"].as_u64(), Some(5 * 127));
    let number = |field: &str| result[field].as_f64().unwrap_or_else(|| panic!("{field}"));
    assert!((number("nll").exp() - number("perplexity")).abs() < 1e-9);
    assert!(number("bits_per_byte") > 0.5 && number("seconds") > 0.0);
    assert!(stdout(&args).contains("perplexity"));
}

#[test]
fn eval_under_a_cache_prints_its_scores_and_bytes_next_to_the_dense_ones() {
    let (model, val) = (project("models/tinyshakespeare-llama"), project("models/tinyshakespeare/val.txt"));
    let args = ["eval", text(&model), "--text", text(&val), "--window", "96", "--samples", "2", "--format", "json"];
    let with = |more: &[&str]| json(&[&args[..], more].concat());
    let fields = ["perplexity", "nll", "bits_per_byte", "tokens", "seconds"];
    let plain = with(&["--kv-mode", "both"]);
    assert!(fields.iter().all(|field| plain[field].is_number()) && plain.get("rows").is_none(), "{plain}");
    let spec = ["--kv", "rank=4,latent=int8,window=16,block=32"];
    let one = with(&spec);
    let numbers = fields.iter().chain(&["kv_bytes", "dense_kv_bytes"]);
    assert!(numbers.clone().all(|field| one[field].is_number()), "{one}");
    assert!(fields.iter().all(|field| one["dense"][field].is_number()), "{one}");
    assert!(one["kv_bytes"].as_u64() < one["dense_kv_bytes"].as_u64());
    assert_eq!(one["dense"]["perplexity"], plain["perplexity"]);
    let both = with(&[&spec[..], &["--kv-mode", "both"]].concat());
    let modes: Vec<_> = both["rows"].as_array().unwrap().iter().map(|row| row["kv_mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["whole", "stream"]);
    let folder = tempfile::tempdir().unwrap();
    let sweep = folder.path().join("sweep");
    fs::write(&sweep, format!("# two caches\n{}\n\nrank=8,window=16,block=16 # small\n", spec[1])).unwrap();
    let rows = with(&["--sweep", text(&sweep)]);
    assert_eq!(rows["rows"].as_array().unwrap().len(), 2);
    assert_eq!(rows["rows"][0]["perplexity"], one["perplexity"]);
    assert!(rows["rows"].as_array().unwrap().iter().all(|row| numbers.clone().all(|field| row[field].is_number())));
    let error = refused(&[&args[..], &["--kv", "rank=16,basis=calibrated"]].concat());
    assert!(error.contains("--calibrate"), "{error}");
}

#[test]
fn logs_go_to_stderr_and_only_when_asked_for() {
    let model = project("models/tinyshakespeare-llama");
    let args = ["generate", text(&model), "--prompt", "ROMEO:\n", "--max-new-tokens", "4"];
    let quiet = lowkey(&args);
    let log = |args: &[&str]| {
        let output = lowkey(args);
        assert_eq!((output.status.code(), &output.stdout), (Some(0), &quiet.stdout));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(quiet.stderr.is_empty() && !quiet.stdout.is_empty());
    let (info, debug) = (log(&[&args[..], &["-v"]].concat()), log(&[&args[..], &["-vv"]].concat()));
    assert!(info.contains("loaded") && info.contains("parameters=") && !info.contains("decode_per_second"), "{info}");
    assert!(debug.contains("decode_per_second=") && !debug.contains('\u{1b}'), "{debug}");
    let output = Command::new(env!("CARGO_BIN_EXE_lowkey")).args(args).env("LOWKEY_LOG", "lowkey=loud").output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: LOWKEY_LOG: found \"lowkey=loud\""));
}

#[test]
fn a_missing_file_is_told_once_on_one_line_with_advice() {
    let error = refused(&["generate", "no\nsuch\u{1b}model", "--prompt", "x"]);
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
    assert!(error.contains("no such model") && error.contains("hint: check the path"), "{error}");
}

#[test]
fn ids_of_any_size_are_refused_before_memory_of_that_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ids.safetensors");
    let header = r#"{"input_ids":{"dtype":"I64","shape":[1,200000000000],"data_offsets":[0,1600000000000]}}"#;
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
    // Sparse: the length is there, the blocks are not. A file system that cannot has nothing to be tested with.
    let file = fs::File::options().write(true).open(&path).unwrap();
    if file.set_len(8 + header.len() as u64 + 1_600_000_000_000).is_ok() {
        let error = refused(&["forward", text(&fixture("gpt2")), "--ids", text(&path), "--out", "out.safetensors"]);
        assert!(error.contains("input_ids") && error.contains("200000000000 elements"), "{error}");
    }
}

#[test]
fn texts_and_windows_that_cannot_be_scored_are_refused() {
    let model = project("models/tinyshakespeare-llama");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    let eval = |content: &[u8], more: &[&str]| {
        fs::write(&path, content).unwrap();
        refused(&[&["eval", text(&model), "--text", text(&path)], more].concat())
    };
    assert!(eval(b"", &[]).contains("length: found 0 bytes"));
    assert!(
        eval(b"too short", &[]).contains("text: found 4 tokens, expected at least 512 tokens"),
        "{}",
        eval(b"too short", &[])
    );
    assert!(eval(b"\xff\xfe", &[]).contains("UTF-8"));
    let long = "First Citizen:\n".repeat(500);
    assert!(eval(long.as_bytes(), &["--window", "513"]).contains("512, the context"));
    assert!(eval(long.as_bytes(), &["--window", "1"]).contains("window: found 1"));
    assert!(eval(long.as_bytes(), &["--stride", "0"]).contains("stride: found 0"));
    assert!(refused(&["eval", text(&model), "--text", text(folder.path())]).contains("a folder"));
}

#[test]
fn models_that_are_not_there_or_damaged_are_one_line_and_exit_2() {
    let refuse = |folder: &Path| refused(&["generate", text(folder), "--prompt", "x"]);
    assert!(refuse(Path::new("no/such/model")).contains("no/such/model"));
    let folder = copy_of("llama", "config.json");
    assert!(refuse(folder.path()).contains("tokenizer.json"), "the fixture has none");
    let weights = folder.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    let error = refuse(folder.path());
    assert!(error.contains("model.safetensors") && error.contains("truncated"), "{error}");
}

#[test]
fn a_device_that_is_not_here_is_one_line_and_exit_2() {
    let model = fixture("llama");
    for device in ["cuda:99999", "emulated", "gpu"] {
        let error = refused(&["generate", text(&model), "--prompt", "x", "--device", device]);
        assert!(error.contains(device) && error.contains("cpu"), "{error}");
    }
}

#[test]
fn wrong_use_exits_2_and_help_exits_0() {
    for args in
        [&["nonsense"][..], &["eval"], &["generate", "m", "--prompt", "x", "--temperature", "hot"], &["eval", "m", "--wat"]]
    {
        let output = lowkey(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && String::from_utf8(output.stderr).unwrap().starts_with("error: "), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["eval", "--help"]] {
        assert!(!stdout(args).is_empty());
    }
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let model = project("models/tinyshakespeare-llama");
    let mut child = Command::new(env!("CARGO_BIN_EXE_lowkey"))
        .args(["generate", text(&model), "--prompt", "ROMEO:\n", "--max-new-tokens", "400"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"Mada");
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""));
}
