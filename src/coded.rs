//! Rows in the form a cache keeps them: floating-point or integer codes with their scales.

use std::{fmt, str::FromStr};

use half::f16;

use crate::{Device, Dtype, Error, InputError, Result, Tensor, device::simd};

/// How the elements of cached rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit brain floats.
    BF16,
    /// 8-bit codes, one f16 scale a row: x ~ scale * code, code in -127..=127.
    Int8,
    /// 4-bit codes, one f16 scale a row: x ~ scale * code, code in -7..=7.
    Int4,
    /// 4-bit codes, an f16 scale and an f16 offset a row: x ~ scale * code + offset, code in -8..=7.
    Int4Asym,
}

impl Format {
    const NAMES: [(Self, &'static str); 6] = [
        (Self::F32, "f32"),
        (Self::F16, "f16"),
        (Self::BF16, "bf16"),
        (Self::Int8, "int8"),
        (Self::Int4, "int4"),
        (Self::Int4Asym, "int4-asym"),
    ];

    /// Element type of the codes.
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::Int8 => Dtype::I8,
            Self::Int4 | Self::Int4Asym => Dtype::I4,
        }
    }

    /// Whether codes are integers that need a scale.
    pub const fn is_quantized(self) -> bool {
        matches!(self, Self::Int8 | Self::Int4 | Self::Int4Asym)
    }

    /// The floating-point format kept beside this one: of windows, sinks and bases.
    pub const fn companion(self) -> Self {
        match self {
            Self::F32 | Self::BF16 => self,
            _ => Self::F16,
        }
    }

    /// Bytes of one row of `width` elements, scales included.
    pub const fn row_bytes(self, width: usize) -> usize {
        let scales = match self {
            Self::Int8 | Self::Int4 => 2,
            Self::Int4Asym => 4,
            _ => 0,
        };
        self.dtype().bytes_of(width) + scales
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES.iter().find(|(format, _)| format == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found
            .map(|(format, _)| *format)
            .ok_or_else(|| InputError::new("latent", text, "f32, f16, bf16, int8, int4 or int4-asym").into())
    }
}

/// Rows [n_kv_heads, tokens, width] in one [`Format`], with room to grow along tokens.
#[derive(Clone, Debug)]
pub struct Coded {
    format: Format,
    width: usize,
    tokens: usize,
    /// [n_kv_heads, capacity, width], width rounded up to whole bytes.
    codes: Tensor,
    /// f16 [n_kv_heads, capacity], for integer codes.
    scales: Option<Tensor>,
    /// f16 [n_kv_heads, capacity], for asymmetric codes.
    offsets: Option<Tensor>,
}

impl Coded {
    /// No rows yet.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had.
    pub fn new(heads: usize, width: usize, format: Format, device: &Device) -> Result<Self> {
        Self::with_capacity(heads, 0, width, format, device)
    }

    /// No rows yet, and room for `capacity` of them in each head.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had.
    pub fn with_capacity(heads: usize, capacity: usize, width: usize, format: Format, device: &Device) -> Result<Self> {
        let padded = if format.dtype() == Dtype::I4 { width.next_multiple_of(2) } else { width };
        let side = |wanted: bool| wanted.then(|| Tensor::zeros(&[heads, capacity], Dtype::F16, device)).transpose();
        Ok(Self {
            format,
            width,
            tokens: 0,
            codes: Tensor::zeros(&[heads, capacity, padded], format.dtype(), device)?,
            scales: side(format.is_quantized())?,
            offsets: side(format == Format::Int4Asym)?,
        })
    }

    /// A copy on `device`, or the rows themselves when they are there already.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had or a device failed.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let side = |side: &Option<Tensor>| side.as_ref().map(|side| side.to_device(device)).transpose();
        Ok(Self { codes: self.codes.to_device(device)?, scales: side(&self.scales)?, offsets: side(&self.offsets)?, ..*self })
    }

    /// The device that holds the rows.
    pub fn device(&self) -> Device {
        self.codes.device()
    }

    /// How elements are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Heads.
    pub fn heads(&self) -> usize {
        self.codes.shape()[0]
    }

    /// Tokens held.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Elements of a row: the rank of latents, head_dim of dense rows.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes of the rows held: codes and scales.
    pub fn bytes(&self) -> usize {
        self.heads() * self.tokens * self.format.row_bytes(self.width)
    }

    /// Appends rows [n_kv_heads, tokens, width] f32, given as one slice.
    ///
    /// # Errors
    /// [`Error::Shape`] when the slice does not divide into such rows, [`Error::Device`] when the memory is not to be had.
    pub fn push(&mut self, rows: &[f32]) -> Result<()> {
        let per_token = self.heads() * self.width;
        if per_token == 0 || !rows.len().is_multiple_of(per_token) {
            let expected = format!("a multiple of {} heads x {} elements", self.heads(), self.width);
            return Err(Error::shape("Coded::push", format!("{} elements", rows.len()), expected));
        }
        let added = rows.len() / per_token;
        self.reserve(self.tokens + added)?;
        for (head, rows) in rows.chunks_exact((added * self.width).max(1)).enumerate() {
            for (i, row) in rows.chunks_exact(self.width).enumerate() {
                self.set_row(head, self.tokens + i, row)?;
            }
        }
        self.tokens += added;
        Ok(())
    }

    /// Forgets the oldest `count` rows of every head.
    ///
    /// # Errors
    /// [`Error::Shape`] when fewer are held.
    pub fn drop_front(&mut self, count: usize) -> Result<()> {
        if count > self.tokens {
            return Err(Error::shape("Coded::drop_front", format!("{count} rows"), format!("at most {}", self.tokens)));
        }
        let kept = self.tokens - count;
        let capacity = self.capacity();
        let row = self.code_row_bytes();
        shift(self.codes.bytes_mut()?, capacity * row, count * row, kept * row);
        for side in [&mut self.scales, &mut self.offsets].into_iter().flatten() {
            shift(side.bytes_mut()?, capacity * 2, count * 2, kept * 2);
        }
        self.tokens = kept;
        Ok(())
    }

    /// Rows `start..start + count` of every head, [n_kv_heads, count, width] f32.
    ///
    /// # Errors
    /// [`Error::Shape`] when the range leaves the rows held.
    pub fn decode(&self, start: usize, count: usize) -> Result<Vec<f32>> {
        if start.checked_add(count).is_none_or(|end| end > self.tokens) {
            return Err(Error::shape(
                "Coded::decode",
                format!("rows {start}..{start}+{count}"),
                format!("rows below {}", self.tokens),
            ));
        }
        let mut out = vec![0.0; self.heads() * count * self.width];
        if self.width > 0 && count > 0 {
            for (head, rows) in out.chunks_exact_mut(count * self.width).enumerate() {
                self.host(head)?.values(start, rows);
            }
        }
        Ok(out)
    }

    /// One head's rows as the CPU reads them.
    pub(crate) fn host<'a>(&'a self, head: usize) -> Result<HostRows<'a>> {
        let first = head * self.capacity();
        let of_head = |side: &'a Option<Tensor>| -> Result<&'a [f16]> {
            side.as_ref().map_or(Ok(&[][..]), |t| Ok(&t.slice::<f16>()?[first..first + self.tokens]))
        };
        let (scales, offsets) = (of_head(&self.scales)?, of_head(&self.offsets)?);
        let row_bytes = self.code_row_bytes();
        let codes = &self.codes.bytes_ref()?[first * row_bytes..(first + self.tokens) * row_bytes];
        Ok(HostRows { dtype: self.format.dtype(), width: self.width, row_bytes, codes, scales, offsets })
    }

    /// Codes [n_kv_heads, capacity, width].
    pub(crate) fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// Scales f16 [n_kv_heads, capacity], of integer codes.
    pub(crate) fn scales(&self) -> Option<&Tensor> {
        self.scales.as_ref()
    }

    /// Rows that there is room for in each head.
    pub(crate) fn capacity(&self) -> usize {
        self.codes.shape()[1]
    }

    fn code_row_bytes(&self) -> usize {
        self.format.dtype().bytes_of(self.codes.shape()[2])
    }

    /// Doubles the room until `tokens` fit.
    fn reserve(&mut self, tokens: usize) -> Result<()> {
        let old = self.capacity();
        if tokens <= old {
            return Ok(());
        }
        let capacity = tokens.max(2 * old);
        grow(&mut self.codes, capacity)?;
        for side in [&mut self.scales, &mut self.offsets].into_iter().flatten() {
            grow(side, capacity)?;
        }
        Ok(())
    }

    fn set_row(&mut self, head: usize, token: usize, row: &[f32]) -> Result<()> {
        let index = head * self.capacity() + token;
        let bytes = self.code_row_bytes();
        let codes = &mut self.codes.bytes_mut()?[index * bytes..(index + 1) * bytes];
        if !self.format.is_quantized() {
            simd::narrow(self.format.dtype(), row, codes);
            return Ok(());
        }
        let (scale, offset) = quantize(self.format, row, codes);
        for (side, value) in [(&mut self.scales, scale), (&mut self.offsets, offset)] {
            if let Some(side) = side {
                side.slice_mut::<f16>()?[index] = value;
            }
        }
        Ok(())
    }
}

/// Writes the codes of one row; returns its scale and offset, as rounded, so that codes are nearest to what is decoded.
fn quantize(format: Format, row: &[f32], codes: &mut [u8]) -> (f16, f16) {
    let (low, high) = row.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(*x), high.max(*x)));
    let centre = (low + (high - low) * (8.0 / 15.0)).clamp(-65_504.0, 65_504.0);
    let (steps, offset) = match format {
        Format::Int4Asym => (15.0, f16::from_f32(centre)),
        Format::Int8 => (127.0, f16::ZERO),
        _ => (7.0, f16::ZERO),
    };
    let span = if format == Format::Int4Asym { high - low } else { high.max(-low) };
    // A scale past f16 saturates: large values clip instead of turning into NaN.
    let scale = f16::from_f32(span / steps).min(f16::MAX);
    let (inverse, centre) = (if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() }, offset.to_f32());
    let (least, most) = match format {
        Format::Int4Asym => (-8.0, 7.0),
        _ => (-steps, steps),
    };
    let code = |x: f32| ((x - centre) * inverse).round_ties_even().clamp(least, most) as i8;
    if format == Format::Int8 {
        for (to, x) in codes.iter_mut().zip(row) {
            *to = code(*x) as u8;
        }
    } else {
        for (to, pair) in codes.iter_mut().zip(row.chunks(2)) {
            let odd = pair.get(1).map_or(0, |x| code(*x));
            *to = (code(pair[0]) as u8 & 15) | ((odd as u8) << 4);
        }
    }
    (scale, offset)
}

/// Moves each head's kept bytes to its front.
fn shift(bytes: &mut [u8], head_bytes: usize, from: usize, kept: usize) {
    for head in bytes.chunks_exact_mut(head_bytes.max(1)) {
        head.copy_within(from..from + kept, 0);
    }
}

/// Gives `tensor` [n_kv_heads, capacity, ..] a new capacity, keeping its rows.
fn grow(tensor: &mut Tensor, capacity: usize) -> Result<()> {
    let mut shape = tensor.shape().to_vec();
    shape[1] = capacity;
    let mut grown = Tensor::zeros(&shape, tensor.dtype(), &tensor.home())?;
    let heads = shape[0].max(1);
    let (old, new) = (tensor.bytes() / heads, grown.bytes() / heads);
    if old > 0 {
        for (to, from) in grown.bytes_mut()?.chunks_exact_mut(new).zip(tensor.bytes_ref()?.chunks_exact(old)) {
            to[..old].copy_from_slice(from);
        }
    }
    *tensor = grown;
    Ok(())
}

/// One head's rows of a [`Coded`] in host memory.
#[derive(Clone, Copy)]
pub(crate) struct HostRows<'a> {
    dtype: Dtype,
    width: usize,
    row_bytes: usize,
    codes: &'a [u8],
    scales: &'a [f16],
    offsets: &'a [f16],
}

impl HostRows<'_> {
    /// The codes of rows from `start`, widened but not scaled; `out` is [count, width].
    pub(crate) fn codes(&self, start: usize, out: &mut [f32]) {
        let count = out.len() / self.width.max(1);
        let bytes = &self.codes[start * self.row_bytes..(start + count) * self.row_bytes];
        if self.dtype.bytes_of(self.width) * 8 == self.width * self.dtype.bits() {
            simd::widen(self.dtype, bytes, out);
            return;
        }
        for (row, out) in bytes.chunks_exact(self.row_bytes).zip(out.chunks_exact_mut(self.width)) {
            simd::widen(self.dtype, row, out);
        }
    }

    /// The scales of rows from `start`; 1 where rows have none.
    pub(crate) fn scales(&self, start: usize, out: &mut [f32]) {
        widen_side(self.scales, start, 1.0, out);
    }

    /// What is added to every element of rows from `start` after scaling; 0 where rows have none.
    pub(crate) fn offsets(&self, start: usize, out: &mut [f32]) {
        widen_side(self.offsets, start, 0.0, out);
    }

    /// Whether rows have scales (or offsets) to apply.
    pub(crate) fn is_scaled(&self) -> bool {
        !self.scales.is_empty()
    }

    /// The values of rows from `start`; `out` is [count, width].
    pub(crate) fn values(&self, start: usize, out: &mut [f32]) {
        self.codes(start, out);
        if !self.is_scaled() {
            return;
        }
        let count = out.len() / self.width;
        let (mut scales, mut offsets) = (vec![0.0; count], vec![0.0; count]);
        self.scales(start, &mut scales);
        self.offsets(start, &mut offsets);
        for ((row, scale), offset) in out.chunks_exact_mut(self.width).zip(&scales).zip(&offsets) {
            row.iter_mut().for_each(|x| *x = *x * scale + offset);
        }
    }
}

fn widen_side(side: &[f16], start: usize, absent: f32, out: &mut [f32]) {
    match side.get(start..start + out.len()) {
        Some(side) => simd::widen(Dtype::F16, bytemuck::cast_slice(side), out),
        None => out.fill(absent),
    }
}
