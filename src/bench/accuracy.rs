//! The accuracy of truncated SVD over a grid, held against an f64 SVD of what the dtype holds.
//!
//! Figures of a case, the worst of its matrices, with eps = 2^-23, that of the f32 factors, and Frobenius norms:
//! - `optimal_ratio`, the error over the least possible one at that rank, and `of_limit`, over what the mode promises
//! - `orthogonality_u` = ||U'U - 1|| / (m eps) and `orthogonality_v` = ||V'V - 1|| / (n eps)
//! - `residual` = ||A V - U S|| / (||A|| max(m, n) eps)
//! - `singular_values` = max |s - s_exact| / (s_1 max(m, n) eps)
//!
//! Verified means that the error is within what the mode promises and the factors are orthonormal; in `Safe`, where no sketch
//! was made, that singular values and A V = U S hold down to rounding as well.

use super::{
    Line, Prepared, Request, Verdict, Watcher, Work, case,
    data::{Inputs, Matrices},
    does_not_apply, empty_document,
    factors::Factors,
    float_dtype,
    oracle::worst_of,
    spectrum::{Shape, Spectrum},
};
use crate::{
    Dtype, Result,
    device::Kind,
    report::{Document, Row, Skipped},
    svd::{self, Info, Mode, Options, Rank},
};

const OP: &str = "svd-accuracy";
const EPS: f64 = f32::EPSILON as f64;

/// The modes by name.
const MODES: [(&str, Mode); 2] = [("safe", Mode::Safe), ("fast", Mode::Fast)];

/// s_1 / s_rank that `Fast` is meant for, and what a dtype may add to a condition made to that measure.
const FAST_KAPPA: f64 = 300.0 * 1.01;

const KAPPAS: [f64; 7] = [1.0, 10.0, 100.0, 300.0, 1e3, 1e4, 1e5];
const FEW_KAPPAS: [f64; 4] = [1.0, 100.0, 300.0, 1e5];

/// Matrices [rows, cols] and the rank asked of them: tall, wide, odd, one that is taken whole, and a sketched one last.
const SHAPES: [([usize; 2], usize); 10] = [
    ([300, 64], 16),
    ([64, 300], 24),
    ([97, 59], 59),
    ([111, 97], 31),
    ([1025, 32], 11),
    ([1025, 128], 32),
    ([128, 513], 64),
    ([391, 256], 48),
    ([600, 512], 64),
    ([1111, 1030], 40),
];
const QUICK_SHAPES: [([usize; 2], usize); 4] = [([97, 59], 13), ([59, 300], 24), ([211, 128], 32), ([1051, 1030], 16)];
const EMULATED_SHAPES: [([usize; 2], usize); 4] = [([97, 33], 9), ([32, 59], 32), ([131, 96], 17), ([140, 131], 20)];
const REAL_RANKS: [usize; 3] = [8, 16, 32];

/// One case.
struct Spec {
    matrices: Matrices,
    dtype: Dtype,
    rank: usize,
    mode: Mode,
}

/// Whether a request is for this grid, or for a case of it.
pub(super) fn is_asked_for(request: &Request) -> Result<bool> {
    match &request.only {
        Some(only) => Ok(only.parse::<Line>()?.op == OP),
        None => Ok(request.accuracy),
    }
}

/// Runs the grid, or the only case asked for.
pub(super) fn run(request: &Request, inputs: &mut Inputs, watcher: &mut dyn Watcher) -> Result<Document> {
    let planned = match &request.only {
        Some(only) => vec![Spec::parse(only.parse()?)?],
        None => plan(request, inputs)?,
    };
    inputs.take_remarks().iter().for_each(|line| watcher.say(line));
    watcher.begin(planned.len());
    let mut document = empty_document(&request.device.to_string(), None);
    for spec in planned {
        let line = spec.line().to_string();
        watcher.doing(&line);
        match spec.measure(inputs)? {
            Err(reason) if request.only.is_some() => return Err(does_not_apply(line, reason)),
            Err(reason) => document.skipped.push(Skipped { case: line, reason }),
            Ok((row, promised)) => {
                watcher.done(&row)?;
                if promised { &mut document.rows } else { &mut document.beyond }.push(row);
            }
        }
    }
    Ok(document)
}

/// The grid: matrices of a file, or spectra and, where there is one, the cache of the real model.
fn plan(request: &Request, inputs: &mut Inputs) -> Result<Vec<Spec>> {
    let mut sources: Vec<(Matrices, usize)> = Vec::new();
    let mut add = |found: Vec<Matrices>| {
        sources.extend(found.into_iter().flat_map(|m| REAL_RANKS.map(|rank| (m.clone(), rank))));
    };
    let emulated = request.device.kind() == Kind::Emulated;
    match &request.input {
        Some(path) => add(inputs.file_matrices(path)?),
        None if !emulated && inputs.has_model() => add(inputs.model_matrices(request.quick)),
        None => {}
    }
    if request.input.is_none() {
        sources.extend(synthetic(request, emulated));
    }
    let dtypes = request.dtypes.clone().unwrap_or_else(|| vec![Dtype::F32, Dtype::F16, Dtype::BF16]);
    let mut specs = Vec::new();
    for (matrices, rank) in sources {
        for dtype in dtypes.iter().copied() {
            specs.extend(MODES.map(|(_, mode)| Spec { matrices: matrices.clone(), dtype, rank, mode }));
        }
    }
    Ok(specs)
}

fn synthetic(request: &Request, emulated: bool) -> Vec<(Matrices, usize)> {
    let shapes = match (emulated, request.quick) {
        (true, quick) => &EMULATED_SHAPES[..if quick { 1 } else { EMULATED_SHAPES.len() }],
        (false, true) => &QUICK_SHAPES[..],
        (false, false) => &SHAPES[..],
    };
    let kappas = if emulated || request.quick { &FEW_KAPPAS[..] } else { &KAPPAS[..] };
    let mut sources = Vec::new();
    for ([rows, cols], rank) in shapes.iter().copied() {
        for (_, shape) in Shape::NAMES {
            for kappa in kappas.iter().copied().filter(|kappa| *kappa > 1.0 || shape.differs_at_one()) {
                let spectrum = Spectrum { shape, kappa, rank };
                sources.push((Matrices::Made { spectrum, rows, cols, seed: request.seed }, rank));
            }
        }
    }
    sources
}

impl Spec {
    fn line(&self) -> Line {
        let mode = MODES.iter().find(|(_, mode)| *mode == self.mode).map_or("", |(name, _)| name);
        let line = self.matrices.describe(Line::new(OP)).with("dtype", self.dtype.to_string());
        line.with("rank", self.rank).with("mode", mode)
    }

    fn parse(mut line: Line) -> Result<Self> {
        let (matrices, dtype) = (Matrices::parse(&mut line)?, float_dtype(&mut line)?);
        let (rank, mode) = (line.count("rank", 1 << 20)?, line.need("mode")?);
        let found = MODES.iter().find(|(name, _)| *name == mode).map(|(_, mode)| *mode);
        let mode = found.ok_or_else(|| line.refuse(&format!("mode={mode}"), "safe or fast"))?;
        line.finish()?;
        Ok(Self { matrices, dtype, rank, mode })
    }

    /// The row, and whether the mode promises anything about it; or why the case does not apply.
    fn measure(&self, inputs: &mut Inputs) -> Result<Prepared<(Row, bool)>> {
        let batch = match inputs.batch(&self.matrices, self.dtype)? {
            Ok(batch) => batch,
            Err(reason) => return Ok(Err(reason)),
        };
        let device = inputs.device().clone();
        let [count, rows, cols] = batch.dimensions();
        if self.rank > rows.min(cols) {
            return Ok(Err(format!("rank {} is over the {} that a {rows} x {cols} matrix has", self.rank, rows.min(cols))));
        }
        if batch.norms.iter().any(|norm| !norm.is_finite()) {
            return Ok(Err("its matrices hold NaN or Inf".to_owned()));
        }
        let options = Options { mode: self.mode, ..Options::default() };
        let result = svd::truncated(&batch.tensor, Rank::Fixed(self.rank), &options);
        let (verdict, promised, solved) = match result.and_then(|svd| Factors::all(&svd, &batch)) {
            Err(error) if error.is_refusal() => return Ok(Err(error.to_string())),
            Err(error) => (Verdict { note: Some(error.to_string()), ..Verdict::default() }, true, "failed"),
            Ok(factors) => {
                let promised = factors.iter().all(|f| self.promises(f));
                (self.judge(&factors, [rows, cols], promised), promised, highest_rung(&factors))
            }
        };
        let about = vec![("shape", format!("{count}x{rows}x{cols}")), ("solved", solved.to_owned())];
        let row = case::untimed(self.line(), about, self.dtype.to_string(), &device, verdict, Work::default());
        Ok(Ok((row, promised)))
    }

    /// Whether the mode says anything about the error of such a matrix.
    fn promises(&self, factors: &Factors) -> bool {
        self.mode == Mode::Safe || factors.kappa <= FAST_KAPPA
    }

    /// The largest error, relative to the norm, that the mode allows.
    fn limit(&self, factors: &Factors) -> f64 {
        let (ratio, rounding) = match (self.mode, factors.info) {
            (Mode::Safe, _) => (1.001, 16.0),
            (Mode::Fast, Info::Sketched(_)) => (1.02, 400.0),
            (Mode::Fast, _) => (1.001, 400.0),
        };
        ratio * factors.optimum + rounding * EPS
    }

    fn judge(&self, factors: &[Factors], [rows, cols]: [usize; 2], promised: bool) -> Verdict {
        let worst = |figure: &dyn Fn(&Factors) -> f64| worst_of(factors.iter().map(figure));
        let (m, n, most) = (rows as f64 * EPS, cols as f64 * EPS, rows.max(cols) as f64 * EPS);
        let error = vec![
            ("relative", worst(&|f| f.relative)),
            ("optimal_ratio", worst(&|f| f.optimal_ratio(rows.min(cols)))),
            ("of_limit", worst(&|f| f.relative / self.limit(f))),
            ("orthogonality_u", worst(&|f| f.skew[0] / m)),
            ("orthogonality_v", worst(&|f| f.skew[1] / n)),
            ("residual", worst(&|f| f.residual / most)),
            ("singular_values", worst(&|f| f.values / most)),
        ];
        let exact = self.mode == Mode::Safe && !factors.iter().any(|f| matches!(f.info, Info::Sketched(_)));
        let held = if exact {
            &["of_limit", "orthogonality_u", "orthogonality_v", "residual", "singular_values"][..]
        } else {
            &["of_limit", "orthogonality_u", "orthogonality_v"]
        };
        let over: Vec<&str> =
            error.iter().filter(|(name, x)| held.contains(name) && (x.is_nan() || *x > 1.0)).map(|(name, _)| *name).collect();
        let sound = factors.iter().all(|f| !f.is_marked() && f.rank == self.rank && f.descends);
        let note = match (promised, sound) {
            (false, _) => Some("s_1 / s_rank is beyond what this mode promises anything for".to_owned()),
            (true, false) => Some("a verdict, or the order of its singular values, is wrong".to_owned()),
            (true, true) => (!over.is_empty()).then(|| format!("over 1: {}", over.join(", "))),
        };
        Verdict { passed: over.is_empty() && sound, error, figures: vec![("kappa", worst(&|f| f.kappa))], note }
    }
}

/// The highest rung that any matrix needed.
fn highest_rung(factors: &[Factors]) -> &'static str {
    let height = |info| match info {
        Info::Solved(rung) | Info::Sketched(rung) => rung as usize,
        Info::NonFinite | Info::Stuck => 3,
    };
    let highest = factors.iter().map(|f| height(f.info)).max().unwrap_or(0);
    ["single", "double", "jacobi", "failed"][highest]
}
