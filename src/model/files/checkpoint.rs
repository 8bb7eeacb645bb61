//! The weights of a model folder: one safetensors file, or shards that an index names.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Component, Path, PathBuf},
};

use serde_json::Value;

use super::SafeFile;
use crate::{Device, Dtype, Error, InputError, Result, Tensor, device::simd, model::json};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const INDEX_LIMIT: u64 = 64 << 20;

/// Every tensor of a model folder, wherever it lies.
pub(crate) struct Checkpoint {
    folder: PathBuf,
    files: Vec<SafeFile>,
    file_of: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens the files of `folder` and checks their headers.
    pub(crate) fn open(folder: &Path, allow_nonfinite: bool) -> Result<Self> {
        let mut checkpoint = Self { folder: folder.to_path_buf(), files: Vec::new(), file_of: HashMap::new() };
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.exists() {
            checkpoint.add(&single, allow_nonfinite)?;
        } else if index.exists() {
            checkpoint.add_shards(&index, allow_nonfinite)?;
        } else {
            let hint = "weights in other formats (.bin, .gguf) must be converted to safetensors first";
            return Err(InputError::new("weights", "none", format!("{SINGLE} or {INDEX}")).file(folder).hint(hint).into());
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: &Path, allow_nonfinite: bool) -> Result<()> {
        let file = SafeFile::open(path)?.allow_nonfinite(allow_nonfinite);
        for (name, _) in file.tensors() {
            if let Some(other) = self.file_of.insert(name.to_string(), self.files.len()) {
                let found = format!("in {} as well", self.files[other].path().display());
                return Err(InputError::new(format!("tensor {name:?}"), found, "each tensor in one shard").file(path).into());
            }
        }
        self.files.push(file);
        Ok(())
    }

    fn add_shards(&mut self, index: &Path, allow_nonfinite: bool) -> Result<()> {
        let wrong = |field: &str, found: &str, limit: &str| Error::from(InputError::new(field, found, limit).file(index));
        let object = json::read_object(index, INDEX_LIMIT)?;
        let Some(Value::Object(map)) = object.get("weight_map") else {
            return Err(wrong("weight_map", "none", "an object of tensor names and files"));
        };
        let mut tensors_of = BTreeMap::<&str, Vec<&str>>::new();
        for (tensor, shard) in map {
            let shard = shard.as_str().ok_or_else(|| wrong(tensor, &shard.to_string(), "a file name"))?;
            tensors_of.entry(shard).or_default().push(tensor);
        }
        if tensors_of.is_empty() {
            return Err(wrong("weight_map", "no tensors", "at least one"));
        }
        for (shard, tensors) in tensors_of {
            self.add(&shard_path(index, &self.folder, shard)?, allow_nonfinite)?;
            let absent = tensors.iter().find(|tensor| self.file_of.get(**tensor) != Some(&(self.files.len() - 1)));
            if let Some(tensor) = absent {
                return Err(wrong(tensor, &format!("{shard:?}, which does not hold it"), "the shard that holds it"));
            }
        }
        Ok(())
    }

    /// Length of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(SafeFile::length).sum()
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.file_of.contains_key(name)
    }

    /// Reads a tensor of exactly this shape, widened to f32.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor> {
        let Some(file) = self.file_of.get(name).map(|i| &self.files[*i]) else {
            let found = format!("none of that name among {} tensors", self.file_of.len());
            let hint = "config.json and the weights may belong to different models";
            return Err(InputError::new(format!("tensor {name:?}"), found, "").file(&self.folder).hint(hint).into());
        };
        let stored = file.get(name).map(|info| info.shape.as_slice());
        if let Some(found) = stored.filter(|found| *found != shape) {
            let limit = format!("{shape:?}, as config.json says");
            let error = InputError::new(format!("tensor {name:?}, shape"), format!("{found:?}"), limit);
            return Err(error.file(file.path()).into());
        }
        let tensor = file.read(name, device)?;
        if tensor.dtype() == Dtype::F32 {
            return Ok(tensor);
        }
        let mut wide = Tensor::zeros(shape, Dtype::F32, device)?;
        simd::widen(tensor.dtype(), tensor.bytes_ref()?, wide.slice_mut()?);
        Ok(wide)
    }
}

/// Where a shard lies: a plain name, in the folder itself, links followed.
fn shard_path(index: &Path, folder: &Path, shard: &str) -> Result<PathBuf> {
    let outside = |hint: &str| {
        let limit = "the name of a file in the same folder";
        Error::from(InputError::new("weight_map", format!("{shard:?}"), limit).file(index).hint(hint))
    };
    let mut parts = Path::new(shard).components();
    if !matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == shard) {
        return Err(outside("paths that lead elsewhere are not followed"));
    }
    let path = folder.join(shard);
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(outside("the shard is missing")),
        Err(error) => return Err(Error::io(path, error)),
    };
    if real.parent() != Some(&*folder.canonicalize().map_err(|e| Error::io(folder, e))?) {
        return Err(outside("a link out of the folder is not followed; copy the file"));
    }
    Ok(path)
}
