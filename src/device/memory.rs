//! The memory account: current and peak bytes of a device by purpose.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::Device;

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Model weights.
    Weights,
    /// Key-value caches: latents, scales, dense windows, online bases.
    Cache,
    /// Calibrated bases, fixed per model.
    Bases,
    /// Results and intermediate tensors.
    Activations,
    /// Reusable working memory.
    Scratch,
}

impl Purpose {
    /// Every purpose, in a fixed order.
    pub const ALL: [Self; 5] = [Self::Weights, Self::Cache, Self::Bases, Self::Activations, Self::Scratch];
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weights => "weights",
            Self::Cache => "cache",
            Self::Bases => "bases",
            Self::Activations => "activations",
            Self::Scratch => "scratch",
        })
    }
}

/// Bytes in use now and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub current: usize,
    /// The most bytes in use at once so far.
    pub peak: usize,
}

/// A reading of a device's memory account, in bytes. Tensors and scratch are counted; what CPU operations keep on their
/// stacks and in short-lived working vectors (tiles, decoded keys, scores) is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// All purposes together; its peak is the peak of the sum.
    pub total: Usage,
    by_purpose: [Usage; Purpose::ALL.len()],
}

impl MemoryUse {
    /// Bytes of one purpose.
    pub fn of(&self, purpose: Purpose) -> Usage {
        self.by_purpose[purpose as usize]
    }

    /// The purpose that holds most now.
    pub fn largest(&self) -> Purpose {
        Purpose::ALL.into_iter().max_by_key(|p| self.of(*p).current).unwrap_or(Purpose::Scratch)
    }
}

#[derive(Default)]
struct Counter {
    current: AtomicUsize,
    peak: AtomicUsize,
}

impl Counter {
    fn add(&self, bytes: usize) -> usize {
        let now = self.current.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
        now
    }

    fn read(&self) -> Usage {
        Usage { current: self.current.load(Ordering::Relaxed), peak: self.peak.load(Ordering::Relaxed) }
    }
}

#[derive(Default)]
pub(super) struct Account {
    total: Counter,
    by_purpose: [Counter; Purpose::ALL.len()],
    scopes: Mutex<Vec<Arc<AtomicUsize>>>,
    open_scopes: AtomicUsize,
}

impl Account {
    pub(super) fn add(&self, purpose: Purpose, bytes: usize) {
        self.by_purpose[purpose as usize].add(bytes);
        let now = self.total.add(bytes);
        if self.open_scopes.load(Ordering::Relaxed) > 0 {
            for peak in self.scopes().iter() {
                peak.fetch_max(now, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn remove(&self, purpose: Purpose, bytes: usize) {
        self.by_purpose[purpose as usize].current.fetch_sub(bytes, Ordering::Relaxed);
        self.total.current.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> MemoryUse {
        MemoryUse { total: self.total.read(), by_purpose: std::array::from_fn(|i| self.by_purpose[i].read()) }
    }

    fn scopes(&self) -> MutexGuard<'_, Vec<Arc<AtomicUsize>>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures the memory of a stretch of work: bytes held when it began, and the most held at once since.
///
/// ```
/// use lowkey::{Device, Dtype, Tensor};
/// let device = Device::cpu();
/// let scope = device.memory_scope();
/// drop(Tensor::zeros(&[256], Dtype::F32, &device)?);
/// assert_eq!(scope.peak() - scope.at_start(), 1024);
/// # Ok::<(), lowkey::Error>(())
/// ```
pub struct MemoryScope {
    device: Device,
    at_start: usize,
    peak: Arc<AtomicUsize>,
}

impl MemoryScope {
    pub(super) fn start(device: &Device) -> Self {
        let account = device.account();
        let mut scopes = account.scopes();
        account.open_scopes.fetch_add(1, Ordering::Relaxed);
        let at_start = account.total.read().current;
        let peak = Arc::new(AtomicUsize::new(at_start));
        scopes.push(Arc::clone(&peak));
        drop(scopes);
        Self { device: device.clone(), at_start, peak }
    }

    /// Bytes in use when the scope began.
    pub fn at_start(&self) -> usize {
        self.at_start
    }

    /// The most bytes in use at once since the scope began.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for MemoryScope {
    fn drop(&mut self) {
        let account = self.device.account();
        account.scopes().retain(|peak| !Arc::ptr_eq(peak, &self.peak));
        account.open_scopes.fetch_sub(1, Ordering::Relaxed);
    }
}
