//! An owned, accounted piece of a device's memory.

use std::{any::Any, fmt, sync::Arc};

use bytemuck::Pod;

use super::{Address, Device, Kind, Purpose, backend::ALIGNMENT};
use crate::{Error, Result};

/// Memory of one device; given back, and taken off the device's account, when dropped.
pub struct Buffer {
    allocation: Arc<Allocation>,
}

/// What a [`Buffer`] holds, and what a captured graph keeps alive.
pub(super) struct Allocation {
    address: u64,
    bytes: usize,
    device: Device,
    /// The owner of memory that is not ours.
    owner: Option<Box<dyn Any + Send + Sync>>,
}

impl Buffer {
    pub(super) fn zeroed(device: &Device, bytes: usize) -> Result<Self> {
        // An empty buffer has an aligned address that is never followed.
        let address = if bytes == 0 { ALIGNMENT as u64 } else { device.allocate(bytes)? };
        device.account().add(device.purpose(), bytes);
        Ok(Self { allocation: Arc::new(Allocation { address, bytes, device: device.clone(), owner: None }) })
    }

    /// Memory of someone else, who is dropped when this buffer is. It is on nobody's account.
    ///
    /// # Safety
    /// `address` must be memory of `device`, `bytes` long, initialised, aligned to the elements it will hold, neither
    /// freed nor written by others before `owner` is dropped.
    pub unsafe fn external(device: &Device, address: Address, bytes: usize, owner: Box<dyn Any + Send + Sync>) -> Self {
        let device = device.clone();
        Self { allocation: Arc::new(Allocation { address: address.get(), bytes, device, owner: Some(owner) }) }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.allocation.bytes
    }

    /// The device that holds the memory.
    pub fn device(&self) -> &Device {
        &self.allocation.device
    }

    /// What the memory is accounted as.
    pub fn purpose(&self) -> Purpose {
        self.device().purpose()
    }

    /// Where the memory begins. A graph being captured on the device keeps the memory from here on.
    pub fn address(&self) -> Address {
        self.device().keep(&self.allocation);
        Address::new(self.allocation.address)
    }

    /// Overwrites the bytes from `offset`, after the work given to the device before.
    ///
    /// # Errors
    /// [`Error::Shape`] when they leave the buffer, [`Error::Device`] when the device fails.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result<()> {
        self.write_on(&self.device().clone(), offset, from)
    }

    /// Copies the bytes from `offset` to the host and waits for them.
    ///
    /// # Errors
    /// As [`Buffer::write`].
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        self.read_on(self.device(), offset, to)
    }

    /// As [`Buffer::write`], in the order of the stream of `device`, a handle of the device that holds the memory.
    pub(crate) fn write_on(&mut self, device: &Device, offset: usize, from: &[u8]) -> Result<()> {
        let address = self.range("Buffer::write", offset, from.len())?;
        device.copy_in(address, from)
    }

    /// As [`Buffer::read`], in the order of the stream of `device`, a handle of the device that holds the memory.
    pub(crate) fn read_on(&self, device: &Device, offset: usize, to: &mut [u8]) -> Result<()> {
        let address = self.range("Buffer::read", offset, to.len())?;
        device.copy_out(address, to)
    }

    /// Overwrites `len` bytes from `offset` with those of another buffer of the device from `start`, without the host seeing
    /// them; after the work given to the device before.
    ///
    /// # Errors
    /// As [`Buffer::write`]; [`Error::Device`] as well when the buffers are on different devices.
    pub fn copy_from(&mut self, offset: usize, from: &Self, start: usize, len: usize) -> Result<()> {
        const OP: &str = "Buffer::copy_from";
        if self.device() != from.device() {
            let found = format!("{OP}: from {} to {}", from.device(), self.device());
            return Err(Error::device(found, "pass through the host with read and write"));
        }
        let (to, from) = (self.range(OP, offset, len)?, from.range(OP, start, len)?);
        self.device().copy_within(to, from, len)
    }

    /// Sets every byte to zero, after the work given to the device before.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails.
    pub fn zero(&mut self) -> Result<()> {
        self.device().zero(self.address().get(), self.bytes())
    }

    fn range(&self, op: &'static str, offset: usize, len: usize) -> Result<u64> {
        if offset.checked_add(len).is_none_or(|end| end > self.bytes()) {
            let found = format!("bytes {offset}..{offset}+{len}");
            return Err(Error::shape(op, found, format!("a range within {} bytes", self.bytes())));
        }
        Ok(self.address().offset(offset).get())
    }

    /// The memory as elements of `T`; a remainder shorter than `T` is left out.
    ///
    /// # Errors
    /// [`Error::Device`] for memory that the host does not address.
    pub(crate) fn host<T: Pod>(&self) -> Result<&[T]> {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        self.expect_host()?;
        let len = self.bytes() / size_of::<T>();
        // SAFETY: host memory, initialised, aligned for T (asserted above, or promised to `external`), and it lives as
        // long as self; T is plain data.
        Ok(unsafe { std::slice::from_raw_parts(self.allocation.address as *const T, len) })
    }

    /// The memory as mutable elements of `T`.
    ///
    /// # Errors
    /// As [`Buffer::host`].
    pub(crate) fn host_mut<T: Pod>(&mut self) -> Result<&mut [T]> {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        self.expect_host()?;
        let len = self.bytes() / size_of::<T>();
        // SAFETY: as in `host`; `&mut self` makes the borrow unique, since the host captures no graphs.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.allocation.address as *mut T, len) })
    }

    fn expect_host(&self) -> Result<()> {
        match self.device().kind() {
            Kind::Cpu => Ok(()),
            _ => Err(Error::device(
                format!("the memory is on {} and cannot be seen as a slice", self.device()),
                "copy it with Tensor::to_device or to_f32_vec",
            )),
        }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            return self.device.release(owner);
        }
        self.device.account().remove(self.device.purpose(), self.bytes);
        if self.bytes > 0 {
            self.device.free(self.address, self.bytes);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes, {}, {})", self.bytes(), self.purpose(), self.device())
    }
}
