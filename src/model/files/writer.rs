//! Writing files whole: to a temporary file beside the target, synced, then renamed over it.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use safetensors::{Dtype, View};

use crate::{Error, InputError, Result, Tensor};

/// A tensor on its way into a file.
pub struct Saved {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Saved {
    /// Numbers, stored as I64.
    ///
    /// # Errors
    /// [`Error::Shape`] when they do not fill `shape`.
    pub fn integers(numbers: &[i64], shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != numbers.len() {
            return Err(Error::shape("files::Saved", format!("{} numbers", numbers.len()), format!("shape {shape:?}")));
        }
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        Ok(Self { dtype: Dtype::I64, shape: shape.to_vec(), bytes })
    }

    /// A copy of a tensor in its own dtype. Not for int4, which safetensors cannot hold.
    ///
    /// # Errors
    /// [`Error::Dtype`] for int4.
    pub fn tensor(tensor: &Tensor) -> Result<Self> {
        use crate::Dtype as D;
        let dtype = match tensor.dtype() {
            D::F32 => Dtype::F32,
            D::F16 => Dtype::F16,
            D::BF16 => Dtype::BF16,
            D::I8 => Dtype::I8,
            D::I4 => {
                return Err(Error::Dtype { op: "files::Saved", found: D::I4, expected: &[D::F32, D::F16, D::BF16, D::I8] });
            }
        };
        let bytes = tensor.contiguous()?.rows()?.collect::<Vec<_>>().concat();
        Ok(Self { dtype, shape: tensor.shape().to_vec(), bytes })
    }
}

impl View for &Saved {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors to a safetensors file; an older file at `path` stays whole until the new one is.
///
/// # Errors
/// [`Error::Io`] when the system refuses; [`Error::Input`] when the tensors do not make a safetensors file.
pub fn save(path: &Path, tensors: &[(String, Saved)]) -> Result<()> {
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let views = tensors.iter().map(|(name, saved)| (name.as_str(), saved));
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| InputError::new("tensors", e, "").file(path))?;
    replace(path, |file| file.write_all(&bytes))
}

/// Writes a file through `fill`; an older file at `path` stays whole until the new one is, and no half-written file
/// is left when `fill` fails.
///
/// # Errors
/// [`Error::Io`] when the system refuses.
pub fn replace(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let temporary = beside(path)?;
    let written = File::create_new(&temporary)
        .and_then(|mut file| fill(&mut file).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(folder(path))?.sync_all());
    written.map_err(|error| {
        // Nothing is lost if this fails as well: the file has a name of its own and is never read.
        let _ = fs::remove_file(&temporary);
        Error::io(path, error)
    })
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(path: &Path) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().filter(|_| !path.is_dir());
    let name = name.ok_or_else(|| InputError::new("file type", "a folder", "a file to write").file(path))?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = format!(".{}.{}-{count}.partial", name.to_string_lossy(), std::process::id());
    Ok(folder(path).join(temporary))
}
