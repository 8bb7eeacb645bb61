//! Element types.

use std::fmt;

use bytemuck::Pod;
use half::{bf16, f16};

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
    /// Signed 8-bit integers (codes of a quantized tensor).
    I8,
    /// Signed 4-bit integers, two to a byte, the even element in the low nibble.
    I4,
}

impl Dtype {
    /// Bits of one element.
    pub const fn bits(self) -> usize {
        match self {
            Self::F32 => 32,
            Self::F16 | Self::BF16 => 16,
            Self::I8 => 8,
            Self::I4 => 4,
        }
    }

    /// Bytes of `elements` elements, rounded up to a whole byte.
    pub const fn bytes_of(self, elements: usize) -> usize {
        (elements * self.bits()).div_ceil(8)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I8 => "int8",
            Self::I4 => "int4",
        })
    }
}

/// A Rust type that tensors hold. ([`Dtype::I4`] has none: read it as bytes.)
pub trait Element: Pod + Send + Sync {
    /// Its dtype.
    const DTYPE: Dtype;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}
impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;
}
impl Element for bf16 {
    const DTYPE: Dtype = Dtype::BF16;
}
impl Element for i8 {
    const DTYPE: Dtype = Dtype::I8;
}
