//! The parts a transformer is made of, whatever its family.

use crate::{Result, Tensor, linear, nn};

pub(super) struct Weights {
    pub(super) embedding: Tensor,
    /// One row per position, where positions are learned.
    pub(super) positions: Option<Tensor>,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Norm,
    pub(super) head: Tensor,
}

impl Weights {
    /// Numbers in all; a head tied to the embedding is counted once.
    pub(super) fn parameters(&self, tied_head: bool) -> usize {
        let head = if tied_head { 0 } else { self.head.len() };
        let blocks: usize = self.blocks.iter().map(Block::parameters).sum();
        self.embedding.len() + self.positions.as_ref().map_or(0, Tensor::len) + blocks + self.norm.parameters() + head
    }
}

pub(super) struct Block {
    pub(super) attention_norm: Norm,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    pub(super) mlp_norm: Norm,
    pub(super) mlp: Mlp,
}

impl Block {
    fn parameters(&self) -> usize {
        let linears = [&self.q, &self.k, &self.v, &self.o, &self.mlp.up, &self.mlp.down].into_iter().chain(&self.mlp.gate);
        linears.map(Linear::parameters).sum::<usize>() + self.attention_norm.parameters() + self.mlp_norm.parameters()
    }
}

pub(super) struct Mlp {
    /// Present where the feed-forward part is gated.
    pub(super) gate: Option<Linear>,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Mlp {
    pub(super) fn apply(&self, x: &Tensor, activation: nn::Activation) -> Result<Tensor> {
        let mut inner = self.up.apply(x)?;
        match &self.gate {
            Some(gate) => {
                let up = inner;
                inner = gate.apply(x)?;
                nn::activate_gated(&mut inner, &up, activation)?;
            }
            None => nn::activate(&mut inner, activation)?,
        }
        self.down.apply(&inner)
    }
}

pub(super) enum Norm {
    Rms { weight: Tensor, eps: f32 },
    Layer { weight: Tensor, bias: Tensor, eps: f32 },
}

impl Norm {
    fn parameters(&self) -> usize {
        match self {
            Self::Rms { weight, .. } => weight.len(),
            Self::Layer { weight, bias, .. } => weight.len() + bias.len(),
        }
    }

    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Rms { weight, eps } => nn::rms_norm(x, weight, *eps),
            Self::Layer { weight, bias, eps } => nn::layer_norm(x, weight, bias, *eps),
        }
    }
}

pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    fn parameters(&self) -> usize {
        self.weight.len() + self.bias.as_ref().map_or(0, Tensor::len)
    }

    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        linear::dense(x, &self.weight, self.bias.as_ref())
    }

    /// The layer that makes `len` of the outputs, sharing the memory.
    pub(super) fn rows(&self, start: usize, len: usize) -> Result<Self> {
        let bias = self.bias.as_ref().map(|bias| bias.narrow(0, start, len)).transpose()?;
        Ok(Self { weight: self.weight.narrow(0, start, len)?, bias })
    }
}
