//! The emulator's table of functions, as `kernels/emulator/api.h` declares it.

use std::ffi::{c_char, c_void};

/// The version of this layout.
pub(super) const ABI: u32 = 3;

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Site {
    pub(super) file: *const c_char,
    pub(super) kind: *const c_char,
    pub(super) line: u32,
    pub(super) reserved: u32,
}

#[repr(C)]
pub(super) struct Launch {
    pub(super) kernel: *const c_char,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u64,
    pub(super) params: *const c_void,
    pub(super) params_bytes: u64,
    pub(super) schedule: u64,
    pub(super) os_threads: u32,
    pub(super) arch: u32,
    pub(super) skip_file: *const c_char,
    pub(super) skip_line: u32,
    pub(super) trace: u32,
    /// Counters nobody here reads: null.
    pub(super) stats: *mut c_void,
    pub(super) error: *mut c_char,
    pub(super) error_bytes: u64,
}

#[repr(C)]
pub(super) struct Api {
    pub(super) abi: u32,
    pub(super) reserved: u32,
    pub(super) kernel_count: unsafe extern "C" fn() -> u32,
    pub(super) kernel: unsafe extern "C" fn(u32, *mut c_void) -> i32,
    pub(super) launch: unsafe extern "C" fn(*const Launch) -> i32,
    pub(super) alloc: unsafe extern "C" fn(u64) -> *mut c_void,
    pub(super) free: unsafe extern "C" fn(*mut c_void) -> i32,
    pub(super) checked: unsafe extern "C" fn() -> i32,
    pub(super) sites: unsafe extern "C" fn(*mut Site, u64) -> u64,
    pub(super) reset_sites: unsafe extern "C" fn(),
    pub(super) trim: unsafe extern "C" fn(),
    pub(super) tensor_map: unsafe extern "C" fn(*mut c_void, *mut c_void, u32, u64, u64, u64, u32, u32, u32) -> i32,
}

#[cfg(lowkey_emulator)]
unsafe extern "C" {
    pub(super) fn lowkey_emulator() -> *const Api;
}
