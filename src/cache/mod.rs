//! Key-value caches: dense, quantized and low-rank, one per sequence.
//!
//! In token order a sequence is sinks (dense), sealed segments, and a window (dense). When the window holds `block`
//! tokens more than it must, its oldest block is sealed: encoded as latents and, for an online basis, the basis found
//! by truncated SVD of that block. Which sides are compressed and how is the [`Spec`].

mod bases;
mod layer;
mod spec;

use std::sync::Arc;

use rayon::prelude::*;

pub use bases::{Bases, Basis, hadamard};
use layer::{LayerCache, SideForm};
pub use spec::{BasisKind, KeyForm, Mode, Only, RankRule, Spec, Weighting};

use crate::{
    Device, Error, InputError, Purpose, Result, Tensor,
    attention::{self, Params, Part, Sequence},
    coded::Format,
    device::Kind,
    rope::Rope,
};

/// What a model asks of its caches.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Longest sequence.
    pub max_tokens: usize,
    /// Factor on q . k.
    pub scale: f32,
    /// Rotary tables of `max_tokens` positions; `None` for models without RoPE.
    pub rope: Option<Rope>,
}

impl Layout {
    /// Bytes that one token takes in a 16-bit dense cache.
    pub fn dense_bytes_per_token(&self) -> usize {
        self.n_layers * self.n_kv_heads * self.head_dim * 2 * 2
    }
}

/// What a cache's tokens take, in bytes. Fixed, calibrated bases are apart: they are per model, not per sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheBytes {
    /// Sinks and window.
    pub dense: usize,
    /// Sealed codes and their scales.
    pub sealed: usize,
    /// Bases of online segments.
    pub online_bases: usize,
    /// Bases shared by all sequences of the model.
    pub calibrated_bases: usize,
}

impl CacheBytes {
    /// Bytes of this sequence: everything but the shared bases.
    pub fn sequence(&self) -> usize {
        self.dense + self.sealed + self.online_bases
    }
}

/// The cache of one sequence.
#[derive(Debug)]
pub struct KvCache {
    layout: Arc<Layout>,
    spec: Spec,
    bases: Option<Arc<Bases>>,
    layers: Vec<LayerCache>,
}

impl KvCache {
    /// An empty cache. `bases` are needed for, and only for, [`BasisKind::Calibrated`].
    ///
    /// # Errors
    /// [`Error::Input`] for a spec that means nothing, ranks that do not fit head_dim or missing bases, [`Error::Shape`] for bases of another
    /// shape, [`Error::Device`] when the memory is not to be had or the device is not a CPU.
    pub fn new(layout: &Arc<Layout>, spec: &Spec, bases: Option<&Arc<Bases>>, device: &Device) -> Result<Self> {
        spec.check()?;
        if device.kind() != Kind::Cpu {
            return Err(device.unsupported("a key-value cache"));
        }
        let device = device.accounting(Purpose::Cache);
        let bases = bases.filter(|_| spec.basis == BasisKind::Calibrated);
        if spec.basis == BasisKind::Calibrated && bases.is_none_or(|bases| bases.layers.len() != layout.n_layers) {
            let found = bases.map_or("none".into(), |bases| format!("bases of {} layers", bases.layers.len()));
            let limit = format!("calibrated bases of {} layers", layout.n_layers);
            return Err(InputError::new("kv basis", found, limit).hint("calibrate first").into());
        }
        let (key_rank, value_rank) = spec.ranks(layout.head_dim)?;
        let layers = (0..layout.n_layers)
            .map(|layer| {
                let fixed = bases.map(|bases| &bases.layers[layer]);
                let keys = SideForm::new(spec, spec.only != Only::Values, key_rank, fixed.and_then(|b| b.0.as_ref()));
                let values = SideForm::new(spec, spec.only != Only::Keys, value_rank, fixed.and_then(|b| b.1.as_ref()));
                LayerCache::new(layout, spec, keys?, values?, &device)
            })
            .collect::<Result<_>>()?;
        Ok(Self { layout: Arc::clone(layout), spec: spec.clone(), bases: bases.map(Arc::clone), layers })
    }

    /// An empty cache that never compresses.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had.
    pub fn dense(layout: &Arc<Layout>, format: Format, device: &Device) -> Result<Self> {
        Self::new(layout, &Spec::dense(format), None, device)
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.layers.last().map_or(0, LayerCache::tokens)
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How tokens are kept.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What the cache was made for.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The most tokens that one step may append, so that steps of any length up to it give the same cache.
    pub fn max_step(&self) -> usize {
        let until_seal = self.layers.last().map_or(usize::MAX, |layer| layer.until_seal(&self.spec));
        until_seal.min(self.layout.max_tokens - self.len())
    }

    /// Appends keys and values [tokens, n_kv_heads, head_dim] f32 of one layer, keys before RoPE. Every layer gets the
    /// same tokens before [`KvCache::end_step`].
    ///
    /// # Errors
    /// [`Error::Shape`] when shapes do not fit the layout or the step is over [`KvCache::max_step`]; [`Error::Numeric`]
    /// in whole mode as [`KvCache::end_step`].
    pub fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        let tokens = self.check_append(layer, keys, values)?;
        let position = self.layers[layer].tokens();
        let keys = match &self.layout.rope {
            Some(rope) if self.spec.keys == KeyForm::PostRope => head_major(&rope.rotate(keys, position)?)?,
            _ => head_major(keys)?,
        };
        self.layers[layer].append(&self.spec, &keys, &head_major(values)?, tokens).map_err(|error| at_layer(error, layer))
    }

    /// Ends a step: seals what is due in every layer.
    ///
    /// # Errors
    /// [`Error::Numeric`] when a block to be sealed has a NaN or an infinity; it names layer and side.
    pub fn end_step(&mut self) -> Result<()> {
        let spec = &self.spec;
        self.layers
            .par_iter_mut()
            .enumerate()
            .try_for_each(|(i, layer)| layer.seal_due(spec).map_err(|error| at_layer(error, i)))
    }

    /// What attention over a layer sees: its parts in token order.
    pub(crate) fn parts(&self, layer: usize) -> impl Iterator<Item = Part<'_>> {
        self.layers[layer].parts()
    }

    /// What the tokens held take.
    pub fn bytes(&self) -> CacheBytes {
        let mut bytes =
            CacheBytes { calibrated_bases: self.bases.as_ref().map_or(0, |bases| bases.bytes()), ..Default::default() };
        for layer in &self.layers {
            layer.add_bytes(&mut bytes);
        }
        bytes
    }

    fn check_append(&self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<usize> {
        const OP: &str = "KvCache::append";
        let tokens = keys.shape().first().copied().unwrap_or(0);
        let expected = [tokens, self.layout.n_kv_heads, self.layout.head_dim];
        if layer >= self.layers.len() || keys.shape() != expected || values.shape() != expected {
            let found = format!("layer {layer}, keys {:?}, values {:?}", keys.shape(), values.shape());
            return Err(Error::shape(OP, found, format!("a layer below {} and {expected:?}", self.layers.len())));
        }
        let held = self.layers[layer].tokens();
        let room = self.layers[layer].until_seal(&self.spec).min(self.layout.max_tokens - held);
        if tokens > room {
            let found = format!("{tokens} tokens on top of {held}");
            return Err(Error::shape(
                OP,
                found,
                format!("at most {room} in this step (max_tokens {})", self.layout.max_tokens),
            ));
        }
        Ok(tokens)
    }
}

/// Causal attention of `q` [sum of tokens, n_heads, head_dim] f32 before RoPE over one layer of each cache; the queries of
/// cache i are its last `tokens[i]` positions. Returns the shape of q.
///
/// # Errors
/// As [`attention::attend`]; [`Error::Shape`] when the caches are of models that differ.
pub fn attend(caches: &[&KvCache], tokens: &[usize], layer: usize, q: &Tensor) -> Result<Tensor> {
    let Some(first) = caches.first() else {
        return Err(Error::shape("cache::attend", "no cache", "at least one"));
    };
    let alike = |cache: &&KvCache| cache.spec.keys == first.spec.keys && layer < cache.layers.len();
    if caches.len() != tokens.len() || !caches.iter().all(alike) {
        let found = format!("{} caches, {} token counts, layer {layer}", caches.len(), tokens.len());
        return Err(Error::shape("cache::attend", found, "one count a cache, one form of keys, a layer that exists"));
    }
    let sequences: Vec<Sequence<'_>> = caches
        .iter()
        .zip(tokens)
        .map(|(cache, queries)| Sequence { parts: cache.parts(layer).collect(), queries: *queries })
        .collect();
    let params = Params {
        scale: first.layout.scale,
        rope: first.layout.rope.as_ref(),
        keys_rotated: first.spec.keys == KeyForm::PostRope,
    };
    attention::attend(q, &sequences, &params)
}

/// [tokens, heads, head_dim] to [heads, tokens, head_dim], as f32.
fn head_major(rows: &Tensor) -> Result<Vec<f32>> {
    rows.transpose(0, 1)?.to_f32_vec()
}

fn at_layer(error: Error, layer: usize) -> Error {
    match error {
        Error::Numeric { op, what } => Error::Numeric { op, what: format!("layer {layer}, {what}") },
        other => other,
    }
}
