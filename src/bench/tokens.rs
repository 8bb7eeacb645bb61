//! Sequences for attention: text read by the real model, or synthetic.

use std::sync::Arc;

use super::{
    Line, REAL_MODEL,
    capture::Captured,
    data::{MOST_WINDOWS, expect_real_model},
    sweep::Pair,
};
use crate::{
    Device, Error, Result, Tensor, cache,
    cache::{Bases, KvCache, Layout},
    philox::Stream,
    rope::Rope,
};

/// Where keys, values and queries come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Text {
    /// The real model reading so many windows of text, every layer.
    Model { windows: usize },
    /// One layer, seeded: rows whose spectrum falls like 1/j, turned by theta = 10000.
    Power { heads: Pair, head_dim: usize, seed: u64 },
}

/// A batch of sequences.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tokens {
    pub(super) text: Text,
    pub(super) batch: usize,
    pub(super) context: usize,
}

impl Tokens {
    /// Adds the fields of the sequences to a case.
    pub(super) fn describe(&self, line: Line) -> Line {
        let line = match &self.text {
            Text::Model { windows } => line.with("data", "text").with("model", REAL_MODEL).with("windows", *windows),
            Text::Power { heads, head_dim, seed } => {
                line.with("data", "power").with("heads", heads.to_string()).with("head-dim", *head_dim).with("seed", *seed)
            }
        };
        line.with("batch", self.batch).with("context", self.context)
    }

    /// Takes the fields of the sequences out of a case.
    pub(super) fn parse(line: &mut Line) -> Result<Self> {
        let text = match line.need("data")?.as_str() {
            "text" => {
                expect_real_model(line)?;
                Text::Model { windows: line.count("windows", MOST_WINDOWS)? }
            }
            "power" => {
                let heads = line.need("heads")?;
                Text::Power {
                    heads: line.pair("heads", &heads)?,
                    head_dim: line.count("head-dim", 1 << 12)?,
                    seed: line.parsed("seed", "a whole number")?,
                }
            }
            other => return Err(line.refuse(&format!("data={other}"), "text or power")),
        };
        Ok(Self { text, batch: line.count("batch", 1 << 16)?, context: line.count("context", 1 << 24)? })
    }

    /// Why such sequences cannot be, if they cannot.
    pub(super) fn objection(&self) -> Option<String> {
        let Text::Power { heads: Pair(n_heads, n_kv_heads), head_dim, .. } = self.text else { return None };
        if n_heads < n_kv_heads || !n_heads.is_multiple_of(n_kv_heads) {
            return Some(format!("{n_heads} query heads do not share {n_kv_heads} key-value heads evenly"));
        }
        (!head_dim.is_multiple_of(2)).then(|| format!("head_dim {head_dim} is odd, and rotary pairs need two"))
    }

    /// Bytes that a measurement takes at most: keys and values in f32, two caches of them, and an oracle's copies in
    /// f64; `None` when the count wraps.
    pub(super) fn bytes(&self, layers: usize, heads: usize, head_dim: usize) -> Option<usize> {
        const EACH: usize = 32;
        [self.context, layers, heads, head_dim, EACH].into_iter().try_fold(self.batch, usize::checked_mul)
    }
}

/// Keys, values and queries of every sequence and layer, before RoPE.
pub(super) struct Sequences {
    pub(super) layout: Arc<Layout>,
    /// [sequence][layer]: [tokens, n_kv_heads, head_dim].
    pub(super) keys: Vec<Vec<Vec<f32>>>,
    /// As keys.
    pub(super) values: Vec<Vec<Vec<f32>>>,
    /// [layer]: one query a sequence, [batch, n_heads, head_dim].
    pub(super) queries: Vec<Vec<f32>>,
    /// What a reader must know about them.
    pub(super) note: Option<String>,
}

impl Sequences {
    /// The windows of a model one after the other, as often as the context asks, each sequence from another place;
    /// the query of a sequence is that of its last token.
    pub(super) fn captured(captured: &Captured, tokens: &Tokens, device: &Device) -> Result<Self> {
        let config = &captured.config;
        let rope = captured.inverse_frequencies().map(|f| Rope::new(f, tokens.context, device)).transpose()?;
        let layout = Layout {
            n_layers: config.n_layers,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            max_tokens: tokens.context,
            scale: config.attention_scale,
            rope,
        };
        let total = captured.tokens();
        // An odd stride, so that sequences of a batch differ.
        let place = |sequence: usize, token: usize| (sequence * 509 + token) % total;
        let sequence = |layers: &[Vec<f32>], sequence: usize| -> Vec<Vec<f32>> {
            let row = config.n_kv_heads * config.head_dim;
            let of_layer =
                |rows: &Vec<f32>| (0..tokens.context).flat_map(|t| &rows[place(sequence, t) * row..][..row]).copied().collect();
            layers.iter().map(of_layer).collect()
        };
        let query = |rows: &Vec<f32>| {
            let row = config.n_heads * config.head_dim;
            let last = |s: usize| &rows[place(s, tokens.context - 1) * row..][..row];
            (0..tokens.batch).flat_map(last).copied().collect()
        };
        let repeated = tokens.context > total;
        Ok(Self {
            layout: Arc::new(layout),
            keys: (0..tokens.batch).map(|s| sequence(&captured.keys, s)).collect(),
            values: (0..tokens.batch).map(|s| sequence(&captured.values, s)).collect(),
            queries: captured.queries.iter().map(query).collect(),
            note: repeated.then(|| format!("{total} tokens of text, repeated to fill {}", tokens.context)),
        })
    }

    /// One layer of synthetic rows.
    pub(super) fn power(heads: Pair, head_dim: usize, seed: u64, tokens: &Tokens, device: &Device) -> Result<Self> {
        let Pair(n_heads, n_kv_heads) = heads;
        let frequencies = Rope::inverse_frequencies(head_dim, 10_000.0);
        let layout = Layout {
            n_layers: 1,
            n_heads,
            n_kv_heads,
            head_dim,
            max_tokens: tokens.context,
            scale: (head_dim as f32).sqrt().recip(),
            rope: Some(Rope::new(&frequencies, tokens.context, device)?),
        };
        let rows = |stream: u64, count: usize, heads: usize| power_rows(seed, stream, count, heads, head_dim);
        let side = |which: u64| -> Vec<Vec<Vec<f32>>> {
            (0..tokens.batch as u64).map(|s| vec![rows(3 * s + which, tokens.context, n_kv_heads)]).collect()
        };
        let queries = (0..tokens.batch as u64).flat_map(|s| rows(3 * s + 2, 1, n_heads)).collect();
        Ok(Self { layout: Arc::new(layout), keys: side(0), values: side(1), queries: vec![queries], note: None })
    }

    /// The queries of each layer as tensors.
    pub(super) fn query_tensors(&self, device: &Device) -> Result<Vec<Tensor>> {
        let shape = [self.keys.len(), self.layout.n_heads, self.layout.head_dim];
        self.queries.iter().map(|q| Tensor::from_slice(q, &shape, device)).collect()
    }

    /// A cache of each sequence, filled in steps as a decoder would.
    pub(super) fn fill(&self, spec: &cache::Spec, bases: Option<&Arc<Bases>>, device: &Device) -> Result<Vec<KvCache>> {
        (0..self.keys.len()).map(|sequence| self.fill_one(sequence, spec, bases, device)).collect()
    }

    fn fill_one(&self, sequence: usize, spec: &cache::Spec, bases: Option<&Arc<Bases>>, device: &Device) -> Result<KvCache> {
        let (heads, width) = (self.layout.n_kv_heads, self.layout.head_dim);
        let mut cache = KvCache::new(&self.layout, spec, bases, device)?;
        let total = self.layout.max_tokens;
        while cache.len() < total {
            let (start, step) = (cache.len(), cache.max_step().min(total - cache.len()));
            if step == 0 {
                return Err(Error::Numeric { op: "kvbench", what: format!("the cache takes no more than {start} tokens") });
            }
            let part = |rows: &[f32]| {
                Tensor::from_slice(&rows[start * heads * width..][..step * heads * width], &[step, heads, width], device)
            };
            for layer in 0..self.layout.n_layers {
                cache.append(layer, &part(&self.keys[sequence][layer])?, &part(&self.values[sequence][layer])?)?;
            }
            cache.end_step()?;
        }
        Ok(cache)
    }
}

/// Normal rows [count, heads, head_dim], element j scaled by 1/(j + 1), mirrored at a plane of each head so that no axis
/// is special, and brought to a mean square of about one.
fn power_rows(seed: u64, stream: u64, count: usize, heads: usize, head_dim: usize) -> Vec<f32> {
    let stream = Stream::new(seed, stream);
    let size = (count * heads * head_dim) as u64;
    let mirrors: Vec<f32> = (0..(heads * head_dim) as u64).map(|j| stream.normal(size + j)).collect();
    let scale = (head_dim as f32 / (1..=head_dim).map(|j| (j as f32).powi(-2)).sum::<f32>()).sqrt();
    let mut out = vec![0.0; size as usize];
    for (i, row) in out.chunks_exact_mut(head_dim).enumerate() {
        for (j, x) in row.iter_mut().enumerate() {
            *x = scale * stream.normal((i * head_dim + j) as u64) / (j + 1) as f32;
        }
        super::data::mirror(row, &mirrors[i % heads * head_dim..][..head_dim]);
    }
    out
}
