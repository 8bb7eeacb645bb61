//! Queries, keys and values of the model that comes with the project, as it reads text.

use std::{cell::OnceCell, path::Path, sync::Arc};

use crate::{
    Device, Error, InputError, Result, Tensor,
    cache::{Bases, KvCache, Spec},
    calibrate::{self, Moments, Sampling},
    coded::Format,
    model::{Config, LoadOptions, Model, Observer, Positions, Run, Tokenizer, read_text},
};

/// Tokens of one window: the context that the model was trained with.
pub(super) const WINDOW: usize = 512;
/// Windows of text that calibration reads.
const CALIBRATION_WINDOWS: usize = 16;
/// The longest text that is read.
const TEXT_LIMIT: u64 = 64 << 20;

/// What a model computed over windows of text that stand one after the other.
pub(super) struct Captured {
    model: Model,
    moments: OnceCell<Moments>,
    pub(super) config: Config,
    pub(super) windows: usize,
    /// [layer]: [windows x 512, n_heads, head_dim] before RoPE.
    pub(super) queries: Vec<Vec<f32>>,
    /// [layer]: [windows x 512, n_kv_heads, head_dim] before RoPE.
    pub(super) keys: Vec<Vec<f32>>,
    /// [layer]: as keys.
    pub(super) values: Vec<Vec<f32>>,
}

impl Captured {
    /// Runs the model over the first windows of a text.
    pub(super) fn new(model: &Path, text: &Path, windows: usize, device: &Device) -> Result<Self> {
        let loaded = Model::load(model, device, &LoadOptions::default())?;
        let config = loaded.config().clone();
        let ids = token_ids(model, text, config.vocab_size)?;
        if ids.len() < windows * WINDOW {
            let found = format!("{} tokens", ids.len());
            let error = InputError::new("length", found, format!("at least {} tokens", windows * WINDOW)).file(text);
            return Err(error.hint("use fewer windows").into());
        }
        let empty = || vec![Vec::new(); config.n_layers];
        let mut tap = Tap { queries: empty(), keys: empty(), values: empty(), failed: None };
        let layout = loaded.layout(WINDOW)?;
        for window in ids.chunks_exact(WINDOW).take(windows) {
            let mut cache = KvCache::dense(&layout, Format::F32, device)?;
            loaded.hidden(&mut [Run { ids: window, cache: &mut cache }], &mut tap)?;
        }
        let Tap { queries, keys, values, failed } = tap;
        match failed {
            Some(error) => Err(error),
            None => Ok(Self { model: loaded, moments: OnceCell::new(), config, windows, queries, keys, values }),
        }
    }

    /// Calibrated bases for `spec`, from windows of `text`, which is not the text that was captured.
    pub(super) fn bases(&self, model: &Path, text: &Path, spec: &Spec) -> Result<Arc<Bases>> {
        if self.moments.get().is_none() {
            let ids = token_ids(model, text, self.config.vocab_size)?;
            let sampling = Sampling { windows: CALIBRATION_WINDOWS, window: WINDOW };
            // Nobody else sets it: this type is used by one thread.
            let _ = self.moments.set(calibrate::collect(&self.model, &ids, sampling)?);
        }
        match self.moments.get() {
            Some(moments) => calibrate::bases(&self.model, moments, spec),
            None => Err(Error::Numeric { op: "kvbench", what: "no moments".to_owned() }),
        }
    }

    /// Tokens in all.
    pub(super) fn tokens(&self) -> usize {
        self.windows * WINDOW
    }

    /// Inverse frequencies of the rotary embedding, if there is one.
    pub(super) fn inverse_frequencies(&self) -> Option<&[f32]> {
        match &self.config.positions {
            Positions::Rotary { inverse_frequencies } => Some(inverse_frequencies),
            Positions::Learned => None,
        }
    }

    /// Keys or values as matrices [layers x heads x windows, 512, head_dim].
    pub(super) fn matrices(&self, values: bool) -> (Vec<f32>, [usize; 3]) {
        let (heads, width) = (self.config.n_kv_heads, self.config.head_dim);
        let mut out = Vec::new();
        for rows in if values { &self.values } else { &self.keys } {
            for head in 0..heads {
                let tokens = rows.chunks_exact(heads * width);
                tokens.for_each(|token| out.extend_from_slice(&token[head * width..][..width]));
            }
        }
        (out, [self.config.n_layers * heads * self.windows, WINDOW, width])
    }
}

fn token_ids(model: &Path, text: &Path, vocab_size: usize) -> Result<Vec<u32>> {
    Ok(Tokenizer::load(model, vocab_size)?.encode(&read_text(text, TEXT_LIMIT)?, false)?.ids)
}

struct Tap {
    queries: Vec<Vec<f32>>,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    failed: Option<Error>,
}

impl Observer for Tap {
    fn qkv(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) {
        let sides = [(&mut self.queries, q), (&mut self.keys, k), (&mut self.values, v)];
        for (to, from) in sides {
            match from.to_f32_vec() {
                Ok(rows) => to[layer].extend(rows),
                Err(error) => self.failed = Some(error),
            }
        }
    }
}
