//! One layer of a cache: sinks, segments and window of its keys and values.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

use super::{Basis, BasisKind, CacheBytes, Layout, Mode, Spec, bases::hadamard};
use crate::{
    Device, Dtype, Error, InputError, Purpose, Result, Tensor,
    attention::{Decoder, Part, Side},
    coded::{Coded, Format},
    device::simd,
    svd,
};

/// How one side of a layer is sealed.
#[derive(Clone, Debug)]
pub(super) struct SideForm {
    source: Source,
    rank: usize,
    latent: Format,
    /// Storage of dense rows and online bases.
    dense: Format,
}

#[derive(Clone, Debug)]
enum Source {
    Identity,
    Online,
    Calibrated(Box<Basis>),
}

impl SideForm {
    pub(super) fn new(spec: &Spec, compressed: bool, rank: usize, basis: Option<&Basis>) -> Result<Self> {
        let source = match (compressed, spec.basis, basis) {
            (false, ..) | (_, BasisKind::Identity, _) => Source::Identity,
            (_, BasisKind::Online, _) => Source::Online,
            (_, BasisKind::Calibrated, Some(basis)) => Source::Calibrated(Box::new(basis.clone())),
            (_, BasisKind::Calibrated, None) => {
                return Err(InputError::new("kv basis", "none for a compressed side", "a basis for each layer").into());
            }
        };
        let latent = if compressed { spec.latent } else { spec.dense };
        Ok(Self { source, rank, latent, dense: spec.dense })
    }
}

/// Sealed tokens that share a basis.
#[derive(Debug)]
struct Segment {
    rows: Coded,
    decoder: Option<Decoder>,
}

impl Segment {
    fn side(&self) -> Side<'_> {
        Side { rows: &self.rows, decoder: self.decoder.as_ref() }
    }
}

/// The keys or the values of a layer.
#[derive(Debug)]
struct SideCache {
    form: SideForm,
    sinks: Coded,
    segments: Vec<Segment>,
    window: Coded,
    device: Device,
    heads: usize,
    head_dim: usize,
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(super) struct LayerCache {
    keys: SideCache,
    values: SideCache,
    /// Whether all sealed tokens form one segment: neither side has a basis of its own for each block.
    merged: bool,
}

impl LayerCache {
    pub(super) fn new(layout: &Layout, spec: &Spec, keys: SideForm, values: SideForm, device: &Device) -> Result<Self> {
        let merged = !matches!(keys.source, Source::Online) && !matches!(values.source, Source::Online);
        let side = |form| SideCache::new(layout, spec, form, device);
        Ok(Self { keys: side(keys)?, values: side(values)?, merged })
    }

    pub(super) fn tokens(&self) -> usize {
        self.values.sinks.tokens() + self.values.sealed_tokens() + self.values.window.tokens()
    }

    /// Tokens that fit before a block is due.
    pub(super) fn until_seal(&self, spec: &Spec) -> usize {
        if spec.mode == Mode::Whole {
            return usize::MAX;
        }
        let sinks = spec.sinks.saturating_sub(self.values.sinks.tokens());
        let window = spec.window.saturating_add(spec.block).saturating_sub(self.values.window.tokens());
        window.saturating_add(sinks)
    }

    /// Appends rows [heads, tokens, head_dim].
    pub(super) fn append(&mut self, spec: &Spec, keys: &[f32], values: &[f32], tokens: usize) -> Result<()> {
        if spec.mode == Mode::Whole {
            self.keys.seal(keys, tokens, self.merged).map_err(|error| of_side(error, "keys"))?;
            return self.values.seal(values, tokens, self.merged).map_err(|error| of_side(error, "values"));
        }
        self.keys.append(spec.sinks, keys, tokens)?;
        self.values.append(spec.sinks, values, tokens)
    }

    /// Seals the oldest blocks of a window that is full.
    pub(super) fn seal_due(&mut self, spec: &Spec) -> Result<()> {
        while spec.mode == Mode::Stream && self.values.window.tokens() >= spec.window.saturating_add(spec.block) {
            self.keys.seal_oldest(spec.block, self.merged).map_err(|error| of_side(error, "keys"))?;
            self.values.seal_oldest(spec.block, self.merged).map_err(|error| of_side(error, "values"))?;
            tracing::debug!(block = spec.block, sealed = self.values.sealed_tokens(), "sealed a block of a layer");
        }
        Ok(())
    }

    /// The parts in token order; keys and values are cut alike.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let whole = |rows| Side { rows, decoder: None };
        let sinks = Part { keys: whole(&self.keys.sinks), values: whole(&self.values.sinks) };
        let window = Part { keys: whole(&self.keys.window), values: whole(&self.values.window) };
        let sealed = self.keys.segments.iter().zip(&self.values.segments);
        let sealed = sealed.map(|(keys, values)| Part { keys: keys.side(), values: values.side() });
        std::iter::once(sinks).chain(sealed).chain(std::iter::once(window)).filter(|part| part.keys.rows.tokens() > 0)
    }

    pub(super) fn add_bytes(&self, bytes: &mut CacheBytes) {
        for side in [&self.keys, &self.values] {
            bytes.dense += side.sinks.bytes() + side.window.bytes();
            for segment in &side.segments {
                bytes.sealed += segment.rows.bytes();
                if let (Source::Online, Some(decoder)) = (&side.form.source, &segment.decoder) {
                    bytes.online_bases += decoder.matrix.bytes();
                }
            }
        }
    }
}

impl SideCache {
    fn new(layout: &Layout, spec: &Spec, form: SideForm, device: &Device) -> Result<Self> {
        let (heads, head_dim) = (layout.n_kv_heads, layout.head_dim);
        if let Source::Calibrated(basis) = &form.source {
            basis.check(heads, head_dim, form.rank)?;
        }
        let window = if spec.is_dense() || spec.mode == Mode::Whole {
            0
        } else {
            spec.window.saturating_add(spec.block).min(layout.max_tokens)
        };
        Ok(Self {
            sinks: Coded::with_capacity(heads, spec.sinks.min(window), head_dim, form.dense, device)?,
            window: Coded::with_capacity(heads, window, head_dim, form.dense, device)?,
            segments: Vec::new(),
            device: device.clone(),
            form,
            heads,
            head_dim,
        })
    }

    fn sealed_tokens(&self) -> usize {
        self.segments.iter().map(|segment| segment.rows.tokens()).sum()
    }

    fn append(&mut self, sinks: usize, rows: &[f32], tokens: usize) -> Result<()> {
        let to_sinks = sinks.saturating_sub(self.sinks.tokens()).min(tokens);
        if to_sinks > 0 {
            let width = self.head_dim;
            let part = |from: usize, to: usize| {
                rows.chunks_exact(tokens * width).flat_map(move |head| head[from * width..to * width].iter().copied())
            };
            self.sinks.push(&part(0, to_sinks).collect::<Vec<_>>())?;
            return self.window.push(&part(to_sinks, tokens).collect::<Vec<_>>());
        }
        self.window.push(rows)
    }

    fn seal_oldest(&mut self, block: usize, merged: bool) -> Result<()> {
        let rows = self.window.decode(0, block)?;
        self.seal(&rows, block, merged)?;
        self.window.drop_front(block)
    }

    /// Encodes rows [heads, tokens, head_dim] into a segment.
    fn seal(&mut self, rows: &[f32], tokens: usize, merged: bool) -> Result<()> {
        if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
            let (head, token) = (at / (tokens * self.head_dim), at / self.head_dim % tokens);
            let what = format!("head {head}, row {token} of the block to be sealed is not finite");
            return Err(Error::Numeric { op: "KvCache", what });
        }
        if merged && let Some(segment) = self.segments.first_mut() {
            return segment.rows.push(&self.form.latents(rows, [self.heads, tokens, self.head_dim], &self.device)?.0);
        }
        let (latents, decoder) = self.form.latents(rows, [self.heads, tokens, self.head_dim], &self.device)?;
        let mut rows = Coded::with_capacity(self.heads, tokens, self.form.rank, self.form.latent, &self.device)?;
        rows.push(&latents)?;
        let decoder = decoder.map(|decoder| decoder.stored(self.form.dense, &self.device)).transpose()?;
        self.segments.push(Segment { rows, decoder });
        Ok(())
    }
}

/// A decoder as it comes out of encoding: shared already, or found just now and still f32.
enum NewDecoder {
    Fixed(Decoder),
    Online { matrix: Vec<f32>, shape: [usize; 3] },
}

impl NewDecoder {
    fn stored(self, format: Format, device: &Device) -> Result<Decoder> {
        match self {
            Self::Fixed(decoder) => Ok(decoder),
            Self::Online { matrix, shape } => {
                let mut stored = Tensor::zeros(&shape, format.dtype(), device)?;
                simd::narrow(format.dtype(), &matrix, stored.bytes_mut()?);
                Ok(Decoder { matrix: stored, mean: None })
            }
        }
    }
}

impl SideForm {
    /// Latents [heads, tokens, rank] of rows [heads, tokens, head_dim], and what decodes them.
    fn latents(&self, rows: &[f32], shape: [usize; 3], device: &Device) -> Result<(Vec<f32>, Option<NewDecoder>)> {
        let [heads, tokens, head_dim] = shape;
        match &self.source {
            Source::Identity => Ok((rows.to_vec(), None)),
            Source::Online => {
                let mut basis = self.online_basis(rows, shape, device)?;
                // Calibrated bases carry this rotation from the start.
                if self.latent.dtype() == Dtype::I4 {
                    hadamard(&mut basis, self.rank);
                }
                let latents = encode(rows, &basis, None, [heads, tokens, head_dim, self.rank]);
                Ok((latents, Some(NewDecoder::Online { matrix: basis, shape: [heads, head_dim, self.rank] })))
            }
            Source::Calibrated(basis) => {
                let mean = basis.decoder.mean.as_ref().map(Tensor::to_f32_vec).transpose()?;
                let encoder = basis.encoder.slice::<f32>()?;
                let latents = encode(rows, encoder, mean.as_deref(), [heads, tokens, head_dim, self.rank]);
                Ok((latents, Some(NewDecoder::Fixed(basis.decoder.clone()))))
            }
        }
    }

    /// The leading right singular vectors of each head's rows, [heads, head_dim, rank]; a block of fewer tokens than the
    /// rank leaves the last columns zero.
    fn online_basis(&self, rows: &[f32], shape: [usize; 3], device: &Device) -> Result<Vec<f32>> {
        let [heads, tokens, head_dim] = shape;
        let found = self.rank.min(tokens);
        let rows = Tensor::from_slice(rows, &shape, &device.accounting(Purpose::Activations))?;
        let v = svd::truncated(&rows, svd::Rank::Fixed(found), &svd::Options::default())?.v.to_f32_vec()?;
        let mut basis = vec![0.0; heads * head_dim * self.rank];
        for (to, from) in basis.chunks_exact_mut(self.rank).zip(v.chunks_exact(found)) {
            to[..found].copy_from_slice(from);
        }
        Ok(basis)
    }
}

/// (rows - mean) E for each head; `shape` is [heads, tokens, head_dim, rank].
fn encode(rows: &[f32], encoder: &[f32], mean: Option<&[f32]>, [heads, tokens, head_dim, rank]: [usize; 4]) -> Vec<f32> {
    let mut latents = vec![0.0; heads * tokens * rank];
    for (head, latents) in latents.chunks_exact_mut((tokens * rank).max(1)).enumerate() {
        let mut rows = rows[head * tokens * head_dim..(head + 1) * tokens * head_dim].to_vec();
        if let Some(mean) = mean {
            let mean = &mean[head * head_dim..(head + 1) * head_dim];
            rows.chunks_exact_mut(head_dim).for_each(|row| simd::axpy(-1.0, mean, row));
        }
        let encoder = &encoder[head * head_dim * rank..(head + 1) * head_dim * rank];
        let rows = MatRef::from_row_major_slice(&rows, tokens, head_dim);
        let encoder = MatRef::from_row_major_slice(encoder, head_dim, rank);
        matmul(MatMut::from_row_major_slice_mut(latents, tokens, rank), Accum::Replace, rows, encoder, 1.0, Par::Seq);
    }
    latents
}

fn of_side(error: Error, side: &str) -> Error {
    match error {
        Error::Numeric { op, what } => Error::Numeric { op, what: format!("{side}, {what}") },
        other => other,
    }
}
