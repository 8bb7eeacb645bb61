//! The layers of caches, moved to a device: caches themselves live on the CPU so far, attention over them does not.

use super::tokens::Sequences;
use crate::{
    Device, Dtype, Result, Scratch, Tensor,
    attention::{self, Decoder, Params, Part, Sequence, Side},
    cache::{KeyForm, KvCache},
    coded::Coded,
    rope::Rope,
};

/// One side of a part.
struct MovedSide {
    rows: Coded,
    decoder: Option<Decoder>,
}

impl MovedSide {
    fn new(side: Side<'_>, device: &Device) -> Result<Self> {
        let decoder = side.decoder.map(|decoder| decoder.to_device(device)).transpose()?;
        Ok(Self { rows: side.rows.to_device(device)?, decoder })
    }

    fn side(&self) -> Side<'_> {
        Side { rows: &self.rows, decoder: self.decoder.as_ref() }
    }
}

/// All layers of some caches on a device, and what attention over them takes.
pub(super) struct Moved {
    /// [layer][sequence][part]: keys and values.
    layers: Vec<Vec<Vec<[MovedSide; 2]>>>,
    rope: Option<Rope>,
    scale: f32,
    keys_rotated: bool,
    out: Tensor,
    scratch: Scratch,
}

impl Moved {
    pub(super) fn new(caches: &[KvCache], sequences: &Sequences, device: &Device) -> Result<Self> {
        let layout = &sequences.layout;
        let part = |part: Part<'_>| Ok([MovedSide::new(part.keys, device)?, MovedSide::new(part.values, device)?]);
        let of_layer = |layer| {
            let of_cache = |cache: &KvCache| cache.parts(layer).map(part).collect::<Result<Vec<_>>>();
            caches.iter().map(of_cache).collect::<Result<Vec<_>>>()
        };
        let out = Tensor::zeros(&[caches.len(), layout.n_heads, layout.head_dim], Dtype::F32, device)?;
        Ok(Self {
            layers: (0..layout.n_layers).map(of_layer).collect::<Result<_>>()?,
            rope: layout.rope.as_ref().map(|rope| rope.to_device(device)).transpose()?,
            scale: layout.scale,
            keys_rotated: caches.first().is_none_or(|cache| cache.spec().keys == KeyForm::PostRope),
            out,
            scratch: Scratch::new(device),
        })
    }

    /// One query a sequence over a layer, [batch, n_heads, head_dim].
    pub(super) fn attend(&mut self, layer: usize, q: &Tensor) -> Result<&Tensor> {
        let sequences: Vec<Sequence<'_>> = self.layers[layer].iter().map(|of| sequence(of)).collect();
        let params = Params { scale: self.scale, rope: self.rope.as_ref(), keys_rotated: self.keys_rotated };
        attention::attend_into(&mut self.out, q, &sequences, &params, &mut self.scratch)?;
        Ok(&self.out)
    }
}

fn sequence(parts: &[[MovedSide; 2]]) -> Sequence<'_> {
    Sequence {
        parts: parts.iter().map(|[keys, values]| Part { keys: keys.side(), values: values.side() }).collect(),
        queries: 1,
    }
}
