//! The engine of `kvbench`: plans cases, makes their data, checks each result against an f64 oracle, times what is
//! right beside its rival, and says how near the device's measured limits it came.

mod accuracy;
pub mod attention;
mod capture;
mod case;
mod data;
pub mod doctor;
mod factors;
mod host;
mod limits;
pub mod linear;
pub mod mask;
mod moved;
mod oracle;
mod params;
pub mod roofline;
mod roofline_gpu;
mod spectrum;
pub mod svd;
pub mod sweep;
pub mod timing;
mod tokens;

use std::path::PathBuf;

pub use case::{Case, Line, Verdict, Work, measure};
use data::Inputs;

use crate::{
    Device, Dtype, Error, InputError, Result,
    device::Kind,
    report::{DeviceInfo, Document, Row, SCHEMA, Skipped},
};

/// The model whose cache is measured when nothing else is asked for.
pub const REAL_MODEL: &str = "tinyshakespeare-llama";

/// What to measure.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where.
    pub device: Device,
    /// Element types; `None` for what is natural to an operation.
    pub dtypes: Option<Vec<Dtype>>,
    /// A safetensors file to take matrices from; attention and linear layers, which need more than those, are then left out.
    pub input: Option<PathBuf>,
    /// Whether a file may hold NaN and Inf.
    pub allow_nonfinite: bool,
    /// One case, as a row names it; everything else about cases is then ignored.
    pub only: Option<String>,
    /// Seed of synthetic data.
    pub seed: u64,
    /// Fewer cases and runs.
    pub quick: bool,
    /// The accuracy of truncated SVD over a grid of spectra, conditions, shapes and dtypes, and nothing else.
    pub accuracy: bool,
    /// Cases of truncated SVD.
    pub svd: Option<svd::Sweep>,
    /// Cases of attention.
    pub attention: Option<attention::Sweep>,
    /// Cases of linear layers.
    pub linear: Option<linear::Sweep>,
    /// Cases of masks.
    pub mask: Option<mask::Sweep>,
}

/// Hears how a run goes.
pub trait Watcher {
    /// So many cases are to come.
    fn begin(&mut self, cases: usize);
    /// What is being done.
    fn doing(&mut self, what: &str);
    /// Something the user should read.
    fn say(&mut self, line: &str);
    /// A case is done.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn done(&mut self, row: &Row) -> Result<()>;
}

/// A case with its data, or why it does not apply.
type Prepared<T> = std::result::Result<T, String>;

enum Planned {
    Svd(svd::Spec),
    Attention(attention::Spec),
    Linear(linear::Spec),
    Mask(mask::Spec),
}

impl Planned {
    fn parse(text: &str) -> Result<Self> {
        let line: Line = text.parse()?;
        match line.op.as_str() {
            "svd" => svd::Spec::parse(line).map(Self::Svd),
            "attention" => attention::Spec::parse(line).map(Self::Attention),
            "linear" => linear::Spec::parse(line).map(Self::Linear),
            "mask" => mask::Spec::parse(line).map(Self::Mask),
            _ => Err(line.refuse("an unknown operation", "svd, svd-accuracy, attention, linear or mask")),
        }
    }

    fn line(&self) -> Line {
        match self {
            Self::Svd(spec) => spec.line(),
            Self::Attention(spec) => spec.line(),
            Self::Linear(spec) => spec.line(),
            Self::Mask(spec) => spec.line(),
        }
    }

    fn prepare(&self, inputs: &mut Inputs) -> Result<Prepared<Box<dyn Case>>> {
        Ok(match self {
            Self::Svd(spec) => spec.prepare(inputs)?.map(|case| Box::new(case) as _),
            Self::Attention(spec) => spec.prepare(inputs)?.map(|case| Box::new(case) as _),
            Self::Linear(spec) => spec.prepare(inputs)?.map(|case| Box::new(case) as _),
            Self::Mask(spec) => spec.prepare(inputs)?.map(|case| Box::new(case) as _),
        })
    }
}

/// Runs what is asked for.
///
/// # Errors
/// [`crate::Error::Input`] for cases and files that are not understood and an only case that does not apply, and whatever an operation returns while it is timed.
/// A wrong result is no error here: its row is not verified and has no time.
pub fn run(request: &Request, watcher: &mut dyn Watcher) -> Result<Document> {
    let mut inputs = Inputs::new(request);
    if accuracy::is_asked_for(request)? {
        return accuracy::run(request, &mut inputs, watcher);
    }
    watcher.doing("planning");
    let planned = plan(request, &mut inputs)?;
    inputs.take_remarks().iter().for_each(|line| watcher.say(line));
    watcher.begin(planned.len());
    watcher.doing("measuring the limits of the device");
    let best = roofline::Limits::measure(&request.device, request.quick)?;
    let limits = match request.device.kind() {
        Kind::Emulated => {
            watcher.say("device emulated: times are of the emulation and say nothing about a GPU");
            timing::Limits::emulated()
        }
        _ if request.quick => timing::Limits::quick(),
        _ => timing::Limits::usual(),
    };
    let mut document = empty_document(&request.device.to_string(), Some(&best));
    for case in planned {
        let line = case.line().to_string();
        watcher.doing(&line);
        let prepared = case.prepare(&mut inputs)?;
        inputs.take_remarks().iter().for_each(|line| watcher.say(line));
        let outcome = match prepared {
            Err(reason) => Err(reason),
            Ok(mut case) => measure(&mut *case, &request.device, &limits, &best)?,
        };
        match outcome {
            Err(reason) if request.only.is_some() => return Err(does_not_apply(line, reason)),
            Err(reason) => document.skipped.push(Skipped { case: line, reason }),
            Ok(row) => {
                watcher.done(&row)?;
                document.rows.push(row);
            }
        }
    }
    Ok(document)
}

fn does_not_apply(line: String, reason: String) -> Error {
    InputError::new("--only", line, "a case that applies").hint(reason).into()
}

/// Takes the element type out of a case.
fn float_dtype(line: &mut Line) -> Result<Dtype> {
    match line.need("dtype")?.as_str() {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::BF16),
        other => Err(line.refuse(&format!("dtype={other}"), "f32, f16 or bf16")),
    }
}

fn plan(request: &Request, inputs: &mut Inputs) -> Result<Vec<Planned>> {
    if let Some(only) = &request.only {
        return Ok(vec![Planned::parse(only)?]);
    }
    if request.svd.is_none() && request.mask.is_none() && request.input.is_some() {
        let error = InputError::new("--input", "a file of matrices for attention or linear", "no file");
        let hint =
            "kvbench svd and mask take files; attention needs queries, keys and values together, linear layers are synthetic";
        return Err(error.hint(hint).into());
    }
    let mut planned = Vec::new();
    if let Some(sweep) = &request.svd {
        planned.extend(svd::plan(sweep, request, inputs)?.into_iter().map(Planned::Svd));
    }
    if let Some(sweep) = &request.attention.as_ref().filter(|_| request.input.is_none()) {
        planned.extend(attention::plan(sweep, request, inputs)?.into_iter().map(Planned::Attention));
    }
    if let Some(sweep) = request.linear.as_ref().filter(|_| request.input.is_none()) {
        planned.extend(linear::plan(sweep, request).into_iter().map(Planned::Linear));
    }
    if let Some(sweep) = &request.mask {
        planned.extend(mask::plan(sweep, request, inputs)?.into_iter().map(Planned::Mask));
    }
    Ok(planned)
}

fn empty_document(device: &str, best: Option<&roofline::Limits>) -> Document {
    let mut about = DeviceInfo { name: device.to_owned(), ..DeviceInfo::default() };
    if let Some(best) = best {
        best.describe(&mut about);
    }
    Document {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: host::commit(),
        host: host::host(),
        device: about,
        rows: Vec::new(),
        beyond: Vec::new(),
        skipped: Vec::new(),
    }
}
