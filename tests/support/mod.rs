//! What tests of kernels share: which device they run on, emulators with other kernels in them, and which kernels were
//! compared with what.

pub(crate) mod library;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env,
    sync::{Mutex, PoisonError},
};

use lowkey::{Device, Error, Result, Scratch, device::Emulation};

thread_local! {
    /// How often each kernel had been launched on the device that this thread was last given, when it was given it.
    static BEFORE: RefCell<BTreeMap<&'static str, u64>> = RefCell::default();
}

/// Begins a comparison: handles of one GPU share their counts, so a device that is given out may have launched before.
fn begin(device: Device) -> Device {
    BEFORE.set(device.launched().into_iter().collect());
    device
}

/// The device whose kernels are tested: `LOWKEY_TEST_DEVICE`, else a new emulated one.
pub(crate) fn device() -> Device {
    begin(env::var("LOWKEY_TEST_DEVICE").map_or_else(|_| Device::emulated(), |name| name.parse()).unwrap())
}

/// A new emulated device.
pub(crate) fn emulate(emulation: &Emulation) -> Device {
    begin(Device::emulate(emulation.clone()).unwrap())
}

/// Holds that an operation on `device` names both devices when it is given scratch of the CPU, whether that holds memory.
pub(crate) fn refuses_scratch_of_the_cpu(device: &Device, mut operation: impl FnMut(&mut Scratch) -> Result<()>) {
    for bytes in [0, 1 << 20] {
        let error = operation(&mut Scratch::with_bytes(&Device::cpu(), bytes).unwrap()).unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("scratch on cpu") && text.contains(&device.to_string()), "{text}");
    }
}

/// What a result was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Against {
    /// A computation in the test itself, in f64 where it is of real numbers.
    Oracle,
    /// The CPU path.
    Cpu,
}

static COMPARED: Mutex<BTreeSet<(&'static str, Against)>> = Mutex::new(BTreeSet::new());

/// Credits the kernels that `device` launched since [`device`] or [`emulate`] gave it out with a comparison that held. What
/// was launched decides, so a test cannot credit a kernel it did not run; a device is asked for anew for each comparison.
pub(crate) fn agreed(device: &Device, against: Against) {
    let launched = BEFORE.with_borrow(|before| {
        let is_new = |(kernel, count): &(&'static str, u64)| *count > before.get(kernel).copied().unwrap_or(0);
        device.launched().into_iter().filter(is_new).collect::<Vec<_>>()
    });
    let mut compared = COMPARED.lock().unwrap_or_else(PoisonError::into_inner);
    compared.extend(launched.into_iter().map(|(kernel, _)| (kernel, against)));
}

/// Whether a kernel was compared.
pub(crate) fn was_compared(kernel: &'static str, against: Against) -> bool {
    COMPARED.lock().unwrap_or_else(PoisonError::into_inner).contains(&(kernel, against))
}

/// How much of a family's kernels a comparison runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// The smallest instantiation of each kernel, in milliseconds.
    Smallest,
    /// Every instantiation.
    Every,
}

/// Makes the devices of a comparison, by [`device`] or [`emulate`].
pub(crate) type Maker<'a> = dyn Fn() -> Device + 'a;

/// The kernels of one folder, and the comparison they must stand.
pub(crate) struct Family {
    pub(crate) folder: &'static str,
    /// Compares results with the oracle and the CPU path, credits them with [`agreed`], and returns their bytes. Panics when
    /// a comparison fails.
    pub(crate) compare: fn(&Maker<'_>, Scale) -> Vec<u8>,
    /// A change to a source that the comparison must notice.
    pub(crate) mutation: Mutation,
}

/// One change to one source.
pub(crate) struct Mutation {
    /// The file, relative to `kernels/`.
    pub(crate) file: &'static str,
    /// Text that is there exactly once.
    pub(crate) from: &'static str,
    /// What replaces it.
    pub(crate) to: &'static str,
}
