//! The forward pass over a ragged batch of sequences.

use super::{Model, weights::Block};
use crate::{
    Dtype, InputError, Result, Tensor,
    cache::{self, KvCache},
    nn,
};

/// New tokens of one sequence and the cache of those before them.
pub struct Run<'a> {
    /// Token ids to append.
    pub ids: &'a [u32],
    /// The sequence so far.
    pub cache: &'a mut KvCache,
}

/// Which logits a forward pass gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// Those of every token, run after run: [tokens, vocabulary].
    All,
    /// Those of the last token of each run: [runs, vocabulary].
    Last,
}

/// Sees what passes through a model. Rows are the tokens of one step, run after run; a pass takes more than one step
/// only where a cache asks for shorter ones ([`KvCache::max_step`]).
#[expect(unused_variables, reason = "the default observer looks at nothing")]
pub trait Observer {
    /// Hidden states [tokens, hidden]: index 0 is the embedding, i the output of block i, the last one after the final
    /// norm.
    fn hidden(&mut self, index: usize, states: &Tensor) {}

    /// Queries [tokens, n_heads, head_dim], keys and values [tokens, n_kv_heads, head_dim] of a layer, before rotary
    /// embedding.
    fn qkv(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) {}
}

impl Observer for () {}

/// The share of one run in a step: ids[start..end].
struct Share {
    run: usize,
    start: usize,
    end: usize,
}

impl Model {
    /// Appends the tokens of each run to its cache and returns logits, f32.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for an empty run, an id outside the vocabulary or a sequence longer than the context;
    /// whatever the cache and the operations return.
    pub fn forward(&self, runs: &mut [Run], logits: Logits, observer: &mut dyn Observer) -> Result<Tensor> {
        let hidden = self.hidden(runs, observer)?;
        if logits == Logits::All {
            return self.logits(&hidden);
        }
        let width = self.config.hidden_size;
        let states = hidden.slice::<f32>()?;
        let ends = runs.iter().scan(0, |end, run| {
            *end += run.ids.len();
            Some(*end)
        });
        let last: Vec<f32> = ends.flat_map(|end| &states[(end - 1) * width..end * width]).copied().collect();
        self.logits(&Tensor::from_slice(&last, &[runs.len(), width], &self.device)?)
    }

    /// Appends the tokens of each run to its cache and returns the hidden states after the final norm,
    /// [tokens, hidden] f32, run after run.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn hidden(&self, runs: &mut [Run], observer: &mut dyn Observer) -> Result<Tensor> {
        self.check(runs)?;
        let total = runs.iter().map(|run| run.ids.len()).sum();
        let mut done = vec![0; runs.len()];
        let mut out: Option<Tensor> = None;
        loop {
            let shares = next_step(runs, &done);
            let tokens: usize = shares.iter().map(|s| s.end - s.start).sum();
            if tokens == 0 {
                break;
            }
            let states = self.step(runs, &shares, observer)?;
            if tokens == total {
                return Ok(states);
            }
            let out = match &mut out {
                Some(out) => out,
                none => none.insert(Tensor::zeros(&[total, self.config.hidden_size], Dtype::F32, &self.device)?),
            };
            self.scatter(runs, &shares, &states, out)?;
            shares.iter().for_each(|s| done[s.run] = s.end);
        }
        if done.iter().zip(runs.iter()).all(|(done, run)| *done == run.ids.len()) {
            return out.map_or_else(|| Tensor::zeros(&[0, self.config.hidden_size], Dtype::F32, &self.device), Ok);
        }
        let held = runs.iter().map(|run| run.cache.len()).max().unwrap_or(0);
        Err(InputError::new("tokens", format!("more than the {held} that the cache holds"), "a cache with room for all").into())
    }

    /// Logits [rows, vocabulary] of hidden states [rows, hidden] after the final norm, f32.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the width is not the model's.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        crate::linear::dense(hidden, &self.weights.head, None)
    }

    fn check(&self, runs: &[Run]) -> Result<()> {
        let config = &self.config;
        for run in runs {
            if run.ids.is_empty() {
                return Err(InputError::new("tokens", "none", "at least one").hint("the prompt is empty").into());
            }
            if let Some(index) = run.ids.iter().position(|id| *id as usize >= config.vocab_size) {
                let limit = format!("ids below {}, the vocabulary of the model", config.vocab_size);
                return Err(InputError::new(format!("token {index}"), run.ids[index], limit).into());
            }
            let length = run.cache.len() + run.ids.len();
            if length > config.context {
                let limit = format!("at most {}, the context of the model", config.context);
                return Err(InputError::new("tokens", length, limit).hint("shorten the prompt").into());
            }
        }
        Ok(())
    }

    fn scatter(&self, runs: &[Run], shares: &[Share], states: &Tensor, out: &mut Tensor) -> Result<()> {
        let width = self.config.hidden_size;
        let mut from = states.slice::<f32>()?;
        let out = out.slice_mut::<f32>()?;
        for share in shares {
            let before: usize = runs[..share.run].iter().map(|run| run.ids.len()).sum();
            let (rows, rest) = from.split_at((share.end - share.start) * width);
            out[(before + share.start) * width..(before + share.end) * width].copy_from_slice(rows);
            from = rest;
        }
        Ok(())
    }

    /// One pass over the blocks for tokens that every cache takes in one step.
    fn step(&self, runs: &mut [Run], shares: &[Share], observer: &mut dyn Observer) -> Result<Tensor> {
        let ids: Vec<u32> = shares.iter().flat_map(|s| &runs[s.run].ids[s.start..s.end]).copied().collect();
        let mut x = nn::embedding(&self.weights.embedding, &ids)?;
        if let Some(positions) = &self.weights.positions {
            let places: Vec<u32> =
                shares.iter().flat_map(|s| (0..s.end - s.start).map(|i| (runs[s.run].cache.len() + i) as u32)).collect();
            nn::add(&mut x, &nn::embedding(positions, &places)?)?;
        }
        for (layer, block) in self.weights.blocks.iter().enumerate() {
            observer.hidden(layer, &x);
            self.attention(&mut x, block, layer, runs, shares, observer)?;
            let inner = block.mlp.apply(&block.mlp_norm.apply(&x)?, self.config.activation)?;
            nn::add(&mut x, &inner)?;
        }
        for share in shares {
            runs[share.run].cache.end_step()?;
        }
        let states = self.weights.norm.apply(&x)?;
        observer.hidden(self.weights.blocks.len(), &states);
        Ok(states)
    }

    fn attention(
        &self,
        x: &mut Tensor,
        block: &Block,
        layer: usize,
        runs: &mut [Run],
        shares: &[Share],
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let config = &self.config;
        let normed = block.attention_norm.apply(x)?;
        let tokens = x.shape()[0];
        let heads = |x: Tensor, heads: usize| x.reshape(&[tokens, heads, config.head_dim]);
        let q = heads(block.q.apply(&normed)?, config.n_heads)?;
        let k = heads(block.k.apply(&normed)?, config.n_kv_heads)?;
        let v = heads(block.v.apply(&normed)?, config.n_kv_heads)?;
        observer.qkv(layer, &q, &k, &v);
        let mut row = 0;
        for share in shares {
            let len = share.end - share.start;
            runs[share.run].cache.append(layer, &k.narrow(0, row, len)?, &v.narrow(0, row, len)?)?;
            row += len;
        }
        let caches: Vec<&KvCache> = shares.iter().map(|s| &*runs[s.run].cache).collect();
        let counts: Vec<usize> = shares.iter().map(|s| s.end - s.start).collect();
        let mixed = cache::attend(&caches, &counts, layer, &q)?;
        let mixed = mixed.reshape(&[tokens, config.n_heads * config.head_dim])?;
        nn::add(x, &block.o.apply(&mixed)?)
    }
}

/// What each run adds to the next step: as much as is left and its cache takes.
fn next_step(runs: &[Run], done: &[usize]) -> Vec<Share> {
    let share = |(run, (r, start)): (usize, (&Run, &usize))| {
        let len = (r.ids.len() - start).min(r.cache.max_step());
        Share { run, start: *start, end: start + len }
    };
    runs.iter().zip(done).enumerate().map(share).filter(|s| s.end > s.start).collect()
}
