//! Where memory lives and kernels run.
//!
//! A [`Device`] is a cheap handle. Today there is one, the CPU; callers name a device once and never again,
//! because every tensor knows its own.

mod buffer;
#[cfg(feature = "cuda")]
mod cuda;
mod memory;
mod scratch;
pub mod simd;

use std::{fmt, str::FromStr, sync::Arc};

pub use buffer::Buffer;
#[cfg(feature = "cuda")]
pub use cuda::{Driver, driver};
pub use memory::{MemoryScope, MemoryUse, Purpose};
pub use scratch::Scratch;

use crate::{Error, InputError, Result};
use memory::Account;

/// A device and the purpose under which memory allocated through this handle is accounted.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
    purpose: Purpose,
}

struct Inner {
    kind: Kind,
    account: Account,
}

/// The kinds of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Host memory, host threads.
    Cpu,
}

impl Device {
    /// A CPU device with a memory account of its own.
    pub fn cpu() -> Self {
        Self { inner: Arc::new(Inner { kind: Kind::Cpu, account: Account::default() }), purpose: Purpose::Activations }
    }

    /// What this device is.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The same device, accounting what is allocated through this handle under `purpose`.
    pub fn accounting(&self, purpose: Purpose) -> Self {
        Self { inner: Arc::clone(&self.inner), purpose }
    }

    /// The purpose this handle accounts under.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Bytes allocated now and at most so far, by purpose.
    pub fn memory(&self) -> MemoryUse {
        self.inner.account.read()
    }

    /// Starts a scope whose peak counts from now.
    pub fn memory_scope(&self) -> MemoryScope {
        MemoryScope::start(self)
    }

    /// Zeroed memory on this device, aligned to 64 bytes.
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had; it names the bytes asked for and the largest consumer.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Buffer::zeroed(self, bytes)
    }

    fn account(&self) -> &Account {
        &self.inner.account
    }
}

impl PartialEq for Device {
    /// Two handles are equal when memory of one is usable on the other.
    fn eq(&self, other: &Self) -> bool {
        self.inner.kind == other.inner.kind
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inner.kind {
            Kind::Cpu => f.write_str("cpu"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// Reads `cpu`, `emulated` or `cuda:N`.
    ///
    /// # Errors
    /// [`Error::Device`] for a device that this build or machine does not have; [`Error::Input`] for anything else.
    fn from_str(name: &str) -> Result<Self> {
        let ordinal = name.strip_prefix("cuda:").map(str::parse::<u32>);
        match (name, ordinal) {
            ("cpu", _) => Ok(Self::cpu()),
            ("emulated", _) => Err(Error::device("device emulated: this build has no kernels to emulate", "use --device cpu")),
            (_, Some(Ok(ordinal))) => Err(no_cuda(ordinal)),
            _ => Err(InputError::new("device", format!("{name:?}"), "cpu, emulated or cuda:N").into()),
        }
    }
}

fn no_cuda(ordinal: u32) -> Error {
    let device = format!("device cuda:{ordinal}");
    #[cfg(feature = "cuda")]
    let found = match driver() {
        None => {
            format!("{device}: this machine has no NVIDIA driver (libcuda was not found), and this build has no CUDA kernels")
        }
        Some(driver) => format!("{device}: this build has no CUDA kernels (the driver, CUDA {driver}, is present)"),
    };
    #[cfg(not(feature = "cuda"))]
    let found = format!("{device}: this build has no CUDA support (built without feature `cuda`)");
    Error::device(found, "use --device cpu")
}
