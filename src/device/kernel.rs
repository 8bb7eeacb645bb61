//! The kernels of this build: what they are called, what they take, and their images.

use std::{fmt, marker::PhantomData};

use bytemuck::Pod;

/// One instantiation of a kernel, as its `KERNEL(...)` line declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Its name, unique in the crate.
    pub name: &'static str,
    /// The source file, relative to `kernels/`.
    pub source: &'static str,
    /// The most threads of a block.
    pub max_threads: u32,
    /// The number of its source file among the images.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "images are for GPUs"))]
    pub(crate) image: usize,
}

/// The image of one source file.
#[cfg(feature = "cuda")]
pub(crate) struct Image {
    /// The source file, relative to `kernels/`.
    pub(crate) source: &'static str,
    /// The fatbin; empty where nvcc was not there when the crate was built.
    pub(crate) fatbin: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/table.rs"));

/// Every kernel of this build, whether or not it has an image.
pub fn kernels() -> &'static [KernelInfo] {
    KERNELS
}

/// The architectures that the images of this build serve, as nvcc names them; empty where nvcc was not there.
pub fn architectures() -> &'static [&'static str] {
    ARCHITECTURES
}

/// A kernel and the parameter struct it takes. The build script writes one for each `KERNEL(...)` line.
pub(crate) struct Kernel<P> {
    index: usize,
    params: PhantomData<fn(&P)>,
}

impl<P: Pod> Kernel<P> {
    pub(crate) const fn new(index: usize) -> Self {
        Self { index, params: PhantomData }
    }

    pub(crate) const fn index(&self) -> usize {
        self.index
    }
}

impl<P> Clone for Kernel<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Kernel<P> {}

/// The extent of a launch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: usize,
}

impl Grid {
    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.blocks.contains(&0) || self.threads == 0
    }
}

impl fmt::Debug for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.blocks;
        write!(f, "{x}x{y}x{z} blocks of {} threads, {} bytes of shared memory", self.threads, self.shared)
    }
}
