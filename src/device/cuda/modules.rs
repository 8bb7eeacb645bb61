//! Images of kernels, loaded into a context when they are first needed.

use std::{
    ffi::CString,
    ptr,
    sync::{Mutex, PoisonError},
};

use cudarc::driver::sys::{self, CUresult};

use super::driver::{Failure, call};
use crate::{
    Error, Result,
    device::kernel::{ARCHITECTURES, IMAGES, KERNELS},
};

/// The modules of one context; the driver unloads them with the context.
pub(super) struct Modules {
    /// The GPU and its compute capability, for messages.
    gpu: String,
    /// The most dynamic shared memory a block may ask for, in bytes.
    shared: i32,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    modules: Vec<Option<sys::CUmodule>>,
    functions: Vec<Option<sys::CUfunction>>,
}

impl Modules {
    pub(super) fn new(gpu: String, shared: i32) -> Self {
        let loaded = Loaded { modules: vec![None; IMAGES.len()], functions: vec![None; KERNELS.len()] };
        Self { gpu, shared, loaded: Mutex::new(loaded) }
    }

    /// Whether a kernel has an image at all.
    pub(super) fn check_built(&self, kernel: usize) -> Result<()> {
        let image = &IMAGES[KERNELS[kernel].image];
        if !image.fatbin.is_empty() {
            return Ok(());
        }
        let found = format!("{} was not compiled for GPUs", image.source);
        Err(Error::device(found, "run tools/setup or set NVCC, and build again"))
    }

    /// The function of a kernel that has an image. The context must be current.
    pub(super) fn function(&self, kernel: usize) -> Result<sys::CUfunction, Failure> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = loaded.functions[kernel] {
            return Ok(function);
        }
        let image = KERNELS[kernel].image;
        let module = match loaded.modules[image] {
            Some(module) => module,
            None => {
                let mut module = ptr::null_mut();
                // SAFETY: the context is current, and the image is a whole fatbin, whose length is in its header.
                unsafe { call!(cuModuleLoadData(&mut module, IMAGES[image].fatbin.as_ptr().cast())) }?;
                *loaded.modules[image].insert(module)
            }
        };
        let function = self.find(module, kernel)?;
        Ok(*loaded.functions[kernel].insert(function))
    }

    fn find(&self, module: sys::CUmodule, kernel: usize) -> Result<sys::CUfunction, Failure> {
        let name = CString::new(KERNELS[kernel].name).unwrap_or_default();
        let mut function = ptr::null_mut();
        // SAFETY: the module is loaded; the name is terminated.
        unsafe { call!(cuModuleGetFunction(&mut function, module, name.as_ptr())) }?;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function was just found.
        unsafe { call!(cuFuncSetAttribute(function, attribute, self.shared)) }?;
        Ok(function)
    }

    /// Why a kernel could not be loaded.
    pub(super) fn refused(&self, kernel: usize, failure: &Failure) -> Error {
        let (name, source) = (KERNELS[kernel].name, KERNELS[kernel].source);
        let built = ARCHITECTURES.join(", ");
        match failure.status {
            CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => Error::device(
                format!("kernel {name}: {source} has no image for {}; this build has {built}", self.gpu),
                "build again with LOWKEY_CUDA_ARCHS naming this GPU's architecture",
            ),
            _ => Error::device(
                format!("kernel {name} of {source} cannot be loaded on {}: {failure}", self.gpu),
                "check nvidia-smi",
            ),
        }
    }
}
