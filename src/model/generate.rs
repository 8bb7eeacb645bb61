//! Text generation, one token at a time.

use super::{Logits, Model, Run};
use crate::{Error, InputError, Result, cache::KvCache, philox::Stream};

/// How the next token is drawn from the logits. The default is greedy.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the most likely token.
    pub temperature: f32,
    /// Keep this many most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens that together reach this probability.
    pub top_p: f32,
    /// Keep tokens at least this share as likely as the most likely one.
    pub min_p: f32,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

/// What to generate.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; fewer when the context is full.
    pub max_new_tokens: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Tokens that end the text, themselves left out of it.
    pub stop_ids: Vec<u32>,
}

/// What was generated.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The new tokens.
    pub ids: Vec<u32>,
    /// Seconds from the first new token to the last.
    pub decode_seconds: f64,
    /// Seconds over the prompt.
    pub prefill_seconds: f64,
}

impl Generated {
    /// New tokens per second, the prompt's time left out; 0 when there were fewer than two.
    pub fn tokens_per_second(&self) -> f64 {
        let steps = self.ids.len().saturating_sub(1) as f64;
        if self.decode_seconds > 0.0 { steps / self.decode_seconds } else { 0.0 }
    }
}

/// Continues `prompt`, telling `on_token` each new token as it is known; that may end the text by returning false.
/// `cache` holds what came before the prompt, if anything.
///
/// # Errors
/// [`Error::Input`] for an empty or over-long prompt or sampling values out of range; [`Error::Numeric`] when the logits
/// are not numbers; whatever the cache returns.
pub fn generate(
    model: &Model,
    cache: &mut KvCache,
    prompt: &[u32],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(u32) -> bool,
) -> Result<Generated> {
    options.sampling.check()?;
    let start = std::time::Instant::now();
    let random = Stream::new(options.sampling.seed, 0);
    let mut generated = Generated { ids: Vec::new(), decode_seconds: 0.0, prefill_seconds: 0.0 };
    let mut logits = model.forward(&mut [Run { ids: prompt, cache }], Logits::Last, &mut ())?;
    generated.prefill_seconds = start.elapsed().as_secs_f64();
    let start = std::time::Instant::now();
    while generated.ids.len() < options.max_new_tokens {
        let step = generated.ids.len() as u64;
        let id = options.sampling.next(logits.slice()?, random.uniform(step))?;
        if options.stop_ids.contains(&id) {
            break;
        }
        generated.ids.push(id);
        let full = cache.len() >= cache.layout().max_tokens;
        if !on_token(id) || full || generated.ids.len() == options.max_new_tokens {
            break;
        }
        logits = model.forward(&mut [Run { ids: &[id], cache }], Logits::Last, &mut ())?;
    }
    generated.decode_seconds = start.elapsed().as_secs_f64();
    tracing::debug!(
        prompt = prompt.len(),
        prefill_per_second = prompt.len() as f64 / generated.prefill_seconds,
        tokens = generated.ids.len(),
        decode_per_second = generated.tokens_per_second(),
        "generated"
    );
    Ok(generated)
}

impl Sampling {
    fn check(&self) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0.0 && self.temperature.is_finite(), "a number from 0"),
            ("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1"),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
        ];
        match checks.into_iter().find(|(_, _, fits, _)| !fits) {
            Some((field, value, _, limit)) => Err(InputError::new(field, value, limit).into()),
            None => Ok(()),
        }
    }

    /// The next token, given a random number in (0, 1).
    fn next(&self, logits: &[f32], random: f32) -> Result<u32> {
        let not_a_number = || Error::Numeric { op: "generate", what: "the logits hold a NaN or only infinities".into() };
        if logits.iter().any(|x| x.is_nan()) {
            return Err(not_a_number());
        }
        // Most likely first; among equals the lower id, so that greedy takes the first.
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let at = |id: u32| logits[id as usize];
        let likelier = |a: &u32, b: &u32| at(*b).total_cmp(&at(*a)).then(a.cmp(b));
        if self.temperature == 0.0 {
            return order.into_iter().min_by(likelier).ok_or_else(not_a_number);
        }
        order.sort_unstable_by(likelier);
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let best = order.first().map(|id| at(*id)).filter(|x| x.is_finite()).ok_or_else(not_a_number)?;
        let mut weights: Vec<f64> = order.iter().map(|id| f64::from((at(*id) - best) / self.temperature).exp()).collect();
        weights.truncate(self.kept(&weights));
        let mut left = f64::from(random) * weights.iter().sum::<f64>();
        let chosen = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        Ok(order[chosen.unwrap_or(weights.len() - 1)])
    }

    /// How many of the most likely tokens top-p and then min-p keep; at least one. The first weight is 1.
    fn kept(&self, weights: &[f64]) -> usize {
        let enough = f64::from(self.top_p) * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let by_top_p = weights.iter().position(|weight| {
            sum += weight;
            sum >= enough
        });
        let by_min_p = weights.iter().position(|weight| *weight < f64::from(self.min_p));
        let by_top_p = by_top_p.filter(|_| self.top_p < 1.0).map_or(weights.len(), |last| last + 1);
        by_top_p.min(by_min_p.unwrap_or(weights.len())).max(1)
    }
}
