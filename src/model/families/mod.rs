//! Model families: each reads its configuration and maps its tensors onto the one transformer of this crate.

mod gpt2;
mod llama;

use super::{
    config::{Config, Fields},
    files::Checkpoint,
    weights::Weights,
};
use crate::{Device, Result};

/// The model types that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RMS norm, rotary positions, gated feed-forward, grouped query heads.
    Llama,
    /// Layer norm, learned positions, biases everywhere.
    Gpt2,
}

impl Family {
    pub(super) fn of(fields: &Fields) -> Result<Self> {
        match fields.text("model_type")? {
            Some("llama") => Ok(Self::Llama),
            Some("gpt2") => Ok(Self::Gpt2),
            other => {
                let found = other.map_or("none".to_string(), |name| format!("{name:?}"));
                Err(fields.wrong("model_type", found, "llama or gpt2"))
            }
        }
    }

    pub(super) fn config(self, fields: &Fields) -> Result<Config> {
        match self {
            Self::Llama => llama::config(fields),
            Self::Gpt2 => gpt2::config(fields),
        }
    }

    pub(super) fn weights(self, config: &Config, checkpoint: &Checkpoint, device: &Device) -> Result<Weights> {
        match self {
            Self::Llama => llama::weights(config, checkpoint, device),
            Self::Gpt2 => gpt2::weights(config, checkpoint, device),
        }
    }
}
