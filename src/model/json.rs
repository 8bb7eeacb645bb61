//! Text and JSON files that may be hostile: bounded in size and depth, UTF-8, every key once.

use std::{fmt, fs::File, io::Read, path::Path};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::{Error, InputError, Result};

/// The whole of a text file of at most `limit` bytes.
///
/// # Errors
/// [`Error::Input`] when it is no plain file, is empty, is longer than `limit`, or is not UTF-8; [`Error::Io`] when
/// the system refuses.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    let length = plain_file_length(path)?;
    let too_long = |length| InputError::new("length", format!("{length} bytes"), format!("at most {limit} bytes")).file(path);
    if length > limit {
        return Err(too_long(length).into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // One byte more than allowed, so that a file that grew since is noticed.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > limit {
        return Err(too_long(bytes.len() as u64).into());
    }
    if bytes.is_empty() {
        return Err(InputError::new("length", "0 bytes", "text").file(path).hint("the file is empty").into());
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let byte = e.as_bytes()[at];
        InputError::new("text", format!("byte {byte:#04x} at offset {at}"), "UTF-8 text").file(path).into()
    })
}

/// Length of a plain file; a folder, pipe or device is refused before it is opened.
pub(crate) fn plain_file_length(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    let found = if metadata.is_dir() { "a folder" } else { "not a plain file" };
    Err(InputError::new("file type", found, "a file").file(path).into())
}

/// A JSON file whose top level is an object.
pub(crate) fn read_object(path: &Path, limit: u64) -> Result<Map<String, Value>> {
    parse_object(&read_text(path, limit)?, path)
}

/// The object that `text`, read from `path`, holds.
pub(crate) fn parse_object(text: &str, path: &Path) -> Result<Map<String, Value>> {
    match serde_json::from_str::<Strict>(text) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        Ok(_) => Err(InputError::new("top level", "no object", "a JSON object").file(path).into()),
        Err(error) => Err(syntax_error(text, &error).file(path).into()),
    }
}

/// Names the key nearest before the fault, since that is what the reader looks for.
fn syntax_error(text: &str, error: &serde_json::Error) -> InputError {
    let line_start = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let mut at = (line_start + error.column()).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = text[..at].trim_end();
    // A key met twice is reported right after it; anything else within the value of the last key.
    let end = if before.ends_with('"') { Some(before.len() - 1) } else { before.rfind("\":") };
    let key = end.and_then(|end| Some(&text[text[..end].rfind('"')? + 1..end]));
    let field = key.filter(|key| key.len() <= 80).unwrap_or("JSON");
    InputError::new(field, error, "well-formed JSON, every key once, at most 127 levels deep, finite numbers")
}

/// A JSON value in which no object has a key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("key {key:?} twice")));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
