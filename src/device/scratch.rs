//! Working memory that operations reuse from call to call.

use bytemuck::Pod;

use super::{Address, Buffer, Device, Purpose};
use crate::Result;

/// A reusable arena. Give the same one to successive calls; it grows to the largest need and is then never
/// allocated again.
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
    /// [`crate::Error::Device`] when the memory is not to be had.
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
    /// [`crate::Error::Device`] when the memory is not to be had.
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        if self.bytes() < bytes {
            self.buffer = None;
            self.buffer = Some(self.device.alloc(bytes)?);
        }
        Ok(())
    }

    /// `len` elements of working memory; their content is whatever the last user left. CPU only.
    pub(crate) fn take<T: Pod>(&mut self, len: usize) -> Result<&mut [T]> {
        self.reserve(len * size_of::<T>())?;
        match self.buffer.as_mut() {
            Some(buffer) => Ok(&mut buffer.host_mut::<T>()?[..len]),
            None => Ok(&mut []),
        }
    }

    /// Where `bytes` of working memory begin, for kernels; their content is whatever the last user left.
    pub(crate) fn address(&mut self, bytes: usize) -> Result<Address> {
        self.reserve(bytes)?;
        Ok(self.buffer.as_ref().map_or(Address::NULL, Buffer::address))
    }

    /// The arena itself, holding at least `bytes`, to copy in and out of.
    pub(crate) fn buffer(&mut self, bytes: usize) -> Result<&mut Buffer> {
        self.reserve(bytes)?;
        if self.buffer.is_none() {
            self.buffer = Some(self.device.alloc(bytes)?);
        }
        self.buffer.as_mut().ok_or_else(|| self.device.unsupported("an empty arena"))
    }
}
