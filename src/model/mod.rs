//! The transformer runtime: Hugging Face folders in, logits, text and perplexity out.
//!
//! ```no_run
//! use lowkey::{Device, cache::KvCache, coded::Format, model::{Logits, Model, Run, Tokenizer}};
//! let device = Device::cpu();
//! let model = Model::load("models/tinyshakespeare-llama", &device, &Default::default())?;
//! let tokenizer = Tokenizer::load("models/tinyshakespeare-llama", model.config().vocab_size)?;
//! let text = tokenizer.encode("ROMEO:\n", true)?;
//! let mut cache = KvCache::dense(&model.layout(text.ids.len())?, Format::F32, &device)?;
//! let logits = model.forward(&mut [Run { ids: &text.ids, cache: &mut cache }], Logits::Last, &mut ())?;
//! assert_eq!(logits.shape(), [1, model.config().vocab_size]);
//! # Ok::<(), lowkey::Error>(())
//! ```

mod batch;
mod config;
mod families;
pub mod files;
mod forward;
mod generate;
mod json;
pub mod perplexity;
mod tokenizer;
mod weights;

use std::{path::Path, sync::Arc, time::Instant};

pub use batch::forward_file;
pub use config::{Config, Positions};
pub use families::Family;
pub use forward::{Logits, Observer, Run};
pub use generate::{GenerateOptions, Generated, Sampling, generate};
pub use json::read_text;
pub use tokenizer::{Encoded, TextStream, Tokenizer};

use crate::{Device, InputError, Purpose, Result, Tensor, cache::Layout, device::Kind, rope::Rope};
use files::Checkpoint;
use weights::Weights;

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Accept NaN and Inf in weights.
    pub allow_nonfinite: bool,
}

/// A transformer with its weights in memory.
pub struct Model {
    config: Config,
    weights: Weights,
    device: Device,
}

impl Model {
    /// Loads a Hugging Face folder: `config.json` and safetensors, one file or shards with an index. Weights are
    /// widened to f32; tensors that the family does not name are ignored.
    ///
    /// # Errors
    /// [`crate::Error::Input`] naming file, field and limit for anything that does not fit, before memory of its size is
    /// allocated; [`crate::Error::Io`] and [`crate::Error::Device`] when the system refuses or the device is not a CPU.
    pub fn load(folder: impl AsRef<Path>, device: &Device, options: &LoadOptions) -> Result<Self> {
        let start = Instant::now();
        let folder = folder.as_ref();
        if device.kind() != Kind::Cpu {
            return Err(device.unsupported("the transformer runtime"));
        }
        let config = Config::load(folder)?;
        let checkpoint = Checkpoint::open(folder, options.allow_nonfinite)?;
        let device = device.accounting(Purpose::Weights);
        let weights = config.family.weights(&config, &checkpoint, &device)?;
        tracing::info!(
            family = ?config.family,
            layers = config.n_layers,
            parameters = weights.parameters(config.tied_head),
            file_bytes = checkpoint.bytes(),
            seconds = start.elapsed().as_secs_f64(),
            "loaded {}",
            folder.display()
        );
        Ok(Self { config, weights, device: device.accounting(Purpose::Activations) })
    }

    /// What the model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the model is; memory allocated through it counts as activations.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The output projection of a layer's attention, [hidden, n_heads * head_dim] f32.
    ///
    /// # Errors
    /// [`crate::Error::Input`] when there is no such layer.
    pub fn output_projection(&self, layer: usize) -> Result<&Tensor> {
        let limit = || InputError::new("layer", layer, format!("below {}", self.weights.blocks.len()));
        Ok(&self.weights.blocks.get(layer).ok_or_else(limit)?.o.weight)
    }

    /// What caches for sequences of at most `max_tokens` tokens need to know.
    ///
    /// # Errors
    /// [`crate::Error::Input`] when that is more than the model's context; [`crate::Error::Device`] when memory runs out.
    pub fn layout(&self, max_tokens: usize) -> Result<Arc<Layout>> {
        let config = &self.config;
        if max_tokens > config.context {
            let limit = format!("at most {}, the context of the model", config.context);
            return Err(InputError::new("tokens", max_tokens, limit).into());
        }
        let rope = match &config.positions {
            Positions::Learned => None,
            Positions::Rotary { inverse_frequencies } => Some(Rope::new(inverse_frequencies, max_tokens, &self.device)?),
        };
        Ok(Arc::new(Layout {
            n_layers: config.n_layers,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            max_tokens,
            scale: config.attention_scale,
            rope,
        }))
    }
}
