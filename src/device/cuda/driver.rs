//! The NVIDIA driver, found at run time, and its answers as errors.

use std::{
    ffi::{CStr, c_char},
    fmt, ptr,
};

use cudarc::driver::sys::{self, CUresult};

use crate::{Error, Result};

/// The CUDA version that the installed driver supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// What the images of this crate are compiled for; driver 580 brought it.
const NEEDED: Driver = Driver { major: 13, minor: 0 };

/// Every symbol that `cuda/` calls. cudarc panics on one that is missing, so they are looked up first.
const SYMBOLS: [&str; 40] = [
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetDefaultMemPool",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAllocAsync",
    "cuMemFreeAsync",
    "cuMemGetInfo_v2",
    "cuMemPoolSetAttribute",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuPointerGetAttribute",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuTensorMapEncodeTiled",
];

/// The installed NVIDIA driver, or `None` when this machine has none that answers.
pub fn driver() -> Option<Driver> {
    // SAFETY: only looks for the library; cudarc panics on any other call when it is missing.
    if !unsafe { sys::is_culib_present() } || !has("cuDriverGetVersion") {
        return None;
    }
    let mut version = 0;
    // SAFETY: the library and the symbol are present; the call needs no initialised driver and writes one int.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) };
    let version = u32::try_from(version).ok()?;
    (status == CUresult::CUDA_SUCCESS).then_some(Driver { major: version / 1000, minor: version % 1000 / 10 })
}

/// Whether the driver exports a symbol. Only once the library is known to be present.
fn has(symbol: &str) -> bool {
    // SAFETY: the library is present; the symbol is looked up as an address and not called.
    unsafe { sys::culib().get::<*const ()>(symbol.as_bytes()).is_ok() }
}

/// Makes the driver ready for `device`, or says what is missing.
pub(super) fn initialise(device: &str) -> Result<()> {
    let remedy = "install NVIDIA driver 580 (CUDA 13.0) or newer, or use --device cpu";
    let Some(found) = driver() else {
        let found = format!("device {device}: this machine has no NVIDIA driver (libcuda was not found)");
        return Err(Error::device(found, remedy));
    };
    if found < NEEDED {
        let found = format!("device {device}: the NVIDIA driver is for CUDA {found}, and CUDA {NEEDED} is needed");
        return Err(Error::device(found, remedy));
    }
    if let Some(missing) = SYMBOLS.iter().find(|symbol| !has(symbol)) {
        return Err(Error::device(format!("device {device}: the NVIDIA driver has no {missing}"), remedy));
    }
    // SAFETY: the library and the symbol are present.
    match unsafe { sys::cuInit(0) } {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_NO_DEVICE => Err(Error::device(
            format!("device {device}: the NVIDIA driver is there, and no GPU"),
            "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu",
        )),
        status => Err(Error::device(
            format!("device {device}: the NVIDIA driver does not start ({})", name(status)),
            "check nvidia-smi; a driver update may need a reboot",
        )),
    }
}

/// A driver call that did not succeed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) call: &'static str,
    pub(super) status: CUresult,
}

impl Failure {
    /// Whether the context is lost: every later call fails as well.
    pub(super) fn is_sticky(&self) -> bool {
        use CUresult as E;
        matches!(
            self.status,
            E::CUDA_ERROR_ILLEGAL_ADDRESS
                | E::CUDA_ERROR_LAUNCH_TIMEOUT
                | E::CUDA_ERROR_ASSERT
                | E::CUDA_ERROR_HARDWARE_STACK_ERROR
                | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
                | E::CUDA_ERROR_MISALIGNED_ADDRESS
                | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
                | E::CUDA_ERROR_INVALID_PC
                | E::CUDA_ERROR_LAUNCH_FAILED
                | E::CUDA_ERROR_ECC_UNCORRECTABLE
                | E::CUDA_ERROR_CONTEXT_IS_DESTROYED
                | E::CUDA_ERROR_UNKNOWN
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} says {}", self.call, name(self.status))
    }
}

/// The driver's name of a status.
fn name(status: CUresult) -> String {
    let mut text: *const c_char = ptr::null();
    // SAFETY: the library is present wherever a status came from; the call stores a pointer to a static string.
    let known = has("cuGetErrorName") && unsafe { sys::cuGetErrorName(status, &mut text) } == CUresult::CUDA_SUCCESS;
    if !known || text.is_null() {
        return format!("status {}", status as i32);
    }
    // SAFETY: a static, terminated string, as the driver promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// `Ok` for success, else which call failed and how.
pub(super) fn check(call: &'static str, status: CUresult) -> Result<(), Failure> {
    if status == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(Failure { call, status }) }
}

/// Calls a driver function, which is unsafe, and checks its status.
macro_rules! call {
    ($function:ident($($arg:expr),* $(,)?)) => {
        $crate::device::cuda::driver::check(stringify!($function), cudarc::driver::sys::$function($($arg),*))
    };
}
pub(super) use call;
