//! Streams, events and graphs of a device.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Captured, Device, Inner,
    backend::{Mark, RawStream, Replay},
};
use crate::{Error, Result};

/// A queue of work of one device.
pub(super) struct Stream {
    raw: RawStream,
    origin: Origin,
}

/// Where a stream comes from, and so what becomes of it.
pub(super) enum Origin {
    /// The device's first: it lives as long as the device.
    First,
    /// Made for a handle, and given back with the last.
    Made(Arc<Inner>),
    /// The caller's.
    Adopted(Arc<Inner>),
}

impl Stream {
    pub(super) fn new(raw: RawStream, origin: Origin) -> Self {
        if let Origin::Adopted(inner) = &origin {
            inner.backend.adopt_stream(raw);
        }
        Self { raw, origin }
    }

    pub(super) fn raw(&self) -> RawStream {
        self.raw
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        match &self.origin {
            Origin::First => {}
            Origin::Made(inner) => inner.backend.drop_stream(self.raw, true),
            Origin::Adopted(inner) => inner.backend.drop_stream(self.raw, false),
        }
    }
}

/// A point in a stream's work: everything given to the stream before it.
pub struct Event {
    mark: Box<dyn Mark>,
    device: Device,
}

impl Event {
    /// Waits on the host until the work before the event is done.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub fn synchronize(&self) -> Result<()> {
        self.mark.synchronize()
    }

    /// The time the device took from `earlier` to this event. Waits for both.
    ///
    /// # Errors
    /// [`Error::Device`] when the events are of different devices or the device failed.
    pub fn since(&self, earlier: &Self) -> Result<Duration> {
        earlier.synchronize()?;
        self.synchronize()?;
        self.mark.since(&*earlier.mark)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({})", self.device)
    }
}

/// Work that was captured once and can be run again and again. It owns the memory it works on.
pub struct Graph {
    replay: Box<dyn Replay>,
    device: Device,
    /// Dropped after `replay`.
    _memory: Captured,
}

impl Graph {
    /// Runs the work, after what was given to the stream it was captured on before.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub fn launch(&self) -> Result<()> {
        self.replay.run(&*self.device.inner.backend, self.device.stream.raw())
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph({})", self.device)
    }
}

impl Device {
    /// The same device with a stream of its own.
    ///
    /// # Errors
    /// [`Error::Device`] when the device has failed.
    pub fn new_stream(&self) -> Result<Self> {
        let raw = self.inner.backend.new_stream()?;
        Ok(Self { stream: Arc::new(Stream::new(raw, Origin::Made(Arc::clone(&self.inner)))), ..self.clone() })
    }

    /// The same device on a stream that the caller made, such as PyTorch's: on `cuda:N` a `CUstream`. It cannot be the
    /// null stream where graphs are captured.
    ///
    /// # Safety
    /// The stream must belong to this device's primary context and outlive every handle made from this one and every
    /// buffer allocated through them.
    pub unsafe fn on_stream(&self, stream: *mut std::ffi::c_void) -> Self {
        let raw = RawStream(stream as usize);
        Self { stream: Arc::new(Stream::new(raw, Origin::Adopted(Arc::clone(&self.inner)))), ..self.clone() }
    }

    /// Marks the work given to this handle's stream so far.
    ///
    /// # Errors
    /// [`Error::Device`] when the device has failed.
    pub fn record(&self) -> Result<Event> {
        Ok(Event { mark: self.inner.backend.mark(self.stream.raw())?, device: self.clone() })
    }

    /// Makes the work that this handle's stream gets from now on wait for `event`, without stopping the host.
    ///
    /// # Errors
    /// [`Error::Device`] when the event is of another device or the device has failed.
    pub fn wait(&self, event: &Event) -> Result<()> {
        if *self != event.device {
            return Err(Error::device(format!("{self} cannot wait for an event of {}", event.device), "use one device"));
        }
        self.inner.backend.wait(self.stream.raw(), &*event.mark)
    }

    /// Records the work that `work` gives to this handle's stream instead of doing it. The graph owns every buffer whose
    /// memory the work names, so dropping a tensor afterwards is harmless.
    ///
    /// Inside, nothing on this device can be allocated, copied from or to the host, or waited for. One capture can be
    /// under way on a device at a time. Kernels must have run once before, or loading them is part of the capture.
    ///
    /// # Errors
    /// What `work` returns; [`Error::Device`] when the device cannot capture or another capture is under way.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        if self.inner.capturing.swap(true, Ordering::AcqRel) {
            return self.outside_capture("capturing a graph").and_then(|()| Err(self.unsupported("a capture within another")));
        }
        let mut capture = Capture { device: self, under_way: true };
        self.inner.backend.begin_capture(self.stream.raw())?;
        let done = work();
        let graph = capture.end();
        done.and(graph)
    }
}

/// A capture under way; it ends even when the work to be captured panics.
struct Capture<'a> {
    device: &'a Device,
    under_way: bool,
}

impl Capture<'_> {
    fn end(&mut self) -> Result<Graph> {
        self.under_way = false;
        let inner = &self.device.inner;
        let replay = inner.backend.end_capture(self.device.stream.raw());
        inner.capturing.store(false, Ordering::Release);
        let mut memory = std::mem::take(&mut *self.device.captured());
        for (address, bytes) in memory.dropped.drain(..) {
            inner.backend.free(self.device.stream.raw(), address, bytes);
        }
        memory.owners.drain(..).for_each(|owner| self.device.release(owner));
        Ok(Graph { replay: replay?, device: self.device.clone(), _memory: memory })
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if self.under_way {
            // Nothing can be told from here, and nothing is lost: the work was not to be kept.
            let _ = self.end();
        }
    }
}
