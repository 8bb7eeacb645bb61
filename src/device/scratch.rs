//! Working memory that operations reuse from call to call.

use bytemuck::Pod;

use super::{Address, Buffer, Device, Purpose};
use crate::{Error, Result};

/// A reusable arena. Give the same one to successive calls; it grows to the largest need and is then never
/// allocated again. An operation that makes it grow allocates on its own stream.
#[derive(Debug)]
pub struct Scratch {
    device: Device,
    buffer: Option<Buffer>,
}

impl Scratch {
    /// An empty arena on `device`; the first call that needs memory allocates it.
    pub fn new(device: &Device) -> Self {
        Self { device: device.accounting(Purpose::Scratch), buffer: None }
    }

    /// An arena that already holds `bytes`, so that calls needing no more than that allocate nothing.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had.
    pub fn with_bytes(device: &Device, bytes: usize) -> Result<Self> {
        let mut scratch = Self::new(device);
        scratch.reserve(bytes)?;
        Ok(scratch)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, Buffer::bytes)
    }

    /// Makes room for `bytes`; what was in the arena before is lost when it grows.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had.
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        if self.bytes() < bytes { self.allocate(&self.device.clone(), bytes) } else { Ok(()) }
    }

    /// `len` elements of working memory; their content is whatever the last user left. CPU only.
    pub(crate) fn take<T: Pod>(&mut self, len: usize) -> Result<&mut [T]> {
        self.reserve(len * size_of::<T>())?;
        match self.buffer.as_mut() {
            Some(buffer) => Ok(&mut buffer.host_mut::<T>()?[..len]),
            None => Ok(&mut []),
        }
    }

    /// Where `bytes` of working memory begin, for kernels on the stream of `device`; their content is whatever the last
    /// user left.
    ///
    /// # Errors
    /// [`Error::Device`] when the arena is of another device, or the memory is not to be had.
    pub(crate) fn address(&mut self, device: &Device, bytes: usize) -> Result<Address> {
        Ok(self.buffer(device, bytes)?.address())
    }

    /// The arena itself, holding at least `bytes`, to copy in and out of on the stream of `device`.
    ///
    /// # Errors
    /// As [`Scratch::address`].
    pub(crate) fn buffer(&mut self, device: &Device, bytes: usize) -> Result<&mut Buffer> {
        if self.device != *device {
            let found = format!("scratch on {} for an operation on {device}", self.device);
            return Err(Error::device(found, format!("make it with Scratch::new on {device}")));
        }
        if self.buffer.is_none() || self.bytes() < bytes {
            self.allocate(device, bytes)?;
        }
        self.buffer.as_mut().ok_or_else(|| device.unsupported("an empty arena"))
    }

    /// Replaces the memory by `bytes` that are zero to work that follows on the stream of `device`.
    fn allocate(&mut self, device: &Device, bytes: usize) -> Result<()> {
        self.buffer = None;
        self.buffer = Some(device.accounting(Purpose::Scratch).alloc(bytes)?);
        Ok(())
    }
}
