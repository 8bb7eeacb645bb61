//! An owned, accounted piece of a device's memory.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fmt,
    ptr::NonNull,
};

use bytemuck::Pod;

use super::{Device, Purpose};
use crate::{Error, Result};

const ALIGNMENT: usize = 64;

/// Memory of one device; freed, and taken off the device's account, when dropped.
pub struct Buffer {
    memory: NonNull<u8>,
    bytes: usize,
    device: Device,
}

// SAFETY: the memory is owned by this value alone and reached only through `&self` (shared reads) and `&mut self`.
unsafe impl Send for Buffer {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(super) fn zeroed(device: &Device, bytes: usize) -> Result<Self> {
        let memory = match layout(bytes) {
            _ if bytes == 0 => Some(NonNull::<[u8; ALIGNMENT]>::dangling().cast()),
            // SAFETY: the layout has a non-zero size.
            Some(layout) => NonNull::new(unsafe { alloc_zeroed(layout) }),
            None => None,
        };
        let memory = memory.ok_or_else(|| out_of_memory(device, bytes))?;
        device.account().add(device.purpose(), bytes);
        Ok(Self { memory, bytes, device: device.clone() })
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device that holds the memory.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What the memory is accounted as.
    pub fn purpose(&self) -> Purpose {
        self.device.purpose()
    }

    /// The memory as elements of `T`; a remainder shorter than `T` is left out. CPU only.
    pub(crate) fn host<T: Pod>(&self) -> &[T] {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        // SAFETY: the memory is initialised, aligned for T (asserted above), and lives as long as self; T is plain data.
        unsafe { std::slice::from_raw_parts(self.memory.cast::<T>().as_ptr(), self.bytes / size_of::<T>()) }
    }

    /// The memory as mutable elements of `T`. CPU only.
    pub(crate) fn host_mut<T: Pod>(&mut self) -> &mut [T] {
        const { assert!(align_of::<T>() <= ALIGNMENT) };
        // SAFETY: as in `host`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.memory.cast::<T>().as_ptr(), self.bytes / size_of::<T>()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        self.device.account().remove(self.device.purpose(), self.bytes);
        if let Some(layout) = layout(self.bytes) {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(self.memory.as_ptr(), layout) }
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes, {}, {})", self.bytes, self.purpose(), self.device)
    }
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, ALIGNMENT).ok()
}

fn out_of_memory(device: &Device, bytes: usize) -> Error {
    let held = device.memory();
    let largest = held.largest();
    Error::device(
        format!(
            "out of memory on {device}: {bytes} bytes asked for {}, {} bytes held already, most of them {largest} ({})",
            device.purpose(),
            held.total.current,
            held.of(largest).current
        ),
        "use a smaller batch, context or rank",
    )
}
