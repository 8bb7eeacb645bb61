//! Tokenizers: ids and text are those of the reference, and hostile files are refused by name.

use std::fs;

use lowkey::{Error, InputError, model::Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::model::{Reference, project};

fn reference() -> Value {
    serde_json::from_slice(&fs::read(project("tests/fixtures/tokenizer/reference.json")).unwrap()).unwrap()
}

fn tokenizer_file() -> Value {
    serde_json::from_slice(&fs::read(project("tests/fixtures/tokenizer/tokenizer.json")).unwrap()).unwrap()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(project("tests/fixtures/tokenizer"), 1024).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn awkward_texts_have_the_ids_of_the_reference_and_decode_back() {
    let tokenizer = tokenizer();
    for case in reference()["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let encoded = tokenizer.encode(text, false).unwrap();
        assert_eq!(encoded.ids, ids(&case["ids"]), "{text:?}");
        assert!(encoded.ends.is_sorted());
        assert_eq!(encoded.ends.last().copied().unwrap_or(0), text.len(), "{text:?}");
        assert_eq!(tokenizer.decode(&encoded.ids, false).unwrap(), case["decoded"].as_str().unwrap());
        assert_eq!(tokenizer.decode(&encoded.ids, true).unwrap(), case["decoded_skip_special"].as_str().unwrap());
    }
}

#[test]
fn the_validation_text_has_its_known_ids() {
    let text = fs::read_to_string(project("models/tinyshakespeare/val.txt")).unwrap();
    let known = Reference::open(&project("models/tinyshakespeare/val_ids.safetensors")).ids("val_ids");
    assert_eq!(tokenizer().encode(&text, false).unwrap().ids, known[0]);
}

#[test]
fn text_that_comes_token_by_token_is_the_text() {
    let tokenizer = tokenizer();
    for case in reference()["cases"].as_array().unwrap() {
        let mut stream = tokenizer.stream();
        let mut text = String::new();
        for id in ids(&case["ids"]) {
            text += &stream.push(id).unwrap();
        }
        text += &stream.finish().unwrap();
        assert_eq!(text, case["decoded_skip_special"].as_str().unwrap());
    }
}

fn load(file: &Value, vocab_size: usize) -> Result<Tokenizer, InputError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, file.to_string()).unwrap();
    Tokenizer::load(folder.path(), vocab_size).map_err(|error| match error {
        Error::Input(error) => {
            assert_eq!(error.file.as_deref(), Some(path.as_path()));
            *error
        }
        other => panic!("{other}"),
    })
}

#[test]
fn ids_past_the_embedding_are_refused() {
    let error = load(&tokenizer_file(), 1000).err().unwrap();
    assert!(error.field.starts_with("model.vocab[") && error.limit.contains("below 1000"), "{error}");
    let mut file = tokenizer_file();
    file["added_tokens"][0]["id"] = json!(4_294_967_295u64);
    let error = load(&file, 1024).err().unwrap();
    assert_eq!((error.field.as_str(), error.value.as_str()), ("added_tokens[0].id", "4294967295"));
    let mut file = tokenizer_file();
    file["model"]["vocab"]["A"] = json!(-1);
    assert_eq!(load(&file, 1024).err().unwrap().field, "model.vocab[\"A\"]");
    let mut file = tokenizer_file();
    file["post_processor"] = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [70000], "tokens": ["<s>"]}}});
    assert_eq!(load(&file, 1024).err().unwrap().value, "70000");
}

#[test]
fn merges_that_no_token_could_come_from_are_refused() {
    let long = "x".repeat(10_000);
    for merge in [
        json!(format!("{long} a")),
        json!(format!("a {long}")),
        json!("a"),
        json!(["a", "b", "c"]),
        json!("a zq"),
        json!("zq a"),
        json!(7),
    ] {
        let mut file = tokenizer_file();
        let merges = file["model"]["merges"].as_array_mut().unwrap();
        merges[3] = merge;
        assert_eq!(load(&file, 1024).err().unwrap().field, "model.merges[3]");
    }
    // Shorter than the prefix that would be cut off it.
    let mut file = tokenizer_file();
    file["model"]["continuing_subword_prefix"] = json!("##########");
    assert_eq!(load(&file, 1024).err().unwrap().field, "model.merges[0]");
}

#[test]
fn parts_that_would_panic_or_mean_nothing_are_refused() {
    let template = |single: Value| json!({"type": "TemplateProcessing", "single": [single], "pair": [], "special_tokens": {}});
    let cases = [
        ("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "pre_tokenizer.length"),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}]}),
            "pre_tokenizer[0].length",
        ),
        ("/pre_tokenizer", json!({"type": "Delay"}), "pre_tokenizer.type"),
        ("/decoder", json!({"type": "Strip", "content": " ", "start": 0, "stop": 9}), "decoder.stop"),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": ""}), "normalizer.type"),
        ("/post_processor", template(json!({"SpecialToken": {"id": "<s>", "type_id": 0}})), "post_processor.single"),
        ("/post_processor", template(json!({"Sequence": {"id": "B", "type_id": 0}})), "post_processor.single"),
        ("/model/type", json!("Unigram"), "model.type"),
        ("/model/unk_token", json!("<nothing>"), "model.unk_token"),
        ("/model/dropout", json!(0.5), "model.dropout"),
        ("/model/vocab", json!([]), "model.vocab"),
        ("/version", json!("9.9"), "tokenizer"),
    ];
    for (place, value, field) in cases {
        let mut file = tokenizer_file();
        *file.pointer_mut(place).unwrap() = value;
        assert_eq!(load(&file, 1024).err().unwrap().field, field, "{place}");
    }
    let mut file = tokenizer_file();
    file["model"]["vocab"]["y".repeat(5000)] = json!(3);
    assert!(load(&file, 1024).err().unwrap().value.contains("5000 bytes"));
}

#[test]
fn replacements_that_match_nothing_or_grow_without_bound_are_refused() {
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let chain = |parts: Vec<Value>| json!({"type": "Sequence", "normalizers": parts});
    let double = replace(json!({"String": "a"}), "aa");
    let cases = [
        (replace(json!({"String": ""}), "x"), "normalizer.pattern"),
        (replace(json!({"Regex": "b*"}), "x"), "normalizer.pattern"),
        (replace(json!("a"), "x"), "normalizer.pattern"),
        (replace(json!({"String": "a"}), &"x".repeat(1000)), "normalizer.content"),
        (json!({"type": "Prepend", "prepend": ""}), "normalizer.prepend"),
        (json!({"type": "Prepend", "prepend": "x".repeat(1000)}), "normalizer.prepend"),
        (chain(vec![json!({"type": "NFC"}), replace(json!({"String": ""}), "x")]), "normalizer[1].pattern"),
        (chain(vec![double.clone(); 9]), "normalizer"),
        (chain(vec![chain(vec![double.clone(); 5]), chain(vec![double.clone(); 5])]), "normalizer"),
        (chain(vec![json!({"type": "ByteLevel"}); 9]), "normalizer"),
        (chain(vec![json!({"type": "StripAccents"}); 1000]), "normalizer"),
    ];
    for (part, field) in cases {
        let mut file = tokenizer_file();
        file["normalizer"] = part.clone();
        assert_eq!(load(&file, 1024).err().map(|e| e.field).as_deref(), Some(field), "{part:.60}");
    }
    let mut file = tokenizer_file();
    file["decoder"] = replace(json!({"Regex": ""}), "x");
    assert_eq!(load(&file, 1024).err().unwrap().field, "decoder.pattern");
    // Those of published models stay.
    let mut file = tokenizer_file();
    file["normalizer"] =
        chain(vec![json!({"type": "Prepend", "prepend": "ROMEO"}), replace(json!({"String": "aa"}), ""), double]);
    let found = load(&file, 1024).unwrap().encode("a baab", false).unwrap();
    assert_eq!(found.ids, tokenizer().encode("ROMEOaa bb", false).unwrap().ids);
}

#[test]
fn truncation_and_padding_of_the_file_do_not_touch_a_text() {
    let mut file = tokenizer_file();
    file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5});
    file["padding"] = json!({"strategy": {"Fixed": 1_000_000_000}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
    let text = "First Citizen: before we proceed";
    assert_eq!(load(&file, 1024).unwrap().encode(text, true).unwrap(), tokenizer().encode(text, true).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn damaged_files_never_panic(edits in prop::collection::vec((0usize..60_000, any::<u8>()), 1..4), cut in prop::option::of(0usize..60_000)) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = fs::read(project("tests/fixtures/tokenizer/tokenizer.json")).unwrap();
        let len = bytes.len();
        edits.iter().for_each(|(at, byte)| bytes[at % len] = *byte);
        bytes.truncate(cut.unwrap_or(len));
        fs::write(folder.path().join("tokenizer.json"), &bytes).unwrap();
        if let Ok(tokenizer) = Tokenizer::load(folder.path(), 1024) {
            let encoded = tokenizer.encode("First Citizen:\n\u{a0}naïve \u{1f642}", true).unwrap();
            prop_assert!(encoded.ids.iter().all(|id| *id < 1024));
            tokenizer.decode(&encoded.ids, false).unwrap();
        }
    }
}
