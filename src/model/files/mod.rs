//! Safetensors files and folders of them, checked before a byte of a tensor is used.

mod checkpoint;
mod header;
mod reader;
mod writer;

pub(crate) use checkpoint::Checkpoint;
pub use header::TensorInfo;
pub use reader::SafeFile;
pub use safetensors::Dtype as StoredDtype;
pub use writer::{Saved, replace, save};
