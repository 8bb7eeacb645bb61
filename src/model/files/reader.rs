//! Reading tensors of one safetensors file.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use super::header::{self, TensorInfo};
use crate::{Device, Dtype, Error, InputError, Result, Tensor, model::json};

/// A safetensors file whose header has been checked. Tensors are read one by one into memory of their own; the file
/// is not mapped, since a mapped file that shrinks kills the process.
#[derive(Debug)]
pub struct SafeFile {
    path: PathBuf,
    file: File,
    length: u64,
    tensors: BTreeMap<String, TensorInfo>,
    allow_nonfinite: bool,
}

impl SafeFile {
    /// Opens a file and checks its header against its length.
    ///
    /// # Errors
    /// [`Error::Input`] naming the field that is wrong; [`Error::Io`] when the system refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        json::plain_file_length(path)?;
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let tensors = header::read(&file, path, length)?;
        Ok(Self { path: path.to_path_buf(), file, length, tensors, allow_nonfinite: false })
    }

    /// Whether [`SafeFile::read`] lets NaN and Inf pass; it does not unless told to.
    pub fn allow_nonfinite(mut self, allow: bool) -> Self {
        self.allow_nonfinite = allow;
        self
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Every tensor, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// What the header says about `name`, if the file has it.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Reads a floating-point tensor in its own dtype (f32, f16 or bf16).
    ///
    /// # Errors
    /// [`Error::Input`] when there is no such tensor, its dtype is another, it holds a NaN or Inf (unless allowed), or
    /// the file shrank; [`Error::Device`] when the memory is not to be had.
    pub fn read(&self, name: &str, device: &Device) -> Result<Tensor> {
        let info = self.expect(name)?;
        let dtype = match info.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::BF16,
            other => return Err(self.wrong_dtype(name, other, "F32, F16 or BF16")),
        };
        let mut tensor = Tensor::zeros(&info.shape, dtype, device)?;
        header::read_exact(&self.file, &self.path, name, tensor.bytes_mut()?, info.range.start, self.length)?;
        if !self.allow_nonfinite {
            self.expect_finite(name, &tensor)?;
        }
        Ok(tensor)
    }

    /// Reads an integer tensor (I64 or I32) of at most `limit` elements as 64-bit numbers, with its shape.
    ///
    /// # Errors
    /// [`Error::Input`] when there is no such tensor, its dtype is another, it has more elements, or the file shrank.
    pub fn read_integers(&self, name: &str, limit: usize) -> Result<(Vec<i64>, Vec<usize>)> {
        let info = self.expect(name)?;
        if !matches!(info.dtype, safetensors::Dtype::I64 | safetensors::Dtype::I32) {
            return Err(self.wrong_dtype(name, info.dtype, "I64 or I32"));
        }
        if info.elements() > limit {
            let found = format!("{:?}, {} elements", info.shape, info.elements());
            let limit = format!("at most {limit} elements");
            return Err(InputError::new(format!("tensor {name:?}, shape"), found, limit).file(&self.path).into());
        }
        let mut bytes = vec![0; (info.range.end - info.range.start) as usize];
        header::read_exact(&self.file, &self.path, name, &mut bytes, info.range.start, self.length)?;
        let numbers = match info.dtype {
            safetensors::Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            _ => bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        };
        Ok((numbers, info.shape.clone()))
    }

    fn expect(&self, name: &str) -> Result<&TensorInfo> {
        self.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.tensors.keys().take(6).map(String::as_str).collect();
            let more = if self.tensors.len() > names.len() { ", ..." } else { "" };
            let hint = format!("the file holds {} tensors: {}{more}", self.tensors.len(), names.join(", "));
            InputError::new(format!("tensor {name:?}"), "none of that name", "").file(&self.path).hint(hint).into()
        })
    }

    fn wrong_dtype(&self, name: &str, found: safetensors::Dtype, expected: &str) -> Error {
        InputError::new(format!("tensor {name:?}, dtype"), format!("{found:?}"), expected).file(&self.path).into()
    }

    fn expect_finite(&self, name: &str, tensor: &Tensor) -> Result<()> {
        let found = match tensor.dtype() {
            Dtype::F32 => tensor.slice::<f32>()?.iter().position(|x| !x.is_finite()),
            Dtype::F16 => tensor.slice::<half::f16>()?.iter().position(|x| !x.is_finite()),
            _ => tensor.slice::<half::bf16>()?.iter().position(|x| !x.is_finite()),
        };
        let Some(index) = found else { return Ok(()) };
        let value = tensor.reshape(&[tensor.len()])?.narrow(0, index, 1)?.to_f32_vec()?[0];
        Err(InputError::new(format!("tensor {name:?}, element {index}"), value, "finite numbers")
            .file(&self.path)
            .hint("--allow-nonfinite goes on regardless")
            .into())
    }
}
