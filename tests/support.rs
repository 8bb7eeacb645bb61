//! What tests of kernels share: which device they run on.

use std::env;

use lowkey::Device;

/// The device whose kernels are tested: `LOWKEY_TEST_DEVICE`, else a new emulated one.
pub(crate) fn device() -> Device {
    env::var("LOWKEY_TEST_DEVICE").map_or_else(|_| Device::emulated(), |name| name.parse()).unwrap()
}
