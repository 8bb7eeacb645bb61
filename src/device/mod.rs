//! Where memory lives and kernels run.
//!
//! A [`Device`] is a cheap handle: which device, which of its streams, and the purpose that memory allocated through it
//! is accounted under. Callers name a device once and never again, because every tensor knows its own.
//! An operation runs on the handle of its main input (x, q, a, scores, weights of a mask): kernels, copies and scratch alike.
//!
//! There are three kinds. `cpu` computes in Rust. `emulated` runs the very kernels of the GPU on the CPU, thread by
//! thread, under checks: it finds faults, and is slow. `cuda:N` is a GPU of this machine.

mod address;
mod backend;
mod buffer;
#[cfg(feature = "cuda")]
mod cuda;
mod dtype;
#[cfg(feature = "emulator")]
mod emulated;
mod kernel;
mod memory;
mod scratch;
pub mod simd;
mod stream;
mod tile_map;

use std::{
    any::Any,
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytemuck::Pod;

pub use address::Address;
pub use buffer::Buffer;
#[cfg(feature = "cuda")]
pub use cuda::{Driver, driver};
pub use dtype::{Dtype, Element};
#[cfg(feature = "emulator")]
pub use emulated::{Emulation, Site, emulator_built};
pub(crate) use kernel::Kernel;
pub use kernel::{Grid, KernelInfo, architectures, kernels};
pub use memory::{MemoryScope, MemoryUse, Purpose};
pub use scratch::Scratch;
pub use stream::{Event, Graph};
pub use tile_map::TileMap;

use crate::{Error, InputError, Result};
use backend::{Backend, Host, RawStream, Refusal};
use buffer::Allocation;
use memory::Account;
use stream::{Origin, Stream};

/// A device, one of its streams, and the purpose under which memory allocated through this handle is accounted.
///
/// Work given to a handle is done in order and asynchronously to the host; only what returns data to the host waits.
/// Handles of one device share its memory; work of different streams is ordered by [`Device::wait`] alone.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
    stream: Arc<Stream>,
    purpose: Purpose,
}

struct Inner {
    kind: Kind,
    name: String,
    account: Account,
    backend: Box<dyn Backend>,
    /// How often each kernel was launched or captured.
    launches: Box<[AtomicU64]>,
    capturing: AtomicBool,
    capture: Mutex<Captured>,
}

/// What a capture under way holds on to.
#[derive(Default)]
struct Captured {
    /// Memory whose address was taken: the graph owns it from then on.
    kept: Vec<Arc<Allocation>>,
    /// Memory dropped meanwhile, freed when the capture ends: a free would be recorded as well.
    dropped: Vec<(u64, usize)>,
    /// Owners of others' memory that was dropped meanwhile: nothing can be waited for during a capture.
    owners: Vec<Box<dyn Any + Send + Sync>>,
}

/// The kinds of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Host memory, host threads.
    Cpu,
    /// The kernels, executed on the CPU.
    Emulated,
    /// An NVIDIA GPU.
    Cuda,
}

impl Device {
    /// A CPU device with a memory account of its own.
    pub fn cpu() -> Self {
        Self::new(Kind::Cpu, "cpu".to_owned(), Box::new(Host), RawStream(0))
    }

    fn new(kind: Kind, name: String, backend: Box<dyn Backend>, stream: RawStream) -> Self {
        let inner = Arc::new(Inner {
            kind,
            name,
            account: Account::default(),
            backend,
            launches: kernels().iter().map(|_| AtomicU64::new(0)).collect(),
            capturing: AtomicBool::new(false),
            capture: Mutex::default(),
        });
        Self::of_inner(inner, stream)
    }

    /// A handle to a device's first stream.
    fn of_inner(inner: Arc<Inner>, stream: RawStream) -> Self {
        Self { inner, stream: Arc::new(Stream::new(stream, Origin::First)), purpose: Purpose::Activations }
    }

    /// What this device is.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The same device and stream, accounting what is allocated through this handle under `purpose`.
    pub fn accounting(&self, purpose: Purpose) -> Self {
        Self { purpose, ..self.clone() }
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

    /// Zeroed memory on this device, aligned to at least 64 bytes (16 on an emulated device, where each allocation ends
    /// at a guard page).
    ///
    /// # Errors
    /// [`Error::Device`] when the memory is not to be had (it names the bytes asked for, what is free where the device
    /// tells, and the largest consumer) or while a graph is captured.
    pub fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Buffer::zeroed(self, bytes)
    }

    /// Waits until all work given to this handle's stream is done.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed; it names the kernel, where that is known.
    pub fn synchronize(&self) -> Result<()> {
        self.outside_capture("waiting for the device")?;
        self.inner.backend.synchronize(self.stream.raw())
    }

    /// How often each kernel was launched on this device or captured into a graph, for those that were.
    pub fn launched(&self) -> Vec<(&'static str, u64)> {
        let counts = kernels().iter().zip(&self.inner.launches);
        counts.map(|(kernel, count)| (kernel.name, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0).collect()
    }

    /// Runs a kernel over a grid; an empty grid is no work.
    ///
    /// The addresses in `params` must be of this device's memory, and the kernel must stay within it: operations check
    /// their arguments, kernels are checked by the emulator.
    pub(crate) fn launch<P: Pod>(&self, kernel: &Kernel<P>, grid: Grid, params: &P) -> Result<()> {
        self.launch_index(kernel.index(), grid, bytemuck::bytes_of(params))
    }

    /// Runs a kernel by name, for measurements and tests of single kernels. Operations use typed handles instead.
    ///
    /// # Safety
    /// `params` must be the bytes of the kernel's parameter struct, and the kernel must stay within memory of this device
    /// for those parameters and that grid.
    ///
    /// # Errors
    /// [`Error::Input`] when there is no such kernel; [`Error::Device`] when the launch is refused or the device failed.
    pub unsafe fn launch_raw(&self, name: &str, grid: Grid, params: &[u8]) -> Result<()> {
        let index = kernels().iter().position(|kernel| kernel.name == name);
        let index = index.ok_or_else(|| InputError::new("kernel", name, "a name that lowkey::device::kernels() has"))?;
        self.launch_index(index, grid, params)
    }

    fn launch_index(&self, index: usize, grid: Grid, params: &[u8]) -> Result<()> {
        if grid.is_empty() {
            return Ok(());
        }
        let kernel = &kernels()[index];
        if grid.threads > kernel.max_threads {
            let limit = format!("at most {} threads a block", kernel.max_threads);
            return Err(Error::shape("launch", format!("{}: {grid:?}", kernel.name), limit));
        }
        self.inner.backend.launch(self.stream.raw(), index, grid, params)?;
        self.inner.launches[index].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The error of an operation that has no kernel for this device.
    pub(crate) fn unsupported(&self, what: &str) -> Error {
        Error::no_kernel(what, self)
    }

    fn account(&self) -> &Account {
        &self.inner.account
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.outside_capture(&format!("allocating {bytes} bytes for {}", self.purpose))?;
        self.inner.backend.allocate(self.stream.raw(), bytes).map_err(|refusal| match refusal {
            Refusal::Full { reason, room } => out_of_memory(self, bytes, &reason, room),
            Refusal::Failed(error) => error,
        })
    }

    fn free(&self, address: u64, bytes: usize) {
        if self.inner.capturing.load(Ordering::Acquire) {
            self.captured().dropped.push((address, bytes));
        } else {
            self.inner.backend.free(self.stream.raw(), address, bytes);
        }
    }

    /// Lets the owner of others' memory go once nothing can be using the memory any more.
    fn release(&self, owner: Box<dyn Any + Send + Sync>) {
        if self.inner.capturing.load(Ordering::Acquire) {
            self.captured().owners.push(owner);
        } else {
            self.inner.backend.synchronize_all();
        }
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<()> {
        if bytes == 0 { Ok(()) } else { self.inner.backend.zero(self.stream.raw(), address, bytes) }
    }

    fn copy_in(&self, to: u64, from: &[u8]) -> Result<()> {
        self.outside_capture("copying from the host")?;
        if from.is_empty() { Ok(()) } else { self.inner.backend.copy_in(self.stream.raw(), to, from) }
    }

    fn copy_out(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.outside_capture("copying to the host")?;
        if to.is_empty() { Ok(()) } else { self.inner.backend.copy_out(self.stream.raw(), from, to) }
    }

    fn copy_within(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        if bytes == 0 { Ok(()) } else { self.inner.backend.copy_within(self.stream.raw(), to, from, bytes) }
    }

    fn keep(&self, allocation: &Arc<Allocation>) {
        if self.inner.capturing.load(Ordering::Acquire) {
            self.captured().kept.push(Arc::clone(allocation));
        }
    }

    fn captured(&self) -> MutexGuard<'_, Captured> {
        self.inner.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outside_capture(&self, what: &str) -> Result<()> {
        if !self.inner.capturing.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::device(
            format!("{what} on {self} while a graph is captured"),
            "do it before the capture, and use the _into form with a Scratch of scratch_bytes",
        ))
    }
}

impl PartialEq for Device {
    /// Two handles are equal when memory of one is usable on the other.
    fn eq(&self, other: &Self) -> bool {
        let host = self.inner.kind == Kind::Cpu && other.inner.kind == Kind::Cpu;
        host || Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.name)
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
            #[cfg(feature = "emulator")]
            ("emulated", _) => Self::emulated(),
            #[cfg(not(feature = "emulator"))]
            ("emulated", _) => Err(Error::device(
                "device emulated: this build has no emulator (built without feature `emulator`)",
                "build with --features emulator (it takes a C++ compiler), or use --device cpu",
            )),
            #[cfg(feature = "cuda")]
            (_, Some(Ok(ordinal))) => Self::cuda(ordinal),
            #[cfg(not(feature = "cuda"))]
            (_, Some(Ok(ordinal))) => Err(Error::device(
                format!("device cuda:{ordinal}: this build has no CUDA support (built without feature `cuda`)"),
                "use --device cpu",
            )),
            _ => Err(InputError::new("device", format!("{name:?}"), "cpu, emulated or cuda:N").into()),
        }
    }
}

fn out_of_memory(device: &Device, bytes: usize, reason: &str, room: Option<(usize, usize)>) -> Error {
    let held = device.memory();
    let largest = held.largest();
    let room = room.map_or(String::new(), |(free, total)| format!(", {free} free of {total}"));
    Error::device(
        format!(
            "out of memory on {device}: {bytes} bytes asked for {}{room}, {} bytes held already, most of them {largest} ({}); {}",
            device.purpose(),
            held.total.current,
            held.of(largest).current,
            reason
        ),
        "use a smaller batch, context or rank",
    )
}
