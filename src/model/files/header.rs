//! The header of a safetensors file: eight bytes of length, that many bytes of JSON, then the tensors back to back.
//!
//! Format: <https://huggingface.co/docs/safetensors/index>. Lengths are checked against the file before anything
//! of that length is allocated.

use std::{collections::BTreeMap, fs::File, ops::Range, os::unix::fs::FileExt, path::Path};

use safetensors::Dtype;
use serde_json::{Map, Value};

use crate::{Error, InputError, Result, model::json};

const LIMIT: u64 = 100_000_000;
const LENGTH_BYTES: u64 = 8;

/// What a header says about one tensor.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Element type in the file.
    pub dtype: Dtype,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Where the elements lie, in bytes from the start of the file.
    pub(super) range: Range<u64>,
}

impl TensorInfo {
    /// Elements in all; the header check made sure that the product does not wrap.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Reads and checks the header of `file`, which is `length` bytes long.
pub(super) fn read(file: &File, path: &Path, length: u64) -> Result<BTreeMap<String, TensorInfo>> {
    let at_least =
        |what: &str, bytes| InputError::new("file length", format!("{length} bytes"), format!("{what}{bytes}")).file(path);
    if length < LENGTH_BYTES {
        return Err(at_least("at least the header length of ", "8 bytes").hint("the file is empty or truncated").into());
    }
    let mut declared = [0; LENGTH_BYTES as usize];
    read_exact(file, path, "header length", &mut declared, 0, length)?;
    let declared = u64::from_le_bytes(declared);
    if declared > LIMIT || declared > length - LENGTH_BYTES {
        let limit = format!("at most {LIMIT} bytes and at most the {} bytes left in the file", length - LENGTH_BYTES);
        let hint = format!("the file is {length} bytes long; it is truncated or no safetensors file");
        return Err(InputError::new("header length", format!("{declared} bytes"), limit).file(path).hint(hint).into());
    }
    let mut text = vec![0; declared as usize];
    read_exact(file, path, "header", &mut text, LENGTH_BYTES, length)?;
    let text = String::from_utf8(text).map_err(|e| {
        let at = e.utf8_error().valid_up_to() as u64 + LENGTH_BYTES;
        InputError::new("header", format!("no UTF-8 at byte {at}"), "JSON").file(path)
    })?;
    tensors(json::parse_object(&text, path)?, path, LENGTH_BYTES + declared, length)
}

fn tensors(header: Map<String, Value>, path: &Path, start: u64, length: u64) -> Result<BTreeMap<String, TensorInfo>> {
    let mut tensors = BTreeMap::new();
    for (name, entry) in header {
        if name != "__metadata__" {
            let info = tensor(&name, &entry, start).map_err(|e| e.file(path))?;
            tensors.insert(name, info);
        }
    }
    covers_file(&tensors, start, length).map_err(|e| e.file(path))?;
    Ok(tensors)
}

fn tensor(name: &str, entry: &Value, start: u64) -> Result<TensorInfo, InputError> {
    let wrong =
        |what: &str, found: &Value, limit: &str| InputError::new(format!("tensor {name:?}, {what}"), clip(found), limit);
    let (dtype, shape, offsets) = (&entry["dtype"], &entry["shape"], &entry["data_offsets"]);
    let dtype = serde_json::from_value::<Dtype>(dtype.clone())
        .map_err(|_| wrong("dtype", dtype, "a safetensors dtype such as \"F32\""))?;
    let dims = numbers(shape).ok_or_else(|| wrong("shape", shape, "a list of whole numbers"))?;
    let [from, to] = numbers(offsets)
        .and_then(|o| <[u64; 2]>::try_from(o).ok())
        .ok_or_else(|| wrong("data_offsets", offsets, "two whole numbers"))?;
    let bits = dims.iter().try_fold(dtype.bitsize() as u64, |n, d| n.checked_mul(*d));
    // A zero elsewhere in the shape hides dimensions whose product wraps, so the others are multiplied as well.
    let hidden = dims.iter().filter(|d| **d > 0).try_fold(dtype.bitsize() as u64, |n, d| n.checked_mul(*d));
    let (Some(bits), Some(_)) = (bits, hidden) else {
        return Err(wrong("shape", shape, "fewer than 2^64 bits"));
    };
    let ends = from.checked_add(start).zip(to.checked_add(start)).filter(|_| from <= to);
    let Some((from, to)) = ends else {
        return Err(wrong("data_offsets", offsets, "an end at or after the start, within the file"));
    };
    if !bits.is_multiple_of(8) || bits / 8 != to - from {
        let found = format!("{} bytes in data_offsets", to - from);
        let limit = format!("{} bytes, which {dtype:?} {} takes", bits.div_ceil(8), clip(shape));
        return Err(InputError::new(format!("tensor {name:?}, byte count"), found, limit));
    }
    let shape = dims.iter().map(|d| usize::try_from(*d)).collect::<Result<_, _>>();
    Ok(TensorInfo {
        dtype,
        shape: shape.map_err(|_| wrong("shape", &entry["shape"], "sizes that fit memory"))?,
        range: from..to,
    })
}

fn numbers(list: &Value) -> Option<Vec<u64>> {
    list.as_array()?.iter().map(Value::as_u64).collect()
}

/// A hostile value is quoted, but not at any length.
fn clip(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Tensors must follow one another without overlap or gap and fill the file to its end.
fn covers_file(tensors: &BTreeMap<String, TensorInfo>, start: u64, length: u64) -> Result<(), InputError> {
    let mut order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    order.sort_by_key(|(_, info)| (info.range.start, info.range.end));
    let mut end = start;
    for (name, info) in order {
        if info.range.start != end {
            let what = if info.range.start < end { "overlapping the tensor before it" } else { "with a gap before it" };
            let found = format!("bytes {}..{} {what}", info.range.start, info.range.end);
            return Err(InputError::new(format!("tensor {name:?}, range"), found, format!("a start at byte {end}")));
        }
        end = info.range.end;
        if end > length {
            let found = format!("bytes {}..{end} in a file of {length} bytes", info.range.start);
            let limit = format!("a file of at least {end} bytes");
            return Err(
                InputError::new(format!("tensor {name:?}, range"), found, limit).hint("the file is truncated; fetch it again")
            );
        }
    }
    if end != length {
        let found = format!("{} bytes after the last tensor (bytes {end}..{length})", length - end);
        return Err(InputError::new("file length", found, format!("{end} bytes")));
    }
    Ok(())
}

/// Fills `to` from `offset`; a file that ends earlier than it did when it was opened is a named error.
pub(super) fn read_exact(file: &File, path: &Path, what: &str, to: &mut [u8], offset: u64, length: u64) -> Result<()> {
    file.read_exact_at(to, offset).map_err(|error| {
        if error.kind() != std::io::ErrorKind::UnexpectedEof {
            return Error::io(path, error);
        }
        let actual = file.metadata().map_or(0, |m| m.len());
        InputError::new(what, format!("a file of {actual} bytes"), format!("{length} bytes, as when it was opened"))
            .file(path)
            .hint("the file shrank while it was read")
            .into()
    })
}
