//! Cases of masks by magnitude.
//!
//! Verified bit by bit against a stable sort of the magnitudes in f64. The rival is the same by a plain sort: of every
//! row, every group, or all elements, over the same threads.
//!
//! Work of a call on rows x cols scores of element size e: bytes = rows cols e + the bytes of the mask, every score read
//! once and every bit written once; flops = rows cols, a comparison for each score.

use std::fmt;

use rayon::prelude::*;

use super::{
    Case, Line, Prepared, Request, Verdict, Work,
    data::{Inputs, Matrices},
    timing::Side,
};
use crate::{
    Dtype, Error, InputError, Result, Scratch, Tensor,
    device::Kind,
    sparse::{self, Mask, Scope},
};

/// What to sweep over. `None` is what comes natural.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Rows.
    pub rows: Option<Vec<usize>>,
    /// Columns.
    pub cols: Option<Vec<usize>>,
    /// Shares of the elements to keep; patterns say themselves what they keep.
    pub density: Option<Vec<f64>>,
    /// Among which elements the largest are kept.
    pub scope: Option<Vec<Among>>,
}

/// Scores to choose by: the magnitude of a weight.
pub const SCORES: [&str; 1] = ["magnitude"];

/// Among which elements a share is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// Those of each row.
    Row,
    /// All.
    Tensor,
    /// `n` of each `m`.
    Pattern {
        /// Elements kept of a group.
        n: usize,
        /// Length of a group.
        m: usize,
    },
}

impl Among {
    /// Scopes by name: `row,tensor,2:4`.
    ///
    /// # Errors
    /// [`Error::Input`] that names `flag`, for anything else.
    pub fn list(flag: &str, text: &str) -> Result<Vec<Self>> {
        let refuse = || -> Error {
            let limit = format!("row, tensor or N:M with 1 <= N <= M <= {}", sparse::MAX_PATTERN);
            InputError::new(flag, format!("{text:?}"), limit).hint("separate several by commas").into()
        };
        text.split(',').map(|name| Self::parse(name).ok_or_else(refuse)).collect()
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "row" => Some(Self::Row),
            "tensor" => Some(Self::Tensor),
            _ => {
                let (n, m) = name.split_once(':')?;
                let (n, m) = (n.parse().ok()?, m.parse().ok()?);
                ((1..=sparse::MAX_PATTERN).contains(&m) && (1..=m).contains(&n)).then_some(Self::Pattern { n, m })
            }
        }
    }
}

impl fmt::Display for Among {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row => f.write_str("row"),
            Self::Tensor => f.write_str("tensor"),
            Self::Pattern { n, m } => write!(f, "{n}:{m}"),
        }
    }
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    matrices: Matrices,
    dtype: Dtype,
    among: Among,
    /// Share to keep; none for a pattern.
    density: Option<f64>,
}

/// The cases of a sweep: synthetic scores unless a file is given.
pub(super) fn plan(sweep: &Sweep, request: &Request, inputs: &mut Inputs) -> Result<Vec<Spec>> {
    let usual = match request.device.kind() {
        Kind::Emulated => 256,
        _ if request.quick => 512,
        _ => 2048,
    };
    let or = |list: &Option<Vec<usize>>| list.clone().unwrap_or_else(|| vec![usual]);
    let sources = match &request.input {
        Some(path) => inputs.file_matrices(path)?,
        None => {
            let shapes = or(&sweep.rows).into_iter().flat_map(|rows| or(&sweep.cols).into_iter().map(move |cols| (rows, cols)));
            shapes.map(|(rows, cols)| Matrices::Power { batch: 1, rows, cols, seed: request.seed }).collect()
        }
    };
    let dtypes = request.dtypes.clone().unwrap_or_else(|| vec![Dtype::F32]);
    let scopes = sweep.scope.clone().unwrap_or_else(|| vec![Among::Row, Among::Tensor, Among::Pattern { n: 2, m: 4 }]);
    let shares: Vec<Option<f64>> = sweep.density.clone().unwrap_or_else(|| vec![0.5]).into_iter().map(Some).collect();
    let mut specs = Vec::new();
    for matrices in &sources {
        for dtype in dtypes.iter().copied() {
            for among in scopes.iter().copied() {
                let shares = if matches!(among, Among::Pattern { .. }) { &[None][..] } else { &shares };
                let spec = |density: &Option<f64>| Spec { matrices: matrices.clone(), dtype, among, density: *density };
                specs.extend(shares.iter().map(spec));
            }
        }
    }
    Ok(specs)
}

impl Spec {
    pub(super) fn line(&self) -> Line {
        let line = self.matrices.describe(Line::new("mask")).with("dtype", self.dtype.to_string());
        let line = line.with("score", SCORES[0]).with("scope", self.among.to_string());
        match self.density {
            Some(density) => line.with("density", density),
            None => line,
        }
    }

    pub(super) fn parse(mut line: Line) -> Result<Self> {
        let matrices = Matrices::parse(&mut line)?;
        let dtype = super::float_dtype(&mut line)?;
        let score = line.need("score")?;
        if !SCORES.contains(&score.as_str()) {
            return Err(line.refuse(&format!("score={score}"), SCORES[0]));
        }
        let scope = line.need("scope")?;
        let among = Among::parse(&scope).ok_or_else(|| line.refuse(&format!("scope={scope}"), "row, tensor or N:M"))?;
        let density = match among {
            Among::Pattern { .. } => None,
            _ => Some(line.share("density")?),
        };
        line.finish()?;
        Ok(Self { matrices, dtype, among, density })
    }

    pub(super) fn prepare(&self, inputs: &mut Inputs) -> Result<Prepared<Masking>> {
        let scores = match inputs.matrices(&self.matrices, self.dtype)? {
            Ok(scores) => scores,
            Err(reason) => return Ok(Err(reason)),
        };
        let &[batch, rows, cols] = scores.shape() else { return Ok(Err("needs matrices".to_owned())) };
        let scores = scores.reshape(&[batch * rows, cols])?;
        let wide = scores.to_f32_vec()?;
        if wide.iter().any(|x| x.is_nan()) {
            return Ok(Err("a NaN has no magnitude to compare".to_owned()));
        }
        let keep = |of: usize| (self.density.unwrap_or(1.0) * of as f64).round() as usize;
        let scope = match self.among {
            Among::Row => Scope::Row { keep: keep(cols) },
            Among::Tensor => Scope::Tensor { keep: keep(scores.len()) },
            Among::Pattern { n, m } => Scope::Pattern { n, m },
        };
        let device = inputs.device();
        let out = Mask::zeros(batch * rows, cols, device)?;
        Ok(Ok(Masking { spec: self.clone(), scores, wide, scope, out, scratch: Scratch::new(device) }))
    }
}

/// A case with its scores.
pub(super) struct Masking {
    spec: Spec,
    scores: Tensor,
    /// The same scores for the oracle and the rival, on the host.
    wide: Vec<f32>,
    scope: Scope,
    out: Mask,
    scratch: Scratch,
}

impl Masking {
    /// How many neighbours, and of them how many to keep; rows end groups.
    fn groups(&self) -> (usize, usize) {
        match self.scope {
            Scope::Row { keep } => (self.out.cols(), keep),
            Scope::Tensor { keep } => (self.wide.len(), keep),
            Scope::Pattern { n, m } => (m, n),
        }
    }

    /// What to keep by `sort`, which puts positions in a slice of scores in the order of their magnitudes.
    fn kept_by(&self, sort: impl Fn(&[f32], &mut [u32]) + Sync) -> Vec<bool> {
        let (group, keep) = self.groups();
        let row = if matches!(self.scope, Scope::Tensor { .. }) { self.wide.len() } else { self.out.cols() };
        let mut kept = vec![false; self.wide.len()];
        kept.par_chunks_mut(row).zip(self.wide.par_chunks(row)).for_each(|(kept, scores)| {
            let mut order: Vec<u32> = (0..row as u32).collect();
            for group in order.chunks_mut(group) {
                sort(scores, group);
                group.iter().take(keep).for_each(|at| kept[*at as usize] = true);
            }
        });
        kept
    }

    fn by_sort(&self) -> Vec<bool> {
        let order =
            |scores: &[f32], a: u32, b: u32| scores[b as usize].abs().total_cmp(&scores[a as usize].abs()).then(a.cmp(&b));
        match self.scope {
            Scope::Tensor { .. } => self.kept_by(|scores, at| at.par_sort_unstable_by(|a, b| order(scores, *a, *b))),
            _ => self.kept_by(|scores, at| at.sort_unstable_by(|a, b| order(scores, *a, *b))),
        }
    }

    fn oracle(&self) -> Vec<bool> {
        let magnitude = |scores: &[f32], at: u32| f64::from(scores[at as usize]).abs();
        self.kept_by(|scores, at| at.sort_by(|a, b| magnitude(scores, *b).total_cmp(&magnitude(scores, *a))))
    }
}

impl Case for Masking {
    fn line(&self) -> Line {
        self.spec.line()
    }

    fn about(&self) -> Vec<(&'static str, String)> {
        vec![("shape", format!("{}x{}", self.out.rows(), self.out.cols()))]
    }

    fn dtype(&self) -> String {
        self.spec.dtype.to_string()
    }

    fn verify(&mut self) -> Result<Verdict> {
        sparse::mask_into(&mut self.out, &self.scores, self.scope, &mut self.scratch)?;
        let found = self.out.to_bools()?;
        let oracle = self.oracle();
        let wrong = found.iter().zip(&oracle).filter(|(found, right)| found != right).count();
        let energy = |x: &f32| f64::from(*x).powi(2);
        let all: f64 = self.wide.iter().map(energy).sum();
        let lost: f64 = self.wide.iter().zip(&found).filter(|(_, kept)| !**kept).map(|(x, _)| energy(x)).sum();
        let relative = if all > 0.0 { (lost / all).sqrt() } else { 0.0 };
        let kept = found.iter().filter(|kept| **kept).count() as f64 / found.len() as f64;
        Ok(Verdict {
            passed: wrong == 0,
            error: vec![("relative", relative), ("wrong_bits", wrong as f64)],
            figures: vec![("density", kept)],
            note: None,
        })
    }

    fn work(&self) -> Work {
        Work { bytes: (self.scores.bytes() + self.out.bits().bytes()) as u64, flops: self.scores.len() as u64 }
    }

    fn baseline(&self) -> Option<String> {
        let host = match self.scores.device().kind() {
            Kind::Cpu => "same threads",
            Kind::Emulated => return None,
            Kind::Cuda => "on the CPU",
        };
        Some(format!("a sort of magnitudes, {host}"))
    }

    fn call(&mut self, side: Side) -> Result<()> {
        match side {
            Side::Ours => sparse::mask_into(&mut self.out, &self.scores, self.scope, &mut self.scratch),
            Side::Baseline => {
                std::hint::black_box(self.by_sort());
                Ok(())
            }
        }
    }
}
