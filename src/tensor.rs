//! Tensors: a shared buffer, a dtype, a shape and element strides.
//!
//! Views (`narrow`, `select`, `transpose`, `reshape` of a contiguous tensor) share the buffer. Only the sole owner
//! of a buffer may write to it.

use std::{fmt, sync::Arc};

pub use crate::device::{Dtype, Element};
use crate::{
    Device, Error, Result,
    device::{Address, Buffer, Kind, simd},
};

/// An n-dimensional array on a device.
#[derive(Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    dtype: Dtype,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
}

impl Tensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] when the element count wraps, [`Error::Device`] when the memory is not to be had.
    pub fn zeros(shape: &[usize], dtype: Dtype, device: &Device) -> Result<Self> {
        let bits = shape.iter().try_fold(dtype.bits(), |n, d| n.checked_mul(*d));
        let bits = bits.ok_or_else(|| Error::shape("Tensor::zeros", format!("{shape:?}"), "fewer than 2^64 bits"))?;
        let buffer = device.alloc(bits.div_ceil(8))?;
        Ok(Self { buffer: Arc::new(buffer), dtype, shape: shape.to_vec(), strides: contiguous_strides(shape), offset: 0 })
    }

    /// A tensor holding a copy of `data` in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] when `data` does not fill `shape`, [`Error::Device`] when the memory is not to be had.
    pub fn from_slice<T: Element>(data: &[T], shape: &[usize], device: &Device) -> Result<Self> {
        let mut tensor = Self::zeros(shape, T::DTYPE, device)?;
        if tensor.len() != data.len() {
            return Err(Error::shape("Tensor::from_slice", format!("{} elements", data.len()), format!("shape {shape:?}")));
        }
        tensor.write(data)?;
        Ok(tensor)
    }

    /// Memory that is not ours, such as another library's tensor, as a tensor; `owner` is dropped once the last view is.
    ///
    /// # Safety
    /// `address` must be memory of `device` that holds initialised elements of `dtype` wherever shape and strides (in
    /// elements) lead, aligned to them, neither freed nor written by others before `owner` is dropped. Writing to the tensor
    /// writes to that memory.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is not one stride an axis, or the extent wraps.
    pub unsafe fn from_external(
        address: Address,
        dtype: Dtype,
        shape: &[usize],
        strides: &[usize],
        device: &Device,
        owner: Box<dyn std::any::Any + Send + Sync>,
    ) -> Result<Self> {
        let elements = span(shape, strides).and_then(|n| n.checked_mul(dtype.bits()));
        let bits = elements.ok_or_else(|| {
            let found = format!("{shape:?} with strides {strides:?}");
            Error::shape("Tensor::from_external", found, "one stride an axis, and fewer than 2^64 bits")
        })?;
        // SAFETY: the caller answers for every byte that shape and strides lead to.
        let buffer = unsafe { Buffer::external(device, address, bits.div_ceil(8), owner) };
        Ok(Self { buffer: Arc::new(buffer), dtype, shape: shape.to_vec(), strides: strides.to_vec(), offset: 0 })
    }

    /// Overwrites all elements with `data`, in row-major order, after the work given to the device before.
    ///
    /// # Errors
    /// As [`Tensor::slice_mut`] but for the device; [`Error::Shape`] as well when the counts differ.
    pub fn write<T: Element>(&mut self, data: &[T]) -> Result<()> {
        const OP: &str = "Tensor::write";
        self.expect_dtype(OP, T::DTYPE)?;
        self.expect_contiguous(OP)?;
        if self.len() != data.len() {
            return Err(Error::shape(OP, format!("{} elements", data.len()), format!("shape {:?}", self.shape)));
        }
        let start = self.dtype.bytes_of(self.offset);
        self.unique(OP)?.write(start, bytemuck::cast_slice(data))
    }

    /// All elements in row-major order, copied to the host; waits for the work given to the device before.
    ///
    /// # Errors
    /// [`Error::Dtype`] when `T` is not the tensor's; [`Error::Device`] when the device failed.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.expect_dtype("Tensor::to_vec", T::DTYPE)?;
        Ok(self.to_device(&Device::cpu())?.slice()?.to_vec())
    }

    /// A contiguous copy on `device`, or the tensor itself when it is there and contiguous. Between two devices the elements
    /// pass through the host.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had or a device failed.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if self.device() == *device && self.is_contiguous() {
            return Ok(self.clone());
        }
        let host = self.on_host()?.contiguous()?;
        if device.kind() == Kind::Cpu {
            return Ok(host);
        }
        let mut copy = Self::zeros(&self.shape, self.dtype, device)?;
        copy.unique("Tensor::to_device")?.write(0, host.bytes_ref()?)?;
        Ok(copy)
    }

    /// The same view of host memory: of the tensor's own on the CPU, else of a copy of what the view spans.
    fn on_host(&self) -> Result<Self> {
        if self.buffer.device().kind() == Kind::Cpu {
            return Ok(self.clone());
        }
        let elements = span(&self.shape, &self.strides).unwrap_or(0);
        let mut buffer = Device::cpu().alloc(self.dtype.bytes_of(elements))?;
        self.buffer.read(self.dtype.bytes_of(self.offset), buffer.host_mut()?)?;
        Ok(Self { buffer: Arc::new(buffer), offset: 0, ..self.clone() })
    }

    /// Where the first element is. A graph being captured keeps the memory from here on.
    pub fn address(&self) -> Address {
        self.buffer.address().offset(self.dtype.bytes_of(self.offset))
    }

    /// As [`Tensor::address`], for a kernel to write to.
    ///
    /// # Errors
    /// [`Error::Shape`] when the buffer is shared or the elements have gaps.
    pub(crate) fn address_mut(&mut self, op: &'static str) -> Result<Address> {
        self.expect_contiguous(op)?;
        self.unique(op)?;
        Ok(self.address())
    }

    /// Elements in all.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether another tensor shares the memory, so that neither may be written.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.buffer) > 1
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Extent of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distance between neighbours along each axis, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Bytes that the elements of this view take, padding between rows left out.
    pub fn bytes(&self) -> usize {
        self.dtype.bytes_of(self.len())
    }

    /// The device that holds the tensor; memory allocated through it counts as activations.
    pub fn device(&self) -> Device {
        self.buffer.device().accounting(crate::Purpose::Activations)
    }

    /// The device that holds the tensor; memory allocated through it counts as this tensor's does.
    pub(crate) fn home(&self) -> Device {
        self.buffer.device().clone()
    }

    /// Whether elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let expected = contiguous_strides(&self.shape);
        self.is_empty() || (0..self.shape.len()).all(|i| self.shape[i] == 1 || self.strides[i] == expected[i])
    }

    /// The part of `axis` from `start`, `len` long, sharing the buffer.
    ///
    /// # Errors
    /// [`Error::Shape`] when the range leaves the axis, or splits a byte of an int4 tensor.
    pub fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Self> {
        let extent = self.extent("Tensor::narrow", axis)?;
        if start.checked_add(len).is_none_or(|end| end > extent) {
            let found = format!("{start}..{start}+{len} of axis {axis} of {:?}", self.shape);
            return Err(Error::shape("Tensor::narrow", found, format!("a range within 0..{extent}")));
        }
        let mut view = self.clone();
        view.offset += start * self.strides[axis];
        view.shape[axis] = len;
        view.whole_bytes("Tensor::narrow")
    }

    /// The slice of `axis` at `index`, without that axis, sharing the buffer.
    ///
    /// # Errors
    /// [`Error::Shape`] when the index leaves the axis, or splits a byte of an int4 tensor.
    pub fn select(&self, axis: usize, index: usize) -> Result<Self> {
        let mut view = self.narrow(axis, index, 1)?;
        view.shape.remove(axis);
        view.strides.remove(axis);
        Ok(view)
    }

    /// The tensor with two axes exchanged, sharing the buffer.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is no such axis; int4 tensors keep their last axis.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        self.extent("Tensor::transpose", a.max(b))?;
        let mut view = self.clone();
        view.shape.swap(a, b);
        view.strides.swap(a, b);
        view.whole_bytes("Tensor::transpose")
    }

    /// The same elements under another shape, sharing the buffer.
    ///
    /// # Errors
    /// [`Error::Shape`] when the counts differ or the tensor is not contiguous.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let same = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) == Some(self.len());
        if !same || !self.is_contiguous() {
            let found = format!("{:?} with strides {:?} as {shape:?}", self.shape, self.strides);
            return Err(Error::shape("Tensor::reshape", found, "a contiguous tensor and as many elements"));
        }
        let mut view = self.clone();
        view.shape = shape.to_vec();
        view.strides = contiguous_strides(shape);
        Ok(view)
    }

    /// The elements in row-major order: the tensor itself when it is contiguous, else a copy.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had.
    pub fn contiguous(&self) -> Result<Self> {
        if self.is_contiguous() {
            return Ok(self.clone());
        }
        if !self.rows_are_dense() {
            return self.gathered();
        }
        let mut copy = Self::zeros(&self.shape, self.dtype, &self.device())?;
        let width = self.row_bytes();
        let rows: Vec<&[u8]> = self.rows()?.collect();
        for (to, from) in copy.bytes_mut()?.chunks_exact_mut(width.max(1)).zip(rows) {
            to.copy_from_slice(from);
        }
        Ok(copy)
    }

    /// The elements as a slice. CPU tensors only; [`Tensor::to_vec`] serves every device.
    ///
    /// # Errors
    /// [`Error::Dtype`] when `T` is not the tensor's, [`Error::Shape`] when it is not contiguous, [`Error::Device`] when it is
    /// not in host memory.
    pub fn slice<T: Element>(&self) -> Result<&[T]> {
        self.expect_dtype("Tensor::slice", T::DTYPE)?;
        self.expect_contiguous("Tensor::slice")?;
        Ok(&self.buffer.host::<T>()?[self.offset..self.offset + self.len()])
    }

    /// The elements as a mutable slice. CPU tensors only.
    ///
    /// # Errors
    /// As [`Tensor::slice`]; [`Error::Shape`] as well when another tensor shares the buffer.
    pub fn slice_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        self.expect_dtype("Tensor::slice_mut", T::DTYPE)?;
        self.expect_contiguous("Tensor::slice_mut")?;
        let range = self.offset..self.offset + self.len();
        Ok(&mut self.unique("Tensor::slice_mut")?.host_mut::<T>()?[range])
    }

    /// All elements widened to f32, in row-major order, copied to the host. Not for int4.
    ///
    /// # Errors
    /// [`Error::Dtype`] for int4, whose codes mean nothing without scales.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        if self.dtype == Dtype::I4 {
            return Err(Error::Dtype {
                op: "Tensor::to_f32_vec",
                found: self.dtype,
                expected: &[Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I8],
            });
        }
        let width = self.shape.last().copied().unwrap_or(1);
        let mut out = vec![0.0; self.len()];
        let host = self.on_host()?;
        let view = if host.rows_are_dense() { host } else { host.gathered()? };
        for (to, from) in out.chunks_exact_mut(width.max(1)).zip(view.rows()?) {
            simd::widen(self.dtype, from, to);
        }
        Ok(out)
    }

    /// A copy in another floating-point dtype, rounded to nearest even. CPU tensors only.
    ///
    /// # Errors
    /// [`Error::Dtype`] unless both dtypes are floating-point.
    pub fn to_dtype(&self, dtype: Dtype) -> Result<Self> {
        const FLOATS: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];
        for found in [self.dtype, dtype] {
            if !FLOATS.contains(&found) {
                return Err(Error::Dtype { op: "Tensor::to_dtype", found, expected: FLOATS });
            }
        }
        let wide = self.to_f32_vec()?;
        let mut out = Self::zeros(&self.shape, dtype, &self.device())?;
        simd::narrow(dtype, &wide, out.bytes_mut()?);
        Ok(out)
    }

    /// The rows along the last axis as raw bytes, in row-major order of the other axes. CPU tensors only.
    ///
    /// # Errors
    /// [`Error::Shape`] when the elements of a row do not lie side by side.
    pub(crate) fn rows(&self) -> Result<impl Iterator<Item = &[u8]>> {
        if !self.rows_are_dense() {
            let found = format!("{:?} with strides {:?}", self.shape, self.strides);
            return Err(Error::shape("Tensor::rows", found, "a last axis with stride 1"));
        }
        let width = self.row_bytes();
        let memory = self.buffer.host::<u8>()?;
        let outer = self.shape.len().saturating_sub(1);
        let count = if width == 0 { 0 } else { self.shape[..outer].iter().product() };
        Ok((0..count).map(move |row| {
            let start = self.dtype.bytes_of(self.offset_of_row(row));
            &memory[start..start + width]
        }))
    }

    /// The whole tensor as raw bytes. CPU tensors only.
    pub(crate) fn bytes_ref(&self) -> Result<&[u8]> {
        self.expect_contiguous("Tensor::bytes_ref")?;
        let start = self.dtype.bytes_of(self.offset);
        Ok(&self.buffer.host::<u8>()?[start..start + self.bytes()])
    }

    /// The whole tensor as raw bytes, writable by its sole owner. CPU tensors only.
    pub(crate) fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        self.expect_contiguous("Tensor::bytes_mut")?;
        let start = self.dtype.bytes_of(self.offset);
        let range = start..start + self.bytes();
        Ok(&mut self.unique("Tensor::bytes_mut")?.host_mut::<u8>()?[range])
    }

    fn row_bytes(&self) -> usize {
        self.dtype.bytes_of(self.shape.last().copied().unwrap_or(1))
    }

    fn rows_are_dense(&self) -> bool {
        self.shape.last().is_none_or(|n| *n <= 1) || self.strides.last() == Some(&1)
    }

    fn offset_of_row(&self, mut row: usize) -> usize {
        let mut offset = self.offset;
        for axis in (0..self.shape.len().saturating_sub(1)).rev() {
            offset += row % self.shape[axis] * self.strides[axis];
            row /= self.shape[axis];
        }
        offset
    }

    /// A row-major copy made element by element, for views whose last axis is strided.
    fn gathered(&self) -> Result<Self> {
        let size = self.dtype.bits() / 8;
        let mut copy = Self::zeros(&self.shape, self.dtype, &self.device())?;
        let memory = self.buffer.host::<u8>()?;
        let (width, stride) = (self.shape[self.shape.len() - 1], self.strides[self.shape.len() - 1]);
        for (i, to) in copy.bytes_mut()?.chunks_exact_mut(size).enumerate() {
            let start = (self.offset_of_row(i / width) + i % width * stride) * size;
            to.copy_from_slice(&memory[start..start + size]);
        }
        Ok(copy)
    }

    /// Moves the tensor to memory of its own when another shares it.
    ///
    /// # Errors
    /// [`Error::Shape`] when the elements have gaps, [`Error::Device`] when the memory is not to be had.
    pub(crate) fn unshare(&mut self, op: &'static str) -> Result<()> {
        self.expect_contiguous(op)?;
        if self.is_shared() {
            let mut copy = Self::zeros(&self.shape, self.dtype, &self.device())?;
            copy.unique(op)?.copy_from(0, &self.buffer, self.dtype.bytes_of(self.offset), self.bytes())?;
            *self = copy;
        }
        Ok(())
    }

    fn unique(&mut self, op: &'static str) -> Result<&mut Buffer> {
        let shape = &self.shape;
        Arc::get_mut(&mut self.buffer)
            .ok_or_else(|| Error::shape(op, format!("{shape:?} whose buffer another tensor shares"), "a sole owner"))
    }

    fn extent(&self, op: &'static str, axis: usize) -> Result<usize> {
        self.shape
            .get(axis)
            .copied()
            .ok_or_else(|| Error::shape(op, format!("axis {axis} of {:?}", self.shape), "an axis that exists"))
    }

    fn expect_dtype(&self, op: &'static str, dtype: Dtype) -> Result<()> {
        if self.dtype == dtype {
            return Ok(());
        }
        Err(Error::Dtype { op, found: dtype, expected: dtype_list(self.dtype) })
    }

    fn expect_contiguous(&self, op: &'static str) -> Result<()> {
        if self.is_contiguous() {
            return Ok(());
        }
        Err(Error::shape(op, format!("{:?} with strides {:?}", self.shape, self.strides), "a contiguous tensor"))
    }

    fn whole_bytes(self, op: &'static str) -> Result<Self> {
        if self.dtype != Dtype::I4 || self.is_empty() {
            return Ok(self);
        }
        let even = self.offset.is_multiple_of(2) && self.strides.iter().rev().skip(1).all(|s| s.is_multiple_of(2));
        if even && self.strides.last().is_none_or(|s| *s == 1) {
            return Ok(self);
        }
        Err(Error::shape(
            op,
            format!("int4 {:?} with strides {:?} at {}", self.shape, self.strides, self.offset),
            "rows that start on whole bytes",
        ))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?}, {:?})", self.dtype, self.shape, self.buffer)
    }
}

fn dtype_list(dtype: Dtype) -> &'static [Dtype] {
    match dtype {
        Dtype::F32 => &[Dtype::F32],
        Dtype::F16 => &[Dtype::F16],
        Dtype::BF16 => &[Dtype::BF16],
        Dtype::I8 => &[Dtype::I8],
        Dtype::I4 => &[Dtype::I4],
    }
}

/// Elements from the first to the last of a view, both counted; `None` when that wraps or axes and strides differ.
fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.len() != strides.len() {
        return None;
    }
    if shape.contains(&0) {
        return Some(0);
    }
    let steps = shape.iter().zip(strides).map(|(extent, stride)| (extent - 1).checked_mul(*stride));
    steps.into_iter().try_fold(1usize, |sum, step| sum.checked_add(step?))
}

fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
    }
    strides
}
