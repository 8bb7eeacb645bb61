//! Cases of batched truncated SVD.
//!
//! Verified against the singular values of an f64 SVD of the same matrices (faer's, made once per input): they give the
//! least error that a rank can have. The rival is faer's `thin_svd` of every matrix, in f32, over the same threads.
//!
//! Work of a call on batch matrices m x n of element size e at rank r, counting what no method can avoid:
//! bytes = batch (m n e + 4 (m + n + 1) r), every matrix read once and its factors written once;
//! flops = batch (m n (n + 1) + 2 m n r) with n <= m, a Gram matrix and a projection.

use std::rc::Rc;

use faer::MatRef;
use rayon::prelude::*;

use super::{
    Case, Line, Prepared, Request, Verdict, Work,
    data::{Batch, Inputs, Matrices},
    factors::Factors,
    oracle::worst_of,
    timing::Side,
};
use crate::{
    Dtype, Error, Result,
    device::Kind,
    svd::{self, Options, Rank, Rung, Svd},
};

/// Largest error over the least possible one for a result to count as right.
const OPTIMAL_LIMIT: f64 = 1.001;
/// Largest entry of U'U - 1 or V'V - 1, in f32, for a result to count as right.
const ORTHOGONALITY_LIMIT: f64 = 1e-4;

/// What to sweep over. `None` is what comes natural.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// Matrices at a time.
    pub batch: Option<Vec<usize>>,
    /// Rows.
    pub rows: Option<Vec<usize>>,
    /// Columns.
    pub cols: Option<Vec<usize>>,
    /// Ranks.
    pub rank: Option<Vec<usize>>,
    /// Relative errors to stay below, instead of ranks.
    pub tolerance: Option<Vec<f64>>,
    /// Where the ladder of methods starts.
    pub start: Option<Vec<Rung>>,
}

/// The rungs by name.
pub const STARTS: [(&str, Rung); 3] = [("single", Rung::Single), ("double", Rung::Double), ("jacobi", Rung::Jacobi)];

#[derive(Clone, Copy, Debug)]
enum Asked {
    Rank(usize),
    Tolerance(f64),
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    matrices: Matrices,
    dtype: Dtype,
    asked: Asked,
    start: Rung,
}

/// The cases of a sweep: real data unless shapes or a file are given.
pub(super) fn plan(sweep: &Sweep, request: &Request, inputs: &mut Inputs) -> Result<Vec<Spec>> {
    let emulated = request.device.kind() == Kind::Emulated;
    let shaped = sweep.batch.is_some() || sweep.rows.is_some() || sweep.cols.is_some();
    let sources = match &request.input {
        Some(path) => inputs.file_matrices(path)?,
        None if !shaped && !emulated && inputs.has_model() => inputs.model_matrices(request.quick),
        None => synthetic(sweep, request),
    };
    let asked: Vec<Asked> = match (&sweep.tolerance, &sweep.rank) {
        (Some(tolerances), _) => tolerances.iter().map(|t| Asked::Tolerance(*t)).collect(),
        (None, Some(ranks)) => ranks.iter().map(|r| Asked::Rank(*r)).collect(),
        (None, None) if emulated => [8, 24].map(Asked::Rank).to_vec(),
        (None, None) => [8, 16, 24, 32, 48, 64].map(Asked::Rank).to_vec(),
    };
    let dtypes = request.dtypes.clone().unwrap_or_else(|| vec![Dtype::F32]);
    let mut specs = Vec::new();
    for matrices in &sources {
        for dtype in dtypes.iter().copied() {
            for start in sweep.start.as_deref().unwrap_or(&[Rung::Single]).iter().copied() {
                specs.extend(asked.iter().map(|asked| Spec { matrices: matrices.clone(), dtype, asked: *asked, start }));
            }
        }
    }
    Ok(specs)
}

fn synthetic(sweep: &Sweep, request: &Request) -> Vec<Matrices> {
    let or = |list: &Option<Vec<usize>>, usual: usize| list.clone().unwrap_or_else(|| vec![usual]);
    let usual = if request.device.kind() == Kind::Emulated { [2, 128, 32] } else { [16, 1024, 64] };
    let mut sources = Vec::new();
    for batch in or(&sweep.batch, usual[0]) {
        for rows in or(&sweep.rows, usual[1]) {
            for cols in or(&sweep.cols, usual[2]) {
                sources.push(Matrices::Power { batch, rows, cols, seed: request.seed });
            }
        }
    }
    sources
}

impl Spec {
    pub(super) fn line(&self) -> Line {
        let line = self.matrices.describe(Line::new("svd")).with("dtype", self.dtype.to_string());
        let line = match self.asked {
            Asked::Rank(rank) => line.with("rank", rank),
            Asked::Tolerance(tolerance) => line.with("tolerance", tolerance),
        };
        let named = STARTS.iter().find(|(_, rung)| *rung == self.start && self.start != Rung::default());
        named.map_or_else(|| line.clone(), |(name, _)| line.clone().with("start", *name))
    }

    pub(super) fn parse(mut line: Line) -> Result<Self> {
        let matrices = Matrices::parse(&mut line)?;
        let dtype = super::float_dtype(&mut line)?;
        let asked = match line.take("tolerance") {
            None => Asked::Rank(line.count("rank", 1 << 20)?),
            Some(text) => {
                let tolerance = text.parse().ok().filter(|t| *t > 0.0 && *t < 1.0);
                let limit = "a number between 0 and 1";
                Asked::Tolerance(tolerance.ok_or_else(|| line.refuse(&format!("tolerance={text}"), limit))?)
            }
        };
        let start = match line.take("start") {
            None => Rung::default(),
            Some(name) => {
                let found = STARTS.iter().find(|(known, _)| *known == name).map(|(_, rung)| *rung);
                found.ok_or_else(|| line.refuse(&format!("start={name}"), "single, double or jacobi"))?
            }
        };
        line.finish()?;
        Ok(Self { matrices, dtype, asked, start })
    }

    pub(super) fn prepare(&self, inputs: &mut Inputs) -> Result<Prepared<Truncation>> {
        let batch = match inputs.batch(&self.matrices, self.dtype)? {
            Ok(batch) => batch,
            Err(reason) => return Ok(Err(reason)),
        };
        let [count, rows, cols] = batch.dimensions();
        if batch.norms.iter().all(|norm| !norm.is_finite()) {
            return Ok(Err(format!("every one of its {count} matrices holds NaN or Inf")));
        }
        let most = rows.min(cols);
        if let Some(limit) = svd::max_columns(inputs.device())
            && most > limit
        {
            return Ok(Err(format!("the smaller side of a {rows} x {cols} matrix is over {limit}")));
        }
        let rank = match self.asked {
            Asked::Rank(rank) if rank > most => {
                return Ok(Err(format!("rank {rank} is over the {most} that a {rows} x {cols} matrix has")));
            }
            Asked::Rank(rank) => Rank::Fixed(rank),
            Asked::Tolerance(relative) => Rank::Tolerance { relative, max: most },
        };
        Ok(Ok(Truncation { spec: self.clone(), batch, rank, kept: 0.0 }))
    }
}

/// A case with its matrices.
pub(super) struct Truncation {
    spec: Spec,
    batch: Rc<Batch>,
    rank: Rank,
    /// Columns kept, on average over the batch; known once verified.
    kept: f64,
}

impl Truncation {
    fn ours(&self) -> Result<Svd> {
        svd::truncated(&self.batch.tensor, self.rank, &Options { start: self.spec.start, ..Options::default() })
    }

    fn theirs(&self) -> Result<()> {
        let [_, rows, cols] = self.batch.dimensions();
        self.batch.wide.par_chunks(rows * cols).try_for_each(|matrix| {
            let svd = MatRef::from_row_major_slice(matrix, rows, cols).thin_svd();
            svd.map(|svd| drop(std::hint::black_box(svd)))
                .map_err(|_| Error::Numeric { op: "thin_svd", what: "faer's SVD did not converge".to_owned() })
        })
    }

    fn judge(&self, factors: &[Factors]) -> Verdict {
        let finite: Vec<&Factors> = factors.iter().filter(|f| f.norm.is_finite()).collect();
        let worst = |figure: fn(&Factors) -> f64| worst_of(finite.iter().map(|f| figure(f)));
        let [_, rows, cols] = self.batch.dimensions();
        let optimal_ratio = worst_of(finite.iter().map(|f| f.optimal_ratio(rows.min(cols))));
        let mut passed = optimal_ratio <= OPTIMAL_LIMIT
            && worst(|f| f.orthogonality) <= ORTHOGONALITY_LIMIT
            && factors.iter().all(|f| f.norm.is_finite() != f.is_marked());
        if let Asked::Tolerance(tolerance) = self.spec.asked {
            passed &= worst(|f| f.relative) <= tolerance * OPTIMAL_LIMIT;
            let fewest = |i: usize| self.batch.rank_for(i, tolerance / OPTIMAL_LIMIT);
            passed &= factors.iter().enumerate().all(|(i, f)| f.rank <= fewest(i));
        }
        let kept_bytes = self.kept * (rows + cols) as f64 / (rows * cols) as f64;
        let unusable = factors.len() - finite.len();
        Verdict {
            passed,
            error: vec![
                ("relative", worst(|f| f.relative)),
                ("optimal_ratio", optimal_ratio),
                ("orthogonality", worst(|f| f.orthogonality)),
            ],
            figures: vec![("kept_bytes", kept_bytes), ("mean_rank", self.kept)],
            note: (unusable > 0).then(|| format!("{unusable} of {} matrices hold NaN or Inf", factors.len())),
        }
    }
}

impl Case for Truncation {
    fn line(&self) -> Line {
        self.spec.line()
    }

    fn about(&self) -> Vec<(&'static str, String)> {
        let [batch, rows, cols] = self.batch.dimensions();
        vec![("shape", format!("{batch}x{rows}x{cols}"))]
    }

    fn dtype(&self) -> String {
        self.spec.dtype.to_string()
    }

    fn verify(&mut self) -> Result<Verdict> {
        let svd = self.ours()?;
        let factors = Factors::all(&svd, &self.batch)?;
        self.kept = factors.iter().map(|f| f.rank as f64).sum::<f64>() / factors.len().max(1) as f64;
        Ok(self.judge(&factors))
    }

    fn work(&self) -> Work {
        let [batch, rows, cols] = self.batch.dimensions();
        let (long, short) = (rows.max(cols) as f64, rows.min(cols) as f64);
        let flops = batch as f64 * long * short * (short + 1.0 + 2.0 * self.kept);
        let written = batch as f64 * 4.0 * (long + short + 1.0) * self.kept;
        Work { bytes: self.batch.tensor.bytes() as u64 + written as u64, flops: flops as u64 }
    }

    fn baseline(&self) -> Option<String> {
        let finite = self.batch.norms.iter().all(|norm| norm.is_finite());
        // Beside a GPU the CPU is no rival; tools/peers has those.
        let comparable = finite && self.batch.tensor.device().kind() == Kind::Cpu;
        comparable.then(|| "faer thin_svd of each matrix, f32, same threads".to_owned())
    }

    fn call(&mut self, side: Side) -> Result<()> {
        match side {
            Side::Ours => self.ours().map(|svd| drop(std::hint::black_box(svd))),
            Side::Baseline => self.theirs(),
        }
    }
}
