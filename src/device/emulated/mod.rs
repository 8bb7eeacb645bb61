//! The kernels of the GPU, compiled by the host's C++ compiler and executed thread by thread on the CPU.
//!
//! Work is done when it is given: streams and events order nothing here that was not in order already. A kernel that
//! breaks a rule of the GPU fails with a text that names the kernel, block, thread and rule, and the device with it,
//! as a GPU would. See `docs/emulator.md` for what is found and what cannot be.

mod api;
mod library;

use std::{
    any::Any,
    collections::BTreeSet,
    ffi::CString,
    path::PathBuf,
    ptr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use super::{
    Device, Grid, Kind, TileMap,
    backend::{Backend, Mark, Moment, RawStream, Refusal, Replay},
    kernels,
    tile_map::Tiles,
};
use crate::{Error, Result};
use library::Library;

/// How kernels are executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulation {
    /// Which order blocks, warps, lanes and asynchronous copies run in: 0 ascending, 1 descending, else the seed of a
    /// random order. Results must not depend on it.
    pub schedule: u64,
    /// Host threads that blocks are spread over.
    pub threads: u32,
    /// The architecture whose shared memory and rounding are imitated: 80, 90, 100 or 120.
    pub architecture: u32,
    /// Bytes that can be allocated in all.
    pub memory: usize,
    /// A synchronization that does nothing, to see whether anyone misses it.
    pub skip: Option<Site>,
    /// Whether to remember the places that order threads or memory, for [`Device::sites`]. One traced launch runs at a time.
    pub trace: bool,
    /// A shared library with another emulator and its kernels, instead of the one linked into the crate. Its code is run, so it
    /// must be as trusted as what is linked.
    pub library: Option<PathBuf>,
}

impl Default for Emulation {
    fn default() -> Self {
        Self { schedule: 0, threads: 1, architecture: 90, memory: usize::MAX, skip: None, trace: false, library: None }
    }
}

/// A place in a kernel's source that orders threads or memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// The source file, as the compiler was given it.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// What is there: a barrier, a wait, a fence.
    pub kind: String,
}

/// Whether an emulator is linked into this build: a C++ compiler was there when it was built.
pub fn emulator_built() -> bool {
    cfg!(lowkey_emulator)
}

impl Device {
    /// An emulated device with a memory of its own, blocks in ascending order on as many threads as the machine has.
    ///
    /// # Errors
    /// [`Error::Device`] when the crate was built without a C++ compiler.
    pub fn emulated() -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Self::emulate(Emulation { threads, ..Emulation::default() })
    }

    /// An emulated device with a memory of its own.
    ///
    /// # Errors
    /// As [`Device::emulated`], or when the library cannot be loaded or is of another version.
    pub fn emulate(emulation: Emulation) -> Result<Self> {
        let library = emulation.library.as_deref().map_or_else(Library::linked, Library::load)?;
        let emulator = Emulator {
            library,
            emulation,
            held: AtomicUsize::new(0),
            fault: OnceLock::new(),
            capture: Mutex::new(None),
            traced: Mutex::default(),
            streams: AtomicUsize::new(0),
        };
        Ok(Self::new(Kind::Emulated, "emulated".to_owned(), Box::new(emulator), RawStream(0)))
    }
}

impl Device {
    /// The places that ordered threads or memory in what this device ran, if it is emulated and [`Emulation::trace`] is set.
    pub fn sites(&self) -> Vec<Site> {
        let emulator = self.inner.backend.as_any().downcast_ref::<Emulator>();
        emulator.map_or_else(Vec::new, |emulator| lock(&emulator.traced).iter().cloned().collect())
    }

    /// Runs a kernel of [`Emulation::library`] that this crate does not have.
    ///
    /// # Safety
    /// As [`Device::launch_raw`]; what the kernel does wrong, the emulator reports.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is not emulated, the library has no such kernel, or the kernel fails.
    pub unsafe fn launch_foreign(&self, name: &str, grid: Grid, params: &[u8]) -> Result<()> {
        let emulator = self.inner.backend.as_any().downcast_ref::<Emulator>();
        emulator.ok_or_else(|| self.unsupported(name))?.run(name, grid, params)
    }

    /// Whether this device's kernels are checked for races, bounds and undefined behaviour on every access.
    pub fn is_checked(&self) -> bool {
        self.inner.backend.as_any().downcast_ref::<Emulator>().is_some_and(|emulator| emulator.library.is_checked())
    }
}

/// What was given to a device while a graph was captured.
enum Work {
    Launch { kernel: usize, grid: Grid, params: Vec<u8> },
    Zero { address: u64, bytes: usize },
    Copy { to: u64, from: u64, bytes: usize },
}

struct Emulator {
    library: Library,
    emulation: Emulation,
    held: AtomicUsize,
    /// Why the device cannot be used any more.
    fault: OnceLock<String>,
    capture: Mutex<Option<(RawStream, Vec<Work>)>>,
    traced: Mutex<BTreeSet<Site>>,
    /// Streams made so far.
    streams: AtomicUsize,
}

/// An emulator has one list of sites, so traced launches take turns.
static TRACE: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Emulator {
    fn alive(&self) -> Result<()> {
        match self.fault.get() {
            None => Ok(()),
            Some(fault) => {
                let found = format!("emulated failed and cannot be used any more: {fault}");
                Err(Error::device(found, "make a new device"))
            }
        }
    }

    fn run(&self, name: &str, grid: Grid, params: &[u8]) -> Result<()> {
        self.alive()?;
        let name = CString::new(name).unwrap_or_default();
        let skip = self.emulation.skip.as_ref();
        let skip_file = skip.map(|site| CString::new(site.file.as_str()).unwrap_or_default());
        let mut launch = api::Launch {
            kernel: name.as_ptr(),
            grid: grid.blocks,
            block: [grid.threads, 1, 1],
            shared_bytes: grid.shared as u64,
            params: params.as_ptr().cast(),
            params_bytes: params.len() as u64,
            schedule: self.emulation.schedule,
            os_threads: self.emulation.threads,
            arch: self.emulation.architecture,
            skip_file: skip_file.as_ref().map_or(ptr::null(), |file| file.as_ptr()),
            skip_line: skip.map_or(0, |site| site.line),
            trace: u32::from(self.emulation.trace),
            stats: ptr::null_mut(),
            error: ptr::null_mut(),
            error_bytes: 0,
        };
        let turn = self.emulation.trace.then(|| lock(&TRACE));
        if turn.is_some() {
            self.library.reset_sites();
        }
        // SAFETY: `Device::launch` answers for the parameters; strings outlive the call.
        let done = unsafe { self.library.launch(&mut launch) };
        if turn.is_some() {
            lock(&self.traced).extend(self.library.sites());
        }
        done.map_err(|(text, ran)| {
            let found = format!("emulated: {text}");
            if !ran {
                return Error::device(found, "no such launch is possible on the architecture that is emulated");
            }
            let _ = self.fault.set(text);
            Error::device(found, "this is a fault of the kernel: please report it")
        })
    }

    /// Does the work, or records it when its stream is being captured.
    fn give(&self, stream: RawStream, work: Work) -> Result<()> {
        self.alive()?;
        if let Some((captured, list)) = &mut *lock(&self.capture)
            && *captured == stream
        {
            list.push(work);
            return Ok(());
        }
        match work {
            Work::Launch { kernel, grid, params } => self.run(kernels()[kernel].name, grid, &params)?,
            // SAFETY: allocated here, and owned by whoever gave the work.
            Work::Zero { address, bytes } => unsafe { ptr::write_bytes(address as *mut u8, 0, bytes) },
            // SAFETY: as above; the ranges may overlap.
            Work::Copy { to, from, bytes } => unsafe { ptr::copy(from as *const u8, to as *mut u8, bytes) },
        }
        Ok(())
    }
}

impl Backend for Emulator {
    fn allocate(&self, _: RawStream, bytes: usize) -> Result<u64, Refusal> {
        let (held, total) = (self.held.load(Ordering::Relaxed), self.emulation.memory);
        let room = (total != usize::MAX).then(|| (total.saturating_sub(held), total));
        let refused = |reason: String| Refusal::Full { reason, room };
        self.alive().map_err(Refusal::Failed)?;
        if held.checked_add(bytes).is_none_or(|sum| sum > total) {
            return Err(refused("the emulated memory is full".to_owned()));
        }
        let address = self.library.alloc(bytes).ok_or_else(|| refused("the system refused".to_owned()))?;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        // SAFETY: just allocated, as many bytes.
        unsafe { ptr::write_bytes(address as *mut u8, 0, bytes) };
        Ok(address)
    }

    fn free(&self, _: RawStream, address: u64, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if !self.library.free(address) {
            let _ = self.fault.set(format!("a kernel wrote beside a buffer of {bytes} bytes"));
        }
    }

    fn zero(&self, stream: RawStream, address: u64, bytes: usize) -> Result<()> {
        self.give(stream, Work::Zero { address, bytes })
    }

    fn copy_in(&self, _: RawStream, to: u64, from: &[u8]) -> Result<()> {
        self.alive()?;
        // SAFETY: the caller owns as many bytes at `to`.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    fn copy_out(&self, _: RawStream, from: u64, to: &mut [u8]) -> Result<()> {
        self.alive()?;
        // SAFETY: as many bytes are allocated and initialised at `from`.
        unsafe { ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn copy_within(&self, stream: RawStream, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.give(stream, Work::Copy { to, from, bytes })
    }

    fn launch(&self, stream: RawStream, kernel: usize, grid: Grid, params: &[u8]) -> Result<()> {
        self.give(stream, Work::Launch { kernel, grid, params: params.to_vec() })
    }

    fn synchronize(&self, _: RawStream) -> Result<()> {
        self.alive()
    }

    fn tile_map(&self, tiles: &Tiles) -> Result<TileMap> {
        self.alive()?;
        let refused = || Error::device("emulated: a GPU would refuse this map of tiles", "check its shape and alignment");
        self.library.tile_map(tiles).ok_or_else(refused)
    }

    fn new_stream(&self) -> Result<RawStream> {
        self.alive()?;
        Ok(RawStream(self.streams.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn synchronize_all(&self) {}

    fn adopt_stream(&self, _: RawStream) {}

    fn drop_stream(&self, _: RawStream, _: bool) {}

    fn mark(&self, _: RawStream) -> Result<Box<dyn Mark>> {
        self.alive()?;
        Ok(Box::new(Moment(Instant::now())))
    }

    fn wait(&self, _: RawStream, _: &dyn Mark) -> Result<()> {
        self.alive()
    }

    fn begin_capture(&self, stream: RawStream) -> Result<()> {
        self.alive()?;
        *lock(&self.capture) = Some((stream, Vec::new()));
        Ok(())
    }

    fn end_capture(&self, _: RawStream) -> Result<Box<dyn Replay>> {
        let work = lock(&self.capture).take().map_or_else(Vec::new, |(_, work)| work);
        Ok(Box::new(Recorded(work)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Captured work, given again one piece after the other.
struct Recorded(Vec<Work>);

impl Replay for Recorded {
    fn run(&self, backend: &dyn Backend, stream: RawStream) -> Result<()> {
        self.0.iter().try_for_each(|work| match work {
            Work::Launch { kernel, grid, params } => backend.launch(stream, *kernel, *grid, params),
            Work::Zero { address, bytes } => backend.zero(stream, *address, *bytes),
            Work::Copy { to, from, bytes } => backend.copy_within(stream, *to, *from, *bytes),
        })
    }
}
