//! Files: whatever a model folder holds, it loads or gives an error that names file, field, value and limit.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use lowkey::{
    Device, Dtype, Error, InputError, Purpose, Tensor,
    model::{
        Config, LoadOptions, Model,
        files::{SafeFile, Saved, replace, save},
        read_text,
    },
    philox::Stream,
};
use proptest::prelude::*;

use crate::model::{copy_of, fixture, load};

fn refused<T>(result: lowkey::Result<T>) -> InputError {
    match result.map(drop) {
        Err(Error::Input(error)) => *error,
        other => panic!("no input error but {other:?}"),
    }
}

fn load_refused(folder: &Path) -> InputError {
    refused(Model::load(folder, &Device::cpu(), &LoadOptions::default()))
}

/// A safetensors file of this header and data, however wrong.
fn raw(folder: &Path, header: &str, data: &[u8]) -> PathBuf {
    let path = folder.join("t.safetensors");
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&path, [&length, header.as_bytes(), data].concat()).unwrap();
    path
}

fn entry(name: &str, dtype: &str, shape: &str, from: u64, to: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
}

fn open_refused(header: &str, data: &[u8]) -> InputError {
    let folder = tempfile::tempdir().unwrap();
    let path = raw(folder.path(), header, data);
    let error = refused(SafeFile::open(&path));
    assert_eq!(error.file, Some(path));
    error
}

#[test]
fn header_lengths_over_the_limit_or_the_file_are_refused_before_they_are_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    for declared in [1u64 << 63, u64::MAX, 100_000_001, 65, 9] {
        fs::write(&path, [&declared.to_le_bytes()[..], b"{}      "].concat()).unwrap();
        let error = refused(SafeFile::open(&path));
        assert_eq!((error.field.as_str(), error.value), ("header length", format!("{declared} bytes")));
        assert!(error.limit.contains("100000000") && error.hint.contains("16 bytes"), "{} {}", error.limit, error.hint);
    }
    // A sparse file that is long enough for the header it declares, but over the limit.
    let file = fs::File::create(&path).unwrap();
    file.set_len(200_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &150_000_000u64.to_le_bytes(), 0).unwrap();
    assert_eq!(refused(SafeFile::open(&path)).field, "header length");
}

#[test]
fn shapes_and_byte_counts_that_wrap_are_refused() {
    for shape in ["[4294967296,4294967296]", "[18446744073709551615,2]", "[0,4294967296,4294967296]", "[9223372036854775808]"] {
        let error = open_refused(&format!("{{{}}}", entry("w", "F32", shape, 0, 0)), b"");
        assert_eq!(error.field, "tensor \"w\", shape");
        assert_eq!(error.value, shape);
    }
    let error = open_refused(&format!("{{{}}}", entry("w", "F32", "[2]", 18446744073709551608, 18446744073709551615)), b"");
    assert_eq!(error.field, "tensor \"w\", data_offsets");
    for (shape, from, to) in [("[3]", 0, 8), ("[2]", 8, 0), ("[1]", 0, 8)] {
        let error = open_refused(&format!("{{{}}}", entry("w", "F32", shape, from, to)), &[0; 8]);
        assert!(error.field.starts_with("tensor \"w\""), "{error}");
    }
    for wrong in ["[-1]", "[1.5]", "7", "[\"2\"]", "null"] {
        assert_eq!(open_refused(&format!("{{{}}}", entry("w", "F32", wrong, 0, 8)), &[0; 8]).field, "tensor \"w\", shape");
    }
    assert_eq!(open_refused(&format!("{{{}}}", entry("w", "F99", "[2]", 0, 8)), &[0; 8]).field, "tensor \"w\", dtype");
}

#[test]
fn tensors_that_overlap_leave_gaps_or_do_not_fill_the_file_are_refused() {
    let two = |a: (u64, u64), b: (u64, u64)| {
        format!("{{{},{}}}", entry("a", "F32", "[2]", a.0, a.1), entry("b", "F32", "[2]", b.0, b.1))
    };
    let error = open_refused(&two((0, 8), (4, 12)), &[0; 16]);
    assert!(error.field == "tensor \"b\", range" && error.value.contains("overlapping"), "{error}");
    let error = open_refused(&two((0, 8), (12, 20)), &[0; 20]);
    assert!(error.field == "tensor \"b\", range" && error.value.contains("gap"), "{error}");
    let error = open_refused(&two((4, 12), (12, 20)), &[0; 20]);
    assert!(error.field == "tensor \"a\", range" && error.value.contains("gap"), "{error}");
    let error = open_refused(&two((0, 8), (8, 16)), &[0; 19]);
    assert!(error.field == "file length" && error.value.contains("3 bytes after"), "{error}");
    let error = open_refused(&two((0, 8), (8, 16)), &[0; 13]);
    assert!(error.field == "tensor \"b\", range" && error.hint.contains("truncated"), "{error}");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = raw(folder.path(), &format!("{{{}}}", entry("w", "F32", "[250]", 0, 1000)), &[0; 1000]);
    let file = SafeFile::open(&path).unwrap();
    let length = file.length();
    fs::File::options().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
    let error = refused(file.read("w", &Device::cpu()));
    assert_eq!((error.field.as_str(), error.value), ("w", format!("a file of {} bytes", length - 1)));
    assert!(error.limit.contains(&format!("{length} bytes")) && error.hint.contains("shrank"));
}

fn index(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(folder.join("model.safetensors.index.json")).unwrap()).unwrap()
}

fn with_shard(folder: &Path, tensor: &str, shard: &str) -> InputError {
    let mut changed = index(folder);
    changed["weight_map"][tensor] = shard.into();
    fs::write(folder.join("model.safetensors.index.json"), changed.to_string()).unwrap();
    load_refused(folder)
}

#[test]
fn shards_outside_the_folder_are_not_opened() {
    let folder = copy_of("llama-sharded", "config.json");
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("x.safetensors");
    fs::copy(folder.path().join("model-00002-of-00002.safetensors"), &target).unwrap();
    symlink(&target, folder.path().join("link.safetensors")).unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::copy(&target, folder.path().join("sub/x.safetensors")).unwrap();
    let names = [
        "../x.safetensors",
        target.to_str().unwrap(),
        "link.safetensors",
        "sub/x.safetensors",
        "..",
        ".",
        "",
        "./model-00001-of-00002.safetensors",
    ];
    for name in names {
        let error = with_shard(folder.path(), "model.norm.weight", name);
        assert_eq!((error.field.as_str(), error.value), ("weight_map", format!("{name:?}")));
    }
}

#[test]
fn shards_that_are_missing_or_share_a_tensor_are_named() {
    let folder = copy_of("llama-sharded", "config.json");
    let error = with_shard(folder.path(), "model.norm.weight", "model-00003.safetensors");
    assert!(error.value.contains("model-00003") && error.hint.contains("missing"), "{error}");
    let folder = copy_of("llama-sharded", "config.json");
    let error = with_shard(folder.path(), "model.norm.weight", "model-00001-of-00002.safetensors");
    assert!(error.field == "model.norm.weight" && error.value.contains("does not hold it"), "{error}");
    // The same tensor in two files.
    let folder = copy_of("llama-sharded", "config.json");
    fs::copy(folder.path().join("model-00002-of-00002.safetensors"), folder.path().join("again.safetensors")).unwrap();
    let error = with_shard(folder.path(), "lm_head.weight", "again.safetensors");
    assert!(error.field.starts_with("tensor ") && error.limit.contains("one shard"), "{error}");
    let folder = copy_of("llama-sharded", "config.json");
    fs::write(folder.path().join("model.safetensors.index.json"), r#"{"weight_map": {}}"#).unwrap();
    assert_eq!(load_refused(folder.path()).field, "weight_map");
}

/// The error that config.json of a fixture gives with one field replaced by this JSON text.
fn config_refused(name: &str, field: &str, value: &str) -> InputError {
    let folder = copy_of(name, "config.json");
    let path = folder.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let start = config.find(&format!("\"{field}\":")).unwrap() + field.len() + 3;
    let end = start + [",\n", "\n}"].iter().filter_map(|end| config[start..].find(end)).min().unwrap();
    fs::write(&path, format!("{} {value}{}", &config[..start], &config[end..])).unwrap();
    let error = load_refused(folder.path());
    assert_eq!(error.file, Some(path));
    error
}

#[test]
fn configurations_out_of_range_are_refused_with_field_value_and_limit() {
    for (name, field, value) in [
        ("llama", "num_attention_heads", "0"),
        ("llama", "num_key_value_heads", "0"),
        ("llama", "num_key_value_heads", "3"),
        ("llama", "num_hidden_layers", "2147483648"),
        ("llama", "num_hidden_layers", "-1"),
        ("llama", "num_hidden_layers", "2.5"),
        ("llama", "num_hidden_layers", "null"),
        ("llama", "head_dim", "0"),
        ("llama", "head_dim", "15"),
        ("llama", "hidden_size", "18446744073709551615"),
        ("llama", "vocab_size", "0"),
        ("llama", "rope_theta", "-10000.0"),
        ("llama", "rope_theta", "0"),
        ("llama", "rope_theta", "\"big\""),
        ("llama", "rope_theta", "NaN"),
        ("llama", "rope_theta", "-Infinity"),
        ("llama", "rope_theta", "1e999"),
        // Fine in f64, nothing or infinite in f32.
        ("llama", "rope_theta", "1e-320"),
        ("llama", "rope_theta", "1e300"),
        ("llama", "rms_norm_eps", "1e-60"),
        ("llama", "rms_norm_eps", "1e39"),
        ("llama", "rms_norm_eps", "-1e-5"),
        ("llama", "hidden_act", "\"mish\""),
        ("llama", "model_type", "\"mamba\""),
        ("llama", "tie_word_embeddings", "\"yes\""),
        ("llama", "eos_token_id", "-7"),
        ("gpt2", "n_head", "5"),
        ("gpt2", "n_head", "0"),
        ("gpt2", "n_positions", "0"),
        ("gpt2", "activation_function", "\"tanh\""),
        ("gpt2", "scale_attn_by_inverse_layer_idx", "true"),
        ("gpt2", "add_cross_attention", "true"),
        ("gpt2", "layer_norm_epsilon", "0.0"),
    ] {
        let error = config_refused(name, field, value);
        assert_eq!(error.field, field, "{error}");
        assert!(!error.value.is_empty() && !error.limit.is_empty(), "{error}");
    }
    let error = config_refused("llama", "model_type", "\"mamba\"");
    assert!(error.limit.contains("llama") && error.limit.contains("gpt2"), "{error}");
    let error = config_refused("llama3-rope", "rope_type", "\"yarn\"\n  }");
    assert!(error.field == "rope_scaling.rope_type" && error.limit.contains("llama3"), "{error}");
}

#[test]
fn sizes_that_the_weights_do_not_have_are_refused_before_anything_of_that_size_is_allocated() {
    for (field, value, tensor) in [
        ("vocab_size", "16777216", "embed_tokens"),
        ("intermediate_size", "1048576", "mlp."),
        ("num_hidden_layers", "4096", "layers.2."),
        ("head_dim", "4096", "self_attn"),
        ("attention_bias", "true", "q_proj.bias"),
        ("mlp_bias", "true", "_proj.bias"),
    ] {
        let folder = copy_of("llama", "config.json");
        let path = folder.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[field] = serde_json::from_str(value).unwrap();
        fs::write(&path, config.to_string()).unwrap();
        let device = Device::cpu();
        let error = refused(Model::load(folder.path(), &device, &LoadOptions::default()));
        assert!(error.field.contains(tensor), "{field}: {error}");
        assert!(device.memory().total.peak < 1 << 20, "{field}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_unless_allowed() {
    for (bad, text) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let folder = copy_of("gpt2", "config.json");
        let path = folder.path().join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let names: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
        let start = header + names["transformer.h.1.ln_2.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
        bytes[start + 4 * 37..][..4].copy_from_slice(&bad.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let error = load_refused(folder.path());
        assert_eq!(error.field, "tensor \"transformer.h.1.ln_2.weight\", element 37");
        assert!(error.value == text && error.hint.contains("--allow-nonfinite"), "{error}");
        assert!(Model::load(folder.path(), &Device::cpu(), &LoadOptions { allow_nonfinite: true }).is_ok());
    }
}

#[test]
fn json_that_is_deep_doubled_empty_or_not_text_is_refused_with_its_file() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&[u8], &str, &str); 9] = [
        (b"", "length", "0 bytes"),
        (b"[]", "top level", "no object"),
        (b"{\"model_type\": \"llama\", \"model_type\": \"gpt2\"}", "model_type", "twice"),
        (b"{\"a\": {\"b\": 1, \"b\": 2}}", "b", "twice"),
        (b"{\"a\": 1, \"b\": 1, \"a\": 2}", "a", "twice"),
        (deep.as_bytes(), "JSON", "recursion limit"),
        (b"{\"model_type\": \"ll\xff\"}", "text", "byte 0xff at offset 18"),
        (b"{\"model_type\": ", "model_type", "EOF"),
        (b"{} {}", "JSON", "trailing"),
    ];
    for (text, field, value) in cases {
        let folder = copy_of("llama", "config.json");
        let path = folder.path().join("config.json");
        fs::write(&path, text).unwrap();
        let error = load_refused(folder.path());
        assert_eq!(error.file, Some(path));
        assert!(error.field == field && error.value.contains(value), "{error}");
    }
    let header = format!("{{{0},{0}}}", entry("w", "F32", "[2]", 0, 8));
    assert!(open_refused(&header, &[0; 8]).value.contains("twice"));
    assert!(open_refused("", b"").value.contains("EOF"));
    assert!(open_refused(&format!("{{\"a\":{deep}}}"), b"").value.contains("recursion limit"));
}

#[test]
fn folders_and_empty_files_given_as_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("model.safetensors");
    fs::create_dir(&inner).unwrap();
    assert_eq!(refused(SafeFile::open(&inner)).value, "a folder");
    assert_eq!(refused(read_text(folder.path(), 100)).value, "a folder");
    assert_eq!(refused(SafeFile::open("/dev/zero")).value, "not a plain file");
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    assert_eq!(refused(SafeFile::open(&empty)).value, "0 bytes");
    assert_eq!(refused(read_text(&empty, 100)).value, "0 bytes");
    fs::write(&empty, "x".repeat(101)).unwrap();
    assert_eq!(refused(read_text(&empty, 100)).value, "101 bytes");
    assert!(matches!(SafeFile::open(folder.path().join("none")), Err(Error::Io { .. })));
    let error = refused(Config::load(&empty));
    assert_eq!((error.field.as_str(), error.value.as_str()), ("model", "a file"));
    let folder = copy_of("llama", "config.json");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let error = load_refused(folder.path());
    assert!(error.field == "weights" && error.limit.contains("model.safetensors.index.json"), "{error}");
}

#[test]
fn what_is_written_reads_back_and_the_safetensors_crate_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    let stream = Stream::new(3, 0);
    let data: Vec<f32> = (0..59 * 97).map(|i| stream.normal(i)).collect();
    let wide = Tensor::from_slice(&data, &[59, 97], &Device::cpu()).unwrap();
    let tensors: Vec<(String, Tensor)> = [Dtype::F32, Dtype::F16, Dtype::BF16]
        .into_iter()
        .map(|dtype| (format!("x.{dtype}"), wide.to_dtype(dtype).unwrap()))
        .chain([("turned".to_string(), wide.transpose(0, 1).unwrap()), ("none".to_string(), wide.narrow(0, 5, 0).unwrap())])
        .collect();
    let mut saved: Vec<(String, Saved)> = tensors.iter().map(|(name, t)| (name.clone(), Saved::tensor(t).unwrap())).collect();
    saved.push(("ids".into(), Saved::integers(&[-1, 5, i64::MAX], &[3, 1]).unwrap()));
    save(&path, &saved).unwrap();
    let file = SafeFile::open(&path).unwrap();
    assert_eq!(file.tensors().count(), 6);
    for (name, tensor) in &tensors {
        let read = file.read(name, &Device::cpu()).unwrap();
        assert_eq!((read.dtype(), read.shape()), (tensor.dtype(), tensor.shape()));
        assert_eq!(read.to_f32_vec().unwrap(), tensor.to_f32_vec().unwrap());
    }
    assert_eq!(file.read_integers("ids", 3).unwrap(), (vec![-1, 5, i64::MAX], vec![3, 1]));
    let bytes = fs::read(&path).unwrap();
    let other = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(other.tensor("turned").unwrap().shape(), [97, 59]);
    assert_eq!(other.tensor("x.f16").unwrap().data(), bytemuck::cast_slice::<half::f16, u8>(tensors[1].1.slice().unwrap()));
    assert!(refused(file.read("nothing", &Device::cpu())).hint.contains("6 tensors"));
    assert!(refused(file.read("ids", &Device::cpu())).limit.contains("BF16"));
    assert!(refused(file.read_integers("ids", 2)).limit.contains("at most 2 elements"));
    assert!(refused(file.read_integers("x.f32", 10_000)).limit.contains("I64"));
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept");
    fs::write(&path, "old").unwrap();
    let failed = replace(&path, |file| {
        std::io::Write::write_all(file, b"half")?;
        Err(std::io::Error::other("disk full"))
    });
    assert!(matches!(failed, Err(Error::Io { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    replace(&path, |file| std::io::Write::write_all(file, b"new")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(refused(replace(folder.path(), |_| Ok(()))).value, "a folder");
    assert!(matches!(replace(&folder.path().join("no/file"), |_| Ok(())), Err(Error::Io { .. })));
}

#[test]
fn weights_are_accounted_as_weights() {
    let device = Device::cpu();
    let model = Model::load(fixture("llama-tied-bf16"), &device, &LoadOptions::default()).unwrap();
    assert_eq!(device.memory().of(Purpose::Weights).current, 76_096 * 4, "parameters of the fixture, widened");
    assert_eq!(device.memory().total.current, 76_096 * 4);
    drop(model);
    assert_eq!(device.memory().total.current, 0);
    drop(load(&fixture("gpt2")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_safetensors_never_panic(
        edits in prop::collection::vec((0usize..600, any::<u8>()), 1..5),
        cut in prop::option::of(0usize..600),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let header = format!(
            r#"{{"__metadata__":{{"format":"pt"}},{},{},{},{}}}"#,
            entry("a", "F32", "[3,5]", 0, 60), entry("b", "F16", "[7]", 60, 74),
            entry("c", "I64", "[2]", 74, 90), entry("d", "BF16", "[0,9]", 90, 90)
        );
        let path = raw(folder.path(), &header, &[7; 90]);
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len();
        // Most edits hit the header, where the danger is.
        edits.iter().for_each(|(at, byte)| bytes[at % len] = *byte);
        bytes.truncate(cut.unwrap_or(len));
        fs::write(&path, &bytes).unwrap();
        if let Ok(file) = SafeFile::open(&path) {
            for name in ["a", "b", "c", "d"] {
                let _ = file.read(name, &Device::cpu());
                let _ = file.read_integers(name, 90);
            }
            prop_assert!(file.tensors().map(|(_, info)| info.bytes()).sum::<u64>() <= 90);
        }
    }
}
