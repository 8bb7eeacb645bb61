//! Perplexity under compressed caches, beside the dense cache on the same text.

use std::{cell::OnceCell, sync::Arc};

use super::{Moments, Sampling, bases, collect_from};
use crate::{
    Result,
    cache::{BasisKind, KvCache, Layout, Spec},
    coded::Format,
    model::{
        Encoded, Model,
        perplexity::{Options, Score, score},
    },
};

/// One cache's perplexity and bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// How the cache was kept; windows, sinks and mode included.
    pub spec: Spec,
    /// Its perplexity, and the bytes of one window's cache.
    pub score: Score,
    /// Bytes of a dense 16-bit cache of one window.
    pub dense_bytes: usize,
}

impl Evaluation {
    /// Bytes of this cache over those of the dense 16-bit one; calibrated bases, which are per model, left out.
    pub fn share(&self) -> f64 {
        self.score.cache.sequence() as f64 / self.dense_bytes as f64
    }
}

/// Scores one text under any number of caches; calibration is done once, when the first cache needs it.
pub struct Evaluator<'a> {
    model: &'a Model,
    text: &'a Encoded,
    options: Options<'a>,
    calibration: Option<(&'a [u32], Sampling)>,
    layout: Arc<Layout>,
    moments: OnceCell<Moments>,
}

impl<'a> Evaluator<'a> {
    /// Scores `text` by windows; `calibration` is the text, and the windows of it, that calibrated bases are fitted to.
    ///
    /// # Errors
    /// [`crate::Error::Input`] when the window is longer than the model's context.
    pub fn new(
        model: &'a Model,
        text: &'a Encoded,
        options: Options<'a>,
        calibration: Option<(&'a [u32], Sampling)>,
    ) -> Result<Self> {
        let layout = model.layout(options.window)?;
        Ok(Self { model, text, options, calibration, layout, moments: OnceCell::new() })
    }

    /// The text under the dense f32 cache.
    ///
    /// # Errors
    /// As [`score`].
    pub fn dense(&self) -> Result<Evaluation> {
        self.run(&Spec::dense(Format::F32))
    }

    /// The text under `spec`.
    ///
    /// # Errors
    /// As [`score`], [`super::collect`] and [`KvCache::new`]; [`crate::Error::Input`] when a calibrated basis has no text.
    pub fn run(&self, spec: &Spec) -> Result<Evaluation> {
        let bases = match spec.basis {
            BasisKind::Calibrated => Some(bases(self.model, self.moments()?, spec)?),
            BasisKind::Identity | BasisKind::Online => None,
        };
        let (layout, device) = (&self.layout, self.model.device());
        let make_cache = || KvCache::new(layout, spec, bases.as_ref(), device);
        make_cache()?;
        let score = score(self.model, self.text, &self.options, make_cache)?;
        let dense_bytes = self.options.window * self.layout.dense_bytes_per_token();
        Ok(Evaluation { spec: spec.clone(), score, dense_bytes })
    }

    fn moments(&self) -> Result<&Moments> {
        if let Some(moments) = self.moments.get() {
            return Ok(moments);
        }
        let moments = collect_from(self.model, self.calibration)?;
        Ok(self.moments.get_or_init(|| moments))
    }
}
