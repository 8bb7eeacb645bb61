//! Calibration: second moments of a model's queries, keys and values over sample text, and the bases they give.

mod basis;
mod evaluate;
mod moments;

use std::sync::Arc;

use basis::Target;
use rayon::prelude::*;

pub use evaluate::{Evaluation, Evaluator};
pub use moments::Moments;

use crate::{
    InputError, Result,
    cache::{Bases, BasisKind, KvCache, Layout, Only, Spec},
    coded::Format,
    model::{Model, Run},
};

/// Which windows of a text calibration reads.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Windows, starting at equal distances over the text.
    pub windows: usize,
    /// Tokens of a window.
    pub window: usize,
}

impl Sampling {
    /// First tokens of the windows in a text of `tokens`: linspace(0, tokens - window - 1, windows), truncated to integers.
    ///
    /// # Errors
    /// [`crate::Error::Input`] when the text is shorter than one window, or either count is zero.
    pub fn starts(&self, tokens: usize) -> Result<Vec<usize>> {
        if self.windows == 0 || self.window == 0 || tokens <= self.window {
            let value = format!("{} windows of {} tokens over {tokens} tokens", self.windows, self.window);
            let error = InputError::new("calibration text", value, "at least one window, and a text longer than it");
            return Err(error.hint("use a longer text or a smaller --window").into());
        }
        let last = (tokens - self.window - 1) as f64;
        let steps = (self.windows - 1).max(1) as f64;
        Ok((0..self.windows).map(|i| (last * i as f64 / steps) as usize).collect())
    }
}

/// Runs `model` over windows of `ids` and gathers the moments of every layer. Windows run in parallel; the result does
/// not depend on how many threads there are.
///
/// # Errors
/// As [`Sampling::starts`] and the model's forward pass.
pub fn collect(model: &Model, ids: &[u32], sampling: Sampling) -> Result<Moments> {
    let start = std::time::Instant::now();
    let starts = sampling.starts(ids.len())?;
    let layout = &model.layout(sampling.window)?;
    let windows: Vec<Moments> = starts
        .par_iter()
        .map(|start| {
            let mut moments = Moments::new(layout);
            let mut cache = KvCache::dense(layout, Format::F32, model.device())?;
            let ids = &ids[*start..start + sampling.window];
            model.hidden(&mut [Run { ids, cache: &mut cache }], &mut moments)?;
            moments.finish(sampling.window)
        })
        .collect::<Result<_>>()?;
    let mut total = Moments::new(layout);
    windows.iter().for_each(|window| total.add(window));
    tracing::info!(
        windows = windows.len(),
        tokens = total.tokens,
        seconds = start.elapsed().as_secs_f64(),
        "gathered moments for calibration"
    );
    Ok(total)
}

/// The calibrated bases that `spec` asks for: PCA of the moments, or with [`crate::cache::Weighting::Query`] keys weighted
/// by queries and values by the output projection.
///
/// # Errors
/// [`crate::Error::Input`] for ranks that do not fit, [`crate::Error::Numeric`] when moments are not finite.
pub fn bases(model: &Model, moments: &Moments, spec: &Spec) -> Result<Arc<Bases>> {
    let layout = moments.layout();
    let (key_rank, value_rank) = spec.ranks(layout.head_dim)?;
    let device = model.device();
    let layers = (0..layout.n_layers)
        .into_par_iter()
        .map(|layer| {
            let of_layer = &moments.layers[layer];
            let keys = (spec.only != Only::Values).then(|| {
                Target::keys(layout, of_layer, moments.window, spec)?.basis(layout, moments.tokens, spec, key_rank, device)
            });
            let values = (spec.only != Only::Keys).then(|| {
                let output = model.output_projection(layer)?;
                Target::values(layout, of_layer, output, spec)?.basis(layout, moments.tokens, spec, value_rank, device)
            });
            Ok((keys.transpose()?, values.transpose()?))
        })
        .collect::<Result<_>>()?;
    Ok(Arc::new(Bases { layers }))
}

/// The bases that caches of `spec` need: calibrated ones from windows of a text, none for the other kinds.
///
/// # Errors
/// As [`collect`] and [`bases`]; [`crate::Error::Input`] when calibrated bases have no text.
pub fn bases_for(model: &Model, spec: &Spec, text: Option<(&[u32], Sampling)>) -> Result<Option<Arc<Bases>>> {
    match spec.basis {
        BasisKind::Calibrated => Ok(Some(bases(model, &collect_from(model, text)?, spec)?)),
        BasisKind::Identity | BasisKind::Online => Ok(None),
    }
}

fn collect_from(model: &Model, text: Option<(&[u32], Sampling)>) -> Result<Moments> {
    let Some((ids, sampling)) = text else {
        let error = InputError::new("--calibrate", "no text", "a text to fit calibrated bases to");
        return Err(error.hint("add --calibrate FILE, or use basis=online").into());
    };
    collect(model, ids, sampling)
}

/// Elements of the square matrix of one head.
fn square(layout: &Layout) -> usize {
    layout.head_dim * layout.head_dim
}
