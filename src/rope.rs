//! Rotary position embedding, in one canonical layout: dimension j turns together with j + head_dim / 2.
//!
//! Interleaved and partial variants are brought into this layout when a model is loaded; a pair that does not turn has
//! frequency zero. Source: Su et al., "RoFormer", 2021.

use crate::{Device, Error, Result, Tensor};

/// Cosines and sines of every position, [positions, head_dim / 2] f32.
#[derive(Clone, Debug)]
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// Tables for positions `0..positions`, one inverse frequency (radians per token) for each of head_dim / 2 pairs.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had.
    pub fn new(inverse_frequencies: &[f32], positions: usize, device: &Device) -> Result<Self> {
        let shape = [positions, inverse_frequencies.len()];
        let angles = (0..positions).flat_map(|position| inverse_frequencies.iter().map(move |f| position as f32 * f));
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
        Ok(Self { cos: Tensor::from_slice(&cos, &shape, device)?, sin: Tensor::from_slice(&sin, &shape, device)? })
    }

    /// The usual inverse frequencies theta^(-2j / rotary_dim) for j in 0..rotary_dim / 2.
    pub fn inverse_frequencies(rotary_dim: usize, theta: f32) -> Vec<f32> {
        (0..rotary_dim / 2).map(|j| 1.0 / theta.powf((2 * j) as f32 / rotary_dim as f32)).collect()
    }

    /// A copy of the tables on `device`.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had or a device failed.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { cos: self.cos.to_device(device)?, sin: self.sin.to_device(device)? })
    }

    /// The device that holds the tables.
    pub fn device(&self) -> Device {
        self.cos.device()
    }

    /// Cosines and sines of every position, each [positions, head_dim / 2] f32.
    pub(crate) fn tables(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }

    /// Positions in the tables.
    pub fn positions(&self) -> usize {
        self.cos.shape()[0]
    }

    /// Rotary pairs, head_dim / 2.
    pub fn pairs(&self) -> usize {
        self.cos.shape()[1]
    }

    /// The tables as slices. CPU only.
    pub(crate) fn host(&self) -> Result<HostRope<'_>> {
        Ok(HostRope { cos: self.cos.slice()?, sin: self.sin.slice()?, pairs: self.pairs() })
    }

    /// Rotates x [tokens, n_heads, head_dim] f32, whose first token stands at `position`, to a new tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] when head_dim or the positions do not fit the tables.
    pub fn rotate(&self, x: &Tensor, position: usize) -> Result<Tensor> {
        let &[tokens, heads, head_dim] = x.shape() else {
            return Err(Error::shape("rope", format!("{:?}", x.shape()), "[tokens, n_heads, head_dim]"));
        };
        if head_dim != 2 * self.pairs() || position.checked_add(tokens).is_none_or(|end| end > self.positions()) {
            let found = format!("head_dim {head_dim}, {tokens} tokens from position {position}");
            return Err(Error::shape(
                "rope",
                found,
                format!("head_dim {}, positions below {}", 2 * self.pairs(), self.positions()),
            ));
        }
        let tables = self.host()?;
        let mut out = x.to_f32_vec()?;
        for (i, row) in out.chunks_exact_mut(head_dim).enumerate() {
            tables.rotate(row, position + i / heads);
        }
        Tensor::from_slice(&out, x.shape(), &x.device())
    }
}

/// [`Rope`] as the CPU reads it.
#[derive(Clone, Copy)]
pub(crate) struct HostRope<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    pairs: usize,
}

impl<'a> HostRope<'a> {
    /// Cosines and sines of one position.
    pub(crate) fn turns(&self, position: usize) -> (&'a [f32], &'a [f32]) {
        let range = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[range.clone()], &self.sin[range])
    }

    /// Turns one row of head_dim elements to `position`.
    pub(crate) fn rotate(&self, row: &mut [f32], position: usize) {
        let (cos, sin) = self.turns(position);
        let (low, high) = row.split_at_mut(self.pairs);
        for (((x, y), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
        }
    }
}
