//! What can be learned about the NVIDIA driver without linking it.

use std::fmt;

use cudarc::driver::sys;

/// The CUDA version that the installed driver supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Major CUDA version.
    pub major: u32,
    /// Minor CUDA version.
    pub minor: u32,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The installed NVIDIA driver, or `None` when this machine has none that answers.
pub fn driver() -> Option<Driver> {
    // SAFETY: only looks for the library; cudarc panics on any other call when it is missing.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let mut version = 0;
    // SAFETY: the library is present; the call needs no initialised driver and writes one int.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) };
    let version = u32::try_from(version).ok()?;
    (status == sys::CUresult::CUDA_SUCCESS).then_some(Driver { major: version / 1000, minor: version % 1000 / 10 })
}
