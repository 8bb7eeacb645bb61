//! `tokenizer.json`, through the tokenizers crate, which trusts its input: what it would panic on or loop over is
//! refused here first.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::Tokenizer as Inner;

use super::json;
use crate::{Error, InputError, Result};

const LIMIT: u64 = 256 << 20;
/// No token of a published vocabulary comes near.
const TOKEN_BYTES: usize = 4096;
/// Parts of a pipeline section, and how many times longer they may make a text together.
const PARTS: usize = 64;
const GROWTH: usize = 256;
/// Bytes of a text that a part puts in.
const TEXT_BYTES: usize = 256;

/// Text to token ids and back.
pub struct Tokenizer {
    inner: Inner,
    path: PathBuf,
}

/// A tokenized text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Where in the text each token ends, in bytes; never falls from one token to the next.
    pub ends: Vec<usize>,
}

impl Tokenizer {
    /// Loads `tokenizer.json` of a model folder (or the file itself) for a model with `vocab_size` embeddings.
    ///
    /// # Errors
    /// [`Error::Input`] naming what is wrong and where; [`Error::Io`] when the system refuses.
    pub fn load(path: impl AsRef<Path>, vocab_size: usize) -> Result<Self> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let text = json::read_text(&path, LIMIT)?;
        let object = json::parse_object(&text, &path)?;
        Check { vocab_size }.file(&object).map_err(|e| e.file(&path))?;
        let mut inner =
            Inner::from_bytes(&text).map_err(|e| InputError::new("tokenizer", e, "a tokenizers 1.0 file").file(&path))?;
        // Both are for training batches; a prompt is neither cut nor filled up.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| InputError::new("truncation", e, "none").file(&path))?;
        tracing::debug!(tokens = inner.get_vocab_size(true), "loaded {}", path.display());
        Ok(Self { inner, path })
    }

    /// Tokens of `text`; `special` adds what the model expects around a prompt (a BOS token, say).
    ///
    /// # Errors
    /// [`Error::Input`] when the text cannot be tokenized.
    pub fn encode(&self, text: &str, special: bool) -> Result<Encoded> {
        let encoding = self.inner.encode(text, special).map_err(|e| self.failed("text", &e))?;
        let ends = encoding.get_offsets().iter().scan(0, |last, (_, end)| {
            *last = end.max(last).to_owned();
            Some(*last)
        });
        Ok(Encoded { ids: encoding.get_ids().to_vec(), ends: ends.collect() })
    }

    /// The text of `ids`; `skip_special` leaves out tokens such as `<|endoftext|>`.
    ///
    /// # Errors
    /// [`Error::Input`] when the ids cannot be decoded.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(|e| self.failed("ids", &e))
    }

    /// The id of a token, if the vocabulary has it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A stream that turns ids into text as they come.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, ids: Vec::new(), printed: 0 }
    }

    fn failed(&self, field: &str, error: &dyn std::fmt::Display) -> Error {
        InputError::new(field, error, "text and ids that the tokenizer takes").file(&self.path).into()
    }
}

/// Turns ids into text one by one, holding back bytes that do not make a character yet.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The ids of the piece printed last, which settle the spacing of the next, and those not printed yet.
    ids: Vec<u32>,
    printed: usize,
}

impl TextStream<'_> {
    /// Adds a token; returns the text that is certain now.
    ///
    /// # Errors
    /// [`Error::Input`] when the id cannot be decoded.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let new = self.new_text()?;
        if new.is_empty() || new.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.ids.drain(..self.printed);
        self.printed = self.ids.len();
        Ok(new)
    }

    /// The text held back at the end.
    ///
    /// # Errors
    /// [`Error::Input`] when the ids cannot be decoded.
    pub fn finish(self) -> Result<String> {
        self.new_text()
    }

    fn new_text(&self) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[..self.printed], true)?;
        let all = self.tokenizer.decode(&self.ids, true)?;
        Ok(all.get(before.len()..).unwrap_or_default().to_string())
    }
}

/// The parts of a tokenizer that are taken; others are refused by name.
const MODELS: &[&str] = &["BPE"];
const NORMALIZERS: &[&str] =
    &["Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Prepend", "Replace", "ByteLevel"];
const PRE_TOKENIZERS: &[&str] =
    &["Sequence", "ByteLevel", "Split", "Metaspace", "Digits", "Whitespace", "WhitespaceSplit", "Punctuation", "FixedLength"];
const POST_PROCESSORS: &[&str] = &["Sequence", "ByteLevel", "TemplateProcessing"];
const DECODERS: &[&str] = &["Sequence", "ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"];

struct Check {
    vocab_size: usize,
}

type Checked = Result<(), InputError>;

impl Check {
    fn file(&self, file: &Map<String, Value>) -> Checked {
        let model = file.get("model").unwrap_or(&Value::Null);
        self.model(model)?;
        for (i, token) in items(file.get("added_tokens")).enumerate() {
            self.id(&format!("added_tokens[{i}].id"), &token["id"])?;
        }
        let sections = [
            ("normalizer", NORMALIZERS),
            ("pre_tokenizer", PRE_TOKENIZERS),
            ("post_processor", POST_PROCESSORS),
            ("decoder", DECODERS),
        ];
        for (name, allowed) in sections {
            match file.get(name) {
                None | Some(Value::Null) => {}
                Some(part) => {
                    self.part(name, part, allowed)?;
                    check_growth(name, part)?;
                }
            }
        }
        Ok(())
    }

    fn id(&self, place: &str, value: &Value) -> Checked {
        if value.as_u64().is_some_and(|id| id < self.vocab_size as u64) {
            return Ok(());
        }
        let limit = format!("an id below {}, the embeddings of the model", self.vocab_size);
        Err(InputError::new(place, value, limit).hint("tokenizer and model may not belong together"))
    }

    fn model(&self, model: &Value) -> Checked {
        one_of("model.type", &model["type"], MODELS)?;
        let Some(vocab) = model["vocab"].as_object() else {
            return Err(InputError::new("model.vocab", "none", "an object of tokens and ids"));
        };
        for (token, id) in vocab {
            self.id(&format!("model.vocab[{:?}]", clip(token)), id)?;
            if token.len() > TOKEN_BYTES {
                let found = format!("{} bytes", token.len());
                return Err(InputError::new(
                    format!("model.vocab[{:?}]", clip(token)),
                    found,
                    format!("at most {TOKEN_BYTES} bytes"),
                ));
            }
        }
        if model["dropout"].as_f64().is_some_and(|p| p != 0.0) {
            return Err(InputError::new("model.dropout", &model["dropout"], "0 or null: text is tokenized one way"));
        }
        if let Some(unknown) = model["unk_token"].as_str().filter(|token| !vocab.contains_key(*token)) {
            return Err(InputError::new("model.unk_token", format!("{:?}", clip(unknown)), "a token of the vocabulary"));
        }
        let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
        items(model.get("merges")).enumerate().try_for_each(|(i, merge)| check_merge(i, merge, vocab, prefix))
    }

    /// One part of the pipeline and the parts inside it.
    fn part(&self, place: &str, part: &Value, allowed: &[&str]) -> Checked {
        let kind = one_of(&format!("{place}.type"), &part["type"], allowed)?;
        match (kind, place.starts_with("decoder")) {
            ("Sequence", _) => {
                for (i, inner) in inner_parts(part).enumerate() {
                    self.part(&format!("{place}[{i}]"), inner, allowed)?;
                }
                Ok(())
            }
            ("FixedLength", _) => match part.get("length") {
                Some(length) if length.as_u64().is_none_or(|n| n == 0) => {
                    Err(InputError::new(format!("{place}.length"), length, "a whole number above 0"))
                }
                _ => Ok(()),
            },
            ("Strip", true) if part["stop"] != 0 => {
                Err(InputError::new(format!("{place}.stop"), &part["stop"], "0: cutting ends of tokens is not supported"))
            }
            ("Replace", _) => check_replace(place, part),
            ("Prepend", _) => match part["prepend"].as_str() {
                Some(text) if !text.is_empty() && text.len() <= TEXT_BYTES => Ok(()),
                _ => {
                    let limit = format!("a text of 1 to {TEXT_BYTES} bytes");
                    Err(InputError::new(format!("{place}.prepend"), clip(&part["prepend"].to_string()), limit))
                }
            },
            ("TemplateProcessing", _) => self.template(place, part),
            _ => Ok(()),
        }
    }

    fn template(&self, place: &str, part: &Value) -> Checked {
        let tokens = part["special_tokens"].as_object();
        for (name, token) in tokens.into_iter().flatten() {
            for id in items(token.get("ids")) {
                self.id(&format!("{place}.special_tokens[{:?}].ids", clip(name)), id)?;
            }
        }
        for piece in items(part.get("single")) {
            let place = format!("{place}.single");
            let special = piece["SpecialToken"]["id"].as_str();
            if let Some(name) = special.filter(|name| tokens.is_none_or(|tokens| !tokens.contains_key(*name))) {
                return Err(InputError::new(place, format!("{:?}", clip(name)), "a token of special_tokens"));
            }
            if special.is_none() && piece["Sequence"]["id"] != "A" {
                return Err(InputError::new(place, clip(&piece.to_string()), "special tokens and sequence \"A\""));
            }
        }
        Ok(())
    }
}

/// Both halves and their joint must be tokens: the crate copies them into a buffer as long as the longest token.
fn check_merge(index: usize, merge: &Value, vocab: &Map<String, Value>, prefix: &str) -> Checked {
    let place = format!("model.merges[{index}]");
    let halves = match merge {
        Value::String(pair) => pair.split_once(' '),
        Value::Array(pair) if pair.len() == 2 => pair[0].as_str().zip(pair[1].as_str()),
        _ => None,
    };
    let wrong = |limit: &str| InputError::new(&place, clip(&merge.to_string()), limit);
    let (left, right) = halves.ok_or_else(|| wrong("two tokens"))?;
    let right_end = right.strip_prefix(prefix).ok_or_else(|| wrong("a second token that has the subword prefix"))?;
    if [left, right, &format!("{left}{right_end}")].iter().all(|token| vocab.contains_key(*token)) {
        return Ok(());
    }
    Err(wrong("two tokens of the vocabulary whose joint is one as well"))
}

/// A regular expression may match nothing between characters, where the crate panics; a plain text cannot.
fn check_replace(place: &str, part: &Value) -> Checked {
    let wrong =
        |field: &str, limit: String| Err(InputError::new(format!("{place}.{field}"), clip(&part[field].to_string()), limit));
    if part["pattern"]["String"].as_str().is_none_or(str::is_empty) {
        return wrong("pattern", "a String that is not empty; regular expressions are not replaced".into());
    }
    match part["content"].as_str() {
        Some(text) if text.len() <= TEXT_BYTES => Ok(()),
        _ => wrong("content", format!("a text of at most {TEXT_BYTES} bytes")),
    }
}

/// A chain of parts that each lengthen a text does so by the product.
fn check_growth(place: &str, part: &Value) -> Checked {
    let (parts, growth) = size_and_growth(part);
    if parts > PARTS {
        return Err(InputError::new(place, format!("{parts} parts"), format!("at most {PARTS}")));
    }
    if growth > GROWTH {
        let found = format!("parts that make a text up to {growth} times longer");
        return Err(InputError::new(place, found, format!("at most {GROWTH} times")));
    }
    Ok(())
}

/// Parts inside, and how many times longer they make a text at most, in bytes.
fn size_and_growth(part: &Value) -> (usize, usize) {
    let length = |text: &Value| text.as_str().map_or(1, str::len).max(1);
    let own = match part["type"].as_str() {
        Some("NFKC" | "NFKD") => 16,
        Some("NFC" | "NFD" | "Metaspace") => 4,
        Some("Lowercase" | "ByteLevel") => 2,
        Some("Replace") => length(&part["content"]).div_ceil(length(&part["pattern"]["String"])),
        _ => 1,
    };
    inner_parts(part)
        .map(size_and_growth)
        .fold((1, own), |(size, growth), (more, times)| (size + more, growth.saturating_mul(times)))
}

fn inner_parts(part: &Value) -> impl Iterator<Item = &Value> {
    ["normalizers", "pretokenizers", "processors", "decoders"].into_iter().flat_map(|list| items(part.get(list)))
}

fn one_of<'a>(place: &str, found: &'a Value, allowed: &[&str]) -> Result<&'a str, InputError> {
    let kind = found.as_str().filter(|kind| allowed.contains(kind));
    kind.ok_or_else(|| InputError::new(place, clip(&found.to_string()), allowed.join(", ")))
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
