//! `config.json`: what a model is, with every number checked before anything of its size is allocated.

use std::{
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{families::Family, json};
use crate::{Error, InputError, Result, nn::Activation};

const LIMIT: u64 = 16 << 20;

/// Sizes no model reaches, which keep products of them far from wrapping.
pub(super) const LAYERS: RangeInclusive<usize> = 1..=4096;
pub(super) const HEADS: RangeInclusive<usize> = 1..=4096;
pub(super) const WIDTH: RangeInclusive<usize> = 1..=1 << 20;
pub(super) const CONTEXT: RangeInclusive<usize> = 1..=1 << 26;
pub(super) const VOCABULARY: RangeInclusive<usize> = 1..=1 << 24;

/// The architecture of a model.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which family's names and blocks the weights have.
    pub family: Family,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; query heads share them in equal groups.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width inside the feed-forward part.
    pub mlp_size: usize,
    /// Most positions a sequence can have.
    pub context: usize,
    /// Added to the variance in normalisations.
    pub norm_eps: f32,
    /// Activation of the feed-forward part.
    pub activation: Activation,
    /// How positions enter.
    pub positions: Positions,
    /// Factor on the attention logits.
    pub attention_scale: f32,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Whether the output head is the embedding.
    pub tied_head: bool,
    /// Tokens that end a text.
    pub stop_ids: Vec<u32>,
}

/// How a model knows where a token stands.
#[derive(Clone, Debug)]
pub enum Positions {
    /// A learned embedding per position, added to the token's.
    Learned,
    /// Queries and keys rotated by these angles per position, pairs (j, j + head_dim / 2).
    Rotary {
        /// Radians per position of each pair.
        inverse_frequencies: Vec<f32>,
    },
}

impl Config {
    /// Reads and checks `config.json` of a model folder, and the stop tokens of `generation_config.json` if there is
    /// one. Understands the spellings of transformers 4 and 5.
    ///
    /// # Errors
    /// [`Error::Input`] naming the field; [`Error::Io`] when the system refuses.
    pub fn load(folder: &Path) -> Result<Self> {
        if folder.is_file() {
            let hint = "give the folder that holds config.json and the weights";
            return Err(InputError::new("model", "a file", "a folder").file(folder).hint(hint).into());
        }
        let mut config = Self::read(&folder.join("config.json"))?;
        let generation = folder.join("generation_config.json");
        if generation.exists() {
            let stop_ids = Fields::read(&generation)?.ids("eos_token_id")?;
            if !stop_ids.is_empty() {
                config.stop_ids = stop_ids;
            }
        }
        Ok(config)
    }

    /// Reads and checks one configuration file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(path: &Path) -> Result<Self> {
        let fields = Fields::read(path)?;
        let family = Family::of(&fields)?;
        let config = family.config(&fields)?;
        if !config.n_heads.is_multiple_of(config.n_kv_heads) {
            let limit = format!("a divisor of the {} query heads", config.n_heads);
            return Err(fields.wrong("num_key_value_heads", config.n_kv_heads, limit));
        }
        Ok(config)
    }
}

/// The fields of one JSON object, read with their limits.
pub(super) struct Fields {
    file: PathBuf,
    prefix: String,
    map: Map<String, Value>,
}

impl Fields {
    pub(super) fn read(path: &Path) -> Result<Self> {
        Ok(Self { file: path.to_path_buf(), prefix: String::new(), map: json::read_object(path, LIMIT)? })
    }

    /// The object under `name`, if it is there and not null.
    pub(super) fn object(&self, name: &str) -> Result<Option<Self>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let prefix = format!("{}{name}.", self.prefix);
                Ok(Some(Self { file: self.file.clone(), prefix, map: map.clone() }))
            }
            Some(other) => Err(self.wrong(name, other, "an object")),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn wrong(&self, name: &str, found: impl Display, limit: impl Into<String>) -> Error {
        InputError::new(format!("{}{name}", self.prefix), found, limit).file(&self.file).into()
    }

    /// A whole number within `range`; `default` when it is missing or null.
    pub(super) fn size(&self, name: &str, range: RangeInclusive<usize>, default: Option<usize>) -> Result<usize> {
        let limit = format!("a whole number from {} to {}", range.start(), range.end());
        match (self.get(name), default) {
            (None, Some(default)) if range.contains(&default) => Ok(default),
            (None, Some(default)) => Err(self.wrong(name, format!("none, which means {default},"), limit)),
            (None, None) => Err(self.wrong(name, "none", limit)),
            (Some(value), _) => {
                let number = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n));
                number.ok_or_else(|| self.wrong(name, value, limit))
            }
        }
    }

    /// A number above zero that f32, in which it is used, can hold; `default` when it is missing or null.
    pub(super) fn positive(&self, name: &str, default: Option<f64>) -> Result<f64> {
        const LIMIT: &str = "a number above 0, within the normal range of f32";
        let Some(value) = self.get(name) else {
            return default.ok_or_else(|| self.wrong(name, "none", LIMIT));
        };
        let number = value.as_f64().filter(|x| (*x as f32).is_normal() && *x > 0.0);
        number.ok_or_else(|| self.wrong(name, value, LIMIT))
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(name, value, "true or false")),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.wrong(name, value, "a text")),
        }
    }

    /// Refuses a flag that would change results in a way that is not implemented.
    pub(super) fn must_be(&self, name: &str, needed: bool) -> Result<()> {
        let found = self.flag(name, needed)?;
        if found == needed { Ok(()) } else { Err(self.wrong(name, found, needed.to_string())) }
    }

    pub(super) fn activation(&self, name: &str, default: &str) -> Result<Activation> {
        match self.text(name)?.unwrap_or(default) {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "gelu" => Ok(Activation::Gelu),
            other => Err(self.wrong(name, format!("{other:?}"), "silu, swish, gelu, gelu_new, gelu_fast or gelu_pytorch_tanh")),
        }
    }

    /// One token id, a list of them, or none.
    pub(super) fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let ids = match value {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(name, value, "a token id or a list of them"))
    }
}
