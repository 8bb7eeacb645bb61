//! NVIDIA GPUs, through the driver found at run time.
//!
//! A GPU's primary context is used, as PyTorch and the CUDA runtime do, so memory and streams of theirs fit ours. It is
//! made current before every call: no state belongs to a thread.

mod driver;
mod modules;

use std::{
    any::Any,
    collections::VecDeque,
    ffi::c_void,
    ptr,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use cudarc::driver::sys;

use super::{
    Device, Dtype, Grid, Inner, Kind, TileMap, architectures,
    backend::{Backend, Mark, RawStream, Refusal, Replay},
    kernels,
    tile_map::Tiles,
};
use crate::{Error, Result};
pub use driver::{Driver, driver};
use driver::{Failure, call};
use modules::Modules;

/// Devices in use, so that all handles of a GPU share one account, one pool and one fate.
static OPEN: Mutex<Vec<(u32, Weak<Inner>, RawStream)>> = Mutex::new(Vec::new());

impl Device {
    /// The GPU with this number, counted as the driver counts them (`CUDA_VISIBLE_DEVICES` applies).
    ///
    /// # Errors
    /// [`Error::Device`] when there is no driver, it is too old, there is no such GPU, it is older than compute capability
    /// 8.0, or this build has no kernels; the message names what was found and what is needed.
    pub fn cuda(ordinal: u32) -> Result<Self> {
        let mut open = lock(&OPEN);
        open.retain(|(_, inner, _)| inner.strong_count() > 0);
        let known = open.iter().find(|(number, ..)| *number == ordinal);
        if let Some((inner, stream)) = known.and_then(|(_, inner, stream)| Some((inner.upgrade()?, *stream))) {
            return Ok(Self::of_inner(inner, stream));
        }
        let name = format!("cuda:{ordinal}");
        let context = Context::open(ordinal, &name)?;
        let stream = context.new_stream()?;
        let device = Self::new(Kind::Cuda, name, Box::new(context), stream);
        open.push((ordinal, std::sync::Arc::downgrade(&device.inner), stream));
        Ok(device)
    }
}

/// The primary context of a GPU.
struct Context {
    name: String,
    gpu: sys::CUdevice,
    context: sys::CUcontext,
    modules: Modules,
    /// Kernels launched on each stream since it was last waited for: a fault is of one of them.
    recent: Mutex<Recent>,
    /// The stream being captured and the kernels it was given.
    captured: Mutex<Option<(RawStream, Vec<usize>)>>,
    /// What made the context useless, once something has.
    fault: OnceLock<String>,
    /// Whether every launch waits for its kernel, so that a fault names it.
    waits: bool,
    streams: Mutex<Vec<RawStream>>,
}

// SAFETY: contexts, modules and functions may be used from any thread once the context is current there.
unsafe impl Send for Context {}
// SAFETY: as above; the driver serialises its own state.
unsafe impl Sync for Context {}

/// Kernels that may not be done yet, oldest first.
#[derive(Default)]
struct Recent {
    kernels: VecDeque<(RawStream, usize)>,
    /// Whether older ones were forgotten.
    overflowed: bool,
}

/// How many kernels a fault may name.
const RECENT: usize = 16;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    fn open(ordinal: u32, name: &str) -> Result<Self> {
        driver::initialise(name)?;
        if architectures().is_empty() {
            return Err(Error::device(
                format!("device {name}: this build has no CUDA kernels (nvcc was not found when it was built)"),
                "run tools/setup or set NVCC, and build again, or use --device cpu",
            ));
        }
        let raw = |failure: Failure| Error::device(format!("device {name}: {failure}"), "check nvidia-smi");
        let mut count = 0;
        // SAFETY: the driver is initialised; one int is written.
        unsafe { call!(cuDeviceGetCount(&mut count)) }.map_err(raw)?;
        if i64::from(ordinal) >= i64::from(count) {
            let found = format!("device {name}: this machine has {count} GPUs, numbered from 0");
            return Err(Error::device(found, "use a smaller number, or --device cpu"));
        }
        let mut gpu = 0;
        // SAFETY: as above; the ordinal exists.
        unsafe { call!(cuDeviceGet(&mut gpu, ordinal as i32)) }.map_err(raw)?;
        let major = attribute(gpu, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR).map_err(raw)?;
        let minor = attribute(gpu, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR).map_err(raw)?;
        let capability = format!("compute capability {major}.{minor}");
        if major < 8 {
            let found = format!("device {name}: {} has {capability}, and 8.0 or newer is needed", gpu_name(gpu));
            return Err(Error::device(found, "use a GPU of the Ampere generation or newer, or --device cpu"));
        }
        if attribute(gpu, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED).map_err(raw)? == 0 {
            let found = format!("device {name}: {} has no memory pools", gpu_name(gpu));
            return Err(Error::device(found, "use a GPU whose driver offers stream-ordered allocation, or --device cpu"));
        }
        let shared = attribute(gpu, sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        let shared = shared.map_err(raw)?;
        let mut context = ptr::null_mut();
        // SAFETY: the device exists; the context is released in Drop.
        unsafe { call!(cuDevicePrimaryCtxRetain(&mut context, gpu)) }.map_err(raw)?;
        let context = Self {
            name: name.to_owned(),
            gpu,
            context,
            modules: Modules::new(format!("{} ({capability})", gpu_name(gpu)), shared),
            recent: Mutex::default(),
            captured: Mutex::new(None),
            fault: OnceLock::new(),
            waits: std::env::var_os("LOWKEY_SYNC").is_some_and(|value| value != "0"),
            streams: Mutex::default(),
        };
        context.keep_pool()?;
        Ok(context)
    }

    /// Lets freed memory stay with the process: otherwise every wait gives it back to the driver.
    fn keep_pool(&self) -> Result<()> {
        self.checked(|| {
            let mut pool = ptr::null_mut();
            // SAFETY: the device exists and has pools.
            unsafe { call!(cuDeviceGetDefaultMemPool(&mut pool, self.gpu)) }?;
            let mut threshold = u64::MAX;
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            // SAFETY: this attribute is a 64-bit number.
            unsafe { call!(cuMemPoolSetAttribute(pool, attribute, ptr::from_mut(&mut threshold).cast())) }
        })
    }

    /// Makes the context current, runs driver calls, and remembers a fault that ends the context.
    fn checked<T>(&self, calls: impl FnOnce() -> Result<T, Failure>) -> Result<T> {
        self.attempt(calls).map_err(|failure| match failure {
            Some(failure) => Error::device(format!("{}: {failure}", self.name), "check nvidia-smi and the kernel log"),
            None => self.dead(),
        })
    }

    /// As `checked`, with the failure as it was; `None` when the context is lost.
    fn attempt<T>(&self, calls: impl FnOnce() -> Result<T, Failure>) -> Result<T, Option<Failure>> {
        if self.fault.get().is_some() {
            return Err(None);
        }
        // SAFETY: the context is retained for as long as self lives.
        let done = unsafe { call!(cuCtxSetCurrent(self.context)) }.and_then(|()| calls());
        done.map_err(|failure| {
            if !failure.is_sticky() {
                return Some(failure);
            }
            let _ = self.fault.set(format!("{failure}{}", self.suspects()));
            None
        })
    }

    fn suspects(&self) -> String {
        let recent = lock(&self.recent);
        let mut names: Vec<&str> = recent.kernels.iter().map(|(_, kernel)| kernels()[*kernel].name).collect();
        names.dedup();
        let earlier = if recent.overflowed { " or an earlier one" } else { "" };
        match names[..] {
            [] => String::new(),
            [name] if !recent.overflowed => format!(" in kernel {name}"),
            _ => format!(" in one of the kernels {}{earlier} (LOWKEY_SYNC=1 tells which)", names.join(", ")),
        }
    }

    fn dead(&self) -> Error {
        let fault = self.fault.get().map_or("", String::as_str);
        Error::device(format!("{} failed and cannot be used any more: {fault}", self.name), "start a new process")
    }

    /// Remembers a kernel that was given to a stream, or to the graph being captured from it.
    fn launched(&self, stream: RawStream, kernel: usize) {
        if let Some((captured, list)) = &mut *lock(&self.captured)
            && *captured == stream
        {
            return list.push(kernel);
        }
        let mut recent = lock(&self.recent);
        recent.kernels.push_back((stream, kernel));
        if recent.kernels.len() > RECENT {
            recent.kernels.pop_front();
            recent.overflowed = true;
        }
    }

    /// Forgets the kernels of a stream whose work is done.
    fn done(&self, stream: RawStream) {
        let mut recent = lock(&self.recent);
        recent.kernels.retain(|(other, _)| *other != stream);
        recent.overflowed &= !recent.kernels.is_empty();
    }

    /// Waits for a stream, unless it is being captured.
    fn settle(&self, stream: RawStream) -> Result<(), Failure> {
        if lock(&self.captured).as_ref().is_some_and(|(captured, _)| *captured == stream) {
            return Ok(());
        }
        // SAFETY: the stream is of this context.
        unsafe { call!(cuStreamSynchronize(handle(stream))) }
    }

    /// Whether the driver page-locked this host memory, so that copies from it are truly asynchronous.
    fn is_pinned(&self, host: *const u8) -> bool {
        let mut kind = 0u32;
        let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
        // SAFETY: this attribute is a 32-bit number; an unknown pointer is an error and not followed.
        unsafe { call!(cuPointerGetAttribute(ptr::from_mut(&mut kind).cast(), attribute, host as u64)) }.is_ok()
    }

    /// Makes `stream` wait for what every other stream was given so far.
    fn join_streams(&self, stream: RawStream) -> Result<(), Failure> {
        // Held throughout, so that no stream ends meanwhile.
        let streams = lock(&self.streams);
        for other in streams.iter().filter(|other| **other != stream) {
            let event = RawEvent::record(self.context, *other)?;
            // SAFETY: both are alive; an event may be destroyed once the wait is queued.
            unsafe { call!(cuStreamWaitEvent(handle(stream), event.event, 0)) }?;
        }
        Ok(())
    }
}

impl Backend for Context {
    fn allocate(&self, stream: RawStream, bytes: usize) -> Result<u64, Refusal> {
        let mut address = 0;
        let done = self.attempt(|| {
            // SAFETY: the stream is of this context; one address is written.
            unsafe { call!(cuMemAllocAsync(&mut address, bytes, handle(stream))) }?;
            // SAFETY: just allocated in this order.
            unsafe { call!(cuMemsetD8Async(address, 0, bytes, handle(stream))) }
        });
        let Err(failure) = done else { return Ok(address) };
        let (mut free, mut total) = (0, 0);
        let asked = self.attempt(|| {
            // SAFETY: two sizes are written.
            unsafe { call!(cuMemGetInfo_v2(&mut free, &mut total)) }
        });
        match failure {
            Some(failure) if failure.status == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(Refusal::Full { reason: failure.to_string(), room: asked.is_ok().then_some((free, total)) })
            }
            Some(failure) => Err(Refusal::Failed(Error::device(format!("{}: {failure}", self.name), "check nvidia-smi"))),
            None => Err(Refusal::Failed(self.dead())),
        }
    }

    fn free(&self, stream: RawStream, address: u64, _: usize) {
        // A lost context has lost its memory; there is nothing to do about any other failure.
        let _ = self.attempt(|| {
            self.join_streams(stream)?;
            // SAFETY: allocated by `allocate`, and all work on it is ordered before.
            unsafe { call!(cuMemFreeAsync(address, handle(stream))) }
        });
    }

    fn zero(&self, stream: RawStream, address: u64, bytes: usize) -> Result<()> {
        self.checked(|| {
            // SAFETY: the caller owns these bytes.
            unsafe { call!(cuMemsetD8Async(address, 0, bytes, handle(stream))) }
        })
    }

    fn copy_in(&self, stream: RawStream, to: u64, from: &[u8]) -> Result<()> {
        self.checked(|| {
            // SAFETY: the caller owns as many bytes at `to`; pageable memory is read before the call returns.
            unsafe { call!(cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), from.len(), handle(stream))) }?;
            if self.is_pinned(from.as_ptr()) {
                // SAFETY: the stream is of this context.
                unsafe { call!(cuStreamSynchronize(handle(stream))) }?;
            }
            Ok(())
        })
    }

    fn copy_out(&self, stream: RawStream, from: u64, to: &mut [u8]) -> Result<()> {
        self.checked(|| {
            // SAFETY: as many bytes are allocated at `from`, and `to` outlives the wait below.
            unsafe { call!(cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), handle(stream))) }?;
            // SAFETY: the stream is of this context.
            unsafe { call!(cuStreamSynchronize(handle(stream))) }
        })
    }

    fn copy_within(&self, stream: RawStream, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.checked(|| {
            // SAFETY: both ranges are allocated on this device.
            unsafe { call!(cuMemcpyDtoDAsync_v2(to, from, bytes, handle(stream))) }
        })
    }

    fn launch(&self, stream: RawStream, kernel: usize, grid: Grid, params: &[u8]) -> Result<()> {
        self.modules.check_built(kernel)?;
        let function = match self.attempt(|| self.modules.function(kernel)) {
            Ok(function) => function,
            Err(Some(failure)) => return Err(self.modules.refused(kernel, &failure)),
            Err(None) => return Err(self.dead()),
        };
        let [x, y, z] = grid.blocks;
        let mut argument = params.as_ptr().cast_mut().cast::<c_void>();
        self.launched(stream, kernel);
        self.checked(|| {
            let (shared, raw) = (grid.shared as u32, handle(stream));
            // SAFETY: the function takes one struct by value, whose bytes `argument` points to (the driver copies it);
            // `Device::launch` answers for its addresses.
            unsafe {
                call!(cuLaunchKernel(function, x, y, z, grid.threads, 1, 1, shared, raw, &mut argument, ptr::null_mut()))
            }?;
            if self.waits { self.settle(stream) } else { Ok(()) }
        })
        .map_err(|error| match error {
            Error::Device { found, hint } => {
                Error::device(format!("kernel {}, {grid:?}: {found}", kernels()[kernel].name), hint)
            }
            other => other,
        })
    }

    fn synchronize(&self, stream: RawStream) -> Result<()> {
        self.checked(|| {
            // SAFETY: the stream is of this context.
            unsafe { call!(cuStreamSynchronize(handle(stream))) }
        })?;
        self.done(stream);
        Ok(())
    }

    fn synchronize_all(&self) {
        // What fails here fails at the next call as well, which can say so.
        let streams = lock(&self.streams);
        let _ = self.attempt(|| streams.iter().try_for_each(|stream| self.settle(*stream)));
    }

    fn tile_map(&self, tiles: &Tiles) -> Result<TileMap> {
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let dtype = match tiles.dtype {
            Dtype::BF16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        };
        let [rows, columns] = tiles.tile;
        self.checked(|| {
            // SAFETY: lists have as many numbers as a matrix has axes (strides one fewer); the address is noted only.
            unsafe {
                call!(cuTensorMapEncodeTiled(
                    &mut map,
                    dtype,
                    2,
                    tiles.address as *mut c_void,
                    [tiles.columns, tiles.rows].as_ptr(),
                    [tiles.row_bytes].as_ptr(),
                    [columns, rows].as_ptr(),
                    [1, 1].as_ptr(),
                    sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                    sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                    sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                    sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
                ))
            }
        })?;
        Ok(TileMap(map.opaque))
    }

    fn new_stream(&self) -> Result<RawStream> {
        self.checked(|| {
            let mut stream = ptr::null_mut();
            // Not ordered with the null stream: libraries beside us use that one.
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            // SAFETY: one handle is written.
            unsafe { call!(cuStreamCreate(&mut stream, flags)) }?;
            let raw = RawStream(stream as usize);
            lock(&self.streams).push(raw);
            Ok(raw)
        })
    }

    fn adopt_stream(&self, stream: RawStream) {
        lock(&self.streams).push(stream);
    }

    fn drop_stream(&self, stream: RawStream, made: bool) {
        let mut streams = lock(&self.streams);
        let _ = self.attempt(|| {
            // Frees that follow do not know of its work any more.
            self.settle(stream)?;
            // SAFETY: made by `new_stream`, and used by no handle any more.
            if made { unsafe { call!(cuStreamDestroy_v2(handle(stream))) } } else { Ok(()) }
        });
        if let Some(at) = streams.iter().position(|other| *other == stream) {
            streams.remove(at);
        }
    }

    fn mark(&self, stream: RawStream) -> Result<Box<dyn Mark>> {
        self.checked(|| RawEvent::record(self.context, stream)).map(|event| Box::new(event) as Box<dyn Mark>)
    }

    fn wait(&self, stream: RawStream, mark: &dyn Mark) -> Result<()> {
        let Some(event) = mark.as_any().downcast_ref::<RawEvent>() else {
            return Err(Error::device("an event of another kind of device", "use events of one device"));
        };
        self.checked(|| {
            // SAFETY: both are alive.
            unsafe { call!(cuStreamWaitEvent(handle(stream), event.event, 0)) }
        })
    }

    fn begin_capture(&self, stream: RawStream) -> Result<()> {
        self.checked(|| {
            // Relaxed: a kernel that runs for the first time is loaded, which the stricter modes forbid.
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            // SAFETY: the stream is of this context.
            unsafe { call!(cuStreamBeginCapture_v2(handle(stream), mode)) }
        })?;
        *lock(&self.captured) = Some((stream, Vec::new()));
        Ok(())
    }

    fn end_capture(&self, stream: RawStream) -> Result<Box<dyn Replay>> {
        let kernels = lock(&self.captured).take().map_or_else(Vec::new, |(_, kernels)| kernels);
        self.checked(|| {
            let (mut graph, mut executable) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: the stream is being captured; one handle is written.
            unsafe { call!(cuStreamEndCapture(handle(stream), &mut graph)) }?;
            // SAFETY: the graph was just made; it is not needed once it is instantiated.
            let done = unsafe { call!(cuGraphInstantiateWithFlags(&mut executable, graph, 0)) };
            // SAFETY: as above.
            let _ = unsafe { call!(cuGraphDestroy(graph)) };
            done.map(|()| Box::new(Executable { graph: executable, context: self.context, kernels }) as Box<dyn Replay>)
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        for stream in std::mem::take(&mut *lock(&self.streams)) {
            let _ = self.attempt(|| {
                // SAFETY: the device's own first stream, or one whose handles are gone.
                unsafe { call!(cuStreamDestroy_v2(handle(stream))) }
            });
        }
        // SAFETY: retained in `open`, released once; a failure leaves nothing to do.
        let _ = unsafe { call!(cuDevicePrimaryCtxRelease_v2(self.gpu)) };
    }
}

fn handle(stream: RawStream) -> sys::CUstream {
    stream.0 as sys::CUstream
}

fn attribute(gpu: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<i32, Failure> {
    let mut value = 0;
    // SAFETY: the device exists; one int is written.
    unsafe { call!(cuDeviceGetAttribute(&mut value, attribute, gpu)) }.map(|()| value)
}

fn gpu_name(gpu: sys::CUdevice) -> String {
    let mut name = [0u8; 128];
    // SAFETY: the device exists; at most as many bytes as said are written, the last of them zero.
    let known = unsafe { call!(cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as i32, gpu)) }.is_ok();
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if known { String::from_utf8_lossy(text).into_owned() } else { "the GPU".to_owned() }
}

/// Makes a context current on this thread, outside of [`Context::checked`].
fn enter(context: sys::CUcontext) -> Result<(), Failure> {
    // SAFETY: what belongs to a context keeps its device, and with it the context, alive.
    unsafe { call!(cuCtxSetCurrent(context)) }
}

fn of_event(failure: Failure) -> Error {
    Error::device(format!("an event: {failure}"), "start a new process if the GPU has failed")
}

/// A recorded driver event, with its time.
struct RawEvent {
    event: sys::CUevent,
    context: sys::CUcontext,
}

// SAFETY: events may be used from any thread.
unsafe impl Send for RawEvent {}
// SAFETY: as above.
unsafe impl Sync for RawEvent {}

impl RawEvent {
    fn record(context: sys::CUcontext, stream: RawStream) -> Result<Self, Failure> {
        let mut event = ptr::null_mut();
        // SAFETY: one handle is written.
        unsafe { call!(cuEventCreate(&mut event, sys::CUevent_flags::CU_EVENT_DEFAULT as u32)) }?;
        let event = Self { event, context };
        // SAFETY: both are alive and of the current context.
        unsafe { call!(cuEventRecord(event.event, handle(stream))) }?;
        Ok(event)
    }
}

impl Mark for RawEvent {
    fn synchronize(&self) -> Result<()> {
        // SAFETY: the event is alive and its context current.
        enter(self.context).and_then(|()| unsafe { call!(cuEventSynchronize(self.event)) }).map_err(of_event)
    }

    fn since(&self, earlier: &dyn Mark) -> Result<Duration> {
        let Some(earlier) = earlier.as_any().downcast_ref::<Self>() else {
            return Err(Error::device("two events of different devices", "time events of one device"));
        };
        let mut milliseconds = 0.0f32;
        enter(self.context)
            // SAFETY: both events are recorded and done; one float is written.
            .and_then(|()| unsafe { call!(cuEventElapsedTime_v2(&mut milliseconds, earlier.event, self.event)) })
            .map_err(of_event)?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for RawEvent {
    fn drop(&mut self) {
        // SAFETY: made in `record`; the driver keeps it until work that waits for it is done.
        let _ = enter(self.context).and_then(|()| unsafe { call!(cuEventDestroy_v2(self.event)) });
    }
}

/// A captured graph, ready to run.
struct Executable {
    graph: sys::CUgraphExec,
    context: sys::CUcontext,
    /// What it launches.
    kernels: Vec<usize>,
}

// SAFETY: a graph may be launched from any thread, one at a time; the stream it runs on orders its launches.
unsafe impl Send for Executable {}
// SAFETY: as above.
unsafe impl Sync for Executable {}

impl Replay for Executable {
    fn run(&self, backend: &dyn Backend, stream: RawStream) -> Result<()> {
        let Some(context) = backend.as_any().downcast_ref::<Context>() else {
            return Err(Error::device("a graph of another kind of device", "launch it where it was captured"));
        };
        self.kernels.iter().for_each(|kernel| context.launched(stream, *kernel));
        context.checked(|| {
            // SAFETY: graph and stream are of this context.
            unsafe { call!(cuGraphLaunch(self.graph, handle(stream))) }?;
            if context.waits { context.settle(stream) } else { Ok(()) }
        })
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        // SAFETY: made in `end_capture`.
        let _ = enter(self.context).and_then(|()| unsafe { call!(cuGraphExecDestroy(self.graph)) });
    }
}
