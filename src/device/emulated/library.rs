//! An emulator in memory: the one linked into the crate, or one loaded from a file.

use std::{ffi::CStr, path::Path};

use super::{
    Site,
    api::{self, Api},
};
use crate::{
    Error, Result,
    device::{TileMap, tile_map::Tiles},
};

/// What a launch returns when the kernel broke a rule; 2 says that it was refused.
const FAULT: i32 = 1;

/// An emulator and the kernels compiled into it.
pub(super) struct Library {
    api: &'static Api,
    /// Whether it was loaded from a file.
    loaded: bool,
}

// SAFETY: the emulator serialises its own state.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// The emulator linked into this crate.
    pub(super) fn linked() -> Result<Self> {
        #[cfg(lowkey_emulator)]
        {
            // SAFETY: the function takes nothing and returns a static table.
            Self::of_table(unsafe { api::lowkey_emulator() }, false)
        }
        #[cfg(not(lowkey_emulator))]
        Err(Error::device(
            "device emulated: this build has no emulator (no C++ compiler was found when it was built)",
            "install g++ 12 or newer (on Debian: apt-get install g++) or set CXX, and build again, or use --device cpu",
        ))
    }

    /// An emulator in a shared library, with the kernels compiled into it.
    pub(super) fn load(path: &Path) -> Result<Self> {
        let refused = |error: libloading::Error| {
            Error::device(format!("emulator {}: {error}", path.display()), "see docs/emulator.md for how one is compiled")
        };
        // SAFETY: loading runs constructors that register kernels and touch nothing else.
        let file = unsafe { libloading::Library::new(path) }.map_err(refused)?;
        // SAFETY: the symbol has this type in every emulator; the version is checked before anything else is read.
        let table = unsafe {
            let entry = file.get::<unsafe extern "C" fn() -> *const Api>(b"lowkey_emulator").map_err(refused)?;
            entry()
        };
        // Never unloaded: its handler of invalid accesses stays installed, and another may have been put on top of it.
        std::mem::forget(file);
        Self::of_table(table, true)
    }

    fn of_table(table: *const Api, loaded: bool) -> Result<Self> {
        // SAFETY: null or a static table whose first member is its version in every version.
        let abi = if table.is_null() { 0 } else { unsafe { (*table).abi } };
        if abi != api::ABI {
            let found = format!("an emulator with interface {abi}, and {} is needed", api::ABI);
            return Err(Error::device(found, "compile it again"));
        }
        // SAFETY: static, in this program or in a library that is never unloaded.
        Ok(Self { api: unsafe { &*table }, loaded })
    }

    /// Whether kernels were compiled with the race checker.
    pub(super) fn is_checked(&self) -> bool {
        // SAFETY: takes nothing, reads a constant.
        unsafe { (self.api.checked)() != 0 }
    }

    /// Memory that ends at a guard page, or `None`.
    pub(super) fn alloc(&self, bytes: usize) -> Option<u64> {
        // SAFETY: any size is fine.
        let memory = unsafe { (self.api.alloc)(bytes as u64) };
        (!memory.is_null()).then_some(memory as u64)
    }

    /// Whether nothing was written around the memory.
    pub(super) fn free(&self, address: u64) -> bool {
        // SAFETY: an address that `alloc` gave; others are refused.
        unsafe { (self.api.free)(address as *mut _) == 0 }
    }

    /// Runs a kernel; the error is the emulator's text, and whether anything was run.
    ///
    /// # Safety
    /// The parameters' addresses must be memory of this process that the kernel may use as it does.
    pub(super) unsafe fn launch(&self, launch: &mut api::Launch) -> Result<(), (String, bool)> {
        let mut text = vec![0u8; 4096];
        launch.error = text.as_mut_ptr().cast();
        launch.error_bytes = text.len() as u64;
        // SAFETY: the caller answers for the parameters; text outlives the call.
        let status = unsafe { (self.api.launch)(launch) };
        if status == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&text).map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned());
        Err((text, status == FAULT))
    }

    /// A map with tiles swizzled by 128 bytes, or `None` where a GPU would refuse it.
    pub(super) fn tile_map(&self, tiles: &Tiles) -> Option<TileMap> {
        let mut map = TileMap([0; 16]);
        let element = tiles.dtype.bits() as u32 / 8;
        let [rows, columns] = tiles.tile;
        // SAFETY: as many bytes are written as a map has; the address is noted and not followed.
        let done = unsafe {
            (self.api.tensor_map)(
                std::ptr::from_mut(&mut map).cast(),
                tiles.address as *mut _,
                element,
                tiles.rows,
                tiles.columns,
                tiles.row_bytes,
                rows,
                columns,
                128,
            )
        };
        (done == 0).then_some(map)
    }

    pub(super) fn reset_sites(&self) {
        // SAFETY: takes nothing.
        unsafe { (self.api.reset_sites)() }
    }

    /// The places that ordered threads or memory in traced launches since `reset_sites`.
    pub(super) fn sites(&self) -> Vec<Site> {
        let empty = api::Site { file: std::ptr::null(), kind: std::ptr::null(), line: 0, reserved: 0 };
        // SAFETY: nothing is written for a capacity of zero.
        let count = unsafe { (self.api.sites)(std::ptr::null_mut(), 0) } as usize;
        let mut raw = vec![empty; count];
        // SAFETY: at most as many sites are written as there is room.
        let written = unsafe { (self.api.sites)(raw.as_mut_ptr(), count as u64) } as usize;
        raw.truncate(written);
        // SAFETY: strings of the library, terminated, alive as long as it.
        let text = |text| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        raw.iter().map(|site| Site { file: text(site.file), line: site.line, kind: text(site.kind) }).collect()
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if self.loaded {
            // SAFETY: only what no launch is using is given back.
            unsafe { (self.api.trim)() }
        }
    }
}
