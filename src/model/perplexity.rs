//! Perplexity of a model on a text, window by window.

use std::{ops::Range, time::Instant};

use rayon::prelude::*;

use super::{Encoded, Model, Run};
use crate::{
    Error, InputError, Result, Tensor,
    cache::{CacheBytes, KvCache},
};

/// Which windows of a text are scored.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Tokens of a window.
    pub window: usize,
    /// Distance of windows; as `window` by default. With less, a token is scored in the first window that has it.
    pub stride: Option<usize>,
    /// Score this many windows, spread evenly over the text, instead of all.
    pub samples: Option<usize>,
    /// Told after each window.
    pub on_window: &'a (dyn Fn() + Sync),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { window: 512, stride: None, samples: None, on_window: &|| {} }
    }
}

/// How well a model predicts a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Mean negative log-likelihood of a scored token, in nats.
    pub nll: f64,
    /// e^nll.
    pub perplexity: f64,
    /// Bits for each byte of the scored text.
    pub bits_per_byte: f64,
    /// Tokens scored.
    pub tokens: usize,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// What the cache of one whole window took.
    pub cache: CacheBytes,
}

/// The windows of a text of `tokens` tokens under `options`: the last, partial one is dropped.
///
/// # Errors
/// [`Error::Input`] when the text is shorter than a window, or a value is out of range.
pub fn windows(tokens: usize, options: &Options) -> Result<Vec<Range<usize>>> {
    let Options { window, stride, samples, .. } = *options;
    let stride = stride.unwrap_or(window);
    let checks = [
        ("window", window, window >= 2, "at least 2".to_string()),
        ("stride", stride, (1..=window).contains(&stride), format!("from 1 to {window}, the window")),
        ("samples", samples.unwrap_or(1), samples != Some(0), "at least 1".to_string()),
        ("text", tokens, tokens >= window.max(1), format!("at least {window} tokens, one window")),
    ];
    if let Some((field, value, _, limit)) = checks.into_iter().find(|(_, _, fits, _)| !fits) {
        let found = if field == "text" { format!("{value} tokens") } else { value.to_string() };
        return Err(InputError::new(field, found, limit).into());
    }
    let count = (tokens - window) / stride + 1;
    let taken = samples.unwrap_or(count).min(count);
    Ok((0..taken).map(|i| i * count / taken * stride).map(|start| start..start + window).collect())
}

/// Scores `text`: windows of it, each with a cache of its own, spread over threads. The first token of a window is not
/// scored; logits are f32, their softmax f64. The result does not depend on the number of threads.
///
/// # Errors
/// As [`windows`] and [`Model::forward`]; [`Error::Numeric`] when logits are not numbers; whatever `make_cache` returns.
pub fn score(
    model: &Model,
    text: &Encoded,
    options: &Options,
    make_cache: impl Fn() -> Result<KvCache> + Sync,
) -> Result<Score> {
    let windows = windows(text.ids.len(), options)?;
    if options.window > model.config().context {
        let limit = format!("at most {}, the context of the model", model.config().context);
        return Err(InputError::new("window", options.window, limit).into());
    }
    let start = Instant::now();
    let fresh = options.stride.unwrap_or(options.window);
    let score_one = |window: &Range<usize>| -> Result<(f64, usize, usize, CacheBytes)> {
        // The first window scores all it can, later ones what no window before them had.
        let first = if window.start == 0 { 1 } else { (options.window - fresh).max(1) };
        let mut cache = make_cache()?;
        let ids = &text.ids[window.clone()];
        let hidden = model.hidden(&mut [Run { ids, cache: &mut cache }], &mut ())?;
        let nll = negative_log_likelihood(model, &hidden, ids, first)?;
        (options.on_window)();
        let bytes = text.ends[window.end - 1] - text.ends[window.start + first - 1];
        Ok((nll, ids.len() - first, bytes, cache.bytes()))
    };
    let parts: Vec<_> = windows.par_iter().map(score_one).collect::<Result<_>>()?;
    // Summed in the order of the text, whatever order they were scored in.
    let (nll, tokens, bytes) = parts.iter().fold((0.0, 0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1, sum.2 + part.2));
    Ok(Score {
        nll: nll / tokens as f64,
        perplexity: (nll / tokens as f64).exp(),
        bits_per_byte: nll / std::f64::consts::LN_2 / bytes as f64,
        tokens,
        seconds: start.elapsed().as_secs_f64(),
        cache: parts.first().map(|part| part.3).unwrap_or_default(),
    })
}

/// Sum of -log p(ids[i] | before) for i from `first`, which is at least 1.
fn negative_log_likelihood(model: &Model, hidden: &Tensor, ids: &[u32], first: usize) -> Result<f64> {
    // Logits of a few rows at a time: with a large vocabulary those of a window would not fit.
    const ROWS: usize = 128;
    let mut sum = 0.0;
    for start in (first - 1..ids.len() - 1).step_by(ROWS) {
        let rows = ROWS.min(ids.len() - 1 - start);
        let logits = model.logits(&hidden.narrow(0, start, rows)?)?;
        let vocab = logits.shape()[1];
        for (i, row) in logits.slice::<f32>()?.chunks_exact(vocab).enumerate() {
            sum += log_sum_exp(row) - f64::from(row[ids[start + i + 1] as usize]);
        }
    }
    if sum.is_finite() {
        return Ok(sum);
    }
    Err(Error::Numeric { op: "perplexity", what: "a logit is not a finite number".into() })
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + row.iter().map(|x| (f64::from(*x) - max).exp()).sum::<f64>().ln()
}
