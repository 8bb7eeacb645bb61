//! A case: one line that says everything about a measurement, and the steps of measuring it.

use std::{fmt, str::FromStr};

use serde_json::{Map, Number, Value};

use super::{
    roofline,
    sweep::{self, Pair},
    timing::{self, Side},
};
use crate::{
    Device, Error, InputError, Result,
    report::{Baseline, Row},
};

/// A case as one line: `svd:data=power,batch=64,rows=2048,cols=128,rank=32,dtype=f32,seed=0`.
///
/// It needs no quotes in a shell; commas, percent signs, spaces and whatever else would in a value are written %2C.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Operation.
    pub op: String,
    fields: Vec<(String, Value)>,
}

impl Line {
    /// A line with no fields yet.
    pub fn new(op: &str) -> Self {
        Self { op: op.to_owned(), fields: Vec::new() }
    }

    /// Adds a field.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// The fields as a JSON object.
    pub fn params(&self) -> Map<String, Value> {
        self.fields.iter().cloned().collect()
    }

    /// Takes a field out; `None` when the line has none of this name.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        Some(match self.fields.remove(at).1 {
            Value::String(text) => text,
            other => other.to_string(),
        })
    }

    /// Takes out a field that must be there.
    ///
    /// # Errors
    /// [`Error::Input`] when it is not.
    pub fn need(&mut self, name: &str) -> Result<String> {
        let missing = || self.refuse(&format!("no {name}="), "every field that a printed case has");
        if self.fields.iter().all(|(field, _)| field != name) {
            return Err(missing());
        }
        Ok(self.take(name).unwrap_or_default())
    }

    /// Takes out a whole number within 1..=`limit` that must be there.
    ///
    /// # Errors
    /// [`Error::Input`] when it is not.
    pub fn count(&mut self, name: &str, limit: usize) -> Result<usize> {
        let text = self.need(name)?;
        let value = text.parse().ok().filter(|n| (1..=limit).contains(n));
        value.ok_or_else(|| self.refuse(&format!("{name}={text}"), &format!("a whole number from 1 to {limit}")))
    }

    /// Takes out a share between 0 and 1, both excluded, that must be there.
    ///
    /// # Errors
    /// [`Error::Input`] when it is not.
    pub fn share(&mut self, name: &str) -> Result<f64> {
        let text = self.need(name)?;
        let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
        share.ok_or_else(|| self.refuse(&format!("{name}={text}"), "a number between 0 and 1"))
    }

    /// Takes out a field that must parse.
    ///
    /// # Errors
    /// [`Error::Input`] when it is missing or does not; `limit` says what would.
    pub fn parsed<T: FromStr>(&mut self, name: &str, limit: &str) -> Result<T> {
        let text = self.need(name)?;
        text.parse().map_err(|_| self.refuse(&format!("{name}={text}"), limit))
    }

    /// Reads two numbers, `16/32`.
    ///
    /// # Errors
    /// [`Error::Input`] when `text` is something else.
    pub fn pair(&self, name: &str, text: &str) -> Result<Pair> {
        const MOST: usize = 1 << 12;
        match sweep::pairs("--only", text, MOST).as_deref() {
            Ok([pair]) => Ok(*pair),
            _ => Err(self.refuse(&format!("{name}={text}"), &format!("two numbers from 1 to {MOST}, like 16/32"))),
        }
    }

    /// Ends the reading of a line.
    ///
    /// # Errors
    /// [`Error::Input`] when a field is left over.
    pub fn finish(&self) -> Result<()> {
        match self.fields.first() {
            None => Ok(()),
            Some((name, _)) => Err(self.refuse(&format!("{name}="), "the fields that a printed case has")),
        }
    }

    /// An error about this line.
    pub fn refuse(&self, found: &str, limit: &str) -> Error {
        let error = InputError::new("--only", format!("{found} in a case of {}", self.op), limit);
        error.hint("paste a `case` from the output").into()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.op)?;
        for (i, (name, value)) in self.fields.iter().enumerate() {
            let separator = if i == 0 { ':' } else { ',' };
            match value {
                Value::String(text) => write!(f, "{separator}{name}={}", escaped(text))?,
                other => write!(f, "{separator}{name}={other}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Line {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |found: &str| -> Error {
            let error = InputError::new("--only", format!("{found:?}"), "a case: OP:NAME=VALUE,NAME=VALUE");
            error.hint("paste a `case` from the output").into()
        };
        let (op, fields) = text.trim().split_once(':').ok_or_else(|| refuse(text))?;
        let mut line = Self::new(op);
        for field in fields.split(',') {
            let (name, value) = field.split_once('=').ok_or_else(|| refuse(field))?;
            if line.fields.iter().any(|(other, _)| other == name) {
                return Err(refuse(&format!("{name} twice")));
            }
            let value = unescaped(value).ok_or_else(|| refuse(field))?;
            line.fields.push((name.to_owned(), value.into()));
        }
        Ok(line)
    }
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/+@:".contains(&byte)
}

fn escaped(text: &str) -> String {
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let code = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Whether a result is right, and how far it is from exact.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Right within the limits that its case states.
    pub passed: bool,
    /// Figures by name.
    pub error: Vec<(&'static str, f64)>,
    /// What else was found, by name: bytes kept, ranks.
    pub figures: Vec<(&'static str, f64)>,
    /// What a reader must know.
    pub note: Option<String>,
}

/// Least work that a call has to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Bytes read and written when everything is touched once.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

/// Something that can be checked and then timed.
pub trait Case {
    /// Its line.
    fn line(&self) -> Line;
    /// Parameters to print beside those of the line.
    fn about(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Element type of its input.
    fn dtype(&self) -> String;
    /// Computes once and holds the result against an oracle.
    ///
    /// # Errors
    /// Whatever the computation returns; the case then counts as wrong.
    fn verify(&mut self) -> Result<Verdict>;
    /// Least work of a call.
    fn work(&self) -> Work;
    /// Name of the rival, if there is one.
    fn baseline(&self) -> Option<String>;
    /// One call of ours or of the rival.
    ///
    /// # Errors
    /// Whatever the computation returns.
    fn call(&mut self, side: Side) -> Result<()>;
}

/// Verifies a case and, if it is right, times it beside its rival. The inner error says why the case does not apply: what
/// the operation answered that does not take such arguments on this device.
///
/// # Errors
/// Whatever a timed call returns; a failure while verifying becomes the row's note.
pub fn measure(
    case: &mut dyn Case,
    device: &Device,
    limits: &timing::Limits,
    best: &roofline::Limits,
) -> Result<std::result::Result<Row, String>> {
    let line = case.line();
    let verdict = match case.verify() {
        Ok(verdict) => verdict,
        Err(error) if error.is_refusal() => return Ok(Err(error.to_string())),
        Err(error) => Verdict { note: Some(error.to_string()), ..Verdict::default() },
    };
    let mut row = untimed(line, case.about(), case.dtype(), device, verdict, case.work());
    if !row.verified {
        return Ok(Ok(row));
    }
    let (work, rival) = (case.work(), case.baseline());
    let (ours, theirs) = timing::race(limits, rival.is_some(), &mut |side| case.call(side), &|| device.synchronize())?;
    row.seconds = Some(ours);
    row.roofline = best.judge(work.bytes, work.flops, ours.median);
    row.baseline = rival.zip(theirs).map(|(name, t)| Baseline { name, seconds: t.median, ratio: t.median / ours.median });
    Ok(Ok(row))
}

/// The row of a case that has no time, or none yet.
pub(super) fn untimed(
    line: Line,
    about: Vec<(&'static str, String)>,
    dtype: String,
    device: &Device,
    verdict: Verdict,
    work: Work,
) -> Row {
    let mut params = line.params();
    params.extend(about.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
    Row {
        case: line.to_string(),
        op: line.op,
        params,
        device: device.to_string(),
        dtype,
        verified: verdict.passed,
        error: named(verdict.error),
        figures: named(verdict.figures),
        seconds: None,
        bytes: work.bytes,
        flops: work.flops,
        roofline: None,
        baseline: None,
        note: verdict.note,
    }
}

/// Figures as JSON, which has no NaN and no infinity; they become null.
fn named(figures: Vec<(&'static str, f64)>) -> Map<String, Value> {
    let number = |value| Number::from_f64(value).map_or(Value::Null, Value::Number);
    figures.into_iter().map(|(name, value)| (name.to_owned(), number(value))).collect()
}
