//! Device addresses, as kernels receive them.

use std::fmt;

use bytemuck::{Pod, Zeroable};

/// An address in a device's memory: what a pointer in a kernel's parameter struct is to Rust.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Address(u64);

impl Address {
    /// The address of nothing; kernels read it as an absent argument.
    pub const NULL: Self = Self(0);

    /// An address from its number.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address `bytes` further on.
    pub const fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
