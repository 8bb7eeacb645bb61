//! Calibrated bases: a fixed encoder and decoder for each layer, side and head.

use crate::{Device, Error, Purpose, Result, Tensor, attention::Decoder, coded::Format};

/// A fixed basis of the keys or the values of one layer: latents = (x - mean) E, x ~ latents D' + mean.
#[derive(Clone, Debug)]
pub struct Basis {
    /// E: [n_kv_heads, head_dim, rank] f32.
    pub encoder: Tensor,
    /// D: [n_kv_heads, head_dim, rank], and the mean if there is one.
    pub decoder: Decoder,
}

impl Basis {
    /// A basis from an encoder and a decoder [n_kv_heads, head_dim, rank] and perhaps a mean [n_kv_heads, head_dim],
    /// all f32; the decoder is rounded to `format`, as it will be stored.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes do not fit each other, [`Error::Device`] when the memory is not to be had.
    pub fn new(
        encoder: &[f32],
        decoder: &[f32],
        mean: Option<&[f32]>,
        shape: [usize; 3],
        format: Format,
        device: &Device,
    ) -> Result<Self> {
        let device = device.accounting(Purpose::Bases);
        let wide = Tensor::from_slice(decoder, &shape, &device.accounting(Purpose::Activations))?;
        let mut matrix = Tensor::zeros(&shape, format.dtype(), &device)?;
        matrix.bytes_mut()?.copy_from_slice(wide.to_dtype(format.dtype())?.bytes_ref()?);
        let mean = mean.map(|mean| Tensor::from_slice(mean, &shape[..2], &device)).transpose()?;
        Ok(Self { encoder: Tensor::from_slice(encoder, &shape, &device)?, decoder: Decoder { matrix, mean } })
    }

    /// Columns.
    pub fn rank(&self) -> usize {
        self.encoder.shape()[2]
    }

    /// Bytes of encoder, decoder and mean.
    pub fn bytes(&self) -> usize {
        self.encoder.bytes() + self.decoder.matrix.bytes() + self.decoder.mean.as_ref().map_or(0, Tensor::bytes)
    }

    pub(super) fn check(&self, heads: usize, head_dim: usize, rank: usize) -> Result<()> {
        let expected = [heads, head_dim, rank];
        if self.encoder.shape() == expected && self.decoder.matrix.shape() == expected {
            return Ok(());
        }
        Err(Error::shape("KvCache::new", format!("basis {:?}", self.encoder.shape()), format!("{expected:?}")))
    }
}

/// Calibrated bases of a model, a pair for each layer; `None` where a side is not compressed by one.
#[derive(Clone, Debug, Default)]
pub struct Bases {
    /// (keys, values) of each layer.
    pub layers: Vec<(Option<Basis>, Option<Basis>)>,
}

impl Bases {
    /// Bytes of all bases.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flat_map(|(keys, values)| [keys, values]).flatten().map(Basis::bytes).sum()
    }
}

/// Multiplies each row of `rows` [.., rank] by an orthonormal Hadamard matrix on its longest power-of-two blocks, in place.
///
/// Latents times it, and a decoder times it, describe the same rows: it spreads large latents over their neighbours, so that
/// few small ones round to zero. Applied twice it is the identity.
pub fn hadamard(rows: &mut [f32], rank: usize) {
    for row in rows.chunks_exact_mut(rank.max(1)) {
        let mut rest = row;
        while !rest.is_empty() {
            let block = 1 << rest.len().ilog2();
            let (head, tail) = rest.split_at_mut(block);
            hadamard_block(head);
            rest = tail;
        }
    }
}

/// The fast Walsh-Hadamard transform of a power-of-two length, scaled to be orthonormal.
fn hadamard_block(x: &mut [f32]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (x.len() as f32).sqrt();
    x.iter_mut().for_each(|x| *x *= scale);
}
