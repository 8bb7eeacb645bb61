//! What every kind of device does, and how host memory does it.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    any::Any,
    time::{Duration, Instant},
};

use super::{Grid, TileMap, tile_map::Tiles};
use crate::{Error, Result};

/// A queue of work in order, by the backend's own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawStream(pub(super) usize);

/// A point in a stream's work.
pub(super) trait Mark: Send + Sync {
    /// Waits on the host until the work before it is done.
    fn synchronize(&self) -> Result<()>;
    /// The time between `earlier` and this mark, both done.
    fn since(&self, earlier: &dyn Mark) -> Result<Duration>;
    fn as_any(&self) -> &dyn Any;
}

/// Recorded work that can be run again.
pub(super) trait Replay: Send + Sync {
    /// `backend` is the one that recorded it.
    fn run(&self, backend: &dyn Backend, stream: RawStream) -> Result<()>;
}

/// Why an allocation failed.
pub(super) enum Refusal {
    /// There is not so much memory.
    Full {
        /// What the device said.
        reason: String,
        /// Bytes free and bytes in all, where the device tells.
        room: Option<(usize, usize)>,
    },
    /// The device has failed.
    #[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(dead_code, reason = "host memory does not fail"))]
    Failed(Error),
}

/// A kind of device. Work is ordered within a stream and asynchronous to the host unless said otherwise.
pub(super) trait Backend: Send + Sync {
    /// Memory whose every byte is zero for work that follows on `stream`; never asked for zero bytes.
    fn allocate(&self, stream: RawStream, bytes: usize) -> Result<u64, Refusal>;
    /// Gives memory back once the work in flight on every stream is done. Never fails: it is called from `Drop`.
    fn free(&self, stream: RawStream, address: u64, bytes: usize);
    fn zero(&self, stream: RawStream, address: u64, bytes: usize) -> Result<()>;
    /// `from` may be reused as soon as this returns.
    fn copy_in(&self, stream: RawStream, to: u64, from: &[u8]) -> Result<()>;
    /// Waits for the stream.
    fn copy_out(&self, stream: RawStream, from: u64, to: &mut [u8]) -> Result<()>;
    fn copy_within(&self, stream: RawStream, to: u64, from: u64, bytes: usize) -> Result<()>;
    /// `kernel` is an index into [`super::kernels`].
    fn launch(&self, stream: RawStream, kernel: usize, grid: Grid, params: &[u8]) -> Result<()>;
    fn synchronize(&self, stream: RawStream) -> Result<()>;
    fn tile_map(&self, tiles: &Tiles) -> Result<TileMap>;

    /// Waits for every stream; failures are for the next call to tell.
    fn synchronize_all(&self);

    fn new_stream(&self) -> Result<RawStream>;
    /// Counts a stream of the caller's among those that frees wait for.
    fn adopt_stream(&self, stream: RawStream);
    /// Waits for a stream that no handle uses any more; ends it if it was made here.
    fn drop_stream(&self, stream: RawStream, made: bool);
    fn mark(&self, stream: RawStream) -> Result<Box<dyn Mark>>;
    fn wait(&self, stream: RawStream, mark: &dyn Mark) -> Result<()>;

    /// Until [`Backend::end_capture`], work given to `stream` is recorded instead of done.
    fn begin_capture(&self, stream: RawStream) -> Result<()>;
    fn end_capture(&self, stream: RawStream) -> Result<Box<dyn Replay>>;

    #[cfg_attr(not(any(feature = "cuda", feature = "emulator")), allow(dead_code, reason = "for backends with kernels"))]
    fn as_any(&self) -> &dyn Any;
}

/// Host memory. There are no kernels; streams are all alike, since everything is done at once.
pub(super) struct Host;

/// Alignment of host memory, enough for every SIMD load.
pub(super) const ALIGNMENT: usize = 64;

impl Backend for Host {
    fn allocate(&self, _: RawStream, bytes: usize) -> Result<u64, Refusal> {
        let refused = |reason: &str| Refusal::Full { reason: reason.to_owned(), room: None };
        let layout = Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| refused("more than the address space"))?;
        // SAFETY: the layout has a non-zero size, as the trait says.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() { Err(refused("the system refused")) } else { Ok(memory as u64) }
    }

    fn free(&self, _: RawStream, address: u64, bytes: usize) {
        if let Ok(layout) = Layout::from_size_align(bytes, ALIGNMENT) {
            // SAFETY: allocated above with this very layout.
            unsafe { dealloc(address as *mut u8, layout) }
        }
    }

    fn zero(&self, _: RawStream, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller owns these bytes.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
        Ok(())
    }

    fn copy_in(&self, _: RawStream, to: u64, from: &[u8]) -> Result<()> {
        // SAFETY: the caller owns as many bytes at `to`, and no slice of them exists meanwhile.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    fn copy_out(&self, _: RawStream, from: u64, to: &mut [u8]) -> Result<()> {
        // SAFETY: as many bytes are allocated and initialised at `from`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn copy_within(&self, _: RawStream, to: u64, from: u64, bytes: usize) -> Result<()> {
        // SAFETY: both ranges are allocated; they may overlap.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn launch(&self, _: RawStream, kernel: usize, _: Grid, _: &[u8]) -> Result<()> {
        let name = super::kernels()[kernel].name;
        Err(Error::device(format!("kernel {name} cannot run on cpu"), "use --device emulated or cuda:N"))
    }

    fn synchronize(&self, _: RawStream) -> Result<()> {
        Ok(())
    }

    fn tile_map(&self, _: &Tiles) -> Result<TileMap> {
        Err(Error::device("cpu has no copy engine", "use --device emulated or cuda:N"))
    }

    fn new_stream(&self) -> Result<RawStream> {
        Ok(RawStream(0))
    }

    fn synchronize_all(&self) {}

    fn adopt_stream(&self, _: RawStream) {}

    fn drop_stream(&self, _: RawStream, _: bool) {}

    fn mark(&self, _: RawStream) -> Result<Box<dyn Mark>> {
        Ok(Box::new(Moment(Instant::now())))
    }

    fn wait(&self, _: RawStream, _: &dyn Mark) -> Result<()> {
        Ok(())
    }

    fn begin_capture(&self, _: RawStream) -> Result<()> {
        Err(Error::device("graphs are of kernels, and cpu runs none", "use --device emulated or cuda:N"))
    }

    fn end_capture(&self, _: RawStream) -> Result<Box<dyn Replay>> {
        Err(Error::device("cpu captures no graphs", "use --device emulated or cuda:N"))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A mark of a device that has done everything it was given.
pub(super) struct Moment(pub(super) Instant);

impl Mark for Moment {
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn since(&self, earlier: &dyn Mark) -> Result<Duration> {
        match earlier.as_any().downcast_ref::<Self>() {
            Some(earlier) => Ok(self.0.saturating_duration_since(earlier.0)),
            None => Err(Error::device("two events of different devices", "time events of one device")),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
